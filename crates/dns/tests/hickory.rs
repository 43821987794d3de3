//! Tests of the real resolver with a name server that can fail on purpose.

use std::time::Duration;

use pintle_dns::{
    Config, DnsAnswer, DnsError, DnsRecord, DnsRecordKind, Exchanger, HickoryResolver, MailRoute,
    NameServers, Resolver, ReverseNames, addresses, lookup_many, mail_exchangers, query_lists, reverse_names,
};
use pintle_testkit::{ELSEWHERE, FLOOD, HUGE, ZoneFault, ZoneServer};

const ZONE: &str = r#"
    example.            MX    20 second.example.
    example.            MX    10 First.example.
    example.            TXT   "v=spf1 " "-all"
    example.            NS    ns.example.
    first.example.      A     192.0.2.1
    first.example.      A     192.0.2.2
    first.example.      AAAA  2001:db8::1
    second.example.     A     192.0.2.3
    null.example.       MX    0 .
    plain.example.      A     192.0.2.4
    www.example.        CNAME alias.example.
    alias.example.      CNAME first.example.
    mailalias.example.  CNAME example.
    dangling.example.   CNAME nowhere.example.
    round.example.      CNAME and.round.example.
    and.round.example.  CNAME round.example.
    _25._tcp.first.example.        TLSA  3 1 1 0a0b0c
    _submission._tcp.example.      SRV   0 5 587 first.example.
    1.2.0.192.in-addr.arpa.        PTR   first.example.
    1.2.0.192.in-addr.arpa.        PTR   liar.example.
    3.2.0.192.in-addr.arpa.        PTR   plain.example.
    liar.example.                  A     192.0.2.99
    1.2.0.192.list.example.        A     127.0.0.2
"#;

async fn start() -> (ZoneServer, HickoryResolver) {
    let server = ZoneServer::start(ZONE).await;
    let resolver = resolver(&server);
    (server, resolver)
}

/// Short time limits, for tests in which no server answers; loopback answers well within them.
fn resolver(server: &ZoneServer) -> HickoryResolver {
    let config = Config { timeout: Duration::from_secs(2), attempts: 1, ..server.config() };
    HickoryResolver::new(&config).expect("a resolver")
}

async fn texts(resolver: &HickoryResolver, name: &str, kind: DnsRecordKind) -> Result<Vec<String>, DnsError> {
    let answer = resolver.lookup(name, kind).await?;
    Ok(answer.records.iter().map(ToString::to_string).collect())
}

#[tokio::test]
async fn every_kind_comes_in_its_presentation_form() {
    let (_server, resolver) = start().await;
    let cases = [
        ("second.example", DnsRecordKind::A, "192.0.2.3"),
        ("first.example", DnsRecordKind::Aaaa, "2001:db8::1"),
        ("null.example.", DnsRecordKind::Mx, "0 ."),
        ("example", DnsRecordKind::Txt, "v=spf1 -all"),
        ("example", DnsRecordKind::Ns, "ns.example"),
        ("www.example", DnsRecordKind::Cname, "alias.example"),
        ("3.2.0.192.in-addr.arpa", DnsRecordKind::Ptr, "plain.example"),
        ("_submission._tcp.example", DnsRecordKind::Srv, "0 5 587 first.example"),
        ("_25._tcp.first.example", DnsRecordKind::Tlsa, "3 1 1 0a0b0c"),
    ];
    for (name, kind, text) in cases {
        assert_eq!(texts(&resolver, name, kind).await, Ok(vec![text.to_owned()]), "{name} {kind}");
    }
}

#[tokio::test]
async fn aliases_are_followed_to_their_end() {
    let (_server, resolver) = start().await;
    assert_eq!(texts(&resolver, "www.example", DnsRecordKind::Aaaa).await, Ok(vec!["2001:db8::1".into()]));
    let through = mail_exchangers(&resolver, "mailalias.example", 1).await;
    assert_eq!(through, mail_exchangers(&resolver, "example", 1).await);
    assert_eq!(texts(&resolver, "dangling.example", DnsRecordKind::A).await, Err(DnsError::NxDomain));
    let circle = texts(&resolver, "round.example", DnsRecordKind::A).await;
    assert!(circle.is_err(), "{circle:?}");
}

