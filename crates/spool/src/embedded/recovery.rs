//! Recovery: what happens when a spool folder is opened. The log says what exists, and the index is brought up to it.
//!
//! An index that stopped a little before the end of the log reads what it lacks. One that is missing, damaged, of another
//! spool, or of another history is rebuilt from the log (`index_rebuild.rs`). Then one pass over its rows counts what
//! each segment is needed for and which body files belong to a message (`census.rs`). Nothing is deleted unless the log
//! says that it is no longer needed.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use pintle_mail::QueueId;

use super::census::Census;
use super::database::Database;
use super::file_cache::FileCache;
use super::folders::{Folders, at, refused};
use super::identity::Identity;
use super::index_rebuild::{open_index, replace_index};
use super::legacy;
use super::scan::{self, Log, SegmentFile};
use super::segment_file::{FORMAT, SegmentFolder, is_blank};
use super::segments::Segments;
use crate::fault::Faults;
use crate::{OpenError, SpoolError, Totals};

/// The content of a folder after recovery.
pub(crate) struct Recovered {
    pub(crate) database: Database,
    pub(crate) segments: Segments,
    pub(crate) totals: Totals,
    /// Messages that cannot be served, and why. They are counted in `totals` until they are set aside.
    pub(crate) broken: Vec<(QueueId, String)>,
}

/// Recovers the spool in a folder: reads the log, and brings the index up to date.
pub(crate) fn recover(
    folders: &Folders,
    size: u64,
    files: &Arc<FileCache>,
    faults: &Faults,
) -> Result<Recovered, OpenError> {
    let found = scan::find(&folders.segments).map_err(at(&folders.segments))?;
    let found = legacy::upgrade(folders, found, size)?;
    let identity = identify(folders, &found)?;
    let log = Log::new(identity.seed(), found);
    let database = open_index(folders, &identity, &log)?;
    // Octets that the last process wrote without a sync count, so they must stay.
    for found in log.segments.values() {
        found.open().and_then(|file| file.sync_data()).map_err(at(&found.path))?;
    }
    let (database, mut census) = match Census::take(&database, &log, folders) {
        // Any failure of the database is answered by a rebuild: the log has all of it.
        Err(SpoolError::Unavailable(what) | SpoolError::Store(what)) => {
            let database = replace_index(database, folders, &identity, &log, &what)?;
            let census = Census::take(&database, &log, folders).map_err(refused(folders))?;
            (database, census)
        }
        census => (database, census.map_err(refused(folders))?),
    };
    let log_folder = SegmentFolder::open(folders.segments.clone()).map_err(at(&folders.segments))?;
    let mut segments = Segments::new(log_folder, identity, size, files.clone(), faults.clone());
    let broken = std::mem::take(&mut census.broken);
    let totals = census.take_over(&database, log, folders, &mut segments)?;
    Ok(Recovered { database, segments, totals, broken })
}

/// Finds the identity of the spool. One that was never used gets a new one.
fn identify(folders: &Folders, found: &BTreeMap<u64, SegmentFile>) -> Result<Identity, OpenError> {
    let written = match Identity::read(&folders.root) {
        // The segments have it as well.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => None,
        read => read.map_err(at(&folders.root))?,
    };
    let mut identity = written;
    for (number, found) in found {
        let Some(header) = found.header else { continue };
        let path = folders.segments.join(SegmentFolder::name(*number));
        if header.format > FORMAT {
            let (found, known) = (header.format.into(), FORMAT.into());
            return Err(OpenError::Newer { path, found, known });
        }
        let known = *identity.get_or_insert(header.identity);
        if header.identity != known {
            let what = format!("it belongs to spool {}, the others to {known}", header.identity);
            return Err(OpenError::ForeignPart { path, what });
        }
        if header.number != *number {
            let what = format!("it was segment {}", SegmentFolder::name(header.number));
            return Err(OpenError::ForeignPart { path, what });
        }
    }
    let used = written.is_some() || known_messages(&folders.database).is_some_and(|messages| messages > 0);
    if used && found.is_empty() {
        let messages = known_messages(&folders.database);
        return Err(OpenError::LogMissing { path: folders.segments.clone(), messages });
    }
    match identity.or_else(|| Database::read_only(&folders.database).ok()?.identity().ok()) {
        Some(identity) => Ok(identity),
        None => first_identity(folders, found),
    }
}

/// A new identity, for a spool that was never used. It may have segments that were cut off before their first record.
fn first_identity(folders: &Folders, found: &BTreeMap<u64, SegmentFile>) -> Result<Identity, OpenError> {
    for found in found.values() {
        let blank = found.open().and_then(|file| is_blank(&file, 0, found.length));
        if !blank.map_err(at(&found.path))? {
            let (path, what) = (found.path.clone(), "nothing tells which spool it belongs to".to_owned());
            return Err(OpenError::ForeignPart { path, what });
        }
    }
    Identity::random().map_err(at(&folders.root))
}

/// How many messages the database has, if it can be read.
fn known_messages(database: &Path) -> Option<u64> {
    Database::read_only(database).ok()?.messages().ok()
}

/// Rebuilds the index of a folder that no process works in, whatever state it is in.
pub(crate) fn remake_index(folders: &Folders, size: u64) -> Result<(), OpenError> {
    let found = scan::find(&folders.segments).map_err(at(&folders.segments))?;
    let found = legacy::upgrade(folders, found, size)?;
    let identity = identify(folders, &found)?;
    let log = Log::new(identity.seed(), found);
    let database = open_index(folders, &identity, &log)?;
    replace_index(database, folders, &identity, &log, "a repair was asked for").map(drop)
}
