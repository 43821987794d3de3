//! A message besides its bytes: the entry written at the commit, and the status of each recipient since.

use bytes::Bytes;
use pintle_mail::{Body, Disposition, Envelope, NextHop, QueueId, Reply, UnixTime};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

use crate::{Content, HoldReason};

/// A message that is ready to be committed.
#[derive(Debug)]
pub struct NewMessage {
    /// Its queue id, unique forever.
    pub id: QueueId,
    /// The final header block with our trace fields, up to and including the empty line that ends it.
    pub head: Bytes,
    /// The body: everything after that line.
    pub content: Content,
    /// Envelope, time and other facts.
    pub entry: Entry,
}

/// The facts about a message at its commit. Only `hold`, `released` and `context` change later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Sender and recipients, with their parameters.
    pub envelope: Envelope,
    /// When the gateway accepted it.
    pub received: UnixTime,
    /// The message that this one reports on, if it is a bounce or another DSN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<QueueId>,
    /// The current hold. A held message is not delivered.
    #[serde(skip)]
    pub hold: Option<HoldReason>,
    /// When an operator released it from a quarantine, if one did.
    #[serde(skip)]
    pub released: Option<UnixTime>,
    /// Its header or body has octets above 127, so a next hop needs 8BITMIME (RFC 6152).
    #[serde(default)]
    pub has_8bit: bool,
    /// An address or a header field needs SMTPUTF8 at the next hop (RFC 6531).
    #[serde(default)]
    pub needs_smtputf8: bool,
    /// Data of the receiving side for later stages, opaque to the spool: session, notes, facts. Deliveries may replace it
    /// ([`Spool::set_context`](crate::Spool::set_context)).
    #[serde(skip)]
    pub context: Bytes,
}

impl Entry {
    /// The time from which its age counts, up to `max_age`. Time in a quarantine does not count, since the message
    /// could not be delivered.
    #[must_use]
    pub fn age_from(&self) -> UnixTime {
        self.released.unwrap_or(self.received)
    }
}

/// A message loaded from the spool.
#[derive(Clone)]
pub struct Stored {
    /// Queue id of the message.
    pub id: QueueId,
    /// The entry as committed, with the current hold and context.
    pub entry: Entry,
    /// The header block as committed.
    pub head: Bytes,
    /// The body as committed. Pieces are read on demand and checked against their checksums.
    pub body: Arc<dyn Body>,
    /// The state of each recipient, in the envelope's order.
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

/// The state of one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecipientState {
    /// The recipient's id within the message: [`Recipient::id`](pintle_mail::Recipient::id).
    pub id: u32,
    /// Delivery status of the recipient: pending, or how it ended.
    pub status: DeliveryStatus,
    /// The operator's choice of next hop, which overrides the routes.
    pub route: Option<NextHop>,
}

/// The delivery status of a recipient: pending or done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeliveryStatus {
    /// Still to be delivered.
    Pending(Pending),
    /// Done. It never changes again.
    Done(Disposition),
}

impl DeliveryStatus {
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

    /// The schedule of a pending recipient. None for one that is done.
    #[must_use]
    pub fn pending(&self) -> Option<&Pending> {
        match self {
            Self::Pending(pending) => Some(pending),
            Self::Done(_) => None,
        }
    }
}

/// The schedule and the last attempt of a pending recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Number of delivery attempts made so far.
    pub attempts: u32,
    /// The earliest time of the next attempt.
    pub next_attempt: UnixTime,
    /// The reply to the last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Reply>,
    /// The next hop sent no reply: `last` is the gateway's own description of the failure.
    #[serde(default)]
    pub unheard: bool,
    /// The host that sent `last`: a name, or an IP address without brackets.
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

    /// An earlier version knew neither groups nor refusals, and most mail has none.
    #[test]
    fn an_envelope_without_groups_is_as_an_earlier_version_wrote_it() {
        let written = r#"{"envelope":{"sender":"a@example.org","params":{},"recipients":[
            {"id":0,"address":"b@example.net","params":{},"relay":true}]},"received":5}"#;
        let mut entry: Entry = serde_json::from_str(written).unwrap();
        let recipient = &entry.envelope.recipients[0];
        assert!(recipient.groups.is_empty() && recipient.refused.is_none() && recipient.relay);
        let text = serde_json::to_string(&entry).unwrap();
        assert!(!text.contains("groups") && !text.contains("refused"), "{text}");
        let recipient = &mut entry.envelope.recipients[0];
        recipient.groups.insert("tenants".to_owned(), "a".to_owned());
        recipient.refused = Some(Reply::plain(550, "no"));
        let text = serde_json::to_string(&entry).unwrap();
        assert_eq!(serde_json::from_str::<Entry>(&text).unwrap(), entry);
    }

    #[test]
    fn a_disposition_is_written_as_its_word() {
        use Disposition::{Delivered, Discarded, Expired, Failed};
        for disposition in [Delivered, Failed, Expired, Discarded] {
            let text = serde_json::to_string(&DeliveryStatus::Done(disposition)).unwrap();
            assert_eq!(text, format!("{{\"done\":\"{disposition}\"}}"));
        }
    }
}
