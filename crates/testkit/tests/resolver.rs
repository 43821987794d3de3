//! Tests that the resolver with a map behaves as the trait requires.

use pintle_dns::{DnsError, DnsRecord, DnsRecordKind, Resolver};
use pintle_testkit::StaticResolver;

#[tokio::test]
async fn answers_from_its_map() {
    let resolver = StaticResolver::new()
        .with_mx("x.example", 10, "mail.x.example")
        .with("alias.example", DnsRecord::Cname("X.example.".into()))
        .with("loop.example", DnsRecord::Cname("loop.example".into()))
        .with_address("mail.x.example", "2001:db8::1")
        .with_fault("mail.x.example", DnsRecordKind::A, DnsError::Timeout);
    let mx = DnsRecord::Mx { preference: 10, exchange: "mail.x.example".into() };
    for name in ["x.example", "X.EXAMPLE.", "alias.example"] {
        assert_eq!(
            resolver.lookup(name, DnsRecordKind::Mx).await.map(|a| a.records),
            Ok(vec![mx.clone()]),
            "{name}"
        );
    }
    let failures = [
        ("x.example", DnsRecordKind::A, DnsError::NoData),
        ("y.example", DnsRecordKind::A, DnsError::NxDomain),
        ("loop.example", DnsRecordKind::A, DnsError::ServFail),
        ("mail.x.example", DnsRecordKind::A, DnsError::Timeout),
    ];
    for (name, kind, error) in failures {
        assert_eq!(resolver.lookup(name, kind).await, Err(error), "{name}");
    }
    resolver.heal("mail.x.example", DnsRecordKind::A);
    assert_eq!(resolver.lookup("mail.x.example", DnsRecordKind::A).await, Err(DnsError::NoData));
    assert_eq!(resolver.asked().len(), 8);
}
