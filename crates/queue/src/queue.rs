//! The queue itself: jobs in, attempts out in turn, reports back.
//!
//! All jobs are in one map. Those that wait are also in their hop's order of due times, and those that are not in the
//! host's hands in the order of alarms (`age.rs`). Hops with a due job are in a round-robin queue, the others sleep in
//! the order of their next due time. So each step costs the logarithm of the number of jobs.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use pintle_mail::{NextHop, QueueId, UnixTime};

use crate::config::Config;
use crate::hop::{Hop, HopBackOff, HopId, HopState};
use crate::job::{Again, Attempt, AttemptReport, Due, HoldState, HopSign, Job, JobId, Next};

/// The scheduler: which job is due, for which next hop, and when to retry.
#[derive(Debug)]
pub struct Queue {
    pub(crate) config: Config,
    pub(crate) jobs: BTreeMap<JobId, QueuedJob>,
    /// Free slots are reused for the next new hop.
    pub(crate) hops: Vec<Option<Hop>>,
    free: Vec<HopId>,
    pub(crate) by_name: HashMap<NextHop, HopId>,
    sleepers: BTreeSet<(UnixTime, HopId)>,
    round: VecDeque<HopId>,
    pub(crate) alarms: BTreeSet<(UnixTime, JobId)>,
    pub(crate) trying: usize,
    /// When the host began, or the clock was last set. For a while after it nothing expires.
    pub(crate) steady_since: UnixTime,
    next_id: u64,
}

/// A job in the queue.
#[derive(Debug)]
pub(crate) struct QueuedJob {
    pub(crate) message: QueueId,
    pub(crate) hop: HopId,
    /// The groups of its recipients; none when they are in no group, as those of most mail are.
    #[expect(clippy::box_collection, reason = "eight octets in each job instead of 24")]
    pub(crate) groups: Option<Box<BTreeMap<String, String>>>,
    pub(crate) recipients: Box<[u32]>,
    pub(crate) accepted: UnixTime,
    /// The earliest time of the next attempt; in a quarantine, the time at which it expires.
    pub(crate) due: UnixTime,
    /// Its time in the order of alarms, while it is in it.
    pub(crate) alarm: UnixTime,
    pub(crate) attempts: u32,
    pub(crate) warned: bool,
    /// Whether it was tried since it was inserted.
    pub(crate) tried: bool,
    pub(crate) phase: Phase,
}

// On a bad day a hundred thousand jobs wait in memory. With its places in three orders a job takes about 200 octets,
// and one more field is a decision.
const _: () = assert!(size_of::<QueuedJob>() <= 80);

/// The phase of a job, and who has it: the queue or the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// In the queue: in its hop's order of due times.
    Waiting,
    /// In the queue, until an operator releases it.
    Held,
    /// In the queue, until it is released, or expires at its due time.
    Quarantined,
    /// With the host, as an attempt.
    Trying(PendingRequest),
    /// With the host, while the sender is warned of the delay.
    Warning(PendingRequest),
    /// With the host, to be settled as expired.
    Expiring(PendingRequest),
}

impl Phase {
    /// The same phase, with another request for what follows it.
    pub(crate) fn with_request(self, request: PendingRequest) -> Self {
        match self {
            Self::Trying(_) => Self::Trying(request),
            Self::Warning(_) => Self::Warning(request),
            Self::Expiring(_) => Self::Expiring(request),
            Self::Waiting | Self::Held | Self::Quarantined => self,
        }
    }
}

/// An operator's request for a job in the host's hands. It is carried out when the job comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PendingRequest {
    Nothing,
    Hold,
    /// The job's due time is the time at which it expires.
    Quarantine,
    /// A hold that the host reports is older than this.
    Release,
    Remove,
    /// Retry without waiting.
    Retry,
}

