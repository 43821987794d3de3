//! Random operations in any order: no job is lost, no limit is exceeded, no attempt begins before its time, and every
//! job ends. A simple model runs beside the queue.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use pintle_mail::{NextHop, QueueId, UnixTime};
use pintle_queue::{
    Again, AttemptReport, Config, Due, HoldState, HopSign, Job, JobId, JobPhase, Next, Queue, Rerouted,
    RetryPolicy, hold,
};
use proptest::prelude::*;

const HOPS: u8 = 4;
const PER_HOP: usize = 3;
const KEEP: Duration = Duration::from_secs(90);
const TOTAL: usize = 7;
const MAX_AGE: Duration = Duration::from_secs(3_600);
const WARN_AFTER: Duration = Duration::from_secs(900);

#[derive(Debug, Clone)]
enum ModelAction {
    Insert { hop: u8, held: bool },
    Poll,
    Record { pick: usize, sign: HopSign, again: Again, left: bool, dice: u64 },
    Operate { pick: u8, hop: u8 },
    Reroute { from: u8, to: u8 },
    Pass { seconds: u64 },
    Step { younger: u64 },
}

fn action() -> impl Strategy<Value = ModelAction> {
    let sign = prop_oneof![
        3 => Just(HopSign::Working),
        1 => Just(HopSign::Silent),
        2 => Just(HopSign::Trouble),
    ];
    let again = prop_oneof![
        4 => Just(Again::BackOff),
        1 => Just(Again::AtOnce),
        1 => (0..300_u64).prop_map(|s| Again::After(Duration::from_secs(s))),
    ];
    prop_oneof![
        4 => (0..HOPS, prop::bool::weighted(0.1)).prop_map(|(hop, held)| ModelAction::Insert { hop, held }),
        6 => Just(ModelAction::Poll),
        5 => (any::<usize>(), sign, again, any::<bool>(), any::<u64>())
            .prop_map(|(pick, sign, again, left, dice)| ModelAction::Record { pick, sign, again, left, dice }),
        1 => (0..6_u8, 0..HOPS).prop_map(|(pick, hop)| ModelAction::Operate { pick, hop }),
        1 => (0..HOPS, 0..HOPS).prop_map(|(from, to)| ModelAction::Reroute { from, to }),
        3 => (0..400_u64).prop_map(|seconds| ModelAction::Pass { seconds }),
        1 => prop_oneof![Just(0), 0..7_200_u64].prop_map(|younger| ModelAction::Step { younger }),
    ]
}

#[derive(Debug, Clone, Copy)]
struct KnownJob {
    hop: u8,
    /// Its age counts from here.
    accepted: UnixTime,
    /// The end of its time in a quarantine, if it may be in one.
    kept: Option<UnixTime>,
    tried: bool,
    not_before: UnixTime,
    /// An operator made it due at once while it was being tried.
    hastened: bool,
}

struct Model {
    queue: Queue,
    now: UnixTime,
    serial: u128,
    alive: BTreeMap<JobId, KnownJob>,
    trying: Vec<JobId>,
    expiring: Vec<JobId>,
    warning: Vec<JobId>,
    steady_since: UnixTime,
    /// Hops in a back-off, and its end.
    trouble: HashMap<u8, UnixTime>,
}

fn hop(n: u8) -> NextHop {
    NextHop::Mx(format!("{n}.example"))
}

impl Model {
    fn new() -> Self {
        let retry = RetryPolicy { max_age: MAX_AGE, warn_after: Some(WARN_AFTER), ..RetryPolicy::default() };
        Self {
            queue: Queue::new(Config {
                per_hop: PER_HOP,
                initial: 1,
                total: TOTAL,
                overrides: HashMap::new(),
                retry,
            }),
            now: UnixTime::from_millis(1_000_000_000_000),
            serial: 0,
            alive: BTreeMap::new(),
            trying: Vec::new(),
            expiring: Vec::new(),
            warning: Vec::new(),
            steady_since: UnixTime::default(),
            trouble: HashMap::new(),
        }
    }

