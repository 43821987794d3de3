//! Chains that we sealed, verified by our verifier.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pintle_mail::auth_results::MethodResult;
use pintle_mail::{Bytes, HeaderBlock};
use pintle_sender_auth::sign::{Assessment, KeyConfig, Keyring, SealError, seal, sign};
use pintle_sender_auth::{ArcResult, AuthOutcome, signatures};

use crate::sign::{NOW, PLAIN, RSA, keys, parts, published};
use crate::support::ask;

const DOMAINS: [&str; 3] = ["one.example", "two.example", "three.example"];

async fn chain_of(message: &[u8]) -> ArcResult {
    let resolver = published(&["signer.example", DOMAINS[0], DOMAINS[1], DOMAINS[2]]);
    signatures::verify(ask(&resolver), Bytes::copy_from_slice(message), NOW).await.arc
}

/// The message with one more set on top, sealed with the key of this number (0: RSA, 1: Ed25519) of a domain.
pub(crate) async fn sealed(message: &[u8], domain: &str, key: usize) -> Result<Vec<u8>, SealError> {
    let chain = chain_of(message).await;
    sealed_after(message, domain, key, &chain).await
}

async fn sealed_after(
    message: &[u8],
    domain: &str,
    key: usize,
    chain: &ArcResult,
) -> Result<Vec<u8>, SealError> {
    let properties = [("header.d".to_owned(), "signer.example".to_owned())];
    let found = |method, outcome| MethodResult { method, outcome, reason: None, properties: &properties };
    let results = [found("dkim", "pass"), found("dmarc", "pass")];
    let assessment = Assessment { authserv_id: domain, results: &results, chain };
    let (header, body) = parts(message);
    let fields = seal(&keys(domain, |_| {})[key], &assessment, &header, &body, NOW).await?;
    Ok([fields.as_slice(), message].concat())
}

/// A message signed by its author and sealed three times.
async fn chain_of_three() -> Vec<u8> {
    let (header, body) = parts(PLAIN.as_bytes());
    let mut message = sign(&keys("signer.example", |_| {}), &header, &body, NOW).await.unwrap();
    message.extend_from_slice(PLAIN.as_bytes());
    for (number, domain) in DOMAINS.into_iter().enumerate() {
        message = sealed(&message, domain, number % 2).await.unwrap();
    }
    message
}

#[tokio::test]
async fn chains_of_one_two_and_three_sets_verify() {
    let mut message = PLAIN.as_bytes().to_vec();
    for (number, domain) in DOMAINS.into_iter().enumerate() {
        message = sealed(&message, domain, number % 2).await.unwrap();
        let chain = chain_of(&message).await;
        assert_eq!((chain.outcome, chain.reason), (AuthOutcome::Pass, None), "{domain}");
        assert_eq!(chain.sealers, DOMAINS[..=number]);
    }
    // The next forwarder may fold and space differently.
    let text = String::from_utf8(message).unwrap();
    let folded = text.replacen("A   test", "A\r\n test", 1);
    assert_eq!(chain_of(folded.as_bytes()).await.outcome, AuthOutcome::Pass);
}

#[tokio::test]
async fn a_set_has_the_fields_of_the_rfc_in_order() {
    let message = sealed(PLAIN.as_bytes(), "one.example", 0).await.unwrap();
    let (header, _) = parts(&message);
    let names: Vec<_> = header.iter().take(4).map(|field| field.name_text().into_owned()).collect();
    assert_eq!(names, ["ARC-Seal", "ARC-Message-Signature", "ARC-Authentication-Results", "Received"]);
    let value = |at| header.get(at).unwrap().value();
    assert!(
        value(0).starts_with("i=1; a=rsa-sha256; cv=none; d=one.example; s=rsa; t=1528637969; b="),
        "{}",
        value(0)
    );
    assert!(
        value(1).starts_with("i=1; a=rsa-sha256; c=relaxed/relaxed; d=one.example; s=rsa; t="),
        "{}",
        value(1)
    );
    assert!(!value(1).contains("x="));
    assert_eq!(
        value(2),
        "i=1; one.example; dkim=pass header.d=signer.example; dmarc=pass header.d=signer.example"
    );
    let nothing = Assessment { authserv_id: "gate", results: &[], chain: &chain_of(PLAIN.as_bytes()).await };
    let (header, body) = parts(PLAIN.as_bytes());
    let fields = seal(&keys("one.example", |_| {})[0], &nothing, &header, &body, NOW).await.unwrap();
    assert!(
        String::from_utf8(fields).unwrap().ends_with("ARC-Authentication-Results: i=1;\r\n gate; none\r\n")
    );
}

