//! What the committer shares with the callers of the engine: the health of the store, totals, arrivals, and a cache of
//! recent messages.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use pintle_mail::{Body, Bytes, QueueId};
use tokio::sync::mpsc::UnboundedSender;

use super::body::{StagedBody, StagedMessage};
use super::database::{Database, fresh};
use super::index::{HoldChange, RemovedMessage};
use crate::fault::Faults;
use crate::{Entry, SpoolError, Stored, Totals, Waiting};

/// Written by the committer, read by all.
pub(crate) struct EngineShared {
    pub(crate) health: StoreHealth,
    pub(crate) recent: RecentCache,
    pub(crate) totals: Mutex<Totals>,
    pub(crate) arrivals: Mutex<Option<UnboundedSender<Waiting>>>,
    /// The readers' connection to the index. None once the spool is closed.
    pub(crate) reading: Mutex<Option<Database>>,
    /// How often the index has been rebuilt.
    generation: AtomicU64,
    pub(crate) faults: Faults,
}

impl EngineShared {
    pub(crate) fn new(reading: Database, totals: Totals, warm: usize, faults: Faults) -> Self {
        Self {
            health: StoreHealth::default(),
            recent: RecentCache::new(warm),
            totals: Mutex::new(totals),
            arrivals: Mutex::new(None),
            reading: Mutex::new(Some(reading)),
            generation: AtomicU64::new(0),
            faults,
        }
    }

    /// The generation of the index: how often it has been rebuilt.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Counts a rebuild of the index.
    pub(crate) fn next_generation(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Adds a message that was committed.
    pub(crate) fn admit(&self, message: StagedMessage) {
        let size = message.size();
        self.totals.lock().count_in(size, message.entry.hold.as_ref());
        let waiting = Waiting::new(message.id, &message.entry, size, &fresh(&message.entry));
        // First the cache: the delivery loads the message at once.
        self.recent.insert(message);
        self.announce(|| waiting);
    }

    /// Subtracts a message that was removed.
    pub(crate) fn count_out(&self, gone: &RemovedMessage) {
        let mut totals = self.totals.lock();
        totals.count_out(gone.size, gone.hold.as_ref());
        totals.damaged += u64::from(gone.damaged);
    }

    /// Counts a changed hold.
    pub(crate) fn count_held(&self, change: &HoldChange) {
        let mut totals = self.totals.lock();
        totals.let_go(change.size, change.before.as_ref());
        totals.hold(change.size, change.now.as_ref());
    }

    /// Sends a message that became pending to the queue, if there is one.
    pub(crate) fn announce(&self, waiting: impl FnOnce() -> Waiting) {
        if let Some(arrivals) = &*self.arrivals.lock() {
            // The queue has ended. It learns of the message by the next claim.
            let _ = arrivals.send(waiting());
        }
    }
}

/// Whether the store keeps what is written. Once broken it stays broken, until a restart has read the disk again. An
/// index that is behind the log passes.
#[derive(Default)]
pub(crate) struct StoreHealth {
    broken: OnceLock<Arc<str>>,
    behind: Mutex<Option<SpoolError>>,
}

impl StoreHealth {
    pub(crate) fn broken(&self) -> Option<Arc<str>> {
        self.broken.get().cloned()
    }

    pub(crate) fn break_down(&self, why: &Arc<str>) {
        if self.broken.set(why.clone()).is_ok() {
            tracing::error!(
                %why,
                "THE SPOOL ACCEPTS NO MORE MAIL: data may not have reached the disk. Check the disk, then restart the gateway"
            );
        }
    }

    /// Why the index lacks what the log has, while it does.
    pub(crate) fn behind(&self) -> Option<SpoolError> {
        self.behind.lock().clone()
    }

    /// The index lacks what the log has.
    pub(crate) fn fall_behind(&self, trouble: SpoolError) {
        let mut behind = self.behind.lock();
        if behind.is_none() {
            tracing::error!(
                %trouble,
                "THE SPOOL TAKES NO MAIL FOR NOW: its database cannot be written. Accepted mail is safe in the log; the \
                 database is tried again until it works"
            );
        }
        *behind = Some(trouble);
    }

    /// The index is up to date with the log again.
    pub(crate) fn catch_up(&self) {
        if self.behind.lock().take().is_some() {
            tracing::warn!("the spool's database is up to date with the log again: mail is accepted");
        }
    }
}

/// A cache of messages that have not changed since their commit, as far as memory allows.
///
/// Most mail is delivered as soon as it has come in. Its delivery then reads neither the database nor the log.
pub(crate) struct RecentCache {
    limit: usize,
    state: Mutex<RecentMessages>,
}

#[derive(Default)]
struct RecentMessages {
    messages: HashMap<QueueId, (Entry, Bytes, Arc<StagedBody>)>,
    order: VecDeque<QueueId>,
    octets: usize,
}

impl RecentCache {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, state: Mutex::default() }
    }

    pub(crate) fn get(&self, id: QueueId) -> Option<Stored> {
        let state = self.state.lock();
        let (entry, head, body) = state.messages.get(&id)?;
        Some(Stored {
            id,
            recipients: fresh(entry),
            entry: entry.clone(),
            head: head.clone(),
            body: body.clone(),
        })
    }

    pub(crate) fn evict(&self, id: QueueId) {
        self.state.lock().remove(id);
    }

    fn insert(&self, message: StagedMessage) {
        // A large body would keep its file open, and there may be more of them than a process may have open.
        if message.body.file().is_some() {
            return;
        }
        let weight = weight(&message.head, &message.body);
        if weight > self.limit {
            return;
        }
        let mut state = self.state.lock();
        state.octets += weight;
        state.order.push_back(message.id);
        let kept = (message.entry, message.head, message.body);
        state.messages.insert(message.id, kept);
        state.shrink(self.limit);
    }
}

impl RecentMessages {
    fn remove(&mut self, id: QueueId) {
        if let Some((_, head, body)) = self.messages.remove(&id) {
            self.octets -= weight(&head, &body);
        }
        // Most messages leave in the order in which they came. The ids of the others are removed when their turn comes.
        while self.order.front().is_some_and(|id| !self.messages.contains_key(id)) {
            self.order.pop_front();
        }
    }

    fn shrink(&mut self, limit: usize) {
        while self.octets > limit {
            match self.order.front().copied() {
                Some(oldest) => self.remove(oldest),
                None => return,
            }
        }
    }
}

/// Roughly what a message takes in memory, in octets.
fn weight(head: &Bytes, body: &StagedBody) -> usize {
    const REST: usize = 1024;
    let body = usize::try_from(body.size()).unwrap_or(usize::MAX);
    body.saturating_add(REST + head.len())
}