    fn apply(&mut self, action: &ModelAction) {
        match *action {
            ModelAction::Insert { hop, held } => self.insert(hop, held),
            ModelAction::Poll => self.poll(),
            ModelAction::Record { pick, sign, again, left, dice } => {
                self.record(pick, sign, again, left, dice)
            }
            ModelAction::Operate { pick, hop: n } => self.operate(pick, n),
            ModelAction::Reroute { from, to } => self.reroute(from, to),
            ModelAction::Pass { seconds } => self.now = self.now.plus(Duration::from_secs(seconds)),
            ModelAction::Step { younger } => self.step(Duration::from_secs(younger)),
        }
        assert_eq!(self.queue.len(), self.alive.len(), "a job was lost or came back");
        assert_eq!(self.queue.snapshot().trying, self.trying.len());
    }

    fn insert(&mut self, n: u8, held: bool) {
        self.serial += 1;
        let id = QueueId::new(self.now, self.serial);
        let hold = if held { HoldState::Held } else { HoldState::Free };
        let job = Job { hold, ..Job::new(id, hop(n), vec![1], self.now) };
        let known = KnownJob {
            hop: n,
            accepted: self.now,
            kept: None,
            tried: false,
            not_before: self.now,
            hastened: false,
        };
        self.alive.insert(self.queue.insert(job), known);
    }

    fn step(&mut self, younger: Duration) {
        // A job that was due because of its age stays due, though it becomes younger.
        let aged: Vec<JobId> =
            self.alive.iter().filter(|(_, known)| self.must_be_tried(known)).map(|(id, _)| *id).collect();
        for id in aged {
            let now = self.now;
            self.alive.entry(id).and_modify(|known| known.not_before = known.not_before.min(now));
        }
        self.queue.clock_stepped(younger, self.now);
        self.steady_since = self.now;
        for known in self.alive.values_mut() {
            known.accepted = known.accepted.plus(younger).min(self.now);
        }
    }

    /// It neither expires nor is warned of before this time.
    fn reaches(&self, known: &KnownJob, age: Duration) -> UnixTime {
        known.accepted.plus(age).max(self.steady_since.plus(hold(age)))
    }

    /// Whether it has an age that matters and must be tried first.
    fn must_be_tried(&self, known: &KnownJob) -> bool {
        !known.tried && self.reaches(known, WARN_AFTER) <= self.now
    }

    /// A job that has reached an age was tried, or its next hop is down, or it is held.
    fn check_aged(&self, id: JobId, age: Duration, held: &[JobId]) {
        let known = &self.alive[&id];
        let at = self.reaches(known, age);
        assert!(known.kept.map_or(at, |kept| kept.min(at)) <= self.now, "too early");
        let hops = self.queue.snapshot().hops;
        let down = hops.iter().any(|view| view.next_hop == hop(known.hop) && view.failures > 0);
        assert!(known.tried || down || held.contains(&id), "it was never tried");
        assert!(![&self.trying, &self.expiring, &self.warning].iter().any(|hand| hand.contains(&id)));
    }

    fn poll(&mut self) {
        let promised = self.queue.poll_timeout();
        let phase = |id: JobId| self.queue.job(id).map(|view| view.phase);
        let is_held = |id: &JobId| matches!(phase(*id), Some(JobPhase::Held | JobPhase::Quarantined(_)));
        let held: Vec<JobId> = self.alive.keys().copied().filter(is_held).collect();
        match self.queue.poll_due(self.now) {
            None => assert!(self.queue.poll_timeout().is_none_or(|at| at > self.now), "would spin"),
            Some(due) => {
                assert!(promised.is_some_and(|at| at <= self.now), "would have been slept through");
                match due {
                    Due::Attempt(attempt) => self.begin(attempt.id),
                    Due::Warn(aged) => {
                        self.check_aged(aged.id, WARN_AFTER, &[]);
                        self.warning.push(aged.id);
                    }
                    Due::Expire(aged) => {
                        self.check_aged(aged.id, MAX_AGE, &held);
                        self.expiring.push(aged.id);
                    }
                }
            }
        }
    }

