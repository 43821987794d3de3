//! Replay: brings the index up to the log, from where it stopped or from the start.
//!
//! Records of one operation count together or not at all. The exception is an operation that was synced completely and
//! is partly damaged now: its whole records count. Octets that should be records and are not are kept in `damaged/`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use pintle_mail::QueueId;

use super::database::{Database, LogPosition};
use super::index::Index;
use super::lost_found::{Evidence, LostAndFound};
use super::meta::{
    Amendment, ChangedRecipient, MessageMeta, MessageState, SettleMeta, Tombstones, from_json, says_more,
    text,
};
use super::record::{Front, LogRecordKind, RecordHeader};
use super::row::MessageRow;
use super::scan::{Gap, Log, Scan, bounds};
use super::segment_file::{Extent, SEGMENT_HEADER, read_at};
use crate::fault::Faults;
use crate::{Guard, HoldReason, SpoolError};

/// Records in one transaction of the index.
const CHUNK: usize = 4_096;

/// The result of a replay.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ReplayOutcome {
    /// The index is up to date with the log.
    Current {
        /// The end of the log.
        reached: LogPosition,
        /// Number of records that were read.
        records: u64,
        /// Number of messages that were found damaged.
        damaged: u64,
        /// Messages with records that this version does not understand.
        unread: BTreeSet<QueueId>,
    },
    /// The log no longer has the records that the index needs next, for this reason: the index must be rebuilt.
    Apart(&'static str),
    /// The log has lost records that the index has: the index must be rebuilt, and may know messages that the log has
    /// lost.
    Ahead,
}

/// Why a replay failed.
#[derive(Debug)]
pub(crate) enum ReplayError {
    /// The log could not be read.
    Io(io::Error),
    /// The index could not be written.
    Store(SpoolError),
    /// A later version wrote records to this segment.
    Newer(u64),
}

impl ReplayError {
    /// As an error of the spool. A full disk stays one.
    pub(crate) fn into_spool(self) -> SpoolError {
        match self {
            Self::Io(error) => SpoolError::from_io(&error),
            Self::Store(error) => error,
            Self::Newer(segment) => {
                SpoolError::Store(format!("a later version wrote to segment {segment}").into())
            }
        }
    }
}

impl From<io::Error> for ReplayError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<SpoolError> for ReplayError {
    fn from(error: SpoolError) -> Self {
        Self::Store(error)
    }
}

/// Reads the records that the index lacks into it.
///
/// Damaged octets are kept in `lost_found`; without it they are only counted.
pub(crate) fn bring_up(
    database: &Database,
    log: &Log,
    lost_found: Option<&LostAndFound>,
) -> Result<ReplayOutcome, ReplayError> {
    let reached = database.reached()?;
    // The index gets a record only when it is durable.
    log.promise(reached.sequence);
    let scans = log.scan(reached.segment)?;
    if bounds(&scans).unwrap_or_default().1 < reached.sequence {
        return Ok(ReplayOutcome::Ahead);
    }
    if reached.sequence > 0 && !follows(reached, &scans) {
        return Ok(ReplayOutcome::Apart("the log no longer has the records that come next"));
    }
    let durable = log.durable(&scans);
    let (index, unread) = (Index { database, faults: &Faults::none() }, BTreeSet::new());
    let mut replay = Replay { index, log, lost_found, reached, durable, records: 0, damaged: 0, unread };
    replay.gaps(&scans)?;
    replay.run(&scans)?;
    let Replay { reached, records, damaged, unread, .. } = replay;
    Ok(ReplayOutcome::Current { reached, records, damaged, unread })
}

/// Whether an index that has come so far can be brought up to this log. Records that were deleted since may have been
/// needed by it, and then only a rebuild from all that is left gives the right state.
fn follows(reached: LogPosition, scans: &BTreeMap<u64, Scan>) -> bool {
    let records = scans.values().flat_map(|scan| &scan.records);
    let new = records.filter(|record| record.sequence > reached.sequence);
    (reached.sequence + 1..).zip(new).all(|(expected, record)| record.sequence == expected)
}

struct Replay<'a> {
    index: Index<'a>,
    log: &'a Log,
    lost_found: Option<&'a LostAndFound>,
    reached: LogPosition,
    durable: u64,
    records: u64,
    damaged: u64,
    unread: BTreeSet<QueueId>,
}

