//! DMARC by RFC 9989: alignment, policies, and where records are found.

use pintle_dns::DnsRecordKind;
use pintle_mail::{Bytes, HeaderBlock};
use pintle_sender_auth::{AuthOutcome, DkimResult, DmarcPolicy, DmarcResult, SpfIdentity, SpfResult, dmarc};
use pintle_testkit::StaticResolver;

use crate::support::{ask, fails, zone};

fn spf(domain: &str, outcome: AuthOutcome) -> SpfResult {
    SpfResult {
        outcome,
        domain: domain.to_owned(),
        identity: SpfIdentity::MailFrom,
        explanation: None,
        mechanism: None,
        reason: None,
    }
}

fn dkim(domain: &str, outcome: AuthOutcome) -> DkimResult {
    DkimResult {
        outcome,
        domain: domain.to_owned(),
        selector: "s".to_owned(),
        identity: None,
        algorithm: "rsa-sha256",
        signature: String::new(),
        reason: None,
    }
}

async fn check(resolver: &StaticResolver, from: &str, spf: &[SpfResult], dkim: &[DkimResult]) -> DmarcResult {
    let header = HeaderBlock::parse(Bytes::from(format!("From: <x@{from}>\r\n")));
    dmarc::check(ask(resolver), &header, spf, dkim).await
}

#[tokio::test]
async fn alignment_is_as_the_owner_wants_it() {
    // (record, author, SPF domain, DKIM domain, aligned by SPF, aligned by DKIM)
    for (tags, author, sender, signer, by_spf, by_dkim) in [
        ("", "a.example", "a.example", "other.example", true, false),
        ("", "a.example", "mail.a.example", "x.y.a.example", true, true),
        ("", "news.a.example", "a.example", "mail.a.example", true, true),
        ("; aspf=s", "a.example", "mail.a.example", "mail.a.example", false, true),
        ("; adkim=s", "a.example", "mail.a.example", "mail.a.example", true, false),
        ("; aspf=s; adkim=s", "a.example", "A.example", "a.example.", true, true),
        ("", "a.example", "bada.example", "example", false, false),
        ("", "a.example", "other.example", "a.example.evil.example", false, false),
    ] {
        let resolver = zone(&format!("_dmarc.a.example TXT v=DMARC1; p=reject{tags}"));
        let results = (spf(sender, AuthOutcome::Pass), dkim(signer, AuthOutcome::Pass));
        let result = check(&resolver, author, &[results.0], &[results.1]).await;
        assert_eq!(
            (result.spf_aligned, result.dkim_aligned),
            (by_spf, by_dkim),
            "{author} {sender} {signer} {tags}"
        );
        let outcome = if by_spf || by_dkim { AuthOutcome::Pass } else { AuthOutcome::Fail };
        assert_eq!((result.outcome, result.policy), (outcome, DmarcPolicy::Reject));
    }
}

#[tokio::test]
async fn what_did_not_pass_aligns_nothing() {
    let resolver = zone("_dmarc.a.example TXT v=DMARC1; p=quarantine");
    for outcome in [
        AuthOutcome::None,
        AuthOutcome::Neutral,
        AuthOutcome::Fail,
        AuthOutcome::SoftFail,
        AuthOutcome::Policy,
        AuthOutcome::PermError,
    ] {
        let result =
            check(&resolver, "a.example", &[spf("a.example", outcome)], &[dkim("a.example", outcome)]).await;
        assert_eq!(result.outcome, AuthOutcome::Fail, "{outcome}");
    }
    let unsure = check(&resolver, "a.example", &[spf("a.example", AuthOutcome::TempError)], &[]).await;
    assert_eq!(unsure.outcome, AuthOutcome::TempError);
    let elsewhere = check(&resolver, "a.example", &[spf("b.example", AuthOutcome::TempError)], &[]).await;
    assert_eq!(elsewhere.outcome, AuthOutcome::Fail);
    let one = [
        dkim("a.example", AuthOutcome::Fail),
        dkim("b.example", AuthOutcome::Pass),
        dkim("a.example", AuthOutcome::Pass),
    ];
    assert_eq!(check(&resolver, "a.example", &[], &one).await.outcome, AuthOutcome::Pass);
}

