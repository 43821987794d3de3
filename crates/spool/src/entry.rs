//! What is kept about a message besides its bytes: the entry written at the commit, and each recipient's status since.

use bytes::Bytes;
use pintle_mail::{Body, Disposition, Envelope, NextHop, QueueId, Reply, UnixTime};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

use crate::{Content, Hold};

/// A message that is ready to be committed.
#[derive(Debug)]
pub struct NewMessage {
    /// Its id, unique for ever.
    pub id: QueueId,
    /// The final header block with our trace fields, the empty line that ends it included.
    pub head: Bytes,
    /// Everything after that line.
    pub content: Content,
    /// All else.
    pub entry: Entry,
}

/// What is known of a message at its commit. Only `hold` and `released` change later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Who it comes from and who gets it.
    pub envelope: Envelope,
    /// When we took it.
    pub received: UnixTime,
    /// The message whose fate this one reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<QueueId>,
    /// Why it is not to be delivered for now.
    #[serde(skip)]
    pub hold: Option<Hold>,
    /// When an operator let it out of a quarantine, if one did.
    #[serde(skip)]
    pub released: Option<UnixTime>,
    /// Its header or body has octets above 127, so a next hop needs 8BITMIME (RFC 6152).
    #[serde(default)]
    pub has_8bit: bool,
    /// An address or a header field needs SMTPUTF8 at the next hop (RFC 6531).
    #[serde(default)]
    pub needs_smtputf8: bool,
    /// What the receiving side wants to find again, in a form of its own: session, notes, facts.
    #[serde(skip)]
    pub context: Bytes,
}

impl Entry {
    /// From when its age counts, which `max_age` ends: what lay in a quarantine has had no time to be delivered in.
    #[must_use]
    pub fn age_from(&self) -> UnixTime {
        self.released.unwrap_or(self.received)
    }
}

/// A message as the spool has it.
#[derive(Clone)]
pub struct Stored {
    /// Its id.
    pub id: QueueId,
    /// As committed, with the hold of now.
    pub entry: Entry,
    /// As committed.
    pub head: Bytes,
    /// As committed; pieces are read on demand and checked against their checksums.
    pub body: Arc<dyn Body>,
    /// One per recipient of the envelope, in the same order.
    pub recipients: Vec<RecipientState>,
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored")
            .field("id", &self.id)
            .field("entry", &self.entry)
            .field("head", &self.head.len())
            .field("body", &self.body.size())
            .field("recipients", &self.recipients)
            .finish()
    }
}

/// How one recipient stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecipientState {
    /// [`Recipient::id`](pintle_mail::Recipient::id).
    pub id: u32,
    /// Pending or done.
    pub status: Status,
    /// The operator's choice of next hop, over any route.
    pub route: Option<NextHop>,
}

/// Pending or done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Still to be delivered.
    Pending(Pending),
    /// Never touched again.
    Done(Disposition),
}

impl Status {
    /// The status right after the commit: due at once, never tried.
    #[must_use]
    pub fn fresh(received: UnixTime) -> Self {
        Self::Pending(Pending {
            attempts: 0,
            next_attempt: received,
            last: None,
            unheard: false,
            host: None,
            last_attempt: None,
            warned: false,
        })
    }

    /// What is still pending, if it is.
    #[must_use]
    pub fn pending(&self) -> Option<&Pending> {
        match self {
            Self::Pending(pending) => Some(pending),
            Self::Done(_) => None,
        }
    }
}

/// A recipient whose delivery is still ahead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Delivery attempts made.
    pub attempts: u32,
    /// Not before this time.
    pub next_attempt: UnixTime,
    /// What the last attempt came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Reply>,
    /// The next hop said nothing: `last` is our own word for what went wrong.
    #[serde(default)]
    pub unheard: bool,
    /// The host that said `last`: a name, or an IP address without brackets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// When the last attempt was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_attempt: Option<UnixTime>,
    /// The sender has been told of the delay.
    #[serde(default)]
    pub warned: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disposition_is_written_as_its_word() {
        use Disposition::{Delivered, Discarded, Expired, Failed};
        for disposition in [Delivered, Failed, Expired, Discarded] {
            let text = serde_json::to_string(&Status::Done(disposition)).unwrap();
            assert_eq!(text, format!("{{\"done\":\"{disposition}\"}}"));
        }
    }
}
