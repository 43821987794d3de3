//! What a run knows to be true, kept apart from the gateway: what was accepted, what must lie on disk, what next hops took
//! and replied. [`laws`](crate::laws) compares the gateway's acts with it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;
use pintle_mail::{NextHop, QueueId, UnixTime};
use pintle_spool::{Change, DeliveryStatus, Disposition, Entry, HoldReason, RecipientState};

/// A message as it was handed to the spool.
#[derive(Clone, Debug)]
pub struct SimMessage {
    pub id: QueueId,
    /// Header block and body.
    pub text: Bytes,
    pub entry: Entry,
    pub at: Moment,
}

/// When something was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// In true time.
    pub passed: Duration,
    /// By how much the gateway's clock was ahead then, in milliseconds.
    pub ahead: i64,
}

/// A change of what lies on disk.
#[derive(Clone, Debug)]
pub enum Op {
    Commit(Vec<SimMessage>),
    Settle(QueueId, Vec<Change>, Vec<SimMessage>),
    Hold(QueueId, HoldReason),
    Release(QueueId, UnixTime, Moment),
    Reroute(QueueId, Vec<u32>, Option<NextHop>),
    SetContext(QueueId, Bytes),
}

/// What the spool said to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpResult {
    /// It is durable.
    Done,
    /// Nothing of it was done.
    Refused,
    /// Unknown: the next start shows whether it is durable.
    Unsure,
}

/// What of a message can change on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredState {
    pub hold: Option<HoldReason>,
    pub released: Option<UnixTime>,
    pub context: Bytes,
    pub recipients: Vec<RecipientState>,
}

/// Everything on disk.
pub type Disk = BTreeMap<QueueId, StoredState>;

/// All that is known of a message.
#[derive(Debug)]
pub struct KnownMessage {
    pub letter: SimMessage,
    /// A receipt was given, so it must not be lost.
    pub promised: bool,
    /// From when its age counts, and its time in quarantine.
    pub since: Moment,
    /// How recipients ended, and at which step that was durable.
    pub ends: BTreeMap<u32, (Disposition, u64)>,
    /// What next hops took.
    pub copies: Vec<DeliveredCopy>,
    /// The step at which it was put on hold.
    pub held: Option<u64>,
    /// The first step of this life at which the gateway read it while nothing held it.
    pub read: Option<u64>,
    /// How often it was read in this life.
    pub reads: u32,
    /// An operator has asked for its bounce.
    pub may_bounce: bool,
    /// An operator has asked for its end.
    pub may_vanish: bool,
}

/// A recipient's copy that a next hop took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveredCopy {
    pub recipient: u32,
    pub life: u32,
    /// The whole answer was sent while the gateway could still hear it.
    pub heard: bool,
}

/// Counts of what a run has seen, so that an idle run does not pass for a good one.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    pub committed: u32,
    pub reports: u32,
    pub delivered: u32,
    pub failed: u32,
    pub expired: u32,
    pub discarded: u32,
    /// Copies beyond the first of a recipient.
    pub twice: u32,
    pub lives: u32,
    pub crashes: u32,
}

/// An operation that may be durable, and what was so when it was asked for: the laws go by that, whenever it is found.
#[derive(Debug)]
struct Unsure {
    op: Op,
    now: Duration,
    clock: Watch,
    deferred: BTreeSet<QueueId>,
}

/// All of it.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Which start of the gateway this is.
    pub life: u32,
    /// Counts what happened.
    pub step: u64,
    /// The true time now.
    pub now: Duration,
    /// What must lie on disk.
    pub disk: Disk,
    /// What may lie there besides.
    unsure: Vec<Unsure>,
    pub known: BTreeMap<QueueId, KnownMessage>,
    texts: HashMap<Bytes, QueueId>,
    /// Addresses that a next hop has refused permanently, as recipient or sender.
    pub refused: BTreeSet<String>,
    /// Domains that take no mail, by the name servers.
    pub no_mail: BTreeSet<String>,
    /// What the gateway's clock did in this life.
    pub clock: Watch,
    /// Messages with a deferred attempt in this life.
    pub deferred: BTreeSet<QueueId>,
    /// Laws that were broken.
    pub broken: Vec<String>,
    pub counts: Counts,
}

impl Ledger {
    /// A law is broken.
    pub fn breach(&mut self, law: impl Into<String>) {
        self.broken.push(law.into());
    }

    /// The gateway starts, with a clock that is so far ahead.
    pub fn begin_life(&mut self, ahead: i64) {
        self.life += 1;
        self.counts.lives += 1;
        self.clock = Watch { ahead, since: self.now, least: ahead, stepped: self.now };
        self.deferred.clear();
        for known in self.known.values_mut() {
            known.read = None;
            known.reads = 0;
        }
    }

    /// The message of this text.
    pub fn by_text(&self, text: &[u8]) -> Option<QueueId> {
        self.texts.get(text).copied()
    }

