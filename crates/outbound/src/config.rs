//! The configuration of outbound and its defaults: our name, routes and relays, TLS, sessions, timeouts, retries,
//! reports, quarantines.
//!
//! These are plain values. The config crate defines the syntax of the configuration file and its units, and reports
//! mistakes.

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

/// The configuration of outbound.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Our name: sent in EHLO, named in reports, and never delivered to by MX.
    pub hostname: String,
    /// Other names of ours; an exchanger with such a name is this gateway (RFC 5321 section 5.1).
    pub own_names: Vec<String>,
    /// Our addresses; an exchanger at one of them is this gateway, on any port.
    pub own_addresses: Vec<IpAddr>,
    /// The addresses that we listen on; an exchanger there is this gateway. A wildcard stands for every address of this
    /// machine.
    pub listeners: Vec<SocketAddr>,
    /// The next hop of each recipient domain.
    pub routes: RouteTable,
    /// Configured next hops, by name.
    pub relays: BTreeMap<String, Relay>,
    /// Credentials that plugins may choose by name, each for its own relays.
    pub credentials: BTreeMap<String, NamedCredentials>,
    /// Delivery to the mail exchangers of a domain.
    pub mx: Mx,
    /// Source addresses of connections.
    pub sources: Sources,
    /// Limits of sessions and of the connection pool.
    pub sessions: Sessions,
    /// The time limits of a session with a next hop, by protocol step.
    pub timeouts: Timeouts,
    /// What to do with 8-bit content where a next hop lacks 8BITMIME.
    pub eight_bit: EightBit,
    /// Whether bodies are sent by BDAT or DATA.
    pub transfer: Transfer,
    /// Back-off between attempts, the delay warning, and the maximum age.
    pub retry: RetryPolicy,
    /// Bounces and other reports to senders.
    pub reports: Reports,
    /// The keys that messages are signed with when a plugin asks for it.
    pub keys: Arc<Keyring>,
    /// How long messages stay in quarantines.
    pub quarantine: Retention,
    /// The size limits of quarantines.
    pub quota: Quota,
}

impl Config {
    /// The next hop of a domain (A-labels, lower case). A bare postmaster, without a domain, is ours (RFC 5321 section
    /// 4.5.1).
    pub(crate) fn next_hop(&self, domain: &str) -> NextHop {
        self.routes.next_hop(if domain.is_empty() { &self.hostname } else { domain })
    }

    /// The defaults with this hostname: every domain by its MX, no relay.
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

    /// The TLS policy that the configuration has for a next hop. One that it does not list has that of mail exchangers.
    #[must_use]
    pub fn tls_for(&self, next_hop: &NextHop) -> TlsPolicy {
        self.relay(next_hop).map_or(self.mx.tls, |(_, relay)| relay.tls)
    }

    /// The name and settings of this next hop, if it is a configured relay.
    pub(crate) fn relay<'a>(&'a self, next_hop: &'a NextHop) -> Option<(&'a str, &'a Relay)> {
        match next_hop {
            NextHop::Relay(name) | NextHop::Lmtp(name) => Some((name, self.relays.get(name)?)),
            NextHop::Mx(_) | NextHop::Discard => None,
        }
    }

    /// The most concurrent sessions with this next hop.
    pub(crate) fn sessions_for(&self, next_hop: &NextHop) -> usize {
        let sessions = self.relay(next_hop).and_then(|(_, relay)| relay.sessions);
        sessions.unwrap_or(self.sessions.per_hop).max(1)
    }
}

/// A configured next hop: one or more hosts that take the same mail.
#[derive(Debug, Clone, PartialEq)]
pub struct Relay {
    /// Its hosts, tried in this order; at least one.
    pub hosts: Vec<Endpoint>,
    /// SMTP, or LMTP (RFC 2033).
    pub protocol: Protocol,
    /// The TLS policy of its hosts.
    pub tls: TlsPolicy,
    /// TLS from the first octet instead of STARTTLS (RFC 8314 section 3.3).
    pub implicit_tls: bool,
    /// The credentials to authenticate with (AUTH); none for no authentication.
    pub credentials: Option<Credentials>,
    /// The most concurrent sessions, in place of [`Sessions::per_hop`]; none for that default.
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

/// Credentials that a plugin may choose by name. They are sent to the hosts of these relays and to no others: a plugin
/// that chooses where mail goes must not choose who gets a password.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedCredentials {
    /// The user name and password.
    pub credentials: Credentials,
    /// The names of the relays that they may be sent to.
    pub relays: BTreeSet<String>,
}

/// Delivery to the mail exchangers of a domain.
#[derive(Debug, Clone, PartialEq)]
pub struct Mx {
    /// The TLS policy of exchangers.
    pub tls: TlsPolicy,
    /// The port of exchangers: 25 on the Internet.
    pub port: u16,
    /// The most addresses of a domain's exchangers that one attempt tries.
    pub addresses: usize,
    /// Networks that are not public, but where exchangers are allowed. By default none is, since the owner of any
    /// domain can publish such an address.
    pub networks: Vec<IpNet>,
    /// Prefixes of our NAT64 translators besides the well-known one, of the lengths in RFC 6052 section 2.2. An address
    /// under an unlisted prefix could reach internal IPv4 hosts.
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

/// Source addresses of connections; the system chooses one if none is given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sources {
    /// For connections over IPv4.
    pub v4: Option<Ipv4Addr>,
    /// For connections over IPv6.
    pub v6: Option<Ipv6Addr>,
}

/// Limits of sessions and of the connection pool.
#[derive(Debug, Clone, PartialEq)]
pub struct Sessions {
    /// Sessions at once with one next hop; below the 20 that Exchange accepts from one source.
    pub per_hop: usize,
    /// Attempts under way with all next hops; those that wait for a session or for the disk count.
    pub total: usize,
    /// Messages over one session before a new one is opened.
    pub messages: u32,
    /// How long an idle session is kept for the next message.
    pub idle: Duration,
    /// How long connecting to an address may take.
    pub connect: Duration,
    /// How long a host whose opportunistic TLS failed is contacted in plain text.
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

/// Bounces and other reports (DSN, RFC 3464) to senders.
#[derive(Debug, Clone, PartialEq)]
pub struct Reports {
    /// The address in their From field; without one `postmaster@` and our hostname.
    pub from: Option<pintle_mail::Address>,
    /// The name in their From field.
    pub from_name: String,
    /// A message up to this size, in octets, is returned whole; of a larger one only the header, even with `RET=FULL`.
    pub return_limit: u64,
}

impl Default for Reports {
    fn default() -> Self {
        Self { from: None, from_name: "Mail Delivery System".to_owned(), return_limit: 64 * 1024 }
    }
}
