//! What a judge gets to see: the session, the transaction, the message and the delivery of one call.
//!
//! All parts are shared (`Arc`) and change by copy on write, so that handing a view to ten judges costs a few counters,
//! and a judge that is still running on an old view can harm nobody. A part is there only at the stages where it exists.

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

use crate::Computed;

/// Everything that belongs to one call.
#[derive(Clone)]
pub struct View {
    /// Always there; in deliveries a frozen copy of what it was.
    pub session: Arc<Session>,
    /// From MAIL on.
    pub transaction: Option<Arc<Transaction>>,
    /// From the headers on.
    pub message: Option<Arc<Message>>,
    /// In the hooks of a delivery.
    pub delivery: Option<Arc<Delivery>>,
}

impl View {
    /// The view at the start of a session.
    #[must_use]
    pub fn of(session: Session) -> Self {
        Self { session: Arc::new(session), transaction: None, message: None, delivery: None }
    }
}

/// The SMTP session: what is known of the client.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Session {
    /// In every log line of the session.
    pub id: SessionId,
    /// The listener's name in the configuration.
    pub listener: String,
    /// The client's end of the connection.
    pub client: SocketAddr,
    /// Our end.
    pub local: SocketAddr,
    /// When the connection was accepted.
    pub started: UnixTime,
    /// The EHLO or HELO argument, once given.
    pub hello: Option<String>,
    /// The client said EHLO.
    pub esmtp: bool,
    /// There once the session is encrypted.
    pub tls: Option<TlsFacts>,
    /// Who authenticated, if anybody did.
    pub identity: Option<String>,
    /// The client is in one of the listener's trusted networks.
    pub trusted: bool,
    /// The ESMTP keywords about to be offered; filled at [`crate::Hook::Hello`] alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<Param>,
    /// Private notes of the judges.
    #[serde(default)]
    pub notes: Notes,
    /// Facts for later judges, conditions and the log.
    #[serde(default)]
    pub facts: BTreeMap<String, String>,
}

/// What is known of a session's TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsFacts {
    /// `TLSv1.3`.
    pub version: String,
    /// The cipher suite's name.
    pub cipher: String,
    /// The server name that the client asked for (SNI).
    pub server_name: Option<String>,
    /// The client certificate's SHA-256, in lower-case hexadecimal.
    pub client_certificate_sha256: Option<String>,
    /// The client certificate's subject.
    pub client_certificate_subject: Option<String>,
    /// A trusted authority signed the client certificate.
    pub client_certificate_verified: bool,
}

/// The mail transaction: the envelope and what was found out about it. It is stored with the message.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Transaction {
    /// Becomes the queue id.
    pub id: QueueId,
    /// Reverse-path, recipients, parameters.
    pub envelope: Envelope,
    /// Private notes of the judges.
    #[serde(default)]
    pub notes: Notes,
    /// Facts for later judges, conditions and the log.
    #[serde(default)]
    pub facts: BTreeMap<String, String>,
    /// Points for and against.
    #[serde(default)]
    pub scores: Vec<Score>,
    /// Results for the Authentication-Results field (RFC 8601).
    #[serde(default)]
    pub auth_results: Vec<AuthResult>,
    /// The reverse-path as the client sent it, when a judge has rewritten it.
    #[serde(skip)]
    pub original_sender: Option<ReversePath>,
    /// What one judge found out about the mail as received and all may use. No edit changes it.
    #[serde(skip)]
    pub computed: Computed,
}

impl Transaction {
    /// A transaction that has just begun.
    #[must_use]
    pub fn new(id: QueueId, envelope: Envelope) -> Self {
        Self {
            id,
            envelope,
            notes: Notes::default(),
            facts: BTreeMap::new(),
            scores: Vec::new(),
            auth_results: Vec::new(),
            original_sender: None,
            computed: Computed::default(),
        }
    }

    /// The reverse-path as the client sent it.
    #[must_use]
    pub fn received_sender(&self) -> &ReversePath {
        self.original_sender.as_ref().unwrap_or(&self.envelope.sender)
    }

