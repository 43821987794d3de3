//! Converts spools of earlier versions, in which the database was the truth and the log held bytes alone.
//!
//! All messages are written to new segments, which are synced before the old database is put away. Only then are the
//! old segments deleted. An interrupted conversion starts again, since until then the old folder is complete.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use pintle_mail::{QueueId, UnixTime};
use rusqlite::{Connection, OpenFlags};

use super::file_cache::FileCache;
use super::folders::{Folders, at};
use super::identity::Identity;
use super::index_rebuild::put_away_index;
use super::lost_found::Evidence;
use super::meta::{ChangedRecipient, MessageMeta, MessageMetaRef, from_json, to_json};
use super::record::{LogRecord, LogRecordKind, MessageParts, clamp, u32_at, u64_at};
use super::scan::{self, Log, SegmentFile};
use super::segment_file::{Extent, SegmentFolder, is_absent, read_at};
use super::segments::Segments;
use crate::fault::Faults;
use crate::{HoldReason, OpenError};

/// Octets of the fixed part of an old record.
const HEADER: usize = 64;
const MAGIC: &[u8; 4] = b"PNT1";
/// Octets written before the next sync.
const BATCH: u64 = 16 * 1024 * 1024;

/// A row of the old database.
struct OldRow {
    id: QueueId,
    place: Extent,
    file: Option<String>,
    hold: Option<String>,
    meta: String,
    released: Option<i64>,
}

/// Converts a spool of an earlier version, if it is one. Gives the segments that there are afterwards.
pub(crate) fn upgrade(
    folders: &Folders,
    found: BTreeMap<u64, SegmentFile>,
    size: u64,
) -> Result<BTreeMap<u64, SegmentFile>, OpenError> {
    let Some(database) = open(&folders.database) else {
        return Ok(found);
    };
    let old_log = old_log(&found)?;
    if matches!(Identity::read(&folders.root), Ok(Some(_))) {
        // It was converted long ago, and the database is a copy from before.
        return match old_log {
            None => Ok(found),
            Some(path) => {
                Err(OpenError::ForeignPart { path, what: "it is of an earlier version".to_owned() })
            }
        };
    }
    let messages: u64 = database
        .query_row("SELECT count(*) FROM message", [], |row| row.get::<_, i64>(0))
        .map_or(0, i64::unsigned_abs);
    if messages > 0 && found.is_empty() {
        let path = folders.segments.clone();
        return Err(OpenError::LogMissing { path, messages: Some(messages) });
    }
    if old_log.is_none() && found.values().any(|found| found.header.is_some()) {
        // All but the database has been converted: the old segments are deleted last.
        return Ok(found);
    }
    tracing::warn!("the spool was written by an earlier version; converting it to the current format");
    let next = found.keys().next_back().map_or(1, |last| last + 1);
    for (number, _) in found.iter().filter(|(_, found)| found.header.is_some()) {
        // An interrupted conversion. What it wrote is still in the old segments.
        let path = folders.segments.join(SegmentFolder::name(*number));
        fs::remove_file(&path).map_err(at(&path))?;
    }
    let refused = |what: String| OpenError::Database { path: folders.database.clone(), what };
    let old = Log::new(0, found);
    let count = Upgrade::new(folders, &old, (size, next))?.run(&database).map_err(refused)?;
    drop(database);
    put_away_index(folders).map_err(at(&folders.database))?;
    for (number, _) in old.segments.iter().filter(|(_, found)| found.header.is_none()) {
        let path = folders.segments.join(SegmentFolder::name(*number));
        fs::remove_file(&path).map_err(at(&path))?;
    }
    tracing::warn!(messages = count, "the spool has been converted to the current format");
    scan::find(&folders.segments).map_err(at(&folders.segments))
}

