//! The spool's lost and found: files that are not in use and must not be lost.
//!
//! `damaged/` has messages that cannot be served, for an operator; they stay. `unreferenced/` has files that the log
//! does not name: bodies that were never committed, an index that was rebuilt. They are deleted after a week, and time
//! counts only while a gateway runs: the modification time of a file there is its age, from 1970 on. So a wrong clock
//! makes no file older.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use pintle_mail::{Bytes, QueueId};
use serde::Deserialize;

use super::meta::{from_json, to_json};
use super::record::RecordHeader;
use super::scan::{Log, is_sound};
use super::segment_file::{Extent, read_at};

/// How long files in `unreferenced/` are kept.
const UNREFERENCED_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// A modification time beyond this one is not an age that we wrote.
const NO_AGE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The folders `damaged/` and `unreferenced/` of a spool.
#[derive(Debug, Clone)]
pub(crate) struct LostAndFound {
    pub(crate) damaged: PathBuf,
    pub(crate) unreferenced: PathBuf,
}

/// What is kept of a damaged message.
pub(crate) struct Evidence<'a> {
    pub(crate) id: QueueId,
    pub(crate) what: &'a str,
    /// Its metadata, with the envelope, as the index has it. May be empty.
    pub(crate) meta: &'a str,
    /// Where its record should be, if that is known.
    pub(crate) place: Option<Extent>,
    /// Its record, if it can be read.
    pub(crate) octets: Option<Bytes>,
    /// The file of its body, if it has one.
    pub(crate) body: Option<PathBuf>,
}

impl LostAndFound {
    /// Writes the remains of a damaged message to `damaged/`, durably.
    pub(crate) fn preserve(&self, evidence: &Evidence<'_>) -> io::Result<()> {
        let Evidence { id, what, meta, place, octets, body } = evidence;
        if let Some(octets) = octets {
            write(&self.damaged.join(format!("{id}.record")), octets)?;
        }
        if let Some(body) = body {
            let kept = self.damaged.join(format!("{id}.body"));
            match fs::hard_link(body, kept) {
                Ok(()) => {}
                // The file may be what is missing.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        let place = place.map(|place| to_json(&place)).transpose().map_err(io::Error::other)?;
        let place = place.map_or_else(String::new, |place| String::from_utf8_lossy(&place).into_owned());
        let text = format!("{what}\n{meta}\n{place}\n");
        write(&self.damaged.join(format!("{id}.txt")), text.as_bytes())?;
        File::open(&self.damaged)?.sync_all()
    }

    /// Keeps octets of the log that should be records and are not.
    pub(crate) fn preserve_gap(&self, name: &str, octets: &[u8]) -> io::Result<()> {
        let path = self.damaged.join(name);
        if path.exists() {
            return Ok(());
        }
        write(&path, octets)?;
        File::open(&self.damaged)?.sync_all()
    }

    /// Whether this message has been set aside.
    pub(crate) fn has(&self, id: QueueId) -> bool {
        self.damaged.join(format!("{id}.txt")).exists()
    }

    /// How many messages that were set aside are still here.
    pub(crate) fn count(&self) -> io::Result<u64> {
        let mut count = 0;
        for file in fs::read_dir(&self.damaged)? {
            count += u64::from(file?.path().extension().is_some_and(|extension| extension == "txt"));
        }
        Ok(count)
    }

    /// Completes messages that were set aside with octets that were missing then and are readable now, since the log
    /// may delete them.
    pub(crate) fn complete(&self, log: &Log) -> io::Result<()> {
        for note in self.set_aside()? {
            let Some(place) = note.place.filter(|place| log.has(*place)) else { continue };
            let octets =
                log.file(place.segment).and_then(|file| read_at(&file, place.position, place.length));
            let Ok(octets) = octets else { continue };
            let header = RecordHeader::decode(&octets, log.seed(), place.segment, place.position);
            if !header.is_some_and(|header| header.id == note.id && is_sound(&octets, &header)) {
                continue;
            }
            let path = self.damaged.join(format!("{}.record", note.id));
            if fs::read(&path).ok().is_none_or(|kept| kept != octets) {
                write(&path, &octets)?;
                tracing::warn!(queue_id = %note.id, "the record of a damaged message can be read again; it is kept in damaged/");
            }
        }
        File::open(&self.damaged)?.sync_all()
    }

    /// The names of body files that were missing when their messages were set aside, and where they belong in
    /// `damaged/`.
    pub(crate) fn wanted_bodies(&self) -> io::Result<HashMap<String, PathBuf>> {
        let path = |note: &DamagedMessage| self.damaged.join(format!("{}.body", note.id));
        let wanted = self.set_aside()?.into_iter().filter(|note| !path(note).exists());
        Ok(wanted.filter_map(|note| Some((note.file.clone()?, path(&note)))).collect())
    }

    fn set_aside(&self) -> io::Result<Vec<DamagedMessage>> {
        let mut notes = Vec::new();
        for file in fs::read_dir(&self.damaged)? {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == "txt") {
                notes.extend(DamagedMessage::read(&path)?);
            }
        }
        Ok(notes)
    }

    /// Moves a file to `unreferenced/`.
    pub(crate) fn put_away(&self, path: &Path) -> io::Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut target = self.unreferenced.join(&name);
        let mut number = 1;
        while target.exists() {
            target = self.unreferenced.join(format!("{name}.{number}"));
            number += 1;
        }
        if let Err(error) = set_age(path, Duration::ZERO) {
            tracing::debug!(path = %path.display(), %error, "the age of a file in unreferenced/ could not be set");
        }
        fs::rename(path, target)
    }

