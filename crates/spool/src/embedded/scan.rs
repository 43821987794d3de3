//! Reads the log: the records of each segment, gaps of damaged octets, and the end of the log.
//!
//! A write that a crash cut off and damage to synced octets look alike at first. They differ in what comes after: each
//! record says up to which sequence number the log was durable when it was written. What is missing up to that number
//! is damage, which is reported and skipped. What is missing above it was never promised, and the log ends there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use super::body::BLOCK;
use super::record::{ALIGN, Front, RECORD_HEADER, RecordHeader, clamp, find_mark};
use super::segment_file::{Extent, SEGMENT_HEADER, SegmentFolder, SegmentHeader, is_blank, read_at};

/// Octets searched at a time for the next record.
const WINDOW: u64 = 1024 * 1024;

/// The file of a segment, as found in the folder.
pub(crate) struct SegmentFile {
    pub(crate) path: PathBuf,
    pub(crate) length: u64,
    /// None where the file has no whole header of a segment.
    pub(crate) header: Option<SegmentHeader>,
}

impl SegmentFile {
    /// Opens the file. There may be more segments than a process may have files open, so none stays open.
    pub(crate) fn open(&self) -> io::Result<File> {
        File::options().read(true).write(true).open(&self.path)
    }

    /// Truncates the file here, durably.
    pub(crate) fn cut(&self, end: u64) -> io::Result<()> {
        let file = self.open()?;
        file.set_len(end)?;
        file.sync_all()
    }
}

/// Octets that should be records and are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) segment: u64,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// What was found in a segment.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub(crate) records: Vec<RecordHeader>,
    pub(crate) gaps: Vec<Gap>,
    /// The end of the last record.
    pub(crate) end: u64,
}

/// The files of the log, by segment number.
pub(crate) struct Log {
    seed: u32,
    pub(crate) segments: BTreeMap<u64, SegmentFile>,
    /// Up to this number the log was durable, by the index.
    promised: AtomicU64,
    /// The file that was read last.
    last: Mutex<Option<(u64, Arc<File>)>>,
}

/// Finds the segments in their folder.
pub(crate) fn find(folder: &Path) -> io::Result<BTreeMap<u64, SegmentFile>> {
    let mut segments = BTreeMap::new();
    for file in fs::read_dir(folder)? {
        let path = file?.path();
        // A name that spells the same number differently would replace the right one.
        let number =
            SegmentFolder::number(&path).filter(|number| path.ends_with(SegmentFolder::name(*number)));
        let Some(number) = number else { continue };
        let file = File::open(&path)?;
        let (length, header) = (file.metadata()?.len(), SegmentHeader::read(&file)?);
        segments.insert(number, SegmentFile { path, length, header });
    }
    Ok(segments)
}

impl Scan {
    /// The end of the last record up to this number.
    pub(crate) fn end_of(&self, sequence: u64) -> u64 {
        let counted = self.records.iter().rev().find(|record| record.sequence <= sequence);
        counted.map_or(SEGMENT_HEADER, RecordHeader::end)
    }

    /// Keeps the records that count, and the gaps before the last of them.
    fn keep(&mut self, counts: impl FnMut(&RecordHeader) -> bool) {
        self.records.retain(counts);
        let end = self.records.last().map_or(SEGMENT_HEADER, RecordHeader::end);
        self.end = end;
        self.gaps.retain(|gap| gap.from < end);
    }
}

impl Log {
    pub(crate) fn new(seed: u32, segments: BTreeMap<u64, SegmentFile>) -> Self {
        Self { seed, segments, promised: AtomicU64::new(0), last: Mutex::new(None) }
    }

    /// Says that the log was durable up to this number: what is missing of it is damage and not a torn write.
    pub(crate) fn promise(&self, sequence: u64) {
        self.promised.fetch_max(sequence, Ordering::Relaxed);
    }

    /// The number up to which the log was durable, by these records and by the index.
    pub(crate) fn durable(&self, scans: &BTreeMap<u64, Scan>) -> u64 {
        let records = scans.values().flat_map(|scan| &scan.records);
        let said = records.map(|record| record.durable).max().unwrap_or(0);
        said.max(self.promised.load(Ordering::Relaxed))
    }

