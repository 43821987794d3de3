//! Files and folders that the configuration names.

use std::fmt;
use std::path::PathBuf;

/// Files and folders that the configuration names.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileRule {
    /// What stands where a folder must be is none.
    NotAFolder(PathBuf),
    /// What stands where a file must be is a folder.
    NotAFile(PathBuf),
    /// What stands where the admin socket must be is something else.
    NotASocket(PathBuf),
    /// The folder in which something is made is missing.
    NoFolder(PathBuf),
    /// The same, where the service manager makes it at each start (a warning).
    NoRuntimeFolder(PathBuf),
    /// A file that the user whom the gateway becomes cannot read (a warning).
    Unreadable(PathBuf, u32),
    /// A folder that must be the gateway's own belongs to another user.
    NotOurs(PathBuf, u32),
}

impl fmt::Display for FileRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAFolder(path) => write!(f, "{} is no folder", path.display()),
            Self::NotAFile(path) => write!(f, "{} is no file that can be written to", path.display()),
            Self::NotASocket(path) => write!(f, "{} exists and is no socket", path.display()),
            Self::NoFolder(path) | Self::NoRuntimeFolder(path) => {
                write!(f, "the folder {} does not exist", path.display())
            }
            Self::Unreadable(path, uid) => write!(
                f,
                "user {uid}, whom the gateway becomes, cannot read {}: a reload fails, if not the start",
                path.display()
            ),
            Self::NotOurs(path, uid) => {
                write!(f, "{} belongs to user {uid}, and the gateway's user must own it", path.display())
            }
        }
    }
}

impl FileRule {
    pub(super) fn remedy(&self) -> String {
        match self {
            Self::NotAFolder(_) => "name a folder, or move away what stands there",
            Self::NotAFile(_) => "name a file in it",
            Self::NotASocket(_) => "remove it, or name another path",
            Self::NoFolder(path) => return format!("make it first: mkdir -p {}", path.display()),
            Self::NoRuntimeFolder(_) => {
                "the service manager must make it at each start (systemd: RuntimeDirectory=), or name another path"
            }
            Self::Unreadable(path, uid) => return format!("chown {uid} {}", path.display()),
            Self::NotOurs(path, _) => {
                return format!("chown -R it to the gateway's user, or remove it: {}", path.display());
            }
        }
        .into()
    }
}
