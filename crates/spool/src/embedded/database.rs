//! The index of the log in SQLite: schema and statements.
//!
//! It has nothing that the log does not have, and is rebuilt from the log when it is missing or damaged. It follows the
//! log without a sync per batch: the table `log` says how far. Each row has a checksum, so that a flipped bit is found
//! before mail goes to another address.
//!
//! A message is one row, with its envelope as JSON text: an operator can query it with `sqlite3` (the view `queue`
//! shows one line per recipient), and a message that is delivered at the first attempt costs one insert and one delete.
//! Only recipients that the first attempt did not settle get rows of their own.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::time::Duration;

use pintle_mail::{NextHop, QueueId};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};

use super::context_table::CREATE_CONTEXT;
use super::identity::Identity;
use super::meta::ChangedRecipient;
use super::row::{
    Checked, MessageRow, damaged, flipped, from_text, recipient_sum, signed, to_text, unsigned,
};
use super::segments::Edge;
use crate::{DeliveryStatus, Entry, RecipientState, SpoolError};

/// The schema's number. A database with a higher one is refused, one with a lower one is converted or rebuilt.
pub(crate) const SCHEMA: i64 = 3;

const CREATE: &str = "
    CREATE TABLE log (              -- one row: how far the log has been read into this index
        identity BLOB NOT NULL, segment INTEGER NOT NULL, position INTEGER NOT NULL, sequence INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE message (
        id BLOB PRIMARY KEY,        -- the queue id, 16 octets
        received INTEGER NOT NULL,  -- milliseconds since 1970
        size INTEGER NOT NULL,      -- header block and body, in octets
        segment INTEGER NOT NULL, position INTEGER NOT NULL, length INTEGER NOT NULL,  -- where its record lies
        file TEXT,                  -- the file of a large body
        hold TEXT,                  -- JSON; why it is not to be delivered
        touched INTEGER NOT NULL,   -- whether the tables recipient, context and mark have rows for it
        sheet TEXT NOT NULL,        -- JSON: id, envelope, and what else was known at the commit
        released INTEGER,           -- milliseconds since 1970; when it was let out of a quarantine
        sum INTEGER NOT NULL        -- checksum of the above
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE recipient (
        message BLOB NOT NULL, number INTEGER NOT NULL,
        status TEXT,                -- JSON; NULL means fresh: due at once, never tried
        route TEXT,                 -- JSON; the operator's choice of next hop
        sum INTEGER NOT NULL,
        PRIMARY KEY (message, number)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE mark (             -- which segments have records of changes to a message
        segment INTEGER NOT NULL, message BLOB NOT NULL, PRIMARY KEY (message, segment)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX marks ON mark (segment);
    CREATE TABLE edge (             -- segments that must stay as long as older ones do
        older INTEGER NOT NULL, newer INTEGER NOT NULL, copies INTEGER NOT NULL, PRIMARY KEY (older, newer, copies)
    ) STRICT, WITHOUT ROWID;
    CREATE VIEW queue AS
        SELECT sheet->>'$.id' AS id, datetime(received / 1000, 'unixepoch') AS received, size,
            sheet->>'$.entry.envelope.sender' AS sender, each.value->>'$.address' AS recipient,
            coalesce(recipient.status, 'fresh') AS status, recipient.route AS route, hold
        FROM message, json_each(sheet, '$.entry.envelope.recipients') AS each
            LEFT JOIN recipient ON recipient.message = message.id
                AND recipient.number = each.value->>'$.id';
    PRAGMA user_version = 3;
";

// NORMAL: only a checkpoint syncs, which keeps the file consistent. Rows that a power cut takes are read from the log
// again. SQLite's write-ahead log may grow to 16 MiB before a checkpoint, so that rows of messages that live for a
// second are rarely written twice.
const PRAGMAS: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL;
    PRAGMA wal_autocheckpoint = 4000;
    PRAGMA journal_size_limit = 33554432;
    PRAGMA cache_size = -16000;
    PRAGMA temp_store = MEMORY;
";

const COLUMNS: &str =
    "segment, position, length, file, size, received, hold, touched, sheet, released, sum, id";

/// One connection to the index.
pub(crate) struct Database {
    pub(crate) connection: Connection,
    /// Messages with records that this version does not understand, as far as the log has been read through this
    /// connection. Those records must stay as they are.
    pub(crate) unread: BTreeSet<QueueId>,
}

/// `application_id` of an index that lacks records which this version did not understand.
const PASSED_OVER: i64 = 1;

/// How far the log has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LogPosition {
    pub(crate) segment: u64,
    /// Where the next record begins, in octets from the start of the segment.
    pub(crate) position: u64,
    /// The sequence number of the last record that counted.
    pub(crate) sequence: u64,
}

/// Why a database cannot be used.
#[derive(Debug)]
pub(crate) enum UnusableDatabase {
    /// A newer version wrote it, with this schema.
    Newer(i64),
    /// An older version wrote it, with this schema, when the database was the truth.
    Older(i64),
    /// It has no tables.
    Empty,
    /// It is not what was written, or cannot be read.
    Damaged(String),
}

impl Database {
    /// Opens an existing database.
    pub(crate) fn open(path: &Path) -> Result<Self, UnusableDatabase> {
        let database = Self::connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)
            .map_err(|error| UnusableDatabase::of(&error))?;
        match database.schema().map_err(|error| UnusableDatabase::of(&error))? {
            SCHEMA => {}
            0 => return Err(UnusableDatabase::Empty),
            found if found > SCHEMA => return Err(UnusableDatabase::Newer(found)),
            found => return Err(UnusableDatabase::Older(found)),
        }
        database.connection.execute_batch(PRAGMAS).map_err(|error| UnusableDatabase::of(&error))?;
        database.connection.execute_batch(CREATE_CONTEXT).map_err(|error| UnusableDatabase::of(&error))?;
        Ok(database)
    }

    /// Makes a new database, for the log of this identity.
    pub(crate) fn create(path: &Path, identity: &Identity) -> rusqlite::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let database = Self::connect(path, flags)?;
        database.connection.execute_batch(PRAGMAS)?;
        let connection = &database.connection;
        connection.execute_batch("BEGIN IMMEDIATE")?;
        connection.execute_batch(CREATE)?;
        connection.execute_batch(CREATE_CONTEXT)?;
        connection.execute("INSERT INTO log VALUES (?, 0, 0, 0)", [identity.octets()])?;
        connection.execute_batch("COMMIT")?;
        Ok(database)
    }

    /// Opens it read-only, even while another process works with it.
    pub(crate) fn read_only(path: &Path) -> Result<Self, UnusableDatabase> {
        let database = Self::connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
            .map_err(|error| UnusableDatabase::of(&error))?;
        match database.schema().map_err(|error| UnusableDatabase::of(&error))? {
            SCHEMA => Ok(database),
            0 => Err(UnusableDatabase::Empty),
            found if found > SCHEMA => Err(UnusableDatabase::Newer(found)),
            found => Err(UnusableDatabase::Older(found)),
        }
    }

    /// What SQLite's own check finds wrong with the file.
    pub(crate) fn faults(&self) -> rusqlite::Result<Vec<String>> {
        let mut check = self.connection.prepare("PRAGMA quick_check(20)")?;
        let lines = check.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
        Ok(lines.into_iter().filter(|line| line != "ok").collect())
    }

    /// Makes one in memory.
    pub(crate) fn in_memory(identity: &Identity) -> rusqlite::Result<Self> {
        Self::create(Path::new(":memory:"), identity)
    }

    fn connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<Self> {
        let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(Duration::from_secs(10))?;
        connection.set_prepared_statement_cache_capacity(32);
        Ok(Self { connection, unread: BTreeSet::new() })
    }

    fn schema(&self) -> rusqlite::Result<i64> {
        self.connection.query_row("PRAGMA user_version", [], |row| row.get(0))
    }

    /// Notes whether it lacks records that this version did not understand. The next process that opens it rebuilds it
    /// then.
    pub(crate) fn pass_over(&self, passed_over: bool) -> Result<(), SpoolError> {
        if self.has_passed_over()? != passed_over {
            let mark = if passed_over { PASSED_OVER } else { 0 };
            self.connection.pragma_update(None, "application_id", mark)?;
        }
        Ok(())
    }

    /// Whether that has been noted.
    pub(crate) fn has_passed_over(&self) -> rusqlite::Result<bool> {
        let mark: i64 = self.connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
        Ok(mark == PASSED_OVER)
    }

    pub(crate) fn execute(&self, sql: &str) -> Result<(), SpoolError> {
        self.connection.prepare_cached(sql)?.execute([])?;
        Ok(())
    }

    /// The identity of the log that it is an index of.
    pub(crate) fn identity(&self) -> rusqlite::Result<Identity> {
        self.connection.query_row("SELECT identity FROM log", [], |row| Ok(Identity::new(row.get(0)?)))
    }

    pub(crate) fn reached(&self) -> Result<LogPosition, SpoolError> {
        let mut select = self.connection.prepare_cached("SELECT segment, position, sequence FROM log")?;
        let reached = select.query_row([], |row| {
            Ok(LogPosition {
                segment: unsigned(row, 0)?,
                position: unsigned(row, 1)?,
                sequence: unsigned(row, 2)?,
            })
        })?;
        Ok(reached)
    }

    pub(crate) fn set_reached(&self, reached: LogPosition) -> Result<(), SpoolError> {
        let mut update =
            self.connection.prepare_cached("UPDATE log SET segment = ?, position = ?, sequence = ?")?;
        let LogPosition { segment, position, sequence } = reached;
        update.execute(params![signed(segment), signed(position), signed(sequence)])?;
        Ok(())
    }

    /// Inserts the row of a new message.
    pub(crate) fn insert(&self, id: QueueId, row: &MessageRow) -> Result<(), SpoolError> {
        let put = self.put("INSERT", id, row);
        match put {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                Err(SpoolError::Duplicate(id))
            }
            put => Ok(put?),
        }
    }

    /// Replaces a message's row.
    pub(crate) fn replace(&self, id: QueueId, row: &MessageRow) -> Result<(), SpoolError> {
        Ok(self.put("REPLACE", id, row)?)
    }

    fn put(&self, verb: &str, id: QueueId, row: &MessageRow) -> rusqlite::Result<()> {
        let sql = format!("{verb} INTO message ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
        let mut put = self.connection.prepare_cached(&sql)?;
        put.execute(params![
            signed(row.place.segment),
            signed(row.place.position),
            signed(row.place.length),
            row.file,
            signed(row.size),
            row.received,
            row.hold,
            row.touched,
            row.meta,
            row.released,
            row.sum(id),
            id.to_bytes(),
        ])?;
        Ok(())
    }

    pub(crate) fn message(&self, id: QueueId) -> Result<MessageRow, SpoolError> {
        self.find(id)?.ok_or(SpoolError::Unknown(id))
    }

    /// A message's row, if there is one.
    pub(crate) fn find(&self, id: QueueId) -> Result<Option<MessageRow>, SpoolError> {
        let mut select =
            self.connection.prepare_cached(&format!("SELECT {COLUMNS} FROM message WHERE id = ?"))?;
        let row = select.query_row([id.to_bytes()], MessageRow::read).optional()?;
        row.map(|row| row.checked(id)).transpose()
    }

    /// The rows after an id, in order of id: all of them, or those that are held.
    pub(crate) fn messages_after(
        &self,
        after: Option<QueueId>,
        limit: usize,
        only_held: bool,
    ) -> Result<Vec<(QueueId, MessageRow)>, SpoolError> {
        // The empty blob sorts before every id.
        let after = after.map_or(Vec::new(), |id| id.to_bytes().to_vec());
        let mut select = self.connection.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM message
            WHERE id > ?1 AND (?3 = 0 OR hold IS NOT NULL) ORDER BY id LIMIT ?2"
        ))?;
        let rows = select.query_map(params![after, signed(limit as u64), only_held], |row| {
            Ok((QueueId::from_bytes(row.get(11)?), MessageRow::read(row)?))
        })?;
        rows.map(|row| {
            let (id, row) = row?;
            Ok((id, row.checked(id)?))
        })
        .collect()
    }

    /// How many messages there are.
    pub(crate) fn messages(&self) -> Result<u64, SpoolError> {
        Ok(self.connection.query_row("SELECT count(*) FROM message", [], |row| unsigned(row, 0))?)
    }

    /// The ids of messages after this one, in order.
    pub(crate) fn ids_after(&self, after: Option<QueueId>, limit: usize) -> Result<Vec<QueueId>, SpoolError> {
        let after = after.map_or(Vec::new(), |id| id.to_bytes().to_vec());
        let mut select =
            self.connection.prepare_cached("SELECT id FROM message WHERE id > ? ORDER BY id LIMIT ?")?;
        let ids = select
            .query_map(params![after, signed(limit as u64)], |row| Ok(QueueId::from_bytes(row.get(0)?)))?;
        Ok(ids.collect::<Result<_, _>>()?)
    }

    /// Whether the message's record is at this place.
    pub(crate) fn is_at(&self, id: QueueId, segment: u64, position: u64) -> Result<bool, SpoolError> {
        let mut select = self
            .connection
            .prepare_cached("SELECT 1 FROM message WHERE id = ? AND segment = ? AND position = ?")?;
        Ok(select.exists(params![id.to_bytes(), signed(segment), signed(position)])?)
    }

    /// The states of a message's recipients, in the envelope's order.
    pub(crate) fn states(
        &self,
        id: QueueId,
        touched: bool,
        entry: &Entry,
    ) -> Result<Vec<RecipientState>, SpoolError> {
        let mut states: Vec<RecipientState> = fresh(entry);
        if !touched {
            return Ok(states);
        }
        for touched in self.touched(id)? {
            let Some(state) = states.iter_mut().find(|state| state.id == touched.number) else {
                continue;
            };
            if let Some(status) = touched.status {
                state.status = status;
            }
            state.route = touched.route;
        }
        Ok(states)
    }

    /// The recipients that have changed since the commit.
    pub(crate) fn touched(&self, id: QueueId) -> Result<Vec<ChangedRecipient>, SpoolError> {
        let mut select = self
            .connection
            .prepare_cached("SELECT number, status, route, sum FROM recipient WHERE message = ?")?;
        let mut rows = select.query([id.to_bytes()])?;
        let mut touched = Vec::new();
        while let Some(row) = rows.next()? {
            let number: u32 = row.get(0)?;
            let (status, route): (Option<String>, Option<String>) = (row.get(1)?, row.get(2)?);
            if row.get::<_, i64>(3)? != recipient_sum(id, number, status.as_deref(), route.as_deref()) {
                return Err(flipped(id));
            }
            touched.push(ChangedRecipient {
                number,
                status: status.as_deref().map(from_text).transpose().map_err(|what| damaged(id, &what))?,
                route: route.as_deref().map(from_text).transpose().map_err(|what| damaged(id, &what))?,
            });
        }
        Ok(touched)
    }

    /// Stores the current state of a recipient.
    pub(crate) fn set_touched(&self, id: QueueId, touched: &ChangedRecipient) -> Result<(), SpoolError> {
        let status = touched.status.as_ref().map(to_text).transpose()?;
        let route = touched.route.as_ref().map(to_text).transpose()?;
        let sum = recipient_sum(id, touched.number, status.as_deref(), route.as_deref());
        let mut replace = self.connection.prepare_cached(
            "REPLACE INTO recipient (message, number, status, route, sum) VALUES (?, ?, ?, ?, ?)",
        )?;
        replace.execute(params![id.to_bytes(), touched.number, status, route, sum])?;
        Ok(())
    }

    /// Notes that a segment has a record of a change to this message. False when that was noted already.
    pub(crate) fn mark(&self, id: QueueId, segment: u64) -> Result<bool, SpoolError> {
        let mut insert =
            self.connection.prepare_cached("INSERT OR IGNORE INTO mark (segment, message) VALUES (?, ?)")?;
        Ok(insert.execute(params![signed(segment), id.to_bytes()])? == 1)
    }

    /// Removes the change marks of a message. Gives the segments that had them.
    pub(crate) fn unmark(&self, id: QueueId) -> Result<Vec<u64>, SpoolError> {
        let mut delete =
            self.connection.prepare_cached("DELETE FROM mark WHERE message = ? RETURNING segment")?;
        let segments = delete.query_map([id.to_bytes()], |row| unsigned(row, 0))?;
        Ok(segments.collect::<Result<_, _>>()?)
    }

    /// Whether there are change marks of unknown messages.
    pub(crate) fn has_stray_marks(&self) -> Result<bool, SpoolError> {
        let mut select = self
            .connection
            .prepare("SELECT 1 FROM mark WHERE message NOT IN (SELECT id FROM message) LIMIT 1")?;
        Ok(select.exists([])?)
    }

    /// Some of the messages whose changes this segment records, each with the octets to copy: a message that has another
    /// context is copied with it.
    pub(crate) fn marked(&self, segment: u64, limit: usize) -> Result<Vec<(QueueId, u64)>, SpoolError> {
        let mut select = self.connection.prepare_cached(
            "SELECT mark.message, coalesce(length(octets) + message.length, 0)
            FROM mark LEFT JOIN context ON context.message = mark.message LEFT JOIN message ON message.id = mark.message
            WHERE mark.segment = ? LIMIT ?",
        )?;
        let rows = select.query_map(params![signed(segment), signed(limit as u64)], |row| {
            Ok((QueueId::from_bytes(row.get(0)?), unsigned(row, 1)?))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Deletes the rows of a message's recipients.
    pub(crate) fn forget_recipients(&self, id: QueueId) -> Result<(), SpoolError> {
        let mut delete = self.connection.prepare_cached("DELETE FROM recipient WHERE message = ?")?;
        delete.execute([id.to_bytes()])?;
        Ok(())
    }

    /// Deletes a message. Gives the segments with records of changes to it.
    pub(crate) fn remove(&self, id: QueueId, touched: bool) -> Result<Vec<u64>, SpoolError> {
        let mut delete = self.connection.prepare_cached("DELETE FROM message WHERE id = ?")?;
        delete.execute([id.to_bytes()])?;
        if !touched {
            return Ok(Vec::new());
        }
        self.forget_recipients(id)?;
        self.forget_context(id)?;
        self.unmark(id)
    }

    pub(crate) fn add_edge(&self, edge: Edge) -> Result<(), SpoolError> {
        let mut insert = self
            .connection
            .prepare_cached("INSERT OR IGNORE INTO edge (older, newer, copies) VALUES (?, ?, ?)")?;
        insert.execute(params![signed(edge.older), signed(edge.newer), edge.copies])?;
        Ok(())
    }

    /// Deletes the edges from and to a segment that is gone.
    pub(crate) fn forget_segment(&self, segment: u64) -> Result<(), SpoolError> {
        let mut delete = self.connection.prepare_cached("DELETE FROM edge WHERE older = ?1 OR newer = ?1")?;
        delete.execute([signed(segment)])?;
        Ok(())
    }

    /// Deletes the edges of a segment whose tombstones have all been written again.
    pub(crate) fn clear_ends(&self, newer: u64) -> Result<(), SpoolError> {
        let mut delete = self.connection.prepare_cached("DELETE FROM edge WHERE newer = ? AND copies = 0")?;
        delete.execute([signed(newer)])?;
        Ok(())
    }

    pub(crate) fn edges(&self) -> Result<Vec<Edge>, SpoolError> {
        let mut select = self.connection.prepare("SELECT older, newer, copies FROM edge")?;
        let edges = select.query_map([], |row| {
            Ok(Edge { older: unsigned(row, 0)?, newer: unsigned(row, 1)?, copies: row.get(2)? })
        })?;
        Ok(edges.collect::<Result<_, _>>()?)
    }
}

/// The recipients' states right after the commit.
pub(crate) fn fresh(entry: &Entry) -> Vec<RecipientState> {
    let recipients = entry.envelope.recipients.iter();
    let states = recipients.map(|recipient| RecipientState {
        id: recipient.id,
        status: DeliveryStatus::fresh(entry.received),
        route: None::<NextHop>,
    });
    states.collect()
}

impl UnusableDatabase {
    pub(crate) fn of(error: &rusqlite::Error) -> Self {
        Self::Damaged(error.to_string())
    }

    /// As an error of the spool.
    pub(crate) fn into_spool(self) -> SpoolError {
        SpoolError::Store(format!("{self:?}").into())
    }
}

impl SpoolError {
    /// The error for a failed write of the index, which is rebuilt when it fails again.
    pub(crate) fn from_index(error: &io::Error) -> Self {
        match Self::from_io(error) {
            Self::Store(what) => Self::Unavailable(what),
            error => error,
        }
    }
}

impl From<rusqlite::Error> for SpoolError {
    fn from(error: rusqlite::Error) -> Self {
        let what = error.to_string().into();
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(
                ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::SystemIoFailure
                | ErrorCode::ReadOnly
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked,
            ) => Self::Unavailable(what),
            _ => Self::Store(what),
        }
    }
}
