//! Compaction: empties segments of which little is needed, so that one slow message does not keep 64 MiB of disk.
//!
//! A segment is needed for three things, and each of them is written again at the end of the log: the state of messages
//! whose changes it records (the whole message, if it has another context), messages whose bytes are in it, and
//! tombstones, the ends of messages whose bytes are still in older segments. Compaction goes a few records at a time, as
//! operations of ordinary batches. A crash at any moment leaves both copies, and the later one counts.

use std::collections::BTreeSet;
use std::io;

use pintle_mail::QueueId;

use super::database::Database;
use super::meta::{Tombstones, from_json};
use super::operation::Operation;
use super::record::{Front, LogRecordKind, RECORD_HEADER, RecordHeader};
use super::scan::is_sound;
use super::segment_file::{Extent, SEGMENT_HEADER, is_blank, read_at};
use super::segments::Segments;
use crate::SpoolError;

/// Records examined in one step.
const RECORDS_PER_STEP: usize = 64;
/// Octets copied in one step.
const OCTETS_PER_STEP: u64 = 4 * 1024 * 1024;

/// How far compaction has come.
#[derive(Default)]
pub(crate) struct Compactor {
    /// The segment of the last step.
    on: Option<u64>,
    at: Option<(u64, u64)>,
    /// Segments that have been examined to the end.
    walked: BTreeSet<u64>,
}

impl Compactor {
    /// Whether a step would have something to do.
    pub(crate) fn has_work(&self, segments: &Segments) -> bool {
        segments.sparse(&self.walked).is_some()
    }

    /// The next operations, a few at a time. Often none.
    pub(crate) fn step(&mut self, segments: &Segments, database: &Database) -> Vec<Operation> {
        let Some(segment) = segments.sparse(&self.walked) else {
            return Vec::new();
        };
        self.on = Some(segment);
        let stepped = match segments.usage(segment).marks {
            0 => self.walk(segment, segments, database),
            _ => states(segment, database),
        };
        stepped.unwrap_or_else(|error| {
            tracing::warn!(segment, %error, "compaction skips a segment of the spool");
            self.leave(segment, segments);
            Vec::new()
        })
    }

    /// An operation of the last step failed: its segment stays as it is until the next start.
    pub(crate) fn give_up(&mut self, segments: &Segments) {
        if let Some(segment) = self.on {
            self.leave(segment, segments);
        }
    }

    fn leave(&mut self, segment: u64, segments: &Segments) {
        self.walked.retain(|walked| segments.contains(*walked));
        self.walked.insert(segment);
        (self.on, self.at) = (None, None);
    }

    /// Examines the next records of a segment.
    fn walk(&mut self, segment: u64, segments: &Segments, database: &Database) -> io::Result<Vec<Operation>> {
        let (file, used) = (segments.file(segment)?, segments.used(segment));
        let (seed, mut ended) = (segments.identity().seed(), Vec::new());
        let at = self.at.filter(|(at, _)| *at == segment);
        let mut position = at.map_or(SEGMENT_HEADER, |(_, position)| position);
        let (mut moves, mut copied, mut complete) = (Vec::new(), 0, false);
        for _ in 0..RECORDS_PER_STEP {
            complete = position + RECORD_HEADER as u64 > used;
            if complete || copied > OCTETS_PER_STEP {
                break;
            }
            let raw = read_at(&file, position, RECORD_HEADER as u64)?;
            let Some(header) = RecordHeader::decode(&raw, seed, segment, position) else {
                // Space at the end that was too small for a record, or that a refused write left wiped.
                complete = is_blank(&file, position, used)?;
                if complete {
                    break;
                }
                return Err(damaged());
            };
            if header.kind().is_none() {
                return Err(io::Error::other("a later version wrote to it"));
            }
            let place = Extent { segment, position, length: header.length() };
            ended.extend(ends(&file, &header)?);
            let of_message = header.kind().is_some_and(LogRecordKind::is_message);
            if of_message && is_live(database, header.id, place)? {
                moves.push(copy(&file, &header, place)?);
                copied += place.length;
            }
            position = header.end();
        }
        ended.retain(|(_, older)| *older != segment && segments.contains(*older));
        self.at = Some((segment, position));
        if complete {
            self.leave(segment, segments);
        }
        if complete || !ended.is_empty() {
            moves.push(Operation::KeepTombstones(Tombstones { from: segment, ended, complete }));
        }
        Ok(moves)
    }
}

/// Rewrites the state of messages whose changes the segment records, at most so many octets in one step.
fn states(segment: u64, database: &Database) -> io::Result<Vec<Operation>> {
    let marked = database.marked(segment, RECORDS_PER_STEP).map_err(|error| unusable(&error))?;
    if marked.is_empty() {
        return Err(io::Error::other("its records of changes cannot be found"));
    }
    let mut octets = 0;
    let within = marked.into_iter().take_while(|(_, copied)| {
        let before = octets;
        octets += copied;
        before < OCTETS_PER_STEP
    });
    Ok(within.map(|(id, _)| Operation::Restate(id)).collect())
}

/// The messages that ended by this record, each with the segment that has its bytes.
fn ends(file: &std::fs::File, header: &RecordHeader) -> io::Result<Vec<(QueueId, u64)>> {
    if header.ends() {
        return Ok(vec![(header.id, header.refers)]);
    }
    if header.kind() != Some(LogRecordKind::Tombstones) {
        return Ok(Vec::new());
    }
    let raw = read_at(file, header.position, header.front())?;
    let front = Front::decode(&raw, header).ok_or_else(damaged)?;
    from_json(&front.meta).map(|tombstones: Tombstones| tombstones.ended).map_err(io::Error::other)
}

/// What follows it may be needed and cannot be found.
fn damaged() -> io::Error {
    io::Error::other("it is damaged")
}

fn is_live(database: &Database, id: QueueId, place: Extent) -> io::Result<bool> {
    database.is_at(id, place.segment, place.position).map_err(|error| unusable(&error))
}

fn unusable(error: &SpoolError) -> io::Error {
    io::Error::other(error.to_string())
}

fn copy(file: &std::fs::File, header: &RecordHeader, place: Extent) -> io::Result<Operation> {
    let raw = read_at(file, place.position, place.length)?;
    // A copy of a damaged record would get a good checksum.
    Ok(match is_sound(&raw, header) {
        true => Operation::Move(header.id, place, raw),
        false => Operation::SetAside(header.id, "its record's checksum is wrong".to_owned()),
    })
}
