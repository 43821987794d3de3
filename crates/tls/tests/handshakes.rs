//! Handshakes of the server and client sides with each other and with plain rustls, over a pipe in memory.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use pintle_testkit::{Leaf, TempDir, TestCa};
use pintle_tls::{
    CertificateReload, CertificateSource, ClientCertificates, ClientConfig, ClientPolicy, ClientTls,
    HandshakeError, HandshakeFacts, PeerFacts, Roots, ServerConfig, ServerTls, TlsError,
};
use rustls::CertificateError;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

/// A finished handshake as one side saw it.
struct Shaken<F> {
    facts: F,
    /// The handshake continued an earlier session.
    resumed: bool,
    /// The peer's own certificate in DER; none from a client that sent no certificate.
    peer_certificate: Option<Vec<u8>>,
}

impl<F> Shaken<F> {
    fn of(connection: &rustls::CommonState, facts: F) -> Self {
        let peer_certificate = connection.peer_certificates().and_then(<[_]>::first);
        Self {
            facts,
            resumed: connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
            peer_certificate: peer_certificate.map(|certificate| certificate.to_vec()),
        }
    }
}

type Both = (Result<Shaken<HandshakeFacts>, HandshakeError>, Result<Shaken<PeerFacts>, HandshakeError>);

fn pem(leaf: &Leaf) -> CertificateSource {
    CertificateSource::Pem { chain: leaf.chain_pem.clone(), key: leaf.key_pem.clone() }
}

fn server_of(leaves: &[&Leaf], client_certificates: ClientCertificates) -> ServerTls {
    let certificates = leaves.iter().map(|leaf| pem(leaf)).collect();
    ServerTls::load(&ServerConfig { certificates, client_certificates }).expect("a server")
}

fn server(leaf: &Leaf) -> ServerTls {
    server_of(&[leaf], ClientCertificates::Ignore)
}

fn client(ca: &TestCa, folder: &Path) -> ClientTls {
    let roots = Roots::File(ca.write(folder));
    ClientTls::load(&ClientConfig { roots }).expect("a client")
}

fn folder() -> TempDir {
    TempDir::new().expect("a temporary folder")
}

async fn shake(server: &ServerTls, client: &ClientTls, policy: ClientPolicy, host: &str) -> Both {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    // Both streams live until both are done: a side that closes early breaks the other's last flight.
    let (mut accepted, mut connected) =
        tokio::join!(server.accept(ours), client.connect(policy, host, theirs));
    if let (Ok((ours, _)), Ok((theirs, _))) = (&mut accepted, &mut connected) {
        // In TLS 1.3 the ticket comes after the handshake, and is read with the first data.
        ours.write_all(b"x").await.expect("written");
        ours.flush().await.expect("written");
        assert_eq!(theirs.read_u8().await.expect("read"), b'x');
    }
    (
        accepted.map(|(stream, facts)| Shaken::of(stream.get_ref().1, facts)),
        connected.map(|(stream, facts)| Shaken::of(stream.get_ref().1, facts)),
    )
}

/// The certificate that a plain client gets when it asks for `host`.
async fn shown(
    server: &ServerTls,
    config: Arc<rustls::ClientConfig>,
    host: &str,
) -> (Vec<u8>, HandshakeFacts) {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from(host.to_owned()).expect("a name");
    let (accepted, connected) =
        tokio::join!(server.accept(ours), TlsConnector::from(config).connect(name, theirs));
    let stream = connected.expect("a handshake");
    let certificates = stream.get_ref().1.peer_certificates().expect("a certificate");
    (certificates[0].to_vec(), accepted.expect("a handshake").1)
}

fn expect_untrusted(result: Both) -> CertificateError {
    match result.1 {
        Err(HandshakeError::Untrusted(cause)) => cause,
        other => panic!("expected a refusal of the certificate, not {:?}", other.map(|shaken| shaken.facts)),
    }
}

#[tokio::test]
async fn a_verified_session_is_described_by_both_sides() {
    let (ca, dir) = (TestCa::new(), folder());
    let leaf = ca.issue(&["mx.example"]);
    let (server, client) = (server(&leaf), client(&ca, dir.path()));
    let (accepted, connected) = shake(&server, &client, ClientPolicy::Verified, "MX.example.").await;
    let (accepted, connected) = (accepted.expect("accepted").facts, connected.expect("connected").facts);
    assert_eq!(accepted.version, "TLSv1.3");
    assert!(accepted.cipher.starts_with("TLS_") && !accepted.cipher.contains("TLS13"), "{}", accepted.cipher);
    assert_eq!(accepted.server_name.as_deref(), Some("mx.example"));
    assert_eq!((accepted.client_certificate_sha256, accepted.client_certificate_verified), (None, false));
    assert!(connected.verified);
    assert_eq!((connected.version, connected.cipher), (accepted.version, accepted.cipher));
}

