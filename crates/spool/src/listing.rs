//! Short views of many messages: what a queue needs to schedule them, and what an operator wants to see.

use std::collections::BTreeMap;

use pintle_mail::{Address, NextHop, QueueId, ReversePath, UnixTime};

use crate::{Entry, Hold, Pending, Quarantine, RecipientState, Status};

/// A message with recipients still pending: all that a scheduler wants to know, without the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The message.
    pub id: QueueId,
    /// When it was taken.
    pub received: UnixTime,
    /// Header block and body, in octets.
    pub size: u64,
    /// Why it must not be delivered for now.
    pub hold: Option<Hold>,
    /// When it was let out of a quarantine.
    pub released: Option<UnixTime>,
    /// Those recipients that are not done.
    pub recipients: Vec<WaitingRecipient>,
}

/// One pending recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingRecipient {
    /// [`Recipient::id`](pintle_mail::Recipient::id).
    pub id: u32,
    /// In A-labels and lower case; empty for a bare `postmaster`.
    pub domain: String,
    /// Delivery attempts made.
    pub attempts: u32,
    /// Not before this time.
    pub next_attempt: UnixTime,
    /// The sender has been told of the delay.
    pub warned: bool,
    /// The operator's choice of next hop.
    pub route: Option<NextHop>,
}

impl Waiting {
    /// The view of a message whose recipients stand as `states` says, in the envelope's order.
    #[must_use]
    pub fn new(id: QueueId, entry: &Entry, size: u64, states: &[RecipientState]) -> Self {
        let pairs = entry.envelope.recipients.iter().zip(states);
        let recipients = pairs.filter_map(|(recipient, state)| {
            let pending = state.status.pending()?;
            Some(WaitingRecipient::new(&recipient.address, state, pending))
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

    /// As [`Entry::age_from`].
    #[must_use]
    pub fn age_from(&self) -> UnixTime {
        self.released.unwrap_or(self.received)
    }
}

impl WaitingRecipient {
    fn new(address: &Address, state: &RecipientState, pending: &Pending) -> Self {
        Self {
            id: state.id,
            domain: address.domain_ascii(),
            attempts: pending.attempts,
            next_attempt: pending.next_attempt,
            warned: pending.warned,
            route: state.route.clone(),
        }
    }
}

/// Which messages to list. An absent condition lets everything through.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// The reverse-path contains this, in any case; the empty text means the null reverse-path.
    pub sender: Option<String>,
    /// The address of a recipient, pending or done, contains this, in any case.
    pub recipient: Option<String>,
    /// Only held messages, or only those not held.
    pub held: Option<bool>,
    /// Taken before this time.
    pub received_before: Option<UnixTime>,
    /// Only what lies in a quarantine, or only what does not.
    pub quarantined: Option<bool>,
    /// In the quarantine of this name.
    pub quarantine: Option<String>,
    /// In a quarantine, and since before this time.
    pub quarantined_before: Option<UnixTime>,
}

impl Filter {
    /// Whether a message passes.
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
            && self.admits_hold(summary.hold.as_ref().and_then(Hold::quarantine))
    }

    fn admits_hold(&self, found: Option<&Quarantine>) -> bool {
        self.quarantined.is_none_or(|quarantined| quarantined == found.is_some())
            && self.quarantine.as_ref().is_none_or(|name| found.is_some_and(|found| found.name == *name))
            && self.quarantined_before.is_none_or(|limit| found.is_some_and(|found| found.since < limit))
    }

    /// Whether only held messages can pass, so that a store need not look at the others.
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

/// Where in the list, and how much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Only ids greater than this one.
    pub after: Option<QueueId>,
    /// At most this many messages.
    pub limit: usize,
}

/// A page of the list, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The messages.
    pub messages: Vec<Summary>,
    /// Where the next page begins; none at the end.
    pub next: Option<QueueId>,
}

/// One message in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The message.
    pub id: QueueId,
    /// When it was taken.
    pub received: UnixTime,
    /// Header block and body, in octets.
    pub size: u64,
    /// Who it comes from.
    pub sender: ReversePath,
    /// Why it is not being delivered.
    pub hold: Option<Hold>,
    /// When it was let out of a quarantine.
    pub released: Option<UnixTime>,
    /// Who gets it, and how each stands.
    pub recipients: Vec<(Address, Status)>,
    /// Their [ids](pintle_mail::Recipient::id), in the same order.
    pub ids: Vec<u32>,
}

impl Summary {
    /// The summary of a message whose recipients stand as `states` says, in the envelope's order.
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
    /// What a scheduler that knows the message's recipients wants to hear of it again.
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

    /// As [`Entry::age_from`].
    #[must_use]
    pub fn age_from(&self) -> UnixTime {
        self.released.unwrap_or(self.received)
    }
}

/// Numbers for health checks and metrics.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Totals {
    /// Messages in the spool, held ones included.
    pub messages: u64,
    /// Of these, how many are held.
    pub held: u64,
    /// Octets of the header blocks and bodies of those that are held.
    pub held_bytes: u64,
    /// Octets of all header blocks and bodies.
    pub bytes: u64,
    /// Messages set aside because what lies on disk is damaged.
    pub damaged: u64,
    /// What lies in each quarantine, by its name; empty ones are not named.
    pub quarantines: BTreeMap<String, Amount>,
}

/// How much it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amount {
    /// Messages.
    pub messages: u64,
    /// Octets of their header blocks and bodies.
    pub bytes: u64,
}

impl Totals {
    /// A message of this size came in, held so.
    pub(crate) fn count_in(&mut self, size: u64, hold: Option<&Hold>) {
        self.messages += 1;
        self.bytes += size;
        self.hold(size, hold);
    }

    /// A message went, which was held so.
    pub(crate) fn count_out(&mut self, size: u64, hold: Option<&Hold>) {
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(size);
        self.let_go(size, hold);
    }

    /// A message is held so from now on.
    pub(crate) fn hold(&mut self, size: u64, hold: Option<&Hold>) {
        self.held += u64::from(hold.is_some());
        self.held_bytes += if hold.is_some() { size } else { 0 };
        if let Some(quarantine) = hold.and_then(Hold::quarantine) {
            let amount = self.quarantines.entry(quarantine.name.clone()).or_default();
            amount.messages += 1;
            amount.bytes += size;
        }
    }

    /// A message is held so no longer.
    pub(crate) fn let_go(&mut self, size: u64, hold: Option<&Hold>) {
        self.held = self.held.saturating_sub(u64::from(hold.is_some()));
        self.held_bytes = self.held_bytes.saturating_sub(if hold.is_some() { size } else { 0 });
        let Some(quarantine) = hold.and_then(Hold::quarantine) else {
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