    /// The sum of all points.
    #[must_use]
    pub fn score(&self) -> f64 {
        self.scores.iter().map(|score| score.points).sum()
    }

    /// The recipient of this id.
    #[must_use]
    pub fn recipient(&self, id: u32) -> Option<&Recipient> {
        self.envelope.recipients.iter().find(|recipient| recipient.id == id)
    }
}

/// Points that a judge gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Who gave them.
    pub judge: String,
    /// For what.
    pub rule: String,
    /// How many; above zero speaks against the message.
    pub points: f64,
}

/// One method's result (RFC 8601 section 2.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthResult {
    /// `spf`, `dkim`, …
    pub method: String,
    /// `pass`, `fail`, …
    pub outcome: String,
    /// In words.
    pub reason: Option<String>,
    /// `smtp.mailfrom` and its like, with their values.
    pub properties: Vec<(String, String)>,
}

/// Notes by judge and key. Only the judge that wrote a note can read it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Notes(BTreeMap<String, BTreeMap<String, Vec<u8>>>);

impl Notes {
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

    /// How many notes this judge has.
    #[must_use]
    pub fn count(&self, judge: &str) -> usize {
        self.0.get(judge).map_or(0, BTreeMap::len)
    }

    /// The octets that the notes of this judge take, keys included.
    #[must_use]
    pub fn size(&self, judge: &str) -> usize {
        self.0.get(judge).map_or(0, |notes| notes.iter().map(|(key, value)| key.len() + value.len()).sum())
    }
}

/// The message: its header block, and from [`crate::Hook::Message`] on its body.
#[derive(Clone)]
pub struct Message {
    /// As the edits so far have left it.
    pub header: HeaderBlock,
    /// As the edits so far have left it.
    pub body: Option<Arc<dyn Body>>,
    /// Some edit has replaced the body.
    pub body_edited: bool,
    /// The header as received, once an edit has changed it.
    pub original_header: Option<HeaderBlock>,
    /// The body as received, once an edit has replaced it.
    pub original_body: Option<Arc<dyn Body>>,
    /// There is a NUL in it.
    pub has_nul: bool,
    /// There are octets above 127 in it.
    pub has_8bit: bool,
    /// The names of the keys to sign it with, once the stage is done.
    pub sign: Vec<String>,
    /// The name of the key to seal its ARC chain with, once the stage is done.
    pub seal: Option<String>,
    /// What one judge computed of the message and all may use, such as its MIME tree; emptied by every edit.
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
            has_nul: false,
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

    /// The header as received, whatever edits have made of it: what signatures are about.
    #[must_use]
    pub fn received_header(&self) -> &HeaderBlock {
        self.original_header.as_ref().unwrap_or(&self.header)
    }

    /// The body as received.
    #[must_use]
    pub fn received_body(&self) -> Option<&Arc<dyn Body>> {
        self.original_body.as_ref().or(self.body.as_ref())
    }
}

/// One delivery attempt: some recipients of a message for one next hop.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// 1 for the first.
    pub attempt: u32,
    /// How long ago the message was committed.
    pub age: Duration,
    /// Whom this attempt is for.
    pub recipients: Vec<Recipient>,
    /// Where it goes.
    pub next_hop: NextHop,
    /// The next hop is a host or socket that a judge has spelt out, and no relay of the configuration.
    pub unlisted: bool,
    /// How much TLS it demands.
    pub tls: TlsPolicy,
    /// The most that judges have asked for. It can raise what the configuration demands for the next hop, never lower it.
    pub tls_asked: Option<TlsPolicy>,
    /// The source address to bind, when one was chosen.
    pub source: Option<IpAddr>,
    /// The name of configured credentials to use.
    pub credentials: Option<String>,
    /// When to try again if this attempt defers, in place of the retry policy's answer.
    pub retry_after: Option<Duration>,
    /// Recipients whose failure is not reported to the sender.
    pub no_bounce: Vec<u32>,
}