#[tokio::test]
async fn verification_wants_name_dates_and_issuer() {
    let (ca, dir) = (TestCa::new(), folder());
    let client = client(&ca, dir.path());
    let good = ca.issue(&["mx.example"]);
    let wrong_name = shake(&server(&good), &client, ClientPolicy::Verified, "other.example").await;
    assert!(matches!(expect_untrusted(wrong_name), CertificateError::NotValidForNameContext { .. }));
    let expired =
        shake(&server(&ca.issue_expired(&["mx.example"])), &client, ClientPolicy::Verified, "mx.example")
            .await;
    assert!(matches!(expect_untrusted(expired), CertificateError::ExpiredContext { .. }));
    let stranger = TestCa::new().issue(&["mx.example"]);
    let unknown = shake(&server(&stranger), &client, ClientPolicy::Verified, "mx.example").await;
    assert_eq!(expect_untrusted(unknown), CertificateError::UnknownIssuer);
    let nameless = shake(&server(&good), &client, ClientPolicy::Verified, "mx example").await;
    assert!(matches!(nameless.1, Err(HandshakeError::UnverifiableName(_))));
}

#[tokio::test]
async fn without_verification_any_certificate_will_do() {
    let (ca, dir) = (TestCa::new(), folder());
    let client = client(&ca, dir.path());
    let odd = server(&TestCa::new().issue_expired(&["else.example"]));
    for policy in [ClientPolicy::Opportunistic, ClientPolicy::Required] {
        for host in ["mx.example", "mx example", "192.0.2.1"] {
            let (accepted, connected) = shake(&odd, &client, policy, host).await;
            assert!(!connected.unwrap_or_else(|error| panic!("{host}: {error}")).facts.verified);
            let sni = (host == "mx.example").then(|| host.to_owned());
            assert_eq!(accepted.expect("accepted").facts.server_name, sni);
        }
    }
}

#[tokio::test]
async fn an_unverified_session_is_never_resumed_as_a_verified_one() {
    let (ca, dir) = (TestCa::new(), folder());
    let client = client(&ca, dir.path());
    let stranger = server(&TestCa::new().issue(&["mx.example"]));
    for resumed in [false, true] {
        let (_, connected) = shake(&stranger, &client, ClientPolicy::Opportunistic, "mx.example").await;
        assert_eq!(connected.expect("encrypted").resumed, resumed);
    }
    let refused = shake(&stranger, &client, ClientPolicy::Verified, "mx.example").await;
    assert_eq!(expect_untrusted(refused), CertificateError::UnknownIssuer);
}

#[tokio::test]
async fn sessions_resume_even_across_a_reload() {
    let (ca, dir) = (TestCa::new(), folder());
    let client = client(&ca, dir.path());
    let files = ca.issue(&["mx.example"]).write(dir.path(), "mx");
    let certificates = vec![CertificateSource::Files { chain: files.chain, key: files.key }];
    let config = ServerConfig { certificates, client_certificates: ClientCertificates::Ignore };
    let server = ServerTls::load(&config).expect("a server");
    for resumed in [false, true] {
        let (accepted, connected) = shake(&server, &client, ClientPolicy::Verified, "mx.example").await;
        assert_eq!(accepted.expect("accepted").resumed, resumed);
        assert_eq!(connected.map(|shaken| shaken.facts.verified).ok(), Some(true));
        server.reload().expect("the same files");
    }
}

#[tokio::test]
async fn the_name_asked_for_chooses_the_certificate() {
    let ca = TestCa::new();
    let (first, wild, other) =
        (ca.issue(&["mx.example"]), ca.issue(&["*.wild.example"]), ca.issue(&["mx.other.example"]));
    let server = server_of(&[&first, &wild, &other], ClientCertificates::Ignore);
    for (host, leaf) in [("mx.other.example", &other), ("a.wild.example", &wild), ("MX.example", &first)] {
        assert_eq!(shown(&server, ca.client_config(), host).await.0, leaf.chain()[0].to_vec(), "{host}");
    }
    let dir = folder();
    let (accepted, connected) =
        shake(&server, &client(&ca, dir.path()), ClientPolicy::Required, "unknown.example").await;
    let default = shown(&server, ca.client_config(), "mx.example").await;
    assert_eq!(accepted.expect("accepted").facts.server_name.as_deref(), Some("unknown.example"));
    assert_eq!(default.0, first.chain()[0].to_vec());
    assert_eq!(connected.expect("connected").peer_certificate, Some(default.0));
    assert!(server.covers("x.wild.example") && server.covers("mx.example") && !server.covers("wild.example"));
}

