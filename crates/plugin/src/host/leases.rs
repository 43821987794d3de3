//! Host functions of `leases`: counts of the sessions, transactions and delivery attempts that are under way. Requires
//! the grant `kv`.

use std::sync::Arc;

use pintle_policy::{Edit, Hook, Lease, LeaseScope, Leases};
use wasmtime::component::{HasData, Linker};

use super::checks::{bounded, need};
use crate::bindings::pintle::plugin::leases::{self, Host};
use crate::bindings::pintle::plugin::types::HostError;
use crate::call::{CallState, unavailable};
use crate::lease_counts::{LeaseCounts, MAX_KEYS, TooManyKeys};
use crate::store_data::{HostParts, StoreData};
use crate::{GrantKind, Grants};

/// Maximum length of a key, in octets.
const MAX_KEY: usize = 256;
/// Maximum number of leases that one plugin has on one session, transaction or delivery attempt.
const MAX_LEASES: usize = 64;
/// Budget charge of a lease, in octets: the view that holds it may have to be copied.
const LEASE_COST: u64 = 512;

/// Adds the interface to the linker.
pub(crate) fn link(linker: &mut Linker<StoreData>) -> wasmtime::Result<()> {
    leases::add_to_linker::<_, LeasesInterface>(linker, |data| LeasesView::of(data.parts()))
}

struct LeasesInterface;

impl HasData for LeasesInterface {
    type Data<'a> = LeasesView<'a>;
}

/// The data that the interface accesses: the plugin's counts, and the current call.
pub(crate) struct LeasesView<'a> {
    counts: &'a Arc<LeaseCounts>,
    grants: &'a Grants,
    call: &'a mut CallState,
}

impl<'a> LeasesView<'a> {
    pub(super) fn of(HostParts { state, grants, call, .. }: HostParts<'a>) -> Self {
        Self { counts: &state.leases, grants, call }
    }

    /// The leases on what the hook is about, with those of this call.
    fn held(&mut self, scope: LeaseScope) -> Result<&Leases, HostError> {
        Ok(match scope {
            LeaseScope::Session => &self.call.session()?.leases,
            LeaseScope::Transaction => &self.call.transaction()?.leases,
            LeaseScope::Delivery => &self.call.delivery()?.leases,
        })
    }
}

impl Host for LeasesView<'_> {
    fn take(&mut self, key: String, max: u32) -> Result<Option<u32>, HostError> {
        need(self.grants, GrantKind::Kv)?;
        let scope = self.call.hook.and_then(scope).ok_or_else(|| unavailable("a lease"))?;
        if key.is_empty() {
            return Err(HostError::Invalid("a lease's key is empty".into()));
        }
        bounded("a lease's key", key.len(), MAX_KEY)?;
        self.call.budget.charge(LEASE_COST + key.len() as u64)?;
        let judge = self.call.judge().to_owned();
        let held = self.held(scope)?;
        if held.holds(&judge, &key) {
            return Ok(Some(self.counts.count(&key)));
        }
        if held.count(&judge) >= MAX_LEASES {
            return Err(HostError::Limit(format!("a plugin has at most {MAX_LEASES} leases in one place")));
        }
        let key: Arc<str> = key.into();
        let taken = self.counts.take(&key, max).map_err(|TooManyKeys| {
            HostError::Limit(format!("a plugin counts leases under at most {MAX_KEYS} keys"))
        })?;
        let Some((count, guard)) = taken else { return Ok(None) };
        let octets = key.len();
        self.call.record(Edit::Lease(scope, Lease { key, guard: Arc::new(guard) }), octets)?;
        Ok(Some(count))
    }
}

/// What a lease is about that is taken in this hook; none in hooks after which nothing is left to count.
fn scope(hook: Hook) -> Option<LeaseScope> {
    match hook {
        Hook::Connect | Hook::Hello | Hook::AuthPassword | Hook::AuthResult => Some(LeaseScope::Session),
        Hook::Mail | Hook::Rcpt | Hook::Data | Hook::Headers | Hook::Message => Some(LeaseScope::Transaction),
        Hook::Deliver => Some(LeaseScope::Delivery),
        Hook::Queued | Hook::DeliveryResult | Hook::Disconnect | Hook::Timer => None,
    }
}
