//! The body log: append-only files of a fixed size, written by the committer alone and read by anyone.
//!
//! A segment is preallocated, filled, and never continued after a restart: whatever lies beyond its last referenced
//! record, a torn tail included, is then garbage by construction, and nothing has to be scanned. Which records live is
//! the database's knowledge; here only their number and size per segment are counted.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, fallocate};

use super::record::{Record, clamp, padded};
use crate::fault::{CrashPoint, Faults};

/// Pieces in one vectored write; the kernel takes no more.
const MAX_SLICES: usize = 1024;

/// Where a record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) segment: u64,
    pub(crate) position: u64,
    pub(crate) length: u64,
}

/// The log as its one writer sees it.
pub(crate) struct Segments {
    folder: Folder,
    size: u64,
    shelf: Arc<Shelf>,
    current: Option<u64>,
    next: u64,
    tallies: BTreeMap<u64, Tally>,
    dirty: BTreeSet<u64>,
    faults: Faults,
}

/// What is known of one segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Octets written.
    pub(crate) used: u64,
    /// Octets of records that a row points to.
    pub(crate) live: u64,
    /// Their number.
    pub(crate) records: u64,
}

impl Segments {
    pub(crate) fn new(folder: Folder, size: u64, shelf: Arc<Shelf>, faults: Faults) -> Self {
        Self {
            folder,
            size,
            shelf,
            current: None,
            next: 1,
            tallies: BTreeMap::new(),
            dirty: BTreeSet::new(),
            faults,
        }
    }

    /// Takes up a segment of an earlier run, to be read and emptied but not continued.
    pub(crate) fn adopt(&mut self, number: u64, file: File, tally: Tally) {
        self.shelf.put(number, file);
        self.tallies.insert(number, tally);
        self.skip(number);
    }

    /// Never uses this number, or a lower one, for a new segment.
    pub(crate) fn skip(&mut self, number: u64) {
        self.next = self.next.max(number + 1);
    }

    /// Writes records one after the other. They are not durable before [`sync`](Self::sync), and not alive before
    /// [`revive`](Self::revive).
    pub(crate) fn append(&mut self, records: &mut [Record]) -> io::Result<Vec<Place>> {
        self.faults.check(CrashPoint::Append)?;
        let mut places = Vec::with_capacity(records.len());
        let mut rest = records;
        while let Some(first) = rest.first() {
            let number = self.segment_for(first.length())?;
            let (group, later) = rest.split_at_mut(self.fitting(number, rest));
            self.write(number, group, &mut places)?;
            rest = later;
        }
        self.faults.check(CrashPoint::Appended)?;
        Ok(places)
    }

