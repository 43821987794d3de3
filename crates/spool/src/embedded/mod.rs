//! The embedded engine, for a gateway that stands alone: an append-only log (the write-ahead log and the truth), an
//! index of it in SQLite, and one committer thread that does group commit.
//!
//! It promises that an answered commit or settlement survives a power cut, for one sync (fsync) per batch. One process
//! at a time works in a folder. `docs/decisions/001-body-log-and-sqlite.md` says why there is both a log and a
//! database, and `docs/decisions/006-log-is-the-truth.md` why the log is the truth.
//!
//! The folder has `identity`, `segments/` (the log), `bodies/` (large bodies, one file each), `envelopes.db` (the
//! index, with its `-wal` and `-shm`), `ballast` (a reserve file, deleted on a full disk), `damaged/` (messages that
//! cannot be served) and `unreferenced/` (files that the log does not name; they are deleted after a week).

mod ballast;
mod batch;
mod body;
mod census;
mod committer;
mod compactor;
mod context_table;
mod database;
mod draft;
mod file_cache;
mod folders;
#[cfg(any(test, feature = "crash-points"))]
mod fuzz;
mod identity;
mod index;
mod index_lag;
mod index_rebuild;
mod index_recovery;
mod inspect;
mod legacy;
mod lost_found;
mod meta;
mod open_error;
mod operation;
mod reader;
mod record;
mod recovery;
mod replay;
mod row;
mod scan;
mod segment_file;
mod segments;
mod shared;
mod verify;

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use pintle_mail::{NextHop, QueueId, UnixTime};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::oneshot;

use self::ballast::Ballast;
use self::body::{BodyFile, StagedMessage, StagedSettlement};
use self::committer::Committer;
use self::compactor::Compactor;
use self::database::Database;
use self::draft::{Disk, DraftBudget, EmbeddedDraft, next_body};
use self::file_cache::FileCache;
use self::folders::{Folders, at, lock};
use self::identity::Identity;
use self::meta::Amendment;
use self::operation::{Inbox, Operation, ReplyTo};
use self::reader::Reader;
use self::recovery::{Recovered, recover};
use self::shared::EngineShared;
use crate::fault::{CrashPoint, Faults};
use crate::{
    Draft, Filter, Guard, Health, HoldReason, Listing, NewMessage, Page, Receipt, Settled, Settlement, Spool,
    SpoolError, SpoolFuture, Stored, Totals, Waiting,
};

#[cfg(any(test, feature = "crash-points"))]
pub(crate) use body::BLOCK;
pub use draft::DraftLimits;
#[cfg(any(test, feature = "crash-points"))]
pub use fuzz::fuzz_segments;
pub use inspect::{Inspection, Problem, Repair, inspect, repair};
pub use open_error::OpenError;

/// Where the spool is, and its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddedConfig {
    /// The spool folder. It is made when it is missing.
    pub folder: PathBuf,
    /// Limits of memory and files for bodies that come in.
    pub drafts: DraftLimits,
    /// The size of one segment of the log, in octets.
    pub segment_size: u64,
    /// Free space on the disk below which no new mail is accepted, in octets. Bounces and changes of state may still
    /// use it.
    pub reserve: u64,
    /// Memory for messages that were just committed, in octets, so that their first delivery need not read them from
    /// disk.
    pub warm: usize,
}

impl EmbeddedConfig {
    /// The default limits, in this folder.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            drafts: DraftLimits::default(),
            segment_size: 64 * 1024 * 1024,
            reserve: 256 * 1024 * 1024,
            warm: 32 * 1024 * 1024,
        }
    }
}

/// The embedded engine. Its futures need a tokio runtime.
pub struct Embedded {
    disk: Disk,
    drafts: Arc<DraftBudget>,
    inbox: Arc<Inbox>,
    shared: Arc<EngineShared>,
    reader: Arc<Reader>,
    bodies_folder: Arc<File>,
    worker: Mutex<Worker>,
}

