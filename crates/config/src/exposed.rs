//! Owner and mode checks (file permissions) of secrets, plugins, settings and folders that the gateway relies on.
//!
//! `pintle check`, a start and a reload apply the same rule to all of them. Only root and the gateway's user may own
//! such a file or write to it, or to a folder above it: a user who can rename a folder can replace it by another one. A
//! group may write only if it is root's or the gateway's group.

use std::fmt;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::RunAs;

/// What a file or folder is used for, which decides who may read or change it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// Other users must not read it: a private key, a password.
    Secret,
    /// Other users must not change it: a plugin, root certificates, settings.
    Trusted,
    /// Other users must not write in it: the spool, the cache of compiled code.
    Folder,
}

/// A file or folder whose owner or mode lets other users read or change it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposed {
    /// The file or folder itself, or the folder above it whose owner or mode is wrong.
    pub path: PathBuf,
    /// What is wrong with its owner or mode.
    pub how: How,
}

/// What is wrong with the owner or mode of a file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Other users can read a secret. The number is its mode.
    Read(u32),
    /// Other users can write. The number is the mode.
    Write(u32),
    /// It belongs to another user than root and the gateway. The number is that user's id.
    Owned(u32),
}

/// The user and group ids that the gateway will run with. Files may belong to them and to root.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Us {
    uid: u32,
    gid: u32,
}

impl Us {
    /// The ids of the configured user, or those of this process if none is configured.
    pub(crate) fn new(run_as: Option<&RunAs>) -> Self {
        let now = || (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let (uid, gid) = run_as.map_or_else(now, |run_as| (run_as.uid, run_as.gid));
        Self { uid, gid }
    }

    /// Whether the gateway will certainly run as another user than `uid`.
    pub(crate) fn is_known_not_to_be(self, uid: u32) -> bool {
        !self.may_be_another() && self.uid != uid
    }

    /// Whether the gateway will run as the user of this process, which then does not chown folders to another user.
    pub(crate) fn is_whoever_looks(self) -> bool {
        self.uid == rustix::process::geteuid().as_raw()
    }

    /// Whether root may be checking a configuration that another user will run.
    fn may_be_another(self) -> bool {
        self.uid == 0
    }

    /// The id of the gateway's user if that user cannot read this file. A file that its group may read is not judged:
    /// the user may be in that group, and an ACL shows in the mode as group permissions.
    pub(crate) fn kept_out_of(self, path: &Path) -> Option<u32> {
        let found = fs::metadata(path).ok()?;
        let is_closed = found.is_file() && found.mode() & 0o044 == 0;
        (is_closed && self.is_known_not_to_be(found.uid())).then_some(self.uid)
    }

    /// What is wrong with owner or mode of this path and the folders above it; none if they are as they should be. A
    /// missing or inaccessible file is not judged here: the code that opens it reports the error.
    pub(crate) fn examine(self, path: &Path, kind: FileKind) -> Option<Exposed> {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let found = fs::metadata(&path).ok();
        let itself = found.and_then(|found| self.judge(&found, kind));
        let itself = itself.map(|how| Exposed { path: path.clone(), how });
        itself.or_else(|| self.above(&path)).or_else(|| {
            // For a symbolic link, the folders above its target count as well.
            let real = path.canonicalize().ok().filter(|real| *real != path)?;
            self.above(&real)
        })
    }

    fn judge(self, found: &Metadata, kind: FileKind) -> Option<How> {
        let mode = found.mode() & 0o7777;
        if kind == FileKind::Secret && mode & 0o007 != 0 {
            return Some(How::Read(mode));
        }
        if self.is_open(found) { Some(How::Write(mode)) } else { self.strange_owner(found) }
    }

    /// Checks the folders above a path, from the nearest. In a folder with the sticky bit, such as `/tmp`, only the
    /// folder's owner can rename files of other users.
    fn above(self, path: &Path) -> Option<Exposed> {
        let how = |found: Metadata| {
            let mode = found.mode() & 0o7777;
            let is_open = mode & 0o1000 == 0 && self.is_open(&found);
            if is_open { Some(How::Write(mode)) } else { self.strange_owner(&found) }
        };
        let exposed = |folder: &Path| {
            let how = fs::metadata(folder).ok().and_then(how)?;
            Some(Exposed { path: folder.to_owned(), how })
        };
        path.ancestors().skip(1).find_map(exposed)
    }

    fn is_open(self, found: &Metadata) -> bool {
        let mode = found.mode();
        mode & 0o002 != 0 || mode & 0o020 != 0 && !self.is_our_group(found.gid())
    }

    fn strange_owner(self, found: &Metadata) -> Option<How> {
        (!self.may_be_another() && !self.is_our_user(found.uid())).then(|| How::Owned(found.uid()))
    }

    fn is_our_user(self, uid: u32) -> bool {
        uid == 0 || uid == self.uid
    }

    fn is_our_group(self, gid: u32) -> bool {
        gid == 0 || gid == self.gid
    }
}

impl Exposed {
    /// The command or change that corrects it, as text for the operator.
    #[must_use]
    pub fn remedy(&self) -> String {
        let path = self.path.display();
        match self.how {
            How::Read(_) => format!("chmod o=,g-w {path}, and make its owner or group the gateway's"),
            How::Write(_) => format!("chmod go-w {path}"),
            How::Owned(_) => format!("chown {path} to root or to the user that the gateway runs as"),
        }
    }
}

impl fmt::Display for Exposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.how {
            How::Read(mode) => write!(f, "other users may read {path}, which is secret (mode {mode:04o})"),
            How::Write(mode) => {
                write!(f, "other users may write to {path}, and the gateway relies on it (mode {mode:04o})")
            }
            How::Owned(uid) => {
                write!(f, "{path} belongs to user {uid}, who is neither root nor the gateway")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn with_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    /// How a file or folder of this mode is exposed, to a gateway whose user made it.
    fn found(path: &Path, kind: FileKind, mode: u32) -> Option<How> {
        with_mode(path, mode);
        Us::new(None).examine(path, kind).map(|exposed| {
            assert_eq!(exposed.path, path);
            assert!(exposed.to_string().contains(&path.display().to_string()));
            exposed.how
        })
    }

    #[test]
    fn what_others_may_read_or_write_is_found() {
        let parent = tempfile::tempdir().unwrap();
        let (file, folder) = (parent.path().join("key.pem"), parent.path().join("spool"));
        fs::write(&file, "secret").unwrap();
        fs::create_dir(&folder).unwrap();
        for (mode, how) in
            [(0o600, None), (0o640, None), (0o644, Some(How::Read(0o644))), (0o602, Some(How::Read(0o602)))]
        {
            assert_eq!(found(&file, FileKind::Secret, mode), how, "{mode:o}");
        }
        for (mode, how) in [(0o644, None), (0o755, None), (0o646, Some(How::Write(0o646)))] {
            assert_eq!(found(&file, FileKind::Trusted, mode), how, "{mode:o}");
        }
        for (mode, how) in [
            (0o700, None),
            (0o755, None),
            (0o777, Some(How::Write(0o777))),
            (0o1777, Some(How::Write(0o1777))),
        ] {
            assert_eq!(found(&folder, FileKind::Folder, mode), how, "{mode:o}");
        }
        assert_eq!(Us::new(None).examine(&parent.path().join("missing"), FileKind::Folder), None);
    }

    #[test]
    fn a_strange_group_may_not_write_and_a_strange_owner_is_named() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("plugin.wasm");
        fs::write(&file, "").unwrap();
        let (own, group) = (fs::metadata(&file).unwrap().uid(), fs::metadata(&file).unwrap().gid());
        let examine = |uid, gid| Us { uid, gid }.examine(&file, FileKind::Trusted).map(|exposed| exposed.how);
        with_mode(&file, 0o664);
        assert_eq!(examine(own, group), None);
        let strange = if group == 0 { None } else { Some(How::Write(0o664)) };
        assert_eq!(examine(own, group + 1), strange);
        with_mode(&file, 0o644);
        let strange = if own == 0 { None } else { Some(How::Owned(own)) };
        assert_eq!(examine(own + 1, group), strange);
    }

