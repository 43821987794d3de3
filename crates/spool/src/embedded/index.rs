//! The effect of each record of the log on the index: the one place where a message's state changes.
//!
//! The committer calls it for records that it is about to write, inside the transaction that it opened. Recovery calls
//! it for records that it reads. Both come to the same rows, since the result depends only on the record and the index.

use pintle_mail::{Bytes, QueueId, UnixTime};

use super::database::Database;
use super::meta::{Amendment, ChangedRecipient, MessageMeta, MessageState, Tombstones};
use super::row::MessageRow;
use super::segment_file::Extent;
use super::segments::Edge;
use crate::fault::{CrashPoint, Faults};
use crate::{Change, DeliveryStatus, Guard, HoldReason, SpoolError, Waiting};

/// What an operation changes once it is durable, besides the messages that it adds.
#[derive(Default)]
pub(crate) struct Effect {
    /// A message that differs from what was committed.
    pub(crate) changed: Option<QueueId>,
    /// A message that was removed.
    pub(crate) removed: Option<RemovedMessage>,
    /// A record that was copied: from where, and to where.
    pub(crate) moved: Option<(Extent, Extent)>,
    /// A message that was held or released.
    pub(crate) hold_change: Option<HoldChange>,
    /// A message that became pending.
    pub(crate) announced: Option<Waiting>,
    /// The segment, if it has its first record of a change to the message now.
    pub(crate) marked: Option<u64>,
    /// Segments whose records of changes to the message are no longer needed.
    pub(crate) unmarked: Vec<u64>,
    /// New reasons to keep segments.
    pub(crate) edges: Vec<Edge>,
    /// A segment whose tombstones have all been written again.
    pub(crate) cleared: Option<u64>,
}

/// A message's hold, before and after.
pub(crate) struct HoldChange {
    pub(crate) size: u64,
    pub(crate) before: Option<HoldReason>,
    pub(crate) now: Option<HoldReason>,
}

impl Effect {
    /// The hold that the message had before, for the caller.
    pub(crate) fn before(&self) -> Option<HoldReason> {
        self.hold_change.as_ref().and_then(|change| change.before.clone())
    }
}

/// A message whose row was deleted.
pub(crate) struct RemovedMessage {
    pub(crate) place: Extent,
    pub(crate) file: Option<String>,
    pub(crate) size: u64,
    pub(crate) hold: Option<HoldReason>,
    /// It was set aside, and its body file is kept in `damaged/`.
    pub(crate) damaged: bool,
}

/// The index, with an open transaction.
#[derive(Clone, Copy)]
pub(crate) struct Index<'a> {
    pub(crate) database: &'a Database,
    pub(crate) faults: &'a Faults,
}