#[tokio::test]
async fn tampering_breaks_the_chain() {
    let message = String::from_utf8(chain_of_three().await).unwrap();
    assert_eq!(chain_of(message.as_bytes()).await.outcome, AuthOutcome::Pass);
    for (was, is) in [
        ("second line", "second lime"),
        ("From: Ann", "From: Eve"),
        ("To: bob", "Subject: new\r\nTo: bob"),
        ("i=2;\r\n two.example; dkim=pass", "i=2;\r\n two.example; dkim=fail"),
        ("i=1; a=rsa-sha256; cv=none", "i=1; a=rsa-sha256; cv=pass"),
        ("ARC-Seal: i=2", "X-Seal: i=2"),
        ("DKIM-Signature: v=1; a=ed", "X-Signature: v=1; a=ed"),
    ] {
        let forged = message.replacen(was, is, 1);
        assert_ne!(forged, message, "{was}");
        assert_eq!(chain_of(forged.as_bytes()).await.outcome, AuthOutcome::Fail, "{is}");
    }
}

#[tokio::test]
async fn a_broken_chain_is_sealed_as_broken_and_only_once() {
    let broken = String::from_utf8(chain_of_three().await).unwrap().replacen("second line", "second lime", 1);
    let message = sealed(broken.as_bytes(), "one.example", 1).await.unwrap();
    let (header, _) = parts(&message);
    assert!(header.get(0).unwrap().value().starts_with("i=4; a=ed25519-sha256; cv=fail; "));
    assert_eq!(chain_of(&message).await.outcome, AuthOutcome::Fail);
    // The seal covers only its own set, as if there were no other (section 5.1.2).
    let relaxed = |at: usize| {
        let field = header.get(at).unwrap();
        let value = field.value();
        let words: Vec<_> = value.split_ascii_whitespace().collect();
        format!("{}:{}", field.name_text().to_ascii_lowercase(), words.join(" "))
    };
    let seal = relaxed(0);
    let (covered, signature) = seal.split_once("; b=").unwrap();
    let input = format!("{}\r\n{}\r\n{covered}; b=", relaxed(2), relaxed(1));
    let signature = STANDARD.decode(signature.replace(' ', "")).unwrap();
    let public = keys("one.example", |_| {})[1].private().public();
    let hash = digest(&SHA256, input.as_bytes());
    assert!(UnparsedPublicKey::new(&ED25519, public).verify(hash.as_ref(), &signature).is_ok(), "{input}");
    assert!(matches!(sealed(&message, "two.example", 0).await, Err(SealError::AlreadyFailed)));
}

#[tokio::test]
async fn what_cannot_be_vouched_for_is_not_sealed() {
    let message = chain_of_three().await;
    let chain = chain_of(&message).await;
    let of = |outcome| ArcResult { outcome, ..chain.clone() };
    let undecided = sealed_after(&message, "one.example", 0, &of(AuthOutcome::TempError)).await;
    assert!(matches!(undecided, Err(SealError::Undecided)));
    // The header differs from the one that was verified.
    let none = ArcResult::none();
    assert!(matches!(sealed_after(&message, "one.example", 0, &none).await, Err(SealError::Changed)));
    let fewer =
        String::from_utf8(message.clone()).unwrap().replacen("ARC-Message-Signature: i=2", "X: i=2", 1);
    assert!(matches!(
        sealed_after(fewer.as_bytes(), "one.example", 0, &chain).await,
        Err(SealError::Changed)
    ));
    let many = [b"ARC-Seal: i=50; cv=pass\r\n".as_slice(), &message].concat();
    assert!(matches!(
        sealed_after(&many, "one.example", 0, &of(AuthOutcome::Fail)).await,
        Err(SealError::TooLong)
    ));
    let header = HeaderBlock::parse(Bytes::from_static(b"To: a@a.example\r\n"));
    let assessment = Assessment { authserv_id: "gate", results: &[], chain: &none };
    let key = &keys("one.example", |_| {})[0];
    let unsigned = seal(key, &assessment, &header, &Bytes::new(), NOW).await;
    assert!(matches!(unsigned, Err(SealError::Sign(_))));
}

#[tokio::test]
async fn fields_of_the_chain_are_never_signed_by_its_message_signature() {
    let mut config = KeyConfig::new("k", "one.example", "rsa", RSA.private_pem.clone());
    config.headers.extend(["ARC-Seal", "DKIM-Signature"].map(str::to_owned));
    config.oversign.push("arc-authentication-results".into());
    let ring = Keyring::new(vec![config]).unwrap();
    let message = chain_of_three().await;
    let (header, body) = parts(&message);
    let assessment = Assessment { authserv_id: "gate", results: &[], chain: &chain_of(&message).await };
    let fields = seal(ring.get("k").unwrap(), &assessment, &header, &body, NOW).await.unwrap();
    let all = chain_of(&[fields.as_slice(), &message].concat()).await;
    assert_eq!((all.outcome, all.reason), (AuthOutcome::Pass, None));
}
