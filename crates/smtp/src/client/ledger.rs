//! The outcomes of one transaction, recipient by recipient. It ensures exactly one outcome for each recipient: a
//! recipient is settled once, and closing the ledger settles the rest.

use pintle_mail::Reply;

use super::config::Transfer;
use super::outcome::{Closed, Delivery, DialogueStep, DsnRelay, RecipientOutcome, ReplyOutcome, Speaker};

/// Outcomes so far, in the order of the envelope.
#[derive(Debug)]
pub(super) struct Ledger {
    entries: Vec<LedgerEntry>,
    dsn: DsnRelay,
    transfer: Transfer,
}

#[derive(Debug)]
struct LedgerEntry {
    id: u32,
    settled: Option<RecipientOutcome>,
}

impl Ledger {
    pub(super) fn new(ids: impl Iterator<Item = u32>, dsn: DsnRelay, transfer: Transfer) -> Self {
        Self { entries: ids.map(|id| LedgerEntry { id, settled: None }).collect(), dsn, transfer }
    }

    /// How the message is sent: DATA or BDAT.
    pub(super) fn transfer(&self) -> Transfer {
        self.transfer
    }

    /// Settles one recipient by a reply of the next hop; the first reply counts.
    pub(super) fn settle(&mut self, at: usize, outcome: &ReplyOutcome, step: DialogueStep) {
        if let Some(entry) = self.entries.get_mut(at) {
            entry.settle(outcome, Speaker::NextHop, step);
        }
    }

    /// Settles all recipients that are still open, by a reply of the next hop.
    pub(super) fn settle_rest(&mut self, outcome: &ReplyOutcome, step: DialogueStep) {
        for entry in &mut self.entries {
            entry.settle(outcome, Speaker::NextHop, step);
        }
    }

    /// Fails one recipient, or all, before the next hop was asked.
    pub(super) fn fail_unasked(&mut self, at: Option<usize>, reply: &Reply) {
        let outcome = ReplyOutcome::Failed(reply.clone());
        for (number, entry) in self.entries.iter_mut().enumerate() {
            if at.is_none_or(|at| at == number) {
                entry.settle(&outcome, Speaker::Us, DialogueStep::Mail);
            }
        }
    }

    /// The indexes of the recipients that are still open.
    pub(super) fn open(&self) -> impl Iterator<Item = usize> {
        let open = |(at, entry): (usize, &LedgerEntry)| entry.settled.is_none().then_some(at);
        self.entries.iter().enumerate().filter_map(open)
    }

    pub(super) fn is_settled(&self) -> bool {
        self.open().next().is_none()
    }

    /// Closes a ledger in which all recipients are settled.
    pub(super) fn close(self) -> Delivery {
        Delivery {
            recipients: self.entries.into_iter().filter_map(|entry| entry.settled).collect(),
            dsn: self.dsn,
            transfer: self.transfer,
            ended: None,
        }
    }

    /// Closes the ledger of a session that has ended: recipients that are still open are deferred.
    pub(super) fn close_lost(mut self, why: &Closed) -> Delivery {
        // Even a 5xx reply was about the session here and not about these recipients.
        let (outcome, step) = (ReplyOutcome::Deferred(why.reply()), why.step());
        for entry in self.entries.iter_mut().filter(|entry| entry.settled.is_none()) {
            entry.settle(&outcome, why.speaker(), step);
            entry.settled.iter_mut().for_each(|settled| settled.cut = true);
        }
        Delivery { ended: Some(why.clone()), ..self.close() }
    }
}

impl LedgerEntry {
    fn settle(&mut self, outcome: &ReplyOutcome, speaker: Speaker, step: DialogueStep) {
        if self.settled.is_none() {
            let outcome = outcome.clone();
            self.settled = Some(RecipientOutcome { id: self.id, outcome, speaker, step, cut: false });
        }
    }
}
