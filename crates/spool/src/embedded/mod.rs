//! The engine of a gateway that stands alone: bodies in an append-only log, envelopes in SQLite, one committer thread.
//!
//! It promises that a commit or a settlement that was answered survives a power cut, at the price of two syncs per batch.
//! One process at a time works in a folder. Why a log and a database, and not one of the two, stands in
//! `docs/decisions/001-body-log-and-sqlite.md`.
//!
//! The folder: `lock`, `envelopes.db` (with its `-wal` and `-shm`), `segments/` (the log), `bodies/` (large bodies, one
//! file each), `damaged/` (what was set aside).

mod committer;
mod database;
mod mover;
mod operation;
mod reader;
mod record;
mod recovery;
mod segments;
mod shared;
mod transaction;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use pintle_mail::{NextHop, QueueId, UnixTime};
use rustix::fs::{FlockOperation, flock};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::oneshot;

use self::committer::Committer;
use self::database::Database;
use self::mover::Mover;
use self::operation::{Amendment, Answer, Inbox, Operation};
use self::reader::Reader;
use self::segments::{Folder, Segments, Shelf};
use self::shared::{Condition, Shared, Warm};
use crate::content::{OwnFile, Source};
use crate::draft::{Desk, Disk};
use crate::fault::{CrashPoint, Faults};
use crate::{
    Draft, DraftLimits, Filter, Health, Hold, Listing, NewMessage, OpenError, Page, Receipt, Settled,
    Settlement, Spool, SpoolError, SpoolFuture, Stored, Totals, Waiting,
};

/// Where the spool lies, and its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddedConfig {
    /// The spool folder; made when missing.
    pub folder: PathBuf,
    /// Memory for bodies.
    pub drafts: DraftLimits,
    /// Octets of one segment of the log.
    pub segment_size: u64,
    /// Free octets on the disk below which no new mail is accepted. Bounces and state still have this room.
    pub reserve: u64,
    /// Memory for messages just committed, so that their delivery need not read them back, in octets.
    pub warm: usize,
}

impl EmbeddedConfig {
    /// The defaults, in this folder.
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

/// The engine. Its futures need a tokio runtime.
pub struct Embedded {
    disk: Disk,
    desk: Arc<Desk>,
    inbox: Arc<Inbox>,
    shared: Arc<Shared>,
    reader: Arc<Reader>,
    bodies_folder: Arc<File>,
    committer: Mutex<Option<JoinHandle<()>>>,
}

impl Embedded {
    /// Opens a spool folder, brings it into order, and starts the committer.
    ///
    /// # Errors
    /// The folder is in use, was written by a newer version, or cannot be read or written.
    pub fn open(config: &EmbeddedConfig) -> Result<Self, OpenError> {
        Self::open_with(config, &Faults::none())
    }

    /// The same with a disk that fails where a test wants it to.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_with(config: &EmbeddedConfig, faults: &Faults) -> Result<Self, OpenError> {
        let folders = Folders::make(&config.folder)?;
        let lock = lock(&config.folder)?;
        let database = Database::open(&folders.database)?;
        let reading = Database::open(&folders.database)?;
        let shelf = Arc::new(Shelf::default());
        let log = Folder::open(folders.segments.clone()).map_err(at(&folders.segments))?;
        let mut segments = Segments::new(log, config.segment_size, shelf.clone(), faults.clone());
        let totals = recovery::recover(&database, &mut segments, &folders.segments, &folders.bodies)?;
        let reader = Reader {
            database: Mutex::new(Some(reading)),
            shelf,
            bodies: folders.bodies.clone(),
            inbox: Arc::default(),
        };
        let shared = Shared {
            condition: Condition::default(),
            warm: Warm::new(config.warm),
            totals: Mutex::new(totals),
            arrivals: Mutex::new(None),
            bodies: folders.bodies.clone(),
            damaged: folders.damaged.clone(),
            faults: faults.clone(),
        };
        let mut engine = Self::idle(config, folders, Arc::new(shared), Arc::new(reader))?;
        engine.start(database, segments, lock).map_err(at(&config.folder))?;
        Ok(engine)
    }

    fn idle(
        config: &EmbeddedConfig,
        folders: Folders,
        shared: Arc<Shared>,
        reader: Arc<Reader>,
    ) -> Result<Self, OpenError> {
        let next_body = recovery::next_body(&folders.bodies).map_err(at(&folders.bodies))?;
        let bodies_folder = File::open(&folders.bodies).map_err(at(&folders.bodies))?;
        let disk = Disk { folder: folders.bodies, reserve: config.reserve };
        let desk = Desk::new(Some(disk.clone()), config.drafts, next_body, shared.faults.clone());
        Ok(Self {
            desk: Arc::new(desk),
            disk,
            inbox: reader.inbox.clone(),
            shared,
            reader,
            bodies_folder: Arc::new(bodies_folder),
            committer: Mutex::new(None),
        })
    }

    fn start(&mut self, database: Database, segments: Segments, lock: File) -> io::Result<()> {
        let committer = Committer {
            inbox: self.inbox.clone(),
            database,
            segments,
            mover: Mover::default(),
            shared: self.shared.clone(),
            lock,
        };
        let thread = std::thread::Builder::new().name("spool-committer".to_owned());
        *self.committer.get_mut() = Some(thread.spawn(move || committer.run())?);
        Ok(())
    }

