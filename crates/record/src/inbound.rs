//! Events of sessions with clients.

use std::net::SocketAddr;

use pintle_mail::{Address, QueueId, Reply, ReversePath, SessionId, UnixTime};
use serde::{Deserialize, Serialize};

use crate::stamp;

/// The most characters of an untrusted field that a record contains.
pub const MAX_SHOWN: usize = 200;

/// The client. Its members are flattened into the records that contain it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ClientMembers {
    /// The session id, as in its log lines.
    pub session: SessionId,
    /// The listener's name in the configuration.
    pub listener: String,
    /// The client's address and port.
    pub client: SocketAddr,
    /// The EHLO or HELO argument.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hello: Option<String>,
    /// The identity that authenticated, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// The session's TLS; none in plain text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

/// How a session was encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Tls {
    /// The protocol version, such as `TLSv1.3`.
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
    /// When it happened, by the wall clock.
    #[serde(with = "stamp")]
    pub time: UnixTime,
    /// The message's queue id.
    #[serde(rename = "queue-id", alias = "id")]
    pub id: QueueId,
    /// The client that sent it.
    #[serde(flatten)]
    pub from: ClientMembers,
    /// The reverse-path; empty for the null one.
    pub sender: ReversePath,
    /// The recipients that it was accepted for.
    pub recipients: Vec<Address>,
    /// The size of header block and body as received, in octets: without our Received field and without plugins'
    /// changes.
    pub size: u64,
    /// The Message-ID field, cut to [`MAX_SHOWN`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// The Subject field as readers see it, cut to [`MAX_SHOWN`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
}

/// A command of a client was refused, with 4xx or 5xx.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Rejection {
    /// When it happened, by the wall clock.
    #[serde(with = "stamp")]
    pub time: UnixTime,
    /// The id that the message would have had, from MAIL on.
    #[serde(default, rename = "queue-id", alias = "id", skip_serializing_if = "Option::is_none")]
    pub id: Option<QueueId>,
    /// The client that was refused.
    #[serde(flatten)]
    pub from: ClientMembers,
    /// The stage: `connect`, `hello`, `auth`, `mail`, `rcpt`, `headers`, `message`.
    pub stage: String,
    /// The reverse-path, from MAIL on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<ReversePath>,
    /// The recipient, when one was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient: Option<Address>,
    /// The reply that the client got.
    pub reply: Reply,
    /// The plugin or built-in check that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// A message, or some of its recipients, was accepted and dropped on purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Discard {
    /// When it happened, by the wall clock.
    #[serde(with = "stamp")]
    pub time: UnixTime,
    /// The message's queue id.
    #[serde(rename = "queue-id", alias = "id")]
    pub id: QueueId,
    /// The stage: `rcpt`, `headers`, `message`, `deliver`, `route` for a route to `discard`, `quarantine` for a message
    /// that an operator deletes from one.
    pub stage: String,
    /// The reverse-path; empty for the null one.
    pub sender: ReversePath,
    /// The recipients whose copies were dropped.
    pub recipients: Vec<Address>,
    /// The plugin, built-in check or operator that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The quarantine that the message was in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<String>,
    /// The user name of the operator who asked, as the command line reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}
