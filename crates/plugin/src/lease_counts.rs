//! The counts of a plugin's leases by key: how many sessions, transactions or delivery attempts hold one now.
//!
//! A count goes up when a lease is taken and down when its guard is dropped, wherever that happens. Keys without a lease
//! use no memory.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// Maximum number of keys of one plugin under which something is counted.
pub(crate) const MAX_KEYS: usize = 100_000;

/// The counts of one plugin, shared by its instances and generations.
#[derive(Default)]
pub(crate) struct LeaseCounts(Mutex<HashMap<Arc<str>, u32>>);

/// One of a key's leases; dropping it takes the count back.
pub(crate) struct LeaseGuard {
    counts: Arc<LeaseCounts>,
    key: Arc<str>,
}

/// The limit on the number of keys has been reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooManyKeys;

impl LeaseCounts {
    /// Takes a lease and returns the count with it; `None` if the count would exceed `max`.
    pub(crate) fn take(
        self: &Arc<Self>,
        key: &Arc<str>,
        max: u32,
    ) -> Result<Option<(u32, LeaseGuard)>, TooManyKeys> {
        let mut counts = self.0.lock();
        let before = counts.get(key).copied().unwrap_or(0);
        if before >= max {
            return Ok(None);
        }
        if before == 0 && counts.len() >= MAX_KEYS {
            return Err(TooManyKeys);
        }
        counts.insert(Arc::clone(key), before + 1);
        Ok(Some((before + 1, LeaseGuard { counts: Arc::clone(self), key: Arc::clone(key) })))
    }

    /// The number of leases under this key.
    pub(crate) fn count(&self, key: &str) -> u32 {
        self.0.lock().get(key).copied().unwrap_or(0)
    }
}

impl Drop for LeaseGuard {
    fn drop(&mut self) {
        let mut counts = self.counts.0.lock();
        match counts.get_mut(&self.key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                counts.remove(&self.key);
                // After a burst of clients the table would stay as large as it was.
                if counts.len() < counts.capacity() / 8 {
                    counts.shrink_to_fit();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(key: &str) -> Arc<str> {
        Arc::from(key)
    }

    #[test]
    fn a_count_follows_its_guards() {
        let counts = Arc::new(LeaseCounts::default());
        let take = |max| counts.take(&key("a"), max).unwrap();
        let (one, first) = take(2).unwrap();
        let (two, second) = take(2).unwrap();
        assert_eq!((one, two, take(2).is_none(), counts.count("a")), (1, 2, true, 2));
        drop(first);
        assert_eq!(counts.count("a"), 1);
        assert_eq!(take(2).map(|(count, _)| count), Some(2));
        drop(second);
        assert_eq!((counts.count("a"), counts.0.lock().len()), (0, 0), "nothing is left of the key");
        assert!(take(0).is_none());
    }

    #[test]
    fn keys_are_bounded_and_become_free_again() {
        let counts = Arc::new(LeaseCounts::default());
        let mut guards: Vec<_> =
            (0..MAX_KEYS).map(|n| counts.take(&key(&n.to_string()), 1).unwrap().unwrap().1).collect();
        assert_eq!(counts.take(&key("more"), 1).err(), Some(TooManyKeys));
        assert!(counts.take(&key("7"), 2).unwrap().is_some(), "a key that is counted already");
        guards.pop();
        assert!(counts.take(&key("more"), 1).unwrap().is_some());
    }
}
