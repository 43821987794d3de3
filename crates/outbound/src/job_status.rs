//! The status of queued jobs, as operators see it: which next hop a message waits for, and when it is tried again. It
//! comes from the queue: routes give only the next hop of mail that arrives now.

use pintle_mail::{NextHop, UnixTime};
use pintle_queue::{JobId, JobPhase, Queue, Timeline};

/// One job of a message: its recipients for one next hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobStatus {
    /// The ids of the recipients that are not settled.
    pub recipients: Box<[u32]>,
    /// The next hop of the job in the queue.
    pub next_hop: NextHop,
    /// When they are tried again.
    pub next_attempt: NextAttempt,
}

/// When a job is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextAttempt {
    /// At this time of day, or later.
    At(UnixTime),
    /// An attempt is under way.
    Now,
    /// Only after an operator has released the message.
    Held,
    /// Never: the message is expiring.
    Never,
}

/// The state of a message in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueuePresence {
    /// It may be tried, or is being tried.
    Free,
    /// An operator or a quarantine holds it.
    Held,
    /// The queue has no job of it.
    Absent,
}

/// The status of each of these jobs of one message.
pub(crate) fn statuses(queue: &Queue, jobs: &[JobId], timeline: &Timeline) -> Vec<JobStatus> {
    let views = jobs.iter().filter_map(|id| queue.job(*id));
    let status = |view: pintle_queue::JobView<'_>| JobStatus {
        recipients: view.recipients.into(),
        next_hop: view.next_hop.clone(),
        next_attempt: match view.phase {
            JobPhase::Waiting(at) => NextAttempt::At(timeline.wall(at)),
            JobPhase::Trying => NextAttempt::Now,
            JobPhase::Held | JobPhase::Quarantined(_) => NextAttempt::Held,
            JobPhase::Expiring => NextAttempt::Never,
        },
    };
    views.map(status).collect()
}

/// The state in the queue of the message with these jobs. A hold applies to the whole message.
pub(crate) fn presence(queue: &Queue, jobs: &[JobId]) -> QueuePresence {
    let mut phases = jobs.iter().filter_map(|id| queue.job(*id)).map(|view| view.phase).peekable();
    if phases.peek().is_none() {
        return QueuePresence::Absent;
    }
    let is_held = |phase| matches!(phase, JobPhase::Held | JobPhase::Quarantined(_));
    if phases.all(is_held) { QueuePresence::Held } else { QueuePresence::Free }
}
