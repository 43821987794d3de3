//! A plugin's store on disk, so that a restart does not make every sender a stranger again.
//!
//! A file for each plugin, written as a whole beside the old one and then put in its place: a crash costs what came after
//! the last saving, and never the file. What cannot be read is told and begun anew; nothing in it is worth a gateway that
//! does not start. Times are those of the wall clock, since no other survives a restart.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::bucket::{Bucket, Still};
use super::{Entry, Shelf, Value, cost};

/// The first octets: what this is, and in which form.
const MAGIC: &[u8] = b"pintle-kv 1\n";

/// Where a plugin's store is kept.
#[must_use]
pub(crate) fn path(folder: &Path, plugin: &str) -> PathBuf {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let name: String = plugin
        .bytes()
        .map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02x}") })
        .collect();
    folder.join(format!("{name}.kv"))
}

/// The two clocks at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clocks {
    pub(crate) now: Instant,
    pub(crate) wall: SystemTime,
}

impl Clocks {
    pub(crate) fn read() -> Self {
        Self { now: Instant::now(), wall: SystemTime::now() }
    }

    fn wall_of(self, at: Instant) -> u64 {
        let wall = match at.checked_duration_since(self.now) {
            Some(ahead) => self.wall + ahead,
            None => self.wall - self.now.duration_since(at),
        };
        wall.duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// None for a moment that is so long ago that this machine's other clock cannot say it.
    fn instant_of(self, millis: u64) -> Option<Instant> {
        let at = UNIX_EPOCH.checked_add(Duration::from_millis(millis))?;
        match at.duration_since(self.wall) {
            Ok(ahead) => self.now.checked_add(ahead),
            Err(behind) => self.now.checked_sub(behind.duration()),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Saved {
    entries: Vec<SavedEntry>,
    buckets: Vec<SavedBucket>,
    writes: u64,
}

#[derive(Serialize, Deserialize)]
struct SavedEntry {
    key: String,
    value: SavedValue,
    version: u64,
    expires: Option<u64>,
}

#[derive(Serialize, Deserialize)]
enum SavedValue {
    Octets(Vec<u8>),
    Counter(i64),
}

#[derive(Serialize, Deserialize)]
struct SavedBucket {
    key: String,
    tokens: f64,
    seen: u64,
    full: u64,
}

impl Shelf {
    /// All that still counts, for [`Shelf::read`].
    pub(super) fn written(&self, clocks: Clocks) -> Vec<u8> {
        let entries = self.entries.iter().filter(|(_, entry)| entry.lives(clocks.now));
        let buckets = self.buckets.iter().filter(|(_, bucket)| !bucket.is_idle(clocks.now));
        let saved = Saved {
            entries: entries.map(|(key, entry)| saved_entry(key, entry, clocks)).collect(),
            buckets: buckets.map(|(key, bucket)| saved_bucket(key, bucket, clocks)).collect(),
            writes: self.writes,
        };
        // Numbers, texts and lists: there is nothing in it that could not be written.
        let body = postcard::to_allocvec(&saved).unwrap_or_default();
        let sum = crc32fast::hash(&body).to_be_bytes();
        [MAGIC, &sum, &body].concat()
    }

    /// What [`Shelf::written`] gave; none when it is something else, or damaged.
    pub(super) fn read(file: &[u8], clocks: Clocks) -> Option<Self> {
        let (sum, body) = file.strip_prefix(MAGIC)?.split_first_chunk()?;
        if u32::from_be_bytes(*sum) != crc32fast::hash(body) {
            return None;
        }
        let saved: Saved = postcard::from_bytes(body).ok()?;
        let mut shelf = Self { writes: saved.writes, ..Self::default() };
        for entry in saved.entries {
            shelf.take_back(entry, clocks);
        }
        for bucket in saved.buckets {
            let (Some(seen), Some(full)) = (clocks.instant_of(bucket.seen), clocks.instant_of(bucket.full))
            else {
                continue;
            };
            shelf.octets += bucket.key.len() + super::OVERHEAD;
            shelf.buckets.insert(bucket.key, Bucket::of(Still { tokens: bucket.tokens, seen, full }));
        }
        Some(shelf)
    }

    fn take_back(&mut self, saved: SavedEntry, clocks: Clocks) {
        let expires = match saved.expires.map(|at| clocks.instant_of(at)) {
            None => None,
            Some(Some(at)) if at > clocks.now => Some(at),
            Some(_) => return,
        };
        let value = match saved.value {
            SavedValue::Octets(octets) => Value::Octets(octets),
            SavedValue::Counter(count) => Value::Counter(count),
        };
        self.octets += cost(&saved.key, &value);
        self.entries.insert(saved.key, Entry { value, version: saved.version, expires });
    }
}

fn saved_entry(key: &str, entry: &Entry, clocks: Clocks) -> SavedEntry {
    SavedEntry {
        key: key.to_owned(),
        value: match &entry.value {
            Value::Octets(octets) => SavedValue::Octets(octets.clone()),
            Value::Counter(count) => SavedValue::Counter(*count),
        },
        version: entry.version,
        expires: entry.expires.map(|at| clocks.wall_of(at)),
    }
}

fn saved_bucket(key: &str, bucket: &Bucket, clocks: Clocks) -> SavedBucket {
    let Still { tokens, seen, full } = bucket.still();
    SavedBucket { key: key.to_owned(), tokens, seen: clocks.wall_of(seen), full: clocks.wall_of(full) }
}

/// Puts the octets in the place of the file.
pub(super) fn replace(path: &Path, octets: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = fs::File::create(&new)?;
    file.write_all(octets)?;
    file.sync_data()?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::Store;

    #[test]
    fn a_store_outlives_its_process() {
        let folder = tempfile::tempdir().unwrap();
        let file = path(folder.path(), "grey list/1");
        assert_eq!(file.file_name().unwrap(), "grey%20list%2f1.kv");
        let start = Clocks::read();
        let store = Store::open(10_000, Some(file.clone()), start);
        store.set("short".into(), b"1".to_vec(), Some(10), start.now).unwrap();
        store.set("long".into(), b"2".to_vec(), None, start.now).unwrap();
        store.increment("count".into(), 7, Some(1_000), start.now).unwrap();
        let _ = store.take("bucket".into(), 5, 10, 0.01, start.now).unwrap();
        let version = store.get_many(&["long".into()], start.now)[0].clone().unwrap().1;
        assert!(store.save(start).unwrap(), "there is something to save");
        assert!(!store.save(start).unwrap(), "and then no more");

        // Another process: its clock that only goes forward began anew, the wall clock went on.
        let later = Clocks { now: start.now, wall: start.wall + Duration::from_secs(11) };
        let store = Store::open(10_000, Some(file), later);
        let keys = ["short", "long", "count"].map(str::to_owned);
        let found = store.get_many(&keys, later.now);
        assert_eq!(found[0], None, "its time ran out while nobody was there");
        assert_eq!(found[1], Some((b"2".to_vec(), version)));
        assert_eq!(found[2].as_ref().unwrap().0, b"7");
        let left = store.take("bucket".into(), 1, 10, 0.01, later.now).unwrap().unwrap();
        assert!((4.0..4.2).contains(&left), "{left}");
        assert_eq!(store.increment("count".into(), 1, None, later.now), Ok(8));
        assert!(store.save(later).unwrap());
    }

    #[test]
    fn what_is_damaged_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let file = path(folder.path(), "a");
        let clocks = Clocks::read();
        let store = Store::open(10_000, Some(file.clone()), clocks);
        store.set("k".into(), b"v".to_vec(), None, clocks.now).unwrap();
        store.save(clocks).unwrap();
        let mut octets = fs::read(&file).unwrap();
        for cut in [0, 5, MAGIC.len() + 2, octets.len() - 1] {
            assert!(Shelf::read(&octets[..cut], clocks).is_none(), "{cut}");
        }
        *octets.last_mut().unwrap() ^= 1;
        fs::write(&file, octets).unwrap();
        let store = Store::open(10_000, Some(file), clocks);
        assert_eq!(store.get_many(&["k".into()], clocks.now), [None]);
    }
}
