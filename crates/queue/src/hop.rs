//! One next hop: the jobs that wait for it, and whether it may be tried.

use std::collections::BTreeSet;

use pintle_mail::{NextHop, UnixTime};

use crate::job::JobId;

/// Where a hop stands in the queue's slab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct HopId(pub(crate) u32);

/// A next hop that has at least one job.
#[derive(Debug)]
pub(crate) struct Hop {
    pub(crate) name: NextHop,
    /// Attempts allowed at once.
    pub(crate) limit: usize,
    /// Attempts that it has earned by working.
    pub(crate) window: usize,
    /// Those neither held nor under way, by due time.
    pub(crate) waiting: BTreeSet<(UnixTime, JobId)>,
    /// Attempts under way.
    pub(crate) trying: usize,
    /// All its jobs, in any phase.
    pub(crate) jobs: usize,
    /// Those held.
    pub(crate) held: usize,
    /// It failed as a whole, and has not worked since.
    pub(crate) back_off: Option<HopBackOff>,
    pub(crate) state: HopState,
}

/// A next hop's failures in a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HopBackOff {
    pub(crate) failures: u32,
    /// No attempt before.
    pub(crate) until: UnixTime,
}

/// Where the queue looks for a hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HopState {
    /// Nowhere: nothing waits, or no attempt more is allowed.
    Idle,
    /// Among the sleepers, until this time.
    Asleep(UnixTime),
    /// In the round. It stays there until its turn, even when there is nothing left to do by then: taking it out of the
    /// middle would cost more than looking at it once.
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

    /// When the next attempt may begin; none when that does not depend on time.
    pub(crate) fn wakes(&self) -> Option<UnixTime> {
        // One probe at a time while in trouble: a next hop that cannot serve one message needs no fifteen.
        let limit = if self.back_off.is_some() { 1 } else { self.window }.min(self.limit);
        if self.trying >= limit {
            return None;
        }
        let (due, _) = self.waiting.first()?;
        Some(self.back_off.map_or(*due, |back_off| back_off.until.max(*due)))
    }
}
