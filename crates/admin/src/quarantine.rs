//! What travels over the admin socket about quarantines: lists with reasons, messages as they lie there, and what is done
//! to them. Fields are only ever added.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use pintle_mail::{Address, Body, Bytes, QueueId, ReversePath, UnixTime};
use serde::{Deserialize, Serialize};

use crate::PageQuery;

/// Which messages in quarantines are meant: those that meet every condition given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sift {
    /// In the quarantine of this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The reverse-path contains this, in any case; the empty text means the null reverse-path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// A recipient's address contains this, in any case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient: Option<String>,
    /// In quarantine for longer than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub older_than_ms: Option<u64>,
}

/// Conditions, and a page of what meets them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SiftPage {
    /// Which messages.
    pub sift: Sift,
    /// Which of them now.
    pub page: PageQuery,
}

/// Some messages in quarantines.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct QuarantinePage {
    /// Oldest first.
    pub messages: Vec<Quarantined>,
    /// The `after` of the page that follows; none at the end.
    pub next: Option<QueueId>,
}

/// A message in a quarantine, and why it is there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Quarantined {
    /// Its id, as in every log line.
    pub id: QueueId,
    /// The quarantine's name.
    pub quarantine: String,
    /// Since when it is there.
    pub since_ms: UnixTime,
    /// When it is dropped, unless somebody acts.
    pub expires_ms: UnixTime,
    /// When it was taken.
    pub received_ms: UnixTime,
    /// The plugin or built-in check that decided.
    pub by: Option<String>,
    /// At which stage.
    pub stage: Option<String>,
    /// The sum of all points.
    pub score: f64,
    /// The points one by one.
    pub rules: Vec<Points>,
    /// What plugins found out, by name.
    pub facts: BTreeMap<String, String>,
    /// Results of sender authentication, as `spf=fail (reason)`.
    pub results: Vec<String>,
    /// Who brought it; none for a message of our own.
    pub client: Option<SocketAddr>,
    /// What the client called itself.
    pub hello: Option<String>,
    /// The reverse-path; empty for a bounce.
    pub sender: ReversePath,
    /// Everybody who would get it.
    pub recipients: Vec<Address>,
    /// The subject, as it stands in the header.
    pub subject: Option<String>,
    /// Header block and body, in octets.
    pub size: u64,
}

/// Points that a judge gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Points {
    /// Who gave them.
    pub judge: String,
    /// For what.
    pub rule: String,
    /// How many.
    pub points: f64,
}

/// The octets of a message, as it would be delivered.
pub struct Whole {
    /// The header block with the empty line that ends it.
    pub head: Bytes,
    /// Everything after it.
    pub body: Arc<dyn Body>,
}

/// Which octets of a message are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MessagePart {
    /// All of them.
    #[default]
    Whole,
    /// The header block with the empty line that ends it.
    Header,
    /// Everything after it.
    Body,
}

impl MessagePart {
    /// The word in a query string.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Header => "header",
            Self::Body => "body",
        }
    }
}

/// How messages leave a quarantine by an operator's hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    /// Delivered by the normal path, their age counting from now.
    Release,
    /// Dropped; nobody hears of it but the log.
    Delete,
}

impl Exit {
    /// The word in paths and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Delete => "delete",
        }
    }
}

/// Which messages are to leave. Ids are taken as they are; without any, those in quarantines that meet the conditions.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Leave {
    /// These.
    pub ids: Vec<QueueId>,
    /// Those that meet these conditions.
    pub sift: Sift,
    /// All that lies in quarantines, when neither ids nor conditions are given.
    pub all: bool,
    /// Only ids after this one, which an answer before gave as its `next`.
    pub after: Option<QueueId>,
    /// The name of whoever asks, for the event log.
    pub user: Option<String>,
}

impl Leave {
    /// Whether it says which messages are meant.
    #[must_use]
    pub fn is_specific(&self) -> bool {
        self.all || !self.ids.is_empty() || self.sift != Sift::default()
    }
}

/// What was done. Many messages leave a part at a time, so that each answer comes soon.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Left {
    /// One for each message that was meant.
    pub messages: Vec<Leaver>,
    /// The `after` with which to ask for the rest; none at the end.
    pub next: Option<QueueId>,
}

/// What came of one message. What is said to be done is durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaver {
    /// Which.
    pub id: QueueId,
    /// Whether it was done as asked.
    pub done: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl fmt::Debug for Whole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Whole").field("head", &self.head.len()).field("body", &self.body.size()).finish()
    }
}
