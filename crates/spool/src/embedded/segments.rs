//! The log as its writer has it: append-only segments of a fixed size, written by the committer alone and read by
//! anyone.
//!
//! A segment begins with a header that names the spool and the segment; records follow. It is preallocated, filled, and
//! never continued after a restart. It may be deleted when no message has its bytes there, no message has a change
//! recorded there, and no older segment exists for which it has a tombstone or a copy ([`Edge`]). So any set of
//! segments that exists tells the truth when it is read from the oldest to the newest.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;

use super::draft::free;
use super::file_cache::FileCache;
use super::identity::Identity;
use super::record::{LogRecord, clamp, padded};
use super::segment_file::{Extent, SEGMENT_HEADER, SegmentFolder};
use crate::fault::{CrashPoint, Faults};

/// Pieces up to this length are gathered into one write.
const GATHER: usize = 64 * 1024;
/// What a refused write is overwritten with.
static ZEROS: [u8; GATHER] = [0; GATHER];

/// The newer segment must stay as long as the older one exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Edge {
    pub(crate) older: u64,
    pub(crate) newer: u64,
    /// Whether the newer one has a copy of a message in the older one. Otherwise it has the end of such a message.
    pub(crate) copies: bool,
}

/// The segments of the log, with what each is needed for.
pub(crate) struct Segments {
    folder: SegmentFolder,
    identity: Identity,
    size: u64,
    files: Arc<FileCache>,
    /// Segments that were made and have no records yet.
    ready: BTreeSet<u64>,
    /// Where the next record goes.
    cursor: Cursor,
    next: u64,
    usage: BTreeMap<u64, SegmentUsage>,
    edges: BTreeSet<Edge>,
    /// The sequence number of the last record written. `durable` is that of the last one synced.
    sequence: u64,
    durable: u64,
    dirty: BTreeSet<u64>,
    /// Places where refused writes may have left octets.
    refused: Vec<Extent>,
    faults: Faults,
}

/// A place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// None before the first segment has been made.
    segment: Option<u64>,
    position: u64,
}

/// How much of a segment is used, and needed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SegmentUsage {
    /// Octets written, with the header.
    pub(crate) used: u64,
    /// Octets of the message records to which the index points.
    pub(crate) live: u64,
    /// The number of these records.
    pub(crate) records: u64,
    /// The number of messages with records of changes here.
    pub(crate) marks: u64,
}

impl SegmentUsage {
    fn is_empty(&self) -> bool {
        self.records == 0 && self.marks == 0
    }
}

