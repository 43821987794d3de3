//! `pintle spool check` inspects a spool folder without changing it; `pintle spool repair` repairs one.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use pintle_mail::{Body, QueueId};

use super::body::BLOCK;
use super::census::missing;
use super::database::{Database, UnusableDatabase};
use super::folders::{Folders, at, require_spool};
use super::identity::Identity;
use super::recovery::remake_index;
use super::replay::{ReplayOutcome, bring_up};
use super::row::MessageRow;
use super::scan::{self, Log, Scan};
use super::segment_file::{FORMAT, SegmentFolder};
use super::verify::verify_message;
use super::{Embedded, EmbeddedConfig};
use crate::{OpenError, Spool, SpoolError};

/// What an inspection of a spool folder found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inspection {
    /// The spool's identity, in hexadecimal digits. None when it has none yet.
    pub identity: Option<String>,
    /// Number of files of the log.
    pub segments: u64,
    /// Number of whole records in them.
    pub records: u64,
    /// Number of messages in the spool, by the log.
    pub messages: u64,
    /// Size of their header blocks and bodies, in octets.
    pub octets: u64,
    /// Number of messages that were set aside earlier, in `damaged/`.
    pub set_aside: u64,
    /// Number of files in `unreferenced/`.
    pub unreferenced: u64,
    /// The problems found. Empty when all is well.
    pub problems: Vec<Problem>,
}

/// A problem of a spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The path of the file, or the id of the message.
    pub place: String,
    /// The problem, in words for an operator.
    pub what: String,
    /// Whether mail is lost or cannot be served. Otherwise the next start repairs it.
    pub costs_mail: bool,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// Inspects a spool folder: each record of the log, the index, and each body against its checksums. A gateway may be
