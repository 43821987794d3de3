//! Tests of queries for record types that have no variant of their own: CAA, SVCB, HTTPS, and any by number (RFC 3597).

use std::sync::Arc;
use std::time::Duration;

use pintle_dns::{Config, DnsError, DnsRecord, DnsRecordKind, HickoryResolver, Resolver, WatchedResolver};
use pintle_testkit::{ZoneFault, ZoneServer};

const ZONE: &str = r#"
    example.        SOA   ns.example. post.example. 7 3600 600 86400 300
    example.        CAA   0 issue "ca.example; account=7"
    example.        HTTPS 1 . alpn=h2,h3 port=8443 ipv4hint=192.0.2.1,192.0.2.2 ipv6hint=2001:db8::1
    alias.example.  CNAME example.
    _dns.example.   SVCB  0 first.example.
    key.example.    OPENPGPKEY mQCNA3LJ
    hash.example.   SMIMEA 3 1 1 0A0B0C
    host.example.   SSHFP 4 2 0AFF
    sip.example.    NAPTR 10 20 "S" "SIP+D2U" "" _sip._udp.example.
    raw.example.    TYPE65280 \# 3 0A0BFF
    raw.example.    TYPE65280 \# 1 00
    rp.example.     TYPE17 \# 2 0000
    quote.example.  TYPE257 \# 18 80 05 6973737565 61 22 5c 0a ff 20 303b302e30
    strange.example. TYPE64 \# 38 0001 017400 0000 0004 0001 ff00 0001 0006 05 61 2c 5c 22 7f 0002 0000 0007 0000 ff00 0003 0a 22 41
    bad.example.    TYPE257 \# 3 000561
    empty.example.  TYPE257 \# 0
    none.example.   TYPE65280 \# 0
    plain.example.  A     192.0.2.4
"#;

async fn start() -> (ZoneServer, HickoryResolver) {
    let server = ZoneServer::start(ZONE).await;
    let config = Config { timeout: Duration::from_secs(2), attempts: 1, ..server.config() };
    let resolver = HickoryResolver::new(&config).expect("a resolver");
    (server, resolver)
}

fn kind(word: &str) -> DnsRecordKind {
    word.parse().unwrap_or_else(|error| panic!("{word}: {error}"))
}

async fn texts(resolver: &dyn Resolver, name: &str, word: &str) -> Result<Vec<String>, DnsError> {
    let answer = resolver.lookup(name, kind(word)).await?;
    assert!(answer.records.iter().all(|record| record.kind() == kind(word)), "{answer:?}");
    Ok(answer.records.iter().map(ToString::to_string).collect())
}