    fn begin(&mut self, id: JobId) {
        let known = self.alive[&id];
        assert!(known.not_before <= self.now || self.must_be_tried(&known), "before its time");
        let hands = [&self.trying, &self.expiring, &self.warning];
        assert!(!hands.iter().any(|hand| hand.contains(&id)), "twice in the host's hands");
        let same_hop = self.trying.iter().filter(|id| self.alive[id].hop == known.hop).count();
        assert!(same_hop < PER_HOP && self.trying.len() < TOTAL, "over a limit");
        if let Some(until) = self.trouble.get(&known.hop) {
            assert!(*until <= self.now && same_hop == 0, "more than a probe");
        }
        self.trying.push(id);
    }

    fn record(&mut self, pick: usize, sign: HopSign, again: Again, left: bool, dice: u64) {
        self.record_warnings(dice);
        let hands = self.trying.len() + self.expiring.len();
        if hands == 0 {
            return;
        }
        let pick = pick % hands;
        let tried = pick < self.trying.len();
        let id = if tried {
            self.trying.swap_remove(pick)
        } else {
            self.expiring.swap_remove(pick - self.trying.len())
        };
        let remaining: Box<[u32]> = if left { Box::new([1]) } else { Box::default() };
        let next = self.queue.record(
            id,
            AttemptReport { remaining, hop: sign, again, hold: HoldState::Free },
            dice,
            self.now,
        );
        let n = self.alive[&id].hop;
        match next {
            Next::Settled | Next::Removed => drop(self.alive.remove(&id)),
            Next::Again(at) => {
                // The answer may name the end of the hop's back-off, and the job's own wait is shorter.
                let own = self.now.plus(match again {
                    Again::After(wait) => wait,
                    Again::AtOnce | Again::AsBefore => Duration::ZERO,
                    Again::BackOff => Duration::from_secs(60),
                });
                self.alive.entry(id).and_modify(|known| {
                    known.not_before = if known.hastened { self.now } else { own.min(at) };
                    known.hastened = false;
                });
            }
            Next::Held | Next::Expiring => {}
            Next::Unknown => panic!("the queue forgot {id:?}"),
        }
        assert!(left || next == Next::Settled);
        if tried {
            self.note_sign(n, sign);
            let counts = again != Again::AtOnce || sign != HopSign::Silent;
            self.alive.entry(id).and_modify(|known| known.tried |= counts);
        }
        self.forget_empty(n);
    }

    fn record_warnings(&mut self, dice: u64) {
        for id in std::mem::take(&mut self.warning) {
            let n = self.alive[&id].hop;
            match self.queue.record(id, AttemptReport::unchanged([1]), dice, self.now) {
                Next::Removed => drop(self.alive.remove(&id)),
                Next::Again(_) | Next::Held | Next::Expiring => {
                    let now = self.now;
                    self.alive.entry(id).and_modify(|known| {
                        known.not_before = if known.hastened { now } else { known.not_before };
                        known.hastened = false;
                    });
                }
                Next::Settled | Next::Unknown => panic!("the queue forgot {id:?}"),
            }
            self.forget_empty(n);
        }
    }

    fn note_sign(&mut self, n: u8, sign: HopSign) {
        let view = self.queue.snapshot().hops.into_iter().find(|view| view.next_hop == hop(n));
        match sign {
            HopSign::Working => drop(self.trouble.remove(&n)),
            HopSign::Silent => {}
            HopSign::Trouble => {
                if let Some(until) = view.as_ref().and_then(|view| view.put_off) {
                    assert!(until > self.now);
                    self.trouble.insert(n, until);
                }
            }
        }
    }

