//! Reads the log: which records each segment has, where octets are that are none, and where the log ends.
//!
//! Two things look alike at first, a write that a crash cut off and damage to what was once synced. They differ in what
//! comes after: a record says up to which number everything was durable when it was written. What is missing below that
//! number is damage, reported and passed over; what is missing above it was promised to nobody, and the log ends there.

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

/// One segment's file.
pub(crate) struct SegmentFile {
    pub(crate) path: PathBuf,
    pub(crate) length: u64,
    /// None where the first octets are no segment's, or not whole.
    pub(crate) header: Option<SegmentHeader>,
}

impl SegmentFile {
    /// Opens it. There may be more segments than a process may have files open.
    pub(crate) fn open(&self) -> io::Result<File> {
        File::options().read(true).write(true).open(&self.path)
    }

    /// Ends it here, durably.
    pub(crate) fn cut(&self, end: u64) -> io::Result<()> {
        let file = self.open()?;
        file.set_len(end)?;
        file.sync_all()
    }
}

/// A stretch that is no record although it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) segment: u64,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// What a segment holds.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub(crate) records: Vec<RecordHeader>,
    pub(crate) gaps: Vec<Gap>,
    /// Behind the last record.
    pub(crate) end: u64,
}

/// The whole log, by the segments' numbers.
pub(crate) struct Log {
    seed: u32,
    pub(crate) segments: BTreeMap<u64, SegmentFile>,
    /// Up to this number everything was durable once, as others know.
    promised: AtomicU64,
    /// The file that was read last.
    last: Mutex<Option<(u64, Arc<File>)>>,
}

/// Finds the files of the log in their folder.
pub(crate) fn find(folder: &Path) -> io::Result<BTreeMap<u64, SegmentFile>> {
    let mut segments = BTreeMap::new();
    for file in fs::read_dir(folder)? {
        let path = file?.path();
        // One under another spelling of the same number would stand for it.
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
    /// Behind the last record up to this number.
    pub(crate) fn end_of(&self, sequence: u64) -> u64 {
        let counted = self.records.iter().rev().find(|record| record.sequence <= sequence);
        counted.map_or(SEGMENT_HEADER, RecordHeader::end)
    }

    /// Leaves out the records that do not count, and with those at the end the gaps before them.
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

    /// Everything up to this number was durable: what of it is not there is no torn write but damage.
    pub(crate) fn promise(&self, sequence: u64) {
        self.promised.fetch_max(sequence, Ordering::Relaxed);
    }

    /// Up to which number everything was durable once, as these records say or others know.
    pub(crate) fn durable(&self, scans: &BTreeMap<u64, Scan>) -> u64 {
        let records = scans.values().flat_map(|scan| &scan.records);
        let said = records.map(|record| record.durable).max().unwrap_or(0);
        said.max(self.promised.load(Ordering::Relaxed))
    }

    /// Whether there are octets in this place, whatever they are.
    pub(crate) fn has(&self, place: Extent) -> bool {
        let end = place.position.checked_add(place.length);
        self.segments.get(&place.segment).is_some_and(|found| end.is_some_and(|end| end <= found.length))
    }

    /// Where checksums of headers begin.
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
    /// Records come out with growing numbers. What a failed write left behind has numbers that a later segment uses as
    /// well, and is passed over. Gaps at the end of the log, where nothing was promised yet, are not reported.
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

    /// The front of a record and, where its body lies beside it, whether that is whole.
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

    /// The next place from here on at which a record begins.
    fn search(&self, number: u64, found: &SegmentFile, from: u64) -> io::Result<Option<u64>> {
        let mut base = from;
        while base + RECORD_HEADER as u64 <= found.length {
            // Windows overlap, so that a mark on their border is seen.
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

    /// Ends the log at the first number that is missing, or not whole, and was never promised.
    fn cut_torn_tail(&self, scans: &mut BTreeMap<u64, Scan>) -> io::Result<()> {
        let records = || scans.values().flat_map(|scan| &scan.records);
        let durable = self.durable(scans);
        let Some(first) = records().next().map(|record| record.sequence) else { return Ok(()) };
        // Numbers above what was durable follow each other without a hole, up to where the log ends.
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

    /// A segment that ends before the next one begins has lost its end, or all that it had.
    fn add_lost_tails(&self, scans: &mut BTreeMap<u64, Scan>, barren: &BTreeSet<u64>) -> io::Result<()> {
        // Those since the last record, and its number; none where it is not known.
        let (mut open, mut last) = (Vec::new(), None::<u64>);
        let mut lost = Vec::new();
        let mut next = 1;
        for (number, scan) in scans.iter() {
            if *number == 1 {
                last = Some(0);
            } else if *number != next {
                // With segments missing between the two, what is missing may have been theirs.
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

    /// Of these segments those without a single record in which something stands nevertheless: not made ready and never used.
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

/// Keeps of each segment the records whose numbers no later segment uses, in growing order.
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

/// The numbers of the first and the last record of a log.
pub(crate) fn bounds(scans: &BTreeMap<u64, Scan>) -> Option<(u64, u64)> {
    let mut records = scans.values().flat_map(|scan| &scan.records);
    let first = records.next()?;
    let last = scans.values().rev().find_map(|scan| scan.records.last())?;
    Some((first.sequence, last.sequence))
}
