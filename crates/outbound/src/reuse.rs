//! Sessions at rest, and how many there may be: one lane for each way to a next hop.
//!
//! A lane is for one target under one configuration: the same next hop with the same demand of TLS, the same source and the
//! same credentials. So a session that was opened for less, or that has authenticated as somebody else, is never met by a
//! delivery that demands more.
//!
//! Whoever wants to deliver waits in the lane for a slot, which bounds the sessions to that next hop, and takes the session
//! that rested last, or opens one. When opening failed, those who were waiting meanwhile share that answer instead of
//! finding it out one after the other.

#![expect(clippy::vec_box, reason = "a session is moved from owner to owner as its box")]

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Config;
use crate::clock::monotonic;
use crate::connect::Trouble;
use crate::link::Link;
use crate::plan::Target;

/// Addresses that are remembered for something. Strangers say where their exchangers are, and may say it anew each time.
const QUIRKS: usize = 100_000;

/// All lanes.
#[derive(Default)]
pub(crate) struct Pool {
    lanes: Mutex<HashMap<Key, Arc<Lane>>>,
    /// Lanes made so far.
    made: AtomicU64,
    /// What places are known for, and until when that counts.
    quirks: Mutex<HashMap<(Quirk, String), Instant>>,
    closed: AtomicBool,
}

/// What a place can be known for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Quirk {
    /// TLS with it, under a host's name, fails: it is spoken to in plain text.
    NoTls,
    /// BDAT stalls there: it gets DATA.
    NoChunks,
    /// Commands that are sent ahead get lost there: it gets one at a time.
    NoPipelining,
    /// Nobody answers there, as an exchanger of a domain, and it kept others from being tried: they come before it.
    Dead,
}

/// Which lane: an attempt that began under an old configuration opens sessions as that one says, and a reload may have
/// tightened it since.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    config: Held,
    target: Target,
}

/// A configuration, known by its identity. Being held, it keeps its address to itself.
#[derive(Clone)]
struct Held(Arc<Config>);

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Held {}

impl Hash for Held {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

struct Lane {
    /// Counted from the first. Sessions are ended in this order, so that a run can be repeated.
    number: u64,
    slots: Arc<Semaphore>,
    idle: Mutex<Vec<Box<Link>>>,
    /// No session rests here any more.
    ended: AtomicBool,
    failed: Mutex<Option<(Instant, Trouble)>>,
}

/// Leave to have one session.
pub(crate) struct Slot {
    lane: Arc<Lane>,
    _permit: OwnedSemaphorePermit,
}

/// What waiting in the lane came to.
pub(crate) enum Turn {
    /// Use this session.
    Reuse(Slot, Box<Link>),
    /// Open one.
    Open(Slot),
    /// Opening one failed while we waited.
    Failed(Trouble),
    /// Nothing is begun any more.
    Closed,
}

impl Pool {
    /// Waits for a slot among as many as the configuration gives the next hop.
    pub(crate) async fn turn(&self, target: &Target, config: &Arc<Config>) -> Turn {
        let asked = monotonic();
        let lane = self.lane(target, config);
        let Ok(permit) = Arc::clone(&lane.slots).acquire_owned().await else {
            return Turn::Closed;
        };
        let slot = Slot { lane, _permit: permit };
        // A session at rest is worth more than the news that another could not be opened.
        while let Some(mut link) = slot.take_idle() {
            if link.is_alive() {
                return Turn::Reuse(slot, link);
            }
        }
        let failed = slot.lane.failed.lock().clone();
        if let Some((at, trouble)) = failed
            && at >= asked
        {
            return Turn::Failed(trouble);
        }
        Turn::Open(slot)
    }

    /// How many sessions rest.
    pub(crate) fn idle(&self) -> usize {
        self.lanes.lock().values().map(|lane| lane.idle.lock().len()).sum()
    }

