//! Index rebuild: opens the index and brings it up to the log, or makes it again from the whole log.
//!
//! The old one is put away in `unreferenced/` first. Envelopes that a current index had and a damaged log has lost are
//! kept in `damaged/`.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use pintle_mail::QueueId;

use super::database::{Database, UnusableDatabase};
use super::folders::{Folders, at, refused};
use super::identity::Identity;
use super::lost_found::Evidence;
use super::replay::{ReplayError, ReplayOutcome, bring_up};
use super::row::MessageRow;
use super::scan::Log;
use super::segment_file::{FORMAT, SegmentFolder};
use crate::{OpenError, SpoolError};

/// Copies of the index that are kept in `unreferenced/`; beyond them the old index is deleted.
const INDEX_COPIES: usize = 3;

/// Opens the index and brings it up to the log, or rebuilds it.
pub(crate) fn open_index(folders: &Folders, identity: &Identity, log: &Log) -> Result<Database, OpenError> {
    let path = &folders.database;
    let mut database = match Database::open(path) {
        Ok(database) => database,
        Err(UnusableDatabase::Newer(found)) => {
            return Err(OpenError::Newer { path: path.clone(), found, known: super::database::SCHEMA });
        }
        Err(UnusableDatabase::Older(found)) => {
            return make_index(folders, identity, log, &format!("it has schema {found}"));
        }
        Err(UnusableDatabase::Empty) => return make_index(folders, identity, log, "it is empty"),
        Err(UnusableDatabase::Damaged(_)) if !path.exists() => {
            return make_index(folders, identity, log, "it is missing");
        }
        Err(UnusableDatabase::Damaged(what)) => return make_index(folders, identity, log, &what),
    };
    match database.identity() {
        Ok(found) if found == *identity => {}
        Ok(found) => {
            return make_index(folders, identity, log, &format!("it is of another spool, {found}"));
        }
        Err(error) => return make_index(folders, identity, log, &error.to_string()),
    }
    if database.has_passed_over().unwrap_or(true) {
        // Only a rebuild tells whether this version understands them.
        let what = "it lacks records that an earlier version did not understand";
        return make_index(folders, identity, log, what);
    }
    match bring_up(&database, log, Some(&folders.lost_found)) {
        Ok(ReplayOutcome::Current { records, unread, .. }) => {
            database.unread = unread;
            tracing::debug!(records, "the spool's database has been brought up to the log");
            match database.faults() {
                Ok(faults) if faults.is_empty() => Ok(database),
                // Rows may be hidden, and the segments of their messages would then seem to be empty.
                Ok(faults) => replace_index(database, folders, identity, log, &faults[0]),
                Err(error) => replace_index(database, folders, identity, log, &error.to_string()),
            }
        }
        Ok(ReplayOutcome::Apart(why)) => make_index(folders, identity, log, why),
        Ok(ReplayOutcome::Ahead) => {
            replace_index(database, folders, identity, log, "the log has lost records that it knows")
        }
        Err(ReplayError::Store(error @ SpoolError::Full)) => Err(refused(folders)(error)),
        Err(ReplayError::Store(error)) => make_index(folders, identity, log, &error.to_string()),
        Err(error) => Err(unread(folders, error)),
    }
}

/// Rebuilds an index that is current. What only that index knows is kept.
pub(crate) fn replace_index(
    database: Database,
    folders: &Folders,
    identity: &Identity,
    log: &Log,
    why: &str,
) -> Result<Database, OpenError> {
    let known = readable_rows(&database);
    drop(database);
    let database = make_index(folders, identity, log, why)?;
    salvage(&database, known, folders)?;
    Ok(database)
}

/// Rebuilds the index from the whole log. The old one is put away.
fn make_index(folders: &Folders, identity: &Identity, log: &Log, why: &str) -> Result<Database, OpenError> {
    fill_index(folders, identity, log, Some(why)).map_err(|error| unread(folders, error))
}

