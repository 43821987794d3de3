//! A draft of this engine: bounded memory first, then a file of its own in `bodies/`.
//!
//! A draft promises nothing about the disk. It spills to its file when it outgrows its share of memory, or when all drafts
//! together outgrow theirs; either way it ends as a [`StagedBody`] that reads the same.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use rustix::fs::statvfs;

use super::body::{BLOCK, BodyFile, MemoryCharge, StagedBody};
use crate::draft::DraftWriter;
use crate::fault::{CrashPoint, Faults};
use crate::{Content, SpoolError, SpoolFuture};

/// How much is gathered before it is written to a draft's file, in octets: whole blocks, so that each write has whole
/// checksums.
const WRITE: usize = 4 * BLOCK;

/// Free inodes below which no mail is accepted, on file systems that count them.
const INODES: u64 = 1024;

/// How much memory and how many files bodies that come in may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DraftLimits {
    /// The largest body that stays in memory, in octets. A larger one gets a file.
    pub in_memory: usize,
    /// What all bodies in memory may take together, in octets. Beyond it new ones go to files early.
    pub budget: usize,
    /// How many bodies may be in files at a time while they come in. Each keeps a descriptor open.
    pub files: usize,
}

impl Default for DraftLimits {
    fn default() -> Self {
        Self { in_memory: 1024 * 1024, budget: 256 * 1024 * 1024, files: 1024 }
    }
}

/// A body being received. Dropping it removes its file.
pub(crate) struct EmbeddedDraft {
    budget: Arc<DraftBudget>,
    state: DraftState,
}

enum DraftState {
    Memory {
        bytes: BytesMut,
        charge: MemoryCharge,
    },
    Spilled(SpilledDraft),
    /// A write failed, or its future was dropped half way: what the file holds is unknown.
    Failed,
}

struct SpilledDraft {
    file: Arc<BodyFile>,
    written: u64,
    buffer: BytesMut,
    checksums: Vec<u32>,
}

impl DraftWriter for EmbeddedDraft {
    fn try_append(&mut self, piece: &[u8]) -> Result<bool, SpoolError> {
        let limits = &self.budget.limits;
        match &mut self.state {
            DraftState::Memory { bytes, charge } => {
                let fits = bytes.len() + piece.len() <= limits.in_memory;
                let taken = fits && charge.grow(piece.len(), limits.budget);
                if taken {
                    bytes.extend_from_slice(piece);
                }
                Ok(taken)
            }
            DraftState::Spilled(spilled) => {
                let taken = spilled.buffer.len() + piece.len() < WRITE;
                if taken {
                    spilled.buffer.extend_from_slice(piece);
                }
                Ok(taken)
            }
            DraftState::Failed => Err(failed_earlier()),
        }
    }

    fn append(&mut self, piece: Bytes) -> SpoolFuture<'_, ()> {
        Box::pin(async move {
            if let DraftState::Memory { .. } = &self.state {
                self.spill().await?;
            }
            self.append_to_file(&piece).await
        })
    }

    fn size(&self) -> u64 {
        match &self.state {
            DraftState::Memory { bytes, .. } => bytes.len() as u64,
            DraftState::Spilled(spilled) => spilled.written + spilled.buffer.len() as u64,
            DraftState::Failed => 0,
        }
    }

    fn finish(mut self: Box<Self>) -> SpoolFuture<'static, Content> {
        Box::pin(async move {
            if let DraftState::Spilled(spilled) = &mut self.state {
                let rest = spilled.buffer.split().freeze();
                self.write(rest).await?;
            }
            match self.state {
                DraftState::Memory { bytes, charge } => {
                    Ok(StagedBody::in_memory(bytes.freeze(), charge).into())
                }
                DraftState::Spilled(SpilledDraft { file, written, checksums, .. }) => {
                    Ok(StagedBody::in_file(file, written, checksums).into())
                }
                DraftState::Failed => Err(failed_earlier()),
            }
        })
    }
}

fn failed_earlier() -> SpoolError {
    SpoolError::Store("an earlier write of this body failed".into())
}

impl EmbeddedDraft {
    pub(crate) fn new(budget: Arc<DraftBudget>) -> Self {
        let charge = MemoryCharge::new(budget.used.clone());
        Self { budget, state: DraftState::Memory { bytes: BytesMut::new(), charge } }
    }

    async fn spill(&mut self) -> Result<(), SpoolError> {
        let DraftState::Memory { bytes, charge } = std::mem::replace(&mut self.state, DraftState::Failed)
        else {
            return Ok(());
        };
        let budget = self.budget.clone();
        let file = blocking(move || budget.new_file()).await?;
        self.state = DraftState::Spilled(SpilledDraft {
            file: Arc::new(file),
            written: 0,
            buffer: BytesMut::with_capacity(WRITE),
            checksums: Vec::new(),
        });
        let result = self.append_to_file(&bytes).await;
        drop(charge);
        result
    }

    async fn append_to_file(&mut self, mut chunk: &[u8]) -> Result<(), SpoolError> {
        while let DraftState::Spilled(spilled) = &mut self.state {
            let room = WRITE - spilled.buffer.len();
            let (now, later) = chunk.split_at(room.min(chunk.len()));
            spilled.buffer.extend_from_slice(now);
            chunk = later;
            if spilled.buffer.len() < WRITE {
                return Ok(());
            }
            let full = std::mem::replace(&mut spilled.buffer, BytesMut::with_capacity(WRITE)).freeze();
            self.write(full).await?;
        }
        Err(failed_earlier())
    }

