//! Where a message really is: the queue's word, since routes say only where mail goes that comes now.

use pintle_mail::{NextHop, UnixTime};
use pintle_queue::{JobId, JobPhase, Queue, Timeline};

/// Some recipients of a message that go one way together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leg {
    /// The ids of the recipients that are not settled.
    pub recipients: Box<[u32]>,
    /// Where they go.
    pub next_hop: NextHop,
    /// When they are tried again.
    pub next: Next,
}

/// When something is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Not before this time of day.
    At(UnixTime),
    /// It is being tried.
    Now,
    /// When somebody lets it go.
    Held,
    /// Never: its time is over.
    Never,
}

/// How the queue keeps a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueuePresence {
    /// It may be tried, or is being tried.
    Free,
    /// An operator or a quarantine holds it.
    Held,
    /// Not at all.
    Absent,
}

/// The ways of a message with these jobs.
pub(crate) fn find(queue: &Queue, jobs: &[JobId], timeline: &Timeline) -> Vec<Leg> {
    let views = jobs.iter().filter_map(|id| queue.job(*id));
    let leg = |view: pintle_queue::JobView<'_>| Leg {
        recipients: view.recipients.into(),
        next_hop: view.next_hop.clone(),
        next: match view.phase {
            JobPhase::Waiting(at) => Next::At(timeline.wall(at)),
            JobPhase::Trying => Next::Now,
            JobPhase::Held | JobPhase::Quarantined(_) => Next::Held,
            JobPhase::Expiring => Next::Never,
        },
    };
    views.map(leg).collect()
}

/// How a message with these jobs is kept. A hold is the whole message's.
pub(crate) fn custody(queue: &Queue, jobs: &[JobId]) -> QueuePresence {
    let mut phases = jobs.iter().filter_map(|id| queue.job(*id)).map(|view| view.phase).peekable();
    if phases.peek().is_none() {
        return QueuePresence::Absent;
    }
    let is_held = |phase| matches!(phase, JobPhase::Held | JobPhase::Quarantined(_));
    if phases.all(is_held) { QueuePresence::Held } else { QueuePresence::Free }
}