/// An oversized answer does not say that there is nothing, which would send the mail elsewhere or bounce it.
#[tokio::test]
async fn more_aliases_than_are_followed_are_no_denial() {
    let (server, resolver) = start().await;
    let chain: String = (0..30).map(|i| format!("a{i}.example. CNAME a{}.example.\n", i + 1)).collect();
    server.serve(&format!("{chain}a30.example. A 192.0.2.9\na30.example. MX 10 a30.example."));
    for kind in [DnsRecordKind::A, DnsRecordKind::Mx] {
        let failed = texts(&resolver, "a0.example", kind).await;
        assert!(failed.as_ref().is_err_and(|error| error.is_temporary()), "{failed:?}");
    }
}

#[tokio::test]
async fn failures_are_told_apart() {
    let (server, resolver) = start().await;
    let faults = [
        (ZoneFault::ServFail, DnsError::ServFail),
        (ZoneFault::Refused, DnsError::Refused),
        (ZoneFault::NxDomain, DnsError::NxDomain),
        (ZoneFault::NoData, DnsError::NoData),
        // A referral does not say that there is nothing.
        (ZoneFault::Referral, DnsError::Refused),
        // Nor does an answer about other names, or one that loops.
        (ZoneFault::WrongOwner, DnsError::ServFail),
        (ZoneFault::AliasLoop, DnsError::ServFail),
        (ZoneFault::Silent, DnsError::Timeout),
    ];
    for (i, (fault, error)) in faults.into_iter().enumerate() {
        let name = format!("fault{i}.example");
        server.fail(&name, fault);
        assert_eq!(resolver.lookup(&name, DnsRecordKind::A).await, Err(error), "{fault:?}");
    }
    assert_eq!(resolver.lookup("missing.example", DnsRecordKind::A).await, Err(DnsError::NxDomain));
    assert_eq!(resolver.lookup("plain.example", DnsRecordKind::Mx).await, Err(DnsError::NoData));
    assert_eq!(resolver.lookup("a..example", DnsRecordKind::A).await, Err(DnsError::InvalidName));
}

#[tokio::test]
async fn garbage_is_a_temporary_failure() {
    let (server, resolver) = start().await;
    server.fail("plain.example", ZoneFault::Garbage);
    let error = resolver.lookup("plain.example", DnsRecordKind::A).await.expect_err("no answer");
    assert!(error.is_temporary(), "{error}");
}

#[tokio::test]
async fn nobody_listening_is_temporary() {
    let server = ZoneServer::start(ZONE).await;
    let resolver = resolver(&server);
    drop(server);
    let error = resolver.lookup("plain.example", DnsRecordKind::A).await.expect_err("no answer");
    assert!(error.is_temporary(), "{error}");
}

#[tokio::test]
async fn a_lookup_ends_within_its_deadline() {
    let server = ZoneServer::start(ZONE).await;
    server.fail("plain.example", ZoneFault::Silent);
    let patient = Config {
        timeout: Duration::from_secs(3_600),
        attempts: 5,
        deadline: Duration::from_millis(50),
        ..server.config()
    };
    let resolver = HickoryResolver::new(&patient).expect("a resolver");
    assert_eq!(resolver.lookup("plain.example", DnsRecordKind::A).await, Err(DnsError::Timeout));
}

#[tokio::test]
async fn what_does_not_fit_comes_over_tcp() {
    let (server, resolver) = start().await;
    let many: String = (0..250).map(|i| format!("big.example. A 192.0.2.{i}\n")).collect();
    server.serve(&format!("{many}cut.example. A 192.0.2.9"));
    assert_eq!(texts(&resolver, "big.example", DnsRecordKind::A).await.map(|list| list.len()), Ok(250));
    server.fail("cut.example", ZoneFault::Truncated);
    assert_eq!(texts(&resolver, "cut.example", DnsRecordKind::A).await, Ok(vec!["192.0.2.9".into()]));
    assert!(server.asked().iter().any(|asked| asked.name == "cut.example" && asked.tcp));
}

