//! The table of the index that has the contexts which deliveries have replaced. All other contexts are in the log alone.

use bytes::Bytes;
use pintle_mail::QueueId;
use rusqlite::{OptionalExtension, params};

use super::database::Database;
use super::row::flipped;
use crate::SpoolError;

/// Makes the table. An index that an earlier version made lacks it, and has read no record that would need it.
pub(crate) const CREATE_CONTEXT: &str = "
    CREATE TABLE IF NOT EXISTS context (
        message BLOB PRIMARY KEY, octets BLOB NOT NULL, sum INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
";

impl Database {
    /// The context of a message, if it was replaced since its record was written.
    pub(crate) fn context(&self, id: QueueId) -> Result<Option<Bytes>, SpoolError> {
        let mut select =
            self.connection.prepare_cached("SELECT octets, sum FROM context WHERE message = ?")?;
        let found = select.query_row([id.to_bytes()], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let Some((octets, sum)): Option<(Vec<u8>, i64)> = found else { return Ok(None) };
        if context_sum(id, &octets) == sum { Ok(Some(octets.into())) } else { Err(flipped(id)) }
    }

    /// Stores a context that replaces the one in the message's record.
    pub(crate) fn set_context(&self, id: QueueId, octets: &[u8]) -> Result<(), SpoolError> {
        let mut replace =
            self.connection.prepare_cached("REPLACE INTO context (message, octets, sum) VALUES (?, ?, ?)")?;
        replace.execute(params![id.to_bytes(), octets, context_sum(id, octets)])?;
        Ok(())
    }

    /// Deletes the context of a message: that in its record counts.
    pub(crate) fn forget_context(&self, id: QueueId) -> Result<(), SpoolError> {
        let mut delete = self.connection.prepare_cached("DELETE FROM context WHERE message = ?")?;
        delete.execute([id.to_bytes()])?;
        Ok(())
    }
}

fn context_sum(id: QueueId, octets: &[u8]) -> i64 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&id.to_bytes());
    crc.update(octets);
    crc.finalize().into()
}
