//! One record of the log: a fixed header, what the record says as JSON, and for a message its bytes.
//!
//! ```text
//!  0 magic            4 checksum of 8..104   8 segment       16 position in it     24 sequence number
//! 32 durable up to   40 queue id            56 kind          57 flags              58 records of the operation still to come
//! 60 octets of meta  64 of context          68 of head       72 number of blocks   76 checksum of 104..body
//! 80 octets of body in this record          88 of the whole body                   96 segment of the message that ends
//! 104 meta, checksums of the body's blocks, context, head, body; zeros up to a multiple of eight
//! ```
//!
//! Numbers are little-endian. The header has segment and position so that octets of an earlier use of the same disk
//! space are never taken for a record. Its checksum starts with the spool's identity, which is secret, so that no part
//! of a message can pass for a record. Sequence numbers grow by one from record to record, over all segments. Together
//! with the number up to which the log was synced when the record was written, they distinguish a torn write, which was
//! never promised, from damage. A large body is in a file of its own; its checksums are here all the same.

use bytes::Bytes;
use pintle_mail::QueueId;

/// Octets of the fixed header.
pub(crate) const RECORD_HEADER: usize = 104;
const MAGIC: u32 = u32::from_le_bytes(*b"PNT3");
/// Records begin at multiples of this many octets.
pub(crate) const ALIGN: u64 = PADDING.len() as u64;
const PADDING: [u8; 8] = [0; 8];
/// The flag of a record that ends its message.
const ENDS: u8 = 1;

/// The kind of a record. Numbers on disk count from 1, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogRecordKind {
    /// A new message, with its entry, header block and body.
    Message,
    /// New statuses of recipients.
    Settle,
    /// A change of a message: held, released, rerouted, or another context.
    Amend,
    /// A damaged message was set aside.
    SetAside,
    /// A copy of a message with its current state. Earlier records of it no longer count.
    Copy,
    /// The current state of a message, without its bytes. Earlier changes of it no longer count.
    State,
    /// Tombstones: ends of messages, from segments that are to be deleted while others still have the messages'
    /// records.
    Tombstones,
    /// The start of a run.
    Start,
}

impl LogRecordKind {
    const ALL: [Self; 8] = [
        Self::Message,
        Self::Settle,
        Self::Amend,
        Self::SetAside,
        Self::Copy,
        Self::State,
        Self::Tombstones,
        Self::Start,
    ];

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }

    fn number(self) -> u8 {
        Self::ALL.iter().position(|kind| *kind == self).map_or(0, |at| u8::try_from(at + 1).unwrap_or(0))
    }

    /// Whether the record holds a message's bytes.
    pub(crate) fn is_message(self) -> bool {
        matches!(self, Self::Message | Self::Copy)
    }
}

/// A record that is to be written.
#[derive(Debug, Clone)]
pub(crate) struct LogRecord {
    header: RecordHeader,
    front: Vec<u8>,
    parts: [Bytes; 3],
}

/// The parts of a message, as they go into a record.
pub(crate) struct MessageParts<'a> {
    pub(crate) context: Bytes,
    pub(crate) head: Bytes,
    pub(crate) checksums: &'a [u32],
    /// Octets of the whole body, in the record or in a file.
    pub(crate) body: u64,
    /// The body, when it goes into the record.
    pub(crate) inline: Bytes,
}

impl LogRecord {
    /// A record that has only metadata.
    pub(crate) fn of(kind: LogRecordKind, id: QueueId, meta: Vec<u8>) -> Self {
        Self::of_context(kind, id, meta, Bytes::new())
    }

    /// A record that has metadata and a context.
    pub(crate) fn of_context(kind: LogRecordKind, id: QueueId, meta: Vec<u8>, context: Bytes) -> Self {
        let parts =
            MessageParts { context, head: Bytes::new(), checksums: &[], body: 0, inline: Bytes::new() };
        Self::with(kind, id, meta, parts)
    }

