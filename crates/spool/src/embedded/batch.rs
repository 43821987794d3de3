//! One batch of the group commit: each operation becomes records with places in the log, and changes of the index
//! inside the transaction that the committer opened. Nothing is written here. The committer writes the records, syncs
//! them, and only then commits the transaction.

use pintle_mail::{Body, Bytes, QueueId};

use super::body::{StagedMessage, StagedSettlement};
use super::index::{Effect, Index};
use super::lost_found::{Evidence, LostAndFound};
use super::meta::{
    Amendment, MessageMeta, MessageMetaRef, MessageState, SetAsideReason, SettleMeta, Tombstones, from_json,
    text, to_json,
};
use super::operation::Operation;
use super::record::{Front, LogRecord, LogRecordKind, MessageParts, RecordHeader, clamp};
use super::row::MessageRow;
use super::scan::is_sound;
use super::segment_file::{Extent, is_absent, read_at};
use super::segments::Segments;
use super::verify::verify_message;
use crate::fault::CrashPoint;
use crate::{Guard, SpoolError};

/// The id in records that are not about one message.
fn nobody() -> QueueId {
    QueueId::from_bytes([0; 16])
}

/// The batch that is being built.
pub(crate) struct Batch<'a> {
    pub(crate) index: Index<'a>,
    pub(crate) segments: &'a mut Segments,
    pub(crate) lost_found: &'a LostAndFound,
    pub(crate) bodies: &'a std::path::Path,
    /// The records to write, and where.
    pub(crate) written: Vec<(LogRecord, Extent)>,
}

/// What one operation does, once it is durable.
#[derive(Default)]
pub(crate) struct OperationResult {
    pub(crate) effect: Effect,
    /// Where the records of its new messages are.
    pub(crate) places: Vec<Extent>,
}

