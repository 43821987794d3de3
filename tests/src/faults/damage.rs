//! Damages files while the gateway is down.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::powercut::SeededRandom;
use super::rows::FileDamage;

/// The database, and the files that SQLite keeps next to it.
const DATABASE: [&str; 3] = ["envelopes.db", "envelopes.db-wal", "envelopes.db-shm"];
const COPY: &str = "copy-of-database";

/// Whether the pages of the database itself are damaged.
pub(super) fn is_in_the_database(damage: FileDamage) -> bool {
    use FileDamage::{Flipped, Halved, Overwritten};
    matches!(damage, Overwritten("envelopes.db") | Flipped("envelopes.db") | Halved("envelopes.db"))
}

/// Makes a copy of the database.
pub(super) fn keep_copy(spool: &Path) -> Result<(), String> {
    let copy = spool.with_file_name(COPY);
    let all = || -> io::Result<()> {
        fs::create_dir_all(&copy)?;
        for name in DATABASE.iter().filter(|name| spool.join(name).exists()) {
            fs::copy(spool.join(name), copy.join(name))?;
        }
        Ok(())
    };
    all().map_err(|error| format!("copying the database: {error}"))
}

/// Applies the damage.
pub(super) fn apply(damage: FileDamage, spool: &Path, chance: &mut SeededRandom) -> Result<(), String> {
    made(damage, spool, chance).map_err(|error| format!("{damage:?} cannot be done: {error}"))
}

fn made(damage: FileDamage, spool: &Path, chance: &mut SeededRandom) -> io::Result<()> {
    match damage {
        FileDamage::Missing("envelopes.db") => DATABASE.iter().try_for_each(|name| unlink(&spool.join(name))),
        FileDamage::Missing(what) => fs::remove_file(victim(spool, what)?),
        FileDamage::Empty(what) => {
            DATABASE.iter().skip(1).try_for_each(|name| unlink(&spool.join(name)))?;
            File::create(victim(spool, what)?).map(drop)
        }
        FileDamage::OldDatabase => {
            let copy = spool.with_file_name(COPY);
            DATABASE.iter().try_for_each(|name| unlink(&spool.join(name)))?;
            let had = DATABASE.iter().filter(|name| copy.join(name).exists());
            had.into_iter().try_for_each(|name| fs::copy(copy.join(name), spool.join(name)).map(drop))
        }
        FileDamage::Overwritten(what) => overwrite(&victim(spool, what)?),
        FileDamage::Flipped(what) => flip(&victim(spool, what)?, chance),
        FileDamage::Halved(what) => {
            let file = File::options().write(true).open(victim(spool, what)?)?;
            file.set_len(used(&file)? / 2)
        }
    }
}

fn unlink(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The file itself, or in a folder the one with the most used octets: the first by name.
fn victim(spool: &Path, what: &str) -> io::Result<PathBuf> {
    let path = spool.join(what);
    if !path.is_dir() {
        return Ok(path);
    }
    let mut files: Vec<PathBuf> = fs::read_dir(path)?.flatten().map(|entry| entry.path()).collect();
    files.sort();
    files.into_iter().next().ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// The end of the data other than zeros: segments are allocated before they are filled.
fn used(file: &File) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let mut octets = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    // The handle may be open for writing only.
    File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file)))?
        .read_exact_at(&mut octets, 0)?;
    Ok(octets.iter().rposition(|octet| *octet != 0).map_or(0, |at| at as u64 + 1))
}

fn overwrite(path: &Path) -> io::Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    file.write_all_at(&[0xa5; 200], used(&file)? / 2)
}

fn flip(path: &Path, chance: &mut SeededRandom) -> io::Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let used = used(&file)?;
    for _ in 0..20 {
        let (at, mut octet) = (chance.below(used), [0]);
        file.read_exact_at(&mut octet, at)?;
        file.write_all_at(&[octet[0] ^ 0x10], at)?;
    }
    Ok(())
}