    fn operate(&mut self, pick: u8, n: u8) {
        let mine: Vec<JobId> =
            self.alive.iter().filter(|(_, known)| known.hop == n).map(|(id, _)| *id).collect();
        for id in mine {
            match pick {
                0 => self.queue.hold(id),
                1 => self.queue.release(id, None, self.now),
                2 => self.queue.retry_now(id, self.now),
                3 => self.queue.remove(id),
                4 => self.queue.quarantine(id, self.now.plus(KEEP)),
                _ => self.queue.release(id, Some(self.now), self.now),
            }
            let aged = self.expiring.contains(&id) || self.warning.contains(&id);
            let in_hand = self.trying.contains(&id) || aged;
            if pick == 3 && !in_hand {
                self.alive.remove(&id);
            } else if let Some(known) = self.alive.get_mut(&id) {
                known.not_before = known.not_before.min(self.now);
                // A warning, or an expiry that is not carried out, leaves a released job due at once.
                known.hastened |= in_hand && pick == 2 || aged && matches!(pick, 1 | 5);
                match pick {
                    4 => {
                        let end = self.now.plus(KEEP);
                        known.kept = Some(known.kept.map_or(end, |kept| kept.min(end)));
                    }
                    5 => known.accepted = self.now,
                    _ => {}
                }
            }
        }
        if pick == 2 {
            self.trouble.entry(n).and_modify(|until| *until = (*until).min(self.now));
        }
        self.forget_empty(n);
    }

    /// Each job that is not in the host's hands becomes another job for another next hop, of the same age, not tried
    /// yet.
    fn reroute(&mut self, from: u8, to: u8) {
        let mine: Vec<JobId> =
            self.alive.iter().filter(|(_, known)| known.hop == from).map(|(id, _)| *id).collect();
        for id in mine {
            let done = self.queue.reroute(&[id], |_| Some(hop(to)), self.now);
            let in_hand = [&self.trying, &self.expiring, &self.warning].iter().any(|hand| hand.contains(&id));
            if in_hand || from == to {
                let busy = in_hand && from != to;
                assert_eq!(done, Rerouted { busy, ..Rerouted::default() });
                continue;
            }
            assert_eq!((&done.gone[..], done.new.len(), done.moved), (&[id][..], 1, 1));
            let known = self.alive.remove(&id).expect("it was there");
            let known = KnownJob { hop: to, tried: false, not_before: self.now, hastened: false, ..known };
            self.alive.insert(done.new[0], known);
        }
        self.forget_empty(from);
    }

    /// A next hop without jobs is removed, and its back-off with it.
    fn forget_empty(&mut self, n: u8) {
        if !self.alive.values().any(|known| known.hop == n) {
            self.trouble.remove(&n);
        }
    }

    /// With a host that always defers, every job that is left must come out as expired.
    fn drain(mut self) {
        for _ in 0..100_000 {
            if self.alive.is_empty() {
                return;
            }
            while !self.expiring.is_empty() {
                let last = self.trying.len() + self.expiring.len() - 1;
                self.record(last, HopSign::Silent, Again::BackOff, false, 0);
            }
            self.record_warnings(0);
            while !self.trying.is_empty() {
                self.record(0, HopSign::Working, Again::BackOff, true, 0);
            }
            if let Some(at) = self.queue.poll_timeout() {
                self.now = self.now.max(at);
            }
            self.poll();
        }
        panic!("{} jobs never ended", self.alive.len());
    }
}

proptest! {
    #[test]
    fn the_books_agree(actions in prop::collection::vec(action(), 1..300)) {
        let mut model = Model::new();
        for action in actions {
            model.apply(&action);
        }
        model.drain();
    }
}

/// A hundred thousand jobs for a thousand next hops go in, are tried and go out; quadratic behaviour anywhere would make
/// this test last minutes.
#[test]
fn a_hundred_thousand_jobs_are_no_burden() {
    let now = UnixTime::from_millis(1_000_000_000_000);
    let mut queue = Queue::new(Config::default());
    for n in 0..100_000_u32 {
        let next_hop = NextHop::Mx(format!("{}.example", n % 1_000));
        queue.insert(Job::new(QueueId::new(now, u128::from(n)), next_hop, vec![n], now));
    }
    let mut settled = 0;
    while let Some(Due::Attempt(attempt)) = queue.poll_due(now) {
        settled += u32::from(queue.record(attempt.id, AttemptReport::settled(), 0, now) == Next::Settled);
    }
    assert_eq!(settled, 100_000);
    assert!(queue.is_empty());
}
