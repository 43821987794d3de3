//! The commands that the runner takes while it works: from operators, from a reload, from a quota and from shutdown.

use std::collections::HashMap;
use std::time::Duration;

use pintle_mail::{QueueId, UnixTime};
use pintle_queue::Snapshot;
use pintle_spool::Waiting;
use tokio::sync::oneshot;

use crate::job_status::{JobStatus, QueuePresence};

/// The jobs of some messages, by queue id. A message that the queue does not hold has no entry, or an empty one.
pub type JobsByMessage = HashMap<QueueId, Vec<JobStatus>>;

/// One command to the runner, which alone owns the queue. What a command makes durable is in the spool already.
pub(crate) enum RunnerCommand {
    /// Make these messages due now. The reply gives for each, in order, its state in the queue.
    Retry(Vec<QueueId>, oneshot::Sender<Vec<QueuePresence>>),
    /// Send these messages by the present routes. The reply counts the recipients that moved.
    Reroute(Vec<Waiting>, oneshot::Sender<usize>),
    /// Look up the jobs of these messages.
    FindJobs(Vec<QueueId>, oneshot::Sender<JobsByMessage>),
    /// Hold these messages. The reply counts those that the queue has.
    Hold(Vec<QueueId>, oneshot::Sender<usize>),
    /// Release these messages; where a time is given, their age counts from it.
    Release(Vec<(QueueId, Option<UnixTime>)>, oneshot::Sender<()>),
    /// Drop the jobs of these messages, which are settled. The reply counts those that the queue had.
    Forget(Vec<QueueId>, oneshot::Sender<usize>),
    /// Count the jobs of the queue, by next hop as well.
    Snapshot(oneshot::Sender<Snapshot>),
    /// Use the new configuration.
    Configure,
    /// Start no more attempts, wait at most this long for those under way, and end.
    Drain(Duration),
}
