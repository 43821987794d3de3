//! The result that a task of the runner returns: a report to the queue for each job, and sessions to close.

#![expect(clippy::vec_box, reason = "a session is moved from owner to owner as its box")]

use pintle_mail::QueueId;
use pintle_queue::{Again, AttemptReport, HoldState, HopSign, JobId};

use crate::connection::ClientConnection;

/// The result of one task for one message.
pub(crate) struct Finished {
    pub(crate) message: QueueId,
    /// The reports to record in the queue, by job.
    pub(crate) jobs: Vec<(JobId, AttemptReport)>,
    /// Sessions that do not go back into the connection pool; the runner ends them with QUIT.
    pub(crate) retired: Vec<Box<ClientConnection>>,
}

impl Finished {
    pub(crate) fn new(job: JobId, message: QueueId, report: AttemptReport) -> Self {
        Self::all(message, vec![(job, report)])
    }

    /// The result for several jobs of one message.
    pub(crate) fn all(message: QueueId, jobs: Vec<(JobId, AttemptReport)>) -> Self {
        Self { message, jobs, retired: Vec::new() }
    }
}

/// The report on an attempt that delivered nothing, without a fault of the next hop. The attempt is repeated at once.
pub(crate) fn interrupted(recipients: Box<[u32]>) -> AttemptReport {
    AttemptReport { remaining: recipients, hop: HopSign::Silent, again: Again::AtOnce, hold: HoldState::Free }
}
