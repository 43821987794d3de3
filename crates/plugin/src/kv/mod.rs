//! Key-value store of a plugin: values with a lifetime, counters and token buckets, shared by all instances and
//! generations of the plugin.
//!
//! The store is in memory. If a folder is configured, it is saved there periodically and at shutdown, so that it
//! survives a restart; a crash loses the changes of the last minute. Its data (greylists, rate limits, caches) can be
//! rebuilt, and a lost write never loses mail. The size is limited per plugin: a plugin that reaches its limit gets an
//! error, and values of other plugins are not evicted. The clock is a parameter.

pub(crate) mod bucket;
pub(crate) mod folder;
pub(crate) mod saved;
mod shelf;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use bucket::{TokenBucket, TokensRefused};
use parking_lot::Mutex;
use saved::Clocks;
pub(crate) use shelf::KvError;
use shelf::{OVERHEAD, PARTS, Shelf, StoredCounter, check_key, check_value, expiry};

/// The store of one plugin.
pub(crate) struct KvStore {
    limit: usize,
    shelf: Mutex<Shelf>,
    file: Option<PathBuf>,
    /// Why the file could not be read; `None` once it is renamed, or if it was readable.
    damaged: Mutex<Option<String>>,
}

/// A value and its version.
type StoredVersion = (Vec<u8>, u64);

impl KvStore {
    /// Opens a store of at most `limit` octets with the contents of the file, if it exists and can be read. Does not
    /// change anything on disk.
    pub(crate) fn open(limit: usize, file: Option<PathBuf>, clocks: Clocks) -> Self {
        let loaded = file.as_deref().map_or_else(|| Ok(Shelf::default()), |path| saved::load(path, clocks));
        let (shelf, damaged) = match loaded {
            Ok(shelf) => (shelf, None),
            Err(why) => (Shelf::default(), Some(why)),
        };
        Self { limit, shelf: Mutex::new(shelf), file, damaged: Mutex::new(damaged) }
    }

    /// Renames a file that could not be read, and logs it. Must be called before the first save, which would overwrite
    /// the file.
    pub(crate) fn put_damaged_aside(&self) {
        let damaged = self.damaged.lock().take();
        if let Some((path, why)) = self.file.as_deref().zip(damaged) {
            let aside = saved::put_aside(path);
            tracing::error!(
                target: "pintle::plugin",
                path = %path.display(), aside = %aside.display(),
                "stored values of a plugin cannot be read; starting with an empty store: {why}"
            );
        }
    }

    /// A store with a copy of another store's file, if it can be read. It is never saved.
    pub(crate) fn copy(limit: usize, file: Option<&Path>, clocks: Clocks) -> Self {
        let shelf = file.and_then(|path| {
            let loaded = saved::load(path, clocks);
            let tell = |why: &String| {
                tracing::warn!(
                    target: "pintle::plugin",
                    path = %path.display(), "stored values of a plugin cannot be read; continuing without them: {why}"
                );
            };
            loaded.inspect_err(tell).ok()
        });
        Self { limit, shelf: Mutex::new(shelf.unwrap_or_default()), file: None, damaged: Mutex::default() }
    }

    /// Saves the store if it has a file and has changed; returns whether it was saved. Blocks on disk I/O.
    pub(crate) fn save(&self, clocks: Clocks) -> io::Result<bool> {
        let Some(file) = &self.file else {
            return Ok(false);
        };
        // Cleared before the scan: a change during the scan may miss this save, and then belongs to the next one.
        if !std::mem::take(&mut self.shelf.lock().unsaved) {
            return Ok(false);
        }
        let replaced = saved::replace(file, &saved::written(&self.shelf, clocks));
        if replaced.is_err() {
            self.shelf.lock().unsaved = true;
        }
        replaced.map(|()| true)
    }

    /// The values of these keys, each with its version; at most `most` octets together.
    pub(crate) fn get_many(
        &self,
        keys: &[String],
        most: usize,
        now: Instant,
    ) -> Result<Vec<Option<StoredVersion>>, KvError> {
        let shelf = self.shelf.lock();
        let mut room = most;
        let mut read = |key: &String| {
            let found = shelf.part(key).entries.get(key).filter(|entry| entry.lives(now));
            let Some(entry) = found else { return Ok(None) };
            room = room.checked_sub(entry.value.len()).ok_or(KvError::Answer(most))?;
            Ok(Some((entry.value.clone(), entry.version)))
        };
        keys.iter().map(&mut read).collect()
    }

    /// Writes a value, whatever its current version.
    pub(crate) fn set(
        &self,
        key: String,
        value: Vec<u8>,
        ttl: Option<u32>,
        now: Instant,
    ) -> Result<(), KvError> {
        check_value(&value)?;
        let mut shelf = self.shelf.lock();
        shelf.put(self.limit, key, value, expiry(ttl, now), now)
    }

