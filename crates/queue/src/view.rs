//! What can be seen of the queue, for operators and metrics.

use pintle_mail::{NextHop, UnixTime};

use crate::hop::Hop;
use crate::job::JobId;
use crate::queue::{Phase, Queue, QueuedJob};

/// The queue in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// All jobs.
    pub jobs: usize,
    /// Attempts under way.
    pub trying: usize,
    /// Jobs held.
    pub held: usize,
    /// By next hop, the one with the most jobs first.
    pub hops: Vec<HopView>,
}

/// One next hop in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HopView {
    /// Which.
    pub next_hop: NextHop,
    /// All its jobs.
    pub jobs: usize,
    /// Attempts under way.
    pub trying: usize,
    /// Jobs held.
    pub held: usize,
    /// Failures of the next hop as a whole since it last worked.
    pub failures: u32,
    /// Put off until then, when in trouble.
    pub put_off: Option<UnixTime>,
    /// When its next attempt may begin; none when nothing waits or the limit is reached.
    pub next: Option<UnixTime>,
}

/// One job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobView<'a> {
    /// Where it goes.
    pub next_hop: &'a NextHop,
    /// The ids of the recipients that are not settled yet.
    pub recipients: &'a [u32],
    /// Its current phase.
    pub phase: JobPhase,
}

/// What a job does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobPhase {
    /// Waits, at least until then.
    Waiting(UnixTime),
    /// Held by an operator.
    Held,
    /// In a quarantine, until then at most.
    Quarantined(UnixTime),
    /// Is being tried.
    Trying,
    /// Is being bounced for its age.
    Expiring,
}

impl Queue {
    /// The queue in numbers. Costs a walk over the next hops, not over the jobs.
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

    /// One job.
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
