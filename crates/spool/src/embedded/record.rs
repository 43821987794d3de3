//! One message in the body log: a fixed header, a checksum per block of the body, and the bytes themselves.
//!
//! ```text
//! 0  magic   4  checksum of 8..64   8  segment   16 id           32 octets of context   36 octets of head
//! 40 octets of body in this record  48 octets of the whole body  56 number of blocks   60 checksum of 64..body
//! 64 checksums of the body's blocks, context, head, body; zeros up to a multiple of eight
//! ```
//!
//! Numbers are little-endian. The segment's number stands in the header so that what an earlier use of the same disk
//! space left behind is never taken for a record. A large body lies in a file of its own; its checksums still stand here.

use bytes::Bytes;
use pintle_mail::{Body, QueueId};

use crate::NewMessage;
use crate::content::Source;

/// Octets of the fixed part.
pub(crate) const HEADER: usize = 64;
const MAGIC: u32 = u32::from_le_bytes(*b"PNT1");
/// Records begin at multiples of this.
const ALIGN: u64 = PADDING.len() as u64;
const PADDING: [u8; 8] = [0; 8];

/// A record on its way to the log.
pub(crate) struct Record {
    front: Vec<u8>,
    parts: [Bytes; 3],
    length: u64,
}

impl Record {
    pub(crate) fn of(message: &NewMessage) -> Self {
        let inline = match message.content.source() {
            Source::Memory(bytes) => bytes.clone(),
            Source::File(..) => Bytes::new(),
        };
        let context = message.entry.context.clone();
        let checksums = message.content.checksums();
        let header = Header {
            segment: 0,
            id: message.id,
            context: context.len() as u64,
            head: message.head.len() as u64,
            inline: inline.len() as u64,
            body: message.content.size(),
            blocks: checksums.len() as u64,
            front_crc: 0,
        };
        let mut front = header.encode();
        front.extend(checksums.iter().flat_map(|sum| sum.to_le_bytes()));
        let mut crc = crc32fast::Hasher::new();
        crc.update(&front[HEADER..]);
        crc.update(&context);
        crc.update(&message.head);
        front[60..64].copy_from_slice(&crc.finalize().to_le_bytes());
        Self { front, length: header.length(), parts: [context, message.head.clone(), inline] }
    }

    /// A record as it stands in another segment, to be written once more; `raw` has been checked.
    pub(crate) fn copy(raw: &Bytes) -> Self {
        Self {
            front: raw[..HEADER].to_vec(),
            length: raw.len() as u64,
            parts: [raw.slice(HEADER..), Bytes::new(), Bytes::new()],
        }
    }

    /// Its octets, without what fills it up to the next multiple.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Says where it goes; last thing before it is written.
    pub(crate) fn seal(&mut self, segment: u64) {
        self.front[8..16].copy_from_slice(&segment.to_le_bytes());
        let crc = crc32fast::hash(&self.front[8..HEADER]);
        self.front[4..8].copy_from_slice(&crc.to_le_bytes());
    }

    /// Its pieces in order, padding included.
    pub(crate) fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let padding = &PADDING[..clamp(padded(self.length) - self.length)];
        let pieces = std::iter::once(self.front.as_slice()).chain(self.parts.iter().map(|part| &part[..]));
        pieces.chain(std::iter::once(padding)).filter(|piece| !piece.is_empty())
    }
}

/// The fixed part of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) segment: u64,
    pub(crate) id: QueueId,
    pub(crate) context: u64,
    pub(crate) head: u64,
    pub(crate) inline: u64,
    pub(crate) body: u64,
    pub(crate) blocks: u64,
    pub(crate) front_crc: u32,
}

impl Header {
    /// Octets before the body.
    pub(crate) fn front(&self) -> u64 {
        HEADER as u64 + 4 * self.blocks + self.context + self.head
    }

    /// Octets of the record.
    pub(crate) fn length(&self) -> u64 {
        self.front() + self.inline
    }

    /// Reads a header; none when these octets are not one of this segment.
    pub(crate) fn decode(raw: &[u8], segment: u64) -> Option<Self> {
        let raw = raw.get(..HEADER)?;
        let sound = u32_at(raw, 0) == MAGIC && u32_at(raw, 4) == crc32fast::hash(&raw[8..]);
        let header = Self {
            segment: u64_at(raw, 8),
            id: QueueId::from_bytes(raw[16..32].try_into().ok()?),
            context: u32_at(raw, 32).into(),
            head: u32_at(raw, 36).into(),
            inline: u64_at(raw, 40),
            body: u64_at(raw, 48),
            blocks: u32_at(raw, 56).into(),
            front_crc: u32_at(raw, 60),
        };
        (sound && header.segment == segment).then_some(header)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + 4 * clamp(self.blocks));
        out.extend(MAGIC.to_le_bytes());
        out.extend([0; 4]);
        out.extend(self.segment.to_le_bytes());
        out.extend(self.id.to_bytes());
        out.extend(short(self.context));
        out.extend(short(self.head));
        out.extend(self.inline.to_le_bytes());
        out.extend(self.body.to_le_bytes());
        out.extend(short(self.blocks));
        out.extend(self.front_crc.to_le_bytes());
        out
    }
}

/// The front of a record, read and checked: what precedes the body.
pub(crate) struct Front {
    pub(crate) context: Bytes,
    pub(crate) head: Bytes,
    pub(crate) checksums: Vec<u32>,
}

impl Front {
    /// Takes the front apart; none when its checksum is wrong.
    pub(crate) fn decode(raw: &Bytes, header: &Header) -> Option<Self> {
        let raw = raw.get(..clamp(header.front())).map(|front| raw.slice_ref(front))?;
        if crc32fast::hash(&raw[HEADER..]) != header.front_crc {
            return None;
        }
        let context_at = HEADER + 4 * clamp(header.blocks);
        let head_at = context_at + clamp(header.context);
        let checksums = raw[HEADER..context_at].chunks_exact(4);
        Some(Self {
            checksums: checksums.map(|chunk| u32_at(chunk, 0)).collect(),
            context: raw.slice(context_at..head_at),
            head: raw.slice(head_at..),
        })
    }
}

/// Where the next record begins after one of this length.
pub(crate) fn padded(length: u64) -> u64 {
    length.next_multiple_of(ALIGN)
}

/// Head and context are far below 4 GiB: they were gathered in memory, with limits.
fn short(number: u64) -> [u8; 4] {
    u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes()
}

pub(crate) fn clamp(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn u32_at(raw: &[u8], at: usize) -> u32 {
    raw[at..at + 4].iter().rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte))
}

fn u64_at(raw: &[u8], at: usize) -> u64 {
    raw[at..at + 8].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}