    /// Compare-and-swap: writes a value if the current version is `expected` (0 means absent); returns whether it was.
    pub(crate) fn swap(
        &self,
        key: String,
        value: Vec<u8>,
        ttl: Option<u32>,
        expected: u64,
        now: Instant,
    ) -> Result<bool, KvError> {
        check_value(&value)?;
        let mut shelf = self.shelf.lock();
        let found = shelf.part(&key).entries.get(&key).filter(|entry| entry.lives(now));
        if found.map_or(0, |entry| entry.version) != expected {
            return Ok(false);
        }
        shelf.put(self.limit, key, value, expiry(ttl, now), now)?;
        Ok(true)
    }

    /// Removes the value, the counter and the bucket of this key.
    pub(crate) fn remove(&self, key: &str) {
        let mut shelf = self.shelf.lock();
        shelf.unsaved = true;
        shelf.remove_all(key);
    }

    /// Adds to a counter and returns its value. A new counter starts at 0, and its lifetime starts with it.
    pub(crate) fn increment(
        &self,
        key: String,
        by: i64,
        ttl: Option<u32>,
        now: Instant,
    ) -> Result<i64, KvError> {
        check_key(&key)?;
        let mut shelf = self.shelf.lock();
        let before = shelf.part(&key).counters.get(&key).copied();
        if before.is_none() {
            shelf.make_room(self.limit, key.len() + OVERHEAD, now)?;
            shelf.octets += key.len() + OVERHEAD;
        }
        let counter = match before.filter(|counter| counter.lives(now)) {
            None => StoredCounter { count: by, expires: expiry(ttl, now) },
            Some(counter) => StoredCounter { count: counter.count.saturating_add(by), ..counter },
        };
        shelf.unsaved = true;
        shelf.part_mut(&key).counters.insert(key, counter);
        Ok(counter.count)
    }

    /// The values of these counters; 0 for one that does not exist.
    pub(crate) fn count_many(&self, keys: &[String], now: Instant) -> Vec<i64> {
        let shelf = self.shelf.lock();
        let counter = |key: &String| shelf.part(key).counters.get(key).filter(|counter| counter.lives(now));
        keys.iter().map(|key| counter(key).map_or(0, |counter| counter.count)).collect()
    }

    /// Takes tokens from a bucket, which is initially full; returns how many are left, or how long to wait.
    pub(crate) fn take(
        &self,
        key: String,
        tokens: u32,
        capacity: u32,
        per_second: f64,
        now: Instant,
    ) -> Result<Result<f64, TokensRefused>, KvError> {
        check_key(&key)?;
        let mut shelf = self.shelf.lock();
        if !shelf.part(&key).buckets.contains_key(&key) {
            shelf.make_room(self.limit, key.len() + OVERHEAD, now)?;
            shelf.octets += key.len() + OVERHEAD;
        }
        shelf.unsaved = true;
        let buckets = &mut shelf.part_mut(&key).buckets;
        let bucket = buckets.entry(key).or_insert_with(|| TokenBucket::full(capacity, now));
        Ok(bucket.take(tokens, capacity, per_second, now))
    }

    /// Removes expired entries.
    pub(crate) fn sweep(&self, now: Instant) {
        for part in 0..PARTS {
            let mut shelf = self.shelf.lock();
            let freed = shelf.parts[part].sweep(now);
            shelf.octets -= freed;
        }
    }
}