    /// Writes the next octets of the file. Meanwhile the state is `Failed`, so that a future that is dropped here
    /// leaves a failed draft and not a body with a hole.
    async fn write(&mut self, bytes: Bytes) -> Result<(), SpoolError> {
        let DraftState::Spilled(mut spilled) = std::mem::replace(&mut self.state, DraftState::Failed) else {
            return Ok(());
        };
        spilled.checksums.extend(bytes.chunks(BLOCK).map(crc32fast::hash));
        let (body, at, faults) = (spilled.file.clone(), spilled.written, self.budget.faults.clone());
        spilled.written += bytes.len() as u64;
        let disk = self.budget.disk.clone();
        blocking(move || {
            // A large body that outgrows the free space must not take the reserve from bounces and state.
            if !disk.has_room() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            faults.wrote(&body.path, at);
            body.file.write_all_at(&bytes, at)?;
            faults.check(CrashPoint::DraftSpilled)
        })
        .await?;
        self.state = DraftState::Spilled(spilled);
        Ok(())
    }
}

/// What the drafts of one engine share: limits, the memory in use, and where they spill to.
pub(crate) struct DraftBudget {
    disk: Disk,
    limits: DraftLimits,
    used: Arc<AtomicUsize>,
    /// Body files that are open.
    files: Arc<AtomicUsize>,
    next_file: AtomicU64,
    faults: Faults,
}

impl DraftBudget {
    pub(crate) fn new(disk: Disk, limits: DraftLimits, next_file: u64, faults: Faults) -> Self {
        Self {
            disk,
            limits,
            used: Arc::default(),
            files: Arc::default(),
            next_file: AtomicU64::new(next_file),
            faults,
        }
    }

    fn new_file(&self) -> io::Result<BodyFile> {
        let mut charge = MemoryCharge::new(self.files.clone());
        if !charge.grow(1, self.limits.files) {
            return Err(io::Error::other("too many large bodies are coming in at the same time"));
        }
        let number = self.next_file.fetch_add(1, Ordering::Relaxed);
        let path = self.disk.folder.join(format!("{number:016x}.body"));
        let file: File = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        Ok(BodyFile::new(file, path, charge))
    }
}

/// A random number from which body files are numbered: an old record must never name a file that another message has
/// now.
pub(crate) fn next_body() -> io::Result<u64> {
    let mut octets = [0; 8];
    getrandom::fill(&mut octets).map_err(io::Error::other)?;
    Ok(u64::from_le_bytes(octets) >> 1)
}

/// The folder of bodies, and how much room must stay on its disk.
#[derive(Clone)]
pub(crate) struct Disk {
    pub(crate) folder: PathBuf,
    pub(crate) reserve: u64,
    pub(crate) faults: Faults,
}

impl Disk {
    /// Free octets on the disk. None where it does not tell.
    pub(crate) fn free(&self) -> Option<u64> {
        free(&self.folder, &self.faults)
    }

    /// Whether there is room beyond the reserve. This is one system call, cheap enough for each message. A cached
    /// figure would be wrong just when it matters.
    pub(crate) fn has_room(&self) -> bool {
        let Ok(disk) = statvfs(&self.folder) else {
            return false;
        };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize).min(self.faults.room().unwrap_or(u64::MAX));
        free >= self.reserve && (disk.f_files == 0 || disk.f_favail >= INODES)
    }
}

/// Free octets on the disk of this folder. None where it does not tell.
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
    use crate::Draft;

    fn draft(budget: &Arc<DraftBudget>) -> Draft {
        Draft::new(EmbeddedDraft::new(budget.clone()))
    }

    #[tokio::test]
    async fn only_so_many_bodies_keep_a_file_open() {
        let folder = tempfile::TempDir::new().unwrap();
        let disk = Disk { folder: folder.path().to_owned(), reserve: 0, faults: Faults::none() };
        let limits = DraftLimits { in_memory: 1, files: 2, ..DraftLimits::default() };
        let budget = Arc::new(DraftBudget::new(disk, limits, 1, Faults::none()));
        let body = Bytes::from_static(b"large");
        let mut kept = Vec::new();
        for _ in 0..2 {
            let mut draft = draft(&budget);
            draft.append(body.clone()).await.unwrap();
            kept.push(draft.finish().await.unwrap());
        }
        let refused = draft(&budget).append(body.clone()).await;
        assert!(matches!(refused, Err(SpoolError::Store(_))));
        kept.pop();
        draft(&budget).append(body).await.unwrap();
    }

    #[tokio::test]
    async fn a_growing_body_leaves_the_reserve_alone() {
        let folder = tempfile::TempDir::new().unwrap();
        let disk = Disk { folder: folder.path().to_owned(), reserve: u64::MAX, faults: Faults::none() };
        let limits = DraftLimits::default();
        let budget = Arc::new(DraftBudget::new(disk, limits, 1, Faults::none()));
        let mut draft = draft(&budget);
        let piece = Bytes::from(vec![b'x'; limits.in_memory]);
        draft.append(piece.clone()).await.unwrap();
        assert_eq!(draft.append(piece).await, Err(SpoolError::Full));
        assert!(draft.finish().await.is_err(), "a body with a hole is none");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