    /// Takes out the sessions that have rested longer than `keep`, and forgets lanes that nobody uses.
    pub(crate) fn expired(&self, now: Instant, keep: Duration) -> Vec<Box<Link>> {
        let mut lanes = self.lanes.lock();
        let old = in_order(&lanes).iter().flat_map(|lane| lane.take_older(now, keep)).collect();
        lanes.retain(|_, lane| Arc::strong_count(lane) > 1 || !lane.idle.lock().is_empty());
        self.quirks.lock().retain(|_, until| *until > now);
        old
    }

    /// Sends everybody away who waits, now and later.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        in_order(&self.lanes.lock()).iter().for_each(|lane| lane.slots.close());
    }

    /// Whether this place is known for that.
    pub(crate) fn knows(&self, quirk: Quirk, place: &str) -> bool {
        let quirks = self.quirks.lock();
        !quirks.is_empty() && quirks.get(&(quirk, place.to_owned())).is_some_and(|until| *until > monotonic())
    }

    /// It is, for so long; a memory that is full takes in nothing new.
    pub(crate) fn remember(&self, quirk: Quirk, place: &str, memory: Duration) {
        let (mut quirks, key) = (self.quirks.lock(), (quirk, place.to_owned()));
        if quirks.len() < QUIRKS || quirks.contains_key(&key) {
            quirks.insert(key, monotonic() + memory);
        }
    }

    /// It is not any more. Gives whether it was.
    pub(crate) fn forget(&self, quirk: Quirk, place: &str) -> bool {
        let mut quirks = self.quirks.lock();
        !quirks.is_empty() && quirks.remove(&(quirk, place.to_owned())).is_some()
    }

    /// Begins anew under a changed configuration: gives the resting sessions away; those in use are given away as they
    /// come back.
    pub(crate) fn renew(&self) -> Vec<Box<Link>> {
        let old = std::mem::take(&mut *self.lanes.lock());
        in_order(&old).iter().flat_map(|lane| lane.end()).collect()
    }

    fn lane(&self, target: &Target, config: &Arc<Config>) -> Arc<Lane> {
        let key = Key { config: Held(Arc::clone(config)), target: target.clone() };
        let mut lanes = self.lanes.lock();
        if let Some(lane) = lanes.get(&key) {
            return Arc::clone(lane);
        }
        let lane = Arc::new(Lane {
            number: self.made.fetch_add(1, Ordering::Relaxed),
            slots: Arc::new(Semaphore::new(config.sessions_for(&target.next_hop))),
            idle: Mutex::default(),
            ended: AtomicBool::new(false),
            failed: Mutex::default(),
        });
        if self.closed.load(Ordering::Acquire) {
            lane.slots.close();
        }
        lanes.insert(key, Arc::clone(&lane));
        lane
    }
}

fn in_order(lanes: &HashMap<Key, Arc<Lane>>) -> Vec<Arc<Lane>> {
    let mut lanes: Vec<_> = lanes.values().cloned().collect();
    lanes.sort_by_key(|lane| lane.number);
    lanes
}

impl Lane {
    fn end(&self) -> Vec<Box<Link>> {
        let mut idle = self.idle.lock();
        self.ended.store(true, Ordering::Release);
        std::mem::take(&mut *idle)
    }

    /// The oldest stand first: a session that comes back is put at the end, and taken from there.
    fn take_older(&self, now: Instant, keep: Duration) -> Vec<Box<Link>> {
        let mut idle = self.idle.lock();
        let fresh = idle.partition_point(|link| now.saturating_duration_since(link.idle_since) >= keep);
        idle.drain(..fresh).collect()
    }
}

impl Slot {
    /// Lets the session rest, and the next one take its turn. Gives it back where no session rests any more.
    pub(crate) fn give_back(self, link: Box<Link>) -> Option<Box<Link>> {
        *self.lane.failed.lock() = None;
        let mut idle = self.lane.idle.lock();
        if self.lane.ended.load(Ordering::Acquire) {
            return Some(link);
        }
        idle.push(link);
        None
    }

    /// Tells those who wait that no session can be opened.
    pub(crate) fn fail(self, trouble: &Trouble) {
        *self.lane.failed.lock() = Some((monotonic(), trouble.clone()));
    }

    fn take_idle(&self) -> Option<Box<Link>> {
        self.lane.idle.lock().pop()
    }
}