    /// Whether the file has octets at this place, whatever they are.
    pub(crate) fn has(&self, place: Extent) -> bool {
        let end = place.position.checked_add(place.length);
        self.segments.get(&place.segment).is_some_and(|found| end.is_some_and(|end| end <= found.length))
    }

    /// The initial value of the checksums of record headers.
    pub(crate) fn seed(&self) -> u32 {
        self.seed
    }

    /// A segment's file; an error of the kind `NotFound` when there is no such segment.
    pub(crate) fn file(&self, number: u64) -> io::Result<Arc<File>> {
        let mut last = self.last.lock();
        if let Some((open, file)) = &*last
            && *open == number
        {
            return Ok(file.clone());
        }
        let found = self.segments.get(&number).ok_or(io::ErrorKind::NotFound)?;
        let file = Arc::new(File::open(&found.path)?);
        *last = Some((number, file.clone()));
        Ok(file)
    }

    /// Reads the segments from this one on, in order.
    ///
    /// Sequence numbers grow from record to record. A failed write may have left records with numbers that a later
    /// segment uses again; those are skipped. Gaps at the end of the log, where nothing was promised yet, are not
    /// reported.
    pub(crate) fn scan(&self, from: u64) -> io::Result<BTreeMap<u64, Scan>> {
        let mut scans = BTreeMap::new();
        for (number, found) in self.segments.range(from..) {
            scans.insert(*number, self.scan_one(*number, found)?);
        }
        let without_records = scans.iter().filter(|(_, scan)| scan.records.is_empty());
        let barren = without_records.map(|(number, _)| *number).collect();
        drop_superseded(&mut scans);
        self.cut_torn_tail(&mut scans)?;
        self.add_lost_tails(&mut scans, &barren)?;
        Ok(scans)
    }

    /// Reads the front of a record. None where its checksum is wrong.
    pub(crate) fn front(&self, header: &RecordHeader) -> io::Result<Option<Front>> {
        let raw = read_at(&*self.file(header.segment)?, header.position, header.front())?;
        Ok(Front::decode(&raw, header))
    }

    /// All octets of a record.
    pub(crate) fn octets(&self, header: &RecordHeader) -> io::Result<Bytes> {
        read_at(&*self.file(header.segment)?, header.position, header.length())
    }

    /// Whether all of a record is as it was written.
    pub(crate) fn is_whole(&self, header: &RecordHeader) -> io::Result<bool> {
        Ok(is_sound(&self.octets(header)?, header))
    }

    fn scan_one(&self, number: u64, found: &SegmentFile) -> io::Result<Scan> {
        let mut scan = Scan { end: SEGMENT_HEADER, ..Scan::default() };
        let mut position = SEGMENT_HEADER;
        while position + RECORD_HEADER as u64 <= found.length {
            let header = self.header_at(number, found, position)?;
            let next = match header {
                Some(header) => {
                    scan.records.push(header);
                    scan.end = header.end();
                    header.end()
                }
                None => match self.search(number, found, position + ALIGN)? {
                    Some(next) => {
                        scan.gaps.push(Gap { segment: number, from: position, to: next });
                        next
                    }
                    None => break,
                },
            };
            position = next;
        }
        Ok(scan)
    }

    fn header_at(&self, number: u64, found: &SegmentFile, position: u64) -> io::Result<Option<RecordHeader>> {
        let raw = read_at(&*self.file(number)?, position, RECORD_HEADER as u64)?;
        let header = RecordHeader::decode(&raw, self.seed, number, position);
        Ok(header.filter(|header| header.length() <= found.length - position))
    }

    /// Finds the next record from here on.
    fn search(&self, number: u64, found: &SegmentFile, from: u64) -> io::Result<Option<u64>> {
        let mut base = from;
        while base + RECORD_HEADER as u64 <= found.length {
            // Windows overlap, so that a mark across their border is found.
            let window = read_at(
                &*self.file(number)?,
                base,
                (found.length - base).min(WINDOW + RECORD_HEADER as u64),
            )?;
            let mut at = 0;
            while let Some(mark) = find_mark(&window, base, at) {
                let position = base + mark as u64;
                if position + RECORD_HEADER as u64 <= found.length
                    && self.header_at(number, found, position)?.is_some()
                {
                    return Ok(Some(position));
                }
                at = mark + 1;
            }
            base += WINDOW;
        }
        Ok(None)
    }

