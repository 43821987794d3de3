//! The committer: the one thread that writes, with group commit. It takes all operations that wait, makes them durable
//! with one sync, then answers all.
//!
//! A batch goes in four steps: build its records and its changes of the index, in one transaction; append the records
//! to the log and sync (fsync) it; commit the transaction; answer. From the sync on the batch counts, whatever happens
//! to the database, which is brought up from the log when it falls behind (`index_recovery.rs`). Operations take effect
//! in the order in which they came, so those on one message keep their order. All changes on disk are made by this
//! thread, so the modules below need no locks.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ballast::Ballast;
use super::batch::{Batch, OperationResult};
use super::body::StagedMessage;
use super::compactor::Compactor;
use super::database::{Database, LogPosition};
use super::folders::Folders;
use super::index::{Index, RemovedMessage};
use super::index_lag::IndexLag;
use super::operation::{Inbox, Operation};
use super::record::LogRecord;
use super::segment_file::Extent;
use super::segments::Segments;
use super::shared::EngineShared;
use crate::fault::CrashPoint;
use crate::{Receipt, Settled, SpoolError};

/// How often `unreferenced/` is checked for old files.
const SWEEP: Duration = Duration::from_secs(3600);

/// The result of a batch, per operation.
type BatchResult = Result<Vec<Result<OperationResult, SpoolError>>, SpoolError>;

/// The state that the committer's thread owns.
pub(crate) struct Committer {
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) database: Database,
    pub(crate) segments: Segments,
    pub(crate) compactor: Compactor,
    pub(crate) ballast: Ballast,
    pub(crate) shared: Arc<EngineShared>,
    pub(crate) folders: Folders,
    /// Set while the index lacks what the log has.
    pub(crate) index_lag: Option<IndexLag>,
    /// The index was rebuilt, and the messages in each segment have not been counted by it yet.
    pub(crate) uncounted: bool,
    /// Deleted segments whose edges are still in the database.
    pub(crate) deleted_segments: Vec<u64>,
    pub(crate) swept: Instant,
    /// The lock of the folder.
    pub(crate) _lock: File,
}

impl Committer {
    /// Serves operations until the inbox is closed and empty.
    pub(crate) fn run(mut self) {
        let _guard = CloseInboxOnExit(self.inbox.clone(), self.shared.clone());
        while !self.shared.faults.crashed() {
            let until = if self.has_work() { Some(Instant::now()) } else { self.retry_at() };
            let Some(batch) = self.inbox.take(until) else {
                break;
            };
            self.turn(batch);
        }
    }

    /// Serves a batch, together with one step of compaction.
    pub(crate) fn turn(&mut self, mut batch: Vec<Operation>) {
        if self.index_lag.is_some() && self.retry_if_due().is_ok() {
            self.housekeep();
        }
        if self.has_work() {
            batch.extend(self.compactor.step(&self.segments, &self.database));
        }
        if !batch.is_empty() {
            self.serve(batch);
        }
    }

    /// Serves all operations that wait now, and finishes the compaction.
    pub(crate) fn turn_all(&mut self) {
        while !self.shared.faults.crashed() {
            let batch = self.inbox.take_now();
            if batch.is_empty() && !self.has_work() {
                break;
            }
            self.turn(batch);
        }
    }

    /// Whether the compactor has work. A broken spool is not compacted.
    pub(crate) fn has_work(&self) -> bool {
        let usable = self.shared.health.broken().is_none() && self.index_lag.is_none() && !self.uncounted;
        usable && self.compactor.has_work(&self.segments)
    }

    /// Carries out the first operations of a run, before those of callers.
    ///
    /// # Errors
    /// They could not be made durable.
    pub(crate) fn run_first(&mut self, first: Vec<Operation>) -> Result<(), SpoolError> {
        let done = match self.write_or_rebuild(&first) {
            Err(SpoolError::Full) => {
                // A queue that fills the disk must still be delivered.
                self.ballast.release();
                self.write_or_rebuild(&first)?
            }
            done => done?,
        };
        self.answer(first, done);
        Ok(())
    }

