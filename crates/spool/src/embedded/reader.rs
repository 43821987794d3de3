//! Reads in parallel to the committer: single messages, and pages of many. Rows come from a connection of its own,
//! which sees the last commit. Envelopes and octets come from segments and files, and are checked against their
//! checksums.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use pintle_mail::{Body, Bytes, QueueId};

use super::body::{BLOCK, FileBody, OnDamage};
use super::database::Database;
use super::file_cache::FileCache;
use super::meta::{MessageMeta, from_json};
use super::operation::{Inbox, Operation};
use super::record::{Front, RecordHeader, clamp};
use super::row::MessageRow;
use super::segment_file::{Extent, is_absent, read_at};
use super::shared::EngineShared;
use crate::{Filter, Listing, Page, SpoolError, Stored, Summary, Waiting};

/// How many rows are read at a time, so that a long list does not delay other readers.
const ROWS: usize = 512;
/// A record up to this length is read with one call.
const WHOLE: u64 = 2 * BLOCK as u64;

/// The readers' part of the engine.
pub(crate) struct Reader {
    pub(crate) shared: Arc<EngineShared>,
    pub(crate) files: Arc<FileCache>,
    /// The initial value of the checksums of record headers.
    pub(crate) seed: u32,
    pub(crate) bodies: PathBuf,
    pub(crate) inbox: Arc<Inbox>,
}

impl Reader {
    /// Loads a message in its current state.
    pub(crate) fn load(&self, id: QueueId) -> Result<Stored, SpoolError> {
        // The compactor may move a record between the read of its row and the read of its segment. That happens once in
        // a message's life at most, so a few tries suffice.
        let mut result = self.try_load(id);
        for _ in 0..3 {
            let Err(SpoolError::Damaged(..)) = result else {
                break;
            };
            result = self.try_load(id);
        }
        if let Err(SpoolError::Damaged(id, what)) = &result {
            self.inbox.submit(Operation::SetAside(*id, what.to_string()));
        }
        result
    }

    /// A page of messages with pending recipients. A message whose row cannot be read is set aside.
    pub(crate) fn claim(&self, after: Option<QueueId>, limit: usize) -> Result<Vec<Waiting>, SpoolError> {
        let mut page = Vec::new();
        let mut after = after;
        while page.len() < limit {
            let rows = self.rows(after, limit - page.len(), false, |id, row, database| {
                let entry = row.entry(id, Bytes::new())?;
                let states = database.states(id, row.touched, &entry)?;
                Ok(Waiting::new(id, &entry, row.size, &states))
            })?;
            let Some(last) = rows.last else { break };
            after = Some(last);
            page.extend(rows.views);
        }
        Ok(page)
    }

    /// A page of messages that pass the filter.
    pub(crate) fn list(&self, filter: &Filter, page: Page) -> Result<Listing, SpoolError> {
        let mut messages: Vec<Summary> = Vec::new();
        let mut after = page.after;
        loop {
            let rows = self.rows(after, ROWS, filter.wants_held_only(), |id, row, database| {
                let entry = row.entry(id, Bytes::new())?;
                let states = database.states(id, row.touched, &entry)?;
                Ok(Summary::new(id, &entry, row.size, &states))
            })?;
            messages.extend(rows.views.into_iter().filter(|summary| filter.admits(summary)));
            after = rows.last;
            if messages.len() > page.limit || after.is_none() {
                break;
            }
        }
        let more = messages.len() > page.limit;
        messages.truncate(page.limit);
        let next = messages.last().filter(|_| more).map(|last| last.id);
        Ok(Listing { messages, next })
    }

    fn try_load(&self, id: QueueId) -> Result<Stored, SpoolError> {
        let (context, row, states) = self.with(|database| {
            // Before the row: once the compactor has copied the message with this context, it has no context of its own.
            let context = database.context(id)?;
            let row = database.message(id)?;
            let entry = row.entry(id, Bytes::new())?;
            let states = database.states(id, row.touched, &entry)?;
            Ok((context, row, states))
        })?;
        let record = OpenRecord::read(id, row.place, self)?;
        // The envelope comes from the log. The index only tells its place.
        let written: MessageMeta =
            from_json(&record.front.meta).map_err(|what| SpoolError::Damaged(id, what.into()))?;
        Ok(Stored {
            id,
            head: record.front.head.clone(),
            entry: row.amended(id, written.entry, context.unwrap_or(record.front.context.clone()))?,
            recipients: states,
            body: self.body(id, &row, record)?,
        })
    }

