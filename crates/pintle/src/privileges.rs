//! Privilege dropping: does what only root may do, then becomes an unprivileged user (setuid) permanently, before any
//! client is served. If the gateway keeps running as root, it logs a warning.
//!
//! Linux keeps user ids and capabilities per thread, so privileges are dropped while the process has one thread;
//! threads started later inherit the result.

use std::fmt;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use capctl::{CapState, Error, cap_set_ids, prctl};
use pintle_config::{RunAs, Settings};
use rustix::process::{geteuid, getgroups};

use crate::output::complain;

/// The user that the process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Who {
    /// The user that started it, who is not root.
    Itself,
    /// Root, since the configuration names no other user.
    Root,
    /// The user that the configuration names; the process was started as root.
    Became(RunAs),
}

/// Why privileges could not be dropped or folders not be made private. The gateway must not start then.
#[derive(Debug)]
pub(crate) enum PrivilegeError {
    /// The configuration names this user, but the process runs as another one that is not root.
    NotRoot(String),
    /// The process has this many threads, and all but one would stay root. A bug in the gateway.
    Threads(usize),
    /// The system refused to change to this user.
    Refused(String, Error),
    /// Privileges were left, or could be regained: this is which.
    Kept(&'static str),
    /// A folder of the gateway cannot be created, or cannot be closed to other users.
    Folder(PathBuf, io::Error),
}

impl fmt::Display for PrivilegeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRoot(user) => {
                write!(
                    f,
                    "only root can become {user:?}: start it as root or as that user, or leave [process] user out"
                )
            }
            Self::Threads(count) => write!(f, "cannot drop root privileges: the process has {count} threads"),
            Self::Refused(user, error) => write!(
                f,
                "cannot become {user:?}: {error}; the service needs the capabilities CAP_SETUID and CAP_SETGID for this"
            ),
            Self::Kept(what) => write!(f, "root privileges were not dropped completely: {what}"),
            Self::Folder(path, error) => write!(
                f,
                "cannot create the folder {} and close it to other users: {error}; create it, owned by the gateway's \
                 user and with mode 0700",
                path.display()
            ),
        }
    }
}

impl std::error::Error for PrivilegeError {}

/// Creates the gateway's own folders if they are missing, and sets mode 0700 on existing ones, since mail is private.
/// As root, it gives the folders to the configured user.
pub(crate) fn make_folders(settings: &Settings) -> Result<(), PrivilegeError> {
    let owner =
        settings.run_as.as_ref().filter(|_| geteuid().is_root()).map(|run_as| (run_as.uid, run_as.gid));
    let folders =
        [Some(&settings.spool.folder), settings.plugins.cache.as_ref(), settings.plugins.state.as_ref()];
    for folder in folders.into_iter().flatten() {
        make_private(folder, owner).map_err(|error| PrivilegeError::Folder(folder.clone(), error))?;
    }
    Ok(())
}

fn make_private(folder: &Path, owner: Option<(u32, u32)>) -> io::Result<()> {
    // Root does not create parent folders: with mode 0700 and root as owner, the user could not enter them.
    let made = DirBuilder::new().mode(0o700).recursive(owner.is_none()).create(folder);
    // From here on the open folder is used, not its path: another process could exchange what the path leads to.
    let held = match (File::open(folder), made) {
        (Ok(held), _) => held,
        (Err(_), Err(error)) | (Err(error), Ok(())) => return Err(error),
    };
    let found = held.metadata()?;
    if !found.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    if let Some(owner) = owner.filter(|(uid, _)| found.uid() != *uid) {
        give(folder, &held, owner)?;
    }
    let (mode, us) = (found.mode() & 0o777, geteuid());
    if mode & 0o077 == 0 || found.uid() != us.as_raw() && !us.is_root() {
        return Ok(());
    }
    complain!("pintle: {} was open to other users (mode {mode:04o}): set mode 0700", folder.display());
    held.set_permissions(Permissions::from_mode(0o700))
}

/// Changes the owner of an empty folder to the configured user. Symbolic links are refused: the parent folder may
/// belong to that user, and an attacker who controls the gateway could link to any empty folder of root's, and would
/// own that folder after the next start.
fn give(folder: &Path, held: &File, (uid, gid): (u32, u32)) -> io::Result<()> {
    let (found, named) = (held.metadata()?, fs::symlink_metadata(folder)?);
    if (found.dev(), found.ino()) != (named.dev(), named.ino()) {
        let why = format!("it is a link to a folder of user {} (chown that one)", found.uid());
        return Err(io::Error::other(why));
    }
    if fs::read_dir(folder)?.next().is_some() {
        return Err(io::Error::other(format!("it belongs to user {} (chown -R it)", found.uid())));
    }
    fchown(held, Some(uid), Some(gid))
}

