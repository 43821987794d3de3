//! The JSON types of the admin socket about quarantines: lists with reasons, the messages, and actions on them. Fields
//! are only ever added.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use pintle_mail::{Address, Body, Bytes, QueueId, ReversePath, UnixTime};
use serde::{Deserialize, Serialize};

use crate::PageQuery;

/// A filter for messages in quarantines: those that meet every condition given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuarantineFilter {
    /// The message is in the quarantine of this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The reverse-path contains this text, in any case; the empty text means the null reverse-path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// A recipient's address contains this text, in any case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient: Option<String>,
    /// The message has been in quarantine for longer than this, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub older_than_ms: Option<u64>,
}

/// A filter, and the page of its matches to return.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QuarantineQuery {
    /// The filter.
    pub sift: QuarantineFilter,
    /// The page.
    pub page: PageQuery,
}

/// A page of messages in quarantines.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct QuarantinePage {
    /// The messages, oldest first.
    pub messages: Vec<Quarantined>,
    /// The `after` of the next page; `None` at the end.
    pub next: Option<QueueId>,
}

/// A message in a quarantine, and the reasons for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Quarantined {
    /// The queue id.
    pub id: QueueId,
    /// The quarantine's name.
    pub quarantine: String,
    /// When it was put there.
    pub since_ms: UnixTime,
    /// When it will be dropped.
    pub expires_ms: UnixTime,
    /// When it was received.
    pub received_ms: UnixTime,
    /// The plugin or built-in check that quarantined it.
    pub by: Option<String>,
    /// The stage at which it was quarantined.
    pub stage: Option<String>,
    /// The reason that the plugin gave, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The sum of all points.
    pub score: f64,
    /// The points with their reasons.
    pub rules: Vec<Points>,
    /// The facts that plugins recorded, by name.
    pub facts: BTreeMap<String, String>,
    /// Results of sender authentication, as `spf=fail (reason)`.
    pub results: Vec<String>,
    /// The client that sent it; `None` for a message that the gateway generated.
    pub client: Option<SocketAddr>,
    /// The name that the client gave in EHLO or HELO.
    pub hello: Option<String>,
    /// The reverse-path; empty for a bounce.
    pub sender: ReversePath,
    /// All recipients.
    pub recipients: Vec<Address>,
    /// The Subject field, as it is in the header.
    pub subject: Option<String>,
    /// The size in octets, header and body.
    pub size: u64,
}

/// Points that a judge gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Points {
    /// The judge: a plugin or a built-in check.
    pub judge: String,
    /// The judge's rule that matched.
    pub rule: String,
    /// The number of points; negative ones lower the score.
    pub points: f64,
}

/// The octets of a message, as it would be delivered.
pub struct MessageOctets {
    /// The header block, with the empty line that ends it.
    pub head: Bytes,
    /// The body, after the empty line.
    pub body: Arc<dyn Body>,
}

/// Which part of a message to return.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MessagePart {
    /// Header and body.
    #[default]
    Whole,
    /// The header block, with the empty line that ends it.
    Header,
    /// The body, after the empty line.
    Body,
}

impl MessagePart {
    /// Returns the value of `part` in a query string.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Header => "header",
            Self::Body => "body",
        }
    }
}

/// What an operator does with messages in a quarantine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QuarantineAction {
    /// Deliver them by the normal path; their age counts from now.
    Release,
    /// Drop them without a bounce; only the log records it.
    Delete,
}

impl QuarantineAction {
    /// Returns the word used in paths and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Delete => "delete",
        }
    }
}

/// The messages to release or delete: the ids if there are any, else the messages in quarantines that match the filter.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuarantineOrder {
    /// The ids of the messages.
    pub ids: Vec<QueueId>,
    /// The filter, if there are no ids.
    pub sift: QuarantineFilter,
    /// All messages in quarantines, if there are neither ids nor conditions.
    pub all: bool,
    /// Only ids after this one, which is the `next` of the response before.
    pub after: Option<QueueId>,
    /// The name of the user, for the event log.
    pub user: Option<String>,
}

impl QuarantineOrder {
    /// Whether it says which messages to release or delete.
    #[must_use]
    pub fn is_specific(&self) -> bool {
        self.all || !self.ids.is_empty() || self.sift != QuarantineFilter::default()
    }
}

/// The results of a release or delete. Many messages are handled in several calls, so that each responds soon.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct QuarantineResult {
    /// One result for each message.
    pub messages: Vec<QuarantineOutcome>,
    /// The `after` of the next call; `None` at the end.
    pub next: Option<QueueId>,
}

/// The result for one message. If it is done, it is durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineOutcome {
    /// The queue id.
    pub id: QueueId,
    /// Whether the message was released or deleted.
    pub done: bool,
    /// The reason if it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl fmt::Debug for MessageOctets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Whole").field("head", &self.head.len()).field("body", &self.body.size()).finish()
    }
}
