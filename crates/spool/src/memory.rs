//! The in-memory engine, for tests and dry runs: it keeps all promises but one, that messages outlive the process.

use std::collections::BTreeMap;
use std::future::ready;
use std::ops::Bound;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use pintle_mail::{Body, NextHop, QueueId, UnixTime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::draft::DraftWriter;
use crate::{
    Content, DeliveryStatus, Draft, Entry, Filter, Guard, Health, HoldReason, Listing, NewMessage, Page,
    Receipt, RecipientState, Settled, Settlement, Spool, SpoolError, SpoolFuture, Stored, Summary, Totals,
    Waiting,
};

/// The in-memory spool engine, for tests and dry runs; messages do not outlive the process.
pub struct Memory {
    state: Mutex<MemoryState>,
}

#[derive(Default)]
struct MemoryState {
    messages: BTreeMap<QueueId, MemoryMessage>,
    health: Option<Health>,
    closed: bool,
    arrivals: Option<UnboundedSender<Waiting>>,
}

struct MemoryMessage {
    entry: Entry,
    head: Bytes,
    content: Content,
    recipients: Vec<RecipientState>,
}

impl Memory {
    /// Creates an empty spool.
    #[must_use]
    pub fn new() -> Self {
        Self { state: Mutex::default() }
    }

    /// Sets the health of the spool from now on. Drafts and commits fail accordingly.
    pub fn set_health(&self, health: Health) {
        self.state.lock().health = Some(health);
    }

    fn with<T>(&self, act: impl FnOnce(&mut MemoryState) -> Result<T, SpoolError>) -> Result<T, SpoolError> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(SpoolError::Closed);
        }
        act(&mut state)
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

fn now<'a, T: Send + 'a>(result: Result<T, SpoolError>) -> SpoolFuture<'a, T> {
    Box::pin(ready(result))
}

impl Spool for Memory {
    fn begin(&self) -> Result<Draft, SpoolError> {
        self.with(|state| state.accepting())?;
        Ok(Draft::new(MemoryDraft::default()))
    }

    fn commit(&self, message: NewMessage) -> SpoolFuture<'_, Receipt> {
        let receipts = self.with(|state| state.commit(vec![message]));
        now(receipts.map(|mut receipts| receipts.remove(0)))
    }

    fn settle(&self, settlement: Settlement) -> SpoolFuture<'_, Settled> {
        now(self.with(|state| state.settle(settlement)))
    }

    fn load(&self, id: QueueId) -> SpoolFuture<'_, Stored> {
        now(self.with(|state| Ok(state.kept(id)?.stored(id))))
    }

    fn claim(&self, after: Option<QueueId>, limit: usize) -> SpoolFuture<'_, Vec<Waiting>> {
        now(self.with(|state| {
            let messages = state.after(after).map(|(id, kept)| kept.waiting(*id));
            Ok(messages.take(limit).collect())
        }))
    }

    fn arrivals(&self) -> Option<UnboundedReceiver<Waiting>> {
        let mut state = self.state.lock();
        if state.arrivals.is_some() || state.closed {
            return None;
        }
        let (sender, receiver) = unbounded_channel();
        state.arrivals = Some(sender);
        Some(receiver)
    }

    fn hold(&self, id: QueueId, hold: HoldReason) -> SpoolFuture<'_, Option<HoldReason>> {
        now(self.with(|state| {
            let entry = &mut state.kept(id)?.entry;
            let before = entry.hold.clone();
            if hold.replaces(before.as_ref()) {
                entry.hold = Some(hold);
            }
            Ok(before)
        }))
    }

    fn release(&self, id: QueueId, at: UnixTime, guard: Guard) -> SpoolFuture<'_, Option<HoldReason>> {
        now(self.with(|state| {
            let kept = state.kept(id)?;
            guard.check(id, kept.entry.hold.as_ref())?;
            let before = kept.entry.hold.take();
            if let Some(hold) = &before {
                kept.entry.released = hold.quarantine().map(|_| at).or(kept.entry.released);
                let waiting = kept.waiting(id);
                state.announce(waiting);
            }
            Ok(before)
        }))
    }

    fn reroute(&self, id: QueueId, recipients: Vec<u32>, next_hop: Option<NextHop>) -> SpoolFuture<'_, ()> {
        now(self.with(|state| {
            let kept = state.kept(id)?;
            kept.check(id, &recipients)?;
            let all = recipients.is_empty();
            let chosen = kept.recipients.iter_mut().filter(|state| all || recipients.contains(&state.id));
            chosen.for_each(|state| state.route.clone_from(&next_hop));
            Ok(())
        }))
    }

    fn set_context(&self, id: QueueId, context: Bytes) -> SpoolFuture<'_, ()> {
        now(self.with(|state| {
            state.kept(id)?.entry.context = context;
            Ok(())
        }))
    }

    fn list(&self, filter: Filter, page: Page) -> SpoolFuture<'_, Listing> {
        now(self.with(|state| {
            let summaries = state.after(page.after).map(|(id, kept)| kept.summary(*id));
            let mut admitted = summaries.filter(|summary| filter.admits(summary)).peekable();
            let messages: Vec<Summary> = admitted.by_ref().take(page.limit).collect();
            let next = admitted.peek().and(messages.last()).map(|last| last.id);
            Ok(Listing { messages, next })
        }))
    }

    fn totals(&self) -> SpoolFuture<'_, Totals> {
        now(self.with(|state| {
            let mut totals = Totals::default();
            for kept in state.messages.values() {
                totals.count_in(kept.size(), kept.entry.hold.as_ref());
            }
            Ok(totals)
        }))
    }

    fn health(&self) -> Health {
        self.state.lock().health.clone().unwrap_or(Health::Accepting)
    }

    fn close(&self) -> SpoolFuture<'_, ()> {
        let mut state = self.state.lock();
        state.closed = true;
        state.arrivals = None;
        now(Ok(()))
    }
}

