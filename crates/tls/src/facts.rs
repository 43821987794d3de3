//! The facts of a finished handshake as plain data, for policy, logs and trace fields.

use std::fmt::Write as _;

use rustls::CommonState;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use tokio_rustls::{client, server};

/// The facts of a session that we accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandshakeFacts {
    /// The protocol version: "TLSv1.2" or "TLSv1.3".
    pub version: String,
    /// The IANA name of the cipher suite: "TLS_AES_256_GCM_SHA384".
    pub cipher: String,
    /// The name that the client asked for (SNI), in lower case; none when it asked for none.
    pub server_name: Option<String>,
    /// SHA-256 of the client's certificate in DER, 64 lower-case hexadecimal digits; none without a certificate. The
    /// client has proved that it holds the key, but the issuer is not checked. The subject is left out on purpose:
    /// anyone can write any name into a certificate that is not verified.
    pub client_certificate_sha256: Option<String>,
    /// Whether the client's certificate was verified against roots. Always false as long as certificates are only
    /// recorded.
    pub client_certificate_verified: bool,
}

impl HandshakeFacts {
    pub(crate) fn of_server<S>(stream: &server::TlsStream<S>) -> Self {
        let connection = stream.get_ref().1;
        Self {
            version: version(connection),
            cipher: cipher(connection),
            server_name: connection.server_name().map(str::to_ascii_lowercase),
            client_certificate_sha256: certificate_sha256(connection),
            client_certificate_verified: false,
        }
    }
}

/// The facts of a session that we opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerFacts {
    /// The protocol version: "TLSv1.2" or "TLSv1.3".
    pub version: String,
    /// The IANA name of the cipher suite.
    pub cipher: String,
    /// Whether the certificate was verified, name included.
    pub verified: bool,
}

impl PeerFacts {
    pub(crate) fn of_client<S>(stream: &client::TlsStream<S>, verified: bool) -> Self {
        let connection = stream.get_ref().1;
        Self { version: version(connection), cipher: cipher(connection), verified }
    }
}

/// rustls writes `TLSv1_3`; the usual form is "TLSv1.3".
fn version(connection: &CommonState) -> String {
    let version = connection.protocol_version();
    version.map(|version| format!("{version:?}").replace('_', ".")).unwrap_or_default()
}

/// rustls gives the suites of TLS 1.3 its own prefix, which the IANA name does not have.
fn cipher(connection: &CommonState) -> String {
    let Some(suite) = connection.negotiated_cipher_suite() else {
        return String::new();
    };
    let name = format!("{:?}", suite.suite());
    name.strip_prefix("TLS13_").map(|rest| format!("TLS_{rest}")).unwrap_or(name)
}

fn certificate_sha256(connection: &CommonState) -> Option<String> {
    connection.peer_certificates().and_then(<[_]>::first).map(fingerprint)
}

fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    Sha256::digest(certificate).iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
