//! The connection pool: idle sessions with next hops, and how many sessions there may be, by target.
//!
//! Each target has a pool of its own: the same next hop with the same demand of TLS, the same source and the same
//! credentials, under one configuration. So a session that was opened for less, or that has authenticated as somebody else,
//! is never met by a delivery that demands more.
//!
//! Whoever wants to deliver waits for a permit, of which there are as many as the configuration allows sessions to that next
//! hop, and takes the session that was used last, or opens one. When opening failed, those who were waiting meanwhile share
//! that answer instead of finding it out one after the other.

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
use crate::connect::ConnectFailure;
use crate::connection::ClientConnection;
use crate::plan::Target;

/// Addresses that are remembered for something. Strangers say where their exchangers are, and may say it anew each time.
const QUIRKS: usize = 100_000;

/// All pools, by target.
#[derive(Default)]
pub(crate) struct Pool {
    hop_pools: Mutex<HashMap<Key, Arc<HopPool>>>,
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

/// Which hop_pool: an attempt that began under an old configuration opens sessions as that one says, and a reload may have
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

struct HopPool {
    /// Counted from the first. Sessions are ended in this order, so that a run can be repeated.
    number: u64,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Box<ClientConnection>>>,
    /// No session rests here any more.
    ended: AtomicBool,
    failed: Mutex<Option<(Instant, ConnectFailure)>>,
}

/// Permission to have one session with a target.
pub(crate) struct SessionPermit {
    hop_pool: Arc<HopPool>,
    _permit: OwnedSemaphorePermit,
}

/// What waiting for a permit came to.
pub(crate) enum Acquired {
    /// Use this session.
    Reuse(SessionPermit, Box<ClientConnection>),
    /// Open one.
    Open(SessionPermit),
    /// Opening one failed while we waited.
    Failed(ConnectFailure),
    /// Nothing is begun any more.
    Closed,
}

impl Pool {
    /// Waits for a permit, of which there are as many as the configuration gives the next hop.
    pub(crate) async fn turn(&self, target: &Target, config: &Arc<Config>) -> Acquired {
        let asked = monotonic();
        let hop_pool = self.hop_pool(target, config);
        let Ok(permit) = Arc::clone(&hop_pool.permits).acquire_owned().await else {
            return Acquired::Closed;
        };
        let slot = SessionPermit { hop_pool, _permit: permit };
        // A session at rest is worth more than the news that another could not be opened.
        while let Some(mut link) = slot.take_idle() {
            if link.is_alive() {
                return Acquired::Reuse(slot, link);
            }
        }
        let failed = slot.hop_pool.failed.lock().clone();
        if let Some((at, trouble)) = failed
            && at >= asked
        {
            return Acquired::Failed(trouble);
        }
        Acquired::Open(slot)
    }

    /// How many sessions rest.
    pub(crate) fn idle(&self) -> usize {
        self.hop_pools.lock().values().map(|hop_pool| hop_pool.idle.lock().len()).sum()
    }

    /// Takes out the sessions that have rested longer than `keep`, and forgets hop_pools that nobody uses.
    pub(crate) fn expired(&self, now: Instant, keep: Duration) -> Vec<Box<ClientConnection>> {
        let mut hop_pools = self.hop_pools.lock();
        let old = in_order(&hop_pools).iter().flat_map(|hop_pool| hop_pool.take_older(now, keep)).collect();
        hop_pools.retain(|_, hop_pool| Arc::strong_count(hop_pool) > 1 || !hop_pool.idle.lock().is_empty());
        self.quirks.lock().retain(|_, until| *until > now);
        old
    }

    /// Sends everybody away who waits, now and later.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        in_order(&self.hop_pools.lock()).iter().for_each(|hop_pool| hop_pool.permits.close());
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
    pub(crate) fn renew(&self) -> Vec<Box<ClientConnection>> {
        let old = std::mem::take(&mut *self.hop_pools.lock());
        in_order(&old).iter().flat_map(|hop_pool| hop_pool.end()).collect()
    }

    fn hop_pool(&self, target: &Target, config: &Arc<Config>) -> Arc<HopPool> {
        let key = Key { config: Held(Arc::clone(config)), target: target.clone() };
        let mut hop_pools = self.hop_pools.lock();
        if let Some(hop_pool) = hop_pools.get(&key) {
            return Arc::clone(hop_pool);
        }
        let hop_pool = Arc::new(HopPool {
            number: self.made.fetch_add(1, Ordering::Relaxed),
            permits: Arc::new(Semaphore::new(config.sessions_for(&target.next_hop))),
            idle: Mutex::default(),
            ended: AtomicBool::new(false),
            failed: Mutex::default(),
        });
        if self.closed.load(Ordering::Acquire) {
            hop_pool.permits.close();
        }
        hop_pools.insert(key, Arc::clone(&hop_pool));
        hop_pool
    }
}

fn in_order(hop_pools: &HashMap<Key, Arc<HopPool>>) -> Vec<Arc<HopPool>> {
    let mut hop_pools: Vec<_> = hop_pools.values().cloned().collect();
    hop_pools.sort_by_key(|hop_pool| hop_pool.number);
    hop_pools
}

impl HopPool {
    fn end(&self) -> Vec<Box<ClientConnection>> {
        let mut idle = self.idle.lock();
        self.ended.store(true, Ordering::Release);
        std::mem::take(&mut *idle)
    }

    /// The oldest stand first: a session that comes back is put at the end, and taken from there.
    fn take_older(&self, now: Instant, keep: Duration) -> Vec<Box<ClientConnection>> {
        let mut idle = self.idle.lock();
        let fresh = idle.partition_point(|link| now.saturating_duration_since(link.idle_since) >= keep);
        idle.drain(..fresh).collect()
    }
}

impl SessionPermit {
    /// Lets the session rest, and the next one take its turn. Gives it back where no session rests any more.
    pub(crate) fn give_back(self, link: Box<ClientConnection>) -> Option<Box<ClientConnection>> {
        *self.hop_pool.failed.lock() = None;
        let mut idle = self.hop_pool.idle.lock();
        if self.hop_pool.ended.load(Ordering::Acquire) {
            return Some(link);
        }
        idle.push(link);
        None
    }

    /// Tells those who wait that no session can be opened.
    pub(crate) fn fail(self, trouble: &ConnectFailure) {
        *self.hop_pool.failed.lock() = Some((monotonic(), trouble.clone()));
    }

    fn take_idle(&self) -> Option<Box<ClientConnection>> {
        self.hop_pool.idle.lock().pop()
    }
}