    fn body(&self, id: QueueId, row: &MessageRow, record: OpenRecord) -> Result<Arc<dyn Body>, SpoolError> {
        if let Some(whole) = record.whole_body(id, row)? {
            return Ok(Arc::new(whole));
        }
        let (file, start) = match &row.file {
            None => (record.file, row.place.position + record.header.front()),
            Some(name) => {
                let file = File::open(self.bodies.join(name)).map_err(|error| unreadable(id, &error))?;
                (Arc::new(file), 0)
            }
        };
        let checksums = record.front.checksums.into();
        let size = record.header.body;
        let body = FileBody::new(file, start, size, checksums, Some(self.on_damage(id)));
        Ok(Arc::new(body))
    }

    fn on_damage(&self, id: QueueId) -> OnDamage {
        let inbox = self.inbox.clone();
        Box::new(move |what| inbox.submit(Operation::SetAside(id, what.to_owned())))
    }

    fn rows<T>(
        &self,
        after: Option<QueueId>,
        limit: usize,
        only_held: bool,
        view: impl Fn(QueueId, &MessageRow, &Database) -> Result<T, SpoolError>,
    ) -> Result<RowPage<T>, SpoolError> {
        self.with(|database| {
            let rows = database.messages_after(after, limit.min(ROWS), only_held)?;
            let last = rows.last().map(|(id, _)| *id);
            let mut views = Vec::with_capacity(rows.len());
            for (id, row) in &rows {
                match view(*id, row, database) {
                    Ok(view) => views.push(view),
                    Err(SpoolError::Damaged(id, what)) => {
                        self.inbox.submit(Operation::SetAside(id, what.to_string()));
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(RowPage { views, last })
        })
    }

    fn with<T>(&self, act: impl FnOnce(&Database) -> Result<T, SpoolError>) -> Result<T, SpoolError> {
        let reading = self.shared.reading.lock();
        // The index may lack messages whose callers have been answered.
        if let Some(trouble) = self.shared.health.behind() {
            return Err(trouble);
        }
        let generation = self.shared.generation();
        act(reading.as_ref().ok_or(SpoolError::Closed)?).map_err(|error| match error {
            SpoolError::Unavailable(what) => {
                self.inbox.submit(Operation::Rebuild(generation, what.to_string()));
                let why = format!("its database cannot be read and is rebuilt from the log: {what}");
                SpoolError::Unavailable(why.into())
            }
            error => error,
        })
    }
}

/// The views of some rows, and the id of the last row.
struct RowPage<T> {
    views: Vec<T>,
    last: Option<QueueId>,
}

/// A record whose front has been read and checked.
struct OpenRecord {
    file: Arc<File>,
    header: RecordHeader,
    front: Front,
    raw: Bytes,
}

impl OpenRecord {
    fn read(id: QueueId, place: Extent, reader: &Reader) -> Result<Self, SpoolError> {
        let Extent { segment, position, length } = place;
        let damaged = |what: &str| SpoolError::Damaged(id, what.into());
        let file = reader.files.get(segment).map_err(|error| unreadable(id, &error))?;
        let mut raw = read_at(&file, position, length.min(WHOLE)).map_err(|error| unreadable(id, &error))?;
        let header = RecordHeader::decode(&raw, reader.seed, segment, position)
            .filter(|header| header.id == id && header.length() == length);
        let header = header.ok_or_else(|| damaged("its record is not at its place in the log"))?;
        if header.front() > raw.len() as u64 {
            raw = read_at(&file, position, header.front()).map_err(|error| unreadable(id, &error))?;
        }
        let front = Front::decode(&raw, &header).ok_or_else(|| damaged("its header's checksum is wrong"))?;
        Ok(Self { file, header, front, raw })
    }

    /// The body, when it was read together with the front.
    fn whole_body(&self, id: QueueId, row: &MessageRow) -> Result<Option<Bytes>, SpoolError> {
        if row.file.is_some() || self.header.length() > self.raw.len() as u64 {
            return Ok(None);
        }
        let body = self.raw.slice(clamp(self.header.front())..);
        let mut blocks = body.chunks(BLOCK).zip(&self.front.checksums);
        if blocks.all(|(block, sum)| crc32fast::hash(block) == *sum) {
            return Ok(Some(body));
        }
        Err(SpoolError::Damaged(id, "its body's checksum is wrong".into()))
    }
}

fn unreadable(id: QueueId, error: &io::Error) -> SpoolError {
    if is_absent(error) {
        return SpoolError::Damaged(id, format!("part of it is missing: {error}").into());
    }
    SpoolError::Store(error.to_string().into())
}
