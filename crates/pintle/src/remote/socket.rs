//! Which socket is meant: none of the ways to find it needs a configuration without mistakes, since it is the running
//! gateway that is asked, and that one runs by what was good once.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::cli::{CONFIG, SocketOptions};
use crate::output::complain;

/// Names the socket for all commands of a session.
const VARIABLE: &str = "PINTLE_SOCKET";

/// What is said by hand comes before what is set, and that before what is found.
pub(super) fn find(options: &SocketOptions) -> Result<PathBuf, Box<dyn std::error::Error>> {
    if let Some(socket) = &options.socket {
        return Ok(socket.clone());
    }
    if let Some(config) = &options.config {
        let hint = "name the socket itself with --socket FILE";
        return named_by(config).map_err(|error| format!("{}: {error}; {hint}", config.display()).into());
    }
    if let Some(socket) = std::env::var_os(VARIABLE).filter(|socket| !socket.is_empty()) {
        return Ok(socket.into());
    }
    match named_by(Path::new(CONFIG)) {
        Ok(socket) => Ok(socket),
        // Who may not read it may still be let in.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {
            Ok(pintle_config::parts::default_socket())
        }
        Err(error) => Err(format!("{CONFIG}: {error}; name the socket with --socket FILE").into()),
    }
}

fn named_by(config: &Path) -> std::io::Result<PathBuf> {
    let part = pintle_config::parts::admin(config)?;
    if !part.report.mistakes.is_empty() {
        complain!("{}", part.report);
        complain!("pintle: trying {}", part.value.socket.display());
    }
    Ok(part.value.socket)
}