#[tokio::test]
async fn old_clients_get_tls_1_2_with_an_elliptic_curve() {
    let ca = TestCa::new();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    let dir = folder();
    let text = fs::read(ca.write(dir.path())).expect("a file");
    let root =
        <rustls::pki_types::CertificateDer<'_> as rustls::pki_types::pem::PemObject>::from_pem_slice(&text);
    roots.add(root.expect("a certificate")).expect("a root");
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .expect("a version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let facts = shown(&server(&ca.issue(&["mx.example"])), Arc::new(config), "mx.example").await.1;
    assert_eq!(facts.version, "TLSv1.2");
    assert!(facts.cipher.starts_with("TLS_ECDHE_"), "{}", facts.cipher);
}

#[tokio::test]
async fn a_client_certificate_is_recorded_when_asked_for_and_never_demanded() {
    let ca = TestCa::new();
    let leaf = ca.issue(&["mx.example"]);
    let theirs = TestCa::new().issue(&["client.example"]);
    let asking = server_of(&[&leaf], ClientCertificates::Record);
    let with = ca.client_config_with(&theirs);
    let facts = shown(&asking, Arc::clone(&with), "mx.example").await.1;
    let digits = facts.client_certificate_sha256.expect("a fingerprint");
    assert!(digits.len() == 64 && digits.chars().all(|c| c.is_ascii_hexdigit() && !c.is_ascii_uppercase()));
    assert!(!facts.client_certificate_verified);
    assert_eq!(shown(&asking, ca.client_config(), "mx.example").await.1.client_certificate_sha256, None);
    assert_eq!(shown(&server(&leaf), with, "mx.example").await.1.client_certificate_sha256, None);
}

#[tokio::test]
async fn changed_files_are_taken_over_and_bad_ones_are_not() {
    let (ca, dir) = (TestCa::new(), folder());
    let (old, new) = (ca.issue(&["mx.example"]), ca.issue(&["mx.example", "new.mx.example"]));
    let files = old.write(dir.path(), "mx");
    let certificates = vec![CertificateSource::Files { chain: files.chain.clone(), key: files.key.clone() }];
    let config = ServerConfig { certificates, client_certificates: ClientCertificates::Ignore };
    let server = ServerTls::load(&config).expect("a server");
    assert_eq!(server.reload_if_changed().expect("nothing new"), CertificateReload::Unchanged);

    // The chain is renewed first: it does not match the old key, and the old pair stays in use.
    replace(&files.chain, &new.chain_pem);
    assert!(matches!(server.reload_if_changed(), Err(TlsError::Mismatch { .. })));
    assert_eq!(shown(&server, ca.client_config(), "mx.example").await.0, old.chain()[0].to_vec());
    assert_eq!(server.reload_if_changed().expect("reported once"), CertificateReload::Unchanged);
    assert!(server.reload().is_err());

    replace(&files.key, &new.key_pem);
    assert_eq!(server.reload_if_changed().expect("a pair again"), CertificateReload::Reloaded);
    assert_eq!(shown(&server, ca.client_config(), "mx.example").await.0, new.chain()[0].to_vec());

    fs::remove_file(&files.key).expect("removed");
    assert!(matches!(server.reload_if_changed(), Err(TlsError::Unreadable { .. })));
    assert_eq!(shown(&server, ca.client_config(), "mx.example").await.0, new.chain()[0].to_vec());
}

/// Replaces the file as careful programs do: a new file takes the name.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).expect("written");
    fs::rename(&new, path).expect("renamed");
}

#[test]
fn a_certificate_that_cannot_be_used_is_explained() {
    let (ca, dir) = (TestCa::new(), folder());
    let (leaf, other) = (ca.issue(&["mx.example"]), ca.issue(&["mx.example"]));
    let files = leaf.write(dir.path(), "mx");
    let load = |chain: &str, key: &str| {
        fs::write(&files.chain, chain).expect("written");
        fs::write(&files.key, key).expect("written");
        let source = CertificateSource::Files { chain: files.chain.clone(), key: files.key.clone() };
        let config =
            ServerConfig { certificates: vec![source], client_certificates: ClientCertificates::Ignore };
        ServerTls::load(&config).err().map(|error| error.to_string()).unwrap_or_default()
    };
    let damaged = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n";
    let cases = [
        (load(&leaf.chain_pem, &other.key_pem), "mx.key does not belong"),
        (load("", &leaf.key_pem), "mx.pem holds no certificate"),
        (load(&leaf.chain_pem, &leaf.chain_pem), "mx.key holds no private key"),
        (load(&leaf.chain_pem.replace("-----END", "----END"), &leaf.key_pem), "mx.pem is not in PEM form"),
        (load(damaged, &leaf.key_pem), "cannot be used"),
    ];
    for (text, part) in cases {
        assert!(text.contains(part), "{text:?} should contain {part:?}");
    }
    let missing = CertificateSource::Files { chain: dir.path().join("none.pem"), key: files.key.clone() };
    let config =
        ServerConfig { certificates: vec![missing], client_certificates: ClientCertificates::Ignore };
    assert!(ServerTls::load(&config).expect_err("no file").to_string().contains("none.pem"));
    let empty = ServerConfig { certificates: vec![], client_certificates: ClientCertificates::Ignore };
    assert!(matches!(ServerTls::load(&empty), Err(TlsError::NoPairs)));
}

