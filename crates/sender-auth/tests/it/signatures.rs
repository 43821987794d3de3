//! DKIM and ARC on messages that others signed: the examples of the RFCs, and files in `tests/messages` signed by dkimpy
//! (fixed keys, published in `keys.zone`).

use pintle_dns::DnsRecordKind;
use pintle_sender_auth::AuthOutcome;
use pintle_testkit::StaticResolver;

use crate::support::{fails, verify, zone};

/// RFC 6376 appendices A.2 and C.
const RFC6376: &str = "DKIM-Signature: v=1; a=rsa-sha256; s=brisbane; d=example.com;
      c=simple/simple; q=dns/txt; i=joe@football.example.com;
      h=Received : From : To : Subject : Date : Message-ID;
      bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
      b=AuUoFEfDxTDkHlLXSZEpZj79LICEps6eda7W3deTVFOk4yAUoqOB
      4nujc7YopdG5dWLSdNg6xNAZpOPr+kHxt1IrE+NahM6L/LbvaHut
      KVdkLLkpVaVVQPzeRDI009SO2Il5Lu7rDNH6mZckBdrIx0orEtZV
      4bmp/YzhwvcubU4=;
Received: from client1.football.example.com  [192.0.2.1]
      by submitserver.example.com with SUBMISSION;
      Fri, 11 Jul 2003 21:01:54 -0700 (PDT)
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game. Are you hungry yet?

Joe.
";

const RFC6376_KEY: &str = "brisbane._domainkey.example.com TXT v=DKIM1; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQ\
    DwIRP/UC3SBsEmGqZ9ZJW3/DkMoGeLnQg1fWn7/zYtIxN2SnFCjxOCKG9v3b4jYfcTNh5ijSsq631uBItLa7od+v\
    /RtdC2UzJ1lWT947qR+Rcac2gbto/NMqJ0fzfVjH4OuKhitdY9tf6mcwGjaNBcWToIMmPSPDdQPNUYckcQ2QIDAQAB";

/// RFC 8463 appendix A.
const RFC8463: &str = "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==
DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=test; t=1528637909; h=from : to : subject :
 date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3
 DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz
 dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game.  Are you hungry yet?

Joe.
";

const RFC8463_KEYS: &str = "
    brisbane._domainkey.football.example.com TXT v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=
    test._domainkey.football.example.com TXT v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB";

fn wire(text: &str) -> Vec<u8> {
    text.replace('\n', "\r\n").into_bytes()
}

