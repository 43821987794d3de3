//! What goes in and comes out: jobs, attempts, reports.

use std::fmt;
use std::time::Duration;

use pintle_mail::{NextHop, QueueId, UnixTime};

/// One message for one next hop. A message whose recipients have several next hops is several jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Which message.
    pub message: QueueId,
    /// Where it goes.
    pub next_hop: NextHop,
    /// The ids of the recipients that are not settled yet.
    pub recipients: Box<[u32]>,
    /// When the message was accepted, or released from a quarantine; its age counts from here.
    pub accepted: UnixTime,
    /// Deferrals so far.
    pub attempts: u32,
    /// Not to be tried before.
    pub due: UnixTime,
    /// The sender has been warned of the delay, or need not be.
    pub warned: bool,
    /// Whether it may be tried.
    pub hold: HoldState,
}

/// Whether a job may be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HoldState {
    /// It may.
    #[default]
    Free,
    /// Not before it is released; its age counts on.
    Held,
    /// Not before it is released, and at this time it expires, whatever its age.
    Quarantined(UnixTime),
}

impl Job {
    /// A job of a message just accepted: due at once.
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
            recipients: recipients.into(),
            accepted,
            attempts: 0,
            due: accepted,
            warned: false,
            hold: HoldState::Free,
        }
    }
}

/// Names a job in this queue, for the life of the process.
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
    /// Tell the sender about the delay, then [`record`](crate::Queue::record) [`Report::unchanged`]. Asked once. The job
    /// is not tried meanwhile, lest the two write over each other's marks.
    Warn(Aged),
    /// Settle the recipients as expired (bounce them, durably), then [`record`](crate::Queue::record) a report without
    /// remaining recipients. If that cannot be done now, record them as remaining: the queue will ask again.
    Expire(Aged),
}

/// One try of one job. It occupies a place until it is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Name it in [`record`](crate::Queue::record).
    pub id: JobId,
    /// Which message.
    pub message: QueueId,
    /// Where it goes.
    pub next_hop: NextHop,
    /// For whom.
    pub recipients: Box<[u32]>,
    /// Deferrals before this try.
    pub attempts: u32,
}

/// A job that has reached an age.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aged {
    /// Which job.
    pub id: JobId,
    /// Which message.
    pub message: QueueId,
    /// Where it was to go.
    pub next_hop: NextHop,
    /// Those not settled yet.
    pub recipients: Box<[u32]>,
    /// When it was accepted.
    pub accepted: UnixTime,
    /// It is its time in quarantine that is over.
    pub quarantined: bool,
}

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptReport {
    /// The recipients that are not settled; none when the job is done.
    pub remaining: Box<[u32]>,
    /// What it tells about the next hop as a whole.
    pub hop: HopSign,
    /// When the remaining are to be tried again.
    pub again: Again,
    /// Whether the message was found held, or was put on hold. A release in the meantime is the later word: the job is
    /// then tried again, and looked at anew.
    pub hold: HoldState,
}

impl AttemptReport {
    /// All recipients are settled, over a next hop that works.
    #[must_use]
    pub fn settled() -> Self {
        Self {
            remaining: Box::default(),
            hop: HopSign::Working,
            again: Again::BackOff,
            hold: HoldState::Free,
        }
    }

    /// These recipients were deferred; the next hop as such works.
    #[must_use]
    pub fn deferred(remaining: impl Into<Box<[u32]>>) -> Self {
        Self { remaining: remaining.into(), ..Self::settled() }
    }

    /// Nothing was tried, and nothing has changed.
    #[must_use]
    pub fn unchanged(remaining: impl Into<Box<[u32]>>) -> Self {
        Self { hop: HopSign::Silent, again: Again::AsBefore, ..Self::deferred(remaining) }
    }
}

/// What an attempt tells about a next hop as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HopSign {
    /// It answered and works; what put it off is lifted.
    Working,
    /// Nothing, say because a plugin deferred the job before a connection was made.
    Silent,
    /// It fails as a whole: it is put off, then asked by one attempt at a time.
    Trouble,
}

/// When the remaining recipients are to be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// As the retry policy has it.
    BackOff,
    /// Now, and it does not count: the next hop took only so many recipients at once, or we were interrupted.
    AtOnce,
    /// After this long.
    After(Duration),
    /// When they were due anyhow, and it does not count.
    AsBefore,
}

/// What follows a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The job is done and gone.
    Settled,
    /// It will be tried again, not before this time unless its next hop recovers or an operator hastens it.
    Again(UnixTime),
    /// It was held in the meantime.
    Held,
    /// It is too old: [`Due::Expire`] comes next.
    Expiring,
    /// It was removed in the meantime and is gone now, whatever remained.
    Removed,
    /// There is no such job, or it was not under way.
    Unknown,
}
