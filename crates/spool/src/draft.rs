//! A body on its way in: bounded memory first, then a file of its own in the spool folder.
//!
//! A draft promises nothing about the disk. It spills when it outgrows its share or when all drafts together outgrow
//! theirs; either way [`finish`](Draft::finish) gives a [`Content`] that reads the same.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use rustix::fs::statvfs;

use crate::SpoolError;
use crate::content::{BLOCK, Content, MemoryCharge, OwnFile};
use crate::fault::{CrashPoint, Faults};

/// What is gathered before it is written to a spilled draft's file; whole blocks, so that checksums fall into place.
const WRITE: usize = 4 * BLOCK;

/// Free inodes below which nothing is accepted, where the file system counts them.
const INODES: u64 = 1024;

/// How much memory drafts may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DraftLimits {
    /// The largest body that stays in memory, in octets; anything larger gets a file of its own.
    pub in_memory: usize,
    /// What all bodies in memory may hold together, in octets; beyond it new ones spill early.
    pub budget: usize,
    /// How many bodies may lie in files at a time while they come in: each keeps a descriptor open.
    pub files: usize,
}

impl Default for DraftLimits {
    fn default() -> Self {
        Self { in_memory: 1024 * 1024, budget: 256 * 1024 * 1024, files: 1024 }
    }
}

/// A body being received. Dropping it leaves nothing behind.
pub struct Draft {
    desk: Arc<DraftBudget>,
    state: DraftState,
}

enum DraftState {
    Memory {
        bytes: BytesMut,
        charge: MemoryCharge,
    },
    Spilled(Spill),
    /// A write failed, or its future was dropped half way: what the file holds is unknown.
    Failed,
}

struct Spill {
    own: Arc<OwnFile>,
    written: u64,
    buffer: BytesMut,
    checksums: Vec<u32>,
}

impl Draft {
    pub(crate) fn new(desk: Arc<DraftBudget>) -> Self {
        let charge = MemoryCharge::new(desk.used.clone());
        let bytes = BytesMut::new();
        Self { desk, state: DraftState::Memory { bytes, charge } }
    }

    /// Takes the next piece of the body. It waits only while a large body is written to its file.
    ///
    /// # Errors
    /// The file could not be made or written: [`SpoolError::Full`] or [`SpoolError::Store`]. The draft is then of no use.
    pub async fn append(&mut self, chunk: Bytes) -> Result<(), SpoolError> {
        if let DraftState::Memory { bytes, charge } = &mut self.state {
            let fits = bytes.len() + chunk.len() <= self.desk.limits.in_memory;
            let stays = self.desk.disk.is_none() || fits && charge.grow(chunk.len(), self.desk.limits.budget);
            if stays {
                bytes.extend_from_slice(&chunk);
                return Ok(());
            }
            self.spill().await?;
        }
        self.append_to_file(&chunk).await
    }

    /// How many octets have come in.
    #[must_use]
    pub fn size(&self) -> u64 {
        match &self.state {
            DraftState::Memory { bytes, .. } => bytes.len() as u64,
            DraftState::Spilled(spill) => spill.written + spill.buffer.len() as u64,
            DraftState::Failed => 0,
        }
    }

    /// Ends the body.
    ///
    /// # Errors
    /// As for [`append`](Self::append).
    pub async fn finish(mut self) -> Result<Content, SpoolError> {
        if let DraftState::Spilled(spill) = &mut self.state {
            let rest = spill.buffer.split().freeze();
            self.write(rest).await?;
        }
        match self.state {
            DraftState::Memory { bytes, charge } => Ok(Content::in_memory(bytes.freeze(), charge)),
            DraftState::Spilled(spill) => Ok(Content::in_file(spill.own, spill.written, spill.checksums)),
            DraftState::Failed => Err(SpoolError::Store("an earlier write of this body failed".into())),
        }
    }

    async fn spill(&mut self) -> Result<(), SpoolError> {
        let DraftState::Memory { bytes, charge } = std::mem::replace(&mut self.state, DraftState::Failed)
        else {
            return Ok(());
        };
        let desk = self.desk.clone();
        let own = blocking(move || desk.new_file()).await?;
        self.state = DraftState::Spilled(Spill {
            own: Arc::new(own),
            written: 0,
            buffer: BytesMut::with_capacity(WRITE),
            checksums: Vec::new(),
        });
        let result = self.append_to_file(&bytes).await;
        drop(charge);
        result
    }

    async fn append_to_file(&mut self, mut chunk: &[u8]) -> Result<(), SpoolError> {
        while let DraftState::Spilled(spill) = &mut self.state {
            let room = WRITE - spill.buffer.len();
            let (now, later) = chunk.split_at(room.min(chunk.len()));
            spill.buffer.extend_from_slice(now);
            chunk = later;
            if spill.buffer.len() < WRITE {
                return Ok(());
            }
            let full = std::mem::replace(&mut spill.buffer, BytesMut::with_capacity(WRITE)).freeze();
            self.write(full).await?;
        }
        Err(SpoolError::Store("an earlier write of this body failed".into()))
    }

