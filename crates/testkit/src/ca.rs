//! A certificate authority for a test, and the certificates that it issues.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// A certificate authority that only tests trust. All functions panic on errors.
pub struct TestCa {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key.
#[derive(Clone)]
pub struct Leaf {
    /// The certificate in PEM.
    pub chain_pem: String,
    /// The key in PEM.
    pub key_pem: String,
}

/// The files that a [`Leaf`] was written to.
#[derive(Clone, Debug)]
pub struct LeafFiles {
    /// The certificate's file.
    pub chain: PathBuf,
    /// The key's file.
    pub key: PathBuf,
}

impl Default for TestCa {
    fn default() -> Self {
        Self::new()
    }
}

impl TestCa {
    /// A new authority with a new key.
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a key");
        // Every authority has a unique name: otherwise a certificate of another one would not be "of an unknown
        // issuer".
        let name = format!("Test authority {:x?}", &key.public_key_raw()[1..9]);
        params.distinguished_name.push(DnType::CommonName, name);
        Self { issuer: CertifiedIssuer::self_signed(params, key).expect("an authority") }
    }

    /// The authority's own certificate in PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Writes the authority's certificate to `ca.pem` in `folder`.
    pub fn write(&self, folder: &Path) -> PathBuf {
        let path = folder.join("ca.pem");
        fs::write(&path, self.pem()).expect("a folder to write to");
        path
    }

    /// Issues a certificate for host names and IP addresses.
    pub fn issue(&self, names: &[&str]) -> Leaf {
        self.issue_until(names, 2_100)
    }

    /// Issues a certificate that has expired.
    pub fn issue_expired(&self, names: &[&str]) -> Leaf {
        self.issue_until(names, 2_001)
    }

    /// A client configuration that trusts only this authority.
    pub fn client_config(&self) -> Arc<ClientConfig> {
        let config = client_builder().with_root_certificates(self.roots()).with_no_client_auth();
        Arc::new(config)
    }

    /// As [`TestCa::client_config`], with a client certificate.
    pub fn client_config_with(&self, leaf: &Leaf) -> Arc<ClientConfig> {
        let builder = client_builder().with_root_certificates(self.roots());
        Arc::new(builder.with_client_auth_cert(leaf.chain(), leaf.key()).expect("a usable certificate"))
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("a usable root");
        roots
    }

    fn issue_until(&self, names: &[&str], year: i32) -> Leaf {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names that a certificate can have");
        params.not_before = rcgen::date_time_ymd(2_000, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Leaf { chain_pem: certificate.pem(), key_pem: key.serialize_pem() }
    }
}

impl Leaf {
    /// Writes certificate and key to `NAME.pem` and `NAME.key` in `folder`.
    pub fn write(&self, folder: &Path, name: &str) -> LeafFiles {
        let chain = folder.join(format!("{name}.pem"));
        let key = folder.join(format!("{name}.key"));
        fs::write(&chain, &self.chain_pem).expect("a folder to write to");
        private(&key, &self.key_pem);
        LeafFiles { chain, key }
    }

    /// A server configuration with this certificate.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let builder = builder.expect("the usual versions").with_no_client_auth();
        Arc::new(builder.with_single_cert(self.chain(), self.key()).expect("a usable certificate"))
    }

    /// The certificate in DER.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![CertificateDer::from_pem_slice(self.chain_pem.as_bytes()).expect("a certificate")]
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).expect("a key")
    }
}

/// Keys must not be readable for others, since the gateway refuses such files.
fn private(path: &Path, text: &str) {
    fs::write(path, text).expect("a folder to write to");
    #[cfg(unix)]
    let _ = fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600));
}

fn client_builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    let builder = ClientConfig::builder_with_provider(provider());
    builder.with_safe_default_protocol_versions().expect("the usual versions")
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
