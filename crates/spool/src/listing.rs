//! Short views of many messages: what a queue needs to schedule them, and what operators see in lists.

use std::collections::BTreeMap;

use pintle_mail::{Address, NextHop, QueueId, Recipient, ReversePath, UnixTime};

use crate::{DeliveryStatus, Entry, HoldReason, Pending, Quarantine, RecipientState};

/// A message with pending recipients, as a scheduler needs it, without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Queue id of the message.
    pub id: QueueId,
    /// When the gateway accepted it.
    pub received: UnixTime,
    /// Octets of header block and body.
    pub size: u64,
    /// Its hold. A held message must not be delivered.
    pub hold: Option<HoldReason>,
    /// When it was released from a quarantine, if it was.
    pub released: Option<UnixTime>,
    /// The recipients that are still pending.
    pub recipients: Vec<WaitingRecipient>,
}

/// A pending recipient of a waiting message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingRecipient {
    /// The recipient's id within the message: [`Recipient::id`](pintle_mail::Recipient::id).
    pub id: u32,
    /// The recipient's domain, in A-labels and lower case. Empty for a bare `postmaster`.
    pub domain: String,
    /// Number of delivery attempts made so far.
    pub attempts: u32,
    /// The earliest time of the next attempt.
    pub next_attempt: UnixTime,
    /// The sender has been told of the delay.
    pub warned: bool,
    /// The operator's choice of next hop.
    pub route: Option<NextHop>,
    /// Its groups: [`Recipient::groups`](pintle_mail::Recipient::groups).
    pub groups: BTreeMap<String, String>,
    /// Plugins refused it, and it fails without an attempt: [`Recipient::refused`](pintle_mail::Recipient::refused).
    pub refused: bool,
}

impl Waiting {
    /// The view of a message with these states of its recipients, in the envelope's order.
    #[must_use]
    pub fn new(id: QueueId, entry: &Entry, size: u64, states: &[RecipientState]) -> Self {
        let pairs = entry.envelope.recipients.iter().zip(states);
        let recipients = pairs.filter_map(|(recipient, state)| {
            let pending = state.status.pending()?;
            Some(WaitingRecipient::new(recipient, state, pending))
        });
        Self {
            id,
            received: entry.received,
            size,
            hold: entry.hold.clone(),
            released: entry.released,
            recipients: recipients.collect(),
        }
    }

    /// The time from which its age counts, as [`Entry::age_from`].
    #[must_use]
    pub fn age_from(&self) -> UnixTime {
        self.released.unwrap_or(self.received)
    }
}

impl WaitingRecipient {
    fn new(recipient: &Recipient, state: &RecipientState, pending: &Pending) -> Self {
        Self {
            id: state.id,
            domain: recipient.address.domain_ascii(),
            attempts: pending.attempts,
            next_attempt: pending.next_attempt,
            warned: pending.warned,
            route: state.route.clone(),
            groups: recipient.groups.clone(),
            refused: recipient.refused.is_some(),
        }
    }
}

/// Conditions on the messages of a list, all of which must hold. An absent condition is met by all messages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// The reverse-path contains this, ignoring case. The empty text means the null reverse-path.
    pub sender: Option<String>,
    /// The address of a recipient, pending or done, contains this, ignoring case.
    pub recipient: Option<String>,
    /// Only held messages, or only those not held.
    pub held: Option<bool>,
    /// Accepted before this time.
    pub received_before: Option<UnixTime>,
    /// Only messages in a quarantine, or only those in none.
    pub quarantined: Option<bool>,
    /// In the quarantine of this name.
    pub quarantine: Option<String>,
    /// In a quarantine since before this time.
    pub quarantined_before: Option<UnixTime>,
}

impl Filter {
    /// Whether a message meets all conditions.
    #[must_use]
    pub fn admits(&self, summary: &Summary) -> bool {
        let recipient = |part: &String| {
            let mut recipients = summary.recipients.iter();
            recipients.any(|(address, _)| contains(address.as_str(), part))
        };
        let sender = |part: &String| match part.as_str() {
            "" => summary.sender.is_null(),
            part => contains(summary.sender.as_str(), part),
        };
        self.sender.as_ref().is_none_or(sender)
            && self.recipient.as_ref().is_none_or(recipient)
            && self.held.is_none_or(|held| held == summary.hold.is_some())
            && self.received_before.is_none_or(|limit| summary.received < limit)
            && self.admits_hold(summary.hold.as_ref().and_then(HoldReason::quarantine))
    }

    fn admits_hold(&self, found: Option<&Quarantine>) -> bool {
        self.quarantined.is_none_or(|quarantined| quarantined == found.is_some())
            && self.quarantine.as_ref().is_none_or(|name| found.is_some_and(|found| found.name == *name))
            && self.quarantined_before.is_none_or(|limit| found.is_some_and(|found| found.since < limit))
    }