impl Index<'_> {
    /// Adds a new message.
    pub(crate) fn admit(&self, id: QueueId, row: &MessageRow) -> Result<(), SpoolError> {
        self.database.insert(id, row)?;
        self.pass(CrashPoint::Inserted)
    }

    /// Stores new statuses of recipients. The record with them is in the segment `at`. The message is removed when no
    /// recipient is pending any more, or when the record `ends` it.
    pub(crate) fn settle(
        &self,
        id: QueueId,
        (changes, guard): (&[Change], Guard),
        at: u64,
        ends: bool,
    ) -> Result<Effect, SpoolError> {
        let row = self.database.message(id)?;
        guard.check(id, row.hold(id)?.as_ref())?;
        if ends {
            return self.remove(id, row, at);
        }
        let numbers = row.numbers(id)?;
        let touched = self.touched(id, &row)?;
        check_numbers(id, changes.iter().map(|change| change.recipient), &numbers)?;
        let plan = EffectiveChanges::new(&numbers, &touched, changes);
        let effect = match plan.open {
            0 => self.remove(id, row, at)?,
            _ => self.put_statuses(id, row, (&plan.changes, &touched), at)?,
        };
        self.pass(CrashPoint::Settled)?;
        Ok(effect)
    }

    /// Checks that none of these recipients is done, which would contradict a report about them.
    pub(crate) fn check_pending(&self, id: QueueId, changes: &[Change]) -> Result<(), SpoolError> {
        let touched = self.touched(id, &self.database.message(id)?)?;
        let done = touched.iter().filter(|touched| matches!(touched.status, Some(DeliveryStatus::Done(_))));
        let done: std::collections::HashSet<u32> = done.map(|touched| touched.number).collect();
        let is_done = changes.iter().any(|change| done.contains(&change.recipient));
        if is_done { Err(SpoolError::RecipientsChanged(id)) } else { Ok(()) }
    }

    /// Holds, releases or reroutes a message, or replaces its context.
    pub(crate) fn amend(&self, id: QueueId, amendment: &Amendment, at: u64) -> Result<Effect, SpoolError> {
        let mut row = self.database.message(id)?;
        let mut effect = Effect { changed: Some(id), ..Effect::default() };
        match amendment {
            Amendment::Hold(hold) => effect.hold_change = Some(hold_row(id, &mut row, hold)?),
            Amendment::Release(at) => {
                let before = row.hold(id)?;
                if before.as_ref().and_then(HoldReason::quarantine).is_some() {
                    row.released = Some(at.millis());
                }
                row.hold = None;
                effect.hold_change = Some(HoldChange { size: row.size, before, now: None });
            }
            Amendment::Reroute(recipients, next_hop) => {
                let numbers = row.numbers(id)?;
                check_numbers(id, recipients.iter().copied(), &numbers)?;
                let touched = self.touched(id, &row)?;
                let chosen = if recipients.is_empty() { &numbers } else { recipients };
                for number in chosen {
                    let before = known(&touched, *number);
                    self.database.set_touched(id, &ChangedRecipient { route: next_hop.clone(), ..before })?;
                }
            }
            Amendment::Context { octets } => self.database.set_context(id, octets)?,
        }
        effect.marked = self.touch(id, row, at)?;
        if matches!(amendment, Amendment::Release(_)) {
            effect.announced = Some(self.waiting(id)?);
        }
        Ok(effect)
    }

    /// Removes a message that cannot be served.
    pub(crate) fn set_aside(&self, id: QueueId, at: u64) -> Result<Effect, SpoolError> {
        let row = self.database.message(id)?;
        let mut effect = self.remove(id, row, at)?;
        if let Some(gone) = &mut effect.removed {
            gone.damaged = true;
        }
        Ok(effect)
    }

    /// A message's record has been copied to this place, with its current state.
    pub(crate) fn copy(
        &self,
        id: QueueId,
        (written, json): (MessageMeta, String),
        to: Extent,
        size: u64,
    ) -> Result<Effect, SpoolError> {
        let state = MessageState {
            hold: written.hold.clone(),
            released: written.released,
            states: written.states.clone(),
            context: None,
        };
        let Some(mut row) = self.database.find(id)? else {
            let mut row = MessageRow::of(&written, json, to, size)?;
            self.put_state(id, &mut row, &state)?;
            self.database.insert(id, &row)?;
            return Ok(Effect::default());
        };
        let from = row.place;
        row.place = to;
        self.put_state(id, &mut row, &state)?;
        self.database.replace(id, &row)?;
        let edge = Edge { older: from.segment, newer: to.segment, copies: true };
        Ok(Effect {
            changed: Some(id),
            moved: Some((from, to)),
            unmarked: self.database.unmark(id)?,
            edges: self.edge(edge)?,
            ..Effect::default()
        })
    }

    /// Replaces a message's state. What earlier records say of it no longer counts.
    pub(crate) fn restate(&self, id: QueueId, state: &MessageState, at: u64) -> Result<Effect, SpoolError> {
        let mut row = self.database.message(id)?;
        self.put_state(id, &mut row, state)?;
        let unmarked = self.database.unmark(id)?;
        let marked = self.touch(id, row, at)?;
        Ok(Effect { changed: Some(id), marked, unmarked, ..Effect::default() })
    }

    /// Stores tombstones: messages that ended by records which are about to be deleted, while the messages' own records
    /// still exist.
    pub(crate) fn keep_tombstones(&self, tombstones: &Tombstones, at: u64) -> Result<Effect, SpoolError> {
        let mut effect = Effect::default();
        for (_, older) in &tombstones.ended {
            effect.edges.extend(self.edge(Edge { older: *older, newer: at, copies: false })?);
        }
        if tombstones.complete {
            self.database.clear_ends(tombstones.from)?;
            effect.cleared = Some(tombstones.from);
        }
        Ok(effect)
    }

    /// The row and the current state of a message.
    pub(crate) fn state(&self, id: QueueId) -> Result<(MessageRow, MessageState), SpoolError> {
        let row = self.database.message(id)?;
        let state = MessageState {
            hold: row.hold(id)?,
            released: row.released.map(UnixTime::from_millis),
            states: self.touched(id, &row)?,
            context: if row.touched { self.database.context(id)? } else { None },
        };
        Ok((row, state))
    }

    fn put_state(&self, id: QueueId, row: &mut MessageRow, state: &MessageState) -> Result<(), SpoolError> {
        row.set_hold(state.hold.as_ref())?;
        row.released = state.released.map(UnixTime::millis);
        if row.touched {
            self.database.forget_recipients(id)?;
            self.database.forget_context(id)?;
        }
        for touched in &state.states {
            self.database.set_touched(id, touched)?;
        }
        if let Some(context) = &state.context {
            self.database.set_context(id, context)?;
        }
        row.touched |= !state.states.is_empty() || state.context.is_some();
        Ok(())
    }

    fn remove(&self, id: QueueId, row: MessageRow, at: u64) -> Result<Effect, SpoolError> {
        let unmarked = self.database.remove(id, row.touched)?;
        let edges = self.edge(Edge { older: row.place.segment, newer: at, copies: false })?;
        let removed = Some(RemovedMessage::new(id, row));
        Ok(Effect { changed: Some(id), removed, unmarked, edges, ..Effect::default() })
    }

    fn edge(&self, edge: Edge) -> Result<Vec<Edge>, SpoolError> {
        if edge.older == edge.newer {
            return Ok(Vec::new());
        }
        self.database.add_edge(edge)?;
        Ok(vec![edge])
    }

    fn put_statuses(
        &self,
        id: QueueId,
        row: MessageRow,
        (changes, touched): (&[&Change], &[ChangedRecipient]),
        at: u64,
    ) -> Result<Effect, SpoolError> {
        for change in changes {
            let status = Some(change.status.clone());
            self.database
                .set_touched(id, &ChangedRecipient { status, ..known(touched, change.recipient) })?;
        }
        Ok(Effect { changed: Some(id), marked: self.touch(id, row, at)?, ..Effect::default() })
    }

    /// Writes the row of a changed message. The record of the change is in the segment `at`, which is returned if it is
    /// the first there.
    fn touch(&self, id: QueueId, mut row: MessageRow, at: u64) -> Result<Option<u64>, SpoolError> {
        row.touched = true;
        self.database.replace(id, &row)?;
        Ok(self.database.mark(id, at)?.then_some(at))
    }

    fn touched(&self, id: QueueId, row: &MessageRow) -> Result<Vec<ChangedRecipient>, SpoolError> {
        if row.touched { self.database.touched(id) } else { Ok(Vec::new()) }
    }

    /// The message as this transaction sees it.
    fn waiting(&self, id: QueueId) -> Result<Waiting, SpoolError> {
        let row = self.database.message(id)?;
        let entry = row.entry(id, Bytes::new())?;
        let states = self.database.states(id, row.touched, &entry)?;
        Ok(Waiting::new(id, &entry, row.size, &states))
    }

    fn pass(&self, point: CrashPoint) -> Result<(), SpoolError> {
        self.faults.check(point).map_err(|error| SpoolError::from_index(&error))
    }
}