#[tokio::test]
async fn policies_come_from_the_record_that_applies() {
    use DmarcPolicy::{None, Quarantine, Reject};
    let there = "there.a.example A 192.0.2.1\n";
    for (records, author, outcome, policy) in [
        ("_dmarc.a.example TXT v=DMARC1; p=reject", "a.example", AuthOutcome::Fail, Reject),
        ("_dmarc.a.example TXT v=DMARC1; p=none; sp=reject", "there.a.example", AuthOutcome::Fail, Reject),
        (
            "_dmarc.a.example TXT v=DMARC1; p=none; sp=quarantine; np=reject",
            "there.a.example",
            AuthOutcome::Fail,
            Quarantine,
        ),
        (
            "_dmarc.a.example TXT v=DMARC1; p=none; sp=quarantine; np=reject",
            "gone.a.example",
            AuthOutcome::Fail,
            Reject,
        ),
        (
            "_dmarc.there.a.example TXT v=DMARC1; p=none\n_dmarc.a.example TXT v=DMARC1; p=reject",
            "there.a.example",
            AuthOutcome::Fail,
            None,
        ),
        ("_dmarc.a.example TXT v=DMARC1; p=reject; t=y", "a.example", AuthOutcome::Fail, Quarantine),
        ("_dmarc.a.example TXT v=DMARC1; p=quarantine; pct=0", "a.example", AuthOutcome::Fail, None),
        ("_dmarc.a.example TXT v=DMARC1; p=reject; pct=20", "a.example", AuthOutcome::Fail, Reject),
        (
            "_dmarc.a.example TXT v=DMARC1; p=reject\n_dmarc.a.example TXT v=DMARC1; p=none",
            "a.example",
            AuthOutcome::None,
            None,
        ),
        ("_dmarc.a.example TXT v=spf1 all", "a.example", AuthOutcome::None, None),
        ("", "a.example", AuthOutcome::None, None),
        ("_dmarc.example TXT v=DMARC1; p=reject; psd=y; np=reject", "a.example", AuthOutcome::Fail, Reject),
    ] {
        let resolver = zone(&format!("{there}{records}"));
        let result = check(&resolver, author, &[], &[]).await;
        assert_eq!((result.outcome, result.policy), (outcome, policy), "{records} {author}");
    }
}

#[tokio::test]
async fn a_public_suffix_is_no_organisation() {
    let resolver =
        zone("_dmarc.co.example TXT v=DMARC1; p=none; psd=y\n_dmarc.shop.co.example TXT v=DMARC1; p=reject");
    let sibling = [spf("other.co.example", AuthOutcome::Pass)];
    let result = check(&resolver, "shop.co.example", &sibling, &[]).await;
    assert_eq!((result.outcome, result.policy), (AuthOutcome::Fail, DmarcPolicy::Reject));
    let own = [spf("mail.shop.co.example", AuthOutcome::Pass)];
    assert_eq!(check(&resolver, "shop.co.example", &own, &[]).await.outcome, AuthOutcome::Pass);
    let declared =
        zone("_dmarc.own.a.example TXT v=DMARC1; p=reject; psd=n\n_dmarc.a.example TXT v=DMARC1; p=none");
    let above = [spf("a.example", AuthOutcome::Pass)];
    assert_eq!(check(&declared, "own.a.example", &above, &[]).await.outcome, AuthOutcome::Fail);
}

#[tokio::test]
async fn dns_in_trouble_is_a_temporary_error() {
    let resolver = fails(zone(""), "_dmarc.a.example", DnsRecordKind::Txt);
    let result = check(&resolver, "a.example", &[spf("a.example", AuthOutcome::Pass)], &[]).await;
    assert_eq!((result.outcome, result.from_domain.as_str()), (AuthOutcome::TempError, "a.example"));
}

#[tokio::test]
async fn several_from_fields_are_a_permanent_error_whatever_passes() {
    let resolver = zone("_dmarc.a.example TXT v=DMARC1; p=none");
    let header = HeaderBlock::parse(Bytes::from_static(b"From: <x@a.example>\r\nfrom: <x@b.example>\r\n"));
    let result = dmarc::check(ask(&resolver), &header, &[spf("a.example", AuthOutcome::Pass)], &[]).await;
    assert_eq!(result.outcome, AuthOutcome::PermError);
    assert_eq!(result.reason.as_deref(), Some("there are several From fields"));
    assert!(resolver.asked().is_empty());
}