/// Becomes the user that the configuration names, permanently.
///
/// # Errors
/// The process cannot become that user, or some root privilege would be left. The process must exit then.
pub(crate) fn give_up(run_as: Option<&RunAs>) -> Result<Who, PrivilegeError> {
    let Some(run_as) = run_as else {
        return Ok(if geteuid().is_root() { Who::Root } else { Who::Itself });
    };
    if !geteuid().is_root() {
        let is_us = geteuid().as_raw() == run_as.uid;
        return if is_us { Ok(Who::Itself) } else { Err(PrivilegeError::NotRoot(run_as.user.clone())) };
    }
    let threads = fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads > 1 {
        return Err(PrivilegeError::Threads(threads));
    }
    become_user(run_as).map_err(|error| PrivilegeError::Refused(run_as.user.clone(), error))?;
    verify(run_as)?;
    Ok(Who::Became(run_as.clone()))
}

fn become_user(run_as: &RunAs) -> Result<(), Error> {
    let mut groups = run_as.groups.clone();
    groups.push(run_as.gid);
    cap_set_ids(Some(run_as.uid), Some(run_as.gid), Some(&groups))?;
    // `cap_set_ids` keeps the permitted capabilities. The ports are bound, so none of them is needed any more.
    CapState::empty().set_current()?;
    prctl::set_no_new_privs()
}

/// Verifies that root privileges cannot be regained: checks the real, effective, saved and file system ids, the
/// supplementary groups and the capabilities.
fn verify(run_as: &RunAs) -> Result<(), PrivilegeError> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let all_are = |field: &str, id: u32| ids(&status, field).is_some_and(|ids| ids == [id; 4]);
    let is_theirs = |gid: u32| gid == run_as.gid || run_as.groups.contains(&gid);
    let groups = getgroups().is_ok_and(|all| all.iter().all(|gid| is_theirs(gid.as_raw())));
    let capabilities = CapState::get_current().is_ok_and(|state| state == CapState::empty());
    for (holds, what) in [
        (all_are("Uid:", run_as.uid), "a user id is another user's"),
        (all_are("Gid:", run_as.gid), "a group id is another group's"),
        (groups, "supplementary groups of root are left"),
        (capabilities, "capabilities are left"),
    ] {
        if !holds {
            return Err(PrivilegeError::Kept(what));
        }
    }
    Ok(())
}

/// The real, effective, saved and file system id of the process: the numbers of this line of `/proc/self/status`.
fn ids(status: &str, field: &str) -> Option<Vec<u32>> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().map(|id| id.parse().ok()).collect()
}

/// Logs the user that the process runs as, with a warning if that is root.
pub(crate) fn say(who: &Who) {
    match who {
        Who::Itself => {}
        Who::Root => tracing::warn!(
            "THE GATEWAY RUNS AS ROOT: untrusted mail is processed with root privileges; name another user in \
             [process] user, or start the gateway as another user"
        ),
        Who::Became(RunAs { user, uid, gid, groups }) => {
            tracing::info!(user, uid, gid, ?groups, "root privileges dropped");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_made_private_and_one_that_was_open_is_closed() {
        let parent = std::env::temp_dir().join(format!("pintle-privileges-{}", std::process::id()));
        let folder = parent.join("var/spool");
        make_private(&folder, None).unwrap();
        let mode = || fs::metadata(&folder).unwrap().mode() & 0o777;
        assert_eq!(mode(), 0o700);
        fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
        make_private(&folder, None).unwrap();
        assert_eq!(mode(), 0o700);
        fs::write(parent.join("file"), "").unwrap();
        assert!(make_private(&parent.join("file/spool"), None).is_err());
        fs::remove_dir_all(parent).unwrap();
    }

    #[test]
    fn a_link_gives_no_folder_away() {
        let parent = std::env::temp_dir().join(format!("pintle-links-{}", std::process::id()));
        let (other, folder) = (parent.join("other"), parent.join("spool"));
        fs::create_dir_all(&other).unwrap();
        std::os::unix::fs::symlink(&other, &folder).unwrap();
        let before = fs::metadata(&other).unwrap();
        let error = make_private(&folder, Some((before.uid() + 1, before.gid()))).unwrap_err();
        let after = fs::metadata(&other).unwrap();
        assert_eq!((after.uid(), after.mode()), (before.uid(), before.mode()));
        assert!(error.to_string().contains("a link"), "{error}");
        // A link to a folder that belongs to the user already is accepted.
        make_private(&folder, Some((before.uid(), before.gid()))).unwrap();
        fs::remove_dir_all(parent).unwrap();
    }

    #[test]
    fn saved_ids_are_seen() {
        let status = "Name:\tpintle\nUid:\t990\t990\t0\t990\nGid:\t980\t980\t980\t980\n";
        assert_eq!(ids(status, "Uid:"), Some(vec![990, 990, 0, 990]));
        assert_eq!(ids(status, "Gid:"), Some(vec![980; 4]));
        assert_eq!(ids("", "Uid:"), None);
    }
}
