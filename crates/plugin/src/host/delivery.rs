//! Host functions of `delivery`: the current delivery attempt, and its routing.

use std::net::IpAddr;
use std::time::Duration;

use arc_swap::ArcSwap;
use pintle_mail::{NextHop, TlsPolicy};
use pintle_policy::Edit;
use wasmtime::component::{HasData, Linker};

use super::checks::{self, need};
use crate::bindings::pintle::plugin::delivery::{
    self, Host, NextHop as GuestHop, Snapshot, TlsPolicy as GuestTls,
};
use crate::bindings::pintle::plugin::types::HostError;
use crate::call::CallState;
use crate::store_data::{HostParts, StoreData};
use crate::{Gateway, GrantKind, Grants, convert};

/// Maximum wait before the next attempt that a plugin may request, in seconds.
const MAX_RETRY: u32 = 7 * 86_400;
const MAX_HOP: usize = 255;
/// Budget charge for reading one recipient, in octets.
const RECIPIENT_COST: u64 = 64;

/// Adds the interface to the linker.
pub(crate) fn link(linker: &mut Linker<StoreData>) -> wasmtime::Result<()> {
    delivery::add_to_linker::<_, DeliveryInterface>(linker, |data| DeliveryView::of(data.parts()))
}

struct DeliveryInterface;

impl HasData for DeliveryInterface {
    type Data<'a> = DeliveryView<'a>;
}

/// The data that the interface accesses: the current call, and the configured relays.
pub(crate) struct DeliveryView<'a> {
    call: &'a mut CallState,
    grants: &'a Grants,
    gateway: &'a ArcSwap<Gateway>,
}

impl<'a> DeliveryView<'a> {
    fn of(HostParts { services, grants, call, .. }: HostParts<'a>) -> Self {
        Self { call, grants, gateway: &services.gateway }
    }
}

impl Host for DeliveryView<'_> {
    fn info(&mut self) -> Result<Snapshot, HostError> {
        self.charge_recipients()?;
        let delivery = self.call.delivery()?;
        Ok(Snapshot {
            attempt: delivery.attempt,
            age_s: delivery.age.as_secs(),
            recipients: delivery.recipients.iter().map(convert::recipient).collect(),
            next_hop: guest_hop(&delivery.next_hop),
            tls: guest_tls(delivery.tls),
            source: delivery.source.map(|address| address.to_string()),
        })
    }

    fn set_next_hop(&mut self, hop: GuestHop) -> Result<(), HostError> {
        need(self.grants, GrantKind::Route)?;
        let hop = match hop {
            GuestHop::Mx => NextHop::Mx(self.domain()?),
            GuestHop::Relay(name) => NextHop::Relay(hop_name(name)?),
            GuestHop::Lmtp(name) => NextHop::Lmtp(hop_name(name)?),
            GuestHop::Discard => {
                need(self.grants, GrantKind::DropMail)?;
                NextHop::Discard
            }
        };
        self.record_hop(hop)
    }

    fn set_tls(&mut self, policy: GuestTls) -> Result<(), HostError> {
        need(self.grants, GrantKind::Route)?;
        let policy = match policy {
            GuestTls::None => TlsPolicy::None,
            GuestTls::Opportunistic => TlsPolicy::Opportunistic,
            GuestTls::Required => TlsPolicy::Required,
            GuestTls::Verified => TlsPolicy::Verified,
            GuestTls::Dane | GuestTls::MtaSts => {
                return Err(HostError::Unavailable(
                    "this release does not support DANE or MTA-STS yet: use `verified` where that is enough"
                        .into(),
                ));
            }
        };
        self.record_delivery(Edit::Tls(policy))
    }

    fn set_source(&mut self, address: String) -> Result<(), HostError> {
        need(self.grants, GrantKind::Route)?;
        let address: IpAddr =
            address.parse().map_err(|_| HostError::Invalid(format!("{address:?} is not an IP address")))?;
        self.record_delivery(Edit::Source(address))
    }

    fn set_credentials(&mut self, name: String) -> Result<(), HostError> {
        need(self.grants, GrantKind::Route)?;
        checks::name("the credentials' name", &name)?;
        self.record_delivery(Edit::Credentials(name))
    }

    fn set_retry_after(&mut self, seconds: u32) -> Result<(), HostError> {
        let wait = Duration::from_secs(seconds.clamp(1, MAX_RETRY).into());
        self.record_delivery(Edit::RetryAfter(wait))
    }

    fn suppress_bounce(&mut self, recipient: u32) -> Result<(), HostError> {
        need(self.grants, GrantKind::DropMail)?;
        self.charge_recipients()?;
        let known = self.call.delivery()?.recipients.iter().any(|known| known.id == recipient);
        if !known {
            return Err(HostError::Invalid(format!("there is no recipient {recipient} in this delivery")));
        }
        self.record_delivery(Edit::NoBounce(recipient))
    }
}

impl DeliveryView<'_> {
    /// Checks the grant for a next hop. A hop that is not in the configuration could be anything reachable from this
    /// machine: a metadata service, a database, a socket of another program.
    fn record_hop(&mut self, hop: NextHop) -> Result<(), HostError> {
        let listed = match &hop {
            NextHop::Relay(name) | NextHop::Lmtp(name) => self.gateway.load().relays.contains(name),
            NextHop::Mx(_) | NextHop::Discard => true,
        };
        if listed {
            return self.record_delivery(Edit::NextHop(hop));
        }
        need(self.grants, GrantKind::RouteAnywhere)?;
        self.record_delivery(Edit::UnlistedHop(hop))
    }

    fn charge_recipients(&mut self) -> Result<(), HostError> {
        let count = self.call.delivery()?.recipients.len() as u64;
        self.call.budget.charge(RECIPIENT_COST * count)
    }

    fn record_delivery(&mut self, edit: Edit) -> Result<(), HostError> {
        self.call.delivery()?;
        self.call.record(edit, MAX_HOP)
    }

    /// The domain whose exchangers `mx` uses: all recipients of a delivery share one.
    fn domain(&mut self) -> Result<String, HostError> {
        let first = self.call.delivery()?.recipients.first();
        first
            .map(|recipient| recipient.address.domain_ascii())
            .ok_or_else(|| HostError::Invalid("the delivery has no recipient".into()))
    }
}

fn hop_name(name: String) -> Result<String, HostError> {
    checks::name("the next hop", &name)?;
    Ok(name)
}

fn guest_hop(hop: &NextHop) -> GuestHop {
    match hop {
        NextHop::Mx(_) => GuestHop::Mx,
        NextHop::Relay(name) => GuestHop::Relay(name.clone()),
        NextHop::Lmtp(name) => GuestHop::Lmtp(name.clone()),
        NextHop::Discard => GuestHop::Discard,
    }
}

fn guest_tls(policy: TlsPolicy) -> GuestTls {
    match policy {
        TlsPolicy::None => GuestTls::None,
        TlsPolicy::Opportunistic => GuestTls::Opportunistic,
        TlsPolicy::Required => GuestTls::Required,
        TlsPolicy::Verified => GuestTls::Verified,
    }
}
