//! Rules for files and folders that the configuration names.

use std::fmt;
use std::path::PathBuf;

/// A rule for files and folders that the configuration names.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileRule {
    /// The path must be a folder, and is not.
    NotAFolder(PathBuf),
    /// The path must be a file that can be written, and is not.
    NotAFile(PathBuf),
    /// The path of the admin socket exists, and is not a socket.
    NotASocket(PathBuf),
    /// The folder for a file or socket does not exist.
    NoFolder(PathBuf),
    /// The same, in a place where the service manager creates folders at each start (a warning).
    NoRuntimeFolder(PathBuf),
    /// The user that the gateway runs as, by number, cannot read this file (a warning).
    Unreadable(PathBuf, u32),
    /// A folder that must belong to the gateway's user belongs to another, by number.
    NotOurs(PathBuf, u32),
}

impl fmt::Display for FileRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAFolder(path) => write!(f, "{} is not a folder", path.display()),
            Self::NotAFile(path) => write!(f, "{} is not a file that can be written", path.display()),
            Self::NotASocket(path) => write!(f, "{} exists and is not a socket", path.display()),
            Self::NoFolder(path) | Self::NoRuntimeFolder(path) => {
                write!(f, "the folder {} does not exist", path.display())
            }
            Self::Unreadable(path, uid) => write!(
                f,
                "user {uid}, which the gateway runs as, cannot read {}: a reload will fail, and possibly the start",
                path.display()
            ),
            Self::NotOurs(path, uid) => {
                write!(f, "{} belongs to user {uid}, and must belong to the gateway's user", path.display())
            }
        }
    }
}

impl FileRule {
    pub(super) fn remedy(&self) -> String {
        match self {
            Self::NotAFolder(_) => "choose a folder, or move the file that is there",
            Self::NotAFile(_) => "choose a file in that folder",
            Self::NotASocket(_) => "remove it, or choose another path",
            Self::NoFolder(path) => return format!("create it first: mkdir -p {}", path.display()),
            Self::NoRuntimeFolder(_) => {
                "let the service manager create it at each start (systemd: RuntimeDirectory=), or choose another path"
            }
            Self::Unreadable(path, uid) => return format!("chown {uid} {}", path.display()),
            Self::NotOurs(path, _) => {
                return format!("run chown -R to give it to the gateway's user, or remove it: {}", path.display());
            }
        }
        .into()
    }
}