impl Batch<'_> {
    /// Carries out one operation. The outer error ends the batch. The inner one concerns this operation alone, and then
    /// nothing of it has been done.
    pub(crate) fn execute(
        &mut self,
        operation: &Operation,
    ) -> Result<Result<OperationResult, SpoolError>, SpoolError> {
        let (cursor, written) = (self.segments.cursor(), self.written.len());
        // An operation of several statements that may be refused half way needs a savepoint.
        let guarded = operation.messages().len() > 1
            || operation.is_housekeeping()
            || matches!(operation, Operation::Settle(s, _) if !s.children.is_empty());
        let database = self.index.database;
        if guarded {
            database.execute("SAVEPOINT operation")?;
        }
        let result = self.carry_out(operation);
        if guarded && let Err(error) = &result {
            // Where the whole transaction has been rolled back, the rollback's error is the cause, unless the operation
            // was just refused.
            let whole = |failed| if is_refusal(error) { failed } else { error.clone() };
            database.execute("ROLLBACK TO operation").map_err(whole)?;
        }
        if guarded {
            database.execute("RELEASE operation")?;
        }
        if result.is_err() {
            self.segments.rewind(cursor);
            self.written.truncate(written);
        }
        match result {
            Err(error) if !concerns_it_alone(operation, &error) => Err(error),
            result => Ok(result),
        }
    }

    fn carry_out(&mut self, operation: &Operation) -> Result<OperationResult, SpoolError> {
        match operation {
            Operation::Commit(message, _) => Ok(OperationResult {
                places: self.add_messages(std::slice::from_ref(message), 0)?,
                ..OperationResult::default()
            }),
            Operation::Settle(settlement, _) => self.settle(settlement),
            Operation::Amend(id, amendment, guard, _) => self.amend(*id, amendment, *guard),
            Operation::SetAside(id, what) => self.set_aside(*id, what),
            Operation::Move(id, from, raw) => self.relocate(*id, *from, raw),
            Operation::Restate(id) => self.restate(*id),
            Operation::KeepTombstones(tombstones) => self.keep_tombstones(tombstones),
            Operation::Start => {
                self.mark(LogRecord::of(LogRecordKind::Start, nobody(), Vec::new()), |_, _| {
                    Ok(Effect::default())
                })
            }
            Operation::Rebuild(..) => Ok(OperationResult::default()),
        }
    }

    /// New messages. `more` records of the same operation come after theirs.
    fn add_messages(&mut self, messages: &[StagedMessage], more: usize) -> Result<Vec<Extent>, SpoolError> {
        let mut places = Vec::with_capacity(messages.len());
        for (at, message) in messages.iter().enumerate() {
            let (json, mut record) = message_record(message)?;
            record.followed_by(messages.len() - at - 1 + more);
            let place = self.place(&record, true)?;
            let size = message.size();
            let row = MessageRow::new(&message.entry, file_of(message), json, place, size)?;
            self.index.admit(message.id, &row)?;
            self.written.push((record, place));
            places.push(place);
        }
        Ok(places)
    }

    fn settle(&mut self, settlement: &StagedSettlement) -> Result<OperationResult, SpoolError> {
        let id = settlement.id;
        if !settlement.children.is_empty() {
            self.index.check_pending(id, &settlement.changes)?;
        }
        // Children first: a reader that stops anywhere in between never sees the status without its report.
        let places = self.add_messages(&settlement.children, 1)?;
        let meta = to_json(&SettleMeta::of(&settlement.changes))?;
        let mut record = LogRecord::of(LogRecordKind::Settle, id, meta);
        let place = self.place(&record, false)?;
        let changes = (settlement.changes.as_slice(), settlement.guard);
        let effect = self.index.settle(id, changes, place.segment, false)?;
        if let Some(gone) = &effect.removed {
            record.ends(gone.place.segment);
        }
        self.written.push((record, place));
        Ok(OperationResult { effect, places })
    }

    fn amend(
        &mut self,
        id: QueueId,
        amendment: &Amendment,
        guard: Guard,
    ) -> Result<OperationResult, SpoolError> {
        let held = self.index.database.message(id)?.hold(id)?;
        guard.check(id, held.as_ref())?;
        if matches!(amendment, Amendment::Release(_)) && held.is_none() {
            return Ok(OperationResult {
                effect: Effect { changed: Some(id), ..Effect::default() },
                ..OperationResult::default()
            });
        }
        let octets = amendment.octets().clone();
        let record = LogRecord::of_context(LogRecordKind::Amend, id, to_json(amendment)?, octets);
        self.mark(record, |index, at| index.amend(id, amendment, at))
    }

    /// The remains of the message are kept first, durably: once the record counts, its octets may be deleted.
    fn set_aside(&mut self, id: QueueId, what: &str) -> Result<OperationResult, SpoolError> {
        let row = self.index.database.message(id)?;
        if self.is_served(id, &row) {
            tracing::warn!(queue_id = %id, what, "a message looked damaged, reads well now, and stays in the spool");
            return Ok(OperationResult::default());
        }
        self.preserve(id, &row, what).map_err(|error| {
            tracing::error!(queue_id = %id, what, %error, "a damaged message could not be set aside");
            SpoolError::Damaged(
                id,
                format!("{what}; its remains could not be written to damaged/: {error}").into(),
            )
        })?;
        let mut record =
            LogRecord::of(LogRecordKind::SetAside, id, to_json(&SetAsideReason { what: what.to_owned() })?);
        record.ends(row.place.segment);
        let done = self.mark(record, |index, at| index.set_aside(id, at))?;
        let kept = self.lost_found.damaged.display();
        tracing::error!(
            queue_id = %id, what,
            "A MESSAGE IN THE SPOOL IS DAMAGED and was set aside: what is left of it is in {kept}"
        );
        Ok(done)
    }

    /// Whether all of the message can be read now.
    fn is_served(&self, id: QueueId, row: &MessageRow) -> bool {
        let seed = self.segments.identity().seed();
        let file = self.segments.file(row.place.segment);
        let damage = file.and_then(|file| verify_message((id, row), &file, seed, self.bodies));
        matches!(damage, Ok(None)) && self.index.state(id).is_ok() && row.entry(id, Bytes::new()).is_ok()
    }

    /// A read error that may pass fails the operation: after it the segment may be deleted.
    fn preserve(&self, id: QueueId, row: &MessageRow, what: &str) -> std::io::Result<()> {
        let Extent { segment, position, length } = row.place;
        let octets = match self.segments.file(segment).and_then(|file| read_at(&file, position, length)) {
            Err(error) if is_absent(&error) => None,
            octets => Some(octets?),
        };
        let body = row.file.as_ref().map(|file| self.bodies.join(file));
        let place = Some(row.place);
        self.lost_found.preserve(&Evidence { id, what, meta: &row.meta, place, octets, body })
    }

    fn relocate(&mut self, id: QueueId, from: Extent, raw: &Bytes) -> Result<OperationResult, SpoolError> {
        // It may have been moved or removed since the compactor read it.
        if !self.index.database.is_at(id, from.segment, from.position)? {
            return Ok(OperationResult::default());
        }
        self.check_understood(id)?;
        let (row, state) = self.index.state(id)?;
        let damaged = |what: String| SpoolError::Damaged(id, what.into());
        let (record, written, json) =
            copy_record(raw, from, &state, self.segments.identity().seed()).map_err(damaged)?;
        let place = self.place(&record, false)?;
        self.index.faults.check(CrashPoint::Moved).map_err(|error| SpoolError::from_io(&error))?;
        let effect = self.index.copy(id, (written, json), place, row.size)?;
        self.written.push((record, place));
        Ok(OperationResult { effect, places: Vec::new() })
    }

    /// A message whose context was replaced is copied together with it: octets of messages are counted as needed by their
    /// segment, so that compaction does not write contexts again and again.
    fn restate(&mut self, id: QueueId) -> Result<OperationResult, SpoolError> {
        self.check_understood(id)?;
        let (row, state) = self.index.state(id)?;
        if state.context.is_some() {
            let raw = self.sound_record(id, row.place)?;
            return self.relocate(id, row.place, &raw);
        }
        let record = LogRecord::of(LogRecordKind::State, id, to_json(&state)?);
        self.mark(record, |index, at| index.restate(id, &state, at))
    }

    /// The octets of a message's record. A copy of damaged ones would get a good checksum.
    fn sound_record(&self, id: QueueId, place: Extent) -> Result<Bytes, SpoolError> {
        let read = self.segments.file(place.segment);
        let read = read.and_then(|file| read_at(&file, place.position, place.length));
        let raw = read.map_err(|error| SpoolError::Store(error.to_string().into()))?;
        let seed = self.segments.identity().seed();
        match RecordHeader::decode(&raw, seed, place.segment, place.position) {
            Some(header) if is_sound(&raw, &header) => Ok(raw),
            _ => Err(SpoolError::Damaged(id, "its record's checksum is wrong".into())),
        }
    }

    /// A rewritten record says only what this version understands. The rest would be lost with the segment.
    fn check_understood(&self, id: QueueId) -> Result<(), SpoolError> {
        match self.index.database.unread.contains(&id) {
            true => Err(SpoolError::Store(
                format!("the log has changes of {id} that this version does not understand").into(),
            )),
            false => Ok(()),
        }
    }

    fn keep_tombstones(&mut self, tombstones: &Tombstones) -> Result<OperationResult, SpoolError> {
        let (segments, from) = (&self.segments, tombstones.from);
        let kept = tombstones.ended.iter().filter(|(_, older)| *older != from && segments.contains(*older));
        let tombstones = Tombstones { from, ended: kept.copied().collect(), complete: tombstones.complete };
        let record = LogRecord::of(LogRecordKind::Tombstones, nobody(), to_json(&tombstones)?);
        self.mark(record, |index, at| index.keep_tombstones(&tombstones, at))
    }

    /// A record without a message's bytes, and its effect on the index.
    fn mark(
        &mut self,
        record: LogRecord,
        act: impl FnOnce(&Index<'_>, u64) -> Result<Effect, SpoolError>,
    ) -> Result<OperationResult, SpoolError> {
        let place = self.place(&record, false)?;
        let effect = act(&self.index, place.segment)?;
        self.written.push((record, place));
        Ok(OperationResult { effect, places: Vec::new() })
    }

    fn place(&mut self, record: &LogRecord, mail: bool) -> Result<Extent, SpoolError> {
        self.segments.place(record.length(), mail).map_err(|error| match SpoolError::from_io(&error) {
            SpoolError::Full => SpoolError::Full,
            _ => SpoolError::Store(format!("a new segment of the log could not be made: {error}").into()),
        })
    }
}