    /// A record of a message.
    pub(crate) fn with(kind: LogRecordKind, id: QueueId, meta: Vec<u8>, parts: MessageParts<'_>) -> Self {
        let MessageParts { context, head, checksums, body, inline } = parts;
        let mut header = RecordHeader {
            segment: 0,
            position: 0,
            sequence: 0,
            durable: 0,
            id,
            kind: kind.number(),
            flags: 0,
            rest: 0,
            meta: meta.len() as u64,
            context: context.len() as u64,
            head: head.len() as u64,
            blocks: checksums.len() as u64,
            front_crc: 0,
            inline: inline.len() as u64,
            body,
            refers: 0,
        };
        let mut front = meta;
        front.extend(checksums.iter().flat_map(|sum| sum.to_le_bytes()));
        let mut crc = crc32fast::Hasher::new();
        crc.update(&front);
        crc.update(&context);
        crc.update(&head);
        header.front_crc = crc.finalize();
        Self { header, front, parts: [context, head, inline] }
    }

    /// Its length in octets, without padding.
    pub(crate) fn length(&self) -> u64 {
        self.header.length()
    }

    /// Marks the message, whose bytes are in this segment, as ended by this record.
    pub(crate) fn ends(&mut self, segment: u64) {
        self.header.flags |= ENDS;
        self.header.refers = segment;
    }

    /// Sets how many records of the same operation follow.
    pub(crate) fn followed_by(&mut self, rest: usize) {
        self.header.rest = u16::try_from(rest).unwrap_or(u16::MAX);
    }

    /// Sets the place and the sequence numbers, right before the write.
    pub(crate) fn seal(&mut self, segment: u64, position: u64, sequence: u64, durable: u64) {
        let header = &mut self.header;
        (header.segment, header.position) = (segment, position);
        (header.sequence, header.durable) = (sequence, durable);
    }

    /// The octets of the record, in pieces, with padding.
    pub(crate) fn pieces(&self, seed: u32) -> Vec<Bytes> {
        let mut pieces = Vec::with_capacity(5);
        let mut front = self.header.encode(seed).to_vec();
        front.extend_from_slice(&self.front);
        pieces.push(Bytes::from(front));
        pieces.extend(self.parts.iter().filter(|part| !part.is_empty()).cloned());
        let padding = &PADDING[..clamp(padded(self.length()) - self.length())];
        if !padding.is_empty() {
            pieces.push(Bytes::from_static(&PADDING).slice(..padding.len()));
        }
        pieces
    }
}

/// The fixed header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub(crate) segment: u64,
    pub(crate) position: u64,
    pub(crate) sequence: u64,
    pub(crate) durable: u64,
    pub(crate) id: QueueId,
    kind: u8,
    flags: u8,
    pub(crate) rest: u16,
    pub(crate) meta: u64,
    pub(crate) context: u64,
    pub(crate) head: u64,
    pub(crate) blocks: u64,
    pub(crate) front_crc: u32,
    pub(crate) inline: u64,
    pub(crate) body: u64,
    /// In a record that ends a message: the segment with the message's bytes.
    pub(crate) refers: u64,
}

impl RecordHeader {
    /// The kind of the record. None when a later version wrote it.
    pub(crate) fn kind(&self) -> Option<LogRecordKind> {
        LogRecordKind::from_number(self.kind)
    }

    /// Whether the message ends by this record.
    pub(crate) fn ends(&self) -> bool {
        self.flags & ENDS != 0
    }

    /// Octets before the body, with the header.
    pub(crate) fn front(&self) -> u64 {
        RECORD_HEADER as u64 + self.meta + 4 * self.blocks + self.context + self.head
    }

    /// Octets of the record, without padding.
    pub(crate) fn length(&self) -> u64 {
        self.front().saturating_add(self.inline)
    }

