//! What a judge sees: the session, the transaction, the message and the delivery of one call.
//!
//! All parts are shared (`Arc`) and changed by copy on write, so that passing a view to ten judges costs a few
//! reference counts, and a judge that still runs on an old view does no harm. A part exists only at the stages where it
//! makes sense.

use std::any::Any;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pintle_mail::{
    Body, Envelope, HeaderBlock, NextHop, Param, QueueId, Recipient, ReversePath, SessionId, TlsPolicy,
    UnixTime,
};
use serde::{Deserialize, Serialize};

use crate::{Computed, Fates, Leases};

/// The data of one call.
#[derive(Clone)]
pub struct View {
    /// The session; in delivery hooks a frozen copy from when the message was accepted.
    pub session: Arc<Session>,
    /// The transaction, from MAIL on.
    pub transaction: Option<Arc<Transaction>>,
    /// The message, from the header on.
    pub message: Option<Arc<Message>>,
    /// The delivery attempt, in the hooks of a delivery.
    pub delivery: Option<Arc<Delivery>>,
}

impl View {
    /// The view at the start of a session.
    #[must_use]
    pub fn of(session: Session) -> Self {
        Self { session: Arc::new(session), transaction: None, message: None, delivery: None }
    }
}

/// The SMTP session: the facts about the client.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Session {
    /// The session id, as in every log line of the session.
    pub id: SessionId,
    /// The listener's name in the configuration.
    pub listener: String,
    /// The client's address and port.
    pub client: SocketAddr,
    /// Our own address and port.
    pub local: SocketAddr,
    /// When the connection was accepted.
    pub started: UnixTime,
    /// The EHLO or HELO argument; none before it was given.
    pub hello: Option<String>,
    /// Whether the client said EHLO (and not HELO).
    pub esmtp: bool,
    /// The session's TLS; none in plain text.
    pub tls: Option<TlsFacts>,
    /// The identity that authenticated, if any.
    pub identity: Option<String>,
    /// Whether the client is in one of the listener's trusted networks.
    pub trusted: bool,
    /// The ESMTP keywords to be offered; set only at [`crate::Hook::Hello`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<Param>,
    /// Private notes of the judges.
    #[serde(default)]
    pub notes: Notes,
    /// Facts for later judges, conditions and the log, by name.
    #[serde(default)]
    pub facts: BTreeMap<String, String>,
    /// What judges have counted of the session; it ends with the session, and is not stored with a message.
    #[serde(skip)]
    pub leases: Leases,
}

impl Session {
    /// A session that has just begun: of a stranger who has said nothing yet.
    #[must_use]
    pub fn new(
        id: SessionId,
        listener: String,
        client: SocketAddr,
        local: SocketAddr,
        started: UnixTime,
    ) -> Self {
        Self {
            id,
            listener,
            client,
            local,
            started,
            hello: None,
            esmtp: false,
            tls: None,
            identity: None,
            trusted: false,
            extensions: Vec::new(),
            notes: Notes::default(),
            facts: BTreeMap::new(),
            leases: Leases::default(),
        }
    }

    /// The client is in no trusted network and has not authenticated.
    #[must_use]
    pub fn is_stranger(&self) -> bool {
        !self.trusted && self.identity.is_none()
    }
}

/// The facts about a session's TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsFacts {
    /// The protocol version, such as `TLSv1.3`.
    pub version: String,
    /// The cipher suite's IANA name.
    pub cipher: String,
    /// The server name that the client asked for (SNI), if any.
    pub server_name: Option<String>,
    /// The client certificate's SHA-256, in lower-case hexadecimal; none without a certificate.
    pub client_certificate_sha256: Option<String>,
    /// The client certificate's subject.
    pub client_certificate_subject: Option<String>,
    /// Whether a trusted authority signed the client certificate.
    pub client_certificate_verified: bool,
}

