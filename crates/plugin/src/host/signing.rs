//! Host functions of `signing`: DKIM signatures and ARC seals with the operator's keys. Requires the grant `sign`.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use pintle_mail::address::domain_to_ascii;
use pintle_policy::{Edit, Hook};
use wasmtime::component::{HasData, Linker};

use super::checks::need;
use crate::bindings::pintle::plugin::signing::{self, Host, SigningKey};
use crate::bindings::pintle::plugin::types::HostError;
use crate::call::{CallState, unavailable};
use crate::call_dns::CallDns;
use crate::habits::{Habits, Lookup, Prefetched};
use crate::sender_auth_checks::{self, SenderAuthChecks};
use crate::store_data::{HostParts, StoreData};
use crate::{Gateway, GrantKind, Grants};

/// The longest domain that can have a key, in octets, as U-labels.
const MAX_DOMAIN: usize = 1_024;

/// Adds the interface to the linker.
pub(crate) fn link(linker: &mut Linker<StoreData>) -> wasmtime::Result<()> {
    signing::add_to_linker::<_, SigningInterface>(linker, |data| SigningView::of(data.parts()))
}

struct SigningInterface;

impl HasData for SigningInterface {
    type Data<'a> = SigningView<'a>;
}

/// The data that the interface accesses: the current call, the gateway's keys, and a resolver for the ARC chain that a
/// seal continues.
pub(crate) struct SigningView<'a> {
    call: &'a mut CallState,
    grants: &'a Grants,
    gateway: &'a ArcSwap<Gateway>,
    ahead: &'a mut Prefetched,
    habits: &'a Habits,
    dns: CallDns<'a>,
}

impl<'a> SigningView<'a> {
    pub(super) fn of(HostParts { services, state, grants, call, ahead, meter, .. }: HostParts<'a>) -> Self {
        Self {
            dns: CallDns::of(services, meter),
            call,
            grants,
            gateway: &services.gateway,
            ahead,
            habits: &state.habits,
        }
    }
}

impl Host for SigningView<'_> {
    fn keys(&mut self, domain: String, parents: bool) -> Result<Vec<SigningKey>, HostError> {
        need(self.grants, GrantKind::Sign)?;
        self.call.budget.charge(8 * domain.len() as u64)?;
        if domain.len() > MAX_DOMAIN {
            return Ok(Vec::new());
        }
        let domain = domain_to_ascii(&domain);
        let gateway = self.gateway.load();
        let mut at = domain.as_str();
        loop {
            let keys = keys_of(&gateway, at);
            match at.split_once('.') {
                Some((_, parent)) if parents && keys.is_empty() => at = parent,
                _ => return Ok(keys),
            }
        }
    }

    fn dkim_sign(&mut self, key: String) -> Result<(), HostError> {
        self.may_sign(&key, &[Hook::Message, Hook::Deliver])?;
        self.call.record(Edit::Sign(key), 0)
    }

    async fn arc_seal(&mut self, key: String) -> Result<(), HostError> {
        self.may_sign(&key, &[Hook::Message])?;
        self.check_chain().await?;
        self.call.record(Edit::Seal(key), 0)
    }
}

impl SigningView<'_> {
    fn may_sign(&self, key: &str, hooks: &[Hook]) -> Result<(), HostError> {
        need(self.grants, GrantKind::Sign)?;
        self.call.hook.filter(|hook| hooks.contains(hook)).ok_or_else(|| unavailable("signing so"))?;
        if self.gateway.load().has_key(key) {
            return Ok(());
        }
        Err(HostError::Invalid(format!("there is no key {key:?} in the configuration ([dkim_keys.NAME])")))
    }

    /// Computes the ARC result, since the seal records the chain's validation status.
    async fn check_chain(&mut self) -> Result<(), HostError> {
        let (session, transaction) = self.call.mail()?;
        let message = Arc::clone(self.call.message()?);
        let hostname = self.gateway.load().hostname.clone();
        let patience = sender_auth_checks::patience(self.dns.meter.left(Instant::now()));
        self.ahead.asks(self.habits, Lookup::Signatures);
        let resolver = Arc::clone(self.dns.resolver);
        let received = SenderAuthChecks::new(session, transaction, resolver, hostname, patience);
        received.signatures(&message).await.map_err(|error| HostError::Temporary(error.to_string()))?;
        Ok(())
    }
}

fn keys_of(gateway: &Gateway, domain: &str) -> Vec<SigningKey> {
    let key = |key: &crate::SigningKeyName| SigningKey {
        name: key.name.clone(),
        domain: domain.to_owned(),
        selector: key.selector.clone(),
    };
    gateway.keys.get(domain).into_iter().flatten().map(key).collect()
}
