//! One next hop: the jobs that wait for it, its concurrency limit, and its back-off.

use std::collections::BTreeSet;

use pintle_mail::{NextHop, UnixTime};

use crate::job::JobId;

/// The index of a hop in the queue's slab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct HopId(pub(crate) u32);

/// A next hop that has at least one job.
#[derive(Debug)]
pub(crate) struct Hop {
    pub(crate) name: NextHop,
    /// Its concurrency limit.
    pub(crate) limit: usize,
    /// Attempts that are allowed at once for now. It grows with each attempt that works.
    pub(crate) window: usize,
    /// Jobs that are neither held nor under way, by due time.
    pub(crate) waiting: BTreeSet<(UnixTime, JobId)>,
    /// Attempts under way.
    pub(crate) trying: usize,
    /// Number of its jobs, in any phase.
    pub(crate) jobs: usize,
    /// Number of its jobs that are held.
    pub(crate) held: usize,
    /// Set when it has failed as a whole and has not worked since.
    pub(crate) back_off: Option<HopBackOff>,
    pub(crate) state: HopState,
}

/// The back-off of a next hop that fails.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HopBackOff {
    pub(crate) failures: u32,
    /// No attempt is made before this time.
    pub(crate) until: UnixTime,
}

/// Where a hop is in the queue's orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HopState {
    /// In none: no job waits, or its limit is reached.
    Idle,
    /// Among the sleepers, until this time.
    Asleep(UnixTime),
    /// In the round-robin queue. It stays there until its turn even when it has no due job any more, since removing it
    /// from the middle would cost more than its turn.
    Ready,
}

impl Hop {
    pub(crate) fn new(name: NextHop, limit: usize, window: usize) -> Self {
        Self {
            name,
            limit,
            window,
            waiting: BTreeSet::new(),
            trying: 0,
            jobs: 0,
            held: 0,
            back_off: None,
            state: HopState::Idle,
        }
    }

    /// When the next attempt may begin. None when that does not depend on time.
    pub(crate) fn wakes(&self) -> Option<UnixTime> {
        // One probe at a time after a failure: a next hop that cannot serve one message does not need fifteen.
        let limit = if self.back_off.is_some() { 1 } else { self.window }.min(self.limit);
        if self.trying >= limit {
            return None;
        }
        let (due, _) = self.waiting.first()?;
        Some(self.back_off.map_or(*due, |back_off| back_off.until.max(*due)))
    }
}