    /// Where the next record begins, in octets from the start of the segment.
    pub(crate) fn end(&self) -> u64 {
        self.position.saturating_add(padded(self.length()))
    }

    /// Reads a header. None when the octets are not a header that was written to this place.
    pub(crate) fn decode(raw: &[u8], seed: u32, segment: u64, position: u64) -> Option<Self> {
        let raw = raw.get(..RECORD_HEADER)?;
        let here = u32_at(raw, 0) == MAGIC && u64_at(raw, 8) == segment && u64_at(raw, 16) == position;
        if !here || u32_at(raw, 4) != seeded(seed, &raw[8..]) {
            return None;
        }
        Some(Self {
            segment,
            position,
            sequence: u64_at(raw, 24),
            durable: u64_at(raw, 32),
            id: QueueId::from_bytes(raw[40..56].try_into().ok()?),
            kind: raw[56],
            flags: raw[57],
            rest: u16::from_le_bytes([raw[58], raw[59]]),
            meta: u32_at(raw, 60).into(),
            context: u32_at(raw, 64).into(),
            head: u32_at(raw, 68).into(),
            blocks: u32_at(raw, 72).into(),
            front_crc: u32_at(raw, 76),
            inline: u64_at(raw, 80),
            body: u64_at(raw, 88),
            refers: u64_at(raw, 96),
        })
    }

    fn encode(&self, seed: u32) -> [u8; RECORD_HEADER] {
        let mut out = [0; RECORD_HEADER];
        let mut put = |at: usize, octets: &[u8]| out[at..at + octets.len()].copy_from_slice(octets);
        put(0, &MAGIC.to_le_bytes());
        put(8, &self.segment.to_le_bytes());
        put(16, &self.position.to_le_bytes());
        put(24, &self.sequence.to_le_bytes());
        put(32, &self.durable.to_le_bytes());
        put(40, &self.id.to_bytes());
        put(56, &[self.kind, self.flags]);
        put(58, &self.rest.to_le_bytes());
        put(60, &short(self.meta));
        put(64, &short(self.context));
        put(68, &short(self.head));
        put(72, &short(self.blocks));
        put(76, &self.front_crc.to_le_bytes());
        put(80, &self.inline.to_le_bytes());
        put(88, &self.body.to_le_bytes());
        put(96, &self.refers.to_le_bytes());
        let crc = seeded(seed, &out[8..]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        out
    }
}

/// Finds the next place, from `from` on, where a header may begin: one with the magic number, at a multiple of
/// [`ALIGN`]. `raw` begins at `base` in its segment.
pub(crate) fn find_mark(raw: &[u8], base: u64, from: usize) -> Option<usize> {
    let mark = MAGIC.to_le_bytes();
    let mut at = from;
    loop {
        let start = raw.get(at..)?;
        at += memchr::memmem::find(start, &mark)?;
        if (base + at as u64).is_multiple_of(ALIGN) {
            return Some(at);
        }
        at += 1;
    }
}

/// The front of a record, read and checked: what precedes the body.
#[derive(Debug, Clone)]
pub(crate) struct Front {
    pub(crate) meta: Bytes,
    pub(crate) context: Bytes,
    pub(crate) head: Bytes,
    pub(crate) checksums: Vec<u32>,
}

impl Front {
    /// Splits the front into its parts. None when its checksum is wrong.
    pub(crate) fn decode(raw: &Bytes, header: &RecordHeader) -> Option<Self> {
        let raw = raw.get(..clamp(header.front())).map(|front| raw.slice_ref(front))?;
        if crc32fast::hash(&raw[RECORD_HEADER..]) != header.front_crc {
            return None;
        }
        let sums_at = RECORD_HEADER + clamp(header.meta);
        let context_at = sums_at + 4 * clamp(header.blocks);
        let head_at = context_at + clamp(header.context);
        let checksums = raw[sums_at..context_at].chunks_exact(4);
        Some(Self {
            meta: raw.slice(RECORD_HEADER..sums_at),
            checksums: checksums.map(|chunk| u32_at(chunk, 0)).collect(),
            context: raw.slice(context_at..head_at),
            head: raw.slice(head_at..),
        })
    }
}

/// A CRC-32 that continues from the checksum of the spool's identity.
pub(crate) fn seeded(seed: u32, octets: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new_with_initial(seed);
    crc.update(octets);
    crc.finalize()
}

/// The length with padding.
pub(crate) fn padded(length: u64) -> u64 {
    length.checked_next_multiple_of(ALIGN).unwrap_or(u64::MAX)
}

/// Head, context and metadata are far below 4 GiB: they were gathered in memory, with limits.
fn short(number: u64) -> [u8; 4] {
    u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes()
}

pub(crate) fn clamp(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

pub(crate) fn u32_at(raw: &[u8], at: usize) -> u32 {
    raw[at..at + 4].iter().rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte))
}

