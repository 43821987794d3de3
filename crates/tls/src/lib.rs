//! TLS as mail uses it: certificates that reload, a server side, a client side with three policies.
//!
//! This crate alone knows how rustls is set up. It hands out acceptors, connectors and finished streams;
//! the choice of when to use them (STARTTLS, implicit TLS, falling back to plain text) is made elsewhere.
//!
//! Promised: TLS 1.2 and 1.3 only, with forward secrecy; a reload swaps all certificates at once or keeps
//! the old ones and says why; an unverified connection is never taken for a verified one, nor resumed as
//! one. Not here yet: DANE and MTA-STS.
//!
//! The one crypto provider is aws-lc-rs. [`install_provider`] makes it the process's default, first thing
//! in `main` and in tests that use rustls on their own; our own configurations name it explicitly.

mod certificates;
mod client;
mod error;
mod facts;
mod hello;
mod server;

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};

pub use certificates::{CertificateSource, Validity};
pub use client::{ClientConfig, ClientPolicy, ClientTls, Roots};
pub use error::{HandshakeError, TlsError};
pub use facts::{PeerFacts, TlsFacts};
pub use server::{CertificateReload, ClientCertificates, RenewedCertificates, ServerConfig, ServerTls};

/// Makes aws-lc-rs the default of the process. Calling it again does nothing.
pub fn install_provider() {
    // The only error is that there is a default already, and then it stays.
    let _ = aws_lc_rs::default_provider().install_default();
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
