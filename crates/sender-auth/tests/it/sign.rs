//! Our signatures verify with this crate's verifier, which shares no code with the signer, and no longer verify when
//! the signed text is changed.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use pintle_mail::{Body, BodyError, BodyFuture, Bytes, HeaderBlock, UnixTime};
use pintle_sender_auth::sign::{
    Algorithm, Canonicalization, KeyConfig, KeyFinding, KeyPair, Keyring, SignError, SigningKey, examine,
    generate, key_name, sign,
};
use pintle_sender_auth::{AuthOutcome, signatures};
use pintle_testkit::StaticResolver;

use crate::support::{ask, zone};

/// 2018-06-10, as in `support`.
pub(crate) const NOW: UnixTime = UnixTime::from_millis(1_528_637_969_000);

pub(crate) static RSA: LazyLock<KeyPair> =
    LazyLock::new(|| generate(Algorithm::Rsa { bits: 2_048 }).unwrap());
pub(crate) static ED25519: LazyLock<KeyPair> = LazyLock::new(|| generate(Algorithm::Ed25519).unwrap());

pub(crate) const PLAIN: &str = "Received: from a by b; Sun, 10 Jun 2018 13:39:29 +0000\r\n\
    From: Ann <ann@signer.example>\r\nTo: bob@other.example\r\nSubject: A   test\r\n \tof folding \r\n\
    X-Odd: 1\r\nX-Odd : 2\r\nMessage-ID: <1@signer.example>\r\n\r\nFirst  line\r\nsecond line \t\r\n\r\n\r\n";

/// Both keys of a domain as configured, after `change`.
pub(crate) fn keys(domain: &str, change: impl Fn(&mut KeyConfig)) -> Vec<Arc<SigningKey>> {
    let config = |name: &str, pair: &KeyPair| {
        let mut config = KeyConfig::new(&format!("{name}-{domain}"), domain, name, pair.private_pem.clone());
        change(&mut config);
        config
    };
    let ring = Keyring::new(vec![config("rsa", &RSA), config("ed", &ED25519)]).unwrap();
    ring.for_domain(domain).cloned().collect()
}

pub(crate) fn published(domains: &[&str]) -> StaticResolver {
    let line = |selector: &str, domain: &str, pair: &KeyPair| {
        format!("{} TXT {}\n", key_name(selector, domain), pair.record)
    };
    let both = |domain: &&str| line("rsa", domain, &RSA) + &line("ed", domain, &ED25519);
    zone(&domains.iter().map(both).collect::<String>())
}

pub(crate) fn parts(message: &[u8]) -> (HeaderBlock, Bytes) {
    let end = message.windows(4).position(|at| at == b"\r\n\r\n").unwrap() + 2;
    let header = HeaderBlock::parse(Bytes::copy_from_slice(&message[..end]));
    (header, Bytes::copy_from_slice(&message[end + 2..]))
}

async fn signed(keys: &[Arc<SigningKey>], message: &[u8]) -> Vec<u8> {
    let (header, body) = parts(message);
    let mut out = sign(keys, &header, &body, NOW).await.unwrap();
    out.extend_from_slice(message);
    out
}

async fn outcomes_at(message: &[u8], now: UnixTime) -> Vec<AuthOutcome> {
    let resolver = published(&["signer.example"]);
    let found = signatures::verify(ask(&resolver), Bytes::copy_from_slice(message), now).await;
    found.dkim.into_iter().map(|result| result.outcome).collect()
}

async fn outcomes(message: &[u8]) -> Vec<AuthOutcome> {
    outcomes_at(message, NOW).await
}

const GOOD: [AuthOutcome; 2] = [AuthOutcome::Pass; 2];

fn with_body(body: &str) -> String {
    format!("From: ann@signer.example\r\nTo: bob@other.example\r\n\r\n{body}")
}

/// When there are more signatures than are verified, the author is the one that DMARC uses, however the field is
/// written.
#[tokio::test]
async fn a_good_signature_is_found_below_bad_ones_whoever_reads_the_author() {
    let keys = keys("signer.example", |_| {});
    let bad = "DKIM-Signature: v=1; a=rsa-sha256; d=d.example; s=s; h=from; bh=AAAA; b=AAAA\r\n".repeat(10);
    for author in [
        "ann@signer.example",
        "ann(c \\) <x@b.example>)@(d(e)f)signer.example",
        "(x@b.example) ann@signer.example (<y@c.example>)",
        "\"Ann\" <ann@signer.example",
        "<@b.example:ann@signer.example>",
        "ann @ signer . example",
        "\"a@b.example\"@signer.example",
        "\"never closed <ann@signer.example>",
        "<ann@signer.example> trailing words",
        "team: ann@signer.example, \"b\" <b@signer.example>;",
    ] {
        let message = format!("From: {author}\r\nTo: bob@other.example\r\n\r\nx\r\n");
        let message = [bad.as_bytes(), &signed(&keys, message.as_bytes()).await].concat();
        let passed = outcomes(&message).await.into_iter().filter(|it| *it == AuthOutcome::Pass).count();
        assert_eq!(passed, 2, "{author}");
    }
}

