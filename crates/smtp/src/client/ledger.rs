//! The book of one transaction: who is settled, and how. It is what makes "exactly one outcome each" true: a recipient
//! is settled once, and closing the book settles the rest.

use pintle_mail::Reply;

use super::outcome::{Closed, Delivery, DsnRelay, Outcome, RecipientOutcome, Speaker, Step};

/// Outcomes so far, in the order of the envelope.
#[derive(Debug)]
pub(super) struct Ledger {
    entries: Vec<Entry>,
    dsn: DsnRelay,
}

#[derive(Debug)]
struct Entry {
    id: u32,
    settled: Option<RecipientOutcome>,
}

impl Ledger {
    pub(super) fn new(ids: impl Iterator<Item = u32>, dsn: DsnRelay) -> Self {
        Self { entries: ids.map(|id| Entry { id, settled: None }).collect(), dsn }
    }

    /// Settles one recipient by a word of the next hop; the first word counts.
    pub(super) fn settle(&mut self, at: usize, outcome: &Outcome, step: Step) {
        if let Some(entry) = self.entries.get_mut(at) {
            entry.settle(outcome, Speaker::NextHop, step);
        }
    }

    /// Settles all who are not yet, by a word of the next hop.
    pub(super) fn settle_rest(&mut self, outcome: &Outcome, step: Step) {
        for entry in &mut self.entries {
            entry.settle(outcome, Speaker::NextHop, step);
        }
    }

    /// Fails one recipient, or all, before the next hop was asked.
    pub(super) fn fail_unasked(&mut self, at: Option<usize>, reply: &Reply) {
        let outcome = Outcome::Failed(reply.clone());
        for (number, entry) in self.entries.iter_mut().enumerate() {
            if at.is_none_or(|at| at == number) {
                entry.settle(&outcome, Speaker::Us, Step::Mail);
            }
        }
    }

    /// The positions of those not settled yet.
    pub(super) fn open(&self) -> impl Iterator<Item = usize> {
        let open = |(at, entry): (usize, &Entry)| entry.settled.is_none().then_some(at);
        self.entries.iter().enumerate().filter_map(open)
    }

    pub(super) fn is_settled(&self) -> bool {
        self.open().next().is_none()
    }

    /// Closes a book in which all are settled.
    pub(super) fn close(self) -> Delivery {
        self.close_lost(&Closed::Lost(Step::End))
    }

    /// Closes the book over a session that has ended: whoever is not settled is deferred.
    pub(super) fn close_lost(mut self, why: &Closed) -> Delivery {
        // Even where the reply is 5xx, it was said about the session and not about these recipients.
        let (outcome, step) = (Outcome::Deferred(why.reply()), why.step());
        for entry in &mut self.entries {
            entry.settle(&outcome, why.speaker(), step);
        }
        Delivery {
            recipients: self.entries.into_iter().filter_map(|entry| entry.settled).collect(),
            dsn: self.dsn,
        }
    }
}

impl Entry {
    fn settle(&mut self, outcome: &Outcome, speaker: Speaker, step: Step) {
        if self.settled.is_none() {
            self.settled = Some(RecipientOutcome { id: self.id, outcome: outcome.clone(), speaker, step });
        }
    }
}