    /// The gateway has read a message.
    pub fn read(&mut self, id: QueueId, hold: Option<&HoldReason>) {
        self.step += 1;
        let step = self.step;
        if let Some(known) = self.known.get_mut(&id) {
            known.reads += 1;
            if hold.is_none() && known.read.is_none() {
                known.read = Some(step);
            }
        }
    }

    /// The spool has answered.
    pub fn said(&mut self, op: Op, said: OpResult) {
        self.step += 1;
        match said {
            OpResult::Done => self.done(&op, true),
            OpResult::Refused => {}
            OpResult::Unsure => {
                for letter in op.letters() {
                    self.learn(letter, false);
                }
                let (now, clock, deferred) = (self.now, self.clock, self.deferred.clone());
                self.unsure.push(Unsure { op, now, clock, deferred });
            }
        }
    }

    /// What lies on disk after a start must be what was promised, and of what is unsure each thing whole or not at all.
    pub fn compare(&mut self, found: &Disk) {
        let unsure = std::mem::take(&mut self.unsure);
        for choice in 0..1_u32 << unsure.len().min(10) {
            let chosen = || {
                unsure.iter().enumerate().filter(|(at, _)| choice >> at & 1 == 1).map(|(_, unsure)| unsure)
            };
            let mut disk = self.disk.clone();
            chosen().for_each(|unsure| apply(&mut disk, &unsure.op));
            if disk == *found {
                chosen().for_each(|unsure| self.found(unsure));
                return;
            }
        }
        let all: BTreeSet<&QueueId> = self.disk.keys().chain(found.keys()).collect();
        let differ = all.into_iter().filter(|id| self.disk.get(id) != found.get(id));
        let differ: Vec<String> = differ
            .map(|id| format!("{id}: expected {:?}, found {:?}", self.disk.get(id), found.get(id)))
            .collect();
        self.breach(format!(
            "the disk does not hold what was made durable: {}; unsure was {unsure:?}",
            differ.join("; ")
        ));
        self.disk = found.clone();
    }

    /// An operation that was unsure turns out to be durable.
    fn found(&mut self, unsure: &Unsure) {
        let (now, clock) = (self.now, self.clock);
        let deferred = std::mem::replace(&mut self.deferred, unsure.deferred.clone());
        (self.now, self.clock) = (unsure.now, unsure.clock);
        crate::laws::before(self, &unsure.op);
        (self.now, self.clock, self.deferred) = (now, clock, deferred);
        self.book(&unsure.op, false);
        apply(&mut self.disk, &unsure.op);
    }

    fn done(&mut self, op: &Op, promised: bool) {
        crate::laws::before(self, op);
        self.book(op, promised);
        apply(&mut self.disk, op);
    }

    fn book(&mut self, op: &Op, promised: bool) {
        for letter in op.letters() {
            self.learn(letter, promised);
        }
        match op {
            Op::Commit(letters) => self.counts.committed += u32::try_from(letters.len()).unwrap_or(0),
            Op::Settle(id, changes, children) => {
                self.counts.reports += u32::try_from(children.len()).unwrap_or(0);
                self.end(*id, changes);
            }
            Op::Hold(id, _) => {
                let step = self.step;
                if let Some(known) = self.known.get_mut(id) {
                    known.held.get_or_insert(step);
                }
            }
            Op::Release(id, _, at) => {
                let quarantined = self.quarantined(*id);
                if let Some(known) = self.known.get_mut(id) {
                    known.held = None;
                    known.since = if quarantined { *at } else { known.since };
                }
            }
            Op::Reroute(..) | Op::SetContext(..) => {}
        }
    }

    fn end(&mut self, id: QueueId, changes: &[Change]) {
        let (step, pending) = (self.step, self.pending(id));
        for change in changes {
            let DeliveryStatus::Done(disposition) = change.status else {
                self.deferred.insert(id);
                continue;
            };
            if !pending.contains(&change.recipient) {
                continue;
            }
            match disposition {
                Disposition::Delivered => self.counts.delivered += 1,
                Disposition::Failed => self.counts.failed += 1,
                Disposition::Expired => self.counts.expired += 1,
                Disposition::Discarded => self.counts.discarded += 1,
            }
            if let Some(known) = self.known.get_mut(&id) {
                known.ends.insert(change.recipient, (disposition, step));
            }
        }
    }

    fn learn(&mut self, letter: &SimMessage, promised: bool) {
        self.texts.insert(letter.text.clone(), letter.id);
        let step = self.step;
        let known = self.known.entry(letter.id).or_insert_with(|| KnownMessage {
            letter: letter.clone(),
            promised: false,
            since: letter.at,
            ends: BTreeMap::new(),
            copies: Vec::new(),
            held: letter.entry.hold.is_some().then_some(step),
            read: None,
            reads: 0,
            may_bounce: false,
            may_vanish: false,
        });
        known.promised |= promised;
    }

    /// The recipients of a message that are not done.
    pub fn pending(&self, id: QueueId) -> BTreeSet<u32> {
        let states = self.disk.get(&id).into_iter().flat_map(|state| &state.recipients);
        states.filter(|state| state.status.pending().is_some()).map(|state| state.id).collect()
    }