#[tokio::test]
async fn what_we_sign_verifies_in_every_form() {
    use Canonicalization::{Relaxed, Simple};
    for (in_header, in_body) in [(Relaxed, Relaxed), (Relaxed, Simple), (Simple, Relaxed), (Simple, Simple)] {
        let keys = keys("signer.example", |config| {
            config.header_canonicalization = in_header;
            config.body_canonicalization = in_body;
            config.headers.extend(["X-Odd", "Received"].map(str::to_owned));
        });
        // The library that verifies does not support the simple form of a name followed by white space.
        let text = if in_header == Simple { PLAIN.replace("X-Odd :", "X-Odd:") } else { PLAIN.to_owned() };
        let message = signed(&keys, text.as_bytes()).await;
        assert_eq!(outcomes(&message).await, GOOD, "{}", String::from_utf8_lossy(&message));
    }
}

#[tokio::test]
async fn the_field_has_the_tags_of_the_rfc_and_short_lines() {
    let keys = keys("signer.example", |_| {});
    let (header, body) = parts(PLAIN.as_bytes());
    let fields = HeaderBlock::parse(sign(&keys, &header, &body, NOW).await.unwrap().into());
    let values: Vec<String> =
        fields.named("DKIM-Signature").map(|field| field.value().replace(' ', "")).collect();
    assert_eq!(values.len(), 2);
    let tags = "c=relaxed/relaxed;d=signer.example;s=rsa;t=1528637969;x=1529847569;\
        h=From:From:Reply-To:To:To:Cc:Subject:Subject:Date:Message-ID:Message-ID:MIME-Version:Content-Type:\
        Content-Transfer-Encoding;bh=";
    assert!(values[0].starts_with(&format!("v=1;a=rsa-sha256;{tags}")), "{values:?}");
    assert!(
        values[1].starts_with("v=1;a=ed25519-sha256;c=relaxed/relaxed;d=signer.example;s=ed;"),
        "{values:?}"
    );
    let text = String::from_utf8(fields.as_bytes().to_vec()).unwrap();
    assert!(text.ends_with("\r\n"));
    assert!(text.lines().all(|line| line.len() <= 78), "{text}");
}

#[tokio::test]
async fn bodies_of_every_kind_verify() {
    let keys = keys("signer.example", |_| {});
    for body in [
        "",
        "\r\n",
        "\r\n\r\n",
        "no line end",
        "a\r\n",
        " a \t b \r\n",
        "a\r\n \t\r\n",
        " \r\n",
        "a\r\n\r\n\r\n",
        ".\r\n",
    ] {
        let message = signed(&keys, with_body(body).as_bytes()).await;
        assert_eq!(outcomes(&message).await, GOOD, "{body:?}");
    }
}

/// A body that returns pieces of odd lengths, whatever was asked for.
struct Odd(Bytes);

impl Body for Odd {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&self, offset: u64, len: usize) -> BodyFuture<'_> {
        let length = usize::try_from(offset % 7_919).unwrap() + 1;
        self.0.read(offset, length.min(len))
    }
}

#[tokio::test]
async fn a_large_body_in_odd_pieces_verifies() {
    let keys = keys("signer.example", |_| {});
    let lines =
        |n: u32| format!("{n} line  of text \t\r\n{}", if n.is_multiple_of(7) { "\r\n \r\n" } else { "" });
    let message = with_body(&(0..250_000).map(lines).collect::<String>());
    assert!(message.len() > 5_000_000);
    let (header, body) = parts(message.as_bytes());
    let fields = sign(&keys, &header, &Odd(body), NOW).await.unwrap();
    assert_eq!(outcomes(&[fields.as_slice(), message.as_bytes()].concat()).await, GOOD);
}