    /// Whether only held messages can pass, so that an engine can skip the others.
    pub(crate) fn wants_held_only(&self) -> bool {
        self.held == Some(true)
            || self.quarantined == Some(true)
            || self.quarantine.is_some()
            || self.quarantined_before.is_some()
    }
}

fn contains(text: &str, part: &str) -> bool {
    text.to_lowercase().contains(&part.to_lowercase())
}

/// A position in a list, and the size of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Only ids greater than this one.
    pub after: Option<QueueId>,
    /// At most this many messages.
    pub limit: usize,
}

/// A page of a list, oldest message first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The messages of the page.
    pub messages: Vec<Summary>,
    /// The id after which the next page begins. None on the last page.
    pub next: Option<QueueId>,
}

/// One message of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Queue id of the message.
    pub id: QueueId,
    /// When the gateway accepted it.
    pub received: UnixTime,
    /// Octets of header block and body.
    pub size: u64,
    /// The sender: its reverse-path.
    pub sender: ReversePath,
    /// Its hold, if it is not being delivered.
    pub hold: Option<HoldReason>,
    /// When it was released from a quarantine, if it was.
    pub released: Option<UnixTime>,
    /// The recipients with their statuses, in the envelope's order.
    pub recipients: Vec<(Address, DeliveryStatus)>,
    /// The recipients' [ids](pintle_mail::Recipient::id), in the same order.
    pub ids: Vec<u32>,
}

impl Summary {
    /// The summary of a message with these states of its recipients, in the envelope's order.
    #[must_use]
    pub fn new(id: QueueId, entry: &Entry, size: u64, states: &[RecipientState]) -> Self {
        let pairs = entry.envelope.recipients.iter().zip(states);
        Self {
            id,
            received: entry.received,
            size,
            sender: entry.envelope.sender.clone(),
            hold: entry.hold.clone(),
            released: entry.released,
            recipients: pairs
                .map(|(recipient, state)| (recipient.address.clone(), state.status.clone()))
                .collect(),
            ids: states.iter().map(|state| state.id).collect(),
        }
    }
}

impl Summary {
    /// The view for a scheduler that knows the message's recipients already; it names none.
    #[must_use]
    pub fn waiting(&self) -> Waiting {
        Waiting {
            id: self.id,
            received: self.received,
            size: self.size,
            hold: self.hold.clone(),
            released: self.released,
            recipients: Vec::new(),
        }
    }

    /// The time from which its age counts, as [`Entry::age_from`].
    #[must_use]
    pub fn age_from(&self) -> UnixTime {
        self.released.unwrap_or(self.received)
    }
}

/// How much is in the spool, for health checks and metrics.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Totals {
    /// Messages in the spool, held ones included.
    pub messages: u64,
    /// Messages that are held.
    pub held: u64,
    /// Octets of header blocks and bodies of held messages.
    pub held_bytes: u64,
    /// Octets of header blocks and bodies of all messages.
    pub bytes: u64,
    /// Messages that were set aside because they are damaged.
    pub damaged: u64,
    /// How much is in each quarantine, by its name. Empty ones are left out.
    pub quarantines: BTreeMap<String, Amount>,
}

/// Messages and their size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amount {
    /// Number of messages.
    pub messages: u64,
    /// Octets of their header blocks and bodies.
    pub bytes: u64,
}

impl Totals {
    /// Adds a new message.
    pub(crate) fn count_in(&mut self, size: u64, hold: Option<&HoldReason>) {
        self.messages += 1;
        self.bytes += size;
        self.hold(size, hold);
    }

    /// Subtracts a message that was removed.
    pub(crate) fn count_out(&mut self, size: u64, hold: Option<&HoldReason>) {
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(size);
        self.let_go(size, hold);
    }

    /// Adds a message to those that are held, if it is.
    pub(crate) fn hold(&mut self, size: u64, hold: Option<&HoldReason>) {
        self.held += u64::from(hold.is_some());
        self.held_bytes += if hold.is_some() { size } else { 0 };
        if let Some(quarantine) = hold.and_then(HoldReason::quarantine) {
            let amount = self.quarantines.entry(quarantine.name.clone()).or_default();
            amount.messages += 1;
            amount.bytes += size;
        }
    }

    /// Subtracts a message from those that are held, if it was.
    pub(crate) fn let_go(&mut self, size: u64, hold: Option<&HoldReason>) {
        self.held = self.held.saturating_sub(u64::from(hold.is_some()));
        self.held_bytes = self.held_bytes.saturating_sub(if hold.is_some() { size } else { 0 });
        let Some(quarantine) = hold.and_then(HoldReason::quarantine) else {
            return;
        };
        if let Some(amount) = self.quarantines.get_mut(&quarantine.name) {
            amount.messages = amount.messages.saturating_sub(1);
            amount.bytes = amount.bytes.saturating_sub(size);
            if amount.messages == 0 {
                self.quarantines.remove(&quarantine.name);
            }
        }
    }
}