/// running on it; what it writes meanwhile may look incomplete.
///
/// `progress` is called with the number of messages read so far, and of all.
///
/// # Errors
/// The folder cannot be read, or is of a later version.
pub fn inspect(folder: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<Inspection, OpenError> {
    let folders = Folders::of(folder);
    require_spool(&folders)?;
    let segments = scan::find(&folders.segments).map_err(at(&folders.segments))?;
    let mut inspector = Inspector { folders, found: Inspection::default() };
    let Some(identity) = inspector.identify(&segments)? else {
        return Ok(inspector.found);
    };
    let log = Log::new(identity.seed(), segments);
    if let Ok(database) = Database::read_only(&inspector.folders.database)
        && database.identity().ok() == Some(identity)
        && let Ok(reached) = database.reached()
    {
        log.promise(reached.sequence);
    }
    let scans = log.scan(0).map_err(at(&inspector.folders.segments))?;
    inspector.log(&scans);
    let truth = inspector.replay(&identity, &log)?;
    inspector.index(&identity, &truth);
    inspector.messages(&truth, &log, progress)?;
    inspector.rest()?;
    Ok(inspector.found)
}

struct Inspector {
    folders: Folders,
    found: Inspection,
}

impl Inspector {
    fn problem(&mut self, place: impl fmt::Display, what: impl Into<String>, costs_mail: bool) {
        self.found.problems.push(Problem { place: place.to_string(), what: what.into(), costs_mail });
    }

    fn identify(
        &mut self,
        segments: &BTreeMap<u64, scan::SegmentFile>,
    ) -> Result<Option<Identity>, OpenError> {
        let written = Identity::read(&self.folders.root).unwrap_or_else(|error| {
            self.problem("identity", error.to_string(), false);
            None
        });
        let mut identity = written;
        for (number, found) in segments {
            let path = self.folders.segments.join(SegmentFolder::name(*number));
            let Some(header) = found.header else {
                self.problem(path.display(), "its header is not that of a segment", false);
                continue;
            };
            if header.format > FORMAT {
                let (found, known) = (header.format.into(), FORMAT.into());
                return Err(OpenError::Newer { path, found, known });
            }
            if *identity.get_or_insert(header.identity) != header.identity {
                self.problem(
                    path.display(),
                    format!("it belongs to another spool, {}", header.identity),
                    true,
                );
            }
        }
        self.found.segments = segments.len() as u64;
        self.found.identity = identity.map(|identity| identity.to_string());
        if identity.is_some() && segments.is_empty() {
            let place = self.folders.segments.display().to_string();
            self.problem(place, "there are no segments, though this spool has been in use", true);
            return Ok(None);
        }
        Ok(identity)
    }

    fn log(&mut self, scans: &BTreeMap<u64, Scan>) {
        for scan in scans.values() {
            self.found.records += scan.records.len() as u64;
            for gap in &scan.gaps {
                let place = self.folders.segments.join(SegmentFolder::name(gap.segment));
                let what = format!("octets {} to {} should be records and are not", gap.from, gap.to);
                self.problem(place.display(), what, true);
            }
        }
    }

    /// Reads the whole log into an index in memory.
    fn replay(&mut self, identity: &Identity, log: &Log) -> Result<Database, OpenError> {
        let path = self.folders.segments.clone();
        let failed = |what: String| OpenError::Database { path, what };
        let truth = match Database::in_memory(identity) {
            Ok(truth) => truth,
            Err(error) => return Err(failed(error.to_string())),
        };
        match bring_up(&truth, log, None) {
            Ok(ReplayOutcome::Current { damaged, .. }) => {
                if damaged > 0 {
                    let what = format!("{damaged} records of messages are damaged");
                    self.problem("segments", what, true);
                }
                Ok(truth)
            }
            Ok(ReplayOutcome::Apart(what)) => Err(failed(what.to_owned())),
            Ok(ReplayOutcome::Ahead) => Err(failed("nothing can be ahead of the log".to_owned())),
            Err(error) => Err(failed(format!("{error:?}"))),
        }
    }

    /// Compares the index with the log.
    fn index(&mut self, identity: &Identity, truth: &Database) {
        let place = self.folders.database.display().to_string();
        let database = match Database::read_only(&self.folders.database) {
            Ok(database) => database,
            Err(error) => return self.problem(place, unusable(&error), false),
        };
        if database.identity().ok() != Some(*identity) {
            return self.problem(place, "it belongs to another spool: the next start rebuilds it", false);
        }
        for line in database.faults().unwrap_or_else(|error| vec![error.to_string()]) {
            self.problem(&place, format!("{line}: the next start rebuilds it"), false);
        }
        match differs(&database, truth) {
            Ok(0) => {}
            Ok(count) => {
                let what = format!(
                    "it differs from the log in {count} messages: the next start brings it up to date"
                );
                self.problem(place, what, false);
            }
            Err(error) => self.problem(place, format!("{error}: the next start rebuilds it"), false),
        }
    }

    /// Reads each message to its end.
    fn messages(
        &mut self,
        truth: &Database,
        log: &Log,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), OpenError> {
        let path = self.folders.segments.clone();
        let refused = |error: SpoolError| OpenError::Database { path: path.clone(), what: error.to_string() };
        let (total, mut done) = (truth.messages().map_err(refused)?, 0);
        let looked = each(truth, |id, row| {
            self.found.messages += 1;
            self.found.octets = self.found.octets.saturating_add(row.size);
            if let Some(what) = unreadable(id, &row, log, &self.folders.bodies) {
                self.problem(id, what, true);
            }
            done += 1;
            progress(done, total);
            Ok(())
        });
        looked.map_err(refused)
    }

    fn rest(&mut self) -> Result<(), OpenError> {
        let lost_found = &self.folders.lost_found;
        self.found.set_aside = lost_found.count().unwrap_or(0);
        self.found.unreferenced =
            fs::read_dir(&lost_found.unreferenced).map_or(0, |files| files.count() as u64);
        Ok(())
    }
}

fn unusable(error: &UnusableDatabase) -> String {
    match error {
        UnusableDatabase::Newer(found) => format!("it has schema {found}, of a later version"),
        UnusableDatabase::Older(found) => {
            format!("it has schema {found}: the next start converts the spool")
        }
        UnusableDatabase::Empty => "it is empty: the next start rebuilds it".to_owned(),
        UnusableDatabase::Damaged(what) => format!("{what}: the next start rebuilds it"),
    }
}

/// Calls `act` for all rows, a few thousand at a time.
fn each(
    database: &Database,
    mut act: impl FnMut(QueueId, MessageRow) -> Result<(), SpoolError>,
) -> Result<(), SpoolError> {
    let mut after = None;
    loop {
        let page = database.messages_after(after, 4_096, false)?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = Some(*last);
        page.into_iter().try_for_each(|(id, row)| act(id, row))?;
    }
}

/// The number of messages in which an index differs from the truth.
fn differs(index: &Database, truth: &Database) -> Result<u64, SpoolError> {
    let (mut known, mut other) = (0, 0);
    each(index, |id, row| {
        let found = truth.find(id)?;
        known += u64::from(found.is_some());
        let same = found.is_some_and(|found| {
            found.place == row.place && found.hold == row.hold && found.released == row.released
        });
        other += u64::from(!same);
        Ok(())
    })?;
    Ok(other + truth.messages()?.saturating_sub(known))
}

/// What is wrong with a message's octets.
fn unreadable(id: QueueId, row: &MessageRow, log: &Log, bodies: &Path) -> Option<String> {
    let found = match missing(row, log, bodies) {
        Ok(Some(what)) => return Some(what.to_owned()),
        Ok(None) => {
            log.file(row.place.segment).and_then(|file| verify_message((id, row), &file, log.seed(), bodies))
        }
        Err(error) => Err(error),
    };
    found.unwrap_or_else(|error| Some(format!("it cannot be read: {error}")))
}

/// The result of a repair.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repair {
    /// Messages that are served.
    pub served: u64,
    /// Messages that this repair has set aside.
    pub set_aside: u64,
}

