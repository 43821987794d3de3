//! In-memory contents of a store: values and buckets, with size accounting and the writes that enforce the limit.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use super::bucket::TokenBucket;

/// Maximum length of a key, in octets.
pub(crate) const MAX_KEY: usize = 1_024;
/// Maximum length of a value, in octets.
pub(crate) const MAX_VALUE: usize = 256 << 10;
/// Size charged per entry in addition to its key and value, in octets.
pub(super) const OVERHEAD: usize = 96;
/// Number of partitions of a store. A scan locks one at a time, so that a call waits for one partition at most.
pub(super) const PARTS: usize = 256;
/// Minimum interval between sweeps of a full store in which nothing had expired.
pub(super) const SWEEP_AGAIN: Duration = Duration::from_secs(1);

/// The contents of one store.
pub(super) struct Shelf {
    pub(super) parts: Box<[ShelfPart]>,
    hasher: RandomState,
    pub(super) octets: usize,
    pub(super) writes: u64,
    /// Whether anything has changed since the last save.
    pub(super) unsaved: bool,
    /// Time of the last sweep that a full store caused.
    swept: Option<Instant>,
}

/// The entries of one partition.
#[derive(Default)]
pub(super) struct ShelfPart {
    pub(super) entries: HashMap<String, StoredEntry>,
    pub(super) counters: HashMap<String, StoredCounter>,
    pub(super) buckets: HashMap<String, TokenBucket>,
}

/// A counter with its expiry.
#[derive(Clone, Copy)]
pub(super) struct StoredCounter {
    pub(super) count: i64,
    pub(super) expires: Option<Instant>,
}

/// A stored value, with its version and expiry.
#[derive(Clone)]
pub(super) struct StoredEntry {
    pub(super) value: Vec<u8>,
    pub(super) version: u64,
    pub(super) expires: Option<Instant>,
}

/// Why a write was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KvError {
    /// The key is empty or too long.
    Key,
    /// The value is too long.
    Value,
    /// The plugin's storage limit is reached.
    Full,
    /// The requested values together exceed this many octets.
    Answer(usize),
}

impl KvError {
    pub(crate) fn text(self) -> String {
        match self {
            Self::Key => format!("a key has 1 to {MAX_KEY} octets"),
            Self::Value => format!("a value has at most {MAX_VALUE} octets"),
            Self::Answer(most) => {
                format!("the values of one answer hold at most {most} octets: ask for fewer keys at once")
            }
            Self::Full => "the plugin's store is full".into(),
        }
    }
}

impl Default for Shelf {
    fn default() -> Self {
        Self {
            parts: (0..PARTS).map(|_| ShelfPart::default()).collect(),
            hasher: RandomState::new(),
            octets: 0,
            writes: 0,
            unsaved: false,
            swept: None,
        }
    }
}

impl Shelf {
    pub(super) fn part(&self, key: &str) -> &ShelfPart {
        &self.parts[self.part_of(key)]
    }

    pub(super) fn part_mut(&mut self, key: &str) -> &mut ShelfPart {
        let part = self.part_of(key);
        &mut self.parts[part]
    }

    fn part_of(&self, key: &str) -> usize {
        // Uses the most significant octet, because the inner maps use other bits of the hash.
        usize::from(self.hasher.hash_one(key).to_be_bytes()[0])
    }

    pub(super) fn put(
        &mut self,
        limit: usize,
        key: String,
        value: Vec<u8>,
        expires: Option<Instant>,
        now: Instant,
    ) -> Result<(), KvError> {
        check_key(&key)?;
        let old = self.part(&key).entries.get(&key).map_or(0, |entry| cost(&key, &entry.value));
        let new = cost(&key, &value);
        self.make_room(limit, new.saturating_sub(old), now)?;
        self.remove(&key);
        self.octets += new;
        self.writes += 1;
        self.unsaved = true;
        let version = self.writes;
        self.part_mut(&key).entries.insert(key, StoredEntry { value, version, expires });
        Ok(())
    }

    pub(super) fn make_room(&mut self, limit: usize, octets: usize, now: Instant) -> Result<(), KvError> {
        let swept_just_now = self.swept.is_some_and(|swept| now < swept + SWEEP_AGAIN);
        if self.octets + octets > limit && !swept_just_now {
            self.octets -= self.parts.iter_mut().map(|part| part.sweep(now)).sum::<usize>();
            self.swept = Some(now);
        }
        if self.octets + octets > limit {
            return Err(KvError::Full);
        }
        Ok(())
    }

    fn remove(&mut self, key: &str) {
        if let Some(entry) = self.part_mut(key).entries.remove(key) {
            self.octets -= cost(key, &entry.value);
        }
    }

    /// Removes the value, the counter and the bucket of this key.
    pub(super) fn remove_all(&mut self, key: &str) {
        self.remove(key);
        let part = self.part_mut(key);
        let others = [part.counters.remove(key).is_some(), part.buckets.remove(key).is_some()];
        let removed = others.into_iter().filter(|removed| *removed).count();
        self.octets -= removed * (key.len() + OVERHEAD);
    }
}

impl ShelfPart {
    /// Removes expired entries; returns the cost of the sweep in octets.
    pub(super) fn sweep(&mut self, now: Instant) -> usize {
        let mut freed = 0;
        self.entries.retain(|key, entry| {
            let keep = entry.lives(now);
            freed += if keep { 0 } else { cost(key, &entry.value) };
            keep
        });
        self.counters.retain(|key, counter| {
            let keep = counter.lives(now);
            freed += if keep { 0 } else { key.len() + OVERHEAD };
            keep
        });
        self.buckets.retain(|key, bucket| {
            let keep = !bucket.is_idle(now);
            freed += if keep { 0 } else { key.len() + OVERHEAD };
            keep
        });
        freed
    }
}

impl StoredEntry {
    pub(super) fn lives(&self, now: Instant) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

impl StoredCounter {
    pub(super) fn lives(&self, now: Instant) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

pub(super) fn cost(key: &str, value: &[u8]) -> usize {
    key.len() + value.len() + OVERHEAD
}

pub(super) fn check_key(key: &str) -> Result<(), KvError> {
    if key.is_empty() || key.len() > MAX_KEY {
        return Err(KvError::Key);
    }
    Ok(())
}

pub(super) fn check_value(value: &[u8]) -> Result<(), KvError> {
    if value.len() > MAX_VALUE {
        return Err(KvError::Value);
    }
    Ok(())
}

pub(super) fn expiry(ttl: Option<u32>, now: Instant) -> Option<Instant> {
    ttl.map(|seconds| now + Duration::from_secs(seconds.into()))
}
