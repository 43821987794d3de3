//! The client side: TLS to next hops, with a policy per connection.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::certificates::{certificates, read};
use crate::{HandshakeError, PeerFacts, TlsError, provider};

/// Opens TLS connections to next hops.
///
/// Verified and unverified connections have separate configurations and so separate caches: a session that began
/// unverified can never be resumed as a verified one.
#[derive(Clone, Debug)]
pub struct ClientTls {
    unverified: Arc<rustls::ClientConfig>,
    /// The configuration, or the error why there is none. The error is reported only when verification is needed: a
    /// host without root certificates can still relay opportunistically.
    verified: Result<Arc<rustls::ClientConfig>, String>,
}

/// The operator's settings for the client side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientConfig {
    /// The certificate authorities to trust where the policy is to verify.
    pub roots: Roots,
}

/// The source of root certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Roots {
    /// The system's certificate store.
    #[default]
    System,
    /// Only those in this PEM file.
    File(PathBuf),
}

/// How much TLS a delivery requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientPolicy {
    /// Encrypt where the next hop offers it, and verify nothing (RFC 7435): any certificate is better than plain text,
    /// which is the fallback when TLS fails.
    Opportunistic,
    /// Encrypt or do not deliver; verify nothing.
    Required,
    /// Encrypt, and verify the certificate's chain, dates and name, or do not deliver (RFC 3207 section 4.1).
    Verified,
}

impl ClientPolicy {
    fn verifies(self) -> bool {
        matches!(self, Self::Verified)
    }
}

impl ClientTls {
    /// Reads the roots. A root file that cannot be used is an error; an empty system store is an error only when
    /// [`ClientPolicy::Verified`] is used.
    pub fn load(config: &ClientConfig) -> Result<Self, TlsError> {
        let provider = provider();
        let verified = match &config.roots {
            Roots::File(path) => Ok(file_roots(path)?),
            Roots::System => system_roots(),
        };
        let verified = match verified {
            Ok(roots) => Ok(Arc::new(verifying(&provider, roots)?)),
            Err(place) => Err(place),
        };
        Ok(Self { unverified: Arc::new(unverifying(&provider)?), verified })
    }

    /// Performs a handshake with `host`. Its name is sent as SNI and, under [`ClientPolicy::Verified`], must be in the
    /// certificate. The caller sets the time limit by dropping the future.
    pub async fn connect<S>(
        &self,
        policy: ClientPolicy,
        host: &str,
        stream: S,
    ) -> Result<(TlsStream<S>, PeerFacts), HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = server_name(policy, host)?;
        let connector = self.connector(policy).map_err(HandshakeError::Setup)?;
        let stream = connector.connect(name, stream).await?;
        let facts = PeerFacts::of_client(&stream, policy.verifies());
        Ok((stream, facts))
    }

    /// Fails when the policy is to verify and there are no roots to verify against.
    fn connector(&self, policy: ClientPolicy) -> Result<TlsConnector, TlsError> {
        let config = match (policy, &self.verified) {
            (ClientPolicy::Verified, Ok(config)) => config,
            (ClientPolicy::Verified, Err(place)) => return Err(TlsError::NoRoots { place: place.clone() }),
            (ClientPolicy::Opportunistic | ClientPolicy::Required, _) => &self.unverified,
        };
        Ok(TlsConnector::from(Arc::clone(config)))
    }
}

/// A host whose name cannot be in a certificate (for example because of an odd character) still gets its mail encrypted
/// when nothing is verified: an address is never sent as SNI (RFC 6066 section 3), so a neutral one is used instead.
fn server_name(policy: ClientPolicy, host: &str) -> Result<ServerName<'static>, HandshakeError> {
    let host = host.strip_suffix('.').unwrap_or(host);
    match ServerName::try_from(host.to_owned()) {
        Ok(name) => Ok(name),
        Err(_) if policy.verifies() => Err(HandshakeError::UnverifiableName(host.into())),
        Err(_) => Ok(ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into())),
    }
}

fn file_roots(path: &std::path::Path) -> Result<RootCertStore, TlsError> {
    let place = path.display().to_string();
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&read(path)?, &place)? {
        let added = roots.add(certificate);
        added.map_err(|cause| TlsError::NotPem { place: place.clone(), cause: cause.to_string() })?;
    }
    Ok(roots)
}

/// Single bad certificates in a system's store are common and harmless; a store without any good one is an error.
fn system_roots() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, ignored) = roots.add_parsable_certificates(found.certs);
    tracing::debug!(added, ignored, "system root certificates");
    if added > 0 {
        return Ok(roots);
    }
    let causes: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
    Err(format!("the system's store is empty (install ca-certificates) {}", causes.join("; "))
        .trim_end()
        .into())
}

fn verifying(provider: &Arc<CryptoProvider>, roots: RootCertStore) -> Result<rustls::ClientConfig, TlsError> {
    Ok(builder(provider)?.with_root_certificates(roots).with_no_client_auth())
}

fn unverifying(provider: &Arc<CryptoProvider>) -> Result<rustls::ClientConfig, TlsError> {
    let schemes = provider.signature_verification_algorithms.supported_schemes();
    let verifier = Arc::new(AnyCertificate(schemes));
    Ok(builder(provider)?.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

fn builder(
    provider: &Arc<CryptoProvider>,
) -> Result<rustls::ConfigBuilder<rustls::ClientConfig, rustls::WantsVerifier>, TlsError> {
    rustls::ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(TlsError::Provider)
}

/// Accepts any server certificate without examining it.
///
/// Not even the handshake's signature is checked. It would prove that the server has the key of its certificate; but an
/// attacker in between would present his own certificate and key, so the proof adds nothing. Checking it would fail
/// with appliances whose certificates are of version 1 or otherwise unusual, and their mail would then be sent in plain
/// text.
#[derive(Debug)]
struct AnyCertificate(Vec<SignatureScheme>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}
