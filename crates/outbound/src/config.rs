//! What outbound is told: who we are, which way mail goes, how many sessions, how patient. The defaults stand here once.
//!
//! These are plain values; the configuration file's form, its units and its mistakes are known elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::{IpNet, Ipv6Net};
use pintle_mail::{NextHop, TlsPolicy};
pub use pintle_queue::RetryPolicy;
use pintle_sender_auth::sign::Keyring;
pub use pintle_smtp::client::{Channel, Credentials, EightBit, Protocol, Timeouts, Transfer};

use crate::{Endpoint, Quota, Retention, RouteTable};

/// Everything that outbound is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Our name: said in EHLO, named in reports, and never delivered to by MX.
    pub hostname: String,
    /// Other names under which we are known; an exchanger of such a name is ourselves (RFC 5321 section 5.1).
    pub own_names: Vec<String>,
    /// Our addresses; an exchanger at one of them is ourselves, whatever its port.
    pub own_addresses: Vec<IpAddr>,
    /// Where we listen; an exchanger there is ourselves. On a wildcard address that is every address of this machine.
    pub listeners: Vec<SocketAddr>,
    /// Which domains go where.
    pub routes: RouteTable,
    /// Next hops by name.
    pub relays: BTreeMap<String, Relay>,
    /// Credentials that plugins may choose by name, each for the relays that it belongs to.
    pub credentials: BTreeMap<String, NamedCredentials>,
    /// Delivery by MX.
    pub mx: Mx,
    /// Addresses to send from.
    pub sources: Sources,
    /// How many sessions, and how long they live.
    pub sessions: Sessions,
    /// How long a next hop may take at each step.
    pub timeouts: Timeouts,
    /// What to do with 8-bit content where a next hop lacks 8BITMIME.
    pub eight_bit: EightBit,
    /// How bodies travel.
    pub transfer: Transfer,
    /// When to try again, to warn and to give up.
    pub retry: RetryPolicy,
    /// Reports to senders.
    pub reports: Reports,
    /// What messages are signed with when a plugin asks for it.
    pub keys: Arc<Keyring>,
    /// How long quarantines keep what nobody releases.
    pub quarantine: Retention,
    /// How much quarantines hold.
    pub quota: Quota,
}

impl Config {
    /// Where mail for a domain goes (A-labels, lower case). RFC 5321 section 4.5.1: postmaster without one is ours.
    pub(crate) fn next_hop(&self, domain: &str) -> NextHop {
        self.routes.next_hop(if domain.is_empty() { &self.hostname } else { domain })
    }

    /// All defaults, under this name: every domain by its MX, no relay.
    #[must_use]
    pub fn new(hostname: impl Into<String>) -> Self {
        Self {
            hostname: hostname.into(),
            own_names: Vec::new(),
            own_addresses: Vec::new(),
            listeners: Vec::new(),
            routes: RouteTable::default(),
            relays: BTreeMap::new(),
            credentials: BTreeMap::new(),
            mx: Mx::default(),
            sources: Sources::default(),
            sessions: Sessions::default(),
            timeouts: Timeouts::default(),
            eight_bit: EightBit::default(),
            transfer: Transfer::default(),
            retry: RetryPolicy::default(),
            reports: Reports::default(),
            keys: Arc::default(),
            quarantine: Retention::default(),
            quota: Quota::default(),
        }
    }

    /// Whether this host name is ours.
    pub(crate) fn is_our_name(&self, host: &str) -> bool {
        let ours = |name: &str| host.trim_end_matches('.').eq_ignore_ascii_case(name);
        ours(&self.hostname) || self.own_names.iter().any(|name| ours(name))
    }

    /// How much TLS the configuration demands of a next hop; of one that it does not list as much as of exchangers.
    #[must_use]
    pub fn tls_for(&self, next_hop: &NextHop) -> TlsPolicy {
        self.relay(next_hop).map_or(self.mx.tls, |(_, relay)| relay.tls)
    }

    /// The relay that this next hop is, if the configuration lists it, with its name.
    pub(crate) fn relay<'a>(&'a self, next_hop: &'a NextHop) -> Option<(&'a str, &'a Relay)> {
        match next_hop {
            NextHop::Relay(name) | NextHop::Lmtp(name) => Some((name, self.relays.get(name)?)),
            NextHop::Mx(_) | NextHop::Discard => None,
        }
    }

    /// How many sessions at once this next hop gets.
    pub(crate) fn sessions_for(&self, next_hop: &NextHop) -> usize {
        let sessions = self.relay(next_hop).and_then(|(_, relay)| relay.sessions);
        sessions.unwrap_or(self.sessions.per_hop).max(1)
    }
}