/// A draft that stays in memory, whatever its size.
#[derive(Default)]
struct MemoryDraft(BytesMut);

impl DraftWriter for MemoryDraft {
    fn try_append(&mut self, piece: &[u8]) -> Result<bool, SpoolError> {
        self.0.extend_from_slice(piece);
        Ok(true)
    }

    fn append(&mut self, piece: Bytes) -> SpoolFuture<'_, ()> {
        now(self.try_append(&piece).map(drop))
    }

    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn finish(self: Box<Self>) -> SpoolFuture<'static, Content> {
        now(Ok(Content::from(self.0.freeze())))
    }
}

impl MemoryState {
    fn accepting(&self) -> Result<(), SpoolError> {
        self.health.clone().map_or(Ok(()), Health::accepting)
    }

    fn kept(&mut self, id: QueueId) -> Result<&mut MemoryMessage, SpoolError> {
        self.messages.get_mut(&id).ok_or(SpoolError::Unknown(id))
    }

    fn after(&self, after: Option<QueueId>) -> impl Iterator<Item = (&QueueId, &MemoryMessage)> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.messages.range((start, Bound::Unbounded))
    }

    fn announce(&self, waiting: Waiting) {
        if let Some(arrivals) = &self.arrivals {
            // The queue has ended. It learns of the message by the next claim.
            let _ = arrivals.send(waiting);
        }
    }

    fn commit(&mut self, messages: Vec<NewMessage>) -> Result<Vec<Receipt>, SpoolError> {
        self.accepting()?;
        for (at, message) in messages.iter().enumerate() {
            let twice = messages[..at].iter().any(|earlier| earlier.id == message.id);
            if twice || self.messages.contains_key(&message.id) {
                return Err(SpoolError::Duplicate(message.id));
            }
        }
        Ok(messages.into_iter().map(|message| self.insert(message)).collect())
    }

    fn insert(&mut self, message: NewMessage) -> Receipt {
        let id = message.id;
        let kept = MemoryMessage::new(message);
        self.announce(kept.waiting(id));
        self.messages.insert(id, kept);
        Receipt::mint(id)
    }

    fn settle(&mut self, settlement: Settlement) -> Result<Settled, SpoolError> {
        let id = settlement.id;
        let numbers: Vec<u32> = settlement.changes.iter().map(|change| change.recipient).collect();
        let kept = self.kept(id)?;
        settlement.guard.check(id, kept.entry.hold.as_ref())?;
        kept.check(id, &numbers)?;
        let is_done =
            |state: &&RecipientState| state.status.pending().is_none() && numbers.contains(&state.id);
        if !settlement.children.is_empty() && kept.recipients.iter().any(|state| is_done(&state)) {
            return Err(SpoolError::RecipientsChanged(id));
        }
        let children = self.commit(settlement.children)?;
        let kept = self.kept(id)?;
        for change in settlement.changes {
            let state = kept.recipients.iter_mut().find(|state| state.id == change.recipient);
            if let Some(state) = state.filter(|state| state.status.pending().is_some()) {
                state.status = change.status;
            }
        }
        let removed = kept.recipients.iter().all(|state| state.status.pending().is_none());
        if removed {
            self.messages.remove(&id);
        }
        Ok(Settled { removed, children })
    }
}

impl MemoryMessage {
    fn new(message: NewMessage) -> Self {
        let received = message.entry.received;
        let recipients = message.entry.envelope.recipients.iter();
        let recipients = recipients.map(|recipient| RecipientState {
            id: recipient.id,
            status: DeliveryStatus::fresh(received),
            route: None,
        });
        Self {
            recipients: recipients.collect(),
            entry: message.entry,
            head: message.head,
            content: message.content,
        }
    }

    fn check(&self, id: QueueId, numbers: &[u32]) -> Result<(), SpoolError> {
        let stranger = numbers.iter().find(|number| self.recipients.iter().all(|state| state.id != **number));
        stranger.map_or(Ok(()), |number| Err(SpoolError::UnknownRecipient(id, *number)))
    }

    fn size(&self) -> u64 {
        self.head.len() as u64 + self.content.size()
    }

    fn waiting(&self, id: QueueId) -> Waiting {
        Waiting::new(id, &self.entry, self.size(), &self.recipients)
    }

    fn summary(&self, id: QueueId) -> Summary {
        Summary::new(id, &self.entry, self.size(), &self.recipients)
    }

    fn stored(&self, id: QueueId) -> Stored {
        Stored {
            id,
            entry: self.entry.clone(),
            head: self.head.clone(),
            body: Arc::new(self.content.clone()),
            recipients: self.recipients.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{self, Store, Subject};
    use crate::fault::Faults;

    struct MemorySubject;

    impl Subject for MemorySubject {
        fn store(&self) -> Box<dyn Store> {
            Box::new(Self)
        }
    }

    impl Store for MemorySubject {
        fn open(&mut self) -> Arc<dyn Spool> {
            Arc::new(Memory::new())
        }

        fn faults(&self) -> Option<Faults> {
            None
        }
    }

    #[tokio::test]
    async fn it_conforms() {
        conformance::run(&MemorySubject).await;
    }
}
