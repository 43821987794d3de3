//! Simulates a power cut: data that was written and not synced is undone, from the journal that the shim has kept.
//!
//! A change to a file is durable once a sync of that file has begun after it and ended; the creation, removal or change
//! of a name once its folder has been synced. POSIX guarantees no more. Of the rest a disk may have written nothing, or
//! any part in any order: [`UnsyncedFate`] selects which.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The fate of octets that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnsyncedFate {
    /// All are lost.
    Nothing,
    /// Each sector of 512 octets is kept or lost at random.
    Some,
}

const SECTOR: usize = 512;

#[derive(Debug)]
struct JournalRecord {
    kind: u32,
    path: PathBuf,
    inode: u64,
    offset: u64,
    size: u64,
    old: Vec<u8>,
    new: Vec<u8>,
}

const OLD: u32 = 1;
const LENGTH: u32 = 2;
const SYNC_BEGIN: u32 = 3;
const SYNC_END: u32 = 4;
const CREATED: u32 = 5;
const UNLINKED: u32 = 6;
const RENAMED: u32 = 7;

/// Undoes what was not synced below `root`, and empties the journal in `side`; returns the number of lost changes.
pub(super) fn cut(side: &Path, root: &Path, keep: UnsyncedFate, seed: u64) -> io::Result<usize> {
    let records = journal(&fs::read(side.join("journal"))?);
    let durable = DurableChanges::of(&records);
    let lost: Vec<&JournalRecord> = records
        .iter()
        .enumerate()
        .filter(|(at, record)| !durable.holds(*at, record))
        .map(|(_, r)| r)
        .collect();
    let mut places = HashMap::new();
    find(root, &mut places)?;
    find(side, &mut places)?;
    for record in lost.iter().rev() {
        if let Some(place) = places.get(&record.inode) {
            take_back(record, place)?;
        }
    }
    if keep == UnsyncedFate::Some {
        let mut chance = SeededRandom(seed);
        for record in &lost {
            if let Some(place) = places.get(&record.inode) {
                put_back(record, place, &mut chance)?;
            }
        }
    }
    for record in lost.iter().rev() {
        rename_back(record, side)?;
    }
    clear(side)?;
    Ok(lost.len())
}

