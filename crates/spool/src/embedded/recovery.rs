//! What happens when a spool folder is opened: the log says what exists, and the index is brought up to it.
//!
//! A whole index that stopped a little before the end of the log is brought up in a moment. One that is missing, damaged,
//! of another spool, or of another history is put away, and a new one is made from the log. Then one pass over the rows
//! counts what lives in each segment and which files belong to somebody. Files that nobody needs are put away, messages
//! whose octets are not there are set aside. Nothing is deleted that the log does not say is done with.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pintle_mail::QueueId;

use super::aside::{Aside, Evidence};
use super::database::{Database, Unusable, unsigned};
use super::identity::{self, Identity};
use super::legacy;
use super::replay::{ReplayError, ReplayOutcome, bring_up};
use super::row::MessageRow;
use super::scan::{self, Log, SegmentFile};
use super::segments::{FORMAT, Folder, PREFACE, Segments, Tally, is_blank};
use super::shelf::Shelf;
use crate::fault::Faults;
use crate::{OpenError, SpoolError, Totals};

/// Copies of the index that are put away before the next one is let go.
const INDEX_COPIES: usize = 3;

/// The paths in a spool folder.
#[derive(Debug, Clone)]
pub(crate) struct Folders {
    pub(crate) root: PathBuf,
    pub(crate) database: PathBuf,
    pub(crate) segments: PathBuf,
    pub(crate) bodies: PathBuf,
    pub(crate) aside: Aside,
}

impl Folders {
    pub(crate) fn of(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            database: root.join("envelopes.db"),
            segments: root.join("segments"),
            bodies: root.join("bodies"),
            aside: Aside { damaged: root.join("damaged"), unreferenced: root.join("unreferenced") },
        }
    }
}

/// What a folder holds, in order.
pub(crate) struct Recovered {
    pub(crate) database: Database,
    pub(crate) segments: Segments,
    pub(crate) totals: Totals,
    /// Messages that cannot be served, and why. They are counted, and are to be set aside.
    pub(crate) broken: Vec<(QueueId, String)>,
}

/// Brings a folder into order.
pub(crate) fn recover(
    folders: &Folders,
    size: u64,
    shelf: &Arc<Shelf>,
    faults: &Faults,
) -> Result<Recovered, OpenError> {
    let found = scan::find(&folders.segments).map_err(at(&folders.segments))?;
    let found = legacy::upgrade(folders, found, size)?;
    let identity = identify(folders, &found)?;
    let log = Log::new(identity.seed(), found);
    let database = open_index(folders, &identity, &log)?;
    // What the last process wrote and did not live to sync counts, so it must stay.
    for found in log.segments.values() {
        found.open().and_then(|file| file.sync_data()).map_err(at(&found.path))?;
    }
    let (database, mut census) = match Census::take(&database, &log, folders) {
        // Whatever a database says that does not answer: the log has all of it.
        Err(SpoolError::Unavailable(what) | SpoolError::Store(what)) => {
            let database = replace_index(database, folders, &identity, &log, &what)?;
            let census = Census::take(&database, &log, folders).map_err(refused(folders))?;
            (database, census)
        }
        census => (database, census.map_err(refused(folders))?),
    };
    let log_folder = Folder::open(folders.segments.clone()).map_err(at(&folders.segments))?;
    let mut segments = Segments::new(log_folder, identity, size, shelf.clone(), faults.clone());
    let broken = std::mem::take(&mut census.broken);
    let totals = census.settle_in(&database, log, folders, &mut segments)?;
    Ok(Recovered { database, segments, totals, broken })
}

