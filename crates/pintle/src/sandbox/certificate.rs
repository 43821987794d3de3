//! The sandbox's self-signed certificate, generated at each start.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rcgen::{CertifiedKey, generate_simple_self_signed};

/// Writes `certificate.pem` and `key.pem`. Clients that verify the server can trust `certificate.pem`. The certificate
/// names `sandbox.localhost`, `localhost`, the loopback addresses and the names or addresses in `more`.
pub(crate) fn write(folder: &Path, more: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let names = ["sandbox.localhost", "localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed([&names[..], more].concat())?;
    fs::write(folder.join("certificate.pem"), cert.pem())?;
    let mut key = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(folder.join("key.pem"))?;
    key.write_all(signing_key.serialize_pem().as_bytes())?;
    Ok(())
}
