//! The state folder in which plugins' stored values are saved: private, and locked by one gateway.
//!
//! Plugins trust the saved values as their own, so no other user may write to the folder. Two gateways that save to the
//! same files would overwrite each other's values.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;

/// The lock on a folder; released when dropped.
#[derive(Debug)]
pub(crate) struct FolderClaim {
    _lock: File,
}

/// Creates the folder if it does not exist, and locks it.
///
/// # Errors
///
/// Returns why the folder cannot be used, and the remedy.
pub(crate) fn claim(folder: &Path) -> Result<FolderClaim, String> {
    make(folder).map_err(|error| error.to_string())?;
    check(&fs::metadata(folder).map_err(|error| error.to_string())?)?;
    let path = folder.join("lock");
    let lock = File::options().create(true).truncate(false).write(true).open(&path);
    let lock = lock.map_err(|error| format!("{}: {error}", path.display()))?;
    match lock.try_lock() {
        Ok(()) => Ok(FolderClaim { _lock: lock }),
        Err(TryLockError::WouldBlock) => {
            Err("another gateway uses it: give each gateway a folder of its own".to_owned())
        }
        Err(TryLockError::Error(error)) => Err(format!("{}: {error}", path.display())),
    }
}

fn make(folder: &Path) -> io::Result<()> {
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

fn check(found: &fs::Metadata) -> Result<(), String> {
    if !found.is_dir() {
        return Err("it is not a folder".to_owned());
    }
    #[cfg(unix)]
    if std::os::unix::fs::MetadataExt::mode(found) & 0o022 != 0 {
        return Err("others may write to it, and plugins would believe them: chmod 700 it".to_owned());
    }
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_folder_is_private_and_one_gateways() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("a/state");
        let claimed = claim(&folder).unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        let error = claim(&folder).unwrap_err();
        assert!(error.contains("another gateway"), "{error}");
        drop(claimed);
        claim(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o770)).unwrap();
        let error = claim(&folder).unwrap_err();
        assert!(error.contains("chmod 700"), "{error}");
        fs::write(parent.path().join("file"), "").unwrap();
        assert!(claim(&parent.path().join("file")).is_err());
    }
}
