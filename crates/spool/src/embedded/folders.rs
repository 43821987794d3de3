//! The paths in a spool folder, how its folders are made and locked, and whether a folder is a spool at all.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::identity;
use super::lost_found::LostAndFound;
use super::segment_file::SegmentFolder;
use crate::{OpenError, SpoolError};

/// The paths in a spool folder.
#[derive(Debug, Clone)]
pub(crate) struct Folders {
    pub(crate) root: PathBuf,
    pub(crate) database: PathBuf,
    pub(crate) segments: PathBuf,
    pub(crate) bodies: PathBuf,
    pub(crate) lost_found: LostAndFound,
}

impl Folders {
    pub(crate) fn of(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            database: root.join("envelopes.db"),
            segments: root.join("segments"),
            bodies: root.join("bodies"),
            lost_found: LostAndFound {
                damaged: root.join("damaged"),
                unreferenced: root.join("unreferenced"),
            },
        }
    }
}

/// Refuses a folder that is not a spool, before anything is made in it.
pub(crate) fn require_spool(folders: &Folders) -> Result<(), OpenError> {
    fs::read_dir(&folders.root).map_err(at(&folders.root))?;
    for part in [&folders.segments, &folders.root.join(identity::FILE), &folders.database] {
        if part.try_exists().map_err(at(part))? {
            return Ok(());
        }
    }
    Err(OpenError::NoSpool(folders.root.clone()))
}

/// Makes the folders, durably. Gives the open spool folder.
pub(crate) fn make_folders(folders: &Folders) -> Result<File, OpenError> {
    let Folders { root, segments, bodies, lost_found, .. } = folders;
    let is_there = |path: &Path| path.try_exists().map_err(at(path));
    // A spool that has lost its identity is recognised by its segments.
    let used = is_there(&root.join(identity::FILE))? || has_segments(segments)?;
    if used && !is_there(bodies)? {
        return Err(OpenError::BodiesMissing(bodies.clone()));
    }
    for path in [segments, bodies, &lost_found.damaged, &lost_found.unreferenced] {
        // Mail is private, whatever the umask says.
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(at(path))?;
    }
    // The names of these folders must survive a power cut just as their content does.
    let handle = File::open(root).map_err(at(root))?;
    handle.sync_all().map_err(at(root))?;
    Ok(handle)
}

fn has_segments(folder: &Path) -> Result<bool, OpenError> {
    match fs::read_dir(folder) {
        Ok(mut files) => {
            Ok(files.any(|file| file.is_ok_and(|file| SegmentFolder::number(&file.path()).is_some())))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(at(folder)(error)),
    }
}

pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> OpenError + use<> {
    let path = path.to_owned();
    move |source| OpenError::Io { path, source }
}

pub(crate) fn refused(folders: &Folders) -> impl FnOnce(SpoolError) -> OpenError + use<> {
    let path = folders.database.clone();
    move |error| OpenError::Database { path, what: error.to_string() }
}

/// Locks the folder itself. A lock file in it could be deleted by hand and then be locked a second time.
pub(crate) fn lock(folders: &Folders) -> Result<File, OpenError> {
    let folder = make_folders(folders)?;
    match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(folder),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::Locked(folders.root.clone())),
        Err(error) => Err(at(&folders.root)(error.into())),
    }
}
