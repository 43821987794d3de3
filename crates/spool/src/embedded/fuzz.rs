//! The harness of the fuzz target `segment`: it scans and replays segments that were made up or damaged, and checks the
//! result. Tests run it on the seeds. It exists in test builds only.
//!
//! Whatever the octets are, the work of reading them is bounded by their number. And damage costs only what was
//! damaged: no message turns into another, gets a status that it never had, or is missing without a report.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken promise is a failed test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use bytes::Bytes;
use pintle_mail::{Address, Charset, Envelope, MailParams, QueueId, Recipient, ReversePath, UnixTime};

use super::database::Database;
use super::identity::Identity;
use super::meta::{
    Amendment, ChangedRecipient, MessageMetaRef, MessageState, SettleMeta, StatusChange, Tombstones, to_json,
};
use super::record::{LogRecord, LogRecordKind, MessageParts, RECORD_HEADER, RecordHeader, seeded};
use super::replay::{ReplayError, ReplayOutcome, bring_up};
use super::scan::{Log, Scan, SegmentFile, is_sound};
use super::segment_file::SEGMENT_HEADER;
use crate::{DeliveryStatus, Disposition, Entry, HoldReason};

/// Reads what the plan makes of two segments, in files of this folder, and checks the result.
pub fn fuzz_segments(folder: &Path, plan: &[u8]) {
    let (how, plan) = plan.split_first().unwrap_or((&0, &[]));
    let files = match how % 3 {
        0 => made_up(plan),
        1 => damaged(plan),
        _ => rewritten(plan),
    };
    let read = ReplayedLog::of(folder, &files);
    read.bounded();
    if how % 3 == 1 {
        read.true_to(&INTACT);
    }
}

/// Two segments of arbitrary octets.
fn made_up(plan: &[u8]) -> Vec<Vec<u8>> {
    let middle = plan.first().map_or(0, |at| usize::from(*at) * plan.len() / 256);
    vec![plan[..middle].to_vec(), plan[middle..].to_vec()]
}

/// The intact segments, with octets changed, cut off, moved or lost.
fn damaged(plan: &[u8]) -> Vec<Vec<u8>> {
    let mut files = INTACT.files.clone();
    for step in plan.chunks_exact(6) {
        let [kind, which, high, low, length, value] = step else { continue };
        let file = &mut files[usize::from(which % 2)];
        let at = usize::from(u16::from_be_bytes([*high, *low]));
        let at = at % (file.len() + 1);
        let end = (at + usize::from(*length)).min(file.len());
        match kind % 6 {
            0 => file[at..end].iter_mut().for_each(|octet| *octet ^= value),
            1 => file[at..end].fill(*value),
            2 => file.truncate(at),
            3 => drop(file.drain(at..end)),
            4 => drop(file.splice(at..at, vec![*value; usize::from(*length)])),
            _ => {
                let to = usize::from(*value) * file.len() / 256;
                let moved = file[at..end].to_vec();
                let moved = &moved[..moved.len().min(file.len() - to)];
                file[to..to + moved.len()].copy_from_slice(moved);
            }
        }
    }
    files
}

/// The intact segments, with numbers in their headers changed and all checksums good.
fn rewritten(plan: &[u8]) -> Vec<Vec<u8>> {
    let mut files = INTACT.files.clone();
    let mut changed = Vec::new();
    for step in plan.chunks_exact(4) {
        let [which, field, value, times] = step else { continue };
        let (segment, header) = INTACT.headers[usize::from(*which) % INTACT.headers.len()];
        let at = usize::try_from(header.position).expect("small")
            + 24
            + usize::from(*field) % (RECORD_HEADER - 24);
        let end = (at + usize::from(times % 9)).min(files[segment].len());
        files[segment][at..end].fill(*value);
        changed.push((segment, header));
    }
    for (segment, header) in changed {
        seal(&mut files[segment], &header);
    }
    files
}

/// Sets the checksums of a record right, as far as it is in the file.
fn seal(file: &mut [u8], header: &RecordHeader) {
    let at = usize::try_from(header.position).expect("small");
    let raw = &mut file[at..];
    let number = |at: usize| u32::from_le_bytes(raw[at..at + 4].try_into().expect("four"));
    let front =
        u64::from(number(60)) + u64::from(number(64)) + u64::from(number(68)) + 4 * u64::from(number(72));
    let front = RECORD_HEADER + usize::try_from(front).expect("64 bits");
    if let Some(octets) = raw.get(RECORD_HEADER..front) {
        let sum = crc32fast::hash(octets);
        raw[76..80].copy_from_slice(&sum.to_le_bytes());
    }
    let sum = seeded(IDENTITY.seed(), &raw[8..RECORD_HEADER]);
    raw[4..8].copy_from_slice(&sum.to_le_bytes());
}

