//! A body that this engine has staged: in memory, or in a file of its own when it is large or memory is scarce.
//!
//! It has a checksum per block of 64 KiB rather than one for the whole, so that a reader who wants a part of a large body
//! need not read all of it to know that the part is what was written.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use pintle_mail::{Body, BodyError, BodyFuture, QueueId};

use crate::{Change, Content, Entry, Guard, NewMessage, Settlement, SpoolError};

/// How much of a body one checksum covers, in octets.
pub(crate) const BLOCK: usize = 64 * 1024;

/// A message that is about to be committed, with its body as this engine staged it.
pub(crate) struct StagedMessage {
    pub(crate) id: QueueId,
    pub(crate) head: Bytes,
    pub(crate) entry: Entry,
    pub(crate) body: Arc<StagedBody>,
}

impl StagedMessage {
    /// Takes a message over from the caller. A body that the gateway has written itself is staged here, in memory.
    ///
    /// # Errors
    /// [`SpoolError::Store`]: the body was staged by another engine.
    pub(crate) fn new(message: NewMessage) -> Result<Self, SpoolError> {
        let NewMessage { id, head, content, entry } = message;
        let staged = content.downcast::<StagedBody>();
        let body = staged.or_else(|| {
            let bytes = content.downcast::<Bytes>()?;
            Some(Arc::new(StagedBody::in_memory(Bytes::clone(&bytes), MemoryCharge::default())))
        });
        let body = body.ok_or_else(|| SpoolError::Store("the body was staged by another engine".into()))?;
        Ok(Self { id, head, entry, body })
    }

    /// Octets of header block and body.
    pub(crate) fn size(&self) -> u64 {
        self.head.len() as u64 + self.body.size()
    }
}

/// A settlement whose children have their bodies staged.
pub(crate) struct StagedSettlement {
    pub(crate) id: QueueId,
    pub(crate) changes: Vec<Change>,
    pub(crate) children: Vec<StagedMessage>,
    pub(crate) guard: Guard,
}

impl StagedSettlement {
    /// # Errors
    /// As for [`StagedMessage::new`].
    pub(crate) fn new(settlement: Settlement) -> Result<Self, SpoolError> {
        let Settlement { id, changes, children, guard } = settlement;
        let children = children.into_iter().map(StagedMessage::new).collect::<Result<_, _>>()?;
        Ok(Self { id, changes, children, guard })
    }
}

/// A finished body, before its commit and after it.
///
/// A file behind it is removed with it, unless a commit has taken it over.
pub(crate) struct StagedBody {
    source: BodySource,
    checksums: Vec<u32>,
    _charge: MemoryCharge,
}

enum BodySource {
    Memory(Bytes),
    File(FileBody, Arc<BodyFile>),
}

impl StagedBody {
    pub(crate) fn in_memory(bytes: Bytes, charge: MemoryCharge) -> Self {
        let checksums = bytes.chunks(BLOCK).map(crc32fast::hash).collect();
        Self { source: BodySource::Memory(bytes), checksums, _charge: charge }
    }

    pub(crate) fn in_file(file: Arc<BodyFile>, size: u64, checksums: Vec<u32>) -> Self {
        let blocks = FileBody::new(file.file.clone(), 0, size, checksums.as_slice().into(), None);
        Self { source: BodySource::File(blocks, file), checksums, _charge: MemoryCharge::default() }
    }

    /// One CRC-32 per [`BLOCK`].
    pub(crate) fn checksums(&self) -> &[u32] {
        &self.checksums
    }

    /// The body, if it lies in memory.
    pub(crate) fn bytes(&self) -> Option<&Bytes> {
        match &self.source {
            BodySource::Memory(bytes) => Some(bytes),
            BodySource::File(..) => None,
        }
    }

    /// Its file, if it has one.
    pub(crate) fn file(&self) -> Option<&Arc<BodyFile>> {
        match &self.source {
            BodySource::Memory(_) => None,
            BodySource::File(_, file) => Some(file),
        }
    }
}

impl From<StagedBody> for Content {
    fn from(body: StagedBody) -> Self {
        Self::staged(body)
    }
}

impl Body for StagedBody {
    fn size(&self) -> u64 {
        match &self.source {
            BodySource::Memory(bytes) => bytes.size(),
            BodySource::File(blocks, _) => blocks.size(),
        }
    }

    fn read(&self, offset: u64, len: usize) -> BodyFuture<'_> {
        match &self.source {
            BodySource::Memory(bytes) => bytes.read(offset, len),
            BodySource::File(blocks, _) => blocks.read(offset, len),
        }
    }
}

/// The file of a large body. It is deleted on drop unless a committed message has it.
pub(crate) struct BodyFile {
    pub(crate) file: Arc<File>,
    pub(crate) path: PathBuf,
    kept: AtomicBool,
    _descriptor: MemoryCharge,
}

impl BodyFile {
    pub(crate) fn new(file: File, path: PathBuf, descriptor: MemoryCharge) -> Self {
        Self { file: Arc::new(file), path, kept: AtomicBool::new(false), _descriptor: descriptor }
    }

