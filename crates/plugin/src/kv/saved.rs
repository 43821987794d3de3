//! File format and saving of a plugin's store, so that a restart does not turn known senders into unknown ones.
//!
//! Each plugin has one file. It is written completely under a temporary name and then renamed over the old one, so a
//! crash loses only the changes after the last save. A file that cannot be read is logged and renamed, and the store
//! starts empty, since its contents do not justify refusing to start. The file contains a single wall-clock time, that
//! of the save; all other times are relative to it. If the clock was set back since, the entries do not age; otherwise
//! they would be kept for as long as the clock was wrong. If the clock is ahead, they age by at most a day; otherwise
//! every known sender would be forgotten.

use std::borrow::Cow;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::bucket::{BucketSnapshot, TokenBucket};
use super::shelf::{OVERHEAD, PARTS, Shelf, ShelfPart, StoredCounter, StoredEntry, cost};

/// The first octets: format and version.
const MAGIC: &[u8] = b"pintle-kv 1\n";

/// Upper limit on the assumed time between a save and a start; a later start counts as this late.
const LONGEST_GONE: Duration = Duration::from_secs(24 * 3600);

/// Serialises writers: a plugin that one reload removed and another restored has two stores for a moment.
static TURN: Mutex<()> = Mutex::new(());

/// Path of a plugin's saved store.
#[must_use]
pub(crate) fn path(folder: &Path, plugin: &str) -> PathBuf {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let name: String = plugin
        .bytes()
        .map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02x}") })
        .collect();
    folder.join(format!("{name}.kv"))
}

/// Monotonic and wall-clock time at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clocks {
    pub(crate) now: Instant,
    pub(crate) wall: SystemTime,
}

impl Clocks {
    pub(crate) fn read() -> Self {
        Self { now: Instant::now(), wall: SystemTime::now() }
    }

    /// Time since a wall-clock moment: zero if it is in the future, and at most [`LONGEST_GONE`], since the clock may
    /// be wrong.
    fn since(self, millis: u64) -> Duration {
        let at = UNIX_EPOCH.checked_add(Duration::from_millis(millis));
        at.and_then(|at| self.wall.duration_since(at).ok()).unwrap_or_default().min(LONGEST_GONE)
    }
}

/// The header of a file.
#[derive(Serialize, Deserialize)]
struct SavedHead {
    /// Time of the save, in milliseconds since 1970.
    saved: u64,
}

/// A chunk of the stored data; a file has any number of them.
#[derive(Serialize, Deserialize)]
struct SavedPiece<'a> {
    entries: Vec<SavedEntry<'a>>,
    buckets: Vec<SavedBucket<'a>>,
}

#[derive(Serialize, Deserialize)]
struct SavedEntry<'a> {
    key: Cow<'a, str>,
    value: SavedValue<'a>,
    version: u64,
    /// Remaining lifetime in milliseconds; `None` if it never expires.
    lives: Option<u64>,
}

#[derive(Serialize, Deserialize)]
enum SavedValue<'a> {
    Octets(#[serde(with = "octets")] Cow<'a, [u8]>),
    Counter(i64),
}

#[derive(Serialize, Deserialize)]
struct SavedBucket<'a> {
    key: Cow<'a, str>,
    tokens: f64,
    /// Age of the last access, in milliseconds.
    seen: u64,
    /// Time until the bucket is full, in milliseconds.
    full: u64,
}

/// Serialises all live entries, for [`Shelf::read`]. Locks one partition at a time, because mail processing waits for
/// plugins; changes during the scan may or may not be included.
pub(super) fn written(shelf: &Mutex<Shelf>, clocks: Clocks) -> Vec<u8> {
    let saved = clocks.wall.duration_since(UNIX_EPOCH).map_or(0, millis);
    let mut body = postcard::to_allocvec(&SavedHead { saved }).unwrap_or_default();
    for part in 0..PARTS {
        shelf.lock().parts[part].write(clocks.now, &mut body);
    }
    let sum = crc32fast::hash(&body).to_be_bytes();
    [MAGIC, &sum, &body].concat()
}