fn file(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/messages/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn keys() -> StaticResolver {
    zone(&String::from_utf8(file("keys.zone")).unwrap())
}

async fn dkim(resolver: &StaticResolver, message: &[u8]) -> Vec<(AuthOutcome, Option<String>)> {
    let found = verify(resolver, message).await;
    found.dkim.into_iter().map(|result| (result.outcome, result.reason)).collect()
}

fn pass() -> (AuthOutcome, Option<String>) {
    (AuthOutcome::Pass, None)
}

#[tokio::test]
async fn the_examples_of_the_rfcs_verify() {
    let found = verify(&zone(RFC6376_KEY), &wire(RFC6376)).await;
    assert_eq!(found.dkim.len(), 1);
    assert_eq!(
        (found.dkim[0].outcome, found.dkim[0].domain.as_str()),
        (AuthOutcome::Pass, "example.com"),
        "{found:?}"
    );
    assert_eq!(found.dkim[0].identity.as_deref(), Some("joe@football.example.com"));
    assert_eq!(dkim(&zone(RFC8463_KEYS), &wire(RFC8463)).await, [pass(), pass()]);
}

#[tokio::test]
async fn every_canonicalisation_verifies_and_notices_changes() {
    for name in [
        "rsa-simple-simple.eml",
        "rsa-simple-relaxed.eml",
        "rsa-relaxed-simple.eml",
        "rsa-relaxed-relaxed.eml",
        "ed25519.eml",
    ] {
        let message = String::from_utf8(file(name)).unwrap();
        assert_eq!(dkim(&keys(), message.as_bytes()).await, [pass()], "{name}");
        for (was, is) in
            [("second line", "second lime"), ("A   test", "A   best"), ("From: Ann", "From: Eve")]
        {
            let forged = message.replace(was, is);
            let found = dkim(&keys(), forged.as_bytes()).await;
            assert_eq!(found[0].0, AuthOutcome::Fail, "{name} {is}");
        }
        // From is signed once more than it occurs, so none can be added.
        let two = message.replacen("From:", "From: <eve@evil.example>\r\nFrom:", 1);
        assert_eq!(dkim(&keys(), two.as_bytes()).await[0].0, AuthOutcome::Fail, "{name}");
        let spaced = message.replace("First  line", "First \t line");
        let relaxed = name.ends_with("-relaxed.eml");
        assert_eq!(dkim(&keys(), spaced.as_bytes()).await[0].0 == AuthOutcome::Pass, relaxed, "{name}");
    }
}

#[tokio::test]
async fn a_large_message_verifies_as_a_small_one_does() {
    let message = String::from_utf8(file("rsa-relaxed-relaxed.eml")).unwrap();
    let padded = format!("{message}{}", "\r\n".repeat(200_000));
    assert_eq!(dkim(&keys(), padded.as_bytes()).await, [pass()], "empty lines at the end do not count");
}

#[tokio::test]
async fn white_space_counts_as_the_rfc_says() {
    // Lines of only white space at the end of a body are empty lines, and those do not count.
    for name in ["blank-line.eml", "blank-body.eml"] {
        assert_eq!(dkim(&keys(), &file(name)).await, [pass()], "{name}");
    }
    let indented = String::from_utf8(file("blank-line.eml")).unwrap().replace("second", " second");
    assert_eq!(dkim(&keys(), indented.as_bytes()).await[0].0, AuthOutcome::Fail);
    // White space before the colon is not part of the name.
    let message = String::from_utf8(file("rsa-relaxed-relaxed.eml")).unwrap();
    let spaced = message.replace("Subject:", "Subject \t:");
    assert_ne!(spaced, message);
    assert_eq!(dkim(&keys(), spaced.as_bytes()).await, [pass()]);
}

#[tokio::test]
async fn what_is_weak_or_not_meant_for_mail_is_refused() {
    for (name, outcome, reason) in [
        ("sha1.eml", AuthOutcome::PermError, "SHA-1"),
        ("weak.eml", AuthOutcome::Policy, "1,024"),
        ("web.eml", AuthOutcome::PermError, "not for"),
        ("old.eml", AuthOutcome::PermError, "not for"),
        ("gone.eml", AuthOutcome::PermError, "revoked"),
        ("missing.eml", AuthOutcome::PermError, "no such key"),
        ("length.eml", AuthOutcome::PermError, "l="),
    ] {
        let found = dkim(&keys(), &file(name)).await;
        assert_eq!(found.len(), 1, "{name}");
        assert_eq!(found[0].0, outcome, "{name}");
        assert!(found[0].1.as_deref().unwrap_or("").contains(reason), "{name}: {found:?}");
    }
}

#[tokio::test]
async fn broken_signatures_have_a_result_each() {
    let whole = String::from_utf8(file("rsa-relaxed-relaxed.eml")).unwrap();
    for (was, is) in [
        ("v=1", "v=2"),
        ("d=signer.example", "x=signer.example"),
        ("from", "fron"),
        ("d=signer.example", "d=signer.example; i=@other.example"),
        ("t=", "x=1500000000; t="),
        ("v=1", "v=1; a=rsa-md5"),
    ] {
        let broken = whole.replacen(was, is, 1);
        let found = dkim(&keys(), broken.as_bytes()).await;
        assert_eq!(found.len(), 1, "{is}");
        assert!(matches!(found[0].0, AuthOutcome::PermError | AuthOutcome::Fail), "{is}: {found:?}");
    }
    let message = whole.replace("from", "fron");
    assert_eq!(dkim(&keys(), message.as_bytes()).await[0].1.as_deref(), Some("From is not signed"));
}

#[tokio::test]
async fn keys_that_dns_does_not_give_now_are_a_temporary_error() {
    let resolver = fails(keys(), "r._domainkey.signer.example", DnsRecordKind::Txt);
    assert_eq!(dkim(&resolver, &file("rsa-simple-simple.eml")).await[0].0, AuthOutcome::TempError);
}

#[tokio::test]
async fn signatures_without_end_cost_ten_questions() {
    let one = "DKIM-Signature: v=1; a=rsa-sha256; d=d.example; s=sNUMBER; h=from; bh=AAAA; b=AAAA\r\n";
    let many: String = (0..500).map(|n| one.replace("NUMBER", &n.to_string())).collect();
    let resolver = zone("");
    let found = dkim(&resolver, format!("{many}From: a@a.example\r\n\r\nx\r\n").as_bytes()).await;
    assert_eq!(found.len(), 11);
    assert_eq!(found[10].0, AuthOutcome::Policy);
    assert_eq!(resolver.asked().len(), 10);
}

/// Anyone can add signatures above others: those of the author's domain are verified first.
#[tokio::test]
async fn a_good_signature_is_found_below_many_bad_ones() {
    let good = String::from_utf8(file("rsa-relaxed-relaxed.eml")).unwrap();
    let bad = "DKIM-Signature: v=1; a=rsa-sha256; d=d.example; s=s; h=from; bh=AAAA; b=AAAA\r\n".repeat(40);
    let found = verify(&keys(), format!("{bad}{good}").as_bytes()).await.dkim;
    assert_eq!(found.len(), 11);
    let passed: Vec<_> = found.iter().filter(|result| result.outcome == AuthOutcome::Pass).collect();
    assert_eq!(passed.iter().map(|result| result.domain.as_str()).collect::<Vec<_>>(), ["signer.example"]);
}

#[tokio::test]
async fn unsigned_messages_have_no_results() {
    let found = verify(&zone(""), b"From: a@a.example\r\n\r\nx\r\n").await;
    assert_eq!((found.dkim.len(), found.arc.outcome), (0, AuthOutcome::None));
}

#[tokio::test]
async fn chains_verify_and_name_their_sealers() {
    let one = verify(&keys(), &file("arc-1.eml")).await.arc;
    assert_eq!((one.outcome, one.reason), (AuthOutcome::Pass, None));
    assert_eq!(one.sealers, ["list.example"]);
    let two = verify(&keys(), &file("arc-2.eml")).await.arc;
    assert_eq!((two.outcome, two.reason), (AuthOutcome::Pass, None));
    assert_eq!(two.sealers, ["list.example", "forward.example"]);
}

#[tokio::test]
async fn broken_chains_fail_and_name_nobody() {
    let whole = String::from_utf8(file("arc-2.eml")).unwrap();
    for (was, is) in [
        ("second line", "second lime"),
        ("dkim=pass", "dkim=fail"),
        ("cv=none", "cv=pass"),
        ("cv=pass", "cv=fail"),
        ("ARC-Seal:", "X-Seal:"),
        ("i=1", "i=3"),
        ("i=2", "i=0"),
    ] {
        let forged = whole.replacen(was, is, 1);
        assert_ne!(forged, whole, "{was}");
        let found = verify(&keys(), forged.as_bytes()).await.arc;
        assert_eq!((found.outcome, found.sealers.len()), (AuthOutcome::Fail, 0), "{is}: {:?}", found.reason);
    }
    let resolver = fails(keys(), "r._domainkey.list.example", DnsRecordKind::Txt);
    assert_eq!(verify(&resolver, whole.as_bytes()).await.arc.outcome, AuthOutcome::TempError);
}
