//! The one thread that writes: it takes whatever waits, makes it durable with as few syncs as can be, then answers all.
//!
//! A batch goes in three steps: append the records of all its messages and sync the log once; write all rows in one
//! transaction; answer. Operations take effect in the order in which they came, so one message's never overtake each
//! other. Everything that changes on disk changes here, which is why nothing below this needs a lock.

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::database::Database;
use super::mover::Mover;
use super::operation::{Inbox, Operation};
use super::record::Record;
use super::segments::{Place, Segments, read_at};
use super::shared::Shared;
use super::transaction::{Effect, Gone, Transaction};
use crate::content::Source;
use crate::fault::CrashPoint;
use crate::{Hold, NewMessage, Receipt, Settled, SpoolError};

/// What the committer's thread owns.
pub(crate) struct Committer {
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) database: Database,
    pub(crate) segments: Segments,
    pub(crate) mover: Mover,
    pub(crate) shared: Arc<Shared>,
    /// Held as long as we may write.
    pub(crate) lock: File,
}

/// What became of each operation of a batch, and where each record of the batch lies.
type Written = (Vec<Result<Effect, SpoolError>>, Vec<Place>);

impl Committer {
    /// Serves until the inbox is closed and empty.
    pub(crate) fn run(mut self) {
        let _guard = Abandon(self.inbox.clone(), self.shared.clone());
        while !self.shared.faults.crashed() {
            let Some(mut batch) = self.inbox.take(!self.mover.has_work(&self.segments)) else {
                break;
            };
            if self.shared.condition.broken().is_none() {
                batch.extend(self.mover.step(&self.segments, &self.database));
            }
            if !batch.is_empty() {
                self.serve(batch);
            }
        }
        drop(self.lock);
    }

    fn serve(&mut self, batch: Vec<Operation>) {
        match self.write(&batch) {
            _ if self.shared.faults.crashed() => {}
            Ok((effects, places)) => self.answer(batch, effects, places),
            Err(error) => self.refuse(batch, &error),
        }
    }

    /// Makes a batch durable. An error means that nothing of it is known to be.
    fn write(&mut self, batch: &[Operation]) -> Result<Written, SpoolError> {
        if let Some(why) = self.shared.condition.broken() {
            return Err(SpoolError::Broken(why));
        }
        let mut records: Vec<Record> = batch.iter().flat_map(records).collect();
        let mut places = Vec::new();
        if !records.is_empty() {
            places = self.segments.append(&mut records).map_err(|error| write_error(&error))?;
            self.segments.sync().map_err(|error| sync_error(&error))?;
        }
        self.database.execute("BEGIN IMMEDIATE")?;
        let effects = self.transact(batch, &places).inspect_err(|_| {
            // A transaction that failed for want of room or of a disk may have been rolled back already.
            let _ = self.database.execute("ROLLBACK");
        })?;
        Ok((effects, places))
    }

    fn transact(
        &self,
        batch: &[Operation],
        places: &[Place],
    ) -> Result<Vec<Result<Effect, SpoolError>>, SpoolError> {
        let faults = &self.shared.faults;
        let mut transaction = Transaction::new(&self.database, places, faults);
        let effects = batch.iter().map(|operation| transaction.execute(operation));
        let effects = effects.collect::<Result<Vec<_>, _>>()?;
        faults.check(CrashPoint::Commit).map_err(|error| sync_error(&error))?;
        keep_files(batch, true);
        self.database.execute("COMMIT").inspect_err(|error| {
            // When it is unknown whether the rows are there, their files must stay; the next start sorts them out.
            if !matches!(error, SpoolError::Broken(_)) {
                keep_files(batch, false);
            }
        })?;
        faults.check(CrashPoint::Committed).map_err(|error| sync_error(&error))?;
        Ok(effects)
    }

    fn answer(
        &mut self,
        batch: Vec<Operation>,
        effects: Vec<Result<Effect, SpoolError>>,
        places: Vec<Place>,
    ) {
        let mut places = places.into_iter();
        for (operation, effect) in batch.into_iter().zip(effects) {
            self.answer_one(operation, effect, &mut places);
        }
        if let Err(error) = self.segments.reclaim() {
            tracing::warn!(%error, "an empty segment of the spool could not be unlinked; the next start tries again");
        }
    }

    fn answer_one(
        &mut self,
        operation: Operation,
        effect: Result<Effect, SpoolError>,
        places: &mut impl Iterator<Item = Place>,
    ) {
        let records = records_of(&operation);
        match effect {
            Ok(effect) => {
                let done = Done { removed: effect.removed.is_some(), before: effect.before() };
                self.apply(effect);
                self.tell(operation, done, places);
            }
            Err(error) => {
                places.by_ref().take(records).for_each(drop);
                keep_files(std::slice::from_ref(&operation), false);
                if let SpoolError::Damaged(id, what) = &error {
                    self.inbox.submit(Operation::SetAside(*id, what.to_string()));
                }
                operation.fail(error);
            }
        }
    }

