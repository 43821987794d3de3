//! The file of one segment of the log: its name, its header, and how its space is allocated.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::{FallocateFlags, fallocate};
use serde::{Deserialize, Serialize};

use super::identity::Identity;
use super::record::{clamp, u32_at, u64_at};

/// Octets of a segment's header. Records begin behind it.
pub(crate) const SEGMENT_HEADER: u64 = 64;
const MAGIC: &[u8; 4] = b"PNTS";
/// The version of the log's format. A later one is refused.
///
/// Format 4 is format 3 with recipients' groups and refusals, and with contexts that deliveries replace. A version of format 3
/// would ignore them: deliver to refused recipients, mix groups, and lose contexts in compaction. Segments of format 3 are
/// read; since segments are not continued after a restart, no record of format 4 comes into one.
pub(crate) const FORMAT: u32 = 4;

/// The place of a record in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Extent {
    pub(crate) segment: u64,
    pub(crate) position: u64,
    pub(crate) length: u64,
}

/// The header of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) format: u32,
    pub(crate) identity: Identity,
    pub(crate) number: u64,
}

impl SegmentHeader {
    fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend([0; 4]);
        out.extend(self.format.to_le_bytes());
        out.extend([0; 4]);
        out.extend(self.identity.octets());
        out.extend(self.number.to_le_bytes());
        out.resize(clamp(SEGMENT_HEADER), 0);
        let crc = crc32fast::hash(&out[8..]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a segment's header. None when there is no whole one.
    pub(crate) fn read(file: &File) -> io::Result<Option<Self>> {
        let raw = match read_at(file, 0, SEGMENT_HEADER) {
            Ok(raw) => raw,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        };
        if &raw[..4] != MAGIC || u32_at(&raw, 4) != crc32fast::hash(&raw[8..]) {
            return Ok(None);
        }
        let identity: [u8; 16] = raw[16..32].try_into().unwrap_or_default();
        Ok(Some(Self {
            format: u32_at(&raw, 8),
            identity: Identity::new(identity),
            number: u64_at(&raw, 32),
        }))
    }
}

/// The folder of segments.
pub(crate) struct SegmentFolder {
    pub(crate) path: PathBuf,
    pub(crate) handle: File,
}

impl SegmentFolder {
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        let handle = File::open(&path)?;
        Ok(Self { path, handle })
    }

    pub(crate) fn file(&self, number: u64) -> PathBuf {
        self.path.join(Self::name(number))
    }

    /// A segment's file name.
    pub(crate) fn name(number: u64) -> String {
        format!("{number:016x}.log")
    }

    /// The segment number in a file name. None for other names.
    pub(crate) fn number(path: &Path) -> Option<u64> {
        let name = path.file_name()?.to_str()?.strip_suffix(".log")?;
        u64::from_str_radix(name, 16).ok()
    }

    /// Makes a new segment. Its name and its space are durable, so that later syncs have no length to write, and a full
    /// disk shows here and not in the middle of a record.
    pub(crate) fn make(&self, number: u64, size: u64, identity: &Identity) -> io::Result<File> {
        let path = self.file(number);
        let made = self.try_make(&path, number, size, identity);
        if made.is_err() {
            // Nothing is in it yet, and it would be in the way of the next try.
            let _ = std::fs::remove_file(&path);
        }
        made
    }

    fn try_make(&self, path: &Path, number: u64, size: u64, identity: &Identity) -> io::Result<File> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        if size > 0 {
            match fallocate(&file, FallocateFlags::empty(), 0, size) {
                // A file system without preallocation works too, only more slowly.
                Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let preface = SegmentHeader { format: FORMAT, identity: *identity, number };
        file.write_all_at(&preface.encode(), 0)?;
        file.sync_all()?;
        self.handle.sync_all()?;
        Ok(file)
    }
}

/// Whether there are only zeros between these two places.
pub(crate) fn is_blank(file: &File, mut from: u64, to: u64) -> io::Result<bool> {
    while from < to {
        let piece = read_at(file, from, (to - from).min(1 << 20))?;
        if piece.iter().any(|octet| *octet != 0) {
            return Ok(false);
        }
        from += piece.len() as u64;
    }
    Ok(true)
}

/// Whether the error means missing octets, which is damage. Other errors of reading may pass.
pub(crate) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound)
}

/// Reads `length` octets at `position`.
pub(crate) fn read_at(file: &File, position: u64, length: u64) -> io::Result<Bytes> {
    let mut buffer = vec![0; clamp(length)];
    file.read_exact_at(&mut buffer, position)?;
    Ok(buffer.into())
}