impl Replay<'_> {
    fn run(&mut self, scans: &BTreeMap<u64, Scan>) -> Result<(), ReplayError> {
        let from = self.reached.sequence;
        let before = self.index.database.has_passed_over().map_err(SpoolError::from)?;
        let mut passed_over = before;
        let records = scans.values().flat_map(|scan| &scan.records).filter(|record| record.sequence > from);
        let groups = groups(records.copied(), self.durable);
        for chunk in groups.chunks(CHUNK) {
            self.index.database.execute("BEGIN IMMEDIATE")?;
            for group in chunk {
                group.iter().try_for_each(|header| self.apply(header))?;
            }
            if let Some(last) = chunk.last().and_then(|group| group.last()) {
                self.reached =
                    LogPosition { segment: last.segment, position: last.end(), sequence: last.sequence };
            }
            self.index.database.set_reached(self.reached)?;
            passed_over |= !self.unread.is_empty();
            self.index.database.pass_over(passed_over)?;
            self.index.database.execute("COMMIT")?;
        }
        // Messages that have ended since need not be held.
        let (unread, database) = (std::mem::take(&mut self.unread), self.index.database);
        for id in unread {
            if database.find(id)?.is_some() {
                self.unread.insert(id);
            }
        }
        if passed_over && !before && self.unread.is_empty() {
            database.pass_over(false)?;
        }
        Ok(())
    }

    fn apply(&mut self, header: &RecordHeader) -> Result<(), ReplayError> {
        let kind = header.kind().ok_or(ReplayError::Newer(header.segment))?;
        self.records += 1;
        let applied = match self.log.front(header)? {
            Some(front) => self.apply_sound(kind, header, &front),
            None => self.apply_damaged(kind, header),
        };
        match applied {
            Ok(()) => Ok(()),
            // The message ended in a segment that was deleted since, or the record is a copy.
            Err(
                SpoolError::Unknown(_)
                | SpoolError::UnknownRecipient(..)
                | SpoolError::Duplicate(_)
                | SpoolError::Damaged(..),
            ) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn apply_sound(
        &mut self,
        kind: LogRecordKind,
        header: &RecordHeader,
        front: &Front,
    ) -> Result<(), SpoolError> {
        let (id, at) = (header.id, header.segment);
        match kind {
            LogRecordKind::Start => Ok(()),
            LogRecordKind::Message | LogRecordKind::Copy => self.apply_message(kind, header, front),
            // The header says that the message ended, whatever the rest says.
            LogRecordKind::Settle if header.ends() => self.end_message(header),
            LogRecordKind::Settle => match from_json::<SettleMeta>(&front.meta) {
                Ok(marks) => self.index.settle(id, (&marks.changes(), Guard::Any), at, false).map(drop),
                Err(what) => self.hold_unread(id, &what, at),
            },
            LogRecordKind::SetAside => self.index.set_aside(id, at).map(drop),
            LogRecordKind::Amend => match from_json::<Amendment>(&front.meta) {
                Ok(amendment) => self.index.amend(id, &amendment.with_octets(&front.context), at).map(drop),
                Err(what) => self.hold_unread(id, &what, at),
            },
            LogRecordKind::State => match from_json::<MessageState>(&front.meta) {
                Ok(state) => {
                    self.index.restate(id, &state, at)?;
                    self.hold_what_says_more(header, front, &state.states)
                }
                Err(what) => self.hold_unread(id, &what, at),
            },
            LogRecordKind::Tombstones => match from_json::<Tombstones>(&front.meta) {
                Ok(tombstones) => self.keep_tombstones(&tombstones, at),
                Err(what) => Err(SpoolError::Store(what.into())),
            },
        }
    }

    /// The records that said so first may have been deleted.
    fn keep_tombstones(&self, tombstones: &Tombstones, at: u64) -> Result<(), SpoolError> {
        for (id, _) in &tombstones.ended {
            match self.index.settle(*id, (&[], Guard::Any), at, true) {
                Ok(_) | Err(SpoolError::Unknown(_)) => {}
                Err(error) => return Err(error),
            }
        }
        self.index.keep_tombstones(tombstones, at).map(drop)
    }

    fn apply_message(
        &mut self,
        kind: LogRecordKind,
        header: &RecordHeader,
        front: &Front,
    ) -> Result<(), SpoolError> {
        let place = Extent { segment: header.segment, position: header.position, length: header.length() };
        let size = header.body.saturating_add(front.head.len() as u64);
        let read =
            from_json::<MessageMeta>(&front.meta).and_then(|written| Ok((written, text(&front.meta)?)));
        match read {
            Ok((written, json)) if kind == LogRecordKind::Message => {
                self.index.admit(header.id, &MessageRow::of(&written, json, place, size)?)
            }
            Ok(read) => {
                let states = read.0.states.clone();
                self.index.copy(header.id, read, place, size)?;
                self.hold_what_says_more(header, front, &states)
            }
            Err(what) => self.keep(header, &format!("its metadata cannot be read: {what}")),
        }
    }

    /// Applies a record that was synced and is damaged now.
    fn apply_damaged(&mut self, kind: LogRecordKind, header: &RecordHeader) -> Result<(), SpoolError> {
        match kind {
            LogRecordKind::Message => self.keep(header, "its record in the log is damaged"),
            // The record that it was copied from may still exist.
            LogRecordKind::Copy if self.index.database.find(header.id)?.is_some() => Ok(()),
            LogRecordKind::Copy => self.keep(header, "its record in the log is damaged"),
            _ if header.ends() => self.end_message(header),
            _ => {
                let id = header.id;
                tracing::error!(queue_id = %id, segment = header.segment, "a change of a message is lost: its record in the spool's log is damaged");
                Ok(())
            }
        }
    }

    /// Ends a message by the header of a record alone.
    fn end_message(&self, header: &RecordHeader) -> Result<(), SpoolError> {
        self.index.settle(header.id, (&[], Guard::Any), header.segment, true).map(drop)
    }

    /// The state replaces what earlier records said, understood or not. Holds the message if this one is not understood
    /// either.
    fn hold_what_says_more(
        &mut self,
        header: &RecordHeader,
        front: &Front,
        states: &[ChangedRecipient],
    ) -> Result<(), SpoolError> {
        self.unread.remove(&header.id);
        match says_more(&front.meta, states) {
            true => self.hold_unread(header.id, "the state of a recipient", header.segment),
            false => Ok(()),
        }
    }

    /// Holds a message that a later version changed in a way that this one does not understand. The hold is in the
    /// index alone, and the index is rebuilt at each start, so a version that understands the change finds no hold.
    fn hold_unread(&mut self, id: QueueId, what: &str, at: u64) -> Result<(), SpoolError> {
        let reason = format!("a later version changed it in a way that this one cannot read: {what}");
        self.index.amend(id, &Amendment::Hold(HoldReason::Operator(reason)), at)?;
        self.unread.insert(id);
        tracing::warn!(queue_id = %id, what, "a message is held: a later version changed it in a way that this one cannot read");
        Ok(())
    }

    fn keep(&mut self, header: &RecordHeader, what: &str) -> Result<(), SpoolError> {
        let id = header.id;
        self.damaged += 1;
        let Some(lost_found) = self.lost_found else { return Ok(()) };
        let octets = self.log.octets(header).ok();
        let evidence = Evidence { id, what, meta: "", place: None, octets, body: None };
        let kept = lost_found.preserve(&evidence);
        kept.map_err(|error| SpoolError::Store(format!("damaged message {id}: {error}").into()))?;
        tracing::error!(queue_id = %id, what, "A MESSAGE IN THE SPOOL IS DAMAGED and was set aside");
        Ok(())
    }

    /// Keeps the damaged octets between records.
    fn gaps(&self, scans: &BTreeMap<u64, Scan>) -> Result<(), ReplayError> {
        let Some(lost_found) = self.lost_found else { return Ok(()) };
        let new = |gap: &&Gap| (gap.segment, gap.to) > (self.reached.segment, self.reached.position);
        for gap in scans.values().flat_map(|scan| &scan.gaps).filter(new) {
            let Some(found) = self.log.segments.get(&gap.segment) else { continue };
            let to = gap.to.min(found.length);
            tracing::error!(
                segment = gap.segment,
                from = gap.from,
                to = gap.to,
                "THE SPOOL'S LOG IS DAMAGED: these octets are not records; they are kept in damaged/"
            );
            if gap.from < to && gap.from >= SEGMENT_HEADER {
                let octets = read_at(&*self.log.file(gap.segment)?, gap.from, to - gap.from)?;
                let name = format!("segment-{:016x}-at-{}", gap.segment, gap.from);
                lost_found.preserve_gap(&name, &octets)?;
            }
        }
        Ok(())
    }
}

/// Groups the records by operation. An operation that is incomplete at the end of the log does not count.
fn groups(records: impl Iterator<Item = RecordHeader>, durable: u64) -> Vec<Vec<RecordHeader>> {
    let mut groups: Vec<Vec<RecordHeader>> = Vec::new();
    let mut open: Vec<RecordHeader> = Vec::new();
    for record in records {
        if open.last().is_some_and(|last| last.sequence.saturating_add(1) != record.sequence) {
            // Part of it is damaged. The rest counts, since the whole was durable.
            groups.extend(open.drain(..).map(|record| vec![record]));
        }
        open.push(record);
        if record.rest == 0 {
            groups.push(std::mem::take(&mut open));
        }
    }
    groups.extend(open.into_iter().filter(|record| record.sequence <= durable).map(|record| vec![record]));
    groups
}