impl RemovedMessage {
    fn new(id: QueueId, row: MessageRow) -> Self {
        // A hold that cannot be read has been counted as none.
        let hold = row.hold(id).unwrap_or_default();
        Self { place: row.place, file: row.file, size: row.size, hold, damaged: false }
    }
}

fn hold_row(id: QueueId, row: &mut MessageRow, hold: &HoldReason) -> Result<HoldChange, SpoolError> {
    let before = row.hold(id)?;
    let now = if hold.replaces(before.as_ref()) { Some(hold.clone()) } else { before.clone() };
    row.set_hold(now.as_ref())?;
    Ok(HoldChange { size: row.size, before, now })
}

fn known(touched: &[ChangedRecipient], number: u32) -> ChangedRecipient {
    let known = touched.iter().find(|touched| touched.number == number);
    known.cloned().unwrap_or(ChangedRecipient { number, status: None, route: None })
}

/// A settlement compared with what is known: which of its changes count, and how many recipients stay pending.
struct EffectiveChanges<'a> {
    changes: Vec<&'a Change>,
    open: usize,
}

impl<'a> EffectiveChanges<'a> {
    fn new(numbers: &[u32], touched: &[ChangedRecipient], changes: &'a [Change]) -> Self {
        let done = touched.iter().filter(|touched| matches!(touched.status, Some(DeliveryStatus::Done(_))));
        let mut done: std::collections::HashSet<u32> = done.map(|touched| touched.number).collect();
        let mut effective = Vec::with_capacity(changes.len());
        for change in changes {
            if done.contains(&change.recipient) {
                continue;
            }
            effective.push(change);
            if change.status.pending().is_none() {
                done.insert(change.recipient);
            }
        }
        let open = numbers.iter().filter(|number| !done.contains(number)).count();
        Self { changes: effective, open }
    }
}

fn check_numbers(id: QueueId, asked: impl Iterator<Item = u32>, known: &[u32]) -> Result<(), SpoolError> {
    for number in asked {
        if !known.contains(&number) {
            return Err(SpoolError::UnknownRecipient(id, number));
        }
    }
    Ok(())
}
