//! What surrounds the gateway in a run, and outlives it: time, next hops, the ledger, and the trace of what happened.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::hop::{Hop, Kind};
use crate::ledger::Ledger;
use crate::random::Random;
use crate::time::Time;

/// A domain whose mail is dropped on purpose.
pub const NOWHERE: &str = "nowhere.example";
/// Domains to which messages are sent.
pub const DOMAINS: [&str; 5] = ["one.example", "store.example", "mx.example", "fickle.example", NOWHERE];

/// What surrounds the gateway.
pub struct World {
    pub seed: u64,
    pub time: Time,
    pub hops: BTreeMap<IpAddr, Arc<Hop>>,
    /// The disk has failed in a way that ends the life of the gateway.
    pub crash: Notify,
    /// What is wrong on purpose, to see that the laws notice it.
    pub sabotage: Option<Sabotage>,
    healthy: AtomicBool,
    ledger: Mutex<Ledger>,
    chance: Mutex<Random>,
    trace: Mutex<String>,
}

/// Faults that no gateway of ours may have; a run with one of them must break a law.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// Bodies are read with one octet changed.
    FlipsOctets,
    /// What has been settled is not, though the spool says so.
    ForgetsSettlements,
    /// Reports get lost on their way into the spool.
    LosesReports,
    /// Held messages look as if nothing held them.
    IgnoresHolds,
    /// The first message of the spool is gone after a restart.
    LosesMessages,
    /// At a start, messages look older than any may be.
    AgesMessages,
    /// At a start, recipients look as if they were in no group.
    ForgetsGroups,
}

impl World {
    pub fn new(seed: u64, sabotage: Option<Sabotage>) -> Arc<Self> {
        let mut random = Random::of(seed, "hops");
        let hops = [
            (1, 1, "one-a", false),
            (1, 2, "one-b", false),
            (2, 1, "store", true),
            (3, 1, "mx-a", false),
            (3, 2, "mx-b", false),
            (4, 1, "fickle", false),
            (5, 1, "home", false),
            (6, 1, "other", false),
        ];
        let hops = hops.map(|(net, host, name, lmtp)| {
            let kind = Kind::drawn(&mut random, lmtp);
            (address(net, host), Arc::new(Hop::new(name, kind)))
        });
        Arc::new(Self {
            seed,
            time: Time::default(),
            hops: hops.into(),
            crash: Notify::new(),
            sabotage,
            healthy: AtomicBool::new(false),
            ledger: Mutex::default(),
            chance: Mutex::new(Random::of(seed, "world")),
            trace: Mutex::default(),
        })
    }

    /// Looks into the ledger, or writes into it.
    pub fn ledger<T>(&self, act: impl FnOnce(&mut Ledger) -> T) -> T {
        let mut ledger = self.ledger.lock();
        ledger.now = self.time.passed();
        act(&mut ledger)
    }

    /// Draws from the run's chance.
    pub fn draw<T>(&self, draw: impl FnOnce(&mut Random) -> T) -> T {
        draw(&mut self.chance.lock())
    }

    /// Notes what happened.
    pub fn tell(&self, what: impl FnOnce() -> String) {
        let at = self.time.passed();
        // Writing to a string cannot fail.
        let _ = writeln!(self.trace.lock(), "{:>10.3} {}", at.as_secs_f64(), what());
    }

    /// All that happened.
    pub fn trace(&self) -> String {
        self.trace.lock().clone()
    }

    /// From now on, nothing outside the gateway goes wrong.
    pub fn heal(&self) {
        self.healthy.store(true, Ordering::Relaxed);
    }

    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }
}

/// The address of a host; nothing is ever sent to it.
pub fn address(net: u8, host: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(11, 0, net, host))
}