/// Which spool it is; one that has never been used becomes one.
fn identify(folders: &Folders, found: &BTreeMap<u64, SegmentFile>) -> Result<Identity, OpenError> {
    let written = match Identity::read(&folders.root) {
        // The segments know as well.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => None,
        read => read.map_err(at(&folders.root))?,
    };
    let mut identity = written;
    for (number, found) in found {
        let Some(preface) = found.preface else { continue };
        let path = folders.segments.join(Folder::name(*number));
        if preface.format > FORMAT {
            let (found, known) = (preface.format.into(), FORMAT.into());
            return Err(OpenError::Newer { path, found, known });
        }
        let known = *identity.get_or_insert(preface.identity);
        if preface.identity != known {
            let what = format!("it is of spool {}, and the others are of {known}", preface.identity);
            return Err(OpenError::Mixed { path, what });
        }
        if preface.number != *number {
            let what = format!("it was segment {}", Folder::name(preface.number));
            return Err(OpenError::Mixed { path, what });
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

/// The identity of a spool that has never been used. What was cut off before its first record is all that may be there.
fn first_identity(folders: &Folders, found: &BTreeMap<u64, SegmentFile>) -> Result<Identity, OpenError> {
    for found in found.values() {
        let blank = found.open().and_then(|file| is_blank(&file, 0, found.length));
        if !blank.map_err(at(&found.path))? {
            let (path, what) = (found.path.clone(), "nothing says which spool it is of".to_owned());
            return Err(OpenError::Mixed { path, what });
        }
    }
    Identity::random().map_err(at(&folders.root))
}

/// How many messages the database knows, as far as it can be read.
fn known_messages(database: &Path) -> Option<u64> {
    Database::read_only(database).ok()?.messages().ok()
}

/// The index, brought up to the log or made anew.
fn open_index(folders: &Folders, identity: &Identity, log: &Log) -> Result<Database, OpenError> {
    let path = &folders.database;
    let mut database = match Database::open(path) {
        Ok(database) => database,
        Err(Unusable::Newer(found)) => {
            return Err(OpenError::Newer { path: path.clone(), found, known: super::database::SCHEMA });
        }
        Err(Unusable::Older(found)) => {
            return make_index(folders, identity, log, &format!("it has schema {found}"));
        }
        Err(Unusable::Empty) => return make_index(folders, identity, log, "it is empty"),
        Err(Unusable::Damaged(_)) if !path.exists() => {
            return make_index(folders, identity, log, "it is missing");
        }
        Err(Unusable::Damaged(what)) => return make_index(folders, identity, log, &what),
    };
    match database.identity() {
        Ok(found) if found == *identity => {}
        Ok(found) => {
            return make_index(folders, identity, log, &format!("it is of another spool, {found}"));
        }
        Err(error) => return make_index(folders, identity, log, &error.to_string()),
    }
    if database.has_passed_over().unwrap_or(true) {
        // Whether this version understands it is seen by reading it.
        let what = "there is something in the log that was not understood";
        return make_index(folders, identity, log, what);
    }
    match bring_up(&database, log, Some(&folders.aside)) {
        Ok(ReplayOutcome::Current { records, unread, .. }) => {
            database.unread = unread;
            tracing::debug!(records, "the spool's database has been brought up to the log");
            match database.faults() {
                Ok(faults) if faults.is_empty() => Ok(database),
                // Rows may be hidden of messages whose segments would then seem to be empty.
                Ok(faults) => replace_index(database, folders, identity, log, &faults[0]),
                Err(error) => replace_index(database, folders, identity, log, &error.to_string()),
            }
        }
        Ok(ReplayOutcome::Apart(why)) => make_index(folders, identity, log, why),
        Ok(ReplayOutcome::Ahead) => {
            replace_index(database, folders, identity, log, "the log has lost what it has heard")
        }
        Err(ReplayError::Store(error @ SpoolError::Full)) => Err(refused(folders)(error)),
        Err(ReplayError::Store(error)) => make_index(folders, identity, log, &error.to_string()),
        Err(error) => Err(unread(folders, error)),
    }
}

/// Makes the index anew in place of one that was current: what only that one knows is kept.
fn replace_index(
    database: Database,
    folders: &Folders,
    identity: &Identity,
    log: &Log,
    why: &str,
) -> Result<Database, OpenError> {
    let known = legible(&database);
    drop(database);
    let database = make_index(folders, identity, log, why)?;
    salvage(&database, known, folders)?;
    Ok(database)
}

/// Makes the index of a folder that nobody works in anew, whatever is to be thought of the one that is there.
pub(crate) fn remake_index(folders: &Folders, size: u64) -> Result<(), OpenError> {
    let found = scan::find(&folders.segments).map_err(at(&folders.segments))?;
    let found = legacy::upgrade(folders, found, size)?;
    let identity = identify(folders, &found)?;
    let log = Log::new(identity.seed(), found);
    let database = open_index(folders, &identity, &log)?;
    replace_index(database, folders, &identity, &log, "a repair was asked for").map(drop)
}

/// Makes the index anew from the whole log. What was there before is put away.
fn make_index(folders: &Folders, identity: &Identity, log: &Log, why: &str) -> Result<Database, OpenError> {
    fill_index(folders, identity, log, Some(why)).map_err(|error| unread(folders, error))
}

/// The same, for whoever goes on when it cannot be done. Why it is done is told unless it has been.
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
            "the spool's database is made anew from the log; what was there is put away in unreferenced/"
        );
    }
    put_away_index(folders)?;
    let filled = Database::create(path, identity)
        .map_err(|error| ReplayError::Store(error.into()))
        .and_then(|database| Ok((bring_up(&database, log, Some(&folders.aside))?, database)));
    match filled {
        Ok((ReplayOutcome::Current { records, damaged, unread, .. }, mut database)) => {
            database.unread = unread;
            if !new {
                tracing::warn!(records, damaged, "the spool's database has been made anew");
            }
            Ok(database)
        }
        Ok((_, database)) => Ok(database),
        Err(error) => {
            // Half an index is of no use to anybody, and may be what fills the disk.
            index_files(folders).for_each(|path| drop(fs::remove_file(path)));
            Err(error)
        }
    }
}

