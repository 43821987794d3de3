//! Remembers defects of hosts, for workarounds: TLS, BDAT or pipelining is not used for a while with a host at which it
//! failed, and a host that did not answer is tried after the others.
//!
//! The memory is bounded, and is lost at a restart.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::clock::monotonic;

/// The most entries. Domains can publish other exchangers for each look-up, so the number must be bounded.
const MAX_DEFECTS: usize = 100_000;

/// A defect of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum HostDefect {
    /// TLS fails at this address under this host name: opportunistic TLS falls back to plain text.
    NoTls,
    /// BDAT stalls or is refused: the body is sent by DATA.
    NoChunking,
    /// Pipelined commands get lost: commands go one at a time.
    NoPipelining,
    /// This address of a domain's exchanger did not answer, and kept others from being tried: they come before it.
    Unreachable,
}

/// The defects by kind and host, each with the time at which it is forgotten.
#[derive(Default)]
pub(crate) struct HostDefects(Mutex<HashMap<(HostDefect, String), Instant>>);

impl HostDefects {
    /// Whether `host` has this defect.
    pub(crate) fn knows(&self, defect: HostDefect, host: &str) -> bool {
        let defects = self.0.lock();
        !defects.is_empty()
            && defects.get(&(defect, host.to_owned())).is_some_and(|until| *until > monotonic())
    }

    /// Remembers the defect for `memory`, unless there is no room for a new entry.
    pub(crate) fn remember(&self, defect: HostDefect, host: &str, memory: Duration) {
        let (mut defects, key) = (self.0.lock(), (defect, host.to_owned()));
        if defects.len() < MAX_DEFECTS || defects.contains_key(&key) {
            defects.insert(key, monotonic() + memory);
        }
    }

    /// Forgets the defect. Returns whether it was known.
    pub(crate) fn forget(&self, defect: HostDefect, host: &str) -> bool {
        let mut defects = self.0.lock();
        !defects.is_empty() && defects.remove(&(defect, host.to_owned())).is_some()
    }

    /// Drops the entries whose time is over.
    pub(crate) fn forget_expired(&self, now: Instant) {
        self.0.lock().retain(|_, until| *until > now);
    }
}