/// A segment of an earlier version, if there is one.
fn old_log(found: &BTreeMap<u64, SegmentFile>) -> Result<Option<PathBuf>, OpenError> {
    for found in found.values().filter(|found| found.header.is_none() && found.length >= HEADER as u64) {
        let mark = found.open().and_then(|file| read_at(&file, 0, MAGIC.len() as u64));
        if mark.map_err(at(&found.path))? == MAGIC[..] {
            return Ok(Some(found.path.clone()));
        }
    }
    Ok(None)
}

fn open(path: &Path) -> Option<Connection> {
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).ok()?;
    let version: i64 = database.query_row("PRAGMA user_version", [], |row| row.get(0)).ok()?;
    (1..=2).contains(&version).then_some(database)
}

struct Upgrade<'a> {
    folders: &'a Folders,
    old: &'a Log,
    new: Segments,
    written: Vec<(LogRecord, Extent)>,
    octets: u64,
}

impl<'a> Upgrade<'a> {
    fn new(folders: &'a Folders, old: &'a Log, (size, next): (u64, u64)) -> Result<Self, OpenError> {
        let folder = SegmentFolder::open(folders.segments.clone()).map_err(at(&folders.segments))?;
        let identity = Identity::random().map_err(at(&folders.root))?;
        let files = Arc::new(FileCache::new(folders.segments.clone()));
        let mut new = Segments::new(folder, identity, size, files, Faults::none());
        new.skip(next - 1);
        Ok(Self { folders, old, new, written: Vec::new(), octets: 0 })
    }

    fn run(mut self, database: &Connection) -> Result<u64, String> {
        let mut count = 0;
        for row in rows(database).map_err(|error| error.to_string())? {
            match self.record(&row, database)? {
                Ok(record) => self.put(record)?,
                Err(what) => self.keep(&row, &what)?,
            }
            count += 1;
        }
        self.flush()?;
        Ok(count)
    }

