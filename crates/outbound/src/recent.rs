//! Messages that were committed a moment ago, still in memory for their first attempt.
//!
//! [`RecentSpool`] is the spool as the rest of the program is to see it: everything passes through to the engine, and what
//! passes through a commit is remembered on the way, within bounds. So a message that is delivered at once is never read
//! back from disk, and whoever commits it need not know that deliveries exist. Nothing is promised here: what is not
//! remembered is loaded.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use pintle_mail::{Body, NextHop, QueueId};
use pintle_spool::{
    Draft, Filter, Health, Hold, Listing, NewMessage, Page, Receipt, RecipientState, Settled, Settlement,
    Spool, SpoolError, SpoolFuture, Status, Stored, Totals, Waiting,
};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::config;

/// What is remembered.
pub(crate) struct RecentMail {
    limits: config::Recent,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    messages: HashMap<QueueId, Arc<Stored>>,
    /// Oldest first; ids of forgotten messages stay until they come to the front.
    order: VecDeque<QueueId>,
    octets: u64,
}

impl RecentMail {
    pub(crate) fn new(limits: config::Recent) -> Self {
        Self {
            limits,
            kept: Mutex::default(),
        }
    }

    /// The message as it was committed, if it is still here. Its recipients' statuses are those of that moment.
    pub(crate) fn get(&self, id: QueueId) -> Option<Arc<Stored>> {
        self.kept.lock().messages.get(&id).map(Arc::clone)
    }

    /// What was remembered no longer tells the truth, or is no longer needed.
    pub(crate) fn forget(&self, id: QueueId) {
        self.kept.lock().take(id);
    }

    fn remember(&self, message: &NewMessage) {
        if size(message) > self.limits.message || message.entry.hold.is_some() {
            return;
        }
        let stored = Arc::new(as_stored(message));
        let mut kept = self.kept.lock();
        kept.octets += weight(&stored);
        kept.order.push_back(message.id);
        kept.messages.insert(message.id, stored);
        kept.shrink(self.limits.total);
    }
}

impl Kept {
    fn take(&mut self, id: QueueId) {
        if let Some(stored) = self.messages.remove(&id) {
            self.octets -= weight(&stored);
        }
        // Messages mostly leave in the order in which they came, so this keeps the order short for next to nothing.
        while self
            .order
            .front()
            .is_some_and(|first| !self.messages.contains_key(first))
        {
            self.order.pop_front();
        }
    }

    fn shrink(&mut self, total: u64) {
        while self.octets > total
            && let Some(oldest) = self.order.pop_front()
        {
            self.take(oldest);
        }
    }
}

fn size(message: &NewMessage) -> u64 {
    message.head.len() as u64 + message.content.size()
}

fn weight(stored: &Stored) -> u64 {
    stored.head.len() as u64 + stored.body.size() + stored.entry.context.len() as u64
}

fn as_stored(message: &NewMessage) -> Stored {
    let recipients = message.entry.envelope.recipients.iter();
    let fresh = |id| RecipientState {
        id,
        status: Status::fresh(message.entry.received),
        route: None,
    };
    Stored {
        id: message.id,
        recipients: recipients.map(|recipient| fresh(recipient.id)).collect(),
        entry: message.entry.clone(),
        head: message.head.clone(),
        body: Arc::new(message.content.clone()),
    }
}

/// The engine, with a memory of what passed through.
pub(crate) struct RecentSpool {
    pub(crate) engine: Arc<dyn Spool>,
    pub(crate) recent: Arc<RecentMail>,
}

impl RecentSpool {
    /// A commit that fails leaves nothing behind; one whose caller went away leaves what the bounds allow.
    fn watch<'a, T>(&'a self, ids: Vec<QueueId>, commit: SpoolFuture<'a, T>) -> SpoolFuture<'a, T>
    where
        T: Send + 'a,
    {
        Box::pin(async move {
            let result = commit.await;
            if result.is_err() {
                ids.into_iter().for_each(|id| self.recent.forget(id));
            }
            result
        })
    }
}

impl Spool for RecentSpool {
    fn begin(&self) -> Result<Draft, SpoolError> {
        self.engine.begin()
    }

    fn commit(&self, message: NewMessage) -> SpoolFuture<'_, Receipt> {
        self.recent.remember(&message);
        self.watch(vec![message.id], self.engine.commit(message))
    }

    fn commit_many(&self, messages: Vec<NewMessage>) -> SpoolFuture<'_, Vec<Receipt>> {
        messages.iter().for_each(|message| self.recent.remember(message));
        let ids = messages.iter().map(|message| message.id).collect();
        self.watch(ids, self.engine.commit_many(messages))
    }

    fn settle(&self, settlement: Settlement) -> SpoolFuture<'_, Settled> {
        settlement
            .children
            .iter()
            .for_each(|child| self.recent.remember(child));
        let ids = settlement.children.iter().map(|child| child.id).collect();
        self.watch(ids, self.engine.settle(settlement))
    }

    fn load(&self, id: QueueId) -> SpoolFuture<'_, Stored> {
        self.engine.load(id)
    }

    fn claim(&self, after: Option<QueueId>, limit: usize) -> SpoolFuture<'_, Vec<Waiting>> {
        self.engine.claim(after, limit)
    }

    fn renew(&self, ids: Vec<QueueId>) -> SpoolFuture<'_, ()> {
        self.engine.renew(ids)
    }

    fn arrivals(&self) -> Option<UnboundedReceiver<Waiting>> {
        self.engine.arrivals()
    }

    fn hold(&self, id: QueueId, hold: Hold) -> SpoolFuture<'_, ()> {
        self.recent.forget(id);
        self.engine.hold(id, hold)
    }

    fn release(&self, id: QueueId) -> SpoolFuture<'_, ()> {
        self.engine.release(id)
    }

    fn reroute(&self, id: QueueId, recipients: Vec<u32>, next_hop: Option<NextHop>) -> SpoolFuture<'_, ()> {
        self.engine.reroute(id, recipients, next_hop)
    }

    fn list(&self, filter: Filter, page: Page) -> SpoolFuture<'_, Listing> {
        self.engine.list(filter, page)
    }

    fn totals(&self) -> SpoolFuture<'_, Totals> {
        self.engine.totals()
    }

    fn health(&self) -> Health {
        self.engine.health()
    }

    fn close(&self) -> SpoolFuture<'_, ()> {
        self.engine.close()
    }
}