    /// Whether a message lies in a quarantine.
    pub fn quarantined(&self, id: QueueId) -> bool {
        let hold = self.disk.get(&id).and_then(|state| state.hold.as_ref());
        hold.and_then(HoldReason::quarantine).is_some()
    }
}

/// What the gateway's clock did in a life.
#[derive(Debug, Default, Clone, Copy)]
pub struct Watch {
    /// By how much it is ahead of the truth, in milliseconds, since when, and at least in this life.
    pub ahead: i64,
    pub since: Duration,
    least: i64,
    /// The last step, or the start.
    pub stepped: Duration,
}

/// Below it the gateway does not tell a step from drift, in milliseconds.
const DRIFT: u64 = 10_000;
/// The gateway looks at the clock once a second; what is shorter it may not have seen.
const SEEN: Duration = Duration::from_secs(3);

impl Watch {
    /// The clock is set.
    pub fn set(&mut self, ahead: i64, now: Duration) {
        self.least = self.least(now);
        if ahead.abs_diff(self.ahead) >= DRIFT && now.saturating_sub(self.since) >= SEEN {
            self.stepped = now;
        }
        (self.ahead, self.since) = (ahead, now);
    }

    /// By how much it was ahead at least, as far as the gateway can have seen.
    pub fn least(&self, now: Duration) -> i64 {
        let seen = now.saturating_sub(self.since) >= SEEN;
        if seen { self.least.min(self.ahead) } else { self.least }
    }
}

impl Op {
    /// The messages that it brings.
    pub fn letters(&self) -> &[SimMessage] {
        match self {
            Self::Commit(letters) | Self::Settle(_, _, letters) => letters,
            Self::Hold(..) | Self::Release(..) | Self::Reroute(..) | Self::SetContext(..) => &[],
        }
    }
}

impl StoredState {
    /// A message just committed.
    fn fresh(entry: &Entry) -> Self {
        let recipients = entry.envelope.recipients.iter();
        let recipients = recipients.map(|recipient| RecipientState {
            id: recipient.id,
            status: DeliveryStatus::fresh(entry.received),
            route: None,
        });
        Self {
            hold: entry.hold.clone(),
            released: entry.released,
            context: entry.context.clone(),
            recipients: recipients.collect(),
        }
    }

    fn is_done(&self) -> bool {
        self.recipients.iter().all(|state| state.status.pending().is_none())
    }
}

/// What an operation does to what lies on disk, as the trait `Spool` promises it.
fn apply(disk: &mut Disk, op: &Op) {
    for letter in op.letters() {
        disk.insert(letter.id, StoredState::fresh(&letter.entry));
    }
    match op {
        Op::Commit(_) => {}
        Op::Settle(id, changes, _) => settle(disk, *id, changes),
        Op::Hold(id, hold) => {
            if let Some(state) = disk.get_mut(id) {
                let verdict = state.hold.as_ref().and_then(HoldReason::quarantine).is_some();
                if !verdict || hold.quarantine().is_some() {
                    state.hold = Some(hold.clone());
                }
            }
        }
        Op::Release(id, at, _) => {
            if let Some(state) = disk.get_mut(id) {
                let before = state.hold.take();
                if before.as_ref().and_then(HoldReason::quarantine).is_some() {
                    state.released = Some(*at);
                }
            }
        }
        Op::Reroute(id, recipients, next_hop) => {
            let states = disk.get_mut(id).into_iter().flat_map(|state| &mut state.recipients);
            let chosen = states.filter(|state| recipients.is_empty() || recipients.contains(&state.id));
            chosen.for_each(|state| state.route.clone_from(next_hop));
        }
        Op::SetContext(id, context) => {
            if let Some(state) = disk.get_mut(id) {
                state.context.clone_from(context);
            }
        }
    }
}

fn settle(disk: &mut Disk, id: QueueId, changes: &[Change]) {
    let Some(state) = disk.get_mut(&id) else { return };
    for change in changes {
        let mut states = state.recipients.iter_mut();
        let found = states.find(|state| state.id == change.recipient && state.status.pending().is_some());
        if let Some(recipient) = found {
            recipient.status = change.status.clone();
        }
    }
    if state.is_done() {
        disk.remove(&id);
    }
}

impl Counts {
    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        self.committed += other.committed;
        self.reports += other.reports;
        self.delivered += other.delivered;
        self.failed += other.failed;
        self.expired += other.expired;
        self.discarded += other.discarded;
        self.twice += other.twice;
        self.lives += other.lives;
        self.crashes += other.crashes;
    }

    /// Panics when something that runs are for has never happened.
    pub fn assert_busy(&self) {
        let all = [
            self.committed,
            self.reports,
            self.delivered,
            self.failed,
            self.expired,
            self.discarded,
            self.twice,
            self.lives,
            self.crashes,
        ];
        assert!(all.iter().all(|count| *count > 0), "the runs are idle: {self:?}");
    }
}