/// A configured next hop: one or more hosts that take the same mail.
#[derive(Debug, Clone, PartialEq)]
pub struct Relay {
    /// Tried in this order.
    pub hosts: Vec<Endpoint>,
    /// SMTP, or LMTP (RFC 2033).
    pub protocol: Protocol,
    /// How much TLS it takes.
    pub tls: TlsPolicy,
    /// TLS from the first byte instead of STARTTLS (RFC 8314 section 3.3).
    pub implicit_tls: bool,
    /// With what to authenticate.
    pub credentials: Option<Credentials>,
    /// How many sessions at once, in place of [`Sessions::per_hop`].
    pub sessions: Option<usize>,
}

impl Relay {
    /// SMTP with opportunistic STARTTLS to these hosts.
    #[must_use]
    pub fn new(hosts: Vec<Endpoint>) -> Self {
        Self {
            hosts,
            protocol: Protocol::Smtp,
            tls: TlsPolicy::Opportunistic,
            implicit_tls: false,
            credentials: None,
            sessions: None,
        }
    }
}

/// Credentials that a plugin may choose by name. They are said to the hosts of these relays and to nobody else: whoever
/// chooses where mail goes must not choose who hears a password.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedCredentials {
    /// The secret.
    pub credentials: Credentials,
    /// The names of the relays that it belongs to.
    pub relays: BTreeSet<String>,
}

/// Delivery by MX.
#[derive(Debug, Clone, PartialEq)]
pub struct Mx {
    /// How much TLS it takes.
    pub tls: TlsPolicy,
    /// The port of exchangers: 25 on the Internet.
    pub port: u16,
    /// How many addresses of one domain's exchangers one attempt tries.
    pub addresses: usize,
    /// Networks that exchangers may be in although they are not public. Strangers say where exchangers are.
    pub networks: Vec<IpNet>,
    /// Prefixes under which a translator of ours (NAT64) has IPv4 hosts, besides the well-known one; of the lengths that RFC
    /// 6052 section 2.2 lists. Strangers could name inner hosts by them.
    pub nat64: Vec<Ipv6Net>,
}

impl Default for Mx {
    fn default() -> Self {
        Self {
            tls: TlsPolicy::Opportunistic,
            port: 25,
            addresses: 5,
            networks: Vec::new(),
            nat64: Vec::new(),
        }
    }
}

/// Addresses to send from; the system chooses where none is given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sources {
    /// Towards IPv4.
    pub v4: Option<Ipv4Addr>,
    /// Towards IPv6.
    pub v6: Option<Ipv6Addr>,
}

/// How many sessions, and how long they live.
#[derive(Debug, Clone, PartialEq)]
pub struct Sessions {
    /// At once for one next hop; below the 20 that Exchange takes from one source.
    pub per_hop: usize,
    /// Attempts under way in all; those that wait for a session or for the disk count.
    pub total: usize,
    /// Messages over one session before a new one is opened.
    pub messages: u32,
    /// How long an idle session is kept for the next message.
    pub idle: Duration,
    /// How long a TCP connection may take.
    pub connect: Duration,
    /// How long a host whose TLS failed under the opportunistic policy is spoken to in plain text.
    pub plain_memory: Duration,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            per_hop: 15,
            total: 1_000,
            messages: 1_000,
            idle: Duration::from_secs(10),
            connect: Duration::from_secs(30),
            plain_memory: Duration::from_secs(3600),
        }
    }
}

/// Reports to senders (RFC 3464).
#[derive(Debug, Clone, PartialEq)]
pub struct Reports {
    /// The address in their From field; none means `postmaster@` and our hostname.
    pub from: Option<pintle_mail::Address>,
    /// The name in their From field.
    pub from_name: String,
    /// A message up to this size, in octets, comes back whole; of a larger one only the header, whatever `RET` asks.
    pub return_limit: u64,
}

impl Default for Reports {
    fn default() -> Self {
        Self { from: None, from_name: "Mail Delivery System".to_owned(), return_limit: 64 * 1024 }
    }
}