static IDENTITY: LazyLock<Identity> = LazyLock::new(|| Identity::new([7; 16]));
static INTACT: LazyLock<IntactLog> = LazyLock::new(IntactLog::new);

/// The context that message 4 gets later.
const NEW_CONTEXT: Bytes = Bytes::from_static(b"another context");

/// Two intact segments, and what they say.
struct IntactLog {
    files: Vec<Vec<u8>>,
    /// All records, each with the index of its file.
    headers: Vec<(usize, RecordHeader)>,
    known: BTreeMap<QueueId, ExpectedMessage>,
    sequence: u64,
}

/// What a replay may find of a message, now or in an earlier state.
#[derive(Default)]
struct ExpectedMessage {
    sequence: u64,
    metas: Vec<String>,
    places: Vec<(u64, u64)>,
    head: Bytes,
    body: Bytes,
    touched: Vec<ChangedRecipient>,
    held: bool,
    ended: bool,
}

fn id(number: u64) -> QueueId {
    QueueId::new(UnixTime::from_millis(1_000), number.into())
}

fn entry(number: u64, recipients: u32) -> Entry {
    let address = |text: String| Address::parse(&text, Charset::Ascii).expect("an address");
    let recipient = |id: u32| Recipient::new(id, address(format!("r{id}.m{number}@b.example")));
    Entry {
        envelope: Envelope {
            sender: ReversePath::Address(address(format!("s{number}@a.example"))),
            params: MailParams::default(),
            recipients: (0..recipients).map(recipient).collect(),
        },
        received: UnixTime::from_millis(1_000),
        parent: None,
        hold: None,
        released: None,
        has_8bit: false,
        needs_smtputf8: false,
        context: Bytes::new(),
    }
}

impl IntactLog {
    /// Two messages, one of which ends with a report while the other is copied; states, tombstones, and a message that
    /// came and went.
    fn new() -> Self {
        let empty = vec![0; usize::try_from(SEGMENT_HEADER).expect("small")];
        let files = vec![empty.clone(), empty];
        let mut intact = Self { files, headers: Vec::new(), known: BTreeMap::new(), sequence: 0 };
        let held = HoldReason::Operator("to be looked at".into());
        intact.put(0, LogRecord::of(LogRecordKind::Start, id(0), Vec::new()));
        intact.message(0, LogRecordKind::Message, 1, None, 0);
        intact.message(0, LogRecordKind::Message, 2, None, 0);
        intact.settle(0, 1, 0, Disposition::Delivered, false);
        intact.amend(0, 2, &Amendment::Hold(held.clone()));
        intact.message(0, LogRecordKind::Message, 3, None, 1);
        intact.settle(0, 1, 1, Disposition::Failed, true);
        intact.put(1, LogRecord::of(LogRecordKind::Start, id(0), Vec::new()));
        intact.message(1, LogRecordKind::Message, 4, None, 0);
        intact.message(1, LogRecordKind::Copy, 2, Some(&held), 0);
        let state = MessageState::default();
        intact.put(1, LogRecord::of(LogRecordKind::State, id(4), to_json(&state).expect("JSON")));
        let tombstones = Tombstones { from: 1, ended: vec![(id(1), 1)], complete: true };
        intact.put(1, LogRecord::of(LogRecordKind::Tombstones, id(0), to_json(&tombstones).expect("JSON")));
        let meta = to_json(&Amendment::Context { octets: NEW_CONTEXT }).expect("JSON");
        intact.put(1, LogRecord::of_context(LogRecordKind::Amend, id(4), meta, NEW_CONTEXT));
        intact.message(1, LogRecordKind::Message, 5, None, 0);
        intact.settle(1, 5, 0, Disposition::Expired, true);
        intact.put(1, LogRecord::of(LogRecordKind::Start, id(0), Vec::new()));
        intact
    }

    fn put(&mut self, file: usize, mut record: LogRecord) -> (u64, u64) {
        self.sequence += 1;
        let (segment, octets) = (file as u64 + 1, &mut self.files[file]);
        let position = octets.len() as u64;
        record.seal(segment, position, self.sequence, self.sequence - 1);
        octets.extend(record.pieces(IDENTITY.seed()).concat());
        let raw = &octets[usize::try_from(position).expect("small")..];
        let header = RecordHeader::decode(raw, IDENTITY.seed(), segment, position).expect("as written");
        self.headers.push((file, header));
        (segment, position)
    }