    fn put(&mut self, record: LogRecord) -> Result<(), String> {
        let place = self.new.place(record.length(), false).map_err(|error| error.to_string())?;
        self.octets += place.length;
        self.written.push((record, place));
        if self.octets > BATCH { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), String> {
        let written = self.new.write(&mut self.written).and_then(|()| self.new.sync());
        self.written.clear();
        self.octets = 0;
        written.map_err(|error| error.to_string())
    }

    /// The inner error is damage. The outer one may pass, and must not cost the message.
    fn record(&self, row: &OldRow, database: &Connection) -> Result<Result<LogRecord, String>, String> {
        match self.octets(row) {
            Ok(raw) => Ok(self.record_of(row, &raw, database)),
            Err(error) if is_absent(&error) => Ok(Err(format!("part of it is missing: {error}"))),
            Err(error) => Err(format!("message {} cannot be read: {error}", row.id)),
        }
    }

    fn record_of(&self, row: &OldRow, raw: &Bytes, database: &Connection) -> Result<LogRecord, String> {
        let parts = OldRecord::decode(raw, row).ok_or("there is no whole record of it in its place")?;
        let written: MessageMeta = from_json(row.meta.as_bytes())?;
        let hold: Option<HoldReason> =
            row.hold.as_deref().map(|hold| from_json(hold.as_bytes())).transpose()?;
        let states = touched(database, row.id).map_err(|error| error.to_string())?;
        let meta = to_json(&MessageMetaRef {
            id: row.id,
            entry: &written.entry,
            hold: hold.as_ref(),
            released: row.released.map(UnixTime::from_millis),
            file: row.file.as_deref(),
            states: &states,
        })
        .map_err(|error| error.to_string())?;
        let OldRecord { context, head, checksums, body, inline } = parts;
        let parts = MessageParts { context, head, checksums: &checksums, body, inline };
        Ok(LogRecord::with(LogRecordKind::Copy, row.id, meta, parts))
    }

    fn octets(&self, row: &OldRow) -> io::Result<Bytes> {
        read_at(&*self.old.file(row.place.segment)?, row.place.position, row.place.length)
    }

    fn keep(&self, row: &OldRow, what: &str) -> Result<(), String> {
        tracing::error!(queue_id = %row.id, what, "A MESSAGE IN THE SPOOL IS DAMAGED and was set aside");
        let octets = self.octets(row).ok();
        let body = row.file.as_ref().map(|file| self.folders.bodies.join(file));
        let evidence = Evidence { id: row.id, what, meta: &row.meta, place: None, octets, body };
        self.folders.lost_found.preserve(&evidence).map_err(|error| error.to_string())
    }
}

fn rows(database: &Connection) -> rusqlite::Result<Vec<OldRow>> {
    let has_releases = database.prepare("SELECT released FROM message").is_ok();
    let released = if has_releases { "released" } else { "NULL" };
    let mut select = database.prepare(&format!(
        "SELECT id, segment, position, length, file, hold, sheet, {released} FROM message ORDER BY id"
    ))?;
    let rows = select.query_map([], |row| {
        let number = |column: usize| row.get::<_, i64>(column).map(i64::unsigned_abs);
        Ok(OldRow {
            id: QueueId::from_bytes(row.get(0)?),
            place: Extent { segment: number(1)?, position: number(2)?, length: number(3)? },
            file: row.get(4)?,
            hold: row.get(5)?,
            meta: row.get(6)?,
            released: row.get(7)?,
        })
    })?;
    rows.collect()
}

fn touched(database: &Connection, id: QueueId) -> Result<Vec<ChangedRecipient>, Box<dyn std::error::Error>> {
    let mut select =
        database.prepare_cached("SELECT number, status, route FROM recipient WHERE message = ?")?;
    let mut rows = select.query([id.to_bytes()])?;
    let mut touched = Vec::new();
    while let Some(row) = rows.next()? {
        let (status, route): (Option<String>, Option<String>) = (row.get(1)?, row.get(2)?);
        touched.push(ChangedRecipient {
            number: row.get(0)?,
            status: status.as_deref().map(serde_json::from_str).transpose()?,
            route: route.as_deref().map(serde_json::from_str).transpose()?,
        });
    }
    Ok(touched)
}

/// An old record: 64 octets of header, checksums of the body's blocks, context, head, body.
struct OldRecord {
    context: Bytes,
    head: Bytes,
    checksums: Vec<u32>,
    body: u64,
    inline: Bytes,
}

impl OldRecord {
    fn decode(raw: &Bytes, row: &OldRow) -> Option<Self> {
        let header = raw.get(..HEADER)?;
        let sound = &header[..4] == MAGIC
            && u32_at(header, 4) == crc32fast::hash(&header[8..])
            && u64_at(header, 8) == row.place.segment
            && header[16..32] == row.id.to_bytes();
        let (context, head) = (u64::from(u32_at(header, 32)), u64::from(u32_at(header, 36)));
        let (inline, body) = (u64_at(header, 40), u64_at(header, 48));
        let context_at = HEADER as u64 + 4 * u64::from(u32_at(header, 56));
        let head_at = context_at + context;
        let body_at = head_at + head;
        if !sound || body_at.checked_add(inline) != Some(raw.len() as u64) {
            return None;
        }
        let (context_at, head_at, body_at) = (clamp(context_at), clamp(head_at), clamp(body_at));
        if crc32fast::hash(&raw[HEADER..body_at]) != u32_at(header, 60) {
            return None;
        }
        let checksums = raw[HEADER..context_at].chunks_exact(4).map(|sum| u32_at(sum, 0)).collect();
        Some(Self {
            context: raw.slice(context_at..head_at),
            head: raw.slice(head_at..body_at),
            checksums,
            body,
            inline: raw.slice(body_at..),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::messages::{LATER, NOW, Sample, deferred};
    use crate::{Embedded, EmbeddedConfig, Entry, Quarantine, Spool};

    fn short(length: usize) -> [u8; 4] {
        u32::try_from(length).unwrap().to_le_bytes()
    }

    /// A record as the earlier version wrote it.
    fn old_record(sample: &Sample, file: bool) -> Vec<u8> {
        let (context, head, body) = (sample.entry().context, sample.head(), sample.body());
        let sums: Vec<u8> =
            body.chunks(64 * 1024).flat_map(|block| crc32fast::hash(block).to_le_bytes()).collect();
        let rest = [&sums[..], &context, &head].concat();
        let inline = if file { 0 } else { body.len() as u64 };
        let mut header = [
            &1_u64.to_le_bytes()[..],
            &sample.id().to_bytes(),
            &short(context.len()),
            &short(head.len()),
            &inline.to_le_bytes(),
            &(body.len() as u64).to_le_bytes(),
            &short(sums.len() / 4),
            &crc32fast::hash(&rest).to_le_bytes(),
        ]
        .concat();
        let crc = crc32fast::hash(&header).to_le_bytes();
        header.splice(0..0, [&MAGIC[..], &crc].concat());
        let mut record = [header, rest].concat();
        if !file {
            record.extend_from_slice(&body);
        }
        record
    }

    /// A folder as the earlier version left it.
    fn old_spool(folder: &Path, version: i64, samples: &[Sample]) {
        for name in ["segments", "bodies"] {
            fs::create_dir_all(folder.join(name)).unwrap();
        }
        let database = Connection::open(folder.join("envelopes.db")).unwrap();
        let released = if version == 2 { ", released INTEGER" } else { "" };
        let schema = format!(
            "CREATE TABLE message (id BLOB PRIMARY KEY, received INTEGER, size INTEGER, segment INTEGER,
                position INTEGER, length INTEGER, file TEXT, hold TEXT, touched INTEGER, sheet TEXT{released});
            CREATE TABLE recipient (message BLOB, number INTEGER, status TEXT, route TEXT);
            PRAGMA user_version = {version};"
        );
        database.execute_batch(&schema).unwrap();
        let mut log = Vec::new();
        for sample in samples {
            let file = (sample.size > 1_000_000).then(|| format!("{:016x}.body", sample.number));
            if let Some(file) = &file {
                fs::write(folder.join("bodies").join(file), sample.body()).unwrap();
            }
            let record = old_record(sample, file.is_some());
            let entry: Entry = sample.entry();
            let sheet = serde_json::json!({ "id": sample.id(), "entry": entry }).to_string();
            let insert =
                "INSERT INTO message (id, received, size, segment, position, length, file, touched, sheet)
                VALUES (?, ?, ?, 1, ?, ?, ?, 0, ?)";
            let size = (sample.head().len() + sample.size) as i64;
            let (position, length) = (log.len() as i64, record.len() as i64);
            let (id, received) = (sample.id().to_bytes(), NOW.millis());
            database
                .execute(insert, rusqlite::params![id, received, size, position, length, file, sheet])
                .unwrap();
            log.extend(record);
            log.resize(log.len().next_multiple_of(8), 0);
        }
        fs::write(folder.join("segments/0000000000000001.log"), log).unwrap();
    }

    #[tokio::test]
    async fn a_spool_of_an_earlier_version_loses_nothing() {
        for version in [1, 2] {
            let folder = tempfile::TempDir::new().unwrap();
            let (small, large, damaged) = (Sample::small(1), Sample::large(2), Sample::small(3));
            old_spool(folder.path(), version, &[small, large, damaged]);
            let database = Connection::open(folder.path().join("envelopes.db")).unwrap();
            let status = serde_json::to_string(&deferred(2)).unwrap();
            let id = small.id().to_bytes();
            database.execute("INSERT INTO recipient VALUES (?, 1, ?, NULL)", (id, status)).unwrap();
            let hold = r#"{"quarantine":"viruses"}"#;
            database.execute("UPDATE message SET touched = 1, hold = ? WHERE id = ?", (hold, id)).unwrap();
            database
                .execute("UPDATE message SET length = 70 WHERE id = ?", [damaged.id().to_bytes()])
                .unwrap();
            drop(database);
            for round in 0..3 {
                let config = EmbeddedConfig { reserve: 0, ..EmbeddedConfig::new(folder.path()) };
                let spool = Embedded::open(&config).unwrap();
                let stored = spool.load(small.id()).await.unwrap();
                small.assert_same(&stored).await;
                assert_eq!(stored.recipients[0].status, deferred(2));
                let viruses = HoldReason::Quarantine(Quarantine::new("viruses", NOW));
                assert_eq!(stored.entry.hold, (round < 2).then_some(viruses));
                large.assert_same(&spool.load(large.id()).await.unwrap()).await;
                assert_eq!(spool.totals().await.unwrap().damaged, 1);
                assert_eq!(spool.claim(None, 9).await.unwrap().len(), 2);
                if round == 1 {
                    spool.release(small.id(), LATER, crate::Guard::Any).await.unwrap();
                }
                spool.close().await.unwrap();
            }
            assert!(folder.path().join(format!("damaged/{}.txt", damaged.id())).exists());
        }
    }

    #[tokio::test]
    async fn an_upgrade_that_was_cut_off_begins_anew() {
        let folder = tempfile::TempDir::new().unwrap();
        let sample = Sample::small(1);
        old_spool(folder.path(), 2, &[sample]);
        let old = fs::read(folder.path().join("envelopes.db")).unwrap();
        let log = fs::read(folder.path().join("segments/0000000000000001.log")).unwrap();
        let config = EmbeddedConfig { reserve: 0, ..EmbeddedConfig::new(folder.path()) };
        Embedded::open(&config).unwrap().close().await.unwrap();
        // As if the power had failed before the old database was put away.
        for name in ["envelopes.db", "identity"] {
            fs::remove_file(folder.path().join(name)).unwrap();
        }
        fs::write(folder.path().join("envelopes.db"), old).unwrap();
        fs::write(folder.path().join("segments/0000000000000001.log"), log).unwrap();
        let spool = Embedded::open(&config).unwrap();
        sample.assert_same(&spool.load(sample.id()).await.unwrap()).await;
        assert_eq!(spool.claim(None, 9).await.unwrap().len(), 1);
        spool.close().await.unwrap();
    }

    #[tokio::test]
    async fn a_copy_of_the_old_database_beside_a_new_log_destroys_nothing() {
        let folder = tempfile::TempDir::new().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        let (before, sample) = (Sample::small(1), Sample::small(2));
        old_spool(&old, 2, &[before]);
        let config = EmbeddedConfig { reserve: 0, ..EmbeddedConfig::new(&new) };
        let spool = Embedded::open(&config).unwrap();
        sample.commit(&spool).await.unwrap();
        spool.close().await.unwrap();
        drop(spool);
        for with_identity in [true, false] {
            for name in ["envelopes.db-wal", "envelopes.db-shm"] {
                let _ = fs::remove_file(new.join(name));
            }
            fs::copy(old.join("envelopes.db"), new.join("envelopes.db")).unwrap();
            if !with_identity {
                // As if the power had failed when all but the old database was where it belongs.
                fs::remove_file(new.join("identity")).unwrap();
            }
            let spool = Embedded::open(&config).unwrap();
            sample.assert_same(&spool.load(sample.id()).await.unwrap()).await;
            assert_eq!(spool.claim(None, 9).await.unwrap().len(), 1);
            spool.close().await.unwrap();
        }
        // With the old log as well, it is unknown which of the two is meant.
        fs::copy(old.join("envelopes.db"), new.join("envelopes.db")).unwrap();
        let name = "segments/00000000000000ff.log";
        fs::copy(old.join("segments/0000000000000001.log"), new.join(name)).unwrap();
        let refused = Embedded::open(&config);
        assert!(matches!(refused, Err(OpenError::ForeignPart { path, .. }) if path == new.join(name)));
    }
}
