//! SPF by the rules of RFC 7208, section by section.

use pintle_dns::DnsRecordKind;
use pintle_sender_auth::{AuthOutcome, SpfIdentity};

use crate::support::{fails, mail_from, spf_of, zone};

/// Each record with its result, checked for 192.0.2.1 (or another client).
async fn expect(hosts: &str, cases: &[(&str, &str, AuthOutcome)]) {
    for (record, client, outcome) in cases {
        let resolver = zone(&format!("a.example TXT v=spf1 {record}\n{hosts}"));
        let result = mail_from(&resolver, client, "joe@a.example").await;
        assert_eq!(result.outcome, *outcome, "{record} {client}: {:?}", result.reason);
    }
}

const HOSTS: &str = "
    a.example A 192.0.2.1
    a.example AAAA 2001:db8::1
    a.example MX mx.a.example
    mx.a.example A 192.0.2.2
    mx.a.example AAAA 2001:db8::2
    b.example TXT v=spf1 ip4:192.0.2.9 -all
    soft.example TXT v=spf1 ~all
    bad.example TXT v=spf1 moo
    loop.example TXT v=spf1 include:loop.example
    9.2.0.192.in-addr.arpa PTR host.a.example
    host.a.example A 192.0.2.9
    8.2.0.192.in-addr.arpa PTR liar.a.example
    liar.a.example A 192.0.2.99
    1.2.0.192.in-addr._spf.a.example A 127.0.0.2
    only6.example AAAA 2001:db8::9";

#[tokio::test]
async fn mechanisms_match_as_section_5_says() {
    use AuthOutcome::{Fail, Neutral, Pass, PermError, SoftFail};
    expect(
        HOSTS,
        &[
            ("-all", "192.0.2.1", Fail),
            ("~all", "192.0.2.1", SoftFail),
            ("?all", "192.0.2.1", Neutral),
            ("all", "192.0.2.1", Pass),
            ("", "192.0.2.1", Neutral),
            ("a -all", "192.0.2.1", Pass),
            ("a -all", "2001:db8::1", Pass),
            ("a -all", "::ffff:192.0.2.1", Pass),
            ("a -all", "192.0.2.3", Fail),
            ("a/24 -all", "192.0.2.3", Pass),
            ("a/24//64 -all", "2001:db8::77", Pass),
            ("a/0 -all", "203.0.113.1", Pass),
            ("a:mx.a.example -all", "192.0.2.2", Pass),
            ("mx -all", "192.0.2.2", Pass),
            ("mx -all", "192.0.2.1", Fail),
            ("mx//120 -all", "2001:db8::5", Pass),
            ("ip4:192.0.2.0/24 -all", "192.0.2.200", Pass),
            ("ip4:192.0.2.0/24 -all", "2001:db8::1", Fail),
            ("ip6:2001:db8::/32 -all", "2001:db8:1::1", Pass),
            ("include:b.example -all", "192.0.2.9", Pass),
            ("include:b.example ~all", "192.0.2.1", SoftFail),
            ("include:soft.example -all", "192.0.2.1", Fail),
            ("include:nothing.example -all", "192.0.2.1", PermError),
            ("include:bad.example -all", "192.0.2.1", PermError),
            ("include:loop.example -all", "192.0.2.1", PermError),
            ("ptr -all", "192.0.2.9", Pass),
            ("ptr -all", "192.0.2.8", Fail),
            ("ptr:b.example -all", "192.0.2.9", Fail),
            ("exists:%{ir}.%{v}._spf.%{d} -all", "192.0.2.1", Pass),
            ("exists:%{ir}.%{v}._spf.%{d} -all", "192.0.2.2", Fail),
            ("exists:only6.example -all", "2001:db8::9", Fail),
            ("redirect=b.example", "192.0.2.9", Pass),
            ("redirect=b.example", "192.0.2.1", Fail),
            ("redirect=nothing.example", "192.0.2.1", PermError),
            ("all redirect=nothing.example", "192.0.2.1", Pass),
            ("a -all moo", "192.0.2.1", PermError),
            ("all:x", "192.0.2.1", PermError),
        ],
    )
    .await;
}

#[tokio::test]
async fn records_are_found_as_section_4_says() {
    for (records, outcome) in [
        ("a.example A 192.0.2.1", AuthOutcome::None),
        ("a.example TXT something else", AuthOutcome::None),
        ("a.example TXT v=spf10 all", AuthOutcome::None),
        ("a.example TXT V=SPF1 ALL\na.example TXT other", AuthOutcome::Pass),
        ("a.example TXT v=spf1 all\na.example TXT v=spf1 all", AuthOutcome::PermError),
    ] {
        let result = mail_from(&zone(records), "192.0.2.1", "joe@a.example").await;
        assert_eq!(result.outcome, outcome, "{records}");
    }
    for domain in ["localhost", "[192.0.2.1]", &"x".repeat(64), ""] {
        let result = mail_from(&zone(""), "192.0.2.1", &format!("joe@{domain}")).await;
        assert_eq!(result.outcome, AuthOutcome::None, "{domain}");
    }
}