    #[test]
    fn a_folder_above_that_others_may_write_counts_also_behind_a_link() {
        let parent = tempfile::tempdir().unwrap();
        let (open, link) = (parent.path().join("open"), parent.path().join("link"));
        fs::create_dir_all(open.join("in/side")).unwrap();
        symlink(open.join("in"), &link).unwrap();
        let examine = |path: &Path| Us::new(None).examine(path, FileKind::Folder);
        assert_eq!(examine(&open.join("in/side")), None);
        with_mode(&open, 0o777);
        let exposed = Some(Exposed { path: open.clone(), how: How::Write(0o777) });
        assert_eq!(examine(&open.join("in/side")), exposed);
        assert_eq!(examine(&open.join("in/missing")), exposed, "it could be made by others");
        let behind = examine(&link.join("side")).unwrap();
        assert_eq!(behind.path, open.canonicalize().unwrap());
        with_mode(&open, 0o1777);
        assert_eq!(examine(&open.join("in/side")), None, "sticky");
    }

    /// The owner of a folder can replace a file in it, even one that belongs to another user.
    #[test]
    fn a_folder_above_of_a_strange_owner_or_for_a_strange_group_counts() {
        let parent = tempfile::tempdir().unwrap();
        let (folder, file) = (parent.path().join("home"), parent.path().join("home/plugin.wasm"));
        fs::create_dir(&folder).unwrap();
        fs::write(&file, "").unwrap();
        // Only root can chown files. For other users, their own files are strange to a gateway of another user.
        let (strange, ours) = (4_294_000_001, fs::metadata(&file).unwrap().gid());
        let given = std::os::unix::fs::chown(&folder, Some(strange), Some(strange)).is_ok();
        let examine = |mode, uid| {
            with_mode(&folder, mode);
            Us { uid, gid: ours }.examine(&file, FileKind::Trusted)
        };
        let exposed = |how| given.then(|| Exposed { path: folder.clone(), how });
        if given {
            assert_eq!(examine(0o755, 990), exposed(How::Owned(strange)));
            assert_eq!(examine(0o1755, 990), exposed(How::Owned(strange)), "sticky binds no owner");
        }
        assert_eq!(examine(0o775, 0), exposed(How::Write(0o775)));
        assert_eq!(examine(0o1775, 0), None, "nor a group that cannot rename");
        assert_eq!(examine(0o755, 0), None, "root may look at what others will run");
    }
}
