//! The connection pool: idle sessions with next hops, and the limit on how many sessions each next hop has at once.
//!
//! Each target has a pool of its own: the same next hop with the same TLS policy, the same source address and the same
//! credentials, under one configuration. So a delivery that demands more never gets a session that was opened for less,
//! or that has authenticated with other credentials.
//!
//! A delivery waits for a permit (there is one for each session that the configuration allows with that next hop), and
//! takes the session that was used last, or opens one. If opening fails, the deliveries that waited meanwhile share the
//! failure instead of trying one after the other.

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
use crate::connect_failure::ConnectFailure;
use crate::connection::ClientConnection;
use crate::plan::HopTarget;

/// The pools of all targets.
#[derive(Default)]
pub(crate) struct SessionPool {
    hop_pools: Mutex<HashMap<PoolKey, Arc<HopPool>>>,
    /// Pools made so far.
    made: AtomicU64,
    closed: AtomicBool,
}

/// An attempt that began under an old configuration opens sessions by that configuration, and a reload may have
/// tightened it since: so the configuration is part of the key.
#[derive(Clone, PartialEq, Eq, Hash)]
struct PoolKey {
    config: ConfigIdentity,
    target: HopTarget,
}

/// A configuration, compared by its address, which no other gets while this one is held.
#[derive(Clone)]
struct ConfigIdentity(Arc<Config>);

impl PartialEq for ConfigIdentity {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for ConfigIdentity {}

impl Hash for ConfigIdentity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

/// The pool of one target.
struct HopPool {
    /// Counted from the first. Sessions are ended in this order, so that a run can be repeated.
    number: u64,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Box<ClientConnection>>>,
    /// Whether the pool is closed and takes no session back.
    ended: AtomicBool,
    /// The last failure to open a session, and when.
    failed: Mutex<Option<(Instant, ConnectFailure)>>,
}

/// Permission to have one session with a target.
pub(crate) struct SessionPermit {
    hop_pool: Arc<HopPool>,
    _permit: OwnedSemaphorePermit,
}

/// The result of waiting for a permit.
pub(crate) enum Acquired {
    /// An idle session, to be used for the delivery.
    Reuse(SessionPermit, Box<ClientConnection>),
    /// There is no idle session: open one.
    Open(SessionPermit),
    /// Another delivery failed to open one while this one waited.
    Failed(ConnectFailure),
    /// The pool is closed, since outbound is draining.
    Closed,
}

impl SessionPool {
    /// Waits for a permit, and takes an idle session that is still alive, if there is one.
    pub(crate) async fn acquire(&self, target: &HopTarget, config: &Arc<Config>) -> Acquired {
        let asked = monotonic();
        let hop_pool = self.hop_pool(target, config);
        let Ok(permit) = Arc::clone(&hop_pool.permits).acquire_owned().await else {
            return Acquired::Closed;
        };
        let permit = SessionPermit { hop_pool, _permit: permit };
        // An idle session can be used even if opening another one failed.
        while let Some(mut connection) = permit.take_idle() {
            if connection.is_alive() {
                return Acquired::Reuse(permit, connection);
            }
        }
        let failed = permit.hop_pool.failed.lock().clone().filter(|(at, _)| *at >= asked);
        failed.map_or_else(|| Acquired::Open(permit), |(_, failure)| Acquired::Failed(failure))
    }

    /// The number of idle sessions.
    pub(crate) fn idle_count(&self) -> usize {
        self.hop_pools.lock().values().map(|hop_pool| hop_pool.idle.lock().len()).sum()
    }

    /// Takes out the sessions that have been idle for `limit` or longer, and drops pools that are not in use.
    pub(crate) fn take_expired(&self, now: Instant, limit: Duration) -> Vec<Box<ClientConnection>> {
        let mut hop_pools = self.hop_pools.lock();
        let old = in_order(&hop_pools).iter().flat_map(|hop_pool| hop_pool.take_older(now, limit)).collect();
        hop_pools.retain(|_, hop_pool| Arc::strong_count(hop_pool) > 1 || !hop_pool.idle.lock().is_empty());
        old
    }

    /// Closes the pool: gives no more permits, neither to waiting deliveries nor to later ones.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        in_order(&self.hop_pools.lock()).iter().for_each(|hop_pool| hop_pool.permits.close());
    }

    /// Starts over under a changed configuration: takes out all idle sessions. Those in use are handed out by
    /// [`SessionPermit::give_back`].
    pub(crate) fn take_all(&self) -> Vec<Box<ClientConnection>> {
        let old = std::mem::take(&mut *self.hop_pools.lock());
        in_order(&old).iter().flat_map(|hop_pool| hop_pool.end()).collect()
    }

    fn hop_pool(&self, target: &HopTarget, config: &Arc<Config>) -> Arc<HopPool> {
        let key = PoolKey { config: ConfigIdentity(Arc::clone(config)), target: target.clone() };
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

fn in_order(hop_pools: &HashMap<PoolKey, Arc<HopPool>>) -> Vec<Arc<HopPool>> {
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

    /// The oldest come first: a session is put back at the end, and taken from there.
    fn take_older(&self, now: Instant, limit: Duration) -> Vec<Box<ClientConnection>> {
        let mut idle = self.idle.lock();
        let age = |connection: &ClientConnection| now.saturating_duration_since(connection.idle_since);
        let old = idle.partition_point(|connection| age(connection) >= limit);
        idle.drain(..old).collect()
    }
}

impl SessionPermit {
    /// Puts the session into the pool and gives the permit to the next delivery. Returns the session if the pool is
    /// closed.
    pub(crate) fn give_back(self, connection: Box<ClientConnection>) -> Option<Box<ClientConnection>> {
        *self.hop_pool.failed.lock() = None;
        let mut idle = self.hop_pool.idle.lock();
        if self.hop_pool.ended.load(Ordering::Acquire) {
            return Some(connection);
        }
        idle.push(connection);
        None
    }

    /// Shares the failure with the deliveries that wait for this target.
    pub(crate) fn fail(self, failure: &ConnectFailure) {
        *self.hop_pool.failed.lock() = Some((monotonic(), failure.clone()));
    }

    fn take_idle(&self) -> Option<Box<ClientConnection>> {
        self.hop_pool.idle.lock().pop()
    }
}