#[tokio::test]
async fn answers_and_denials_are_kept_and_failures_are_not() {
    let (server, resolver) = start().await;
    for _ in 0..3 {
        let answer = resolver.lookup("plain.example", DnsRecordKind::A).await.expect("an address");
        assert!((1..=300).contains(&answer.ttl.as_secs()), "{:?}", answer.ttl);
        assert_eq!(resolver.lookup("missing.example", DnsRecordKind::A).await, Err(DnsError::NxDomain));
        assert_eq!(resolver.lookup("plain.example", DnsRecordKind::Txt).await, Err(DnsError::NoData));
    }
    assert_eq!(server.count("plain.example", DnsRecordKind::A), 1);
    assert_eq!(server.count("missing.example", DnsRecordKind::A), 1);
    assert_eq!(server.count("plain.example", DnsRecordKind::Txt), 1);

    server.fail("second.example", ZoneFault::ServFail);
    assert_eq!(resolver.lookup("second.example", DnsRecordKind::A).await, Err(DnsError::ServFail));
    server.heal("second.example");
    assert!(resolver.lookup("second.example", DnsRecordKind::A).await.is_ok());
}

#[tokio::test]
async fn no_search_list_completes_a_name() {
    let (server, resolver) = start().await;
    assert_eq!(resolver.lookup("first", DnsRecordKind::A).await, Err(DnsError::NxDomain));
    assert!(server.asked().iter().all(|asked| asked.name == "first"), "{:?}", server.asked());
}

#[tokio::test]
async fn mail_goes_to_the_exchangers_or_to_the_domain_or_nowhere() {
    let (server, resolver) = start().await;
    let mx = |preference, host: &str| Exchanger { preference, host: host.into(), implicit: false };
    let both = MailRoute::Exchangers(vec![mx(10, "first.example"), mx(20, "second.example")]);
    assert_eq!(mail_exchangers(&resolver, "example", 4).await, Ok(both));
    assert_eq!(mail_exchangers(&resolver, "null.example", 4).await, Ok(MailRoute::NullMx));
    let implicit = Exchanger { preference: 0, host: "plain.example".into(), implicit: true };
    assert_eq!(
        mail_exchangers(&resolver, "plain.example.", 4).await,
        Ok(MailRoute::Exchangers(vec![implicit]))
    );
    assert_eq!(mail_exchangers(&resolver, "missing.example", 4).await, Err(DnsError::NxDomain));
    // A failing server must never be treated as a domain without MX records.
    server.fail_kind("second.example", DnsRecordKind::Mx, ZoneFault::ServFail);
    assert_eq!(mail_exchangers(&resolver, "second.example", 4).await, Err(DnsError::ServFail));
}

#[tokio::test]
async fn addresses_take_turns_and_one_family_is_enough() {
    let (server, resolver) = start().await;
    let all = addresses(&resolver, "first.example").await.expect("addresses");
    assert_eq!(all[0].to_string(), "2001:db8::1");
    let mut v4: Vec<String> = all[1..].iter().map(ToString::to_string).collect();
    v4.sort();
    assert_eq!(v4, ["192.0.2.1", "192.0.2.2"]);

    server.fail_kind("second.example", DnsRecordKind::Aaaa, ZoneFault::ServFail);
    assert_eq!(
        addresses(&resolver, "second.example").await,
        Ok(vec!["192.0.2.3".parse().expect("an address")])
    );
    server.fail_kind("ns.example", DnsRecordKind::Aaaa, ZoneFault::ServFail);
    server.fail_kind("ns.example", DnsRecordKind::A, ZoneFault::NoData);
    assert_eq!(addresses(&resolver, "ns.example").await, Err(DnsError::ServFail));
    assert_eq!(addresses(&resolver, "example").await, Err(DnsError::NoData));
    assert_eq!(addresses(&resolver, "missing.example").await, Err(DnsError::NxDomain));
    assert_eq!(addresses(&resolver, "::1").await, Ok(vec!["::1".parse().expect("an address")]));
}

