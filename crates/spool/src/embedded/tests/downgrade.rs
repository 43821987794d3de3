//! A downgrade by one version: a change that a later version wrote and this one does not understand holds its message,
//! and is still there when a version runs that understands it.

use pintle_mail::Bytes;

use super::damage::remove_index;
use super::*;
use crate::embedded::batch::{copy_record, message_record};
use crate::embedded::identity::Identity;
use crate::embedded::meta::MessageState;
use crate::embedded::record::{LogRecord, LogRecordKind, clamp, padded, seeded};
use crate::embedded::row::recipient_sum;
use crate::embedded::scan::{self, Log};
use crate::embedded::segment_file::{Extent, FORMAT, SegmentFolder};
use crate::{DeliveryStatus, Disposition};

/// Octets of the metadata of a forged record, so that it can be replaced later.
const META: usize = 300;
const UNKNOWN_STATUS: &str = r#"{"done":"teleported"}"#;

/// A forged record.
struct ForgedRecord {
    path: PathBuf,
    at: usize,
    record: LogRecord,
    seed: u32,
}

impl ForgedRecord {
    /// Appends a record to the log of a closed spool.
    fn append(store: &FolderStore, kind: LogRecordKind, id: QueueId, meta: &str) -> Self {
        let found = scan::find(&store.folder.join("segments")).unwrap();
        let seed = Identity::read(&store.folder).unwrap().unwrap().seed();
        let log = Log::new(seed, found);
        let scans = log.scan(0).unwrap();
        let last = *scans.values().rev().find_map(|scan| scan.records.last()).unwrap();
        let mut record = LogRecord::of(kind, id, padded_meta(meta));
        record.seal(last.segment, last.end(), last.sequence + 1, last.sequence);
        let path = store.folder.join("segments").join(SegmentFolder::name(last.segment));
        let forged = Self { path, at: clamp(last.end()), record, seed };
        forged.write(|_| ());
        forged
    }

    fn write(&self, change: impl FnOnce(&mut [u8])) {
        let mut octets = self.record.pieces(self.seed).concat();
        change(&mut octets);
        let mut file = fs::read(&self.path).unwrap();
        file.resize(file.len().max(self.at + octets.len()), 0);
        file[self.at..self.at + octets.len()].copy_from_slice(&octets);
        fs::write(&self.path, file).unwrap();
    }

    /// As if a version ran that understands the record: to it, this is what the record says.
    fn understood(&self, kind: LogRecordKind, id: QueueId, meta: &str) {
        let octets = fs::read(&self.path).unwrap();
        let said = &octets[self.at..];
        let (sequence, durable) = (said[24..32].try_into().unwrap(), said[32..40].try_into().unwrap());
        let (segment, position) = (said[8..16].try_into().unwrap(), said[16..24].try_into().unwrap());
        let mut record = LogRecord::of(kind, id, padded_meta(meta));
        record.seal(
            u64::from_le_bytes(segment),
            u64::from_le_bytes(position),
            u64::from_le_bytes(sequence),
            u64::from_le_bytes(durable),
        );
        assert_eq!(padded(record.length()), padded(self.record.length()));
        let (path, at, seed) = (self.path.clone(), self.at, self.seed);
        Self { path, at, record, seed }.write(|_| ());
    }
}

/// JSON ignores blanks at the end.
fn padded_meta(meta: &str) -> Vec<u8> {
    format!("{meta:META$}").into_bytes()
}

async fn filled(samples: &[Sample]) -> FolderStore {
    let mut store = FolderStore::new();
    let spool = store.engine();
    for sample in samples {
        sample.commit(&*spool).await.unwrap();
    }
    spool.close().await.unwrap();
    store
}