/// Rebuilds the index from the log, reads each message to its end, and sets aside what cannot be served. No gateway may
/// run on the folder. `progress` is as for [`inspect`].
///
/// # Errors
/// The folder is in use, of a later version, incomplete, or cannot be written to.
pub async fn repair(
    config: &EmbeddedConfig,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Repair, OpenError> {
    let folders = Folders::of(&config.folder);
    require_spool(&folders)?;
    let before = folders.lost_found.count().unwrap_or(0);
    {
        let _lock = super::lock(&folders)?;
        remake_index(&folders, config.segment_size)?;
    }
    let spool = Embedded::open(config)?;
    let failed =
        |error: SpoolError| OpenError::Database { path: folders.database.clone(), what: error.to_string() };
    let total = spool.totals().await.map_err(failed)?.messages;
    let (mut after, mut done) = (None, 0);
    loop {
        let page = spool.claim(after, 256).await.map_err(failed)?;
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        for message in &page {
            // The read itself sets a message aside that cannot be read.
            if let Ok(stored) = spool.load(message.id).await {
                read_to_end(&*stored.body).await;
            }
            done += 1;
            progress(done, total);
        }
    }
    spool.close().await.map_err(failed)?;
    drop(spool);
    let spool = Embedded::open(config)?;
    let totals = spool.totals().await.map_err(failed)?;
    spool.close().await.map_err(failed)?;
    Ok(Repair { served: totals.messages, set_aside: totals.damaged.saturating_sub(before) })
}

async fn read_to_end(body: &dyn Body) {
    let mut at = 0;
    while at < body.size() {
        match body.read(at, 4 * BLOCK).await {
            Ok(piece) if !piece.is_empty() => at += piece.len() as u64,
            _ => return,
        }
    }
}