/// The mail transaction: the envelope and the facts found about it. It is stored with the message.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Transaction {
    /// The id that becomes the queue id.
    pub id: QueueId,
    /// The envelope: reverse-path, recipients, parameters.
    pub envelope: Envelope,
    /// Private notes of the judges.
    #[serde(default)]
    pub notes: Notes,
    /// Facts for later judges, conditions and the log, by name.
    #[serde(default)]
    pub facts: BTreeMap<String, String>,
    /// The scores that judges gave.
    #[serde(default)]
    pub scores: Vec<Score>,
    /// Results for the Authentication-Results field (RFC 8601).
    #[serde(default)]
    pub auth_results: Vec<AuthResult>,
    /// What was done because of the author domain's DMARC policy; none if no judge has said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dmarc: Option<DmarcDisposition>,
    /// What becomes of the recipients that do not receive the message.
    #[serde(skip)]
    pub fates: Fates,
    /// The least id for a recipient that a judge adds, so that none is used twice.
    #[serde(skip, default = "first_added")]
    pub next_added: u32,
    /// The reverse-path as the client sent it, when a judge has rewritten it; otherwise none.
    #[serde(skip)]
    pub original_sender: Option<ReversePath>,
    /// Results that one judge computed from the mail as received and all may use. No edit changes them.
    #[serde(skip)]
    pub computed: Computed,
    /// What judges have counted of the transaction; it ends with the transaction.
    #[serde(skip)]
    pub leases: Leases,
}

impl Transaction {
    /// A transaction that has just begun, without notes, facts and scores.
    #[must_use]
    pub fn new(id: QueueId, envelope: Envelope) -> Self {
        Self {
            id,
            envelope,
            notes: Notes::default(),
            facts: BTreeMap::new(),
            scores: Vec::new(),
            auth_results: Vec::new(),
            dmarc: None,
            fates: Fates::default(),
            next_added: FIRST_ADDED,
            original_sender: None,
            computed: Computed::default(),
            leases: Leases::default(),
        }
    }

    /// The reverse-path as the client sent it, whether a judge has rewritten it or not.
    #[must_use]
    pub fn received_sender(&self) -> &ReversePath {
        self.original_sender.as_ref().unwrap_or(&self.envelope.sender)
    }

    /// The sum of all scores.
    #[must_use]
    pub fn score(&self) -> f64 {
        // The sum of nothing is -0.0, which would be shown as such.
        self.scores.iter().map(|score| score.points).sum::<f64>() + 0.0
    }

    /// The recipient of this id, if there is one.
    #[must_use]
    pub fn recipient(&self, id: u32) -> Option<&Recipient> {
        let recipients = &self.envelope.recipients;
        // Ids ascend, unless judges have added recipients before the client named its last; then the search is linear.
        let at = recipients.binary_search_by_key(&id, |recipient| recipient.id).ok();
        at.and_then(|at| recipients.get(at))
            .or_else(|| recipients.iter().find(|recipient| recipient.id == id))
    }
}

/// The first id of recipients that judges add; the session numbers those of the client from 0.
pub const FIRST_ADDED: u32 = 1 << 31;

const fn first_added() -> u32 {
    FIRST_ADDED
}

/// A score that a judge gave for a rule; there is one for each judge and rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The name of the judge.
    pub judge: String,
    /// The rule that the score is for.
    pub rule: String,
    /// The points; positive ones count against the message.
    pub points: f64,
}

/// What was done because of the author domain's DMARC policy, for the reports to the domain's owner (RFC 9990).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DmarcDisposition {
    /// `none`, `quarantine` or `reject`.
    pub disposition: String,
    /// Why that differs from the policy, such as `local_policy`; none if it does not.
    pub override_reason: Option<String>,
}

/// One method's result (RFC 8601 section 2.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthResult {
    /// The method: `spf`, `dkim`, …
    pub method: String,
    /// The result: `pass`, `fail`, …
    pub outcome: String,
    /// The reason as text for people, if there is one.
    pub reason: Option<String>,
    /// Property names such as `smtp.mailfrom`, with their values.
    pub properties: Vec<(String, String)>,
}

/// Notes by judge and key. Only the judge that wrote a note can read it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Notes(BTreeMap<String, BTreeMap<String, Vec<u8>>>);

impl Notes {
    /// The most octets that the notes of one judge may take, keys included.
    pub const MAX_SIZE: usize = 64 * 1024;

