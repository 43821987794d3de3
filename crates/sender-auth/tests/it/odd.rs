//! Handmade signatures: unusual ones that must be accepted, and ones that match but must be refused.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pintle_mail::{Bytes, HeaderBlock};
use pintle_sender_auth::{AuthOutcome, DkimResult, dmarc};
use pintle_testkit::StaticResolver;

use crate::support::{ask, verify, zone};

const BODY: &str = "Hello\r\n";
const SELECTOR: &str = "s";

fn pair() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()
}

fn published(name: &str, more: &str) -> StaticResolver {
    let key = STANDARD.encode(pair().public_key().as_ref());
    zone(&format!("{name} TXT v=DKIM1; k=ed25519;{more} p={key}"))
}

/// A message from this author with a signature over From that has these tags in addition to the required ones.
fn signed(author: &str, tags: &str) -> String {
    let hash = STANDARD.encode(digest(&SHA256, BODY.as_bytes()));
    let open = format!("{tags} a=ed25519-sha256; c=relaxed/relaxed; s={SELECTOR}; h=from; bh={hash}; b=");
    let input = format!("from:{author}\r\ndkim-signature:{open}");
    let signature = STANDARD.encode(pair().sign(digest(&SHA256, input.as_bytes()).as_ref()));
    format!("DKIM-Signature: {open}{signature}\r\nFrom: {author}\r\n\r\n{BODY}")
}

async fn result(resolver: &StaticResolver, message: &str) -> DkimResult {
    let mut found = verify(resolver, message.as_bytes()).await.dkim;
    assert_eq!(found.len(), 1);
    found.remove(0)
}

async fn outcome(tags: &str) -> (AuthOutcome, String) {
    let found = result(&published("s._domainkey.a.example", ""), &signed("x@a.example", tags)).await;
    (found.outcome, found.reason.unwrap_or_default())
}

#[tokio::test]
async fn lists_of_tags_are_held_to_their_grammar() {
    assert_eq!(outcome("v=1; d=a.example;").await, (AuthOutcome::Pass, String::new()));
    for (tags, reason) in [
        ("v=1; d=evil.example; d=a.example;", "twice"),
        ("v=1; v=1; d=a.example;", "twice"),
        ("v=1; d=a.example; word;", "cannot be read"),
        ("d=a.example;", "no version"),
    ] {
        let (found, why) = outcome(tags).await;
        assert_eq!(found, AuthOutcome::PermError, "{tags}");
        assert!(why.contains(reason), "{tags}: {why}");
    }
}

/// RFC 8616 sections 4 and 5.
#[tokio::test]
async fn domains_in_u_labels_are_those_in_a_labels() {
    let resolver = published("s._domainkey.xn--bcher-kva.example", "");
    for tags in [
        "v=1; d=b\u{fc}cher.example;",
        "v=1; d=xn--bcher-kva.example; i=z\u{e9}@b\u{fc}cher.example;",
        "v=1; d=b\u{fc}cher.example; i=@news.xn--bcher-kva.example;",
    ] {
        let found = result(&resolver, &signed("x@b\u{fc}cher.example", tags)).await;
        assert_eq!((found.outcome, found.reason), (AuthOutcome::Pass, None), "{tags}");
        assert_eq!(found.domain, "xn--bcher-kva.example");
    }
    let strict = published("s._domainkey.xn--bcher-kva.example", " t=s;");
    let same = "v=1; d=xn--bcher-kva.example; i=@b\u{fc}cher.example;";
    assert_eq!(result(&strict, &signed("x@a.example", same)).await.outcome, AuthOutcome::Pass);
    let below = "v=1; d=xn--bcher-kva.example; i=@news.b\u{fc}cher.example;";
    assert_eq!(result(&strict, &signed("x@a.example", below)).await.outcome, AuthOutcome::PermError);
}

#[tokio::test]
async fn what_a_stranger_writes_is_cut_before_anybody_reads_it() {
    let long = "l".repeat(2_000);
    for tags in [
        format!("v=1; d={long}.example; i=x\u{1}y@{long};"),
        format!("v=1; d=a\u{1}b.example; i={long}@a\u{7f}.example;"),
    ] {
        let found = result(&zone(""), &signed("x@a.example", &tags)).await;
        assert_eq!(found.outcome, AuthOutcome::PermError);
        for text in [found.domain, found.selector, found.identity.unwrap()] {
            assert!(text.len() <= 512 && !text.chars().any(char::is_control), "{text:?}");
        }
    }
    for author in ["From: <x@a\u{1}b.example>\r\n", "From: <x@[192.0.2.1]>\r\n", "From: <x@192.0.2.1>\r\n"] {
        let header = HeaderBlock::parse(Bytes::copy_from_slice(author.as_bytes()));
        let found = dmarc::check(ask(&zone("")), &header, &[], &[]).await;
        assert_eq!((found.outcome, found.from_domain.as_str()), (AuthOutcome::PermError, ""), "{author:?}");
    }
}

/// The list of signed fields and the header may both be long: searching one for each item of the other took minutes.
#[tokio::test]
async fn long_lists_of_fields_cost_no_more_than_they_are_long() {
    let names: String = (0..20_000).fold("from".to_owned(), |mut names, n| {
        write!(names, ":{n:x}").unwrap();
        names
    });
    let fields = "X:\r\n".repeat(30_000);
    let hash = STANDARD.encode(digest(&SHA256, BODY.as_bytes()));
    let message = format!(
        "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed; d=a.example; s=s; h={names}; bh={hash}; b=AAAA\r\n\
         From: x@a.example\r\n{fields}\r\n{BODY}"
    );
    let begun = Instant::now();
    let found = result(&published("s._domainkey.a.example", ""), &message).await;
    assert_eq!(found.outcome, AuthOutcome::Fail);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}
