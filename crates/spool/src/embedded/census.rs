//! One pass over the rows of the index at a start, or after an index rebuild: it counts what each segment is needed for,
//! and which body files belong to a message.
//!
//! Files that belong to no message are put away, and messages whose octets are missing are reported as broken.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::path::Path;

use pintle_mail::QueueId;

use super::database::Database;
use super::folders::{Folders, at, refused};
use super::lost_found::LostAndFound;
use super::row::{MessageRow, unsigned};
use super::scan::{Log, SegmentFile};
use super::segment_file::{SEGMENT_HEADER, is_blank};
use super::segments::{SegmentUsage, Segments};
use crate::{OpenError, SpoolError, Totals};

/// What the pass found.
#[derive(Default)]
pub(crate) struct Census {
    pub(crate) usage: BTreeMap<u64, SegmentUsage>,
    pub(crate) totals: Totals,
    files: HashSet<String>,
    pub(crate) broken: Vec<(QueueId, String)>,
}

impl Census {
    /// Reads all rows and checks the checksum of each.
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
            return Err(SpoolError::Unavailable(
                "it has change marks of messages that it does not have".into(),
            ));
        }
        let mut marks = database.connection.prepare("SELECT segment, count(*) FROM mark GROUP BY segment")?;
        let mut rows = marks.query([])?;
        while let Some(row) = rows.next()? {
            census.usage.entry(unsigned(row, 0)?).or_default().marks = unsigned(row, 1)?;
        }
        let damaged = folders.lost_found.count();
        census.totals.damaged = damaged.map_err(|error| SpoolError::from_io(&error))?;
        Ok(census)
    }

    fn count(&mut self, id: QueueId, row: &MessageRow, log: &Log, folders: &Folders) -> io::Result<()> {
        self.files.extend(row.file.clone());
        if let Some(file) = &row.file
            && !folders.bodies.join(file).try_exists()?
            && folders.lost_found.take_back(&folders.bodies.join(file))?
        {
            tracing::warn!(queue_id = %id, file, "a body file was moved back from unreferenced/, since its message needs it");
        }
        if let Some(what) = missing(row, log, &folders.bodies)? {
            self.broken.push((id, what.to_owned()));
        }
        let hold = row.hold(id).unwrap_or_else(|_| {
            self.broken.push((id, "its hold cannot be read".to_owned()));
            None
        });
        let usage = self.usage.entry(row.place.segment).or_default();
        usage.records += 1;
        usage.live += row.place.length;
        self.totals.count_in(row.size, hold.as_ref());
        Ok(())
    }

    /// Puts away files that no message needs, and hands the segments over to their writer.
    pub(crate) fn settle_in(
        mut self,
        database: &Database,
        log: Log,
        folders: &Folders,
        segments: &mut Segments,
    ) -> Result<Totals, OpenError> {
        folders.lost_found.complete(&log).map_err(at(&folders.lost_found.damaged))?;
        self.sweep_bodies(folders).map_err(at(&folders.bodies))?;
        let edges = database.edges().map_err(refused(folders))?;
        let reached = database.reached().map_err(refused(folders))?;
        // Older segments are full, or were cut at their end when they were the last.
        let scans = log.scan(reached.segment).map_err(at(&folders.segments))?;
        for (number, found) in log.segments {
            segments.skip(number);
            let path = found.path.clone();
            let usage = self.usage.remove(&number).unwrap_or_default();
            let scan = scans.get(&number);
            let no_records = scan.map_or(found.header.is_none(), |scan| scan.records.is_empty());
            let needed = usage != SegmentUsage::default() || edges.iter().any(|edge| edge.newer == number);
            if no_records && !needed {
                clear_away(&found, &folders.lost_found).map_err(at(&path))?;
                continue;
            }
            // Octets behind the last record that counts do not count now, and must not count when later records have
            // higher numbers.
            let used = scan.map_or(found.length, |scan| scan.end_of(reached.sequence));
            if scan.is_some_and(|scan| found.length > used && scan.gaps.iter().all(|gap| gap.to <= used)) {
                found.cut(used).map_err(at(&path))?;
            }
            segments.adopt(number, SegmentUsage { used, ..usage });
        }
        segments.adopt_edges(edges);
        segments.go_on(reached.sequence);
        Ok(self.totals)
    }

    /// A body file without a row was never committed, or its message is done.
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
                None => wanted.insert(folders.lost_found.wanted_bodies()?),
            };
            if let Some(kept) = wanted.get(&name) {
                fs::hard_link(file.path(), kept)?;
            }
            folders.lost_found.put_away(&file.path())?;
            put_away += 1;
        }
        if put_away > 0 {
            tracing::info!(
                files = put_away,
                folder = %folders.lost_found.unreferenced.display(),
                "body files of no message were moved to unreferenced/; they are deleted after seven days"
            );
        }
        Ok(())
    }
}

/// A segment without records: made in advance, or torn before its first record was whole.
fn clear_away(found: &SegmentFile, lost_found: &LostAndFound) -> io::Result<()> {
    let (file, path) = (found.open()?, &found.path);
    let begun = found.header.is_some() || found.length == 0;
    let blank = begun && is_blank(&file, SEGMENT_HEADER, found.length)?;
    if blank { fs::remove_file(path) } else { lost_found.put_away(path) }
}

/// What is missing of a message, by names and lengths of files alone.
pub(crate) fn missing(row: &MessageRow, log: &Log, bodies: &Path) -> io::Result<Option<&'static str>> {
    let place = row.place;
    Ok(match (log.segments.get(&place.segment), &row.file) {
        (None, _) => Some("its segment is missing"),
        (Some(found), _) if found.length < place.position + place.length => {
            Some("its segment ends before it")
        }
        // A folder that cannot be read now proves nothing.
        (Some(_), Some(file)) if !bodies.join(file).try_exists()? => Some("its body's file is missing"),
        (Some(_), _) => None,
    })
}

/// A row with a good checksum that cannot be parsed comes from a version that knows more. A rebuild from the log yields
/// what this version understands of it.
fn not_understood(error: SpoolError) -> SpoolError {
    match error {
        SpoolError::Damaged(_, what) => SpoolError::Unavailable(what),
        error => error,
    }
}