    /// The note of this judge under this key.
    #[must_use]
    pub fn get(&self, judge: &str, key: &str) -> Option<&[u8]> {
        self.0.get(judge)?.get(key).map(Vec::as_slice)
    }

    /// Writes a note, or takes it away.
    pub fn set(&mut self, judge: &str, key: String, value: Option<Vec<u8>>) {
        let notes = self.0.entry(judge.to_owned()).or_default();
        match value {
            Some(value) => notes.insert(key, value),
            None => notes.remove(&key),
        };
    }

    /// The number of notes of this judge.
    #[must_use]
    pub fn count(&self, judge: &str) -> usize {
        self.0.get(judge).map_or(0, BTreeMap::len)
    }

    /// The size of this judge's notes in octets, keys included.
    #[must_use]
    pub fn size(&self, judge: &str) -> usize {
        self.0.get(judge).map_or(0, |notes| notes.iter().map(|(key, value)| key.len() + value.len()).sum())
    }
}

/// The message: its header block, and from [`crate::Hook::Message`] on its body.
#[derive(Clone)]
pub struct Message {
    /// The header block with the edits so far.
    pub header: HeaderBlock,
    /// The body with the edits so far.
    pub body: Option<Arc<dyn Body>>,
    /// Whether an edit has replaced the body.
    pub body_edited: bool,
    /// The header as received, when an edit has changed it; otherwise none.
    pub original_header: Option<HeaderBlock>,
    /// The body as received, when an edit has replaced it; otherwise none.
    pub original_body: Option<Arc<dyn Body>>,
    /// Whether the message contains octets above 127.
    pub has_8bit: bool,
    /// The names of the keys to sign the message with, once the stage is done.
    pub sign: Vec<String>,
    /// The name of the key to seal the ARC chain with, once the stage is done.
    pub seal: Option<String>,
    /// A result that one judge computed from the message and all may use, such as its MIME tree; every edit clears it.
    pub shared: Arc<OnceLock<Arc<dyn Any + Send + Sync>>>,
}

impl Message {
    /// A message as received.
    #[must_use]
    pub fn new(header: HeaderBlock, body: Option<Arc<dyn Body>>) -> Self {
        Self {
            header,
            body,
            body_edited: false,
            original_header: None,
            original_body: None,
            has_8bit: false,
            sign: Vec::new(),
            seal: None,
            shared: Arc::new(OnceLock::new()),
        }
    }

    /// Whether an edit has changed the header.
    #[must_use]
    pub fn header_edited(&self) -> bool {
        self.original_header.is_some()
    }

    /// The header as received, without edits: signatures are verified over it.
    #[must_use]
    pub fn received_header(&self) -> &HeaderBlock {
        self.original_header.as_ref().unwrap_or(&self.header)
    }

    /// The body as received, without edits.
    #[must_use]
    pub fn received_body(&self) -> Option<&Arc<dyn Body>> {
        self.original_body.as_ref().or(self.body.as_ref())
    }
}

/// One delivery attempt: some recipients of a message for one next hop.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The number of the attempt, 1 for the first.
    pub attempt: u32,
    /// How long ago the message was committed.
    pub age: Duration,
    /// The recipients of this attempt.
    pub recipients: Vec<Recipient>,
    /// Where the attempt will deliver to.
    pub next_hop: NextHop,
    /// Whether the next hop is a host or socket given by a judge, and not a relay of the configuration.
    pub unlisted: bool,
    /// How much TLS the delivery requires.
    pub tls: TlsPolicy,
    /// The most TLS that judges have required. It can raise what the configuration requires for the next hop, never
    /// lower it.
    pub tls_asked: Option<TlsPolicy>,
    /// The source address to bind, if one was chosen.
    pub source: Option<IpAddr>,
    /// The name of the configured credentials to use, if any.
    pub credentials: Option<String>,
    /// When to try again if this attempt defers, in place of the retry policy's answer.
    pub retry_after: Option<Duration>,
    /// Recipients whose failure is not reported to the sender.
    pub no_bounce: Vec<u32>,
    /// What judges have counted of the attempt; it ends with the attempt.
    pub leases: Leases,
}
