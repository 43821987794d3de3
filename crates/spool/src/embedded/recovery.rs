//! What happens when a spool folder is opened: the database says what exists, and everything else is garbage.
//!
//! One pass over the rows counts what lives in each segment and which files belong to somebody. Segments that nobody
//! needs, files that nobody needs, and the unused ends of segments are given back; rows whose octets are not there are
//! set aside. No segment is scanned, so the time depends on the number of messages and not on their size.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::Path;

use pintle_mail::QueueId;

use super::database::{Database, parse_hold, unsigned};
use super::record::padded;
use super::segments::{Folder, Place, Segments, Tally};
use crate::{Hold, OpenError, SpoolError, Totals};

/// What the pass over the rows found.
#[derive(Default)]
struct Census {
    segments: BTreeMap<u64, Found>,
    files: HashSet<String>,
    totals: Totals,
    broken: Vec<(QueueId, &'static str)>,
}

/// One segment's file, and who lives in it.
struct Found {
    file: Option<File>,
    length: u64,
    tally: Tally,
}

/// Brings the folder into order; gives back what lies in it.
pub(crate) fn recover(
    database: &Database,
    segments: &mut Segments,
    folder: &Path,
    bodies: &Path,
) -> Result<Totals, OpenError> {
    let io_error = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Io { path, source }
    };
    let mut census = Census::default();
    census.find_segments(folder).map_err(io_error(folder))?;
    census
        .count(database, bodies)
        .map_err(|error| OpenError::Database { path: folder.to_owned(), what: error.to_string() })?;
    census
        .set_aside(database)
        .map_err(|error| OpenError::Database { path: folder.to_owned(), what: error.to_string() })?;
    census.sweep_bodies(bodies).map_err(io_error(bodies))?;
    census.settle_in(segments, folder).map_err(io_error(folder))
}

impl Census {
    fn find_segments(&mut self, folder: &Path) -> io::Result<()> {
        for file in fs::read_dir(folder)? {
            let path = file?.path();
            let Some(number) = Folder::number(&path) else {
                continue;
            };
            let file = File::options().read(true).write(true).open(&path)?;
            let length = file.metadata()?.len();
            let found = Found { file: Some(file), length, tally: Tally::default() };
            self.segments.insert(number, found);
        }
        Ok(())
    }

    fn count(&mut self, database: &Database, bodies: &Path) -> Result<(), SpoolError> {
        let mut select = database
            .connection
            .prepare("SELECT id, segment, position, length, file, size, hold FROM message")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let id = QueueId::from_bytes(row.get(0)?);
            let place =
                Place { segment: unsigned(row, 1)?, position: unsigned(row, 2)?, length: unsigned(row, 3)? };
            let file: Option<String> = row.get(4)?;
            let hold = row.get_ref(6)?.as_str_or_null().map_err(rusqlite::Error::from)?;
            match (self.missing(place, file.as_deref(), bodies), parse_hold(hold)) {
                (Some(what), _) => self.broken.push((id, what)),
                (None, Err(_)) => self.broken.push((id, "what is said of its hold cannot be read")),
                (None, Ok(hold)) => self.count_one(place, unsigned(row, 5)?, hold.as_ref()),
            }
            self.files.extend(file);
        }
        self.keep_damaged(database)
    }

    /// Files of messages that were set aside are evidence.
    fn keep_damaged(&mut self, database: &Database) -> Result<(), SpoolError> {
        let mut select = database.connection.prepare("SELECT file FROM damaged WHERE file IS NOT NULL")?;
        let files = select.query_map([], |row| row.get(0))?;
        self.files.extend(files.collect::<Result<Vec<String>, _>>()?);
        self.totals.damaged = database.damaged_count()?;
        Ok(())
    }

    fn missing(&self, place: Place, file: Option<&str>, bodies: &Path) -> Option<&'static str> {
        let found = self.segments.get(&place.segment);
        match found {
            None => Some("its segment is missing"),
            Some(found) if found.length < place.position + place.length => Some("its segment ends before it"),
            Some(_) if file.is_some_and(|file| !bodies.join(file).exists()) => {
                Some("its body's file is missing")
            }
            Some(_) => None,
        }
    }

    fn count_one(&mut self, place: Place, size: u64, hold: Option<&Hold>) {
        if let Some(found) = self.segments.get_mut(&place.segment) {
            found.tally.records += 1;
            found.tally.live += place.length;
            found.tally.used = found.tally.used.max(padded(place.position + place.length));
        }
        self.totals.count_in(size, hold);
    }

    fn set_aside(&mut self, database: &Database) -> Result<(), SpoolError> {
        if self.broken.is_empty() {
            return Ok(());
        }
        database.execute("BEGIN IMMEDIATE")?;
        for (id, what) in &self.broken {
            tracing::error!(%id, what, "A MESSAGE IN THE SPOOL IS DAMAGED and was set aside");
            database.set_aside(*id, what)?;
            self.totals.damaged += 1;
        }
        database.execute("COMMIT")
    }

    /// A body's file without a row was never committed, or its message is done.
    fn sweep_bodies(&self, bodies: &Path) -> io::Result<()> {
        for file in fs::read_dir(bodies)? {
            let file = file?;
            let known = file.file_name().to_str().is_some_and(|name| self.files.contains(name));
            if !known {
                fs::remove_file(file.path())?;
            }
        }
        Ok(())
    }

    fn settle_in(self, segments: &mut Segments, folder: &Path) -> io::Result<Totals> {
        for (number, found) in self.segments {
            segments.skip(number);
            let Some(file) = found.file else { continue };
            if found.tally.records == 0 {
                fs::remove_file(folder.join(Folder::name(number)))?;
                continue;
            }
            // Space that was preallocated and not used, and whatever a crash left half written there.
            if found.length > found.tally.used {
                file.set_len(found.tally.used)?;
            }
            segments.adopt(number, file, found.tally);
        }
        Ok(self.totals)
    }
}

/// The number from which files of large bodies may be named: above all that exist.
pub(crate) fn next_body(bodies: &Path) -> io::Result<u64> {
    let mut next = 1;
    for file in fs::read_dir(bodies)? {
        let name = file?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".body"));
        if let Some(number) = number.and_then(|number| u64::from_str_radix(number, 16).ok()) {
            next = next.max(number + 1);
        }
    }
    Ok(next)
}