impl ShelfPart {
    fn write(&self, now: Instant, body: &mut Vec<u8>) {
        let entries = self.entries.iter().filter(|(_, entry)| entry.lives(now));
        let counters = self.counters.iter().filter(|(_, counter)| counter.lives(now));
        let buckets = self.buckets.iter().filter(|(_, bucket)| !bucket.is_idle(now));
        let piece = SavedPiece {
            entries: entries
                .map(|(key, entry)| saved_entry(key, entry, now))
                .chain(counters.map(|(key, counter)| saved_counter(key, *counter, now)))
                .collect(),
            buckets: buckets.map(|(key, bucket)| saved_bucket(key, bucket, now)).collect(),
        };
        if piece.entries.is_empty() && piece.buckets.is_empty() {
            return;
        }
        // The data consists of numbers, strings and lists, so serialisation cannot fail.
        let whole = postcard::to_extend(&piece, std::mem::take(body));
        *body = whole.unwrap_or_default();
    }
}

impl Shelf {
    /// Parses the output of [`written`]; `None` if the format is unknown or the file is damaged.
    pub(super) fn read(file: &[u8], clocks: Clocks) -> Option<Self> {
        let (sum, body) = file.strip_prefix(MAGIC)?.split_first_chunk()?;
        if u32::from_be_bytes(*sum) != crc32fast::hash(body) {
            return None;
        }
        let (head, mut rest) = postcard::take_from_bytes::<SavedHead>(body).ok()?;
        let (mut shelf, gone) = (Self::default(), clocks.since(head.saved));
        while !rest.is_empty() {
            let (piece, after) = postcard::take_from_bytes::<SavedPiece<'_>>(rest).ok()?;
            rest = after;
            for entry in piece.entries {
                shelf.take_back(entry, gone, clocks.now);
            }
            for bucket in piece.buckets {
                shelf.take_bucket_back(bucket, gone, clocks.now);
            }
        }
        Some(shelf)
    }

    fn take_back(&mut self, saved: SavedEntry<'_>, gone: Duration, now: Instant) {
        // A version must not be reused, even if the writes after the save were lost.
        self.writes = self.writes.max(saved.version);
        let left = saved.lives.map(|lives| Duration::from_millis(lives).saturating_sub(gone));
        let expires = match left.map(|left| now.checked_add(left)) {
            None => None,
            Some(Some(at)) if at > now => Some(at),
            Some(_) => return,
        };
        let key = saved.key.into_owned();
        match saved.value {
            SavedValue::Octets(octets) => {
                let value = octets.into_owned();
                self.octets += cost(&key, &value);
                let entry = StoredEntry { value, version: saved.version, expires };
                self.part_mut(&key).entries.insert(key, entry);
            }
            SavedValue::Counter(count) => {
                self.octets += key.len() + OVERHEAD;
                self.part_mut(&key).counters.insert(key, StoredCounter { count, expires });
            }
        }
    }

    fn take_bucket_back(&mut self, saved: SavedBucket<'_>, gone: Duration, now: Instant) {
        let seen = now.checked_sub(gone.saturating_add(Duration::from_millis(saved.seen)));
        let full = now.checked_add(Duration::from_millis(saved.full).saturating_sub(gone));
        // Drops buckets that are full, and those last accessed before the clock's earliest time: a full bucket is
        // equivalent to none.
        let (Some(seen), Some(full)) = (seen, full.filter(|full| *full > now)) else {
            return;
        };
        self.octets += saved.key.len() + OVERHEAD;
        let bucket = TokenBucket::of(BucketSnapshot { tokens: saved.tokens, seen, full });
        self.part_mut(&saved.key).buckets.insert(saved.key.into_owned(), bucket);
    }
}

fn saved_entry<'a>(key: &'a str, entry: &'a StoredEntry, now: Instant) -> SavedEntry<'a> {
    SavedEntry {
        key: key.into(),
        value: SavedValue::Octets(entry.value.as_slice().into()),
        version: entry.version,
        lives: entry.expires.map(|at| millis(at.saturating_duration_since(now))),
    }
}

/// A counter has no version.
fn saved_counter(key: &str, counter: StoredCounter, now: Instant) -> SavedEntry<'_> {
    SavedEntry {
        key: key.into(),
        value: SavedValue::Counter(counter.count),
        version: 0,
        lives: counter.expires.map(|at| millis(at.saturating_duration_since(now))),
    }
}

