//! The queue itself: jobs in, attempts out in turn, reports back.
//!
//! Every job stands in one map; those that wait stand also in their hop's order of due times, and every job that is not
//! in the host's hands stands in the order of alarms (see `alarm`). Hops with something due stand in a round, the
//! others sleep in the order of their next due time. So each step costs the logarithm of what is queued.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use pintle_mail::{NextHop, QueueId, UnixTime};

use crate::config::Config;
use crate::hop::{Hop, HopId, HopState, Trouble};
use crate::job::{Again, Attempt, AttemptReport, Custody, Due, HopSign, Job, JobId, Next};

/// What is due, for which next hop, and when again.
#[derive(Debug)]
pub struct Queue {
    pub(crate) config: Config,
    pub(crate) jobs: BTreeMap<JobId, Entry>,
    /// Free slots are kept for the next new hop.
    pub(crate) hops: Vec<Option<Hop>>,
    free: Vec<HopId>,
    pub(crate) by_name: HashMap<NextHop, HopId>,
    sleepers: BTreeSet<(UnixTime, HopId)>,
    round: VecDeque<HopId>,
    pub(crate) alarms: BTreeSet<(UnixTime, JobId)>,
    pub(crate) trying: usize,
    /// When the host began, or the clock was last set: for a while after it nothing ends.
    pub(crate) steady_since: UnixTime,
    next_id: u64,
}

/// A job as the queue keeps it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) message: QueueId,
    pub(crate) hop: HopId,
    pub(crate) recipients: Box<[u32]>,
    pub(crate) accepted: UnixTime,
    /// When it comes next: not to be tried before, or in quarantine no longer than.
    pub(crate) due: UnixTime,
    /// Where it stands in the order of alarms, while it stands there.
    pub(crate) alarm: UnixTime,
    pub(crate) attempts: u32,
    pub(crate) warned: bool,
    /// It was tried since it is here.
    pub(crate) tried: bool,
    pub(crate) phase: Phase,
}

// A hundred thousand jobs wait in memory on a bad day: with its places in three orders a job costs about 200 octets, and a
// field more is a decision.
const _: () = assert!(size_of::<Entry>() <= 80);

/// In whose hands a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Ours: in its hop's order of due times.
    Waiting,
    /// Ours, until an operator releases it.
    Held,
    /// The same, and its due time is the one at which it expires.
    Quarantined,
    /// The host's, as an attempt.
    Trying(Wish),
    /// The host's, while the sender is told of the delay.
    Warning(Wish),
    /// The host's, to be settled as expired.
    Expiring(Wish),
}

impl Phase {
    /// The same work, and another wish for what comes after it.
    pub(crate) fn wishing(self, wish: Wish) -> Self {
        match self {
            Self::Trying(_) => Self::Trying(wish),
            Self::Warning(_) => Self::Warning(wish),
            Self::Expiring(_) => Self::Expiring(wish),
            Self::Waiting | Self::Held | Self::Quarantined => self,
        }
    }
}

