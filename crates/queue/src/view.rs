//! Views of the queue, for operators and metrics.

use pintle_mail::{NextHop, UnixTime};

use crate::hop::Hop;
use crate::job::JobId;
use crate::queue::{Phase, Queue, QueuedJob};

/// The queue in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Number of jobs.
    pub jobs: usize,
    /// Number of attempts under way.
    pub trying: usize,
    /// Number of jobs that are held, in quarantines included.
    pub held: usize,
    /// The next hops, the one with the most jobs first.
    pub hops: Vec<HopView>,
}

/// One next hop in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HopView {
    /// The next hop.
    pub next_hop: NextHop,
    /// Number of its jobs.
    pub jobs: usize,
    /// Number of attempts under way.
    pub trying: usize,
    /// Number of its jobs that are held, in quarantines included.
    pub held: usize,
    /// Failures of the next hop as a whole since it last worked.
    pub failures: u32,
    /// The end of its back-off. None without one.
    pub put_off: Option<UnixTime>,
    /// When its next attempt may begin. None when no job waits or its concurrency limit is reached.
    pub next: Option<UnixTime>,
}

/// The view of one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobView<'a> {
    /// Its next hop.
    pub next_hop: &'a NextHop,
    /// The ids of the recipients that are not settled yet.
    pub recipients: &'a [u32],
    /// Its current phase.
    pub phase: JobPhase,
}

/// The current phase of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobPhase {
    /// It waits, at least until this time.
    Waiting(UnixTime),
    /// It is held by an operator.
    Held,
    /// It is in a quarantine, and expires at this time.
    Quarantined(UnixTime),
    /// It is being tried.
    Trying,
    /// It is being settled as expired.
    Expiring,
}

impl Queue {
    /// The queue in numbers. The cost grows with the number of next hops, not of jobs.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let mut hops: Vec<HopView> =
            self.hops.iter().flatten().filter(|hop| hop.jobs > 0).map(HopView::of).collect();
        hops.sort_by(|a, b| b.jobs.cmp(&a.jobs).then_with(|| a.next_hop.cmp(&b.next_hop)));
        Snapshot {
            jobs: self.jobs.len(),
            trying: self.trying,
            held: hops.iter().map(|hop| hop.held).sum(),
            hops,
        }
    }

    /// The view of one job. None when there is no such job.
    #[must_use]
    pub fn job(&self, id: JobId) -> Option<JobView<'_>> {
        self.view(self.jobs.get(&id)?)
    }

    fn view<'a>(&'a self, entry: &'a QueuedJob) -> Option<JobView<'a>> {
        let hop = self.hop(entry.hop)?;
        Some(JobView {
            next_hop: &hop.name,
            recipients: &entry.recipients,
            phase: match entry.phase {
                Phase::Waiting | Phase::Warning(_) => JobPhase::Waiting(
                    hop.back_off.map_or(entry.due, |back_off| back_off.until.max(entry.due)),
                ),
                Phase::Held => JobPhase::Held,
                Phase::Quarantined => JobPhase::Quarantined(entry.due),
                Phase::Trying(_) => JobPhase::Trying,
                Phase::Expiring(_) => JobPhase::Expiring,
            },
        })
    }
}

impl HopView {
    fn of(hop: &Hop) -> Self {
        Self {
            next_hop: hop.name.clone(),
            jobs: hop.jobs,
            trying: hop.trying,
            held: hop.held,
            failures: hop.back_off.map_or(0, |back_off| back_off.failures),
            put_off: hop.back_off.map(|back_off| back_off.until),
            next: hop.wakes(),
        }
    }
}
