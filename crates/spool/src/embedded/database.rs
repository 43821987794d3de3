//! Envelopes and state in SQLite: schema, statements, and the rows as types.
//!
//! A message is one row, with its envelope as JSON text: an operator can query it with `sqlite3` (the view `queue` shows
//! one line per recipient), and a message that is delivered at the first try costs one insert and one delete. Only
//! recipients that a first attempt did not settle get rows of their own.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use pintle_mail::{NextHop, QueueId, UnixTime};
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::segments::Place;
use crate::{Entry, Hold, OpenError, RecipientState, SpoolError, Status};

/// The schema's number; a folder with a higher one is refused.
pub(crate) const SCHEMA: i64 = 2;

const CREATE: &str = "
    CREATE TABLE message (
        id BLOB PRIMARY KEY,        -- the queue id, 16 octets
        received INTEGER NOT NULL,  -- milliseconds since 1970
        size INTEGER NOT NULL,      -- header block and body, in octets
        segment INTEGER NOT NULL, position INTEGER NOT NULL, length INTEGER NOT NULL,  -- where its record lies
        file TEXT,                  -- the file of a large body
        hold TEXT,                  -- JSON; why it is not to be delivered
        touched INTEGER NOT NULL DEFAULT 0,  -- whether the table recipient has rows for it
        sheet TEXT NOT NULL,        -- JSON: id, envelope, and what else was known at the commit
        released INTEGER            -- milliseconds since 1970; when it was let out of a quarantine
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE recipient (
        message BLOB NOT NULL, number INTEGER NOT NULL,
        status TEXT,                -- JSON; NULL means fresh: due at once, never tried
        route TEXT,                 -- JSON; the operator's choice of next hop
        PRIMARY KEY (message, number)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE damaged (
        id BLOB PRIMARY KEY, what TEXT NOT NULL, received INTEGER, file TEXT, sheet TEXT
    ) STRICT, WITHOUT ROWID;
    CREATE VIEW queue AS
        SELECT sheet->>'$.id' AS id, datetime(received / 1000, 'unixepoch') AS received, size,
            sheet->>'$.entry.envelope.sender' AS sender, each.value->>'$.address' AS recipient,
            coalesce(recipient.status, 'fresh') AS status, recipient.route AS route, hold
        FROM message, json_each(sheet, '$.entry.envelope.recipients') AS each
            LEFT JOIN recipient ON recipient.message = message.id
                AND recipient.number = each.value->>'$.id';
    PRAGMA user_version = 2;
";

/// From schema 1 to 2: messages can be released from a quarantine.
const RELEASES: &str = "
    ALTER TABLE message ADD COLUMN released INTEGER;
    PRAGMA user_version = 2;
";

// FULL: a commit is durable when it returns. The write-ahead log may grow to 16 MiB before its pages go home, so that rows
// of messages that live for a second are seldom written twice.
const PRAGMAS: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA wal_autocheckpoint = 4000;
    PRAGMA journal_size_limit = 33554432;
    PRAGMA cache_size = -16000;
    PRAGMA temp_store = MEMORY;
";

/// One connection.
pub(crate) struct Database {
    pub(crate) connection: Connection,
}

/// A message's row.
pub(crate) struct MessageRow {
    pub(crate) place: Place,
    pub(crate) file: Option<String>,
    pub(crate) size: u64,
    pub(crate) hold: Option<String>,
    pub(crate) touched: bool,
    pub(crate) sheet: String,
    released: Option<UnixTime>,
}

/// What stands in the column `sheet`.
#[derive(Serialize)]
struct SheetRef<'a> {
    id: QueueId,
    entry: &'a Entry,
}

#[derive(Deserialize)]
struct Sheet {
    entry: Entry,
}

/// The numbers of the recipients alone: a settlement needs no more of the sheet.
#[derive(Deserialize)]
struct Numbers {
    entry: NumbersEntry,
}

#[derive(Deserialize)]
struct NumbersEntry {
    envelope: NumbersEnvelope,
}

#[derive(Deserialize)]
struct NumbersEnvelope {
    recipients: Vec<Number>,
}

#[derive(Deserialize)]
struct Number {
    id: u32,
}

impl Database {
    /// Opens the database, and makes it where there is none.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        let refuse =
            |error: rusqlite::Error| OpenError::Database { path: path.to_owned(), what: error.to_string() };
        let connection = Connection::open(path).map_err(refuse)?;
        connection.busy_timeout(Duration::from_secs(10)).map_err(refuse)?;
        connection.set_prepared_statement_cache_capacity(32);
        let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(refuse)?;
        if found > SCHEMA {
            return Err(OpenError::Newer { path: path.to_owned(), found, known: SCHEMA });
        }
        connection.execute_batch(PRAGMAS).map_err(refuse)?;
        let change = match found {
            0 => CREATE,
            1 => RELEASES,
            _ => return Ok(Self { connection }),
        };
        connection.execute_batch(&format!("BEGIN; {change} COMMIT;")).map_err(refuse)?;
        Ok(Self { connection })
    }

    pub(crate) fn execute(&self, sql: &str) -> Result<(), SpoolError> {
        self.connection.prepare_cached(sql)?.execute([])?;
        Ok(())
    }

    pub(crate) fn insert(
        &self,
        id: QueueId,
        entry: &Entry,
        place: Place,
        size: u64,
        file: Option<&str>,
    ) -> Result<(), SpoolError> {
        let sheet = to_json(&SheetRef { id, entry })?;
        let hold = entry.hold.as_ref().map(to_json).transpose()?;
        let mut insert = self.connection.prepare_cached(
            "INSERT INTO message (id, received, size, segment, position, length, file, hold, sheet)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?;
        let result = insert.execute(params![
            id.to_bytes(),
            entry.received.millis(),
            signed(size),
            signed(place.segment),
            signed(place.position),
            signed(place.length),
            file,
            hold,
            sheet,
        ]);
        match result {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                Err(SpoolError::Duplicate(id))
            }
            result => Ok(result.map(drop)?),
        }
    }

    pub(crate) fn message(&self, id: QueueId) -> Result<MessageRow, SpoolError> {
        let mut select = self.connection.prepare_cached(
            "SELECT segment, position, length, file, size, hold, touched, sheet, released FROM message
            WHERE id = ?",
        )?;
        let row = select.query_row([id.to_bytes()], MessageRow::read).optional()?;
        row.ok_or(SpoolError::Unknown(id))
    }

    /// Messages after an id, in order, those that are held or all.
    pub(crate) fn messages_after(
        &self,
        after: Option<QueueId>,
        limit: usize,
        only_held: bool,
    ) -> Result<Vec<(QueueId, MessageRow)>, SpoolError> {
        // Every id is greater than the empty blob.
        let after = after.map_or(Vec::new(), |id| id.to_bytes().to_vec());
        let mut select = self.connection.prepare_cached(
            "SELECT segment, position, length, file, size, hold, touched, sheet, released, id FROM message
            WHERE id > ?1 AND (?3 = 0 OR hold IS NOT NULL) ORDER BY id LIMIT ?2",
        )?;
        let rows = select.query_map(params![after, signed(limit as u64), only_held], |row| {
            Ok((QueueId::from_bytes(row.get(9)?), MessageRow::read(row)?))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Whether the message's record is the one at this place.
    pub(crate) fn is_at(&self, id: QueueId, segment: u64, position: u64) -> Result<bool, SpoolError> {
        let mut select = self
            .connection
            .prepare_cached("SELECT 1 FROM message WHERE id = ? AND segment = ? AND position = ?")?;
        Ok(select.exists(params![id.to_bytes(), signed(segment), signed(position)])?)
    }

    pub(crate) fn relocate(&self, id: QueueId, from: Place, to: Place) -> Result<bool, SpoolError> {
        let mut update = self.connection.prepare_cached(
            "UPDATE message SET segment = ?, position = ? WHERE id = ? AND segment = ? AND position = ?",
        )?;
        let moved = update.execute(params![
            signed(to.segment),
            signed(to.position),
            id.to_bytes(),
            signed(from.segment),
            signed(from.position),
        ])?;
        Ok(moved == 1)
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
        for (number, status, route) in self.touched(id)? {
            let Some(state) = states.iter_mut().find(|state| state.id == number) else {
                continue;
            };
            if let Some(status) = status {
                state.status = status;
            }
            state.route = route;
        }
        Ok(states)
    }

    /// The rows of recipients that are no longer as they were at the commit.
    pub(crate) fn touched(&self, id: QueueId) -> Result<Vec<Touched>, SpoolError> {
        let mut select = self
            .connection
            .prepare_cached("SELECT number, status, route FROM recipient WHERE message = ?")?;
        let mut rows = select.query([id.to_bytes()])?;
        let mut touched = Vec::new();
        while let Some(row) = rows.next()? {
            let status = row.get_ref(1)?.as_str_or_null().map_err(rusqlite::Error::from)?;
            let route = row.get_ref(2)?.as_str_or_null().map_err(rusqlite::Error::from)?;
            let status = status.map(from_json).transpose().map_err(|what| damaged(id, &what))?;
            let route = route.map(from_json).transpose().map_err(|what| damaged(id, &what))?;
            touched.push((row.get(0)?, status, route));
        }
        Ok(touched)
    }

    pub(crate) fn set_status(&self, id: QueueId, number: u32, status: &Status) -> Result<(), SpoolError> {
        let mut upsert = self.connection.prepare_cached(
            "INSERT INTO recipient (message, number, status) VALUES (?1, ?2, ?3)
            ON CONFLICT DO UPDATE SET status = ?3",
        )?;
        upsert.execute(params![id.to_bytes(), number, to_json(status)?])?;
        Ok(())
    }

    pub(crate) fn set_route(
        &self,
        id: QueueId,
        number: u32,
        route: Option<&NextHop>,
    ) -> Result<(), SpoolError> {
        let mut upsert = self.connection.prepare_cached(
            "INSERT INTO recipient (message, number, route) VALUES (?1, ?2, ?3)
            ON CONFLICT DO UPDATE SET route = ?3",
        )?;
        upsert.execute(params![id.to_bytes(), number, route.map(to_json).transpose()?])?;
        Ok(())
    }

    pub(crate) fn set_touched(&self, id: QueueId) -> Result<(), SpoolError> {
        let mut update = self.connection.prepare_cached("UPDATE message SET touched = 1 WHERE id = ?")?;
        update.execute([id.to_bytes()])?;
        Ok(())
    }

    pub(crate) fn set_hold(&self, id: QueueId, hold: Option<&Hold>) -> Result<(), SpoolError> {
        let mut update = self.connection.prepare_cached("UPDATE message SET hold = ? WHERE id = ?")?;
        update.execute(params![hold.map(to_json).transpose()?, id.to_bytes()])?;
        Ok(())
    }

    /// Takes the hold away; a time of release stands unless this one brings a new one.
    pub(crate) fn release(&self, id: QueueId, at: Option<UnixTime>) -> Result<(), SpoolError> {
        let mut update = self.connection.prepare_cached(
            "UPDATE message SET hold = NULL, released = coalesce(?, released) WHERE id = ?",
        )?;
        update.execute(params![at.map(UnixTime::millis), id.to_bytes()])?;
        Ok(())
    }

    pub(crate) fn remove(&self, id: QueueId, touched: bool) -> Result<(), SpoolError> {
        let mut delete = self.connection.prepare_cached("DELETE FROM message WHERE id = ?")?;
        delete.execute([id.to_bytes()])?;
        if touched {
            let mut delete = self.connection.prepare_cached("DELETE FROM recipient WHERE message = ?")?;
            delete.execute([id.to_bytes()])?;
        }
        Ok(())
    }

    /// Moves a message that cannot be served to the table `damaged`.
    pub(crate) fn set_aside(&self, id: QueueId, what: &str) -> Result<(), SpoolError> {
        self.connection.execute(
            "INSERT OR REPLACE INTO damaged SELECT id, ?, received, file, sheet FROM message WHERE id = ?",
            params![what, id.to_bytes()],
        )?;
        self.remove(id, true)
    }

    pub(crate) fn damaged_count(&self) -> Result<u64, SpoolError> {
        let count: i64 = self.connection.query_row("SELECT count(*) FROM damaged", [], |row| row.get(0))?;
        Ok(count.unsigned_abs())
    }
}

/// Number, status and route of a recipient that is no longer fresh.
pub(crate) type Touched = (u32, Option<Status>, Option<NextHop>);

impl MessageRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            place: Place {
                segment: unsigned(row, 0)?,
                position: unsigned(row, 1)?,
                length: unsigned(row, 2)?,
            },
            file: row.get(3)?,
            size: unsigned(row, 4)?,
            hold: row.get(5)?,
            touched: row.get(6)?,
            sheet: row.get(7)?,
            released: row.get::<_, Option<i64>>(8)?.map(UnixTime::from_millis),
        })
    }

    /// The entry, with the hold of now and the context that stands in the log.
    pub(crate) fn entry(&self, id: QueueId, context: Bytes) -> Result<Entry, SpoolError> {
        let sheet: Sheet = from_json(&self.sheet).map_err(|what| damaged(id, &what))?;
        let mut hold = self.hold(id)?;
        if let Some(Hold::Quarantine(quarantine)) = &mut hold {
            quarantine.dated(sheet.entry.received);
        }
        Ok(Entry { hold, released: self.released, context, ..sheet.entry })
    }

    /// What holds it.
    pub(crate) fn hold(&self, id: QueueId) -> Result<Option<Hold>, SpoolError> {
        parse_hold(self.hold.as_deref()).map_err(|what| damaged(id, &what))
    }

    /// The recipients' numbers, in the envelope's order.
    pub(crate) fn numbers(&self, id: QueueId) -> Result<Vec<u32>, SpoolError> {
        let numbers: Numbers = from_json(&self.sheet).map_err(|what| damaged(id, &what))?;
        let recipients = numbers.entry.envelope.recipients.into_iter();
        Ok(recipients.map(|recipient| recipient.id).collect())
    }
}