#[tokio::test]
async fn only_names_that_lead_back_are_believed() {
    let (server, resolver) = start().await;
    let ask = async |address: &str, limit| {
        reverse_names(&resolver, address.parse().expect("an address"), limit).await
    };
    let confirmed = ReverseNames::Confirmed(vec!["first.example".into()]);
    assert_eq!(ask("192.0.2.1", 10).await, Ok(confirmed.clone()));
    assert_eq!(ask("::ffff:192.0.2.1", 10).await, Ok(confirmed));
    assert_eq!(ask("192.0.2.3", 10).await, Ok(ReverseNames::Unconfirmed));
    assert_eq!(ask("192.0.2.1", 0).await, Ok(ReverseNames::Unconfirmed));
    assert_eq!(ask("192.0.2.77", 10).await, Ok(ReverseNames::Unnamed));
    server.fail("88.2.0.192.in-addr.arpa", ZoneFault::ServFail);
    assert_eq!(ask("192.0.2.88", 10).await, Err(DnsError::ServFail));
}

#[tokio::test]
async fn many_questions_are_answered_in_their_order() {
    let (_server, resolver) = start().await;
    let questions = [("missing.example", DnsRecordKind::A), ("plain.example", DnsRecordKind::A)];
    let questions = questions.map(|(name, kind)| (name.to_owned(), kind));
    let answers = lookup_many(&resolver, &questions).await;
    let plain = DnsRecord::A("192.0.2.4".parse().expect("an address"));
    assert_eq!(answers[0], Err(DnsError::NxDomain));
    assert!(matches!(&answers[1], Ok(DnsAnswer { records, .. }) if *records == [plain]));

    let zones = ["list.example".to_owned(), "other.example".to_owned()];
    let lists = query_lists(&resolver, "192.0.2.1".parse().expect("an address"), &zones).await;
    assert_eq!(lists[0].as_ref().map(|answer| answer.records[0].to_string()), Ok("127.0.0.2".into()));
    assert_eq!(lists[1], Err(DnsError::NxDomain));
}

#[tokio::test]
async fn a_second_server_helps_when_the_first_is_silent() {
    let silent = ZoneServer::start(ZONE).await;
    silent.fail("plain.example", ZoneFault::Silent);
    let (server, _) = start().await;
    let servers = NameServers::List(vec![silent.address(), server.address()]);
    let config = Config { servers, timeout: Duration::from_secs(2), ..silent.config() };
    let resolver = HickoryResolver::new(&config).expect("a resolver");
    assert_eq!(texts(&resolver, "plain.example", DnsRecordKind::A).await, Ok(vec!["192.0.2.4".into()]));
}

/// Of several servers, a bad one must not be the only one that counts.
#[tokio::test]
async fn a_second_server_helps_when_the_first_fails() {
    for fault in [ZoneFault::ServFail, ZoneFault::Refused, ZoneFault::Referral] {
        let bad = ZoneServer::start(ZONE).await;
        for name in ["plain.example", "missing.example"] {
            bad.fail(name, fault);
        }
        let (server, _) = start().await;
        let servers = NameServers::List(vec![bad.address(), server.address()]);
        let resolver = HickoryResolver::new(&Config { servers, ..bad.config() }).expect("a resolver");
        let found = texts(&resolver, "plain.example", DnsRecordKind::A).await;
        assert_eq!(found, Ok(vec!["192.0.2.4".into()]), "{fault:?}");
        let missing = resolver.lookup("missing.example", DnsRecordKind::A).await;
        assert_eq!(missing, Err(DnsError::NxDomain), "{fault:?}");
    }
}

/// RFC 6891 section 7: FORMERR and NOTIMP mean that the server does not support EDNS.
#[tokio::test]
async fn a_server_without_edns_is_asked_without_it() {
    let (server, resolver) = start().await;
    server.fail("plain.example", ZoneFault::NoEdns);
    assert_eq!(texts(&resolver, "plain.example", DnsRecordKind::A).await, Ok(vec!["192.0.2.4".into()]));
}