    fn serve(&mut self, batch: Vec<Operation>) {
        for operation in &batch {
            if let Operation::Rebuild(generation, what) = operation {
                self.rebuild_if(*generation, what);
            }
        }
        match self.write_or_rebuild(&batch) {
            _ if self.shared.faults.crashed() => {}
            Ok(done) => self.answer(batch, done),
            Err(SpoolError::Full) => self.serve_on_full_disk(batch),
            Err(error) => self.refuse(batch, &error),
        }
    }

    fn serve_again(&mut self, batch: Vec<Operation>) {
        match self.write_or_rebuild(&batch) {
            _ if self.shared.faults.crashed() => {}
            Ok(done) => self.answer(batch, done),
            Err(error) => self.refuse(batch, &error),
        }
    }

    /// On a full disk new mail and compaction have to wait. Operations that make room do not.
    fn serve_on_full_disk(&mut self, batch: Vec<Operation>) {
        let (urgent, rest): (Vec<_>, Vec<_>) = batch.into_iter().partition(Operation::makes_room);
        self.refuse(rest, &SpoolError::Full);
        if !urgent.is_empty() {
            self.ballast.release();
            self.serve_again(urgent);
        }
    }

    /// Makes a batch durable. Where the index cannot be used, it is rebuilt first.
    fn write_or_rebuild(&mut self, batch: &[Operation]) -> BatchResult {
        let (begun, generation) = (Instant::now(), self.shared.generation());
        let mut written = self.write(batch);
        if matches!(written, Err(SpoolError::Unavailable(_))) {
            written = self.write(batch);
        }
        if let Err(SpoolError::Unavailable(what)) = &written {
            self.rebuild_if(generation, &what.clone());
            written = self.write(batch);
        }
        written.map_err(|error| match error {
            SpoolError::Unavailable(what) => self.give_up_index(&what, begun.elapsed()),
            error => error,
        })
    }

    /// Makes a batch durable. After an error it is unknown whether any of it is.
    fn write(&mut self, batch: &[Operation]) -> BatchResult {
        if let Some(why) = self.shared.health.broken() {
            return Err(SpoolError::Broken(why));
        }
        self.retry_if_due()?;
        let begins = self.shared.faults.check(CrashPoint::Begin);
        begins.map_err(|error| SpoolError::from_index(&error))?;
        self.database.execute("BEGIN IMMEDIATE")?;
        let cursor = self.segments.cursor();
        let mut written = Vec::new();
        let put_together = self.build(batch, &mut written);
        let done = put_together.inspect_err(|_| {
            self.segments.rewind(cursor);
            self.roll_back();
        })?;
        keep_files(batch, true);
        if !written.is_empty() {
            self.append(&mut written).inspect_err(|error| {
                self.roll_back();
                // Where the records may be on disk, their body files must stay. The next start decides.
                if !matches!(error, SpoolError::Broken(_)) {
                    keep_files(batch, false);
                }
            })?;
        }
        self.commit_index()?;
        Ok(done)
    }

    /// Carries out the operations on the index and collects their records.
    fn build(&mut self, batch: &[Operation], written: &mut Vec<(LogRecord, Extent)>) -> BatchResult {
        for segment in &self.deleted_segments {
            self.database.forget_segment(*segment)?;
        }
        let index = Index { database: &self.database, faults: &self.shared.faults };
        let (lost_found, bodies) = (&self.folders.lost_found, self.folders.bodies.as_path());
        let mut batch_of = Batch {
            index,
            segments: &mut self.segments,
            lost_found,
            bodies,
            written: std::mem::take(written),
        };
        let done = batch.iter().map(|operation| batch_of.execute(operation));
        let done = done.collect::<Result<Vec<_>, _>>()?;
        *written = batch_of.written;
        if !written.is_empty() {
            let (segment, position) = self.segments.end();
            let sequence = self.segments.sequence() + written.len() as u64;
            self.database.set_reached(LogPosition { segment, position, sequence })?;
        }
        Ok(done)
    }