#[test]
fn roots_that_cannot_be_used_are_explained() {
    let dir = folder();
    let path = dir.path().join("roots.pem");
    let load = || ClientTls::load(&ClientConfig { roots: Roots::File(path.clone()) });
    assert!(matches!(load(), Err(TlsError::Unreadable { .. })));
    fs::write(&path, "no certificates here").expect("written");
    assert!(matches!(load(), Err(TlsError::NoCertificate { .. })));
}

#[tokio::test]
async fn a_peer_without_tls_is_told_from_one_that_hangs_up() {
    let (ca, dir) = (TestCa::new(), folder());
    let client = client(&ca, dir.path());
    let (ours, theirs) = tokio::io::duplex(1_024);
    drop(ours);
    let gone = client.connect(ClientPolicy::Required, "mx.example", theirs).await;
    assert!(matches!(gone, Err(HandshakeError::Io(_))), "{gone:?}");
    let (mut ours, theirs) = tokio::io::duplex(1_024);
    ours.write_all(b"220 still plain text\r\n").await.expect("written");
    let plain = client.connect(ClientPolicy::Required, "mx.example", theirs).await;
    assert!(matches!(plain, Err(HandshakeError::NotTls)), "{plain:?}");
}

/// A client's hello with one cipher and no extension: what TLS 1.1 and older look like, and a broken TLS 1.2.
fn bare_hello(version: u8) -> Vec<u8> {
    let body = [&[3, version][..], &[7; 32], &[0], &[0, 2, 0xc0, 0x2f], &[1, 0]].concat();
    let length = |octets: &[u8]| u8::try_from(octets.len()).expect("a short message");
    let message = [&[1, 0, 0, length(&body)][..], &body].concat();
    [&[22, 3, 1, 0, length(&message)][..], &message].concat()
}

/// The server's error for these octets, which come in one piece or one by one.
async fn refusal(octets: &[u8], piece: usize) -> HandshakeError {
    let server = server(&TestCa::new().issue(&["mx.example"]));
    let (ours, mut theirs) = tokio::io::duplex(1_024);
    let send = async {
        for piece in octets.chunks(piece) {
            theirs.write_all(piece).await.expect("written");
            theirs.flush().await.expect("written");
        }
        &mut theirs
    };
    // The client stays connected, as one that waits for an answer does.
    let (accepted, _client) = tokio::join!(server.accept(ours), send);
    accepted.map(drop).expect_err("nothing to agree on")
}

#[tokio::test]
async fn a_client_of_an_old_version_is_told_from_one_that_leaves_something_out() {
    for (version, name) in [(0, "SSL 3.0"), (1, "TLS 1.0"), (2, "TLS 1.1")] {
        for piece in [1, 1_000] {
            let error = refusal(&bare_hello(version), piece).await;
            let text = error.to_string();
            assert!(matches!(error, HandshakeError::NoCommonVersion { .. }), "{error:?}");
            for part in [name, "TLS 1.2", "update"] {
                assert!(text.contains(part), "{part} is not in {text}");
            }
        }
    }
    let error = refusal(&bare_hello(3), 1_000).await;
    assert!(matches!(error, HandshakeError::Protocol(_)), "{error:?}");
}

#[tokio::test]
async fn a_client_in_plain_text_is_told_from_one_with_tls_without_waiting_for_more() {
    let error = refusal(b"EHLO x\r\n", 1_000).await;
    assert!(matches!(error, HandshakeError::NotTls), "{error:?}");
    let error = refusal(b"\x80\x2e\x01\x00\x02", 1_000).await;
    assert!(error.to_string().contains("SSL 2.0"), "{error}");
}

#[test]
fn a_key_is_never_printed() {
    let leaf = TestCa::new().issue(&["mx.example"]);
    let shown = format!("{:?}", pem(&leaf));
    assert!(!shown.contains("KEY"), "{shown}");
}