#[tokio::test]
async fn both_identities_are_checked() {
    let resolver = zone("mx.hello.example TXT v=spf1 -all\na.example TXT v=spf1 all");
    let results = spf_of(&resolver, "192.0.2.1", "joe@a.example").await;
    let seen: Vec<_> = results.iter().map(|r| (r.identity, r.outcome, r.domain.as_str())).collect();
    assert_eq!(
        seen,
        [
            (SpfIdentity::Hello, AuthOutcome::Fail, "mx.hello.example"),
            (SpfIdentity::MailFrom, AuthOutcome::Pass, "a.example"),
        ]
    );
    let null = spf_of(&resolver, "192.0.2.1", "").await;
    assert_eq!(null.len(), 1);
    assert_eq!(null[0].identity, SpfIdentity::Hello);
}

#[tokio::test]
async fn the_limits_hold_over_all_records() {
    let includes = |count: usize| (0..count).map(|n| format!("include:i{n}.example ")).collect::<String>();
    let hosts: String = (0..12).map(|n| format!("i{n}.example TXT v=spf1 ip4:203.0.113.1\n")).collect();
    expect(
        &hosts,
        &[
            (&format!("{}all", includes(10)), "192.0.2.1", AuthOutcome::Pass),
            (&format!("{}all", includes(11)), "192.0.2.1", AuthOutcome::PermError),
            (&format!("all {}", includes(11)), "192.0.2.1", AuthOutcome::Pass),
            ("a:v1.example a:v2.example all", "192.0.2.1", AuthOutcome::Pass),
            ("a:v1.example exists:v2.example mx:v3.example all", "192.0.2.1", AuthOutcome::PermError),
            ("mx:many.example all", "192.0.2.1", AuthOutcome::Pass),
        ],
    )
    .await;
    let many: String = (0..11).map(|n| format!("many.example MX m{n}.example\n")).collect();
    expect(&many, &[("mx:many.example all", "192.0.2.1", AuthOutcome::PermError)]).await;
}

#[tokio::test]
async fn what_dns_fails_to_say_is_temporary_and_where_it_does_not_matter_ignored() {
    for (record, name, kind, outcome) in [
        ("all", "a.example", DnsRecordKind::Txt, AuthOutcome::TempError),
        ("a:h.example all", "h.example", DnsRecordKind::A, AuthOutcome::TempError),
        ("mx:h.example all", "h.example", DnsRecordKind::Mx, AuthOutcome::TempError),
        ("include:h.example all", "h.example", DnsRecordKind::Txt, AuthOutcome::TempError),
        ("exists:h.example all", "h.example", DnsRecordKind::A, AuthOutcome::TempError),
        ("redirect=h.example", "h.example", DnsRecordKind::Txt, AuthOutcome::TempError),
        ("ptr ?all", "1.2.0.192.in-addr.arpa", DnsRecordKind::Ptr, AuthOutcome::Neutral),
        ("ip4:192.0.2.1 a:h.example", "h.example", DnsRecordKind::A, AuthOutcome::Pass),
    ] {
        let resolver = fails(zone(&format!("a.example TXT v=spf1 {record}")), name, kind);
        let result = mail_from(&resolver, "192.0.2.1", "joe@a.example").await;
        assert_eq!(result.outcome, outcome, "{record}");
    }
}

#[tokio::test]
async fn a_fail_is_explained_in_the_owners_words() {
    let explained = |zone_text: &'static str| async move {
        let result = mail_from(&zone(zone_text), "192.0.2.1", "joe@a.example").await;
        assert_eq!(result.outcome, AuthOutcome::Fail);
        result.explanation
    };
    let text = explained(
        "a.example TXT v=spf1 -all exp=why.a.example\nwhy.a.example TXT %{i} may not send as %{s}, see http://%{d}/?%{L}",
    );
    assert_eq!(
        text.await.as_deref(),
        Some("192.0.2.1 may not send as joe@a.example, see http://a.example/?joe")
    );
    // Section 6.2: the explanation of a record that is redirected to is its own; an included record gives none.
    let redirected = "a.example TXT v=spf1 redirect=b.example exp=why.a.example\nwhy.a.example TXT wrong
        b.example TXT v=spf1 -all exp=why.b.example\nwhy.b.example TXT right";
    assert_eq!(explained(redirected).await.as_deref(), Some("right"));
    for silent in [
        "a.example TXT v=spf1 -all",
        "a.example TXT v=spf1 -all exp=why.a.example",
        "a.example TXT v=spf1 -all exp=why.a.example\nwhy.a.example TXT a\nwhy.a.example TXT b",
        "a.example TXT v=spf1 -all exp=why.a.example\nwhy.a.example TXT %{x}",
        "a.example TXT v=spf1 -all exp=why.a.example\nwhy.a.example TXT \u{e9}\r",
    ] {
        assert_eq!(explained(silent).await, None, "{silent}");
    }
}

#[tokio::test]
async fn the_clients_name_is_used_only_when_it_is_confirmed() {
    let resolver = zone(&format!(
        "a.example TXT v=spf1 exists:%{{p}}.ok.example -all\nhost.a.example.ok.example A 127.0.0.1\n{HOSTS}"
    ));
    assert_eq!(mail_from(&resolver, "192.0.2.9", "joe@a.example").await.outcome, AuthOutcome::Pass);
    let liar = mail_from(&resolver, "192.0.2.8", "joe@a.example").await;
    assert_eq!(liar.outcome, AuthOutcome::Fail);
    assert!(resolver.asked().iter().any(|(name, _)| name == "unknown.ok.example"));
}
