//! Root's rights: used for what only root may do, given up for good before anybody is served, and never kept in
//! silence.
//!
//! The system keeps users per thread, so this happens while the process has one; every thread that is started later
//! inherits what is left.

use std::fmt;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use capctl::{CapState, Error, cap_set_ids, prctl};
use pintle_config::{RunAs, Settings};
use rustix::process::{geteuid, getgroups};

use crate::output::complain;

/// Whom the process is left with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Who {
    /// As it was started, which is not root.
    Itself,
    /// Root, since nobody else is named.
    Root,
    /// The user that the configuration names.
    Became(RunAs),
}

/// Why the gateway must not start. The operator must act.
#[derive(Debug)]
pub(crate) enum PrivilegeError {
    /// Only root can become somebody else.
    NotRoot(String),
    /// There are threads already, which would stay root. A fault of ours.
    Threads(usize),
    /// The system refuses.
    Refused(String, Error),
    /// Root's rights could be had back, or others are left: this is what.
    Kept(&'static str),
    /// A folder of the gateway cannot be made, or not be closed to others.
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
            Self::Threads(count) => write!(f, "{count} threads run before root's rights are given up"),
            Self::Refused(user, error) => write!(
                f,
                "cannot become {user:?}: {error}; the service needs the capabilities CAP_SETUID and CAP_SETGID for this"
            ),
            Self::Kept(what) => write!(f, "root's rights are not gone: {what}"),
            Self::Folder(path, error) => write!(
                f,
                "cannot make the folder {} and close it to others: {error}; make it, owned by the gateway's user and \
                 with mode 0700",
                path.display()
            ),
        }
    }
}

impl std::error::Error for PrivilegeError {}

/// Makes the gateway's own folders where they are missing, and closes them to others where they are not: mail is for
/// nobody else. As root, they become the property of the user that will work in them.
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
    // Folders on the way that root made would be closed to the user.
    let made = DirBuilder::new().mode(0o700).recursive(owner.is_none()).create(folder);
    // Held from here on: what root does is done to this folder, whatever its name leads to a moment later.
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
    complain!("pintle: {} was open to others (mode {mode:04o}) and is closed to them now", folder.display());
    held.set_permissions(Permissions::from_mode(0o700))
}

/// Makes a folder the user's. Not one that a link leads to: the folder around it may be the user's, and whoever has
/// taken over the gateway would be given any empty folder of root's at the next start.
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

/// Becomes the user that the configuration names, for good.
///
/// # Errors
/// It cannot, or something of root would be left; the process must end then.
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
    // The call above keeps what could be raised again; ports are bound, and nothing else is needed of it.
    CapState::empty().set_current()?;
    prctl::set_no_new_privs()
}

/// Looks whether anything is left by which root's rights could be had back: a saved user or group that is not seen by
/// asking, a group, a capability.
fn verify(run_as: &RunAs) -> Result<(), PrivilegeError> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let all_are = |field: &str, id: u32| ids(&status, field).is_some_and(|ids| ids == [id; 4]);
    let is_theirs = |gid: u32| gid == run_as.gid || run_as.groups.contains(&gid);
    let groups = getgroups().is_ok_and(|all| all.iter().all(|gid| is_theirs(gid.as_raw())));
    let capabilities = CapState::get_current().is_ok_and(|state| state == CapState::empty());
    for (holds, what) in [
        (all_are("Uid:", run_as.uid), "it is or was another user"),
        (all_are("Gid:", run_as.gid), "it is or was in another group"),
        (groups, "it is in groups of root's"),
        (capabilities, "capabilities are left"),
    ] {
        if !holds {
            return Err(PrivilegeError::Kept(what));
        }
    }
    Ok(())
}

/// The real, effective, saved and file system id of the process.
fn ids(status: &str, field: &str) -> Option<Vec<u32>> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().map(|id| id.parse().ok()).collect()
}

/// Says in the log with whose rights mail is handled.
pub(crate) fn say(who: &Who) {
    match who {
        Who::Itself => {}
        Who::Root => tracing::warn!(
            "THE GATEWAY RUNS AS ROOT: strangers' mail is handled with all rights; name one in [process] user, or \
             start it as one"
        ),
        Who::Became(RunAs { user, uid, gid, groups }) => {
            tracing::info!(user, uid, gid, ?groups, "root's rights are given up");
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
        // One that is the user's already needs no giving.
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
