//! Host functions of `delivery`: the current delivery attempt, and its routing.

use std::net::IpAddr;
use std::time::Duration;

use arc_swap::ArcSwap;
use pintle_mail::address::domain_to_ascii;
use pintle_mail::{NextHop, TlsPolicy};
use pintle_policy::{Delivery, Edit, Hook};
use wasmtime::component::{HasData, Linker};

use super::checks::{self, need};
use crate::bindings::pintle::plugin::delivery::{self, Host, Snapshot};
use crate::bindings::pintle::plugin::types::HostError;
use crate::call::{CallState, unavailable};
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
    pub(super) fn of(HostParts { services, grants, call, .. }: HostParts<'a>) -> Self {
        Self { call, grants, gateway: &services.gateway }
    }
}

impl Host for DeliveryView<'_> {
    fn info(&mut self) -> Result<Snapshot, HostError> {
        self.charge_recipients()?;
        let gateway = self.gateway.load();
        let delivery = self.call.delivery()?;
        Ok(Snapshot {
            attempt: delivery.attempt,
            age_s: convert::size(delivery.age.as_secs()),
            recipients: delivery
                .recipients
                .iter()
                .map(|recipient| convert::recipient(recipient, &gateway))
                .collect(),
            next_hop: hop_word(delivery, &gateway),
            tls: tls_word(delivery.tls).to_owned(),
            source: delivery.source.map(|address| address.to_string()),
        })
    }

    fn set_next_hop(&mut self, hop: String) -> Result<(), HostError> {
        need(self.grants, GrantKind::Route)?;
        checks::bounded("the next hop", hop.len(), MAX_HOP + "smtp:".len())?;
        let (kind, argument) = hop.split_once(':').unwrap_or((&hop, ""));
        match (kind, argument) {
            ("mx", "") if !hop.ends_with(':') => {
                let domain = self.domain()?;
                self.record_delivery(Edit::NextHop(NextHop::Mx(domain)))
            }
            ("mx", domain) => {
                let domain = mx_domain(domain)?;
                self.record_delivery(Edit::NextHop(NextHop::Mx(domain)))
            }
            ("relay", name) => self.record_relay(name),
            ("discard", "") => {
                need(self.grants, GrantKind::DropMail)?;
                self.record_delivery(Edit::NextHop(NextHop::Discard))
            }
            ("smtp" | "lmtp", address) if !address.is_empty() => {
                // A host that is not in the configuration could be anything reachable from this machine: a metadata
                // service, a database, a socket of another program.
                need(self.grants, GrantKind::RouteAnywhere)?;
                self.record_delivery(Edit::UnlistedHop(unlisted(kind, address, &self.gateway.load())?))
            }
            _ => Err(HostError::Invalid(format!(
                "{hop:?} is no next hop: there are \"mx\", \"mx:DOMAIN\", \"relay:NAME\", \"smtp:HOST:PORT\", \
                 \"lmtp:HOST:PORT\", \"lmtp:unix:/path\" and \"discard\""
            ))),
        }
    }

    fn set_tls(&mut self, policy: String) -> Result<(), HostError> {
        need(self.grants, GrantKind::Route)?;
        let known = TLS_WORDS.iter().find(|(word, _)| *word == policy);
        let (_, policy) = known.ok_or_else(|| {
            HostError::Unavailable(format!("this release does not serve the TLS policy {policy:?}"))
        })?;
        self.record_delivery(Edit::Tls(*policy))
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
    /// Chooses a relay of the configuration, which is spoken to as its protocol there says.
    fn record_relay(&mut self, name: &str) -> Result<(), HostError> {
        if !self.gateway.load().relays.contains(name) {
            return Err(HostError::Invalid(format!("there is no relay {name:?} in the configuration")));
        }
        self.record_delivery(Edit::NextHop(NextHop::Relay(name.to_owned())))
    }

    fn charge_recipients(&mut self) -> Result<(), HostError> {
        let count = self.call.delivery()?.recipients.len() as u64;
        self.call.budget.charge(RECIPIENT_COST * count)
    }

    /// Records a change of the attempt that is about to begin, or of what follows it.
    fn record_delivery(&mut self, edit: Edit) -> Result<(), HostError> {
        let follows = matches!(edit, Edit::RetryAfter(_) | Edit::NoBounce(_));
        if !follows && self.call.hook != Some(Hook::Deliver) {
            return Err(unavailable("changing the attempt"));
        }
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

/// The TLS policies, by their words in the contract.
const TLS_WORDS: [(&str, TlsPolicy); 4] = [
    ("none", TlsPolicy::None),
    ("opportunistic", TlsPolicy::Opportunistic),
    ("required", TlsPolicy::Required),
    ("verified", TlsPolicy::Verified),
];

fn tls_word(policy: TlsPolicy) -> &'static str {
    TLS_WORDS.iter().find(|(_, known)| *known == policy).map_or("verified", |(word, _)| word)
}

fn mx_domain(domain: &str) -> Result<String, HostError> {
    let ascii = domain_to_ascii(domain);
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_'))
    };
    if ascii.len() <= MAX_HOP && ascii.split('.').all(label) {
        return Ok(ascii);
    }
    Err(HostError::Invalid(format!("{domain:?} is no domain")))
}

/// A host or socket that the configuration does not list. A name of a configured relay would not be looked up as a host.
fn unlisted(protocol: &str, address: &str, gateway: &Gateway) -> Result<NextHop, HostError> {
    if gateway.relays.contains(address) {
        return Err(HostError::Invalid(format!(
            "{address:?} is a relay of the configuration: choose \"relay:{address}\""
        )));
    }
    if !is_host_or_socket(address) {
        return Err(HostError::Invalid(format!("{address:?} is no HOST:PORT")));
    }
    if protocol == "smtp" && address.starts_with("unix:") {
        return Err(HostError::Invalid("a local socket is spoken to with \"lmtp:unix:/path\"".into()));
    }
    Ok(if protocol == "lmtp" {
        NextHop::Lmtp(address.to_owned())
    } else {
        NextHop::Relay(address.to_owned())
    })
}

/// Whether the text is `HOST:PORT`, `[IPV6]:PORT` or `unix:/path`.
fn is_host_or_socket(address: &str) -> bool {
    if let Some(path) = address.strip_prefix("unix:") {
        return path.starts_with('/') && !path.chars().any(char::is_control);
    }
    let Some((host, port)) = address.rsplit_once(':') else { return false };
    let inside = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_ipv6 = inside.is_some_and(|inside| inside.parse::<std::net::Ipv6Addr>().is_ok());
    let fits = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'.');
    let is_name = !host.is_empty() && host.bytes().all(fits);
    port.parse::<u16>().is_ok_and(|port| port > 0) && (is_name || is_ipv6)
}

/// The next hop in the words of `set-next-hop`.
fn hop_word(delivery: &Delivery, gateway: &Gateway) -> String {
    match &delivery.next_hop {
        NextHop::Mx(domain) => {
            let theirs = delivery.recipients.first().map(|recipient| recipient.address.domain_ascii());
            if theirs.as_ref() == Some(domain) { "mx".to_owned() } else { format!("mx:{domain}") }
        }
        NextHop::Relay(name) | NextHop::Lmtp(name) if gateway.relays.contains(name) => {
            format!("relay:{name}")
        }
        NextHop::Relay(address) => format!("smtp:{address}"),
        NextHop::Lmtp(address) => format!("lmtp:{address}"),
        NextHop::Discard => "discard".to_owned(),
    }
}