impl Segments {
    pub(crate) fn new(
        folder: SegmentFolder,
        identity: Identity,
        size: u64,
        files: Arc<FileCache>,
        faults: Faults,
    ) -> Self {
        Self {
            folder,
            identity,
            size,
            files,
            ready: BTreeSet::new(),
            cursor: Cursor { segment: None, position: 0 },
            next: 1,
            usage: BTreeMap::new(),
            edges: BTreeSet::new(),
            sequence: 0,
            durable: 0,
            dirty: BTreeSet::new(),
            refused: Vec::new(),
            faults,
        }
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Adds a segment of an earlier run, which is read and emptied but not continued.
    pub(crate) fn adopt(&mut self, number: u64, usage: SegmentUsage) {
        self.usage.insert(number, usage);
        self.skip(number);
    }

    /// Replaces all edges; drops those whose older segment does not exist.
    pub(crate) fn adopt_edges(&mut self, edges: impl IntoIterator<Item = Edge>) {
        self.edges.clear();
        self.edges.extend(edges);
        let usage = &self.usage;
        self.edges.retain(|edge| usage.contains_key(&edge.older));
    }

    /// Replaces what each segment is needed for.
    pub(crate) fn recount(&mut self, mut counted: BTreeMap<u64, SegmentUsage>) {
        for (number, usage) in &mut self.usage {
            let used = usage.used;
            *usage = SegmentUsage { used, ..counted.remove(number).unwrap_or_default() };
        }
    }

    /// Uses only higher numbers for new segments.
    pub(crate) fn skip(&mut self, number: u64) {
        self.next = self.next.max(number + 1);
    }

    /// Continues after the record of this sequence number.
    pub(crate) fn continue_after(&mut self, sequence: u64) {
        (self.sequence, self.durable) = (sequence, sequence);
    }

    /// The sequence number of the last record written.
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Where the next record goes, for [`rewind`](Self::rewind).
    pub(crate) fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Gives back the places that were reserved since this cursor.
    pub(crate) fn rewind(&mut self, cursor: Cursor) {
        self.cursor = cursor;
    }

    /// The place of the cursor: segment, and octets from its start.
    pub(crate) fn end(&self) -> (u64, u64) {
        (self.cursor.segment.unwrap_or(0), self.cursor.position)
    }

    /// Reserves the place for a record of this length. A record longer than a segment gets a segment of its own, which
    /// becomes larger.
    ///
    /// An error means that a new segment was needed and could not be made; nothing has been written. New mail gets no
    /// segment where the disk has no room for one more after it: that one is for the outcomes that make room.
    pub(crate) fn place(&mut self, length: u64, mail: bool) -> io::Result<Extent> {
        let Cursor { segment, position } = self.cursor;
        let fits = position == SEGMENT_HEADER || position + padded(length) <= self.size;
        let (segment, position) = match segment {
            Some(segment) if fits => (segment, position),
            current => (self.segment_after(current, mail)?, SEGMENT_HEADER),
        };
        self.cursor = Cursor { segment: Some(segment), position: position + padded(length) };
        Ok(Extent { segment, position, length })
    }

    /// Makes the next segment before it is needed, so that no message waits for it.
    pub(crate) fn prepare(&mut self) -> io::Result<()> {
        let half = self.cursor.segment.is_some() && self.cursor.position >= self.size / 2;
        if half && self.ready.range(self.cursor.segment.unwrap_or(0) + 1..).next().is_none() {
            self.make(true)?;
        }
        Ok(())
    }

    fn segment_after(&mut self, current: Option<u64>, mail: bool) -> io::Result<u64> {
        if mail && free(&self.folder.path, &self.faults).is_none_or(|free| free < self.size) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let from = current.map_or(0, |number| number + 1);
        match self.ready.range(from..).next() {
            Some(ready) => Ok(*ready),
            None => self.make(mail),
        }
    }

    /// Makes a segment. One that is not for mail is made without preallocation where the disk is full.
    fn make(&mut self, mail: bool) -> io::Result<u64> {
        let number = self.next;
        let file = match self.folder.make(number, self.size, &self.identity) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull && !mail => {
                self.folder.make(number, 0, &self.identity)?
            }
            made => made?,
        };
        self.faults.check(CrashPoint::SegmentMade)?;
        self.skip(number);
        self.files.put(number, Arc::new(file));
        self.usage.insert(number, SegmentUsage { used: SEGMENT_HEADER, ..SegmentUsage::default() });
        self.ready.insert(number);
        Ok(number)
    }

    /// Writes records to their reserved places. They are not durable before [`sync`](Self::sync).
    ///
    /// After an error none of them counts: what the write left behind is wiped, so that the next start does not find
    /// whole records there, and the log continues in a new segment. On a full disk it is wiped before the next write
    /// instead. Where it cannot be wiped, that error is returned in place of the first.
    pub(crate) fn write(&mut self, records: &mut [(LogRecord, Extent)]) -> io::Result<()> {
        let (sequence, start) = (self.sequence, records.first().map(|(_, place)| *place));
        let written = self.wipe().and_then(|()| self.try_write(records));
        if written.is_err() {
            self.sequence = sequence;
            let last = self.usage.keys().next_back().copied();
            self.cursor = Cursor { segment: last, position: u64::MAX / 2 };
            self.ready.clear();
            if let Some(start) = start {
                self.dirty.insert(start.segment);
            }
            self.refused.extend(runs(records));
            match self.wipe() {
                // There may be room for it later. Nothing else is written before.
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {}
                wiped => wiped?,
            }
        }
        written
    }