    fn append(&mut self, written: &mut [(LogRecord, Extent)]) -> Result<(), SpoolError> {
        self.segments.write(written).map_err(|error| write_error(&error))?;
        self.segments.sync().map_err(|error| sync_error(&error))
    }

    /// The records are durable, so the batch counts. A database that fails to commit it is brought up from the log.
    fn commit_index(&mut self) -> Result<(), SpoolError> {
        let committed = self
            .shared
            .faults
            .check(CrashPoint::Commit)
            .map_err(|error| SpoolError::from_index(&error))
            .and_then(|()| self.database.execute("COMMIT"));
        match committed {
            Ok(()) => self.deleted_segments.clear(),
            Err(_) if self.shared.faults.crashed() => {}
            Err(error) => self.fall_behind(&error),
        }
        self.shared.faults.check(CrashPoint::Committed).map_err(|error| sync_error(&error))
    }

    fn answer(&mut self, batch: Vec<Operation>, done: Vec<Result<OperationResult, SpoolError>>) {
        for (operation, done) in batch.into_iter().zip(done) {
            self.answer_one(operation, done);
        }
        self.housekeep();
    }

    fn answer_one(&mut self, operation: Operation, done: Result<OperationResult, SpoolError>) {
        match done {
            Ok(mut done) => {
                let answer = Answered {
                    removed: done.effect.removed.is_some(),
                    before: done.effect.before(),
                    places: std::mem::take(&mut done.places),
                };
                self.apply(done);
                self.send_answer(operation, answer);
            }
            Err(error) => {
                keep_files(std::slice::from_ref(&operation), false);
                if operation.is_housekeeping() {
                    // The compactor would ask for it again and again.
                    self.compactor.give_up(&self.segments);
                }
                if let (SpoolError::Damaged(id, what), false) =
                    (&error, matches!(operation, Operation::SetAside(..)))
                {
                    self.inbox.submit(Operation::SetAside(*id, what.to_string()));
                }
                operation.fail(error);
            }
        }
    }

    /// Applies what has become durable to the state in memory and to the folder.
    fn apply(&mut self, done: OperationResult) {
        let effect = done.effect;
        if let Some(id) = effect.changed {
            self.shared.recent.evict(id);
        }
        if let Some((from, to)) = effect.moved {
            self.segments.subtract_live(from);
            self.segments.add_live(to);
        }
        for segment in effect.unmarked {
            self.segments.mark(segment, false);
        }
        if let Some(segment) = effect.marked {
            self.segments.mark(segment, true);
        }
        effect.edges.into_iter().for_each(|edge| self.segments.add_edge(edge));
        if let Some(segment) = effect.cleared {
            self.segments.clear_ends(segment);
        }
        if let Some(gone) = effect.removed {
            self.shared.count_out(&gone);
            self.unlink_body(&gone);
            self.segments.subtract_live(gone.place);
        }
        if let Some(change) = &effect.hold_change {
            self.shared.count_held(change);
        }
        if let Some(waiting) = effect.announced {
            self.shared.announce(|| waiting);
        }
    }

    /// The remains of a damaged message are in `damaged/`; other removed messages no longer need their body files.
    fn unlink_body(&self, gone: &RemovedMessage) {
        let Some(file) = &gone.file else { return };
        let unlinked = self.shared.faults.check(CrashPoint::Unlink);
        let unlinked = unlinked.and_then(|()| std::fs::remove_file(self.folders.bodies.join(file)));
        if let Err(error) = unlinked {
            tracing::warn!(file, %error, "the body file of a finished message could not be deleted; the next start moves it to unreferenced/");
        }
    }