/// What stands in the column `hold`.
pub(crate) fn parse_hold(text: Option<&str>) -> serde_json::Result<Option<Hold>> {
    text.map(from_json).transpose()
}

/// The states right after the commit.
pub(crate) fn fresh(entry: &Entry) -> Vec<RecipientState> {
    let recipients = entry.envelope.recipients.iter();
    let states = recipients.map(|recipient| RecipientState {
        id: recipient.id,
        status: Status::fresh(entry.received),
        route: None,
    });
    states.collect()
}

impl From<rusqlite::Error> for SpoolError {
    fn from(error: rusqlite::Error) -> Self {
        let what = error.to_string().into();
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            // The database's own syncs end here when they fail.
            Some(ErrorCode::SystemIoFailure | ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Broken(what)
            }
            _ => Self::Store(what),
        }
    }
}

fn damaged(id: QueueId, what: &serde_json::Error) -> SpoolError {
    SpoolError::Damaged(id, format!("its row cannot be read: {what}").into())
}

fn to_json(value: &impl Serialize) -> Result<String, SpoolError> {
    serde_json::to_string(value).map_err(|error| SpoolError::Store(error.to_string().into()))
}

fn from_json<'a, T: Deserialize<'a>>(text: &'a str) -> serde_json::Result<T> {
    serde_json::from_str(text)
}

/// SQLite's integers are signed; what we count never gets near the difference.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(crate) fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(column)?.unsigned_abs())
}