/// Delivers all messages but this one, and more, so that the compactor wants its segment.
async fn thin_out(spool: &Embedded, store: &FolderStore, first: u32) {
    for number in first..first + 120 {
        let sample = Sample::small(number);
        sample.commit(spool).await.unwrap();
        spool.settle(sample.all_done()).await.unwrap();
    }
    for _ in 0..50 {
        assert!(spool.release(Sample::small(9_999).id(), LATER, Guard::Any).await.is_err());
    }
    assert!(store.folder.join("segments/0000000000000001.log").exists(), "what was not understood is gone");
}

/// A change of one message that this version does not understand, and the change as a later version reads it.
fn changes() -> [(LogRecordKind, String, LogRecordKind, String); 4] {
    let understood = r#"{"reroute":[[1],{"relay":"inside"}]}"#.to_owned();
    let delivered = r#"{"number":2,"status":{"done":"delivered"}}"#;
    let route = r#""route":{"relay":"inside"}"#;
    [
        (
            LogRecordKind::Amend,
            r#"{"embargo":{"until":7}}"#.to_owned(),
            LogRecordKind::Amend,
            understood.clone(),
        ),
        (
            LogRecordKind::Amend,
            r#"{"release":{"at":7,"by":"x"}}"#.to_owned(),
            LogRecordKind::Amend,
            understood.clone(),
        ),
        (
            LogRecordKind::Settle,
            format!(r#"{{"changes":[{{"number":1,"status":{UNKNOWN_STATUS}}}]}}"#),
            LogRecordKind::Amend,
            understood,
        ),
        (
            LogRecordKind::State,
            format!(r#"{{"states":[{delivered},{{"number":1,"status":{UNKNOWN_STATUS},{route}}}]}}"#),
            LogRecordKind::State,
            format!(r#"{{"states":[{delivered},{{"number":1,{route}}}]}}"#),
        ),
    ]
}

#[tokio::test]
async fn a_change_of_a_later_version_holds_its_message_until_one_runs_that_understands_it() {
    for (kind, unknown, known_kind, known) in changes() {
        let (sample, other) = (Sample::small(1).to(2), Sample::small(2));
        let mut store = filled(&[sample, other]).await;
        let forged = ForgedRecord::append(&store, kind, sample.id(), &unknown);
        for round in 0..3 {
            let spool = store.engine();
            let stored = spool.load(sample.id()).await.unwrap();
            sample.assert_same(&stored).await;
            let hold = stored.entry.hold.expect("it is held").to_string();
            assert!(hold.contains("a later version"), "{hold}");
            assert!(spool.claim(None, 9).await.unwrap()[0].hold.is_some());
            assert_eq!(spool.load(other.id()).await.unwrap().entry.hold, None);
            thin_out(&spool, &store, 1_000 + round * 200).await;
            spool.close().await.unwrap();
            drop(spool);
            if round == 1 {
                remove_index(&store);
            }
        }
        forged.understood(known_kind, sample.id(), &known);
        for _ in 0..2 {
            let spool = store.engine();
            let stored = spool.load(sample.id()).await.unwrap();
            assert_eq!(stored.entry.hold, None, "{unknown}");
            assert_eq!(stored.recipients[0].route, Some(NextHop::Relay("inside".into())));
            let second = if kind == LogRecordKind::State { delivered() } else { DeliveryStatus::fresh(NOW) };
            assert_eq!(stored.recipients[1].status, second);
            spool.close().await.unwrap();
        }
        // The log is not read again from its start any more.
        let database = rusqlite::Connection::open(store.folder.join("envelopes.db")).unwrap();
        let mark: i64 = database.query_row("PRAGMA application_id", [], |row| row.get(0)).unwrap();
        assert_eq!(mark, 0);
    }
}

/// The index is the later version's as well: it has the change that this version does not understand.
#[tokio::test]
async fn a_status_that_a_later_version_put_into_the_index_holds_its_message() {
    let (sample, other) = (Sample::small(1).to(2), Sample::small(2));
    let mut store = filled(&[sample, other]).await;
    let spool = store.engine();
    spool.settle(sample.settlement(1, deferred(1))).await.unwrap();
    spool.close().await.unwrap();
    drop(spool);
    let marks = format!(r#"{{"changes":[{{"number":1,"status":{UNKNOWN_STATUS}}}]}}"#);
    ForgedRecord::append(&store, LogRecordKind::Settle, sample.id(), &marks);
    let database = rusqlite::Connection::open(store.folder.join("envelopes.db")).unwrap();
    let sum = recipient_sum(sample.id(), 1, Some(UNKNOWN_STATUS), None);
    let changed =
        database.execute("UPDATE recipient SET status = ?, sum = ?", (UNKNOWN_STATUS, sum)).unwrap();
    assert_eq!(changed, 1);
    database.execute("UPDATE log SET sequence = sequence + 1", []).unwrap();
    drop(database);
    for _ in 0..2 {
        let spool = store.engine();
        let stored = spool.load(sample.id()).await.unwrap();
        assert!(stored.entry.hold.unwrap().to_string().contains("a later version"));
        assert_eq!(spool.load(other.id()).await.unwrap().entry.hold, None);
        assert_eq!(spool.totals().await.unwrap().damaged, 0);
        spool.close().await.unwrap();
    }
    // An operator may end the message. Then nothing is left to be understood.
    let spool = store.engine();
    spool.settle(sample.settlement(1, DeliveryStatus::Done(Disposition::Discarded))).await.unwrap();
    assert!(spool.settle(sample.settlement(2, delivered())).await.unwrap().removed);
    spool.close().await.unwrap();
}

#[tokio::test]
async fn what_holds_a_message_in_quarantine_is_not_replaced() {
    let mut store = FolderStore::new();
    let spool = store.engine();
    let sample = Sample::small(1);
    let mut message = sample.message(&*spool).await.unwrap();
    message.entry.hold = Some(in_quarantine("spam"));
    spool.commit(message).await.unwrap();
    spool.close().await.unwrap();
    drop(spool);
    let forged = ForgedRecord::append(&store, LogRecordKind::Amend, sample.id(), r#"{"let-go":7}"#);
    for _ in 0..2 {
        let spool = store.engine();
        assert_eq!(spool.load(sample.id()).await.unwrap().entry.hold, Some(in_quarantine("spam")));
        thin_out(&spool, &store, 1_000).await;
        spool.close().await.unwrap();
    }
    forged.understood(LogRecordKind::Amend, sample.id(), r#"{"release":7}"#);
    let spool = store.engine();
    let entry = spool.load(sample.id()).await.unwrap().entry;
    assert_eq!((entry.hold, entry.released), (None, Some(UnixTime::from_millis(7))));
    spool.close().await.unwrap();
}

/// A later version may have more metadata of a message than this one knows. A copy of the record must keep it.
#[tokio::test]
async fn a_record_that_is_moved_keeps_what_is_not_known_of_it() {
    let store = filled(&[]).await;
    let spool = Embedded::open(&store.config()).unwrap();
    let message = StagedMessage::new(Sample::small(1).message(&spool).await.unwrap()).unwrap();
    let (json, _) = message_record(&message).unwrap();
    let mut said: serde_json::Value = serde_json::from_str(&json).unwrap();
    said["entry"]["urgent"] = 7.into();
    said["colour"] = "blue".into();
    said["hold"] = serde_json::json!({ "operator": "look" });
    let mut record = LogRecord::of(LogRecordKind::Message, message.id, said.to_string().into_bytes());
    let from = Extent { segment: 1, position: 64, length: record.length() };
    record.seal(1, 64, 9, 8);
    let raw = Bytes::from(record.pieces(5).concat());
    let state = MessageState { released: Some(LATER), ..MessageState::default() };
    let (_, written, json) = copy_record(&raw, from, &state, 5).unwrap();
    let moved: serde_json::Value = serde_json::from_str(&json).unwrap();
    let expected = serde_json::to_value(LATER).unwrap();
    assert_eq!(
        (&moved["entry"], &moved["colour"], &moved["released"]),
        (&said["entry"], &said["colour"], &expected)
    );
    assert!(moved.get("hold").is_none() && written.hold.is_none());
    spool.close().await.unwrap();
}

/// Writes another format into the header of a segment.
fn set_format(path: &Path, format: u32) {
    let mut octets = fs::read(path).unwrap();
    octets[8..12].copy_from_slice(&format.to_le_bytes());
    let crc = crc32fast::hash(&octets[8..64]);
    octets[4..8].copy_from_slice(&crc.to_le_bytes());
    fs::write(path, &octets).unwrap();
}

/// The formats of the segments, oldest first.
fn formats(store: &FolderStore) -> Vec<u32> {
    let found = scan::find(&store.folder.join("segments")).unwrap();
    found.values().filter_map(|found| Some(found.header?.format)).collect()
}

/// Versions of format 3 ignore groups, refusals and replaced contexts. So they must be refused a spool that may have some,
/// while what they wrote is read.
#[tokio::test]
async fn a_segment_of_format_3_is_read_and_what_it_lacks_goes_to_segments_of_format_4() {
    let (old, new) = (Sample::small(1), Sample::small(2));
    let mut store = filled(&[old]).await;
    let first = store.folder.join("segments/0000000000000001.log");
    set_format(&first, 3);
    let before = fs::read(&first).unwrap();
    for with_index in [true, false] {
        let spool = store.engine();
        let context = Bytes::from(format!("replaced, {with_index}"));
        spool.set_context(old.id(), context.clone()).await.unwrap();
        if with_index {
            let mut message = new.message(&*spool).await.unwrap();
            message.entry.envelope.recipients[0].groups.insert("plugin".into(), "a".into());
            message.entry.envelope.recipients[0].refused = Some(pintle_mail::Reply::plain(550, "no"));
            spool.commit(message).await.unwrap();
        }
        spool.close().await.unwrap();
        drop(spool);
        let formats = formats(&store);
        assert!(formats[0] == 3 && formats.len() > 1 && formats[1..].iter().all(|format| *format == 4));
        // The room behind its records is cut off.
        assert!(before.starts_with(&fs::read(&first).unwrap()), "something was added");
        remove_index(&store);
        let spool = store.engine();
        assert_eq!(spool.load(old.id()).await.unwrap().entry.context, context);
        let recipient = spool.load(new.id()).await.unwrap().entry.envelope.recipients.remove(0);
        assert!(recipient.refused.is_some() && recipient.groups["plugin"] == "a");
        spool.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_kind_of_record_or_a_format_of_a_later_version_is_refused_and_left_alone() {
    let samples = [Sample::small(1), Sample::small(2)];
    for what in ["kind", "format"] {
        let mut store = filled(&samples).await;
        let path = store.folder.join("segments/0000000000000001.log");
        let before = fs::read(&path).unwrap();
        if what == "kind" {
            let forged = ForgedRecord::append(&store, LogRecordKind::Start, samples[0].id(), "{}");
            let seed = forged.seed;
            forged.write(|raw| {
                raw[56] = 99;
                let crc = seeded(seed, &raw[8..104]);
                raw[4..8].copy_from_slice(&crc.to_le_bytes());
            });
        } else {
            set_format(&path, FORMAT + 1);
        }
        let octets = fs::read(&path).unwrap();
        for with_index in [true, false] {
            if !with_index {
                remove_index(&store);
            }
            let refused = Embedded::open(&store.config());
            assert!(matches!(refused, Err(OpenError::Newer { .. })), "{what}: {:?}", refused.err());
            assert!(fs::read(&path).unwrap() == octets, "{what}");
        }
        fs::write(&path, &before).unwrap();
        let spool = store.engine();
        for sample in samples {
            sample.assert_same(&spool.load(sample.id()).await.unwrap()).await;
        }
        spool.close().await.unwrap();
    }
}
