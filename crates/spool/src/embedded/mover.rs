//! Moves stragglers: a segment in which little lives is emptied, so that one slow message does not keep 64 MiB of disk.
//!
//! It walks through the segment's records, as many at a time as disturb nobody, asks the database which of them still
//! count, and hands those to the committer as operations of the next batch. A crash at any moment leaves the row pointing
//! to a whole record: the old one until the batch is durable, the new one after.

use std::io;

use pintle_mail::Bytes;

use super::database::Database;
use super::operation::Operation;
use super::record::{Front, HEADER, Header, clamp, padded};
use super::segments::{Place, Segments, read_at};
use crate::SpoolError;
use crate::content::BLOCK;

/// Records looked at in one step.
const LOOK: usize = 64;
/// Octets copied in one step.
const COPY: u64 = 4 * 1024 * 1024;

/// Where the walk has come to.
#[derive(Default)]
pub(crate) struct Mover {
    at: Option<(u64, u64)>,
    /// Segments walked through to the end.
    walked: Vec<u64>,
}

impl Mover {
    /// Whether a step would have something to do.
    pub(crate) fn has_work(&self, segments: &Segments) -> bool {
        self.candidate(segments).is_some()
    }

    /// The next few records to be copied; often none.
    pub(crate) fn step(&mut self, segments: &Segments, database: &Database) -> Vec<Operation> {
        let Some(segment) = self.candidate(segments) else {
            return Vec::new();
        };
        let mut moves = Vec::new();
        match self.walk(segment, segments, database, &mut moves) {
            Ok(true) => {}
            Ok(false) => self.leave(segment, segments),
            Err(error) => {
                tracing::warn!(segment, %error, "stragglers of a segment stay where they are");
                self.leave(segment, segments);
            }
        }
        moves
    }

    fn candidate(&self, segments: &Segments) -> Option<u64> {
        segments.sparse(&self.walked)
    }

    fn leave(&mut self, segment: u64, segments: &Segments) {
        self.walked.retain(|walked| segments.contains(*walked));
        self.walked.push(segment);
        self.at = None;
    }

    /// Looks at the next records of a segment. False at its end.
    fn walk(
        &mut self,
        segment: u64,
        segments: &Segments,
        database: &Database,
        moves: &mut Vec<Operation>,
    ) -> io::Result<bool> {
        let file = segments.file(segment)?;
        let mut position = self.at.filter(|(at, _)| *at == segment).map_or(0, |(_, position)| position);
        let mut copied = 0;
        for _ in 0..LOOK {
            if position + HEADER as u64 > segments.used(segment) || copied > COPY {
                break;
            }
            let Some(header) = Header::decode(&read_at(&file, position, HEADER as u64)?, segment) else {
                // Not a record, so the end of what this segment's writer finished.
                return Ok(false);
            };
            let place = Place { segment, position, length: header.length() };
            if is_live(database, &header, place)? {
                moves.push(copy(&file, &header, place)?);
                copied += place.length;
            }
            position += padded(place.length);
        }
        self.at = Some((segment, position));
        Ok(position + (HEADER as u64) <= segments.used(segment))
    }
}

fn is_live(database: &Database, header: &Header, place: Place) -> io::Result<bool> {
    database
        .is_at(header.id, place.segment, place.position)
        .map_err(|error: SpoolError| io::Error::other(error.to_string()))
}

fn copy(file: &std::fs::File, header: &Header, place: Place) -> io::Result<Operation> {
    let raw = read_at(file, place.position, place.length)?;
    Ok(match sound(&raw, header) {
        true => Operation::Move(header.id, place, raw),
        false => Operation::SetAside(header.id, "its record's checksum is wrong".to_owned()),
    })
}

/// Whether all of a record is as it was written. A copy of a damaged record would carry fresh trust.
fn sound(raw: &Bytes, header: &Header) -> bool {
    let Some(front) = Front::decode(raw, header) else {
        return false;
    };
    let body = &raw[clamp(header.front())..];
    let mut blocks = body.chunks(BLOCK).zip(&front.checksums);
    blocks.all(|(block, sum)| crc32fast::hash(block) == *sum)
}
