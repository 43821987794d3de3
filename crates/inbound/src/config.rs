//! Configuration of the receiving side: listeners, rules, limits. Plain data; another crate checks the configuration
//! file and translates it to these types.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use pintle_mail::{Address, Domains};
use pintle_sender_auth::sign::Keyring;
use pintle_smtp::server;

use crate::{LoginLimits, SessionLimits, StrangerLimits, Users};

/// The configuration of the receiving side: listeners, and what they share.
#[derive(Debug, Clone)]
pub struct Config {
    /// This gateway's host name, for the greeting and for trace fields.
    pub hostname: String,
    /// The listeners to start.
    pub listeners: Vec<ListenerConfig>,
    /// The rules that a reload can change while sessions run.
    pub rules: Rules,
}

/// Rules that a reload replaces. Sessions use the new ones for their next decision.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// The domains that mail is accepted for from any client.
    pub domains: Domains,
    /// The users who may authenticate if no plugin decides.
    pub users: Users,
    /// The rate limit on failed logins of a network.
    pub logins: LoginLimits,
    /// The address that replaces the bare `<postmaster>`; if `None`, it is left as it is.
    pub postmaster: Option<Address>,
    /// A message with this many Received fields is considered to loop (RFC 5321 section 6.3).
    pub max_hops: usize,
    /// The number of refused senders and recipients that closes the session of a client that is neither trusted nor
    /// authenticated.
    pub max_refusals: u32,
    /// The keys to sign messages with when a plugin requests it.
    pub keys: Arc<Keyring>,
    /// The score from which a message is refused.
    pub reject_score: Option<f64>,
    /// The score from which a message is held in the quarantine `score`.
    pub quarantine_score: Option<f64>,
    /// What becomes of recipients that plugins refuse at the end of the data, if the client cannot be told.
    pub refused_recipients: RefusedRecipients,
    /// Whether a transaction may only have recipients with the same groups.
    pub one_group_per_transaction: bool,
}

/// What becomes of recipients that plugins refuse although others receive the message, if the client does not take a
/// reply for each recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RefusedRecipients {
    /// Their copy is held in the quarantine `refused`.
    #[default]
    Quarantine,
    /// The sender gets a report that the delivery failed, if it is a client of ours; mail of strangers is held.
    Report,
    /// Their copy is dropped.
    Discard,
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
            refused_recipients: RefusedRecipients::default(),
            one_group_per_transaction: false,
        }
    }
}

/// The configuration of one listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerConfig {
    /// Its name in logs, metrics and conditions.
    pub name: String,
    /// The addresses to listen on.
    pub addresses: Vec<SocketAddr>,
    /// How TLS begins.
    pub tls: TlsMode,
    /// Whether clients may or must authenticate.
    pub auth: AuthOffer,
    /// Networks whose clients may relay and are spared the checks meant for strangers.
    pub trusted: Vec<IpNet>,
    /// Connection limits: how many sessions it holds, in total and per client network.
    pub limits: SessionLimits,
    /// The limits of one session of an untrusted client: time, transactions, octets.
    pub strangers: StrangerLimits,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// Settings of the SMTP protocol, shared by all sessions.
    pub smtp: Arc<server::Config>,
    /// Whether mail of trusted or authenticated clients is treated as a submission: its header is completed (RFC 6409
    /// section 8).
    pub completes_header: bool,
}

/// How TLS begins on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// No TLS.
    None,
    /// After STARTTLS (RFC 3207).
    StartTls,
    /// From the first octet (RFC 8314).
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
    /// Whether this client's address is in a trusted network.
    #[must_use]
    pub fn trusts(&self, client: std::net::IpAddr) -> bool {
        let client = client.to_canonical();
        self.trusted.iter().any(|network| network.contains(&client))
    }
}
