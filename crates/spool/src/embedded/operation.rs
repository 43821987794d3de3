//! The operations of the committer, and the inbox in which they wait for the next batch of the group commit.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use pintle_mail::{Bytes, QueueId};
use tokio::sync::oneshot;

use super::body::{StagedMessage, StagedSettlement};
use super::meta::{Amendment, Tombstones};
use super::segment_file::Extent;
use crate::{Guard, HoldReason, Receipt, Settled, SpoolError};

/// The most operations in one batch. Beyond it the first one waits longer, and the cost of each no longer falls.
const BATCH: usize = 256;
/// The most octets in one batch.
const BATCH_OCTETS: u64 = 16 * 1024 * 1024;
/// How long outcomes wait for a commit to share its sync with. A client that sends one message after the other sends
/// the next within this time, and would otherwise wait for the sync of the last outcome before its own.
const LINGER: Duration = Duration::from_millis(5);

/// Where the answer goes. The caller may be gone; the work is done all the same.
pub(crate) type ReplyTo<T> = oneshot::Sender<Result<T, SpoolError>>;

/// One operation. It is done completely or not at all.
pub(crate) enum Operation {
    Commit(Box<StagedMessage>, ReplyTo<Receipt>),
    Settle(StagedSettlement, ReplyTo<Settled>),
    /// A change of a message, under the condition of the guard. The answer is the hold that the message had before.
    Amend(QueueId, Amendment, Guard, ReplyTo<Option<HoldReason>>),
    /// The message is damaged, in this way.
    SetAside(QueueId, String),
    /// Compaction: copy a message's record from this place. These are its octets.
    Move(QueueId, Extent, Bytes),
    /// Compaction: write the state of this message again, so that the records of its changes can be deleted.
    Restate(QueueId),
    /// Compaction: write these tombstones again.
    KeepTombstones(Tombstones),
    /// The first operation of each run: the log continues here.
    Start,
    /// The index of this generation cannot be used, for this reason.
    Rebuild(u64, String),
}

impl Operation {
    /// The new messages of the operation.
    pub(crate) fn messages(&self) -> &[StagedMessage] {
        match self {
            Self::Commit(message, _) => std::slice::from_ref(message),
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

    /// Whether it may use the last room on a disk: it records outcomes, which make room. A context does not.
    pub(crate) fn makes_room(&self) -> bool {
        match self {
            Self::Amend(_, amendment, _, _) => amendment.octets().is_empty(),
            _ => matches!(self, Self::Settle(..) | Self::SetAside(..) | Self::Start),
        }
    }

    /// Whether it is part of the compaction, for which no caller waits.
    pub(crate) fn is_housekeeping(&self) -> bool {
        matches!(self, Self::Move(..) | Self::Restate(_) | Self::KeepTombstones(_))
    }

    /// Roughly how many octets it writes.
    fn weight(&self) -> u64 {
        match self {
            Self::Amend(_, amendment, _, _) => amendment.octets().len() as u64,
            _ => self.messages().iter().map(StagedMessage::size).sum(),
        }
    }

    /// Answers that nothing was done, for this reason.
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

/// Operations that wait for the committer, first in, first out.
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
    /// Adds an operation. After the spool was closed, it fails.
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

    /// Takes the operations of the next batch. Waits for the first one, at most until this time if one is given. None
    /// once the inbox is closed and empty.
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

    /// Takes the operations of the next batch without waiting.
    pub(crate) fn take_now(&self) -> Vec<Operation> {
        let mut state = self.state.lock();
        let count = state.batch().min(state.waiting.len());
        state.waiting.drain(..count).collect()
    }

    /// Whether the inbox is closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// The committer has ended: operations that wait, and later ones, fail with [`SpoolError::Closed`].
    pub(crate) fn abandon(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.waiting.clear();
    }

    /// Closes the inbox. Operations that wait are still served.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.wake.notify_all();
    }
}

impl InboxState {
    /// Whether all that wait can wait a little longer for others to share the sync: an outcome only leaves the queue,
    /// while a client waits for its 250.
    fn is_patient(&self) -> bool {
        let patient = |operation: &Operation| matches!(operation, Operation::Settle(settlement, _) if settlement.children.is_empty());
        !self.closed && self.waiting.len() < BATCH && self.waiting.iter().all(patient)
    }

    /// How many of the waiting operations make the next batch: at least one, and bounded in number and in octets.
    fn batch(&self) -> usize {
        let mut octets = 0;
        let within = self.waiting.iter().take(BATCH).take_while(|operation| {
            octets += operation.weight();
            octets <= BATCH_OCTETS
        });
        within.count().max(1)
    }
}
