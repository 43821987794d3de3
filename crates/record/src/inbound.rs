//! What happens while a client speaks to us.

use std::net::SocketAddr;

use pintle_mail::{Address, QueueId, Reply, ReversePath, SessionId, UnixTime};
use serde::{Deserialize, Serialize};

use crate::stamp;

/// So many characters of a field that a stranger has written stand in a record.
pub const MAX_SHOWN: usize = 200;

/// Who spoke to us. Its members stand directly in the records that bear it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Client {
    /// The session; its log lines bear the same id.
    pub session: SessionId,
    /// The listener's name in the configuration.
    pub listener: String,
    /// Address and port.
    pub client: SocketAddr,
    /// The EHLO or HELO argument.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hello: Option<String>,
    /// Who authenticated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// There when the session was encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

/// How a session was encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Tls {
    /// `TLSv1.3`.
    pub version: String,
    /// The cipher suite's IANA name.
    pub cipher: String,
    /// The peer's certificate was verified against trusted authorities.
    #[serde(default)]
    pub verified: bool,
}

/// A message was committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Reception {
    /// When.
    #[serde(with = "stamp")]
    pub time: UnixTime,
    /// The queue id.
    #[serde(rename = "queue-id", alias = "id")]
    pub id: QueueId,
    /// Who brought it.
    #[serde(flatten)]
    pub from: Client,
    /// The reverse-path; empty for the null one.
    pub sender: ReversePath,
    /// Everybody it was accepted for.
    pub recipients: Vec<Address>,
    /// Header block and body as received, in octets: without our Received field and what plugins changed.
    pub size: u64,
    /// The Message-ID field, cut to [`MAX_SHOWN`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// The Subject field as readers see it, cut to [`MAX_SHOWN`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
}

/// A client was told no, 4xx or 5xx.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Rejection {
    /// When.
    #[serde(with = "stamp")]
    pub time: UnixTime,
    /// The id that the message would have had, from MAIL on.
    #[serde(default, rename = "queue-id", alias = "id", skip_serializing_if = "Option::is_none")]
    pub id: Option<QueueId>,
    /// Who was refused.
    #[serde(flatten)]
    pub from: Client,
    /// At which stage: `connect`, `hello`, `auth`, `mail`, `rcpt`, `headers`, `message`.
    pub stage: String,
    /// The reverse-path, from MAIL on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<ReversePath>,
    /// The recipient, when one was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient: Option<Address>,
    /// What the client was told.
    pub reply: Reply,
    /// The plugin or built-in check that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// A message, or some of its recipients, was accepted and dropped on purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Discard {
    /// When.
    #[serde(with = "stamp")]
    pub time: UnixTime,
    /// The queue id.
    #[serde(rename = "queue-id", alias = "id")]
    pub id: QueueId,
    /// At which stage: `rcpt`, `headers`, `message`, `deliver`, `route` for a route that says so, `quarantine` for what an
    /// operator deletes there.
    pub stage: String,
    /// The reverse-path.
    pub sender: ReversePath,
    /// Whose copies were dropped.
    pub recipients: Vec<Address>,
    /// The plugin, built-in check or operator that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The quarantine that it lay in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<String>,
    /// The name under which the operator asked, as the command line tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}
