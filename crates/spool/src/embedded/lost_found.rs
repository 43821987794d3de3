//! Where things go that must not be in the way and must not be lost.
//!
//! `damaged/` has what can no longer be served, for somebody to look at; it stays. `unreferenced/` has files that nothing
//! in the log names: bodies that were never committed, a database that was made anew. They go after some days, and days are
//! counted while a gateway runs: how long a file has lain here is its time of modification, from 1970 on. No clock that is
//! wrong makes it older.

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

/// How long files that nothing refers to are kept.
const UNREFERENCED_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// A time of modification beyond this one is no age: somebody else has written it.
const NO_AGE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The two folders.
#[derive(Debug, Clone)]
pub(crate) struct LostAndFound {
    pub(crate) damaged: PathBuf,
    pub(crate) unreferenced: PathBuf,
}

/// What is kept of a damaged message.
pub(crate) struct Evidence<'a> {
    pub(crate) id: QueueId,
    pub(crate) what: &'a str,
    /// What the index says of it: its envelope.
    pub(crate) meta: &'a str,
    /// Where its record should be, as far as that is known.
    pub(crate) place: Option<Extent>,
    /// Its record, as far as it can be read.
    pub(crate) octets: Option<Bytes>,
    /// The file of its body.
    pub(crate) body: Option<PathBuf>,
}

impl LostAndFound {
    /// Keeps what there is of a damaged message, durably.
    pub(crate) fn preserve(&self, evidence: &Evidence<'_>) -> io::Result<()> {
        let Evidence { id, what, meta, place, octets, body } = evidence;
        if let Some(octets) = octets {
            write(&self.damaged.join(format!("{id}.record")), octets)?;
        }
        if let Some(body) = body {
            let kept = self.damaged.join(format!("{id}.body"));
            match fs::hard_link(body, kept) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                // It may be what is missing.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let place = place.map(|place| to_json(&place)).transpose().map_err(io::Error::other)?;
        let place = place.map_or_else(String::new, |place| String::from_utf8_lossy(&place).into_owned());
        let text = format!("{what}\n{meta}\n{place}\n");
        write(&self.damaged.join(format!("{id}.txt")), text.as_bytes())?;
        File::open(&self.damaged)?.sync_all()
    }

    /// Keeps octets of the log that are no record although they should be.
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

    /// How many messages have been set aside and are still here.
    pub(crate) fn count(&self) -> io::Result<u64> {
        let mut count = 0;
        for file in fs::read_dir(&self.damaged)? {
            count += u64::from(file?.path().extension().is_some_and(|extension| extension == "txt"));
        }
        Ok(count)
    }

    /// What was missing of messages when they were set aside, and is there again: their records are kept like those of
    /// others, since nobody else needs them any more.
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

    /// The files of bodies that were missing of messages when they were set aside, and what they are to be called.
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

    /// Moves a file to those that nothing refers to.
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

    /// How many files of this name have been put away and are still here.
    pub(crate) fn copies(&self, path: &Path) -> io::Result<usize> {
        let mut count = 0;
        for file in fs::read_dir(&self.unreferenced)? {
            let found = file?.path();
            // A number follows the name from the second one on.
            count += usize::from([found.file_name(), found.file_stem()].contains(&path.file_name()));
        }
        Ok(count)
    }

    /// Takes a file back that was put away, if it was.
    pub(crate) fn take_back(&self, path: &Path) -> io::Result<bool> {
        match fs::rename(self.unreferenced.join(path.file_name().unwrap_or_default()), path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Says that so much time has passed by a clock that nobody can set, and lets go what nothing has referred to for
    /// days; gives how many files went.
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

/// What is known of a message that was set aside.
struct DamagedMessage {
    id: QueueId,
    place: Option<Extent>,
    file: Option<String>,
}

impl DamagedMessage {
    /// None where it is not what we write.
    fn read(path: &Path) -> io::Result<Option<Self>> {
        let text = String::from_utf8_lossy(&fs::read(path)?).into_owned();
        let id = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        let mut lines = text.lines().skip(1);
        let meta = lines.next().and_then(|meta| from_json::<BodyFileName>(meta.as_bytes()).ok());
        let place = lines.next().and_then(|place| from_json(place.as_bytes()).ok());
        Ok(id.map(|id| Self { id, place, file: meta.and_then(|meta| meta.file) }))
    }
}

/// Of a message's sheet the file of its body.
#[derive(Deserialize)]
struct BodyFileName {
    #[serde(default)]
    file: Option<String>,
}

/// Notes how long a file has lain here.
fn set_age(path: &Path, age: Duration) -> io::Result<()> {
    File::options().write(true).open(path)?.set_modified(SystemTime::UNIX_EPOCH + age)
}

/// Whole or not at all: what is there is never looked at again.
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
        // As an earlier version wrote it, by a clock that was wrong either way; and by one that nobody had set yet.
        for wrong in [now - week, now + week, now - 300 * week, SystemTime::UNIX_EPOCH - week] {
            File::options().write(true).open(&path).unwrap().set_modified(wrong).unwrap();
            for _ in 0..7 * 24 {
                assert_eq!(lost_found.expire(Duration::from_secs(3600)).unwrap(), 0);
            }
        }
    }
}