    /// How many files of this name are in `unreferenced/`.
    pub(crate) fn copies(&self, path: &Path) -> io::Result<usize> {
        let mut count = 0;
        for file in fs::read_dir(&self.unreferenced)? {
            let found = file?.path();
            // From the second one on, a number follows the name.
            count += usize::from([found.file_name(), found.file_stem()].contains(&path.file_name()));
        }
        Ok(count)
    }

    /// Moves a file back from `unreferenced/`. False when it is not there.
    pub(crate) fn take_back(&self, path: &Path) -> io::Result<bool> {
        match fs::rename(self.unreferenced.join(path.file_name().unwrap_or_default()), path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Adds time that has passed, by the monotonic clock, to the age of the files in `unreferenced/`, and deletes those
    /// that are too old. Gives how many were deleted.
    pub(crate) fn expire(&self, passed: Duration) -> io::Result<u64> {
        let mut gone = 0;
        for file in fs::read_dir(&self.unreferenced)? {
            let file = file?;
            let about = file.metadata()?;
            if !about.is_file() {
                continue;
            }
            let age = about.modified()?.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let age = if age < NO_AGE { age + passed } else { Duration::ZERO };
            if age > UNREFERENCED_FOR {
                fs::remove_file(file.path())?;
                gone += 1;
            } else {
                set_age(&file.path(), age)?;
            }
        }
        Ok(gone)
    }
}

/// What `damaged/ID.txt` says of a message that was set aside.
struct DamagedMessage {
    id: QueueId,
    place: Option<Extent>,
    file: Option<String>,
}

impl DamagedMessage {
    /// Reads the file. None where it is not one of ours.
    fn read(path: &Path) -> io::Result<Option<Self>> {
        let text = String::from_utf8_lossy(&fs::read(path)?).into_owned();
        let id = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        let mut lines = text.lines().skip(1);
        let meta = lines.next().and_then(|meta| from_json::<BodyFileName>(meta.as_bytes()).ok());
        let place = lines.next().and_then(|place| from_json(place.as_bytes()).ok());
        Ok(id.map(|id| Self { id, place, file: meta.and_then(|meta| meta.file) }))
    }
}

/// The part of a message's metadata that names the file of its body.
#[derive(Deserialize)]
struct BodyFileName {
    #[serde(default)]
    file: Option<String>,
}

/// Sets the age of a file in `unreferenced/`.
fn set_age(path: &Path, age: Duration) -> io::Result<()> {
    File::options().write(true).open(path)?.set_modified(SystemTime::UNIX_EPOCH + age)
}

/// Writes a file completely or not at all: it is not checked later.
fn write(path: &Path, octets: &[u8]) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let mut file = File::create(&new)?;
    file.write_all(octets)?;
    file.sync_all()?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost_found() -> (tempfile::TempDir, LostAndFound) {
        let folder = tempfile::TempDir::new().unwrap();
        let lost_found = LostAndFound {
            damaged: folder.path().join("damaged"),
            unreferenced: folder.path().join("unreferenced"),
        };
        fs::create_dir(&lost_found.damaged).unwrap();
        fs::create_dir(&lost_found.unreferenced).unwrap();
        (folder, lost_found)
    }

    #[test]
    fn what_nothing_refers_to_stays_for_days_that_have_passed_and_then_goes() {
        let (folder, lost_found) = lost_found();
        for _ in 0..2 {
            let path = folder.path().join("1.body");
            fs::write(&path, "x").unwrap();
            lost_found.put_away(&path).unwrap();
            assert!(!path.exists());
        }
        fs::create_dir(lost_found.unreferenced.join("lost+found")).unwrap();
        let hour = Duration::from_secs(3600);
        for _ in 0..7 * 24 {
            assert_eq!(lost_found.expire(hour).unwrap(), 0);
        }
        assert_eq!(lost_found.expire(hour).unwrap(), 2);
    }

    #[test]
    fn no_clock_makes_it_older() {
        let (_folder, lost_found) = lost_found();
        let path = lost_found.unreferenced.join("envelopes.db");
        fs::write(&path, "x").unwrap();
        let now = SystemTime::now();
        let week = Duration::from_secs(8 * 24 * 3600);
        // Written by an earlier version, with a clock that was wrong either way, or one that was never set.
        for wrong in [now - week, now + week, now - 300 * week, SystemTime::UNIX_EPOCH - week] {
            File::options().write(true).open(&path).unwrap().set_modified(wrong).unwrap();
            for _ in 0..7 * 24 {
                assert_eq!(lost_found.expire(Duration::from_secs(3600)).unwrap(), 0);
            }
        }
    }
}
