//! Events of delivery to the next hop, recipient by recipient.

use std::net::SocketAddr;

use pintle_mail::{Address, NextHop, QueueId, Reply, ReversePath, UnixTime};
use serde::{Deserialize, Serialize};

use crate::{Tls, stamp};

/// The members that all delivery events have. They are flattened into the records that contain them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct JobMembers {
    /// When it happened, by the wall clock.
    #[serde(with = "stamp")]
    pub time: UnixTime,
    /// The message's queue id.
    #[serde(rename = "queue-id", alias = "id")]
    pub id: QueueId,
    /// The reverse-path; empty for the null one.
    pub sender: ReversePath,
    /// The recipient that the event is about.
    pub recipient: Address,
    /// The next hop of the attempt.
    pub next_hop: NextHop,
    /// The number of the attempt for this recipient, 1 for the first; 0 when there was none.
    pub attempt: u32,
    /// Milliseconds since the message was committed.
    pub age_ms: u64,
    /// The size of header block and body, in octets.
    pub size: u64,
}

/// The host that we talked to. The members are flattened into the records that contain them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PeerMembers {
    /// The host's name; none when it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The host's address and port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// The session's TLS; none in plain text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// How many messages the session had carried before; 0 when it was opened for this one.
    #[serde(default)]
    pub session_use: u32,
}

/// A next hop has taken responsibility.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Delivery {
    /// The message and the recipient.
    #[serde(flatten)]
    pub job: JobMembers,
    /// The host that took the message.
    #[serde(flatten)]
    pub peer: PeerMembers,
    /// The host's reply, which is positive (2xx).
    pub reply: Reply,
    /// The milliseconds that this attempt took, connection included.
    pub took_ms: u64,
}

/// An attempt failed for now; there will be another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Deferral {
    /// The message and the recipient.
    #[serde(flatten)]
    pub job: JobMembers,
    /// The host that was reached; empty when none was.
    #[serde(flatten)]
    pub peer: PeerMembers,
    /// The host's reply, or our own when no host was reached.
    pub reply: Reply,
    /// The time for which the next attempt is planned.
    #[serde(with = "stamp")]
    pub next_attempt: UnixTime,
}

/// Delivery to a recipient failed permanently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Bounce {
    /// The message and the recipient.
    #[serde(flatten)]
    pub job: JobMembers,
    /// The host that was reached; empty when none was.
    #[serde(flatten)]
    pub peer: PeerMembers,
    /// The host's reply, or our own when no host was reached.
    pub reply: Reply,
    /// The queue id of the report to the sender, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<QueueId>,
    /// Why there is no report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreported: Option<Unreported>,
    /// The plugin that decided, `operator`, or `plugins` for a recipient that plugins refused after the end of the data;
    /// none when the next hop decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// The recipient's time in the queue ran out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Expiration {
    /// The message and the recipient.
    #[serde(flatten)]
    pub job: JobMembers,
    /// The reply to the last attempt, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<Reply>,
    /// The queue id of the report to the sender, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<QueueId>,
    /// Why there is no report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreported: Option<Unreported>,
    /// The quarantine that the message was in when its time ran out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<String>,
}

/// Why a failure is not reported to the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unreported {
    /// The reverse-path is null: nothing may ever be sent back (RFC 5321 section 4.5.5).
    NullSender,
    /// The sender asked for no report (`NOTIFY`, RFC 3461 section 4.1).
    NotWanted,
    /// A plugin or the operator suppressed the report, or the message was in a quarantine.
    Suppressed,
}

/// A message is held: it is not delivered until it is released.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Hold {
    /// When it happened, by the wall clock.
    #[serde(with = "stamp")]
    pub time: UnixTime,
    /// The message's queue id.
    #[serde(rename = "queue-id", alias = "id")]
    pub id: QueueId,
    /// The quarantine's name, when a verdict put the message there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<String>,
    /// The operator's reason, when an operator holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The plugin or built-in check that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// A held message was released for delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Release {
    /// When it happened, by the wall clock.
    #[serde(with = "stamp")]
    pub time: UnixTime,
    /// The message's queue id.
    #[serde(rename = "queue-id", alias = "id")]
    pub id: QueueId,
    /// The quarantine that the message was in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<String>,
    /// Who released it: `operator`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The user name of the operator who asked, as the command line reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// A delivery status notification (RFC 3464) was committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DsnReport {
    /// When it happened, by the wall clock.
    #[serde(with = "stamp")]
    pub time: UnixTime,
    /// The report's own queue id.
    #[serde(rename = "queue-id", alias = "id")]
    pub id: QueueId,
    /// The queue id of the message that it is about.
    pub about: QueueId,
    /// What the report is about.
    pub kind: ReportKind,
    /// The address that the report is sent to.
    pub to: Address,
    /// The recipients that the report is about.
    pub recipients: Vec<Address>,
}

/// What a report is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReportKind {
    /// The message will not be delivered.
    Failure,
    /// Delivery is delayed, and is still being tried.
    Delay,
    /// The message was delivered, or passed to a host that does not report further.
    Success,
}
