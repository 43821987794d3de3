//! The server side: one configuration for the life of the process, with certificates that can change.
//!
//! Certificates are replaced inside the certificate resolver and not by a new configuration, so session tickets stay
//! valid across a reload and handshakes in progress are not disturbed.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoClientAuth, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::certificates::{CertificateSet, CertificateSource, FileStamp};
use crate::hello::HelloPrefix;
use crate::{HandshakeError, HandshakeFacts, TlsError, provider};

/// Accepts TLS for one listener, or for several that share certificates.
#[derive(Debug)]
pub struct ServerTls {
    sources: Vec<CertificateSource>,
    provider: Arc<CryptoProvider>,
    current: Arc<CurrentCertificates>,
    config: Arc<rustls::ServerConfig>,
    /// The state of the files when they were last read, successfully or not.
    stamps: Mutex<Vec<FileStamp>>,
}

/// The operator's settings for the server side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// Certificates with their keys. A client gets the first one that has the requested name and a kind of key that the
    /// client can verify; the first of all is the default.
    pub certificates: Vec<CertificateSource>,
    /// What to do about client certificates.
    pub client_certificates: ClientCertificates,
}

/// What to do about client certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientCertificates {
    /// Do not ask for one.
    #[default]
    Ignore,
    /// Ask, check that the client holds the key, and report the fingerprint. Never refuse: many servers offer whatever
    /// certificate they have, and mail without one is equally welcome.
    Record,
}

/// Certificates that have been reloaded and are not in use yet.
#[derive(Debug)]
pub struct RenewedCertificates {
    set: CertificateSet,
    stamps: Vec<FileStamp>,
}

/// The result of [`ServerTls::reload_if_changed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateReload {
    /// No file has changed since it was last read.
    Unchanged,
    /// New handshakes use the new certificates.
    Reloaded,
}

impl ServerTls {
    /// Reads the certificates; an error names the file and the cause.
    pub fn load(config: &ServerConfig) -> Result<Self, TlsError> {
        let provider = provider();
        let stamps = stamps(&config.certificates);
        let set = CertificateSet::load(&config.certificates, &provider)?;
        let current = Arc::new(CurrentCertificates(ArcSwap::from_pointee(set)));
        let tls = rustls_config(&provider, config.client_certificates, Arc::clone(&current))?;
        Ok(Self {
            sources: config.certificates.clone(),
            provider,
            current,
            config: Arc::new(tls),
            stamps: Mutex::new(stamps),
        })
    }

    /// Performs a handshake. The caller sets the time limit (by dropping the future) and, for STARTTLS, must have
    /// discarded everything that it had read after the command (RFC 3207 section 4.2).
    pub async fn accept<S>(&self, mut stream: S) -> Result<(TlsStream<S>, HandshakeFacts), HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let hello = HelloPrefix::read(&mut stream).await?;
        hello.check()?;
        let accepted = TlsAcceptor::from(Arc::clone(&self.config)).accept_with(stream, |session| {
            // A few octets always fit, and reading from memory does not fail.
            let _ = session.read_tls(&mut hello.octets());
        });
        let stream = accepted.await.map_err(|error| HandshakeError::from(error).knowing(hello))?;
        let facts = HandshakeFacts::of_server(&stream);
        Ok((stream, facts))
    }

    /// Whether one of the certificates is valid for `host`. Exchange requires that for its smart host's name.
    pub fn covers(&self, host: &str) -> bool {
        self.current.0.load().covers(host)
    }

    /// Reads all certificates again without using them yet, for a caller that has more to check first. Everything stays
    /// as it was until [`ServerTls::serve`].
    pub fn read_again(&self) -> Result<RenewedCertificates, TlsError> {
        // Taken before reading: a file that changes meanwhile is then read once more, not missed.
        let stamps = stamps(&self.sources);
        Ok(RenewedCertificates { set: CertificateSet::load(&self.sources, &self.provider)?, stamps })
    }

    /// Uses certificates that [`ServerTls::read_again`] has read. Says whether a file had changed since the last reading.
    pub fn serve(&self, renewed: RenewedCertificates) -> CertificateReload {
        let mut stamps = self.stamps.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *stamps, renewed.stamps);
        self.current.0.store(Arc::new(renewed.set));
        if before == *stamps { CertificateReload::Unchanged } else { CertificateReload::Reloaded }
    }

    /// Reads all certificates again and uses them. On an error everything stays as it was.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.reload_as(stamps(&self.sources))
    }

    /// Reads all certificates again if a file has changed since it was last read; otherwise it costs one `stat` per
    /// file. A bad state of the files is reported once, not at every poll, so when chain and key are renewed one after
    /// the other, the second change corrects the error.
    pub fn reload_if_changed(&self) -> Result<CertificateReload, TlsError> {
        let stamps = stamps(&self.sources);
        if *self.stamps.lock().unwrap_or_else(PoisonError::into_inner) == stamps {
            return Ok(CertificateReload::Unchanged);
        }
        self.reload_as(stamps).map(|()| CertificateReload::Reloaded)
    }

    fn reload_as(&self, stamps: Vec<FileStamp>) -> Result<(), TlsError> {
        *self.stamps.lock().unwrap_or_else(PoisonError::into_inner) = stamps;
        let set = CertificateSet::load(&self.sources, &self.provider)?;
        self.current.0.store(Arc::new(set));
        Ok(())
    }
}

fn stamps(sources: &[CertificateSource]) -> Vec<FileStamp> {
    sources.iter().flat_map(CertificateSource::stamps).collect()
}

/// The provider's suites are all ECDHE with an AEAD (RFC 9325 section 4.2), including those of TLS 1.2 that Exchange
/// uses, since Windows has no TLS 1.3 for SMTP.
fn rustls_config(
    provider: &Arc<CryptoProvider>,
    client_certificates: ClientCertificates,
    current: Arc<CurrentCertificates>,
) -> Result<rustls::ServerConfig, TlsError> {
    let verifier: Arc<dyn ClientCertVerifier> = match client_certificates {
        ClientCertificates::Ignore => Arc::new(NoClientAuth),
        ClientCertificates::Record => Arc::new(RecordOnly(provider.signature_verification_algorithms)),
    };
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(TlsError::Provider)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(current);
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(TlsError::Provider)?;
    // Sending hosts open one connection at a time: a second ticket would never be used.
    config.send_tls13_tickets = 1;
    Ok(config)
}

/// The certificates in use.
#[derive(Debug)]
struct CurrentCertificates(ArcSwap<CertificateSet>);

impl ResolvesServerCert for CurrentCertificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load().choose(&hello))
    }
}

/// Accepts any certificate but checks the signature made with it: the reported fingerprint would be worthless if it
/// could be claimed without the key.
#[derive(Debug)]
struct RecordOnly(WebPkiSupportedAlgorithms);

impl ClientCertVerifier for RecordOnly {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