/// Which thread carries operations out.
enum Worker {
    Thread(JoinHandle<()>),
    /// The thread of the caller, within the call.
    #[cfg_attr(not(any(test, feature = "crash-points")), allow(dead_code))]
    Inline(Box<Committer>),
    /// None any more: the engine is closed.
    Gone,
}

impl Worker {
    /// Waits until the submitted operations are done and the committer has ended. False when it ended in a panic.
    fn finish(&mut self) -> bool {
        match std::mem::replace(self, Self::Gone) {
            Self::Thread(thread) => thread.join().is_ok(),
            Self::Inline(mut committer) => {
                committer.turn_all();
                true
            }
            Self::Gone => true,
        }
    }
}

impl Embedded {
    /// Opens a spool folder, recovers what is in it, and starts the committer.
    ///
    /// # Errors
    /// The folder is in use, was written by a newer version, or cannot be read or written.
    pub fn open(config: &EmbeddedConfig) -> Result<Self, OpenError> {
        Self::open_with(config, &Faults::none())
    }

    /// As [`open`](Self::open), with a disk that fails where a test wants it to.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_with(config: &EmbeddedConfig, faults: &Faults) -> Result<Self, OpenError> {
        let (engine, committer) = Self::prepare(config, faults)?;
        let thread = std::thread::Builder::new().name("spool-committer".to_owned());
        let thread = thread.spawn(move || committer.run()).map_err(at(&config.folder))?;
        *engine.worker.lock() = Worker::Thread(thread);
        Ok(engine)
    }

    /// As [`open`](Self::open), without a thread: the caller of each operation carries it out, before the call returns.
    /// For simulations, in which nothing may happen by itself.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    #[cfg(any(test, feature = "crash-points"))]
    pub fn open_inline(config: &EmbeddedConfig, faults: &Faults) -> Result<Self, OpenError> {
        let (engine, committer) = Self::prepare(config, faults)?;
        *engine.worker.lock() = Worker::Inline(Box::new(committer));
        Ok(engine)
    }

    fn prepare(config: &EmbeddedConfig, faults: &Faults) -> Result<(Self, Committer), OpenError> {
        let folders = Folders::of(&config.folder);
        let lock = lock(&folders)?;
        let files = Arc::new(FileCache::new(folders.segments.clone()));
        let Recovered { database, segments, totals, broken } =
            recover(&folders, config.segment_size, &files, faults)?;
        let reading = Database::open(&folders.database).map_err(|error| OpenError::Database {
            path: folders.database.clone(),
            what: format!("{error:?}"),
        })?;
        let shared = Arc::new(EngineShared::new(reading, totals, config.warm, faults.clone()));
        let inbox: Arc<Inbox> = Arc::default();
        let identity = *segments.identity();
        let mut committer = Committer {
            inbox: inbox.clone(),
            database,
            segments,
            compactor: Compactor::default(),
            ballast: Ballast::new(&folders.root, config.reserve, faults.clone()),
            shared: shared.clone(),
            folders: folders.clone(),
            index_lag: None,
            uncounted: false,
            deleted_segments: Vec::new(),
            swept: Instant::now(),
            _lock: lock,
        };
        let mut first = vec![Operation::Start];
        first.extend(broken.into_iter().map(|(id, what)| Operation::SetAside(id, what)));
        committer
            .run_first(first)
            .map_err(|error| OpenError::Log { path: folders.segments.clone(), what: error.to_string() })?;
        if !matches!(Identity::read(&folders.root), Ok(Some(_))) {
            identity.write(&folders.root).map_err(at(&folders.root))?;
        }
        let seed = identity.seed();
        let reader = Reader { shared: shared.clone(), files, seed, bodies: folders.bodies.clone(), inbox };
        Ok((Self::idle(config, &folders, shared, Arc::new(reader))?, committer))
    }

    fn idle(
        config: &EmbeddedConfig,
        folders: &Folders,
        shared: Arc<EngineShared>,
        reader: Arc<Reader>,
    ) -> Result<Self, OpenError> {
        let next_body = next_body().map_err(at(&folders.bodies))?;
        let bodies_folder = File::open(&folders.bodies).map_err(at(&folders.bodies))?;
        let (folder, faults) = (folders.bodies.clone(), shared.faults.clone());
        let disk = Disk { folder, reserve: config.reserve, faults };
        let drafts = DraftBudget::new(disk.clone(), config.drafts, next_body, shared.faults.clone());
        Ok(Self {
            drafts: Arc::new(drafts),
            disk,
            inbox: reader.inbox.clone(),
            shared,
            reader,
            bodies_folder: Arc::new(bodies_folder),
            worker: Mutex::new(Worker::Gone),
        })
    }

    fn submit<'a, T: Send + 'a>(
        &self,
        operation: impl FnOnce(ReplyTo<T>) -> Operation,
    ) -> SpoolFuture<'a, T> {
        let (answer, waiting) = oneshot::channel();
        self.inbox.submit(operation(answer));
        if let Worker::Inline(committer) = &mut *self.worker.lock() {
            committer.turn_all();
        }
        // The committer drops this sender unanswered only when it ends.
        Box::pin(async move { waiting.await.unwrap_or(Err(SpoolError::Closed)) })
    }

    /// Like [`submit`](Self::submit), for messages whose bodies may be in files. Those are synced first, in the caller's
    /// task, so that a large body does not delay a batch.
    fn submit_synced<'a, T: Send + 'a>(
        &'a self,
        files: Vec<Arc<BodyFile>>,
        operation: impl FnOnce(ReplyTo<T>) -> Operation + Send + 'a,
    ) -> SpoolFuture<'a, T> {
        if files.is_empty() {
            return self.submit(operation);
        }
        Box::pin(async move {
            self.sync_files(files).await?;
            self.submit(operation).await
        })
    }

    async fn sync_files(&self, files: Vec<Arc<BodyFile>>) -> Result<(), SpoolError> {
        let (folder, faults) = (self.bodies_folder.clone(), self.shared.faults.clone());
        let synced = tokio::task::spawn_blocking(move || sync_files(&files, &folder, &faults)).await;
        synced.map_err(|_| SpoolError::Closed)?.map_err(|error| {
            let why: Arc<str> = format!("a sync of a body file failed: {error}").into();
            self.shared.health.break_down(&why);
            SpoolError::Broken(why)
        })
    }

    fn read<'a, T: Send + 'static>(
        &self,
        act: impl FnOnce(&Reader) -> Result<T, SpoolError> + Send + 'static,
    ) -> SpoolFuture<'a, T> {
        let reader = self.reader.clone();
        Box::pin(async move {
            let result = tokio::task::spawn_blocking(move || act(&reader)).await;
            result.map_err(|_| SpoolError::Closed)?
        })
    }
}

