//! What can be asked of the committer, and the queue in which it waits.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use pintle_mail::{Bytes, QueueId};
use tokio::sync::oneshot;

use super::body::{StagedMessage, StagedSettlement};
use super::meta::{Amendment, Tombstones};
use super::segment_file::Extent;
use crate::{Guard, Hold, Receipt, Settled, SpoolError};

/// The most operations in one batch: beyond it the wait of the first grows and the cost of each no longer falls.
const BATCH: usize = 256;
/// The most octets in one batch.
const BATCH_OCTETS: u64 = 16 * 1024 * 1024;
/// How long outcomes wait for a commit to share its sync. A client that sends one message after the other is back with
/// the next within this time, and would otherwise wait for the sync of the last one's outcome before its own.
const LINGER: Duration = Duration::from_millis(5);

/// Where the answer goes. Nobody may be waiting any more; the work is done all the same.
pub(crate) type ReplyTo<T> = oneshot::Sender<Result<T, SpoolError>>;

/// One piece of work; it is done whole or not at all.
pub(crate) enum Operation {
    Commit(Vec<StagedMessage>, ReplyTo<Vec<Receipt>>),
    Settle(StagedSettlement, ReplyTo<Settled>),
    /// For messages that the guard means. Answered with what held the message before.
    Amend(QueueId, Amendment, Guard, ReplyTo<Option<Hold>>),
    /// A message turned out to be damaged.
    SetAside(QueueId, String),
    /// A straggler is to be copied from this place; these are its record's octets.
    Move(QueueId, Extent, Bytes),
    /// The records of changes to this message are to be given back: its state is written once more.
    Restate(QueueId),
    /// Ends of messages are to be written once more.
    KeepTombstones(Tombstones),
    /// The first of each run: the log goes on from here.
    Start,
    /// Somebody found this wrong with the index, which was this one of all that there have been.
    Rebuild(u64, String),
}

impl Operation {
    /// The messages that it brings.
    pub(crate) fn messages(&self) -> &[StagedMessage] {
        match self {
            Self::Commit(messages, _) => messages,
            Self::Settle(settlement, _) => &settlement.children,
            Self::Amend(..)
            | Self::SetAside(..)
            | Self::Move(..)
            | Self::Restate(_)
            | Self::KeepTombstones(_)
            | Self::Start
            | Self::Rebuild(..) => &[],
        }
    }

    /// Whether it may use the last room on a disk: it says what became of messages, and so lets them go.
    pub(crate) fn makes_room(&self) -> bool {
        matches!(self, Self::Settle(..) | Self::Amend(..) | Self::SetAside(..) | Self::Start)
    }

    /// Whether it writes once more what is there already, so that a segment can be given back: nobody waits for it.
    pub(crate) fn is_housekeeping(&self) -> bool {
        matches!(self, Self::Move(..) | Self::Restate(_) | Self::KeepTombstones(_))
    }

    /// Roughly how many octets it writes.
    fn weight(&self) -> u64 {
        self.messages().iter().map(StagedMessage::size).sum()
    }

    /// Tells whoever waits that nothing was done.
    pub(crate) fn fail(self, error: SpoolError) {
        match self {
            Self::Commit(_, answer) => drop(answer.send(Err(error))),
            Self::Settle(_, answer) => drop(answer.send(Err(error))),
            Self::Amend(_, _, _, answer) => drop(answer.send(Err(error))),
            Self::SetAside(..)
            | Self::Move(..)
            | Self::Restate(_)
            | Self::KeepTombstones(_)
            | Self::Start
            | Self::Rebuild(..) => {}
        }
    }
}

/// First come, first served, by one committer.
#[derive(Default)]
pub(crate) struct Inbox {
    state: Mutex<InboxState>,
    wake: Condvar,
}

#[derive(Default)]
struct InboxState {
    waiting: VecDeque<Operation>,
    closed: bool,
}

impl Inbox {
    /// Takes an operation in, or gives it back when the spool is closed.
    pub(crate) fn submit(&self, operation: Operation) {
        let mut state = self.state.lock();
        if state.closed {
            drop(state);
            return operation.fail(SpoolError::Closed);
        }
        state.waiting.push_back(operation);
        drop(state);
        self.wake.notify_one();
    }

    /// The next operations, as many as one batch may hold: waits for one, until this time if there is one. None once closed
    /// and empty.
    pub(crate) fn take(&self, until: Option<Instant>) -> Option<Vec<Operation>> {
        let mut state = self.state.lock();
        while state.waiting.is_empty() {
            if state.closed {
                return None;
            }
            match until {
                None => self.wake.wait(&mut state),
                Some(until) if Instant::now() >= until => return Some(Vec::new()),
                Some(until) => drop(self.wake.wait_until(&mut state, until)),
            }
        }
        let until = Instant::now() + LINGER;
        while state.is_patient() && !self.wake.wait_until(&mut state, until).timed_out() {}
        let count = state.batch();
        Some(state.waiting.drain(..count).collect())
    }

    /// The next operations that wait already.
    pub(crate) fn take_now(&self) -> Vec<Operation> {
        let mut state = self.state.lock();
        let count = state.batch().min(state.waiting.len());
        state.waiting.drain(..count).collect()
    }

    /// Whether nothing is taken any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// The committer is gone: whoever waits, or comes later, hears that the spool is closed.
    pub(crate) fn abandon(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.waiting.clear();
    }

    /// Takes nothing more; what waits is still served.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.wake.notify_all();
    }
}

impl InboxState {
    /// Whether nobody who waits would rather have his own sync at once: a client is told 250 after it, an outcome only
    /// leaves the queue.
    fn is_patient(&self) -> bool {
        let patient = |operation: &Operation| matches!(operation, Operation::Settle(settlement, _) if settlement.children.is_empty());
        !self.closed && self.waiting.len() < BATCH && self.waiting.iter().all(patient)
    }

    /// How many of the waiting operations make one batch: at least one, and bounded both in number and in octets.
    fn batch(&self) -> usize {
        let mut octets = 0;
        let within = self.waiting.iter().take(BATCH).take_while(|operation| {
            octets += operation.weight();
            octets <= BATCH_OCTETS
        });
        within.count().max(1)
    }
}