    /// Ends the log at the first record that is missing or not whole, and was never promised.
    fn cut_torn_tail(&self, scans: &mut BTreeMap<u64, Scan>) -> io::Result<()> {
        let records = || scans.values().flat_map(|scan| &scan.records);
        let durable = self.durable(scans);
        let Some(first) = records().next().map(|record| record.sequence) else { return Ok(()) };
        // Above the durable number, sequence numbers have no hole up to the end of the log.
        let mut end = first.max(durable.saturating_add(1));
        for record in records().filter(|record| record.sequence > durable) {
            if record.sequence != end || !self.is_whole(record)? {
                break;
            }
            end = end.saturating_add(1);
        }
        for scan in scans.values_mut() {
            scan.keep(|record| record.sequence < end);
        }
        Ok(())
    }

    /// Reports segments that have lost their last records, or all of them.
    fn add_lost_tails(&self, scans: &mut BTreeMap<u64, Scan>, barren: &BTreeSet<u64>) -> io::Result<()> {
        // The segments since the last record, and its number. None where it is not known.
        let (mut open, mut last) = (Vec::new(), None::<u64>);
        let mut lost = Vec::new();
        let mut next = 1;
        for (number, scan) in scans.iter() {
            if *number == 1 {
                last = Some(0);
            } else if *number != next {
                // Where segments are missing in between, the missing records may have been in those.
                (open, last) = (Vec::new(), None);
            }
            next = number.saturating_add(1);
            if let (Some(first), Some(end)) = (scan.records.first(), scan.records.last()) {
                match last {
                    Some(last) if last.saturating_add(1) < first.sequence => lost.append(&mut open),
                    None if first.sequence > 1 => lost.append(&mut self.not_blank(&open, barren)?),
                    _ => {}
                }
                (open, last) = (Vec::new(), Some(end.sequence));
            }
            open.push(*number);
        }
        for number in lost {
            let Some(scan) = scans.get_mut(&number) else { continue };
            let to = self.segments.get(&number).map_or(scan.end, |found| found.length.max(scan.end));
            scan.gaps.push(Gap { segment: number, from: scan.end, to });
        }
        Ok(())
    }

    /// Those of the segments without records that have octets all the same, so they were used.
    fn not_blank(&self, open: &[u64], barren: &BTreeSet<u64>) -> io::Result<Vec<u64>> {
        let mut found = Vec::new();
        for number in open.iter().filter(|number| barren.contains(number)) {
            let length = self.segments.get(number).map_or(0, |found| found.length);
            if !is_blank(&*self.file(*number)?, SEGMENT_HEADER, length)? {
                found.push(*number);
            }
        }
        Ok(found)
    }
}

/// Whether a record's octets are as they were written, its body included.
pub(crate) fn is_sound(raw: &Bytes, header: &RecordHeader) -> bool {
    let Some(front) = Front::decode(raw, header) else {
        return false;
    };
    let body = &raw[clamp(header.front())..];
    if header.inline == 0 {
        return true;
    }
    let mut blocks = body.chunks(BLOCK).zip(&front.checksums);
    blocks.all(|(block, sum)| crc32fast::hash(block) == *sum)
}

/// Keeps the records of each segment whose numbers no later segment uses, in growing order.
fn drop_superseded(scans: &mut BTreeMap<u64, Scan>) {
    let mut limit = u64::MAX;
    for scan in scans.values_mut().rev() {
        let mut last = 0;
        scan.keep(|record| {
            let counts = record.sequence < limit && record.sequence > last;
            if counts {
                last = record.sequence;
            }
            counts
        });
        if let Some(first) = scan.records.first() {
            limit = limit.min(first.sequence);
        }
    }
}

/// The sequence numbers of the first and the last record.
pub(crate) fn bounds(scans: &BTreeMap<u64, Scan>) -> Option<(u64, u64)> {
    let mut records = scans.values().flat_map(|scan| &scan.records);
    let first = records.next()?;
    let last = scans.values().rev().find_map(|scan| scan.records.last())?;
    Some((first.sequence, last.sequence))
}
