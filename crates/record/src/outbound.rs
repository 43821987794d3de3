//! What happens on the way to the next hop, recipient by recipient.

use std::net::SocketAddr;

use pintle_mail::{Address, NextHop, QueueId, Reply, ReversePath, UnixTime};
use serde::{Deserialize, Serialize};

use crate::{Tls, stamp};

/// What every delivery event says. Its members stand directly in the records that bear it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Job {
    /// When.
    #[serde(with = "stamp")]
    pub time: UnixTime,
    /// The queue id.
    #[serde(rename = "queue-id", alias = "id")]
    pub id: QueueId,
    /// The reverse-path; empty for the null one.
    pub sender: ReversePath,
    /// Whom it is about.
    pub recipient: Address,
    /// Where it was to go.
    pub next_hop: NextHop,
    /// Which attempt for this recipient it was, 1 for the first; 0 when there was none.
    pub attempt: u32,
    /// Since the message was committed.
    pub age_ms: u64,
    /// Header block and body, in octets.
    pub size: u64,
}

/// Who answered.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Peer {
    /// The host's name, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Its address and port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// There when the session was encrypted.
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
    /// Which message, for whom.
    #[serde(flatten)]
    pub job: Job,
    /// Who took it.
    #[serde(flatten)]
    pub peer: Peer,
    /// In which words.
    pub reply: Reply,
    /// How long this attempt took, connection included.
    pub took_ms: u64,
}

/// Not this time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Deferral {
    /// Which message, for whom.
    #[serde(flatten)]
    pub job: Job,
    /// Who said so, when somebody was reached.
    #[serde(flatten)]
    pub peer: Peer,
    /// In which words; ours when nobody was reached.
    pub reply: Reply,
    /// When the next attempt is planned.
    #[serde(with = "stamp")]
    pub next_attempt: UnixTime,
}

/// Never.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Bounce {
    /// Which message, for whom.
    #[serde(flatten)]
    pub job: Job,
    /// Who said so, when somebody was reached.
    #[serde(flatten)]
    pub peer: Peer,
    /// In which words; ours when nobody was reached.
    pub reply: Reply,
    /// The queue id of the report to the sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<QueueId>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreported: Option<Unreported>,
    /// The plugin that decided, or `operator`; none where the next hop did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// Too late.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Expiration {
    /// Which message, for whom.
    #[serde(flatten)]
    pub job: Job,
    /// What the last attempt came to, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<Reply>,
    /// The queue id of the report to the sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<QueueId>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreported: Option<Unreported>,
    /// The quarantine in which it lay to the end of its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<String>,
}

/// Why a failure is not reported to the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unreported {
    /// The reverse-path is null: nothing may ever be sent back (RFC 5321 section 4.5.5).
    NullSender,
    /// The sender asked not to hear of it (`NOTIFY`, RFC 3461 section 4.1).
    NotWanted,
    /// A plugin or the operator said so, or it lay in a quarantine.
    Suppressed,
}

/// A message stays where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Hold {
    /// When.
    #[serde(with = "stamp")]
    pub time: UnixTime,
    /// The queue id.
    #[serde(rename = "queue-id", alias = "id")]
    pub id: QueueId,
    /// The quarantine's name, when a verdict put it there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<String>,
    /// The operator's words, when an operator holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The plugin or built-in check that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// A held message may go again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Release {
    /// When.
    #[serde(with = "stamp")]
    pub time: UnixTime,
    /// The queue id.
    #[serde(rename = "queue-id", alias = "id")]
    pub id: QueueId,
    /// The quarantine that it lay in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<String>,
    /// Who let it go: `operator`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The name under which the operator asked, as the command line tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// A delivery status notification (RFC 3464) was committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DsnReport {
    /// When.
    #[serde(with = "stamp")]
    pub time: UnixTime,
    /// The report's own queue id.
    #[serde(rename = "queue-id", alias = "id")]
    pub id: QueueId,
    /// The message that it is about.
    pub about: QueueId,
    /// What it tells.
    pub kind: ReportKind,
    /// Who gets it.
    pub to: Address,
    /// About whom.
    pub recipients: Vec<Address>,
}

/// What a report tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReportKind {
    /// It will not be delivered.
    Failure,
    /// It takes long.
    Delay,
    /// It was delivered, or handed to a host that reports no further.
    Success,
}