fn saved_bucket<'a>(key: &'a str, bucket: &TokenBucket, now: Instant) -> SavedBucket<'a> {
    let BucketSnapshot { tokens, seen, full } = bucket.still();
    SavedBucket {
        key: key.into(),
        tokens,
        seen: millis(now.saturating_duration_since(seen)),
        full: millis(full.saturating_duration_since(now)),
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Loads the file; an empty store if it does not exist. The error says why the file cannot be read.
pub(super) fn load(path: &Path, clocks: Clocks) -> Result<Shelf, String> {
    match fs::read(path) {
        Ok(octets) => Shelf::read(&octets, clocks).ok_or_else(|| "it is damaged".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Shelf::default()),
        Err(error) => Err(error.to_string()),
    }
}

/// Renames an unreadable file, because the next save would overwrite it; returns the new name.
pub(super) fn put_aside(path: &Path) -> PathBuf {
    let aside = path.with_extension("damaged");
    if let Err(error) = fs::rename(path, &aside) {
        tracing::error!(target: "pintle::plugin", path = %path.display(), %error, "the damaged file cannot be renamed");
    }
    aside
}

/// Replaces the file with these octets.
pub(super) fn replace(path: &Path, octets: &[u8]) -> io::Result<()> {
    let _turn = TURN.lock();
    let new = path.with_extension("new");
    let replaced = write(&new, octets).and_then(|()| fs::rename(&new, path));
    replaced.map_err(|error| {
        // A partial file would occupy space on a full disk, which may hold mail.
        let _ = fs::remove_file(&new);
        io::Error::new(error.kind(), format!("{}: {error}", path.display()))
    })
}

/// Creates a file that only this user can read, since it may contain addresses. The file must be new, so that a link
/// placed there by another user is not followed.
fn write(new: &Path, octets: &[u8]) -> io::Result<()> {
    match fs::remove_file(new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = fs::File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(new)?;
    file.write_all(octets)?;
    file.sync_data()
}

/// Serialises octets as one piece; serde's default writes them one by one.
mod octets {
    use std::borrow::Cow;
    use std::fmt;

    use serde::de::{Deserializer, Error, Visitor};
    use serde::ser::Serializer;

    #[allow(clippy::ptr_arg, reason = "the form in which serde hands it over")]
    pub(super) fn serialize<S: Serializer>(octets: &Cow<'_, [u8]>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(octets)
    }

    pub(super) fn deserialize<'de, 'a, D: Deserializer<'de>>(from: D) -> Result<Cow<'a, [u8]>, D::Error> {
        from.deserialize_bytes(Octets).map(Cow::Owned)
    }

    struct Octets;

    impl Visitor<'_> for Octets {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("octets")
        }

        fn visit_bytes<E: Error>(self, octets: &[u8]) -> Result<Vec<u8>, E> {
            Ok(octets.to_vec())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::KvStore;

    fn values(store: &KvStore, keys: &[String], now: Instant) -> Vec<Option<(Vec<u8>, u64)>> {
        store.get_many(keys, usize::MAX, now).unwrap()
    }

    #[test]
    fn a_store_outlives_its_process() {
        let folder = tempfile::tempdir().unwrap();
        let file = path(folder.path(), "grey list/1");
        assert_eq!(file.file_name().unwrap(), "grey%20list%2f1.kv");
        let start = Clocks::read();
        let store = KvStore::open(10_000, Some(file.clone()), start);
        store.set("short".into(), b"1".to_vec(), Some(10), start.now).unwrap();
        store.set("long".into(), b"2".to_vec(), None, start.now).unwrap();
        store.increment("count".into(), 7, Some(1_000), start.now).unwrap();
        let _ = store.take("bucket".into(), 5, 10, 0.01, start.now).unwrap();
        let version = values(&store, &["long".into()], start.now)[0].clone().unwrap().1;
        assert!(store.save(start).unwrap(), "there is something to save");
        assert!(!store.save(start).unwrap(), "and then no more");

        // Another process: its monotonic clock restarted; the wall clock continued.
        let later = Clocks { now: start.now, wall: start.wall + Duration::from_secs(11) };
        let store = KvStore::open(10_000, Some(file), later);
        let keys = ["short", "long"].map(str::to_owned);
        let found = values(&store, &keys, later.now);
        assert_eq!(found[0], None, "its time ran out while nobody was there");
        assert_eq!(found[1], Some((b"2".to_vec(), version)));
        assert_eq!(store.count_many(&["count".to_owned()], later.now), [7]);
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
        let store = KvStore::open(10_000, Some(file.clone()), clocks);
        store.set("k".into(), b"v".to_vec(), None, clocks.now).unwrap();
        store.save(clocks).unwrap();
        let mut octets = fs::read(&file).unwrap();
        for cut in [0, 5, MAGIC.len() + 2, octets.len() - 1] {
            assert!(Shelf::read(&octets[..cut], clocks).is_none(), "{cut}");
        }
        *octets.last_mut().unwrap() ^= 1;
        fs::write(&file, octets).unwrap();
        let store = KvStore::open(10_000, Some(file.clone()), clocks);
        assert_eq!(values(&store, &["k".into()], clocks.now), [None]);
        assert!(file.exists(), "to open it changes nothing");
        store.put_damaged_aside();
        assert!(file.with_extension("damaged").exists(), "somebody may want to know what it was");
    }

    #[test]
    fn a_clock_that_was_set_back_holds_nobody_up() {
        let folder = tempfile::tempdir().unwrap();
        let file = path(folder.path(), "a");
        let wrong = Clocks::read();
        let store = KvStore::open(10_000, Some(file.clone()), wrong);
        store.set("k".into(), b"v".to_vec(), Some(10), wrong.now).unwrap();
        let _ = store.take("b".into(), 10, 10, 1.0, wrong.now).unwrap();
        store.save(wrong).unwrap();

        let right = Clocks { now: wrong.now, wall: wrong.wall - Duration::from_secs(365 * 86_400) };
        let store = KvStore::open(10_000, Some(file), right);
        assert!(values(&store, &["k".into()], right.now)[0].is_some());
        let later = right.now + Duration::from_secs(10);
        assert_eq!(values(&store, &["k".into()], later), [None], "it lives no longer than it was to");
        assert_eq!(store.take("b".into(), 5, 10, 1.0, later), Ok(Ok(5.0)), "it has filled since");
    }

    #[test]
    fn a_clock_that_is_ahead_makes_no_strangers() {
        let folder = tempfile::tempdir().unwrap();
        let file = path(folder.path(), "a");
        let right = Clocks::read();
        let store = KvStore::open(10_000, Some(file.clone()), right);
        store.set("k".into(), b"v".to_vec(), Some(36 * 86_400), right.now).unwrap();
        store.save(right).unwrap();
        let wrong = Clocks { now: right.now, wall: right.wall + Duration::from_secs(365 * 86_400) };
        let store = KvStore::open(10_000, Some(file), wrong);
        assert!(values(&store, &["k".into()], wrong.now)[0].is_some());
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_reads_it_or_leads_it_elsewhere() {
        use std::os::unix::fs::{MetadataExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let (file, other) = (path(folder.path(), "a"), folder.path().join("other"));
        fs::write(&other, "precious").unwrap();
        symlink(&other, file.with_extension("new")).unwrap();
        replace(&file, b"octets").unwrap();
        assert_eq!(fs::read(&other).unwrap(), b"precious");
        let found = fs::symlink_metadata(&file).unwrap();
        assert!(found.is_file());
        assert_eq!(found.mode() & 0o777, 0o600);
    }

    #[test]
    fn what_cannot_be_written_leaves_no_half() {
        let folder = tempfile::tempdir().unwrap();
        let file = path(folder.path(), "a");
        fs::create_dir_all(file.join("in the way")).unwrap();
        let error = replace(&file, b"octets").unwrap_err().to_string();
        assert!(error.contains("a.kv"), "{error}");
        assert!(!file.with_extension("new").exists());
    }

    #[test]
    fn large_stores_come_back_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (file, clocks) = (path(folder.path(), "a"), Clocks::read());
        let store = KvStore::open(64 << 20, Some(file.clone()), clocks);
        for n in 0_u32..5_000 {
            store.set(format!("key {n}"), n.to_be_bytes().repeat(10), Some(1_000), clocks.now).unwrap();
        }
        store.save(clocks).unwrap();
        let again = KvStore::open(64 << 20, Some(file), clocks);
        assert_eq!(again.shelf.lock().octets, store.shelf.lock().octets);
        let keys: Vec<_> = (0..5_000).map(|n| format!("key {n}")).collect();
        assert_eq!(values(&again, &keys, clocks.now), values(&store, &keys, clocks.now));
        again.set("new".into(), vec![], None, clocks.now).unwrap();
        assert_eq!(values(&again, &["new".into()], clocks.now)[0].as_ref().unwrap().1, 5_001);
    }
}