    /// Writes the next octets of the file. The state is out of place meanwhile, so that a future dropped here leaves a
    /// spoilt draft and never a body with a hole.
    async fn write(&mut self, bytes: Bytes) -> Result<(), SpoolError> {
        let DraftState::Spilled(mut spill) = std::mem::replace(&mut self.state, DraftState::Failed) else {
            return Ok(());
        };
        spill.checksums.extend(bytes.chunks(BLOCK).map(crc32fast::hash));
        let (own, at, faults) = (spill.own.clone(), spill.written, self.desk.faults.clone());
        spill.written += bytes.len() as u64;
        let disk = self.desk.disk.clone();
        blocking(move || {
            // A large body that outgrows the room left must not take the reserve from bounces and state.
            if disk.is_some_and(|disk| !disk.has_room()) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            faults.wrote(&own.path, at);
            own.file.write_all_at(&bytes, at)?;
            faults.check(CrashPoint::DraftSpilled)
        })
        .await?;
        self.state = DraftState::Spilled(spill);
        Ok(())
    }
}

/// What the drafts of one engine share: limits, the memory in use, and where they spill to.
pub(crate) struct DraftBudget {
    /// None where nothing can spill.
    disk: Option<Disk>,
    limits: DraftLimits,
    used: Arc<AtomicUsize>,
    /// Files of bodies that are open.
    files: Arc<AtomicUsize>,
    next_file: AtomicU64,
    faults: Faults,
}

impl DraftBudget {
    pub(crate) fn new(disk: Option<Disk>, limits: DraftLimits, next_file: u64, faults: Faults) -> Self {
        Self {
            disk,
            limits,
            used: Arc::default(),
            files: Arc::default(),
            next_file: AtomicU64::new(next_file),
            faults,
        }
    }

    fn new_file(&self) -> io::Result<OwnFile> {
        let mut charge = MemoryCharge::new(self.files.clone());
        if !charge.grow(1, self.limits.files) {
            return Err(io::Error::other("too many large bodies are coming in at the same time"));
        }
        let number = self.next_file.fetch_add(1, Ordering::Relaxed);
        let disk = self.disk.as_ref();
        let folder = &disk.ok_or_else(|| io::Error::other("no folder to spill to"))?.folder;
        let path = folder.join(format!("{number:016x}.body"));
        let file: File = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        Ok(OwnFile::new(file, path, charge))
    }
}

/// Where bodies go that leave memory, and how much room must stay on that disk.
#[derive(Clone)]
pub(crate) struct Disk {
    pub(crate) folder: PathBuf,
    pub(crate) reserve: u64,
    pub(crate) faults: Faults,
}

impl Disk {
    /// Octets that we may still write there. None where the disk does not tell.
    pub(crate) fn free(&self) -> Option<u64> {
        free(&self.folder, &self.faults)
    }

    /// Whether there is room beyond the reserve. One system call, cheap enough to make for each message; a figure kept
    /// from a moment ago would be wrong just when it matters.
    pub(crate) fn has_room(&self) -> bool {
        let Ok(disk) = statvfs(&self.folder) else {
            return false;
        };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize).min(self.faults.room().unwrap_or(u64::MAX));
        free >= self.reserve && (disk.f_files == 0 || disk.f_favail >= INODES)
    }
}

/// Octets that we may still write to the disk of this folder. None where it does not tell.
pub(crate) fn free(folder: &Path, faults: &Faults) -> Option<u64> {
    let disk = statvfs(folder).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize).min(faults.room().unwrap_or(u64::MAX)))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, SpoolError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| SpoolError::from_io(&error)),
        Err(_) => Err(SpoolError::Closed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_so_many_bodies_keep_a_file_open() {
        let folder = tempfile::TempDir::new().unwrap();
        let disk = Disk { folder: folder.path().to_owned(), reserve: 0, faults: Faults::none() };
        let limits = DraftLimits { in_memory: 1, files: 2, ..DraftLimits::default() };
        let desk = Arc::new(DraftBudget::new(Some(disk), limits, 1, Faults::none()));
        let body = Bytes::from_static(b"large");
        let mut kept = Vec::new();
        for _ in 0..2 {
            let mut draft = Draft::new(desk.clone());
            draft.append(body.clone()).await.unwrap();
            kept.push(draft.finish().await.unwrap());
        }
        let refused = Draft::new(desk.clone()).append(body.clone()).await;
        assert!(matches!(refused, Err(SpoolError::Store(_))));
        kept.pop();
        Draft::new(desk).append(body).await.unwrap();
    }

    #[tokio::test]
    async fn a_growing_body_leaves_the_reserve_alone() {
        let folder = tempfile::TempDir::new().unwrap();
        let disk = Disk { folder: folder.path().to_owned(), reserve: u64::MAX, faults: Faults::none() };
        let limits = DraftLimits::default();
        let desk = DraftBudget::new(Some(disk), limits, 1, Faults::none());
        let mut draft = Draft::new(Arc::new(desk));
        let piece = Bytes::from(vec![b'x'; limits.in_memory]);
        draft.append(piece.clone()).await.unwrap();
        assert_eq!(draft.append(piece).await, Err(SpoolError::Full));
        assert!(draft.finish().await.is_err(), "a body with a hole is none");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
