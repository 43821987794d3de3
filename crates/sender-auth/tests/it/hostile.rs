//! Name servers that fail in every way: each check ends by its deadline and reports it.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use pintle_dns::HickoryResolver;
use pintle_mail::{Bytes, HeaderBlock, UnixTime};
use pintle_sender_auth::{AuthOutcome, DeadlineResolver, SpfClient, dmarc, signatures, spf};
use pintle_testkit::{ZoneFault, ZoneServer, within};

const ZONE: &str = "a.example. TXT \"v=spf1 a:h.example mx exists:e.example -all\"
    a.example. MX 10 h.example.
    h.example. A 192.0.2.1
    s._domainkey.a.example. TXT \"v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\"
    _dmarc.a.example. TXT \"v=DMARC1; p=reject\"";

const SIGNED: &[u8] = b"DKIM-Signature: v=1; a=ed25519-sha256; d=a.example; s=s; h=from;\r\n \
    bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=AAAA; c=relaxed/relaxed\r\nFrom: <x@a.example>\r\n\r\n";

struct Outcomes {
    spf: AuthOutcome,
    dkim: AuthOutcome,
    dmarc: AuthOutcome,
    took: Duration,
}

async fn outcomes(server: &ZoneServer, patience: Duration) -> Outcomes {
    let resolver = HickoryResolver::new(&server.config()).unwrap();
    let begun = Instant::now();
    let ask = DeadlineResolver::new(&resolver, begun + patience);
    let client = SpfClient {
        address: "192.0.2.1".parse().unwrap(),
        hello: "",
        sender: Some(("x", "a.example")),
        receiver: "unknown",
    };
    let work = async {
        let spf = spf::check(ask, &client).await;
        let found = signatures::verify(ask, Bytes::from_static(SIGNED), UnixTime::from_millis(0)).await;
        let header = HeaderBlock::parse(Bytes::from_static(b"From: <x@a.example>\r\n"));
        let dmarc = dmarc::check(ask, &header, &spf, &found.dkim).await;
        (spf[0].outcome, found.dkim[0].outcome, dmarc.outcome)
    };
    let (spf, dkim, dmarc) = within("the checks", work).await;
    Outcomes { spf, dkim, dmarc, took: begun.elapsed() }
}

#[tokio::test]
async fn a_name_server_in_order_is_understood() {
    let server = ZoneServer::start(ZONE).await;
    let seen = outcomes(&server, Duration::from_secs(60)).await;
    assert_eq!((seen.spf, seen.dkim, seen.dmarc), (AuthOutcome::Pass, AuthOutcome::Fail, AuthOutcome::Pass));
}

#[tokio::test]
async fn failing_name_servers_are_a_temporary_error() {
    for fault in [ZoneFault::ServFail, ZoneFault::Refused] {
        let server = ZoneServer::start(ZONE).await;
        for name in ["a.example", "s._domainkey.a.example", "_dmarc.a.example"] {
            server.fail(name, fault);
        }
        let seen = outcomes(&server, Duration::from_secs(60)).await;
        let temporary = AuthOutcome::TempError;
        assert_eq!((seen.spf, seen.dkim, seen.dmarc), (temporary, temporary, temporary), "{fault:?}");
    }
}

#[tokio::test]
async fn silent_name_servers_cost_the_deadline_and_no_more() {
    for fault in [ZoneFault::Silent, ZoneFault::Garbage] {
        let server = ZoneServer::start(ZONE).await;
        for name in ["a.example", "s._domainkey.a.example", "_dmarc.a.example"] {
            server.fail(name, fault);
        }
        let seen = outcomes(&server, Duration::from_millis(300)).await;
        let temporary = AuthOutcome::TempError;
        assert_eq!((seen.spf, seen.dkim, seen.dmarc), (temporary, temporary, temporary), "{fault:?}");
        // A lookup may take twenty seconds, and there are three.
        assert!(seen.took < Duration::from_secs(15), "{:?}", seen.took);
    }
}

#[tokio::test]
async fn a_name_that_is_said_not_to_exist_has_nothing() {
    let server = ZoneServer::start(ZONE).await;
    for name in ["a.example", "s._domainkey.a.example", "_dmarc.a.example"] {
        server.fail(name, ZoneFault::NxDomain);
    }
    let seen = outcomes(&server, Duration::from_secs(60)).await;
    assert_eq!(
        (seen.spf, seen.dkim, seen.dmarc),
        (AuthOutcome::None, AuthOutcome::PermError, AuthOutcome::None)
    );
}

#[tokio::test]
async fn answers_that_do_not_fit_are_asked_for_again() {
    let server = ZoneServer::start(ZONE).await;
    server.fail("a.example", ZoneFault::Truncated);
    server.fail("h.example", ZoneFault::Truncated);
    let seen = outcomes(&server, Duration::from_secs(60)).await;
    assert_eq!(seen.spf, AuthOutcome::Pass);
}

#[tokio::test]
async fn floods_of_records_are_an_error_and_not_a_flood_of_questions() {
    let mut flood = String::from("a.example. TXT \"v=spf1 mx ptr a:h.example -all\"\n");
    for n in 0..1_000 {
        writeln!(flood, "a.example. MX 10 m{n}.example.").unwrap();
        writeln!(flood, "1.2.0.192.in-addr.arpa. PTR p{n}.example.").unwrap();
    }
    let server = ZoneServer::start(&flood).await;
    let seen = outcomes(&server, Duration::from_secs(60)).await;
    assert_eq!(seen.spf, AuthOutcome::PermError);
    assert!(server.asked().len() < 60, "{} questions", server.asked().len());
}

#[tokio::test]
async fn ten_thousand_texts_end_somewhere() {
    let mut flood = String::new();
    for n in 0..10_000 {
        writeln!(flood, "a.example. TXT \"filler number {n}\"").unwrap();
    }
    let server = ZoneServer::start(&flood).await;
    // More than a DNS message holds: what arrives, if anything does, has no SPF record in it.
    let seen = outcomes(&server, Duration::from_secs(5)).await;
    assert!(matches!(seen.spf, AuthOutcome::None | AuthOutcome::TempError), "{}", seen.spf);
}
