//! Finds the admin socket. This works even if the configuration file has mistakes: the command asks the running
//! gateway, and that one still runs with an earlier, valid configuration.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::cli::{CONFIG, SocketOptions};
use crate::output::complain;

/// The environment variable that names the admin socket.
const VARIABLE: &str = "PINTLE_SOCKET";

/// Finds the admin socket. In order of precedence: `--socket`, `--config`, the environment variable, the default
/// configuration file, the default socket path.
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
        // A user who cannot read the configuration file may still have access to the socket.
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
        complain!("pintle: trying the socket {}", part.value.socket.display());
    }
    Ok(part.value.socket)
}