    /// Says whether a committed message has the file.
    pub(crate) fn keep(&self, kept: bool) {
        self.kept.store(kept, Ordering::Release);
    }

    /// Its name in the folder of bodies.
    pub(crate) fn name(&self) -> Option<&str> {
        self.path.file_name()?.to_str()
    }
}

impl Drop for BodyFile {
    fn drop(&mut self) {
        if self.kept.load(Ordering::Acquire) {
            return;
        }
        // The next start finds a file that was left behind and puts it away.
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "the file of a dropped draft could not be deleted; the next start moves it to unreferenced/");
        }
    }
}

/// A body in a file, from `start`, with a checksum per block.
pub(crate) struct FileBody(Arc<FileBodyInner>);

/// Called with the reason when octets are not those that were written.
pub(crate) type OnDamage = Box<dyn Fn(&str) + Send + Sync>;

struct FileBodyInner {
    file: Arc<File>,
    start: u64,
    size: u64,
    checksums: Arc<[u32]>,
    // A reader that takes less than a block at a time would otherwise read and check each block several times.
    last: Mutex<Option<(u64, Bytes)>>,
    on_damage: Option<OnDamage>,
}

impl FileBody {
    pub(crate) fn new(
        file: Arc<File>,
        start: u64,
        size: u64,
        checksums: Arc<[u32]>,
        on_damage: Option<OnDamage>,
    ) -> Self {
        Self(Arc::new(FileBodyInner { file, start, size, checksums, last: Mutex::new(None), on_damage }))
    }
}

impl Body for FileBody {
    fn size(&self) -> u64 {
        self.0.size
    }

    fn read(&self, offset: u64, len: usize) -> BodyFuture<'_> {
        let placed = self.0.clone();
        Box::pin(async move {
            tokio::task::spawn_blocking(move || placed.read(offset, len))
                .await
                .map_err(|error| BodyError(error.to_string().into()))?
        })
    }
}

impl FileBodyInner {
    fn read(&self, offset: u64, len: usize) -> Result<Bytes, BodyError> {
        let end = offset.saturating_add(len as u64).min(self.size);
        if offset >= end {
            return Ok(Bytes::new());
        }
        let (first, last) = (offset / BLOCK as u64, (end - 1) / BLOCK as u64);
        if first == last {
            return Ok(piece(&self.block(first)?, first, offset, end));
        }
        let mut out = BytesMut::with_capacity(clamp(end - offset));
        for index in first..=last {
            out.extend_from_slice(&piece(&self.block(index)?, index, offset, end));
        }
        Ok(out.freeze())
    }

    fn block(&self, index: u64) -> Result<Bytes, BodyError> {
        if let Some((at, bytes)) = &*self.last.lock()
            && *at == index
        {
            return Ok(bytes.clone());
        }
        let from = index * BLOCK as u64;
        let mut buffer = vec![0; clamp((self.size - from).min(BLOCK as u64))];
        match self.file.read_exact_at(&mut buffer, self.start + from) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(self.damaged(format!("the body ends before {}", from + buffer.len() as u64)));
            }
            Err(error) => return Err(BodyError(error.to_string().into())),
        }
        let expected = usize::try_from(index).ok().and_then(|at| self.checksums.get(at));
        if expected != Some(&crc32fast::hash(&buffer)) {
            return Err(self.damaged(format!("the checksum of the body's block at {from} is wrong")));
        }
        let bytes = Bytes::from(buffer);
        *self.last.lock() = Some((index, bytes.clone()));
        Ok(bytes)
    }
}

impl FileBodyInner {
    fn damaged(&self, what: String) -> BodyError {
        if let Some(tell) = &self.on_damage {
            tell(&what);
        }
        BodyError(what.into())
    }
}

/// The part of a block between two offsets into the body.
fn piece(block: &Bytes, index: u64, offset: u64, end: u64) -> Bytes {
    let base = index * BLOCK as u64;
    block.slice(clamp(offset.saturating_sub(base))..clamp(end - base).min(block.len()))
}

fn clamp(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

/// Memory, or open files, counted against a budget that all drafts share. Dropping it gives back what it counted.
#[derive(Default)]
pub(crate) struct MemoryCharge {
    used: Option<Arc<AtomicUsize>>,
    amount: usize,
}

impl MemoryCharge {
    pub(crate) fn new(used: Arc<AtomicUsize>) -> Self {
        Self { used: Some(used), amount: 0 }
    }

    /// Counts `more` if the budget allows it.
    pub(crate) fn grow(&mut self, more: usize, budget: usize) -> bool {
        let Some(used) = &self.used else { return true };
        if used.fetch_add(more, Ordering::Relaxed) + more > budget {
            used.fetch_sub(more, Ordering::Relaxed);
            return false;
        }
        self.amount += more;
        true
    }
}

impl Drop for MemoryCharge {
    fn drop(&mut self) {
        if let Some(used) = &self.used {
            used.fetch_sub(self.amount, Ordering::Relaxed);
        }
    }
}
