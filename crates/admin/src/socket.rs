//! The unix socket file: created for its owner only; replaced if its process has ended, never if it is running.

use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// A listening socket; dropping it removes its file.
#[derive(Debug)]
pub(crate) struct ListeningSocket {
    pub(crate) listener: UnixListener,
    path: PathBuf,
    /// The inode of the file, to detect that another process has replaced it.
    inode: u64,
}

/// Why the admin socket or its TCP port cannot be opened.
#[derive(Debug)]
pub enum BindError {
    /// A running process serves this socket.
    InUse(PathBuf),
    /// A file that is not a socket has this path.
    NotASocket(PathBuf),
    /// The socket cannot be created.
    Socket {
        /// Its path.
        path: PathBuf,
        /// The error of the operating system.
        cause: io::Error,
    },
    /// The TCP address cannot be listened on.
    Tcp {
        /// The address.
        address: SocketAddr,
        /// The error of the operating system.
        cause: io::Error,
    },
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(path) => write!(
                f,
                "another gateway already serves the admin socket {}; stop it, or give this one a socket of its \
                 own in [admin] socket",
                path.display()
            ),
            Self::NotASocket(path) => write!(
                f,
                "{} exists and is not a socket; remove it, or name another path in [admin] socket",
                path.display()
            ),
            Self::Socket { path, cause } => write!(
                f,
                "cannot create the admin socket {}: {cause}; its directory must exist and be writable for this user",
                path.display()
            ),
            Self::Tcp { address, cause } => {
                write!(f, "cannot listen on {address} for health and metrics: {cause}; see [admin] http")
            }
        }
    }
}

impl std::error::Error for BindError {}

impl ListeningSocket {
    /// Opens the socket at `path`, replacing a stale one. Must be called inside a tokio runtime.
    pub(crate) fn claim(path: &Path) -> Result<Self, BindError> {
        refuse_the_living(path)?;
        let failed = |cause| BindError::Socket { path: path.to_owned(), cause };
        let listener = place(path).map_err(failed)?;
        let inode = fs::symlink_metadata(path).map_err(failed)?.ino();
        Ok(Self { listener, path: path.to_owned(), inode })
    }
}

impl Drop for ListeningSocket {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn refuse_the_living(path: &Path) -> Result<(), BindError> {
    match fs::symlink_metadata(path) {
        Ok(file) if !file.file_type().is_socket() => Err(BindError::NotASocket(path.to_owned())),
        Ok(_) if UnixStream::connect(path).is_ok() => Err(BindError::InUse(path.to_owned())),
        // No process listens on the socket, or there is none.
        _ => Ok(()),
    }
}

/// Creates the socket under a temporary name, with its final mode, and then renames it: so other users can never open
/// it, and a client always finds a socket while a stale one is being replaced.
fn place(path: &Path) -> io::Result<UnixListener> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let draft = path.with_file_name(name);
    let _ = fs::remove_file(&draft);
    let listener = UnixListener::bind(&draft)?;
    let placed =
        fs::set_permissions(&draft, Permissions::from_mode(0o600)).and_then(|()| fs::rename(&draft, path));
    if let Err(cause) = placed {
        let _ = fs::remove_file(&draft);
        return Err(cause);
    }
    Ok(listener)
}
