//! `delivery`: the attempt of the call, and where it goes.

use std::net::IpAddr;
use std::time::Duration;

use pintle_mail::{NextHop, TlsPolicy};
use pintle_policy::Edit;

use crate::GrantKind;
use crate::bindings::pintle::plugin::delivery::{Host, NextHop as GuestHop, Snapshot, TlsPolicy as GuestTls};
use crate::bindings::pintle::plugin::types::HostError;
use crate::convert;
use crate::store_data::StoreData;

/// The longest wait that a plugin may ask for before the next attempt.
const MAX_RETRY: u32 = 7 * 86_400;
const MAX_HOP: usize = 255;
/// What looking at a recipient costs.
const RECIPIENT_COST: u64 = 64;

impl Host for StoreData {
    fn info(&mut self) -> Result<Snapshot, HostError> {
        self.charge_recipients()?;
        let delivery = self.live.delivery()?;
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
        self.need(GrantKind::Route)?;
        let hop = match hop {
            GuestHop::Mx => NextHop::Mx(self.domain()?),
            GuestHop::Relay(name) => NextHop::Relay(hop_name(name)?),
            GuestHop::Lmtp(name) => NextHop::Lmtp(hop_name(name)?),
            GuestHop::Discard => {
                self.need(GrantKind::DropMail)?;
                NextHop::Discard
            }
        };
        self.record_hop(hop)
    }

    fn set_tls(&mut self, policy: GuestTls) -> Result<(), HostError> {
        self.need(GrantKind::Route)?;
        let policy = match policy {
            GuestTls::None => TlsPolicy::None,
            GuestTls::Opportunistic => TlsPolicy::Opportunistic,
            GuestTls::Required => TlsPolicy::Required,
            GuestTls::Verified => TlsPolicy::Verified,
            GuestTls::Dane | GuestTls::MtaSts => {
                return Err(HostError::Unavailable(
                    "this release does not speak DANE or MTA-STS yet: use `verified` where it will do".into(),
                ));
            }
        };
        self.record_delivery(Edit::Tls(policy))
    }

    fn set_source(&mut self, address: String) -> Result<(), HostError> {
        self.need(GrantKind::Route)?;
        let address: IpAddr =
            address.parse().map_err(|_| HostError::Invalid(format!("{address:?} is no IP address")))?;
        self.record_delivery(Edit::Source(address))
    }

    fn set_credentials(&mut self, name: String) -> Result<(), HostError> {
        self.need(GrantKind::Route)?;
        super::name("the credentials' name", &name)?;
        self.record_delivery(Edit::Credentials(name))
    }

    fn set_retry_after(&mut self, seconds: u32) -> Result<(), HostError> {
        let wait = Duration::from_secs(seconds.clamp(1, MAX_RETRY).into());
        self.record_delivery(Edit::RetryAfter(wait))
    }

    fn suppress_bounce(&mut self, recipient: u32) -> Result<(), HostError> {
        self.need(GrantKind::DropMail)?;
        self.charge_recipients()?;
        let known = self.live.delivery()?.recipients.iter().any(|known| known.id == recipient);
        if !known {
            return Err(HostError::Invalid(format!("there is no recipient {recipient} in this delivery")));
        }
        self.record_delivery(Edit::NoBounce(recipient))
    }
}

impl StoreData {
    /// What the configuration does not list may be anything that this machine reaches: a metadata service, a database, a
    /// socket of another program.
    fn record_hop(&mut self, hop: NextHop) -> Result<(), HostError> {
        let listed = match &hop {
            NextHop::Relay(name) | NextHop::Lmtp(name) => self.common.gateway.load().relays.contains(name),
            NextHop::Mx(_) | NextHop::Discard => true,
        };
        if listed {
            return self.record_delivery(Edit::NextHop(hop));
        }
        self.need(GrantKind::RouteAnywhere)?;
        self.record_delivery(Edit::UnlistedHop(hop))
    }

    fn charge_recipients(&mut self) -> Result<(), HostError> {
        let count = self.live.delivery()?.recipients.len() as u64;
        self.live.budget.charge(RECIPIENT_COST * count)
    }

    fn record_delivery(&mut self, edit: Edit) -> Result<(), HostError> {
        self.live.delivery()?;
        self.live.record(edit, MAX_HOP)
    }

    /// The domain whose exchangers `mx` means: all recipients of a delivery share one.
    fn domain(&mut self) -> Result<String, HostError> {
        let first = self.live.delivery()?.recipients.first();
        first
            .map(|recipient| recipient.address.domain_ascii())
            .ok_or_else(|| HostError::Invalid("the delivery has no recipient".into()))
    }
}

fn hop_name(name: String) -> Result<String, HostError> {
    super::name("the next hop", &name)?;
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