impl Spool for Embedded {
    fn begin(&self) -> Result<Draft, SpoolError> {
        if self.inbox.is_closed() {
            return Err(SpoolError::Closed);
        }
        self.health().accepting()?;
        Ok(Draft::new(EmbeddedDraft::new(self.drafts.clone())))
    }

    fn commit(&self, message: NewMessage) -> SpoolFuture<'_, Receipt> {
        match StagedMessage::new(message) {
            Ok(message) => {
                let files = message.body.file().cloned().into_iter().collect();
                self.submit_synced(files, |answer| Operation::Commit(Box::new(message), answer))
            }
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    fn settle(&self, settlement: Settlement) -> SpoolFuture<'_, Settled> {
        match StagedSettlement::new(settlement) {
            Ok(settlement) => {
                let files = body_files(&settlement.children);
                self.submit_synced(files, |answer| Operation::Settle(settlement, answer))
            }
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    fn load(&self, id: QueueId) -> SpoolFuture<'_, Stored> {
        match self.shared.recent.get(id) {
            Some(stored) => Box::pin(std::future::ready(Ok(stored))),
            None => self.read(move |reader| reader.load(id)),
        }
    }

    fn claim(&self, after: Option<QueueId>, limit: usize) -> SpoolFuture<'_, Vec<Waiting>> {
        self.read(move |reader| reader.claim(after, limit))
    }