    /// Housekeeping, after all callers have their answers.
    fn housekeep(&mut self) {
        if self.index_lag.is_some() {
            return;
        }
        if self.uncounted
            && let Err(error) = self.recount_segments()
        {
            tracing::warn!(%error, "the live messages in the spool's segments could not be counted; no segment is deleted until they are");
        }
        if !self.uncounted {
            self.reclaim();
        }
        if let Err(error) = self.segments.prepare() {
            tracing::debug!(%error, "the next segment could not be made in advance");
        }
        self.ballast.restore();
        self.sweep();
    }

    fn reclaim(&mut self) {
        match self.segments.reclaim() {
            Ok(gone) => self.deleted_segments.extend(gone),
            Err(error) => {
                tracing::warn!(%error, "a segment that is no longer needed could not be deleted; trying again later");
            }
        }
    }

    /// Does nothing until the process has run for an hour.
    fn sweep(&mut self) {
        if self.swept.elapsed() < SWEEP {
            return;
        }
        self.swept = Instant::now();
        match self.folders.lost_found.expire(SWEEP) {
            Ok(0) => {}
            Ok(files) => tracing::info!(files, "files in unreferenced/ were deleted after seven days"),
            Err(error) => tracing::warn!(%error, "files in unreferenced/ could not be deleted"),
        }
    }

    fn send_answer(&mut self, operation: Operation, done: Answered) {
        // A caller that has gone away does not get its answer. The work is done all the same.
        match operation {
            Operation::Commit(message, answer) => {
                if let Some(place) = done.places.first() {
                    drop(answer.send(Ok(self.admit(*message, *place))));
                }
            }
            Operation::Settle(settlement, answer) => {
                let children = settlement.children.into_iter().zip(done.places);
                let children = children.map(|(message, place)| self.admit(message, place)).collect();
                drop(answer.send(Ok(Settled { removed: done.removed, children })));
            }
            Operation::Amend(_, _, _, answer) => drop(answer.send(Ok(done.before))),
            _ => {}
        }
    }

    /// Counts a new message, and announces it to the queue.
    fn admit(&mut self, message: StagedMessage, place: Extent) -> Receipt {
        let id = message.id;
        self.segments.add_live(place);
        self.shared.admit(message);
        Receipt::mint(id)
    }

    fn refuse(&mut self, batch: Vec<Operation>, error: &SpoolError) {
        if batch.iter().any(Operation::is_housekeeping) {
            self.compactor.give_up(&self.segments);
        }
        if let SpoolError::Broken(why) = error {
            self.shared.health.break_down(why);
        }
        for operation in batch {
            operation.fail(error.clone());
        }
    }
}

/// The part of an operation's effect that its answer needs.
struct Answered {
    removed: bool,
    before: Option<crate::HoldReason>,
    places: Vec<Extent>,
}

/// Closes the inbox when the thread ends, even in a panic, so that no caller waits forever.
struct CloseInboxOnExit(Arc<Inbox>, Arc<EngineShared>);

impl Drop for CloseInboxOnExit {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.1.health.break_down(&"its committer thread panicked".into());
        }
        self.0.abandon();
    }
}

/// Says whether committed messages have the body files of a batch.
fn keep_files(batch: &[Operation], kept: bool) {
    for message in batch.iter().flat_map(Operation::messages) {
        if let Some(file) = message.body.file() {
            file.keep(kept);
        }
    }
}

/// A full disk fails the allocation of space, and passes. After any other failed write the disk cannot be trusted.
fn write_error(error: &io::Error) -> SpoolError {
    match SpoolError::from_io(error) {
        SpoolError::Full => SpoolError::Full,
        _ => SpoolError::Broken(format!("a write to the log failed: {error}").into()),
    }
}

fn sync_error(error: &io::Error) -> SpoolError {
    SpoolError::Broken(format!("a sync of the log failed: {error}").into())
}