    /// Makes what was appended durable. After an error nothing is known of what the disk holds, so there is no second
    /// try: the kernel may have dropped the pages and would then report success.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if self.dirty.is_empty() {
            return Ok(());
        }
        self.faults.check(CrashPoint::Sync)?;
        while let Some(number) = self.dirty.pop_first() {
            self.file(number)?.sync_data()?;
            self.faults.synced(&self.folder.file(number));
        }
        self.faults.check(CrashPoint::Synced)
    }

    /// A committed row points to this record now.
    pub(crate) fn revive(&mut self, place: Place) {
        let tally = self.tallies.entry(place.segment).or_default();
        tally.live += place.length;
        tally.records += 1;
    }

    /// No row points to this record any more.
    pub(crate) fn bury(&mut self, place: Place) {
        if let Some(tally) = self.tallies.get_mut(&place.segment) {
            tally.live = tally.live.saturating_sub(place.length);
            tally.records = tally.records.saturating_sub(1);
        }
    }

    /// Unlinks full segments in which nothing lives.
    pub(crate) fn reclaim(&mut self) -> io::Result<()> {
        let empty = self.sealed().filter(|(_, tally)| tally.records == 0);
        let empty: Vec<u64> = empty.map(|(number, _)| number).collect();
        for number in empty {
            self.faults.check(CrashPoint::Reclaim)?;
            // Readers hold the file open and finish in peace.
            self.shelf.take(number);
            self.tallies.remove(&number);
            std::fs::remove_file(self.folder.file(number))?;
        }
        Ok(())
    }

    /// The oldest full segment, not among these, of which more than three quarters are garbage.
    pub(crate) fn sparse(&self, except: &[u64]) -> Option<u64> {
        let sparse = |(number, tally): &(u64, Tally)| {
            tally.records > 0 && tally.live < tally.used / 4 && !except.contains(number)
        };
        self.sealed().find(sparse).map(|(number, _)| number)
    }

    /// Octets written to a segment.
    pub(crate) fn used(&self, number: u64) -> u64 {
        self.tallies.get(&number).map_or(0, |tally| tally.used)
    }

    pub(crate) fn file(&self, number: u64) -> io::Result<Arc<File>> {
        self.shelf.get(number).ok_or_else(|| io::Error::other(format!("segment {number} is not open")))
    }

    /// Whether there is such a segment.
    pub(crate) fn contains(&self, number: u64) -> bool {
        self.tallies.contains_key(&number)
    }

    fn sealed(&self) -> impl Iterator<Item = (u64, Tally)> {
        let tallies = self.tallies.iter().map(|(number, tally)| (*number, *tally));
        tallies.filter(|(number, _)| Some(*number) != self.current)
    }

    /// The segment that takes a record of this length. One longer than a whole segment gets a new one and overhangs it.
    fn segment_for(&mut self, length: u64) -> io::Result<u64> {
        if let Some(number) = self.current
            && (self.used(number) == 0 || self.used(number) + length <= self.size)
        {
            return Ok(number);
        }
        let number = self.next;
        let file = self.folder.make(number, self.size)?;
        self.faults.check(CrashPoint::SegmentMade)?;
        self.skip(number);
        self.shelf.put(number, file);
        self.tallies.insert(number, Tally::default());
        self.current = Some(number);
        Ok(number)
    }

    /// How many of these records go into the segment: those that fit, but at least one.
    fn fitting(&self, number: u64, records: &[Record]) -> usize {
        let mut end = self.used(number);
        let fits = records.iter().take_while(|record| {
            end += padded(record.length());
            end <= self.size
        });
        fits.count().max(1)
    }

    fn write(&mut self, number: u64, group: &mut [Record], places: &mut Vec<Place>) -> io::Result<()> {
        let start = self.used(number);
        let mut position = start;
        for record in group.iter_mut() {
            record.seal(number);
            places.push(Place { segment: number, position, length: record.length() });
            position += padded(record.length());
        }
        self.faults.wrote(&self.folder.file(number), start);
        self.dirty.insert(number);
        write_all(&*self.file(number)?, group, start)?;
        // Counted only now: after a failed write the next batch overwrites what this one left.
        self.tallies.entry(number).or_default().used = position;
        Ok(())
    }
}

fn write_all(file: &File, records: &[Record], mut at: u64) -> io::Result<()> {
    let pieces: Vec<&[u8]> = records.iter().flat_map(Record::slices).collect();
    for group in pieces.chunks(MAX_SLICES) {
        let mut slices: Vec<IoSlice<'_>> = group.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut slices = slices.as_mut_slice();
        while !slices.is_empty() {
            let written = rustix::io::pwritev(file, slices, at)?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            at += written as u64;
            IoSlice::advance_slices(&mut slices, written);
        }
    }
    Ok(())
}

/// The open segments, shared with readers.
#[derive(Default)]
pub(crate) struct Shelf(Mutex<HashMap<u64, Arc<File>>>);

impl Shelf {
    pub(crate) fn get(&self, number: u64) -> Option<Arc<File>> {
        self.0.lock().get(&number).cloned()
    }

    fn put(&self, number: u64, file: File) {
        self.0.lock().insert(number, Arc::new(file));
    }

    fn take(&self, number: u64) {
        self.0.lock().remove(&number);
    }
}

/// The folder in which segments lie, and their names.
pub(crate) struct Folder {
    path: PathBuf,
    handle: File,
}

impl Folder {
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        let handle = File::open(&path)?;
        Ok(Self { path, handle })
    }

    pub(crate) fn file(&self, number: u64) -> PathBuf {
        self.path.join(Self::name(number))
    }

    /// A segment's file name.
    pub(crate) fn name(number: u64) -> String {
        format!("{number:016x}.log")
    }

    /// The number in a segment's file name.
    pub(crate) fn number(path: &Path) -> Option<u64> {
        let name = path.file_name()?.to_str()?.strip_suffix(".log")?;
        u64::from_str_radix(name, 16).ok()
    }

    /// A new segment, durable as a name and as space, so that later syncs have no length to write and a full disk shows
    /// here and not in the middle of a record.
    fn make(&self, number: u64, size: u64) -> io::Result<File> {
        let path = self.file(number);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        match fallocate(&file, FallocateFlags::empty(), 0, size) {
            // A file system without preallocation still works, only slower.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
        file.sync_all()?;
        self.handle.sync_all()?;
        Ok(file)
    }
}

/// Reads `length` octets at `position`.
pub(crate) fn read_at(file: &File, position: u64, length: u64) -> io::Result<bytes::Bytes> {
    use std::os::unix::fs::FileExt;
    let mut buffer = vec![0; clamp(length)];
    file.read_exact_at(&mut buffer, position)?;
    Ok(buffer.into())
}
