//! The disposition of a recipient: its final fate, after which the gateway does nothing more for it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The final fate of a recipient. A recipient whose message is held has none yet: it is still pending.
///
/// In JSON it is the word that [`as_str`](Self::as_str) gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Disposition {
    /// A next hop accepted the message.
    Delivered,
    /// Refused permanently, or undeliverable. Where a bounce was due, it was committed first.
    Failed,
    /// Not delivered within the maximum age. Where a bounce was due, it was committed first.
    Expired,
    /// Dropped on purpose, by a rule or by an operator, without a report to the sender.
    Discarded,
}

impl Disposition {
    /// The word for logs, lists and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Discarded => "discarded",
        }
    }
}

impl fmt::Display for Disposition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