/// The record of a message that is being committed, and the text of its metadata.
pub(crate) fn message_record(message: &StagedMessage) -> Result<(String, LogRecord), SpoolError> {
    let written = MessageMetaRef {
        id: message.id,
        entry: &message.entry,
        hold: message.entry.hold.as_ref(),
        released: message.entry.released,
        file: file_of(message),
        states: &[],
    };
    let meta = to_json(&written)?;
    let json =
        String::from_utf8(meta.clone()).map_err(|error| SpoolError::Store(error.to_string().into()))?;
    let parts = MessageParts {
        context: message.entry.context.clone(),
        head: message.head.clone(),
        checksums: message.body.checksums(),
        body: message.body.size(),
        inline: message.body.bytes().cloned().unwrap_or_default(),
    };
    Ok((json, LogRecord::with(LogRecordKind::Message, message.id, meta, parts)))
}

/// A copy of a message's record with its current state. Metadata that a later version added stays.
pub(crate) fn copy_record(
    raw: &Bytes,
    from: Extent,
    state: &MessageState,
    seed: u32,
) -> Result<(LogRecord, MessageMeta, String), String> {
    let lost = || "its record changed while it was being copied".to_owned();
    let header = RecordHeader::decode(raw, seed, from.segment, from.position).ok_or_else(lost)?;
    let front = Front::decode(raw, &header).ok_or_else(lost)?;
    let written: MessageMeta = from_json(&front.meta)?;
    let mut said: serde_json::Map<String, serde_json::Value> = from_json(&front.meta)?;
    said.retain(|key, _| !["hold", "released", "states"].contains(&key.as_str()));
    let serde_json::Value::Object(now) = serde_json::to_value(state).map_err(|error| error.to_string())?
    else {
        return Err(lost());
    };
    said.extend(now);
    let meta = to_json(&said).map_err(|error| error.to_string())?;
    let MessageState { hold, released, states, context } = state.clone();
    let written = MessageMeta { hold, released, states, ..written };
    let json = text(&meta.clone().into())?;
    let parts = MessageParts {
        context: context.unwrap_or(front.context),
        head: front.head,
        checksums: &front.checksums,
        body: header.body,
        inline: raw.slice(clamp(header.front())..clamp(header.length())),
    };
    Ok((LogRecord::with(LogRecordKind::Copy, header.id, meta, parts), written, json))
}

fn file_of(message: &StagedMessage) -> Option<&str> {
    message.body.file()?.name()
}

/// Whether the other operations of the batch are carried out all the same. Compaction, for which no caller waits, must
/// not fail the operations of callers. An index that cannot be used concerns all of them.
fn concerns_it_alone(operation: &Operation, error: &SpoolError) -> bool {
    let no_more = operation.is_housekeeping() && matches!(error, SpoolError::Full | SpoolError::Store(_));
    no_more || is_refusal(error)
}

/// Whether the error concerns the caller or one message. Any other error is the store's and ends the batch.
pub(crate) fn is_refusal(error: &SpoolError) -> bool {
    matches!(
        error,
        SpoolError::Unknown(_)
            | SpoolError::UnknownRecipient(..)
            | SpoolError::Duplicate(_)
            | SpoolError::Damaged(..)
            | SpoolError::HoldChanged(_)
            | SpoolError::RecipientsChanged(_)
    )
}