    fn message(
        &mut self,
        file: usize,
        kind: LogRecordKind,
        number: u64,
        hold: Option<&HoldReason>,
        rest: usize,
    ) {
        let entry = entry(number, 2);
        let written =
            MessageMetaRef { id: id(number), entry: &entry, hold, released: None, file: None, states: &[] };
        let meta = to_json(&written).expect("JSON");
        let json = String::from_utf8(meta.clone()).expect("text");
        let head = Bytes::from(format!("Subject: message {number}\r\n\r\n"));
        let body = Bytes::from(format!("This is message {number}.\r\n").repeat(3));
        let parts = MessageParts {
            context: Bytes::from(format!("context {number}")),
            head: head.clone(),
            checksums: &[crc32fast::hash(&body)],
            body: body.len() as u64,
            inline: body.clone(),
        };
        let mut record = LogRecord::with(kind, id(number), meta, parts);
        record.followed_by(rest);
        let place = self.put(file, record);
        let sequence = self.sequence;
        let known = self
            .known
            .entry(id(number))
            .or_insert_with(|| ExpectedMessage { sequence, ..ExpectedMessage::default() });
        known.metas.push(json);
        known.places.push(place);
        (known.head, known.body) = (head, body);
    }

    fn settle(&mut self, file: usize, number: u64, recipient: u32, fate: Disposition, ends: bool) {
        let mark = StatusChange { number: recipient, status: DeliveryStatus::Done(fate) };
        let touched = ChangedRecipient { number: recipient, status: Some(mark.status.clone()), route: None };
        let meta = to_json(&SettleMeta { changes: vec![mark] }).expect("JSON");
        let mut record = LogRecord::of(LogRecordKind::Settle, id(number), meta);
        let known = self.known.get_mut(&id(number)).expect("a message");
        known.touched.push(touched);
        known.ended |= ends;
        if ends {
            record.ends(known.places[0].0);
        }
        self.put(file, record);
    }

    fn amend(&mut self, file: usize, number: u64, amendment: &Amendment) {
        self.known.get_mut(&id(number)).expect("a message").held = true;
        self.put(file, LogRecord::of(LogRecordKind::Amend, id(number), to_json(amendment).expect("JSON")));
    }
}

/// The result of scan and replay.
struct ReplayedLog {
    log: Log,
    scans: BTreeMap<u64, Scan>,
    octets: u64,
    database: Database,
    outcome: Result<ReplayOutcome, ReplayError>,
}

impl ReplayedLog {
    fn of(folder: &Path, files: &[Vec<u8>]) -> Self {
        let mut segments = BTreeMap::new();
        for (octets, number) in files.iter().zip(1_u64..) {
            let path = folder.join(number.to_string());
            fs::write(&path, octets).expect("the folder can be written");
            segments.insert(number, SegmentFile { path, length: octets.len() as u64, header: None });
        }
        let octets = files.iter().map(|file| file.len() as u64).sum();
        let log = Log::new(IDENTITY.seed(), segments);
        let scans = log.scan(0).expect("the files can be read");
        let database = Database::in_memory(&IDENTITY).expect("memory");
        let outcome = bring_up(&database, &log, None);
        Self { log, scans, octets, database, outcome }
    }

    /// There are no more records than the octets have room for, in order and without overlap.
    fn bounded(&self) {
        let mut sequence = 0;
        let mut count = 0;
        for (number, scan) in &self.scans {
            let length = self.log.segments[number].length;
            let mut end = SEGMENT_HEADER;
            for record in &scan.records {
                assert!(record.position >= end && record.length() <= length - record.position);
                assert!(record.sequence > sequence);
                (end, sequence) = (record.end(), record.sequence);
                count += 1;
            }
            assert!(scan.gaps.iter().all(|gap| gap.from <= gap.to && gap.to <= length.max(scan.end)));
        }
        assert!(count * RECORD_HEADER as u64 <= self.octets);
        match &self.outcome {
            Ok(ReplayOutcome::Current { records, .. }) => assert!(*records <= count),
            Ok(ReplayOutcome::Apart(_) | ReplayOutcome::Ahead) => {
                panic!("an index that knows nothing is apart: {:?}", self.outcome)
            }
            Err(ReplayError::Io(error)) => panic!("the files can be read: {error}"),
            // A later version may have written what this one cannot read.
            Err(ReplayError::Store(_) | ReplayError::Newer(_)) => {}
        }
    }