/// Empties the journal and the folder of removed files: everything written so far is durable.
pub(super) fn clear(side: &Path) -> io::Result<()> {
    for entry in fs::read_dir(side)? {
        let path = entry?.path();
        if path.ends_with("journal") {
            File::options().write(true).open(path)?.set_len(0)?;
        } else {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// The changes that a sync has made durable.
struct DurableChanges {
    /// The journal position at which the last completed sync of a file began, and of a folder.
    files: HashMap<u64, usize>,
    folders: HashMap<PathBuf, usize>,
}

impl DurableChanges {
    fn of(records: &[JournalRecord]) -> Self {
        let mut begun = HashMap::new();
        let mut durable = Self { files: HashMap::new(), folders: HashMap::new() };
        for (at, record) in records.iter().enumerate() {
            match record.kind {
                SYNC_BEGIN => drop(begun.insert(record.offset, at)),
                SYNC_END => {
                    let from = begun.get(&record.offset).copied().unwrap_or(0);
                    let file = durable.files.entry(record.inode).or_default();
                    *file = from.max(*file);
                    let folder = durable.folders.entry(record.path.clone()).or_default();
                    *folder = from.max(*folder);
                }
                _ => {}
            }
        }
        durable
    }

    fn holds(&self, at: usize, record: &JournalRecord) -> bool {
        let synced = match record.kind {
            OLD | LENGTH => self.files.get(&record.inode),
            CREATED | UNLINKED | RENAMED => record.path.parent().and_then(|folder| self.folders.get(folder)),
            _ => return true,
        };
        synced.is_some_and(|from| at < *from)
    }
}

fn take_back(record: &JournalRecord, place: &Path) -> io::Result<()> {
    if !matches!(record.kind, OLD | LENGTH) {
        return Ok(());
    }
    let file = File::options().write(true).open(place)?;
    file.write_all_at(&record.old, record.offset)?;
    file.set_len(record.size)
}

fn put_back(record: &JournalRecord, place: &Path, chance: &mut SeededRandom) -> io::Result<()> {
    match record.kind {
        LENGTH if chance.heads() => File::options().write(true).open(place)?.set_len(record.offset),
        OLD => {
            let file = File::options().write(true).open(place)?;
            for (at, sector) in (0..).step_by(SECTOR).zip(record.new.chunks(SECTOR)) {
                if chance.heads() {
                    file.write_all_at(sector, record.offset + at)?;
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn rename_back(record: &JournalRecord, side: &Path) -> io::Result<()> {
    let grave = |inode: u64| side.join(inode.to_string());
    match record.kind {
        CREATED => remove(&record.path, record.inode),
        UNLINKED if !record.path.exists() => fs::hard_link(grave(record.inode), &record.path),
        RENAMED => {
            let target = PathBuf::from(String::from_utf8_lossy(&record.old).into_owned());
            fs::rename(&target, &record.path)?;
            // The offset is the inode of the file that lost its name to this one.
            if record.offset > 0 { fs::hard_link(grave(record.offset), &target) } else { Ok(()) }
        }
        _ => Ok(()),
    }
}

/// Removes the file if it is still the one that was created.
fn remove(path: &Path, inode: u64) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(file) if file.ino() == inode => fs::remove_file(path),
        _ => Ok(()),
    }
}

/// The current path of each file.
fn find(folder: &Path, places: &mut HashMap<u64, PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            find(&entry.path(), places)?;
        } else if kind.is_file() {
            places.insert(entry.metadata()?.ino(), entry.path());
        }
    }
    Ok(())
}

/// The records; one that is cut off at the end was not followed by its change.
fn journal(mut octets: &[u8]) -> Vec<JournalRecord> {
    let mut records = Vec::new();
    while let Some((record, rest)) = record(octets) {
        records.push(record);
        octets = rest;
    }
    records
}

fn record(octets: &[u8]) -> Option<(JournalRecord, &[u8])> {
    let mut at = octets;
    let kind = u32::from_ne_bytes(*take(&mut at, 4)?.first_chunk()?);
    let path_length = u64::from(u32::from_ne_bytes(*take(&mut at, 4)?.first_chunk()?));
    let mut number = || Some(u64::from_ne_bytes(*take(&mut at, 8)?.first_chunk()?));
    let (inode, offset, size, old, new) = (number()?, number()?, number()?, number()?, number()?);
    let path = PathBuf::from(String::from_utf8_lossy(take(&mut at, path_length)?).into_owned());
    let old = take(&mut at, old)?.to_vec();
    let new = take(&mut at, new)?.to_vec();
    Some((JournalRecord { kind, path, inode, offset, size, old, new }, at))
}

fn take<'a>(octets: &mut &'a [u8], length: u64) -> Option<&'a [u8]> {
    let (taken, rest) = octets.split_at_checked(usize::try_from(length).ok()?)?;
    *octets = rest;
    Some(taken)
}

/// A repeatable random number generator.
#[derive(Clone, Copy, Debug)]
pub(super) struct SeededRandom(pub(super) u64);

impl SeededRandom {
    /// The next number, by splitmix64.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    fn heads(&mut self) -> bool {
        self.next() & 1 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(record: &JournalRecord) -> Vec<u8> {
        let path = record.path.to_str().unwrap().as_bytes();
        let mut octets = record.kind.to_ne_bytes().to_vec();
        octets.extend(u32::try_from(path.len()).unwrap().to_ne_bytes());
        let lengths = [record.old.len() as u64, record.new.len() as u64];
        for number in [record.inode, record.offset, record.size].into_iter().chain(lengths) {
            octets.extend(number.to_ne_bytes());
        }
        [&octets[..], path, &record.old, &record.new].concat()
    }

    fn change(kind: u32, path: &Path, inode: u64, offset: u64, octets: (&[u8], &[u8])) -> JournalRecord {
        let (old, new) = (octets.0.to_vec(), octets.1.to_vec());
        JournalRecord { kind, path: path.to_owned(), inode, offset, size: 4, old, new }
    }

    /// A file "aaaa": its second half was overwritten and synced, then its first half was overwritten and not synced.
    fn scene(folder: &Path) -> PathBuf {
        let (root, side) = (folder.join("root"), folder.join("side"));
        fs::create_dir_all(&root).unwrap();
        fs::create_dir_all(&side).unwrap();
        let file = root.join("file");
        fs::write(&file, "ccbbdd").unwrap();
        let inode = fs::metadata(&file).unwrap().ino();
        let records = [
            change(OLD, &file, inode, 2, (b"aa", b"bb")),
            change(SYNC_BEGIN, &file, inode, 7, (b"", b"")),
            change(OLD, &file, inode, 0, (b"aa", b"cc")),
            change(SYNC_END, &file, inode, 7, (b"", b"")),
            change(OLD, &file, inode, 4, (b"", b"dd")),
        ];
        let mut octets: Vec<u8> = records.iter().flat_map(bytes).collect();
        octets.extend([1, 0, 0]);
        fs::write(side.join("journal"), octets).unwrap();
        file
    }

    #[test]
    fn what_was_written_after_a_sync_began_is_lost_and_what_was_written_before_stays() {
        let folder = pintle_testkit::TempDir::new().unwrap();
        let file = scene(folder.path());
        let (root, side) = (folder.path().join("root"), folder.path().join("side"));
        assert_eq!(cut(&side, &root, UnsyncedFate::Nothing, 1).unwrap(), 2);
        assert_eq!(fs::read_to_string(&file).unwrap(), "aabb");
        assert_eq!(fs::metadata(side.join("journal")).unwrap().len(), 0);
    }

    #[test]
    fn any_part_of_what_was_not_synced_may_be_there() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..40 {
            let folder = pintle_testkit::TempDir::new().unwrap();
            let file = scene(folder.path());
            let (root, side) = (folder.path().join("root"), folder.path().join("side"));
            cut(&side, &root, UnsyncedFate::Some, seed).unwrap();
            seen.insert(fs::read_to_string(&file).unwrap());
        }
        let all = ["aabb", "aabbdd", "ccbb", "ccbbdd"].map(str::to_owned);
        assert_eq!(seen, all.into());
    }

    #[test]
    fn names_that_no_folder_sync_followed_are_as_they_were() {
        let folder = pintle_testkit::TempDir::new().unwrap();
        let (root, side) = (folder.path().join("root"), folder.path().join("side"));
        fs::create_dir_all(&root).unwrap();
        fs::create_dir_all(&side).unwrap();
        fs::write(root.join("new"), "x").unwrap();
        fs::write(root.join("gone"), "y").unwrap();
        let inode = |name: &str| fs::metadata(root.join(name)).unwrap().ino();
        let (new, gone) = (inode("new"), inode("gone"));
        fs::rename(root.join("gone"), side.join(gone.to_string())).unwrap();
        let records = [
            change(CREATED, &root.join("new"), new, 0, (b"", b"")),
            change(UNLINKED, &root.join("gone"), gone, 0, (b"", b"")),
        ];
        let octets: Vec<u8> = records.iter().flat_map(bytes).collect();
        fs::write(side.join("journal"), octets).unwrap();
        cut(&side, &root, UnsyncedFate::Nothing, 1).unwrap();
        assert!(!root.join("new").exists());
        assert_eq!(fs::read_to_string(root.join("gone")).unwrap(), "y");
    }
}