#[tokio::test]
async fn what_is_changed_after_signing_is_noticed() {
    let keys = keys("signer.example", |config| config.headers.push("X-Odd".into()));
    let message = String::from_utf8(signed(&keys, PLAIN.as_bytes()).await).unwrap();
    let start = message.find("Received:").unwrap();
    for (was, is) in [
        ("second line", "second lime"),
        ("A   test", "A   best"),
        ("From: Ann", "From: Eve"),
        ("X-Odd : 2", "X-Odd: 3"),
        ("X-Odd: 1\r\n", ""),
        ("X-Odd: 1\r\nX-Odd : 2\r\n", "X-Odd: 2\r\nX-Odd: 1\r\n"),
        // Oversigned: neither a second one nor a first one can be added, above or below.
        ("From:", "From: <eve@evil.example>\r\nFrom:"),
        ("To:", "From: <eve@evil.example>\r\nTo:"),
        ("To:", "Subject: Buy\r\nTo:"),
        ("To:", "Reply-To: <eve@evil.example>\r\nTo:"),
        ("To:", "Content-Type: text/html\r\nTo:"),
    ] {
        let forged = format!("{}{}", &message[..start], message[start..].replacen(was, is, 1));
        assert_ne!(forged, message, "{is}");
        assert_eq!(outcomes(forged.as_bytes()).await, [AuthOutcome::Fail; 2], "{is}");
    }
    let harmless = message.replacen("A   test", "A test", 1).replacen("To: ", "X-New: 1\r\nTO:", 1);
    assert_eq!(outcomes(harmless.as_bytes()).await, GOOD);
}

#[tokio::test]
async fn signatures_expire_when_they_should() {
    let day = Duration::from_secs(86_400);
    let message =
        signed(&keys("signer.example", |config| config.expires = Some(day)), PLAIN.as_bytes()).await;
    assert_eq!(outcomes_at(&message, NOW.plus(day)).await, GOOD);
    assert_eq!(
        outcomes_at(&message, NOW.plus(day + Duration::from_secs(1))).await,
        [AuthOutcome::PermError; 2]
    );
    let message = signed(&keys("signer.example", |config| config.expires = None), PLAIN.as_bytes()).await;
    assert_eq!(outcomes_at(&message, NOW.plus(1_000 * day)).await, GOOD);
}

#[tokio::test]
async fn without_an_author_or_a_body_nothing_is_signed() {
    let keys = keys("signer.example", |_| {});
    let header = HeaderBlock::parse(Bytes::from_static(b"To: a@a.example\r\n"));
    let signed = sign(&keys, &header, &Bytes::new(), NOW).await;
    assert!(matches!(signed, Err(SignError::NoFrom)));

    struct Broken;
    impl Body for Broken {
        fn size(&self) -> u64 {
            5
        }
        fn read(&self, _: u64, _: usize) -> BodyFuture<'_> {
            Box::pin(std::future::ready(Err(BodyError("the disk".into()))))
        }
    }
    let (header, _) = parts(PLAIN.as_bytes());
    assert!(matches!(sign(&keys, &header, &Broken, NOW).await, Err(SignError::Body(_))));
    assert_eq!(sign(&[], &header, &Broken, NOW).await.unwrap(), b"");
}

#[test]
fn what_is_published_is_compared_with_the_key() {
    let keys = keys("signer.example", |_| {});
    let judge = |text: &str| examine(&[text.as_bytes().to_vec()], Some(keys[0].private())).findings;
    assert_eq!(examine(&[RSA.record.clone().into()], None).algorithm, Some(Algorithm::Rsa { bits: 2_048 }));
    assert_eq!(judge(&RSA.record), []);
    assert_eq!(examine(&[], None).findings, [KeyFinding::Missing]);
    assert_eq!(judge(&ED25519.record), [KeyFinding::Differs]);
    assert_eq!(judge("v=DKIM1; p="), [KeyFinding::Revoked]);
    assert_eq!(
        judge(&RSA.record.replace("k=rsa", "t=y:s; h=sha1; s=web; k=rsa")),
        [KeyFinding::NotForMail, KeyFinding::NotForSha256, KeyFinding::Testing]
    );
    for broken in
        ["words", "v=DKIM1; k=rsa", "k=rsa; v=DKIM1; p=AAAA", "v=DKIM1; k=rsa; p=AAAA", "v=DKIM1; p=?"]
    {
        assert!(matches!(judge(broken)[..], [KeyFinding::Unreadable(_)]), "{broken}");
    }
    let weak = "v=DKIM1; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkMoGeLnQg1fWn7/zYtIxN2SnFC\
        jxOCKG9v3b4jYfcTNh5ijSsq631uBItLa7od+v/RtdC2UzJ1lWT947qR+Rcac2gbto/NMqJ0fzfVjH4OuKhitdY9tf6mcwGjaNBcWToIM\
        mPSPDdQPNUYckcQ2QIDAQAB";
    assert_eq!(judge(weak), [KeyFinding::Weak(1_024), KeyFinding::Differs]);
    let both = examine(&[RSA.record.clone().into_bytes(), b"other".to_vec()], None);
    assert_eq!(both.findings, [KeyFinding::Several(2)]);
}