/// The same, for callers that go on when it fails. `why` is logged if it is given.
pub(crate) fn fill_index(
    folders: &Folders,
    identity: &Identity,
    log: &Log,
    why: Option<&str>,
) -> Result<Database, ReplayError> {
    let path = &folders.database;
    let new = log.segments.is_empty() && !path.exists();
    if let (Some(why), false) = (why, new) {
        tracing::warn!(
            path = %path.display(), why,
            "the spool's database is rebuilt from the log; the old one is moved to unreferenced/"
        );
    }
    put_away_index(folders)?;
    let filled = Database::create(path, identity)
        .map_err(|error| ReplayError::Store(error.into()))
        .and_then(|database| Ok((bring_up(&database, log, Some(&folders.lost_found))?, database)));
    match filled {
        Ok((ReplayOutcome::Current { records, damaged, unread, .. }, mut database)) => {
            database.unread = unread;
            if !new {
                tracing::warn!(records, damaged, "the spool's database has been rebuilt");
            }
            Ok(database)
        }
        Ok((_, database)) => Ok(database),
        Err(error) => {
            // An incomplete index is of no use, and may be what fills the disk.
            index_files(folders).for_each(|path| drop(fs::remove_file(path)));
            Err(error)
        }
    }
}

/// The database comes first: the other files mean nothing without it, while it alone might seem to be complete.
fn index_files(folders: &Folders) -> impl Iterator<Item = PathBuf> {
    ["", "-wal", "-shm"].into_iter().map(|suffix| {
        let mut path = folders.database.clone().into_os_string();
        path.push(suffix);
        PathBuf::from(path)
    })
}

/// Puts the index away, durably. Beyond a few copies it is deleted: the log has all of it, and a disk that damages one
/// index after the other must not be filled with them.
pub(crate) fn put_away_index(folders: &Folders) -> io::Result<()> {
    let many = folders.lost_found.copies(&folders.database)? >= INDEX_COPIES;
    for path in index_files(folders) {
        match fs::metadata(&path) {
            Ok(file) if many || file.len() == 0 || path.extension().is_some_and(|end| end == "db-shm") => {
                fs::remove_file(path)?;
            }
            Ok(_) => folders.lost_found.put_away(&path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    File::open(&folders.lost_found.unreferenced)?.sync_all()?;
    File::open(&folders.root)?.sync_all()
}

/// The rows of a damaged index that can be read.
fn readable_rows(database: &Database) -> Vec<(QueueId, MessageRow)> {
    let mut known = Vec::new();
    let mut after = None;
    // One at a time, so that an unreadable row costs no others than it must.
    while let Ok(ids) = database.ids_after(after, 4_096) {
        let Some(last) = ids.last() else { break };
        after = Some(*last);
        let rows = ids.into_iter().filter_map(|id| Some((id, database.find(id).ok()??)));
        known.extend(rows);
    }
    known
}

/// Keeps the envelopes that a current index knew and the log has lost.
fn salvage(
    database: &Database,
    known: Vec<(QueueId, MessageRow)>,
    folders: &Folders,
) -> Result<(), OpenError> {
    for (id, row) in known {
        let gone = database.find(id).map_err(refused(folders))?.is_none();
        if gone && !folders.lost_found.has(id) {
            let what = "its record is no longer in the log";
            tracing::error!(queue_id = %id, what, "A MESSAGE IN THE SPOOL IS DAMAGED and was set aside");
            let body = row.file.as_ref().map(|file| folders.bodies.join(file));
            let evidence = Evidence { id, what, meta: &row.meta, place: Some(row.place), octets: None, body };
            folders.lost_found.preserve(&evidence).map_err(at(&folders.lost_found.damaged))?;
        }
    }
    Ok(())
}

fn unread(folders: &Folders, error: ReplayError) -> OpenError {
    match error {
        ReplayError::Io(source) => OpenError::Io { path: folders.segments.clone(), source },
        ReplayError::Store(error) => refused(folders)(error),
        ReplayError::Newer(number) => OpenError::Newer {
            path: folders.segments.join(SegmentFolder::name(number)),
            found: i64::from(FORMAT) + 1,
            known: FORMAT.into(),
        },
    }
}