    /// Follows up in memory, and in the folder, what the transaction made true.
    fn apply(&mut self, effect: Effect) {
        if let Some(id) = effect.changed {
            self.shared.warm.evict(id);
        }
        if let Some((from, to)) = effect.moved {
            self.segments.bury(from);
            self.segments.revive(to);
        }
        if let Some(gone) = effect.removed {
            self.shared.count_out(&gone);
            self.clear_away(&gone);
            self.segments.bury(gone.place);
        }
        if let Some(change) = &effect.reheld {
            self.shared.count_held(change);
        }
        if let Some(waiting) = effect.announced {
            self.shared.announce(|| waiting);
        }
    }

    /// A damaged message's octets are kept for whoever wants to have a look; all others are of no more use.
    fn clear_away(&self, gone: &Gone) {
        match (&gone.file, gone.damaged) {
            (_, true) => self.preserve(gone),
            (Some(file), false) => self.unlink(file),
            (None, false) => {}
        }
    }

    fn preserve(&self, gone: &Gone) {
        let Place { segment, position, length } = gone.place;
        let path = self.shared.damaged.join(format!("{}.record", gone.id));
        let file = self.segments.file(segment);
        let copied =
            file.and_then(|file| read_at(&file, position, length)).and_then(|raw| std::fs::write(&path, raw));
        if let Err(error) = copied {
            tracing::warn!(id = %gone.id, %error, "the octets of a damaged message could not be kept");
        }
    }

    fn unlink(&self, file: &str) {
        let unlinked = self.shared.faults.check(CrashPoint::Unlink);
        let unlinked = unlinked.and_then(|()| std::fs::remove_file(self.shared.bodies.join(file)));
        if let Err(error) = unlinked {
            tracing::warn!(file, %error, "a delivered body's file could not be unlinked; the next start tries again");
        }
    }

    fn tell(&mut self, operation: Operation, done: Done, places: &mut impl Iterator<Item = Place>) {
        // Answers that nobody waits for any more are dropped: the work is done and will be found.
        match operation {
            Operation::Commit(messages, answer) => drop(answer.send(Ok(self.admit(messages, places)))),
            Operation::Settle(settlement, answer) => {
                let children = self.admit(settlement.children, places);
                drop(answer.send(Ok(Settled { removed: done.removed, children })));
            }
            Operation::Amend(_, _, answer) => drop(answer.send(Ok(done.before))),
            Operation::SetAside(..) => {}
            Operation::Move(..) => drop(places.next()),
        }
    }

    fn admit(&mut self, messages: Vec<NewMessage>, places: &mut impl Iterator<Item = Place>) -> Vec<Receipt> {
        let admitted = messages.into_iter().zip(places).map(|(message, place)| {
            let id = message.id;
            self.segments.revive(place);
            self.shared.admit(message);
            Receipt::mint(id)
        });
        admitted.collect()
    }

    fn refuse(&mut self, batch: Vec<Operation>, error: &SpoolError) {
        if let SpoolError::Broken(why) = error {
            self.shared.condition.break_down(why);
        }
        for operation in batch {
            operation.fail(error.clone());
        }
    }
}

/// What of an operation's effect goes into its answer.
struct Done {
    removed: bool,
    before: Option<Hold>,
}

/// Closes the inbox however the thread ends, a panic included, so that nobody waits for ever.
struct Abandon(Arc<Inbox>, Arc<Shared>);

impl Drop for Abandon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.1.condition.break_down(&"the committer panicked".into());
        }
        self.0.abandon();
    }
}

fn records(operation: &Operation) -> Vec<Record> {
    match operation {
        Operation::Move(_, _, raw) => vec![Record::copy(raw)],
        operation => operation.messages().iter().map(Record::of).collect(),
    }
}

fn records_of(operation: &Operation) -> usize {
    match operation {
        Operation::Move(..) => 1,
        operation => operation.messages().len(),
    }
}

/// Says whether the files of large bodies belong to committed messages.
fn keep_files(batch: &[Operation], kept: bool) {
    for message in batch.iter().flat_map(Operation::messages) {
        if let Source::File(_, own) = message.content.source() {
            own.keep(kept);
        }
    }
}

/// A full disk shows when space is asked for, and passes; any other failed write leaves a disk not to be trusted.
fn write_error(error: &io::Error) -> SpoolError {
    match SpoolError::from_io(error) {
        SpoolError::Full => SpoolError::Full,
        _ => SpoolError::Broken(format!("a write to the body log failed: {error}").into()),
    }
}

fn sync_error(error: &io::Error) -> SpoolError {
    SpoolError::Broken(format!("a sync failed: {error}").into())
}
