//! Zones for tests, and checks with them.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use pintle_dns::{DnsError, DnsRecord, DnsRecordKind};
use pintle_mail::{Bytes, UnixTime};
use pintle_sender_auth::{DeadlineResolver, Signatures, SpfClient, SpfResult, spf};
use pintle_testkit::StaticResolver;

/// Makes a zone from lines such as `example TXT v=spf1 -all`.
pub(crate) fn zone(text: &str) -> StaticResolver {
    let resolver = StaticResolver::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let mut words = line.splitn(3, ' ');
        let (name, kind, value) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap_or(""));
        resolver.add(name, record(kind, value));
    }
    resolver
}

fn record(kind: &str, value: &str) -> DnsRecord {
    match kind {
        "TXT" => DnsRecord::Txt(value.as_bytes().to_vec()),
        "A" => DnsRecord::A(value.parse().unwrap()),
        "AAAA" => DnsRecord::Aaaa(value.parse().unwrap()),
        "PTR" => DnsRecord::Ptr(value.to_owned()),
        "CNAME" => DnsRecord::Cname(value.to_owned()),
        "MX" => DnsRecord::Mx { preference: 10, exchange: value.to_owned() },
        other => panic!("no records of kind {other}"),
    }
}

/// A deadline that is late enough for every test.
pub(crate) fn ask(resolver: &StaticResolver) -> DeadlineResolver<'_> {
    DeadlineResolver::new(resolver, Instant::now() + Duration::from_secs(600))
}

/// The results for a client with the HELO name `mx.hello.example`.
pub(crate) async fn spf_of(resolver: &StaticResolver, client: &str, sender: &str) -> Vec<SpfResult> {
    let client = SpfClient {
        address: client.parse::<IpAddr>().unwrap(),
        hello: "mx.hello.example",
        sender: sender.rsplit_once('@'),
        receiver: "unknown",
    };
    spf::check(ask(resolver), &client).await
}

/// The result of the MAIL FROM identity.
pub(crate) async fn mail_from(resolver: &StaticResolver, client: &str, sender: &str) -> SpfResult {
    spf_of(resolver, client, sender).await.pop().unwrap()
}

pub(crate) async fn verify(resolver: &StaticResolver, message: &[u8]) -> Signatures {
    // 2018-06-10, a minute after the examples of RFC 8463 were signed.
    let now = UnixTime::from_millis(1_528_637_969_000);
    pintle_sender_auth::signatures::verify(ask(resolver), Bytes::copy_from_slice(message), now).await
}

pub(crate) fn fails(resolver: StaticResolver, name: &str, kind: DnsRecordKind) -> StaticResolver {
    resolver.with_fault(name, kind, DnsError::ServFail)
}