#[cfg(test)]
impl KvStore {
    fn new(limit: usize) -> Self {
        Self::open(limit, None, Clocks::read())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::shelf::{MAX_VALUE, SWEEP_AGAIN};
    use super::*;

    fn get(store: &KvStore, key: &str, now: Instant) -> Option<(Vec<u8>, u64)> {
        store.get_many(&[key.to_owned()], MAX_VALUE, now).unwrap().pop().unwrap()
    }

    /// One value requested a thousand times at once would take a quarter of a GiB.
    #[test]
    fn an_answer_is_bounded_however_often_a_key_is_named() {
        let (store, now) = (KvStore::new(1 << 20), Instant::now());
        store.set("a".into(), vec![0; MAX_VALUE], None, now).unwrap();
        let keys = vec!["a".to_owned(); 1_000];
        assert_eq!(store.get_many(&keys, 4 << 20, now).unwrap_err(), KvError::Answer(4 << 20));
        assert_eq!(store.get_many(&keys[..16], 4 << 20, now).unwrap().len(), 16);
    }

    #[test]
    fn a_copy_knows_what_was_stored_and_leaves_the_file_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (path, clocks) = (folder.path().join("grey.kv"), Clocks::read());
        let store = KvStore::open(10_000, Some(path.clone()), clocks);
        store.set("a".into(), b"1".to_vec(), None, clocks.now).unwrap();
        assert!(store.save(clocks).unwrap());
        let before = std::fs::read(&path).unwrap();
        let copy = KvStore::copy(10_000, Some(&path), clocks);
        assert_eq!(get(&copy, "a", clocks.now).unwrap().0, b"1");
        copy.set("a".into(), b"2".to_vec(), None, clocks.now).unwrap();
        assert!(!copy.save(clocks).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), before);
        std::fs::write(&path, b"damaged").unwrap();
        assert_eq!(get(&KvStore::copy(10_000, Some(&path), clocks), "a", clocks.now), None);
        assert!(path.exists(), "nothing is put aside that is another one's");
    }

    #[test]
    fn values_expire_and_versions_decide_races() {
        let (store, now) = (KvStore::new(10_000), Instant::now());
        store.set("a".into(), b"1".to_vec(), Some(10), now).unwrap();
        let (value, version) = get(&store, "a", now).unwrap();
        assert_eq!(value, b"1");
        assert_eq!(store.swap("a".into(), b"2".to_vec(), None, version + 1, now), Ok(false));
        assert_eq!(store.swap("b".into(), b"2".to_vec(), None, 0, now), Ok(true));
        let later = now + Duration::from_secs(10);
        assert_eq!(get(&store, "a", later), None);
        assert_eq!(store.swap("a".into(), b"3".to_vec(), None, 0, later), Ok(true), "expired is absent");
        store.remove("a");
        assert_eq!(get(&store, "a", later), None);
    }

    #[test]
    fn counters_keep_the_lifetime_they_began_with() {
        let (store, now) = (KvStore::new(10_000), Instant::now());
        assert_eq!(store.increment("n".into(), 2, Some(10), now), Ok(2));
        let soon = now + Duration::from_secs(9);
        assert_eq!(store.increment("n".into(), 3, Some(10), soon), Ok(5));
        assert_eq!(store.count_many(&["n".to_owned(), "m".to_owned()], soon), [5, 0]);
        let later = now + Duration::from_secs(11);
        assert_eq!(store.count_many(&["n".to_owned()], later), [0], "expired");
        assert_eq!(store.increment("n".into(), 1, Some(10), later), Ok(1));
        assert_eq!(store.increment(String::new(), 1, None, now), Err(KvError::Key));
    }

    #[test]
    fn values_and_counters_have_keys_of_their_own() {
        let (store, now) = (KvStore::new(10_000), Instant::now());
        store.set("k".into(), b"5".to_vec(), None, now).unwrap();
        assert_eq!(store.increment("k".into(), 1, Some(5), now), Ok(1));
        assert_eq!(get(&store, "k", now).unwrap().0, b"5");
        store.sweep(now + Duration::from_secs(6));
        assert_eq!(store.count_many(&["k".to_owned()], now), [0]);
        store.increment("k".into(), 1, None, now).unwrap();
        store.remove("k");
        assert_eq!(get(&store, "k", now), None);
        assert_eq!(store.count_many(&["k".to_owned()], now), [0]);
        assert_eq!(store.shelf.lock().octets, 0);
    }

    #[test]
    fn a_full_store_refuses_and_sweeps_what_has_expired() {
        let (store, now) = (KvStore::new(400), Instant::now());
        store.set("a".into(), vec![0; 150], Some(1), now).unwrap();
        assert_eq!(store.set("b".into(), vec![0; 150], None, now), Err(KvError::Full));
        let later = now + Duration::from_secs(2);
        store.set("b".into(), vec![0; 150], None, later).unwrap();
        store.remove("b");
        store.set("c".into(), vec![0; 290], None, later).unwrap();
        assert_eq!(store.set(String::new(), vec![], None, now), Err(KvError::Key));
        assert_eq!(store.set("d".into(), vec![0; MAX_VALUE + 1], None, now), Err(KvError::Value));
    }

    /// Otherwise every call of a plugin whose store is full would scan all of it.
    #[test]
    fn a_full_store_is_not_looked_through_at_every_write() {
        let (store, now) = (KvStore::new(400), Instant::now());
        store.set("a".into(), vec![0; 150], Some(10), now).unwrap();
        assert_eq!(store.set("b".into(), vec![0; 150], None, now), Err(KvError::Full));
        let soon = now + SWEEP_AGAIN / 2;
        store.set("a".into(), vec![0; 150], Some(0), soon).unwrap();
        assert_eq!(store.set("b".into(), vec![0; 150], None, soon), Err(KvError::Full));
        store.set("b".into(), vec![0; 150], None, now + SWEEP_AGAIN).unwrap();
    }

    #[test]
    fn buckets_refill_and_are_forgotten_when_full() {
        let (store, now) = (KvStore::new(10_000), Instant::now());
        let take = |tokens, now| store.take("k".into(), tokens, 2, 1.0, now).unwrap();
        assert_eq!(take(2, now), Ok(0.0));
        assert_eq!(take(1, now), Err(TokensRefused { left: 0.0, wait: Some(Duration::from_secs(1)) }));
        assert_eq!(take(1, now + Duration::from_secs(1)), Ok(0.0));
        assert_eq!(take(3, now).unwrap_err().wait, None, "more than it ever holds");
        store.sweep(now + Duration::from_secs(60));
        assert_eq!(store.shelf.lock().octets, 0);
    }
}