    fn arrivals(&self) -> Option<UnboundedReceiver<Waiting>> {
        let mut arrivals = self.shared.arrivals.lock();
        if arrivals.is_some() {
            return None;
        }
        let (sender, receiver) = unbounded_channel();
        *arrivals = Some(sender);
        Some(receiver)
    }

    fn hold(&self, id: QueueId, hold: HoldReason) -> SpoolFuture<'_, Option<HoldReason>> {
        self.submit(|answer| Operation::Amend(id, Amendment::Hold(hold), Guard::Any, answer))
    }

    fn release(&self, id: QueueId, at: UnixTime, guard: Guard) -> SpoolFuture<'_, Option<HoldReason>> {
        self.submit(|answer| Operation::Amend(id, Amendment::Release(at), guard, answer))
    }

    fn reroute(&self, id: QueueId, recipients: Vec<u32>, next_hop: Option<NextHop>) -> SpoolFuture<'_, ()> {
        let amendment = Amendment::Reroute(recipients, next_hop);
        let asked = self.submit(|answer| Operation::Amend(id, amendment, Guard::Any, answer));
        Box::pin(async move { asked.await.map(drop) })
    }

    fn set_context(&self, id: QueueId, context: Bytes) -> SpoolFuture<'_, ()> {
        let amendment = Amendment::Context { octets: context };
        let asked = self.submit(|answer| Operation::Amend(id, amendment, Guard::Any, answer));
        Box::pin(async move { asked.await.map(drop) })
    }

    fn list(&self, filter: Filter, page: Page) -> SpoolFuture<'_, Listing> {
        self.read(move |reader| reader.list(&filter, page))
    }

    fn totals(&self) -> SpoolFuture<'_, Totals> {
        let totals = self.shared.totals.lock().clone();
        Box::pin(std::future::ready(Ok(totals)))
    }

    fn health(&self) -> Health {
        let condition = &self.shared.health;
        match (condition.broken(), condition.behind()) {
            (Some(why), _) => Health::Broken(why),
            (None, Some(SpoolError::Full)) => Health::Full,
            (None, Some(SpoolError::Store(why))) => Health::Unavailable(why),
            (None, Some(trouble)) => Health::Unavailable(trouble.to_string().into()),
            (None, None) if self.disk.has_room() => Health::Accepting,
            (None, None) => Health::Full,
        }
    }

    fn free(&self) -> Option<u64> {
        self.disk.free()
    }

    fn close(&self) -> SpoolFuture<'_, ()> {
        self.inbox.close();
        let mut worker = std::mem::replace(&mut *self.worker.lock(), Worker::Gone);
        let shared = self.shared.clone();
        Box::pin(async move {
            let stopped = tokio::task::spawn_blocking(move || {
                let ended_well = worker.finish();
                *shared.reading.lock() = None;
                *shared.arrivals.lock() = None;
                ended_well
            });
            match stopped.await {
                Ok(true) => Ok(()),
                Ok(false) => Err(SpoolError::Store("the committer thread panicked".into())),
                Err(_) => Err(SpoolError::Closed),
            }
        })
    }
}

/// For an owner that did not close the engine: submitted operations are still written, and the caller waits for them.
impl Drop for Embedded {
    fn drop(&mut self) {
        self.inbox.close();
        if !self.worker.get_mut().finish() {
            tracing::error!("the spool's committer thread panicked");
        }
    }
}

fn body_files(messages: &[StagedMessage]) -> Vec<Arc<BodyFile>> {
    messages.iter().filter_map(|message| message.body.file().cloned()).collect()
}

fn sync_files(files: &[Arc<BodyFile>], folder: &File, faults: &Faults) -> io::Result<()> {
    faults.check(CrashPoint::BodyFileSync)?;
    for body in files {
        body.file.sync_all()?;
        faults.synced(&body.path);
    }
    folder.sync_all()?;
    faults.check(CrashPoint::BodyFileSynced)
}

#[cfg(test)]
mod tests;
