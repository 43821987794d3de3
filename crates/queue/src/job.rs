//! The queue's input and output: jobs, attempts, reports.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use pintle_mail::{NextHop, QueueId, UnixTime};

/// One message for one next hop and one combination of groups. A message whose recipients have several next hops, or are
/// in different groups, is several jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The message.
    pub message: QueueId,
    /// Its next hop.
    pub next_hop: NextHop,
    /// The groups that its recipients have in common, by the name of the plugin. Recipients with other groups are never
    /// added to it.
    pub groups: BTreeMap<String, String>,
    /// The ids of the recipients that are not settled yet.
    pub recipients: Box<[u32]>,
    /// When the message was accepted, or released from a quarantine. Its age counts from here.
    pub accepted: UnixTime,
    /// Number of deferrals so far.
    pub attempts: u32,
    /// The earliest time of the next attempt.
    pub due: UnixTime,
    /// The sender has been warned of the delay, or need not be.
    pub warned: bool,
    /// Whether it is held.
    pub hold: HoldState,
}

/// Whether a job is held, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HoldState {
    /// It is not held, and may be tried.
    #[default]
    Free,
    /// It is not tried before it is released. It expires by its age.
    Held,
    /// It is not tried before it is released, and expires at this time, whatever its age.
    Quarantined(UnixTime),
}

impl Job {
    /// A job of a message that was just accepted, for recipients in no group: due at once.
    #[must_use]
    pub fn new(
        message: QueueId,
        next_hop: NextHop,
        recipients: impl Into<Box<[u32]>>,
        accepted: UnixTime,
    ) -> Self {
        Self {
            message,
            next_hop,
            groups: BTreeMap::new(),
            recipients: recipients.into(),
            accepted,
            attempts: 0,
            due: accepted,
            warned: false,
            hold: HoldState::Free,
        }
    }
}

/// The name of a job in this queue, for the life of the process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub(crate) u64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job {}", self.0)
    }
}

/// What [`Queue::poll_due`](crate::Queue::poll_due) asks of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// Try to deliver, then [`record`](crate::Queue::record).
    Attempt(Attempt),
    /// Warn the sender of the delay, then [`record`](crate::Queue::record) [`AttemptReport::unchanged`]. This comes
    /// once per job. The job is not tried meanwhile, so that the two do not overwrite each other's changes.
    Warn(Aged),
    /// Settle the recipients as expired (bounce them, durably), then [`record`](crate::Queue::record) a report without
    /// remaining recipients. If that cannot be done now, report them as remaining: the job expires again later.
    Expire(Aged),
}

/// One attempt of one job. It counts against the concurrency limits until it is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The job, for [`record`](crate::Queue::record).
    pub id: JobId,
    /// The message.
    pub message: QueueId,
    /// The next hop.
    pub next_hop: NextHop,
    /// The ids of the recipients to deliver to.
    pub recipients: Box<[u32]>,
    /// Number of deferrals before this attempt.
    pub attempts: u32,
}

/// A job that has reached an age.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aged {
    /// The job, for [`record`](crate::Queue::record).
    pub id: JobId,
    /// The message.
    pub message: QueueId,
    /// Its next hop.
    pub next_hop: NextHop,
    /// The ids of the recipients that are not settled yet.
    pub recipients: Box<[u32]>,
    /// When the message was accepted, or released from a quarantine.
    pub accepted: UnixTime,
    /// Whether its time in a quarantine is over.
    pub quarantined: bool,
}

/// The result of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptReport {
    /// The ids of the recipients that are not settled. Empty when the job is done.
    pub remaining: Box<[u32]>,
    /// What the attempt tells about the next hop as a whole.
    pub hop: HopSign,
    /// When to retry the remaining recipients.
    pub again: Again,
    /// Whether the host found the message held, or put it on hold. A release in the meantime takes precedence: the job
    /// is then tried again, and the host looks at the message again.
    pub hold: HoldState,
}

impl AttemptReport {
    /// All recipients are settled, and the next hop works.
    #[must_use]
    pub fn settled() -> Self {
        Self {
            remaining: Box::default(),
            hop: HopSign::Working,
            again: Again::BackOff,
            hold: HoldState::Free,
        }
    }

    /// These recipients were deferred, and the next hop as such works.
    #[must_use]
    pub fn deferred(remaining: impl Into<Box<[u32]>>) -> Self {
        Self { remaining: remaining.into(), ..Self::settled() }
    }

    /// No attempt was made, and nothing has changed.
    #[must_use]
    pub fn unchanged(remaining: impl Into<Box<[u32]>>) -> Self {
        Self { hop: HopSign::Silent, again: Again::AsBefore, ..Self::deferred(remaining) }
    }
}

/// What an attempt tells about a next hop as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HopSign {
    /// It answered and works. Its back-off ends.
    Working,
    /// Nothing, for example because a plugin deferred the job before a connection was made.
    Silent,
    /// It failed as a whole: back-off, then one probe at a time.
    Trouble,
}

/// When to retry the remaining recipients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// After the back-off of the retry policy.
    BackOff,
    /// Now, without counting a deferral: the next hop limits the recipients of a transaction, or the attempt was
    /// interrupted.
    AtOnce,
    /// After this wait.
    After(Duration),
    /// At the time when they were due before, without counting a deferral.
    AsBefore,
}

/// What follows a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The job is done and was removed.
    Settled,
    /// It is retried, not before this time unless its next hop recovers or an operator retries it.
    Again(UnixTime),
    /// It is held.
    Held,
    /// It has reached the maximum age: [`Due::Expire`] comes next.
    Expiring,
    /// An operator removed it in the meantime, with all remaining recipients.
    Removed,
    /// There is no such job, or it was not under way.
    Unknown,
}