/// The database first: without it what is beside it is nothing, while it alone might be taken for whole.
fn index_files(folders: &Folders) -> impl Iterator<Item = PathBuf> {
    ["", "-wal", "-shm"].into_iter().map(|suffix| {
        let mut path = folders.database.clone().into_os_string();
        path.push(suffix);
        PathBuf::from(path)
    })
}

/// Puts the index away, durably. Beyond some copies it is let go: the log says all of it, and a disk that damages one after
/// the other must not be filled with them.
pub(crate) fn put_away_index(folders: &Folders) -> io::Result<()> {
    let many = folders.aside.copies(&folders.database)? >= INDEX_COPIES;
    for path in index_files(folders) {
        match fs::metadata(&path) {
            Ok(file) if many || file.len() == 0 || path.extension().is_some_and(|end| end == "db-shm") => {
                fs::remove_file(path)?;
            }
            Ok(_) => folders.aside.put_away(&path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    File::open(&folders.aside.unreferenced)?.sync_all()?;
    File::open(&folders.root)?.sync_all()
}

/// What the pass over the rows found.
#[derive(Default)]
pub(crate) struct Census {
    pub(crate) tallies: BTreeMap<u64, Tally>,
    pub(crate) totals: Totals,
    files: HashSet<String>,
    pub(crate) broken: Vec<(QueueId, String)>,
}

impl Census {
    /// Goes through all rows. Each is checked against its checksum.
    pub(crate) fn take(database: &Database, log: &Log, folders: &Folders) -> Result<Self, SpoolError> {
        let mut census = Self::default();
        let mut after = None;
        loop {
            let rows = database.messages_after(after, 4_096, false)?;
            let Some((last, _)) = rows.last() else { break };
            after = Some(*last);
            for (id, row) in rows {
                if row.touched {
                    database.touched(id).map_err(not_understood)?;
                }
                census.count(id, &row, log, folders).map_err(|error| SpoolError::from_io(&error))?;
            }
        }
        if database.has_stray_marks()? {
            return Err(SpoolError::Unavailable("it has marks of messages that it does not have".into()));
        }
        let mut marks = database.connection.prepare("SELECT segment, count(*) FROM mark GROUP BY segment")?;
        let mut rows = marks.query([])?;
        while let Some(row) = rows.next()? {
            census.tallies.entry(unsigned(row, 0)?).or_default().marks = unsigned(row, 1)?;
        }
        let damaged = folders.aside.count();
        census.totals.damaged = damaged.map_err(|error| SpoolError::from_io(&error))?;
        Ok(census)
    }

    fn count(&mut self, id: QueueId, row: &MessageRow, log: &Log, folders: &Folders) -> io::Result<()> {
        self.files.extend(row.file.clone());
        if let Some(file) = &row.file
            && !folders.bodies.join(file).try_exists()?
            && folders.aside.take_back(&folders.bodies.join(file))?
        {
            tracing::warn!(queue_id = %id, file, "the file of a body that had been put away is needed and was taken back");
        }
        if let Some(what) = missing(row, log, &folders.bodies)? {
            self.broken.push((id, what.to_owned()));
        }
        let hold = row.hold(id).unwrap_or_else(|_| {
            self.broken.push((id, "what is said of its hold cannot be read".to_owned()));
            None
        });
        let tally = self.tallies.entry(row.place.segment).or_default();
        tally.records += 1;
        tally.live += row.place.length;
        self.totals.count_in(row.size, hold.as_ref());
        Ok(())
    }

    /// Puts away what nobody needs, and takes up the segments.
    fn settle_in(
        mut self,
        database: &Database,
        log: Log,
        folders: &Folders,
        segments: &mut Segments,
    ) -> Result<Totals, OpenError> {
        folders.aside.complete(&log).map_err(at(&folders.aside.damaged))?;
        self.sweep_bodies(folders).map_err(at(&folders.bodies))?;
        let edges = database.edges().map_err(refused(folders))?;
        let reached = database.reached().map_err(refused(folders))?;
        // Older ones were cut at their ends when they were the last, or are full.
        let scans = log.scan(reached.segment).map_err(at(&folders.segments))?;
        for (number, found) in log.segments {
            segments.skip(number);
            let path = found.path.clone();
            let tally = self.tallies.remove(&number).unwrap_or_default();
            let scan = scans.get(&number);
            let no_records = scan.map_or(found.preface.is_none(), |scan| scan.records.is_empty());
            let needed = tally != Tally::default() || edges.iter().any(|edge| edge.newer == number);
            if no_records && !needed {
                clear_away(&found, &folders.aside).map_err(at(&path))?;
                continue;
            }
            // What comes behind the last record that counts is nothing, now and when numbers have gone beyond it.
            let used = scan.map_or(found.length, |scan| scan.end_of(reached.sequence));
            if scan.is_some_and(|scan| found.length > used && scan.gaps.iter().all(|gap| gap.to <= used)) {
                found.cut(used).map_err(at(&path))?;
            }
            segments.adopt(number, Tally { used, ..tally });
        }
        segments.adopt_edges(edges);
        segments.go_on(reached.sequence);
        Ok(self.totals)
    }

    /// A body's file without a row was never committed, or its message is done.
    fn sweep_bodies(&self, folders: &Folders) -> io::Result<()> {
        let (mut put_away, mut wanted) = (0_u64, None);
        for file in fs::read_dir(&folders.bodies)? {
            let file = file?;
            let name = file.file_name().to_string_lossy().into_owned();
            if self.files.contains(&name) {
                continue;
            }
            let wanted = match &wanted {
                Some(wanted) => wanted,
                None => wanted.insert(folders.aside.wanted_bodies()?),
            };
            if let Some(kept) = wanted.get(&name) {
                fs::hard_link(file.path(), kept)?;
            }
            folders.aside.put_away(&file.path())?;
            put_away += 1;
        }
        if put_away > 0 {
            tracing::info!(
                files = put_away,
                folder = %folders.aside.unreferenced.display(),
                "bodies that belong to no message were put away; they go after seven days"
            );
        }
        Ok(())
    }
}

/// A segment without records: made in advance, or torn before its first record was whole.
fn clear_away(found: &SegmentFile, aside: &Aside) -> io::Result<()> {
    let (file, path) = (found.open()?, &found.path);
    let begun = found.preface.is_some() || found.length == 0;
    let blank = begun && is_blank(&file, PREFACE, found.length)?;
    if blank { fs::remove_file(path) } else { aside.put_away(path) }
}

/// The rows of a damaged index that can be read.
fn legible(database: &Database) -> Vec<(QueueId, MessageRow)> {
    let mut known = Vec::new();
    let mut after = None;
    // One at a time: what cannot be read costs itself and what is reached only through it.
    while let Ok(ids) = database.ids_after(after, 4_096) {
        let Some(last) = ids.last() else { break };
        after = Some(*last);
        let rows = ids.into_iter().filter_map(|id| Some((id, database.find(id).ok()??)));
        known.extend(rows);
    }
    known
}

/// What a current index knew and the log does not say any more, since part of it is lost: the envelopes are kept.
fn salvage(
    database: &Database,
    known: Vec<(QueueId, MessageRow)>,
    folders: &Folders,
) -> Result<(), OpenError> {
    for (id, row) in known {
        let gone = database.find(id).map_err(refused(folders))?.is_none();
        if gone && !folders.aside.has(id) {
            let what = "its record is not in the log any more";
            tracing::error!(queue_id = %id, what, "A MESSAGE IN THE SPOOL IS DAMAGED and was set aside");
            let body = row.file.as_ref().map(|file| folders.bodies.join(file));
            let evidence =
                Evidence { id, what, sheet: &row.sheet, place: Some(row.place), octets: None, body };
            folders.aside.preserve(&evidence).map_err(at(&folders.aside.damaged))?;
        }
    }
    Ok(())
}

/// What of a message's octets is not there, as far as names and lengths tell.
pub(crate) fn missing(row: &MessageRow, log: &Log, bodies: &Path) -> io::Result<Option<&'static str>> {
    let place = row.place;
    Ok(match (log.segments.get(&place.segment), &row.file) {
        (None, _) => Some("its segment is missing"),
        (Some(found), _) if found.length < place.position + place.length => {
            Some("its segment ends before it")
        }
        // A folder that cannot be read now tells nothing.
        (Some(_), Some(file)) if !bodies.join(file).try_exists()? => Some("its body's file is missing"),
        (Some(_), _) => None,
    })
}

/// The number from which files of large bodies are named: no record, however old, may name a file that somebody else has
/// now.
pub(crate) fn next_body() -> io::Result<u64> {
    let mut octets = [0; 8];
    getrandom::fill(&mut octets).map_err(io::Error::other)?;
    Ok(u64::from_le_bytes(octets) >> 1)
}

/// A row that is as it was written and cannot be read was written by a version that knows more. The log says the same, and
/// what this version understands of it.
fn not_understood(error: SpoolError) -> SpoolError {
    match error {
        SpoolError::Damaged(_, what) => SpoolError::Unavailable(what),
        error => error,
    }
}

/// Refuses a folder that is no spool, before anything is made in it.
pub(crate) fn require_spool(folders: &Folders) -> Result<(), OpenError> {
    fs::read_dir(&folders.root).map_err(at(&folders.root))?;
    for part in [&folders.segments, &folders.root.join(identity::FILE), &folders.database] {
        if part.try_exists().map_err(at(part))? {
            return Ok(());
        }
    }
    Err(OpenError::NoSpool(folders.root.clone()))
}

/// Makes the folders, durably.
pub(crate) fn make_folders(folders: &Folders) -> Result<File, OpenError> {
    let Folders { root, segments, bodies, aside, .. } = folders;
    let is_there = |path: &Path| path.try_exists().map_err(at(path));
    // A spool whose identity is gone is known by its segments.
    let used = is_there(&root.join(identity::FILE))? || has_segments(segments)?;
    if used && !is_there(bodies)? {
        return Err(OpenError::BodiesMissing(bodies.clone()));
    }
    for path in [segments, bodies, &aside.damaged, &aside.unreferenced] {
        // Others' mail is nobody's business, whatever the umask says.
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(at(path))?;
    }
    // The names of these folders must outlive a power cut no less than what they hold.
    let handle = File::open(root).map_err(at(root))?;
    handle.sync_all().map_err(at(root))?;
    Ok(handle)
}

fn has_segments(folder: &Path) -> Result<bool, OpenError> {
    match fs::read_dir(folder) {
        Ok(mut files) => Ok(files.any(|file| file.is_ok_and(|file| Folder::number(&file.path()).is_some()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(at(folder)(error)),
    }
}

pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> OpenError + use<> {
    let path = path.to_owned();
    move |source| OpenError::Io { path, source }
}

fn refused(folders: &Folders) -> impl FnOnce(SpoolError) -> OpenError + use<> {
    let path = folders.database.clone();
    move |error| OpenError::Database { path, what: error.to_string() }
}

fn unread(folders: &Folders, error: ReplayError) -> OpenError {
    match error {
        ReplayError::Io(source) => OpenError::Io { path: folders.segments.clone(), source },
        ReplayError::Store(error) => refused(folders)(error),
        ReplayError::Newer(number) => OpenError::Newer {
            path: folders.segments.join(Folder::name(number)),
            found: i64::from(FORMAT) + 1,
            known: FORMAT.into(),
        },
    }
}
