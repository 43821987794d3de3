//! What the receiving side needs to know: plain data, checked and lowered elsewhere.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use pintle_mail::{Address, Domains};
use pintle_sender_auth::sign::Keyring;
use pintle_smtp::server;

use crate::{LoginLimits, SessionLimits, StrangerLimits, Users};

/// Everything that the listeners share, and the listeners.
#[derive(Debug, Clone)]
pub struct Config {
    /// Our name: in the greeting, in trace fields.
    pub hostname: String,
    /// Where we listen.
    pub listeners: Vec<ListenerConfig>,
    /// What may change while sessions run.
    pub rules: Rules,
}

/// What a reload replaces for the sessions that begin after it.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// The domains whose mail we take from anybody.
    pub domains: Domains,
    /// Who may authenticate, when no plugin knows better.
    pub users: Users,
    /// How often a network may fail to log in.
    pub logins: LoginLimits,
    /// Where the bare `<postmaster>` goes; left as it is when none is named.
    pub postmaster: Option<Address>,
    /// A message with this many Received fields is taken to loop (RFC 5321 section 6.3).
    pub max_hops: usize,
    /// So many refused senders and recipients end the session of a client that is neither trusted nor authenticated.
    pub max_refusals: u32,
    /// What messages are signed with when a plugin asks for it.
    pub keys: Arc<Keyring>,
    /// A score from which a message is refused.
    pub reject_score: Option<f64>,
    /// A score from which a message is held in the quarantine `score`.
    pub quarantine_score: Option<f64>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            domains: Domains::default(),
            users: Users::default(),
            logins: LoginLimits::default(),
            postmaster: None,
            max_hops: 30,
            max_refusals: 100,
            keys: Arc::default(),
            reject_score: None,
            quarantine_score: None,
        }
    }
}

/// One listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerConfig {
    /// In logs, metrics and conditions.
    pub name: String,
    /// Where it listens.
    pub addresses: Vec<SocketAddr>,
    /// How TLS begins.
    pub tls: TlsMode,
    /// Whether clients may or must authenticate.
    pub auth: AuthOffer,
    /// Networks whose clients may relay and are spared the checks meant for strangers.
    pub trusted: Vec<IpNet>,
    /// How many sessions it holds.
    pub limits: SessionLimits,
    /// What a stranger's session may take.
    pub strangers: StrangerLimits,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// The protocol's own settings.
    pub smtp: Arc<server::Config>,
    /// What clients that are trusted or have authenticated send is a submission: its header is completed (RFC 6409
    /// section 8).
    pub completes_header: bool,
}

/// How TLS begins on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// Never.
    None,
    /// When the client says STARTTLS (RFC 3207).
    StartTls,
    /// With the first octet (RFC 8314).
    Implicit,
}

/// Whether clients authenticate on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthOffer {
    /// AUTH is not offered.
    Off,
    /// AUTH is offered.
    Offered,
    /// MAIL is refused before AUTH.
    Required,
}

impl ListenerConfig {
    /// Whether this client belongs to a trusted network.
    #[must_use]
    pub fn trusts(&self, client: std::net::IpAddr) -> bool {
        let client = client.to_canonical();
        self.trusted.iter().any(|network| network.contains(&client))
    }
}
