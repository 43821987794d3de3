//! TLS for mail: certificates that can be reloaded, a server side, and a client side with three policies.
//!
//! Only this crate knows how rustls is configured. It provides finished streams; when to use TLS (STARTTLS, implicit
//! TLS, fallback to plain text) is decided elsewhere.
//!
//! Guarantees: only TLS 1.2 and 1.3, with forward secrecy; a reload replaces all certificates at once or keeps the old
//! ones and says why; an unverified connection is never treated as a verified one, nor resumed as one. Not implemented
//! yet: DANE and MTA-STS.
//!
//! The only crypto provider is aws-lc-rs. [`install_provider`] makes it the default of the process, to be called first
//! in `main` and in tests that use rustls directly; our own configurations name it explicitly.

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
pub use facts::{HandshakeFacts, PeerFacts};
pub use server::{CertificateReload, ClientCertificates, RenewedCertificates, ServerConfig, ServerTls};

/// Makes aws-lc-rs the default crypto provider of the process. Calling it again does nothing.
pub fn install_provider() {
    // The only error is that there already is a default, which is then kept.
    let _ = aws_lc_rs::default_provider().install_default();
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