    /// Damage removes and never adds, and what it removed is reported.
    fn true_to(&self, intact: &IntactLog) {
        let Ok(ReplayOutcome::Current { damaged, .. }) = self.outcome else { panic!("{:?}", self.outcome) };
        let ids = self.database.ids_after(None, usize::MAX >> 1).expect("an index");
        for id in &ids {
            self.same(*id, intact.known.get(id).expect("no message comes out of nothing"));
        }
        let records = || self.scans.values().flat_map(|scan| &scan.records);
        let durable = records().map(|record| record.durable).max().unwrap_or(0);
        let told = damaged > 0 || self.scans.values().any(|scan| !scan.gaps.is_empty());
        for (id, known) in &intact.known {
            let missing = !known.ended && !ids.contains(id) && known.sequence <= durable;
            assert!(!missing || told, "{id} is missing without a word");
        }
    }

    fn same(&self, id: QueueId, known: &ExpectedMessage) {
        let row = self.database.message(id).expect("a row");
        assert!(known.metas.contains(&row.meta), "{}", row.meta);
        assert!(known.places.contains(&(row.place.segment, row.place.position)));
        assert!(row.hold.is_none() || known.held);
        let context = self.database.context(id).expect("a row");
        assert!(context.is_none_or(|context| context == NEW_CONTEXT));
        for touched in self.database.touched(id).expect("rows") {
            assert!(known.touched.contains(&touched), "{touched:?}");
        }
        let records = self.scans[&row.place.segment].records.iter();
        let header = records.copied().find(|record| record.position == row.place.position).expect("a record");
        let octets = self.log.octets(&header).expect("the file can be read");
        if is_sound(&octets, &header) {
            assert!(octets.ends_with(&[known.head.as_ref(), known.body.as_ref()].concat()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::scan::Gap;

    #[test]
    fn sound_segments_are_read_whole() {
        let folder = tempfile::tempdir().unwrap();
        let read = ReplayedLog::of(folder.path(), &INTACT.files);
        read.true_to(&INTACT);
        let ids = read.database.ids_after(None, 10).unwrap();
        assert_eq!(ids, [id(2), id(3), id(4)]);
        assert_eq!(read.database.context(id(4)).unwrap(), Some(NEW_CONTEXT));
        let records: usize = read.scans.values().map(|scan| scan.records.len()).sum();
        assert_eq!(records, INTACT.headers.len());
    }

    #[test]
    fn the_seeds_of_the_fuzz_target_hold() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/segment");
        let seeds: Vec<_> = fs::read_dir(seeds).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(seeds.len() >= 8, "{}", seeds.len());
        let folder = tempfile::tempdir().unwrap();
        for seed in seeds {
            fuzz_segments(folder.path(), &fs::read(seed).unwrap());
        }
    }

    /// A segment without records does not show that it had some. The records after it do.
    #[test]
    fn a_segment_that_lost_all_its_records_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (&INTACT.files[0], &INTACT.files[1]);
        let head = usize::try_from(SEGMENT_HEADER).unwrap();
        for left in [Vec::new(), first[..head].to_vec(), vec![0; first.len()], vec![0x55; first.len()]] {
            let length = (left.len() as u64).max(SEGMENT_HEADER);
            let read = ReplayedLog::of(folder.path(), &[left, second.clone()]);
            assert_eq!(read.scans[&1].gaps, [Gap { segment: 1, from: SEGMENT_HEADER, to: length }]);
        }
        let read = ReplayedLog::of(folder.path(), &[vec![0; head], vec![0; head]]);
        assert!(read.scans.values().all(|scan| scan.gaps.is_empty()), "made and not yet used");
    }

    /// One octet is flipped at places all over the log, and the log is cut there.
    #[test]
    fn no_flipped_octet_and_no_cut_makes_other_mail() {
        let folder = tempfile::tempdir().unwrap();
        for segment in 0..2_u8 {
            for at in (0..INTACT.files[usize::from(segment)].len()).step_by(23) {
                let [high, low] = u16::try_from(at).unwrap().to_be_bytes();
                fuzz_segments(folder.path(), &[1, 0, segment, high, low, 1, 0x40]);
                fuzz_segments(folder.path(), &[1, 2, segment, high, low, 0, 0]);
            }
        }
    }
}