#[tokio::test]
async fn a_burst_of_questions_is_answered_and_equal_ones_are_asked_once() {
    let (server, resolver) = start().await;
    let hosts: String = (0..300).map(|i| format!("h{i}.example. A 192.0.2.{}\n", i % 250)).collect();
    server.serve(&hosts);
    let distinct: Vec<_> = (0..300).map(|i| (format!("h{i}.example"), DnsRecordKind::A)).collect();
    let answers = lookup_many(&resolver, &distinct).await;
    let failed: Vec<_> = answers.iter().filter(|answer| answer.is_err()).collect();
    assert!(failed.is_empty(), "{failed:?}");

    let equal = vec![("missing.example".to_owned(), DnsRecordKind::A); 50];
    let answers = lookup_many(&resolver, &equal).await;
    assert!(answers.iter().all(|answer| *answer == Err(DnsError::NxDomain)), "{answers:?}");
    assert_eq!(server.count("missing.example", DnsRecordKind::A), 1);
}

#[tokio::test]
async fn the_operator_may_shorten_what_is_kept() {
    let server = ZoneServer::start(ZONE).await;
    let short = Config { max_ttl: Duration::ZERO, max_negative_ttl: Duration::ZERO, ..server.config() };
    let resolver = HickoryResolver::new(&short).expect("a resolver");
    for _ in 0..2 {
        let kept = resolver.lookup("plain.example", DnsRecordKind::A).await.expect("an address");
        assert_eq!(kept.records.len(), 1);
        assert_eq!(resolver.lookup("missing.example", DnsRecordKind::A).await, Err(DnsError::NxDomain));
    }
    assert_eq!(server.count("plain.example", DnsRecordKind::A), 2);
    assert_eq!(server.count("missing.example", DnsRecordKind::A), 2);
}

#[tokio::test]
async fn answers_about_others_are_never_believed() {
    let (server, resolver) = start().await;
    for fault in [ZoneFault::WrongOwner, ZoneFault::WrongQuestion, ZoneFault::AliasLoop] {
        server.fail("example", fault);
        assert!(resolver.lookup("example", DnsRecordKind::A).await.is_err(), "{fault:?}");
        server.heal("example");
    }
    server.fail("second.example", ZoneFault::Poisoned);
    assert_eq!(texts(&resolver, "second.example", DnsRecordKind::A).await, Ok(vec!["192.0.2.3".to_owned()]));
    assert_eq!(
        texts(&resolver, ELSEWHERE, DnsRecordKind::A).await,
        Err(DnsError::NxDomain),
        "and nothing is kept"
    );
}

#[tokio::test]
async fn what_is_no_answer_is_a_failure_and_healed_names_are_well_at_once() {
    let (server, _) = start().await;
    for fault in [ZoneFault::WrongId, ZoneFault::Garbage, ZoneFault::TruncatedAlone, ZoneFault::Overcount] {
        let resolver = resolver(&server);
        server.fail("first.example", fault);
        let failed = resolver.lookup("first.example", DnsRecordKind::A).await;
        assert!(failed.as_ref().is_err_and(|error| error.is_temporary()), "{fault:?}: {failed:?}");
        server.heal("first.example");
        assert_eq!(texts(&resolver, "first.example", DnsRecordKind::A).await.map(|found| found.len()), Ok(2));
    }
}

#[tokio::test]
async fn answers_of_any_size_arrive() {
    let (server, resolver) = start().await;
    server.fail("first.example", ZoneFault::Flood);
    let flood = resolver.lookup("first.example", DnsRecordKind::A).await.expect("all of them");
    assert_eq!(flood.records.len(), FLOOD);
    server.fail("example", ZoneFault::Huge);
    let huge = resolver.lookup("example", DnsRecordKind::Txt).await.expect("the whole of it");
    assert!(matches!(&huge.records[..], [DnsRecord::Txt(text)] if text.len() == HUGE));
}

#[tokio::test]
async fn an_answer_that_is_held_back_is_waited_for() {
    let (server, resolver) = start().await;
    server.fail("second.example", ZoneFault::Held);
    let lookup = texts(&resolver, "second.example", DnsRecordKind::A);
    let release = async {
        while server.release("second.example") == 0 {
            server.fail("second.example", ZoneFault::Held);
            tokio::task::yield_now().await;
        }
    };
    let (found, ()) = tokio::join!(lookup, release);
    assert_eq!(found, Ok(vec!["192.0.2.3".to_owned()]));
}