    /// Overwrites what refused writes may have left, durably. No file becomes longer.
    fn wipe(&mut self) -> io::Result<()> {
        while let Some(run) = self.refused.last().copied() {
            if self.faults.crashed() {
                return Ok(());
            }
            match self.file(run.segment) {
                Ok(file) => wipe(&file, run)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            self.refused.pop();
        }
        Ok(())
    }

    fn try_write(&mut self, records: &mut [(LogRecord, Extent)]) -> io::Result<()> {
        self.faults.check(CrashPoint::Append)?;
        for (record, place) in records.iter_mut() {
            self.sequence += 1;
            record.seal(place.segment, place.position, self.sequence, self.durable);
        }
        for run in records.chunk_by(|(_, one), (_, two)| one.segment == two.segment) {
            self.write_run(run)?;
        }
        self.faults.check(CrashPoint::Appended)
    }

    /// Writes adjacent records of one segment.
    fn write_run(&mut self, run: &[(LogRecord, Extent)]) -> io::Result<()> {
        let (Some((_, first)), Some((last, end))) = (run.first(), run.last()) else {
            return Ok(());
        };
        let number = first.segment;
        let file = self.file(number)?;
        self.faults.wrote(&self.folder.file(number), first.position);
        self.dirty.insert(number);
        self.ready.remove(&number);
        let seed = self.identity.seed();
        let pieces = run.iter().flat_map(|(record, _)| record.pieces(seed));
        write_all(&file, pieces, first.position)?;
        let used = end.position + padded(last.length());
        self.usage.entry(number).or_default().used = used;
        Ok(())
    }

    /// Makes the written records durable (fdatasync). After an error it is unknown what the disk holds, and there is no
    /// second try: the kernel may have dropped the pages and would then report success.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if self.dirty.is_empty() {
            return Ok(());
        }
        self.faults.check(CrashPoint::Sync)?;
        while let Some(number) = self.dirty.pop_first() {
            self.file(number)?.sync_data()?;
            self.faults.synced(&self.folder.file(number));
        }
        self.durable = self.sequence;
        self.faults.check(CrashPoint::Synced)
    }

    /// The index points to this record now.
    pub(crate) fn add_live(&mut self, place: Extent) {
        let usage = self.usage.entry(place.segment).or_default();
        usage.live += place.length;
        usage.records += 1;
    }

    /// The index no longer points to this record.
    pub(crate) fn subtract_live(&mut self, place: Extent) {
        if let Some(usage) = self.usage.get_mut(&place.segment) {
            usage.live = usage.live.saturating_sub(place.length);
            usage.records = usage.records.saturating_sub(1);
        }
    }

    /// A message has its first record of a change in this segment, or needs none of them any more.
    pub(crate) fn mark(&mut self, segment: u64, more: bool) {
        if let Some(usage) = self.usage.get_mut(&segment) {
            usage.marks = if more { usage.marks + 1 } else { usage.marks.saturating_sub(1) };
        }
    }

    /// Whether there is such a segment.
    pub(crate) fn contains(&self, number: u64) -> bool {
        self.usage.contains_key(&number)
    }

    pub(crate) fn add_edge(&mut self, edge: Edge) {
        if self.contains(edge.older) {
            self.edges.insert(edge);
        }
    }

    /// The tombstones of this segment have all been written again.
    pub(crate) fn clear_ends(&mut self, newer: u64) {
        self.edges.retain(|edge| edge.newer != newer || edge.copies);
    }

    /// Deletes full segments that are no longer needed. Gives their numbers.
    pub(crate) fn reclaim(&mut self) -> io::Result<Vec<u64>> {
        let free = |number: &u64| !self.edges.iter().any(|edge| edge.newer == *number);
        let empty = self.sealed().filter(|(_, usage)| usage.is_empty()).map(|(number, _)| number);
        let candidates: Vec<u64> = empty.filter(free).collect();
        let mut gone = Vec::new();
        let mut failed = None;
        for number in candidates {
            match self.unlink(number) {
                Ok(()) => gone.push(number),
                Err(error) => failed = Some(error),
            }
        }
        if !gone.is_empty() {
            // Segments that were kept because of these are deleted next time, when these names are durably gone.
            self.folder.handle.sync_all()?;
            self.edges.retain(|edge| !gone.contains(&edge.older));
        }
        failed.map_or(Ok(gone), Err)
    }

    fn unlink(&mut self, number: u64) -> io::Result<()> {
        self.faults.check(CrashPoint::Reclaim)?;
        match std::fs::remove_file(self.folder.file(number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Readers that have the file open can finish.
        self.files.take(number);
        self.usage.remove(&number);
        Ok(())
    }

    /// The oldest full segment, not in `except`, that is still needed and of which more than three quarters are
    /// garbage.
    pub(crate) fn sparse(&self, except: &BTreeSet<u64>) -> Option<u64> {
        let sparse =
            |(number, usage): &(u64, SegmentUsage)| usage.live < usage.used / 4 && !except.contains(number);
        self.sealed().find(sparse).map(|(number, _)| number)
    }

    /// Octets written to a segment.
    pub(crate) fn used(&self, number: u64) -> u64 {
        self.usage.get(&number).map_or(0, |usage| usage.used)
    }

    /// The usage of a segment.
    pub(crate) fn usage(&self, number: u64) -> SegmentUsage {
        self.usage.get(&number).copied().unwrap_or_default()
    }

    pub(crate) fn file(&self, number: u64) -> io::Result<Arc<File>> {
        self.files.get(number)
    }

    fn sealed(&self) -> impl Iterator<Item = (u64, SegmentUsage)> {
        let usage = self.usage.iter().map(|(number, usage)| (*number, *usage));
        let current = self.cursor.segment;
        usage.filter(move |(number, _)| Some(*number) != current && !self.ready.contains(number))
    }
}

/// Writes pieces one after the other. Small ones are gathered.
fn write_all(file: &File, pieces: impl Iterator<Item = Bytes>, mut at: u64) -> io::Result<()> {
    let mut gathered: Vec<u8> = Vec::new();
    for piece in pieces {
        if piece.len() <= GATHER {
            gathered.extend_from_slice(&piece);
            if gathered.len() < 16 * GATHER {
                continue;
            }
        }
        file.write_all_at(&gathered, at)?;
        at += gathered.len() as u64;
        gathered.clear();
        if piece.len() > GATHER {
            file.write_all_at(&piece, at)?;
            at += piece.len() as u64;
        }
    }
    file.write_all_at(&gathered, at)
}

/// The places of these records, one per segment.
fn runs(records: &[(LogRecord, Extent)]) -> Vec<Extent> {
    let runs = records.chunk_by(|(_, one), (_, two)| one.segment == two.segment);
    let run = |run: &[(LogRecord, Extent)]| {
        let ((_, first), (_, last)) = (run.first()?, run.last()?);
        let length = last.position + padded(last.length) - first.position;
        Some(Extent { length, ..*first })
    };
    runs.filter_map(run).collect()
}

fn wipe(file: &File, run: Extent) -> io::Result<()> {
    let end = run.position.saturating_add(run.length).min(file.metadata()?.len());
    let mut from = run.position;
    while from < end {
        let piece = (end - from).min(ZEROS.len() as u64);
        file.write_all_at(&ZEROS[..clamp(piece)], from)?;
        from += piece;
    }
    file.sync_data()
}