    fn ask<'a, T: Send + 'a>(&self, operation: impl FnOnce(Answer<T>) -> Operation) -> SpoolFuture<'a, T> {
        let (answer, waiting) = oneshot::channel();
        self.inbox.submit(operation(answer));
        // The committer drops the answer only when it ends.
        Box::pin(async move { waiting.await.unwrap_or(Err(SpoolError::Closed)) })
    }

    /// Like [`ask`](Self::ask), for messages whose bodies may lie in files: those are synced first, by the one who brings
    /// them, so that a large body never holds up a batch.
    fn bring<'a, T: Send + 'a>(
        &'a self,
        files: Vec<Arc<OwnFile>>,
        operation: impl FnOnce(Answer<T>) -> Operation + Send + 'a,
    ) -> SpoolFuture<'a, T> {
        if files.is_empty() {
            return self.ask(operation);
        }
        Box::pin(async move {
            self.sync_files(files).await?;
            self.ask(operation).await
        })
    }

    async fn sync_files(&self, files: Vec<Arc<OwnFile>>) -> Result<(), SpoolError> {
        let (folder, faults) = (self.bodies_folder.clone(), self.shared.faults.clone());
        let synced = tokio::task::spawn_blocking(move || sync_files(&files, &folder, &faults)).await;
        synced.map_err(|_| SpoolError::Closed)?.map_err(|error| {
            let why: Arc<str> = format!("a sync of a body's file failed: {error}").into();
            self.shared.condition.break_down(&why);
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
        match self.health() {
            _ if self.inbox.is_closed() => Err(SpoolError::Closed),
            Health::Accepting => Ok(Draft::new(self.desk.clone())),
            Health::Full => Err(SpoolError::Full),
            Health::Broken(why) => Err(SpoolError::Broken(why)),
        }
    }

    fn commit(&self, message: NewMessage) -> SpoolFuture<'_, Receipt> {
        let receipts = self.commit_many(vec![message]);
        Box::pin(async move { receipts.await?.pop().ok_or(SpoolError::Closed) })
    }

    fn commit_many(&self, messages: Vec<NewMessage>) -> SpoolFuture<'_, Vec<Receipt>> {
        let files = own_files(&messages);
        self.bring(files, |answer| Operation::Commit(messages, answer))
    }

    fn settle(&self, settlement: Settlement) -> SpoolFuture<'_, Settled> {
        let files = own_files(&settlement.children);
        self.bring(files, |answer| Operation::Settle(settlement, answer))
    }

    fn load(&self, id: QueueId) -> SpoolFuture<'_, Stored> {
        match self.shared.warm.get(id) {
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

    fn hold(&self, id: QueueId, hold: Hold) -> SpoolFuture<'_, Option<Hold>> {
        self.ask(|answer| Operation::Amend(id, Amendment::Hold(hold), answer))
    }

    fn release(&self, id: QueueId, at: UnixTime) -> SpoolFuture<'_, Option<Hold>> {
        self.ask(|answer| Operation::Amend(id, Amendment::Release(at), answer))
    }

    fn reroute(&self, id: QueueId, recipients: Vec<u32>, next_hop: Option<NextHop>) -> SpoolFuture<'_, ()> {
        let asked = self.ask(|answer| Operation::Amend(id, Amendment::Reroute(recipients, next_hop), answer));
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
        match self.shared.condition.broken() {
            Some(why) => Health::Broken(why),
            None if self.disk.has_room() => Health::Accepting,
            None => Health::Full,
        }
    }

    fn close(&self) -> SpoolFuture<'_, ()> {
        self.inbox.close();
        let thread = self.committer.lock().take();
        let (reader, shared) = (self.reader.clone(), self.shared.clone());
        Box::pin(async move {
            let stopped = tokio::task::spawn_blocking(move || {
                let joined = thread.map_or(Ok(()), JoinHandle::join);
                *reader.database.lock() = None;
                *shared.arrivals.lock() = None;
                joined
            });
            let panicked = SpoolError::Store("the committer ended in a panic".into());
            stopped.await.map_err(|_| SpoolError::Closed)?.map_err(|_| panicked)
        })
    }
}

/// The last resort for an owner that forgot to close: what was submitted is still written, on the caller's time.
impl Drop for Embedded {
    fn drop(&mut self) {
        self.inbox.close();
        if let Some(thread) = self.committer.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the spool's committer ended in a panic");
        }
    }
}

/// The paths in a spool folder.
struct Folders {
    database: PathBuf,
    segments: PathBuf,
    bodies: PathBuf,
    damaged: PathBuf,
}

impl Folders {
    fn make(folder: &Path) -> Result<Self, OpenError> {
        let folders = Self {
            database: folder.join("envelopes.db"),
            segments: folder.join("segments"),
            bodies: folder.join("bodies"),
            damaged: folder.join("damaged"),
        };
        for path in [&folders.segments, &folders.bodies, &folders.damaged] {
            fs::create_dir_all(path).map_err(at(path))?;
        }
        // The names of these folders must outlive a power cut no less than what they hold.
        let parent = File::open(folder).and_then(|folder| folder.sync_all());
        parent.map_err(at(folder))?;
        Ok(folders)
    }
}

fn lock(folder: &Path) -> Result<File, OpenError> {
    let path = folder.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(at(&path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::Locked(folder.to_owned())),
        Err(error) => Err(at(&path)(error.into())),
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> OpenError + use<> {
    let path = path.to_owned();
    move |source| OpenError::Io { path, source }
}

fn own_files(messages: &[NewMessage]) -> Vec<Arc<OwnFile>> {
    let files = messages.iter().filter_map(|message| match message.content.source() {
        Source::File(_, own) => Some(own.clone()),
        Source::Memory(_) => None,
    });
    files.collect()
}

fn sync_files(files: &[Arc<OwnFile>], folder: &File, faults: &Faults) -> io::Result<()> {
    faults.check(CrashPoint::BodyFileSync)?;
    for own in files {
        own.file.sync_all()?;
        faults.synced(&own.path);
    }
    folder.sync_all()?;
    faults.check(CrashPoint::BodyFileSynced)
}

#[cfg(test)]
mod tests;
