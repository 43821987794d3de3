//! Why a listener cannot be started.

use std::net::SocketAddr;
use std::{fmt, io};

/// Why a listener cannot be started. The operator must act.
#[derive(Debug)]
pub enum StartError {
    /// The address cannot be bound.
    Bind {
        /// The listener's name.
        listener: String,
        /// The address that cannot be bound.
        address: SocketAddr,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The listener offers TLS, and no certificate is configured.
    NoCertificate {
        /// The listener's name.
        listener: String,
    },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind { listener, address, source } => {
                write!(f, "listener {listener} cannot listen on {address}: {source}")?;
                match source.kind() {
                    io::ErrorKind::PermissionDenied => {
                        f.write_str("; ports below 1024 need the capability CAP_NET_BIND_SERVICE")
                    }
                    io::ErrorKind::AddrInUse => f.write_str("; another server has it"),
                    _ => Ok(()),
                }
            }
            Self::NoCertificate { listener } => {
                write!(f, "listener {listener} offers TLS, but no certificate is configured")
            }
        }
    }
}

impl std::error::Error for StartError {}