pub(crate) fn u64_at(raw: &[u8], at: usize) -> u64 {
    raw[at..at + 8].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pintle_mail::UnixTime;

    fn record() -> LogRecord {
        let id = QueueId::new(UnixTime::from_millis(7), 9);
        let parts = MessageParts {
            context: Bytes::from_static(b"context"),
            head: Bytes::from_static(b"Subject: x\r\n\r\n"),
            checksums: &[1, 2],
            body: 5,
            inline: Bytes::from_static(b"hello"),
        };
        let mut record = LogRecord::with(LogRecordKind::Message, id, b"{}".to_vec(), parts);
        record.ends(3);
        record.followed_by(2);
        record.seal(4, 64, 17, 15);
        record
    }

    fn octets(record: &LogRecord) -> Bytes {
        record.pieces(5).concat().into()
    }

    #[test]
    fn what_is_written_is_read() {
        let raw = octets(&record());
        let header = RecordHeader::decode(&raw, 5, 4, 64).unwrap();
        assert_eq!((header.sequence, header.durable, header.rest, header.refers), (17, 15, 2, 3));
        assert_eq!((header.kind(), header.ends()), (Some(LogRecordKind::Message), true));
        assert_eq!(padded(header.length()), raw.len() as u64);
        let front = Front::decode(&raw, &header).unwrap();
        assert_eq!((&front.meta[..], &front.context[..]), (&b"{}"[..], &b"context"[..]));
        assert_eq!((&front.head[..], front.checksums), (&b"Subject: x\r\n\r\n"[..], vec![1, 2]));
        assert_eq!(&raw[clamp(header.front())..clamp(header.length())], b"hello");
    }

    #[test]
    fn it_counts_only_where_it_was_written_and_as_it_was_written() {
        let raw = octets(&record());
        assert!(
            RecordHeader::decode(&raw, 5, 5, 64).is_none()
                && RecordHeader::decode(&raw, 5, 4, 72).is_none()
                && RecordHeader::decode(&raw, 6, 4, 64).is_none()
        );
        for at in 0..RECORD_HEADER {
            let mut flipped = raw.to_vec();
            flipped[at] ^= 0x10;
            assert!(RecordHeader::decode(&flipped, 5, 4, 64).is_none(), "octet {at}");
        }
        let header = RecordHeader::decode(&raw, 5, 4, 64).unwrap();
        for at in RECORD_HEADER..clamp(header.front()) {
            let mut flipped = raw.to_vec();
            flipped[at] ^= 0x10;
            assert!(Front::decode(&flipped.into(), &header).is_none(), "octet {at}");
        }
    }

    #[test]
    fn a_mark_is_found_where_a_record_may_begin() {
        let mut raw = vec![0; 3];
        raw.extend(b"PNT3");
        raw.resize(16, 0);
        raw.extend(b"PNT3");
        assert_eq!(find_mark(&raw, 64, 0), Some(16));
        assert_eq!(find_mark(&raw, 64, 17), None);
    }
}
