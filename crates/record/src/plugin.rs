//! What plugins say, and how they fail.

use pintle_mail::{QueueId, SessionId, UnixTime};
use serde::{Deserialize, Serialize};

use crate::stamp;

/// A plugin gave a verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PluginVerdict {
    /// When.
    #[serde(with = "stamp")]
    pub time: UnixTime,
    /// The plugin's name in the configuration.
    pub plugin: String,
    /// The hook: `rcpt`, `message`, …
    pub hook: String,
    /// `next`, `accept`, `reject`, `defer`, `discard`, `quarantine`, `close`.
    pub verdict: String,
    /// The session, in the hooks that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// The message, in the hooks that have one.
    #[serde(default, rename = "queue-id", alias = "id", skip_serializing_if = "Option::is_none")]
    pub id: Option<QueueId>,
}

/// A plugin failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PluginFault {
    /// When.
    #[serde(with = "stamp")]
    pub time: UnixTime,
    /// The plugin's name in the configuration.
    pub plugin: String,
    /// The hook: `rcpt`, `message`, …
    pub hook: String,
    /// `trap`, `timeout`, `memory`, `limit`, `busy`, `bad-answer`, `not-loaded`.
    pub kind: String,
    /// In words.
    pub text: String,
    /// The verdict that took its place.
    pub verdict: String,
    /// The session, in the hooks that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// The message, in the hooks that have one.
    #[serde(default, rename = "queue-id", alias = "id", skip_serializing_if = "Option::is_none")]
    pub id: Option<QueueId>,
}