impl Queue {
    /// An empty queue.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            jobs: BTreeMap::new(),
            hops: Vec::new(),
            free: Vec::new(),
            by_name: HashMap::new(),
            sleepers: BTreeSet::new(),
            round: VecDeque::new(),
            alarms: BTreeSet::new(),
            trying: 0,
            steady_since: UnixTime::default(),
            next_id: 0,
        }
    }

    /// Inserts a job. Several jobs of one message for one next hop, as those of different groups are, stay separate.
    pub fn insert(&mut self, job: Job) -> JobId {
        let id = JobId(self.next_id);
        self.next_id += 1;
        let hop = self.hop_named(&job.next_hop);
        self.hop_mut(hop, |hop| {
            hop.jobs += 1;
            hop.held += usize::from(job.hold != HoldState::Free);
        });
        let (phase, due) = match job.hold {
            HoldState::Free => (Phase::Waiting, job.due),
            HoldState::Held => (Phase::Held, job.due),
            HoldState::Quarantined(until) => (Phase::Quarantined, until),
        };
        let entry = QueuedJob {
            message: job.message,
            hop,
            groups: (!job.groups.is_empty()).then(|| Box::new(job.groups)),
            recipients: job.recipients,
            accepted: job.accepted,
            due,
            alarm: job.accepted,
            attempts: job.attempts,
            warned: job.warned,
            tried: false,
            phase,
        };
        if entry.phase == Phase::Waiting {
            self.hop_mut(hop, |hop| hop.waiting.insert((entry.due, id)));
        }
        self.jobs.insert(id, entry);
        self.arm(id, UnixTime::default());
        self.schedule_hop(hop);
        id
    }

    /// The next thing to do now, if any. Call it until it gives none. Jobs that have reached an age come before
    /// attempts.
    pub fn poll_due(&mut self, now: UnixTime) -> Option<Due> {
        if let Some(due) = self.poll_alarm(now) {
            return Some(due);
        }
        if self.trying >= self.config.total {
            return None;
        }
        self.wake(now);
        while let Some(hop) = self.round.pop_front() {
            let attempt = self.begin_next(hop, now);
            self.schedule_after_turn(hop, now);
            if let Some(attempt) = attempt {
                return Some(Due::Attempt(attempt));
            }
        }
        None
    }

    /// Takes an attempt, a warning or an expiry back from the host. `dice` is any random number; it spreads the
    /// retries.
    ///
    /// Make the changes that the report tells of durable first, then record it.
    pub fn record(&mut self, id: JobId, report: AttemptReport, dice: u64, now: UnixTime) -> Next {
        let Some(entry) = self.jobs.get(&id) else {
            return Next::Unknown;
        };
        let hop = entry.hop;
        let request = match entry.phase {
            Phase::Trying(request) => {
                self.trying -= 1;
                self.hop_mut(hop, |hop| hop.trying -= 1);
                self.apply_hop_sign(hop, report.hop, dice, now);
                request
            }
            Phase::Expiring(request) | Phase::Warning(request) => request,
            Phase::Waiting | Phase::Held | Phase::Quarantined => return Next::Unknown,
        };
        let next = self.put_back(id, report, request, dice, now);
        self.schedule_hop(hop);
        next
    }

    /// When to call [`Self::poll_due`] next, unless something else happens before. None when there is nothing to wait
    /// for.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<UnixTime> {
        let alarm = self.alarms.first().map(|(at, _)| *at);
        let attempt = match self.round.front() {
            _ if self.trying >= self.config.total => None,
            // Something is due already, which any time in the past expresses.
            Some(_) => Some(UnixTime::default()),
            None => self.sleepers.first().map(|(at, _)| *at),
        };
        alarm.into_iter().chain(attempt).min()
    }

    /// How many jobs there are, in any phase.
    #[must_use]
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Whether there are no jobs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Puts a job back that the host has returned.
    fn put_back(
        &mut self,
        id: JobId,
        report: AttemptReport,
        request: PendingRequest,
        dice: u64,
        now: UnixTime,
    ) -> Next {
        if report.remaining.is_empty() || request == PendingRequest::Remove {
            let done = report.remaining.is_empty();
            self.forget(id);
            return if done { Next::Settled } else { Next::Removed };
        }
        let expiring = self.jobs.get(&id).is_some_and(|entry| matches!(entry.phase, Phase::Expiring(_)));
        let next = self.reschedule(id, report, request, dice, now);
        let due = self.jobs.get(&id).map(|entry| entry.due).filter(|_| expiring);
        // An expiry that could not be carried out is handed out again, but not in a tight loop.
        self.arm(id, due.unwrap_or_default());
        next
    }

    fn reschedule(
        &mut self,
        id: JobId,
        report: AttemptReport,
        request: PendingRequest,
        dice: u64,
        now: UnixTime,
    ) -> Next {
        let retry = &self.config.retry;
        let Some(entry) = self.jobs.get_mut(&id) else {
            return Next::Unknown;
        };
        entry.recipients = report.remaining;
        entry.attempts += u32::from(matches!(report.again, Again::BackOff | Again::After(_)));
        let (expiring, trying) =
            (matches!(entry.phase, Phase::Expiring(_)), matches!(entry.phase, Phase::Trying(_)));
        // An attempt that was cut off, or never made, proves nothing yet.
        entry.tried |= trying && (report.again != Again::AtOnce || report.hop != HopSign::Silent);
        let hold = hold_after(request, report.hold, entry.due);
        let released = request == PendingRequest::Release && (!trying || report.hold != HoldState::Free);
        entry.due = match report.again {
            _ if request == PendingRequest::Retry || released => now,
            Again::AsBefore => entry.due,
            Again::AtOnce if !expiring => now,
            Again::AtOnce | Again::BackOff => now.plus(retry.wait(entry.attempts, dice)),
            Again::After(wait) => now.plus(wait),
        };
        let (due, hop) = (entry.due, entry.hop);
        if hold != HoldState::Free {
            entry.phase = Phase::Held;
            if let HoldState::Quarantined(until) = hold {
                entry.phase = Phase::Quarantined;
                // The same for the end of its time in quarantine.
                entry.due = if expiring { until.max(due) } else { until };
            }
            self.hop_mut(hop, |hop| hop.held += 1);
            return Next::Held;
        }
        entry.phase = Phase::Waiting;
        let expired = !expiring && self.expires(id).is_some_and(|at| at <= now) && self.may_end(id);
        self.hop_mut(hop, |hop| hop.waiting.insert((due, id)));
        if expired { Next::Expiring } else { Next::Again(self.not_before(hop, due)) }
    }

    fn not_before(&self, hop: HopId, due: UnixTime) -> UnixTime {
        let back_off = self.hop(hop).and_then(|hop| hop.back_off);
        back_off.map_or(due, |back_off| back_off.until.max(due))
    }

    fn apply_hop_sign(&mut self, id: HopId, sign: HopSign, dice: u64, now: UnixTime) {
        let Some(hop) = self.hops.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        match sign {
            HopSign::Working => hop.window = hop.window.saturating_add(1).min(hop.limit.max(hop.window)),
            HopSign::Trouble => hop.window = self.config.initial_of(&hop.name),
            HopSign::Silent => {}
        }
        hop.back_off = match (sign, hop.back_off) {
            (HopSign::Working, _) => None,
            (HopSign::Silent, back_off) => back_off,
            // Attempts that were under way when the first one failed tell nothing new.
            (HopSign::Trouble, Some(back_off)) if now < back_off.until => Some(back_off),
            (HopSign::Trouble, back_off) => {
                let failures = back_off.map_or(0, |back_off| back_off.failures).saturating_add(1);
                let until = now.plus(self.config.retry.hop_wait(failures, dice));
                Some(HopBackOff { failures, until })
            }
        };
    }

    /// Begins the first due job of a hop, if the hop may be tried.
    fn begin_next(&mut self, hop: HopId, now: UnixTime) -> Option<Attempt> {
        let ready = self.hop(hop)?.wakes().is_some_and(|at| at <= now);
        if !ready {
            return None;
        }
        let (_, id) = self.hop_mut(hop, |hop| hop.waiting.pop_first())??;
        self.disarm(id);
        self.trying += 1;
        let next_hop = self.hop_mut(hop, |hop| {
            hop.trying += 1;
            hop.name.clone()
        })?;
        let entry = self.jobs.get_mut(&id)?;
        entry.phase = Phase::Trying(PendingRequest::Nothing);
        Some(Attempt {
            id,
            message: entry.message,
            next_hop,
            recipients: entry.recipients.clone(),
            attempts: entry.attempts,
        })
    }

    /// Moves the hops that are due from the sleepers to the round-robin queue.
    fn wake(&mut self, now: UnixTime) {
        while let Some(&(at, hop)) = self.sleepers.first() {
            if at > now {
                return;
            }
            self.sleepers.pop_first();
            self.round.push_back(hop);
            self.hop_mut(hop, |hop| hop.state = HopState::Ready);
        }
    }

    /// After its turn, puts a hop at the end of the round-robin queue if it has more due jobs, or lets it sleep.
    fn schedule_after_turn(&mut self, id: HopId, now: UnixTime) {
        let more = self.hop(id).and_then(Hop::wakes).is_some_and(|at| at <= now);
        if more {
            self.round.push_back(id);
        } else {
            self.hop_mut(id, |hop| hop.state = HopState::Idle);
            self.schedule_hop(id);
        }
    }

    /// Lets a hop sleep until its next due time, or removes it when it has no jobs left.
    pub(crate) fn schedule_hop(&mut self, id: HopId) {
        let Some(hop) = self.hops.get_mut(id.0 as usize).and_then(Option::as_mut) else {
            return;
        };
        if hop.state == HopState::Ready {
            return;
        }
        if let HopState::Asleep(at) = hop.state {
            self.sleepers.remove(&(at, id));
        }
        hop.state = hop.wakes().map_or(HopState::Idle, HopState::Asleep);
        if let HopState::Asleep(at) = hop.state {
            self.sleepers.insert((at, id));
        }
        if hop.jobs == 0 {
            self.by_name.remove(&hop.name);
            self.hops[id.0 as usize] = None;
            self.free.push(id);
        }
    }

    /// Removes a job that is in no order of due times.
    pub(crate) fn forget(&mut self, id: JobId) {
        self.disarm(id);
        if let Some(entry) = self.jobs.remove(&id) {
            self.hop_mut(entry.hop, |hop| hop.jobs -= 1);
        }
    }

    pub(crate) fn hop(&self, id: HopId) -> Option<&Hop> {
        self.hops.get(id.0 as usize)?.as_ref()
    }

    pub(crate) fn hop_mut<R>(&mut self, id: HopId, change: impl FnOnce(&mut Hop) -> R) -> Option<R> {
        self.hops.get_mut(id.0 as usize)?.as_mut().map(change)
    }

    fn hop_named(&mut self, name: &NextHop) -> HopId {
        if let Some(id) = self.by_name.get(name) {
            return *id;
        }
        let hop = Some(Hop::new(name.clone(), self.config.limit_of(name), self.config.initial_of(name)));
        let id = match self.free.pop() {
            Some(id) => {
                self.hops[id.0 as usize] = hop;
                id
            }
            None => {
                self.hops.push(hop);
                HopId(u32::try_from(self.hops.len() - 1).unwrap_or(u32::MAX))
            }
        };
        self.by_name.insert(name.clone(), id);
        id
    }
}