#[tokio::test]
async fn types_with_a_form_of_their_own_come_in_it() {
    let (_server, resolver) = start().await;
    let https = "1 . alpn=\"h2,h3\" port=8443 ipv4hint=192.0.2.1,192.0.2.2 ipv6hint=2001:db8::1";
    let cases = [
        ("example", "SOA", "ns.example post.example 7 3600 600 86400 300"),
        ("example", "CAA", r#"0 issue "ca.example; account=7""#),
        ("example", "TYPE257", r#"0 issue "ca.example; account=7""#),
        ("example", "HTTPS", https),
        ("alias.example", "HTTPS", https),
        ("_dns.example", "SVCB", "0 first.example"),
        ("key.example", "TYPE61", "mQCNA3LJ"),
        ("hash.example", "TYPE53", "3 1 1 0a0b0c"),
        ("host.example", "TYPE44", "4 2 0aff"),
        ("sip.example", "TYPE35", r#"10 20 "S" "SIP+D2U" "" _sip._udp.example"#),
        ("plain.example", "TYPE1", "192.0.2.4"),
    ];
    for (name, word, text) in cases {
        assert_eq!(texts(&resolver, name, word).await, Ok(vec![text.to_owned()]), "{name} {word}");
    }
}

#[tokio::test]
async fn unknown_types_come_in_the_generic_form() {
    let (_server, resolver) = start().await;
    let mut raw = texts(&resolver, "raw.example", "TYPE65280").await.expect("both");
    raw.sort();
    assert_eq!(raw, [r"\# 1 00", r"\# 3 0a0bff"]);
    let answer = resolver.lookup("rp.example", kind("TYPE17")).await.expect("one");
    assert_eq!(answer.records, [DnsRecord::Other { kind: 17, text: r"\# 2 0000".into() }]);
}

/// What the owner of a domain writes into a record cannot end its quotes or its line.
#[tokio::test]
async fn quotes_separators_and_control_characters_are_escaped() {
    let (_server, resolver) = start().await;
    let caa = texts(&resolver, "quote.example", "CAA").await;
    assert_eq!(caa, Ok(vec![r#"128 issue "a\"\\\010\255 0;0.0""#.to_owned()]));
    let svcb = texts(&resolver, "strange.example", "SVCB").await;
    let form = r#"1 t mandatory=alpn,key65280 alpn="a\\,\\\\\"\127" no-default-alpn key7 key65280="\010\"A""#;
    assert_eq!(svcb, Ok(vec![form.to_owned()]));
}

#[tokio::test]
async fn data_that_its_type_does_not_permit_is_a_temporary_failure() {
    let (_server, resolver) = start().await;
    for (name, word) in [("bad.example", "CAA"), ("empty.example", "CAA"), ("none.example", "TYPE65280")] {
        let failed = resolver.lookup(name, kind(word)).await;
        assert!(failed.as_ref().is_err_and(|error| error.is_temporary()), "{name}: {failed:?}");
    }
}

#[tokio::test]
async fn denials_and_failures_of_any_type_are_told_apart_and_denials_are_kept() {
    let (server, resolver) = start().await;
    for word in ["CAA", "SOA", "HTTPS", "TYPE53", "TYPE61", "TYPE65280"] {
        for _ in 0..2 {
            assert_eq!(texts(&resolver, "plain.example", word).await, Err(DnsError::NoData), "{word}");
            assert_eq!(texts(&resolver, "missing.example", word).await, Err(DnsError::NxDomain), "{word}");
        }
        // The library takes the SOA record in a denial for an answer, and does not cache it.
        let asked = if word == "SOA" { 2 } else { 1 };
        assert_eq!(server.count("plain.example", kind(word)), asked, "{word}");
        assert_eq!(server.count("missing.example", kind(word)), asked, "{word}");
        for (fault, error) in [
            (ZoneFault::ServFail, DnsError::ServFail),
            (ZoneFault::WrongOwner, DnsError::ServFail),
            (ZoneFault::AliasLoop, DnsError::ServFail),
            (ZoneFault::NoData, DnsError::NoData),
        ] {
            let name = format!("{fault:?}.example");
            server.fail_kind(&name, kind(word), fault);
            assert_eq!(texts(&resolver, &name, word).await, Err(error), "{fault:?} {word}");
        }
    }
}

#[tokio::test]
async fn answers_of_any_type_are_kept() {
    let (server, resolver) = start().await;
    for (name, word) in [("example", "CAA"), ("key.example", "TYPE61"), ("raw.example", "TYPE65280")] {
        let first = texts(&resolver, name, word).await.expect("records");
        assert_eq!(texts(&resolver, name, word).await, Ok(first));
        assert_eq!(server.count(name, kind(word)), 1, "{name} {word}");
    }
}

#[tokio::test]
async fn the_watched_resolver_answers_any_type() {
    let (server, _) = start().await;
    let resolver = Arc::new(WatchedResolver::new(&server.config()).expect("a resolver"));
    let found = texts(&resolver, "hash.example", "TYPE53").await;
    assert_eq!(found, Ok(vec!["3 1 1 0a0b0c".to_owned()]));
    assert_eq!(texts(&resolver, "raw.example", "TYPE65281").await, Err(DnsError::NoData));
}
