//! The rows of the index as types, with their checksums.

use bytes::Bytes;
use pintle_mail::{QueueId, UnixTime};
use rusqlite::Row;
use serde::{Deserialize, Serialize};

use super::meta::MessageMeta;
use super::segment_file::Extent;
use crate::{Entry, HoldReason, SpoolError};

/// The index row of a message.
#[derive(Debug, Clone)]
pub(crate) struct MessageRow {
    pub(crate) place: Extent,
    pub(crate) file: Option<String>,
    pub(crate) size: u64,
    pub(crate) received: i64,
    pub(crate) hold: Option<String>,
    pub(crate) touched: bool,
    pub(crate) meta: String,
    pub(crate) released: Option<i64>,
}

impl MessageRow {
    /// The row of a message whose record at this place has this metadata.
    pub(crate) fn of(
        written: &MessageMeta,
        meta: String,
        place: Extent,
        size: u64,
    ) -> Result<Self, SpoolError> {
        let (file, hold) = (written.file.clone(), written.hold.as_ref().map(to_text).transpose()?);
        let (received, released) = (written.entry.received.millis(), written.released.map(UnixTime::millis));
        Ok(Self { place, file, size, received, hold, touched: false, meta, released })
    }

    /// The row of a message that is being committed.
    pub(crate) fn new(
        entry: &Entry,
        file: Option<&str>,
        meta: String,
        place: Extent,
        size: u64,
    ) -> Result<Self, SpoolError> {
        let (file, hold) = (file.map(str::to_owned), entry.hold.as_ref().map(to_text).transpose()?);
        let (received, released) = (entry.received.millis(), entry.released.map(UnixTime::millis));
        Ok(Self { place, file, size, received, hold, touched: false, meta, released })
    }

    pub(crate) fn read(row: &Row<'_>) -> rusqlite::Result<(Self, i64)> {
        let read = Self {
            place: Extent {
                segment: unsigned(row, 0)?,
                position: unsigned(row, 1)?,
                length: unsigned(row, 2)?,
            },
            file: row.get(3)?,
            size: unsigned(row, 4)?,
            received: row.get(5)?,
            hold: row.get(6)?,
            touched: row.get(7)?,
            meta: row.get(8)?,
            released: row.get(9)?,
        };
        Ok((read, row.get(10)?))
    }

    pub(crate) fn sum(&self, id: QueueId) -> i64 {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&id.to_bytes());
        let Extent { segment, position, length } = self.place;
        for number in [segment, position, length, self.size, u64::from(self.touched)] {
            crc.update(&number.to_le_bytes());
        }
        crc.update(&self.received.to_le_bytes());
        crc.update(&self.released.map_or([0xff; 8], i64::to_le_bytes));
        for text in [self.file.as_deref(), self.hold.as_deref(), Some(&self.meta)] {
            sum_text(&mut crc, text);
        }
        crc.finalize().into()
    }

    /// The entry, with the current hold and with the context, which only the log has.
    pub(crate) fn entry(&self, id: QueueId, context: Bytes) -> Result<Entry, SpoolError> {
        let written: MessageMeta = from_text(&self.meta).map_err(|what| damaged(id, &what))?;
        self.amended(id, written.entry, context)
    }

    /// The entry from the log, with the current hold.
    pub(crate) fn amended(&self, id: QueueId, entry: Entry, context: Bytes) -> Result<Entry, SpoolError> {
        let mut hold = self.hold(id)?;
        if let Some(HoldReason::Quarantine(quarantine)) = &mut hold {
            quarantine.dated(entry.received);
        }
        Ok(Entry { hold, released: self.released.map(UnixTime::from_millis), context, ..entry })
    }

    /// The message's current hold; `None` if it is not held.
    pub(crate) fn hold(&self, id: QueueId) -> Result<Option<HoldReason>, SpoolError> {
        self.hold.as_deref().map(from_text).transpose().map_err(|what| damaged(id, &what))
    }

    pub(crate) fn set_hold(&mut self, hold: Option<&HoldReason>) -> Result<(), SpoolError> {
        self.hold = hold.map(to_text).transpose()?;
        Ok(())
    }

    /// The recipients' ids, in the envelope's order.
    pub(crate) fn numbers(&self, id: QueueId) -> Result<Vec<u32>, SpoolError> {
        let numbers: Numbers = from_text(&self.meta).map_err(|what| damaged(id, &what))?;
        let recipients = numbers.entry.envelope.recipients.into_iter();
        Ok(recipients.map(|recipient| recipient.id).collect())
    }
}

/// A row as it was read, with the checksum stored beside it.
pub(crate) trait Checked {
    fn checked(self, id: QueueId) -> Result<MessageRow, SpoolError>;
}

impl Checked for (MessageRow, i64) {
    fn checked(self, id: QueueId) -> Result<MessageRow, SpoolError> {
        let (row, sum) = self;
        if row.sum(id) == sum { Ok(row) } else { Err(flipped(id)) }
    }
}

/// The part of a message's metadata that has the recipients' ids: a settlement needs no more.
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

pub(crate) fn recipient_sum(id: QueueId, number: u32, status: Option<&str>, route: Option<&str>) -> i64 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&id.to_bytes());
    crc.update(&number.to_le_bytes());
    sum_text(&mut crc, status);
    sum_text(&mut crc, route);
    crc.finalize().into()
}

fn sum_text(crc: &mut crc32fast::Hasher, text: Option<&str>) {
    crc.update(&text.map_or(u64::MAX, |text| text.len() as u64).to_le_bytes());
    crc.update(text.unwrap_or_default().as_bytes());
}

/// The row is not as it was written. The log has the truth.
pub(crate) fn flipped(id: QueueId) -> SpoolError {
    SpoolError::Unavailable(format!("the checksum of the row of {id} is wrong").into())
}

pub(crate) fn damaged(id: QueueId, what: &serde_json::Error) -> SpoolError {
    SpoolError::Damaged(id, format!("its row cannot be read: {what}").into())
}

pub(crate) fn to_text(value: &impl Serialize) -> Result<String, SpoolError> {
    serde_json::to_string(value).map_err(|error| SpoolError::Store(error.to_string().into()))
}

pub(crate) fn from_text<'a, T: Deserialize<'a>>(text: &'a str) -> serde_json::Result<T> {
    serde_json::from_str(text)
}

/// SQLite's integers are signed. Our counts never get near the difference.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(crate) fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(column)?.unsigned_abs())
}
