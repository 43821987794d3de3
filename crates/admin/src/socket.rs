//! The unix socket: taken over from the dead, never from the living, and open to its owner alone.

use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// A socket that is listened on; its file goes when this does.
#[derive(Debug)]
pub(crate) struct ListeningSocket {
    pub(crate) listener: UnixListener,
    path: PathBuf,
    /// The file's identity: another process may have put its own in this place since.
    inode: u64,
}

/// Why the gateway cannot listen for its operator.
#[derive(Debug)]
pub enum BindError {
    /// A living process serves this socket.
    InUse(PathBuf),
    /// Something that is not a socket has this name.
    NotASocket(PathBuf),
    /// The socket cannot be made.
    Socket {
        /// Where.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// The TCP address cannot be listened on.
    Tcp {
        /// Which.
        address: SocketAddr,
        /// What the system says.
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
                "cannot make the admin socket {}: {cause}; its folder must exist and be writable for this user",
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
    /// Must be called inside a tokio runtime.
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
        // A socket that nobody answers, or nothing at all.
        _ => Ok(()),
    }
}

/// Made under another name, closed to others, and only then moved into place: so there is no moment at which the socket
/// can be opened by others, nor one at which a client finds no socket while a stale one is being replaced.
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