/// Whether a job that comes back is held. A release during the attempt takes precedence over the hold that the host
/// reports: a release in error costs one more look at the message, a hold in error would last.
fn hold_after(request: PendingRequest, found: HoldState, due: UnixTime) -> HoldState {
    match (request, found) {
        (PendingRequest::Release | PendingRequest::Retry, _) => HoldState::Free,
        (_, HoldState::Quarantined(until)) => HoldState::Quarantined(until),
        (PendingRequest::Quarantine, _) => HoldState::Quarantined(due),
        (PendingRequest::Hold, _) => HoldState::Held,
        (PendingRequest::Nothing | PendingRequest::Remove, found) => found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_hops_without_jobs_leave_nothing_behind() {
        let now = UnixTime::from_millis(1_000);
        let mut queue = Queue::new(Config::default());
        for n in 0..100_u32 {
            let next_hop = NextHop::Mx(format!("{n}.example"));
            queue.insert(Job::new(QueueId::new(now, u128::from(n)), next_hop, vec![0], now));
            let Some(Due::Attempt(attempt)) = queue.poll_due(now) else {
                panic!("it was due");
            };
            queue.record(attempt.id, AttemptReport::settled(), 0, now);
        }
        assert_eq!(queue.hops.len(), 1);
        assert!(queue.by_name.is_empty() && queue.sleepers.is_empty() && queue.round.is_empty());
        assert!(queue.alarms.is_empty());
    }
}