/// What an operator wished for a job while it was in the host's hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    GoOn,
    Hold,
    /// The entry's due time says until when.
    Quarantine,
    /// Whatever hold the host comes back with is older than this.
    Release,
    Remove,
    /// Try again without waiting.
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

    /// Takes a job. Several jobs of one message for one next hop are allowed and live apart.
    pub fn insert(&mut self, job: Job) -> JobId {
        let id = JobId(self.next_id);
        self.next_id += 1;
        let hop = self.hop_named(&job.next_hop);
        self.hop_mut(hop, |hop| {
            hop.jobs += 1;
            hop.held += usize::from(job.custody != Custody::Free);
        });
        let (phase, due) = match job.custody {
            Custody::Free => (Phase::Waiting, job.due),
            Custody::Held => (Phase::Held, job.due),
            Custody::Quarantined(until) => (Phase::Quarantined, until),
        };
        let entry = Entry {
            message: job.message,
            hop,
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
        self.seat(hop);
        id
    }

    /// The next thing to do now, if any; call it until it gives none. What has grown old comes before attempts.
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
            self.seat_after_turn(hop, now);
            if let Some(attempt) = attempt {
                return Some(Due::Attempt(attempt));
            }
        }
        None
    }

    /// Takes an attempt (or a warning, or an expiry) back from the host. `dice` is any random number; it spreads the next attempts.
    ///
    /// Make durable first what the report says, then record it.
    pub fn record(&mut self, id: JobId, report: AttemptReport, dice: u64, now: UnixTime) -> Next {
        let Some(entry) = self.jobs.get(&id) else {
            return Next::Unknown;
        };
        let hop = entry.hop;
        let wish = match entry.phase {
            Phase::Trying(wish) => {
                self.trying -= 1;
                self.hop_mut(hop, |hop| hop.trying -= 1);
                self.judge_hop(hop, report.hop, dice, now);
                wish
            }
            Phase::Expiring(wish) | Phase::Warning(wish) => wish,
            Phase::Waiting | Phase::Held | Phase::Quarantined => return Next::Unknown,
        };
        let next = self.put_back(id, report, wish, dice, now);
        self.seat(hop);
        next
    }

    /// When [`Self::poll_due`] should be called next, unless something else happens before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<UnixTime> {
        let alarm = self.alarms.first().map(|(at, _)| *at);
        let attempt = match self.round.front() {
            _ if self.trying >= self.config.total => None,
            // Something is due already; any time that has passed says so.
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

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Puts a job that the host gave back where it belongs.
    fn put_back(&mut self, id: JobId, report: AttemptReport, wish: Wish, dice: u64, now: UnixTime) -> Next {
        if report.remaining.is_empty() || wish == Wish::Remove {
            let done = report.remaining.is_empty();
            self.forget(id);
            return if done { Next::Settled } else { Next::Removed };
        }
        let expiring = self.jobs.get(&id).is_some_and(|entry| matches!(entry.phase, Phase::Expiring(_)));
        let next = self.reschedule(id, report, wish, dice, now);
        let due = self.jobs.get(&id).map(|entry| entry.due).filter(|_| expiring);
        // An expiry that could not be carried out is asked for again, but not in a tight circle.
        self.arm(id, due.unwrap_or_default());
        next
    }

    fn reschedule(&mut self, id: JobId, report: AttemptReport, wish: Wish, dice: u64, now: UnixTime) -> Next {
        let retry = &self.config.retry;
        let Some(entry) = self.jobs.get_mut(&id) else {
            return Next::Unknown;
        };
        entry.recipients = report.remaining;
        entry.attempts += u32::from(matches!(report.again, Again::BackOff | Again::After(_)));
        let (expiring, trying) =
            (matches!(entry.phase, Phase::Expiring(_)), matches!(entry.phase, Phase::Trying(_)));
        // One that was only looked at, or cut off, says nothing yet.
        entry.tried |= trying && (report.again != Again::AtOnce || report.hop != HopSign::Silent);
        let custody = custody(wish, report.custody, entry.due);
        let released = wish == Wish::Release && (!trying || report.custody != Custody::Free);
        entry.due = match report.again {
            _ if wish == Wish::Retry || released => now,
            Again::AsBefore => entry.due,
            Again::AtOnce if !expiring => now,
            Again::AtOnce | Again::BackOff => now.plus(retry.wait(entry.attempts, dice)),
            Again::After(wait) => now.plus(wait),
        };
        let (due, hop) = (entry.due, entry.hop);
        if custody != Custody::Free {
            entry.phase = Phase::Held;
            if let Custody::Quarantined(until) = custody {
                entry.phase = Phase::Quarantined;
                // The end of its time that could not be carried out is asked for again, but not in a tight circle.
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
        let trouble = self.hop(hop).and_then(|hop| hop.trouble);
        trouble.map_or(due, |trouble| trouble.until.max(due))
    }

    fn judge_hop(&mut self, id: HopId, sign: HopSign, dice: u64, now: UnixTime) {
        let Some(hop) = self.hops.get_mut(id.0 as usize).and_then(Option::as_mut) else {
            return;
        };
        match sign {
            HopSign::Working => hop.window = hop.window.saturating_add(1).min(hop.limit.max(hop.window)),
            HopSign::Trouble => hop.window = self.config.initial_of(&hop.name),
            HopSign::Silent => {}
        }
        hop.trouble = match (sign, hop.trouble) {
            (HopSign::Working, _) => None,
            (HopSign::Silent, trouble) => trouble,
            // Attempts that were under way when the first one failed tell nothing new.
            (HopSign::Trouble, Some(trouble)) if now < trouble.until => Some(trouble),
            (HopSign::Trouble, trouble) => {
                let failures = trouble.map_or(0, |trouble| trouble.failures).saturating_add(1);
                let until = now.plus(self.config.retry.hop_wait(failures, dice));
                Some(Trouble { failures, until })
            }
        };
    }

    /// Begins the first due job of a hop that may be tried.
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
        entry.phase = Phase::Trying(Wish::GoOn);
        Some(Attempt {
            id,
            message: entry.message,
            next_hop,
            recipients: entry.recipients.clone(),
            attempts: entry.attempts,
        })
    }

    /// Moves the sleepers whose time has come into the round.
    fn wake(&mut self, now: UnixTime) {
        while let Some(&(at, hop)) = self.sleepers.first() {
            if at > now {
                return;
            }
            self.sleepers.pop_first();
            self.round.push_back(hop);
            self.hop_mut(hop, |hop| hop.place = HopState::Ready);
        }
    }

    /// After its turn a hop goes to the round's end when more is due, or to sleep.
    fn seat_after_turn(&mut self, id: HopId, now: UnixTime) {
        let more = self.hop(id).and_then(Hop::wakes).is_some_and(|at| at <= now);
        if more {
            self.round.push_back(id);
        } else {
            self.hop_mut(id, |hop| hop.place = HopState::Idle);
            self.seat(id);
        }
    }

    /// Lets a hop sleep until its next due time, and forgets it when it has no jobs left.
    pub(crate) fn seat(&mut self, id: HopId) {
        let Some(hop) = self.hops.get_mut(id.0 as usize).and_then(Option::as_mut) else {
            return;
        };
        if hop.place == HopState::Ready {
            return;
        }
        if let HopState::Asleep(at) = hop.place {
            self.sleepers.remove(&(at, id));
        }
        hop.place = hop.wakes().map_or(HopState::Idle, HopState::Asleep);
        if let HopState::Asleep(at) = hop.place {
            self.sleepers.insert((at, id));
        }
        if hop.jobs == 0 {
            self.by_name.remove(&hop.name);
            self.hops[id.0 as usize] = None;
            self.free.push(id);
        }
    }

    /// Drops a job that stands in no order of due times any more.
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

/// Who has the last word about a job that comes back: a release that came while it was under way, or else whoever
/// holds it. A release in error costs one more look, a hold in error would last.
fn custody(wish: Wish, found: Custody, due: UnixTime) -> Custody {
    match (wish, found) {
        (Wish::Release | Wish::Retry, _) => Custody::Free,
        (_, Custody::Quarantined(until)) => Custody::Quarantined(until),
        (Wish::Quarantine, _) => Custody::Quarantined(due),
        (Wish::Hold, _) => Custody::Held,
        (Wish::GoOn | Wish::Remove, found) => found,
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
