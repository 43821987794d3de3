//! SPF with untrusted records of any octets: shared by the fuzz target and the test that replays its seeds.
//!
//! [`play`] panics when a property does not hold: more queries than RFC 7208 section 4.6.4 allows, a query for
//! something that is not a name, reasons that do not fit the result, untrusted text with invisible characters.

#![allow(unreachable_pub, reason = "public to the binaries that include it, which the lint cannot see")]
#![allow(clippy::unwrap_used, reason = "a violated property is a failed test")]

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use pintle_dns::{DnsAnswer, DnsError, DnsRecord, DnsRecordKind, Resolver};
use pintle_sender_auth::{AuthOutcome, DeadlineResolver, SpfClient, SpfIdentity, SpfResult, spf};

/// The most queries: ten terms with one query and ten more for the hosts of each; the client's names and their
/// addresses; the records, one for each term; the explanation. All for two identities.
const MOST_QUESTIONS: usize = 2 * (10 * 11 + 11 + 11 + 1);

/// The first line describes the client and the behaviour of DNS; each further line is a TXT record.
pub fn play(plan: &[u8]) {
    let mut lines = plan.split(|octet| *octet == b'\n');
    let first = lines.next().unwrap_or_default();
    let setting = first.first().copied().unwrap_or(0);
    let zone =
        Zone { records: lines.take(8).map(<[u8]>::to_vec).collect(), setting, asked: AtomicUsize::new(0) };
    let text = String::from_utf8_lossy(first.get(1..).unwrap_or_default()).into_owned();
    let (local, hello) = text.split_once('@').unwrap_or((&text, "mx.hello.example"));
    let address: IpAddr =
        if setting & 1 == 0 { [192, 0, 2, 3].into() } else { "2001:db8::3".parse().unwrap() };
    let client = SpfClient {
        address,
        hello,
        sender: (setting & 2 == 0).then_some((local, "a0.example")),
        receiver: "gate.example",
    };
    let results = runtime().block_on(spf::check(
        DeadlineResolver::new(&zone, Instant::now() + Duration::from_secs(600)),
        &client,
    ));
    let asked = zone.asked.load(Ordering::Relaxed);
    assert!(asked <= MOST_QUESTIONS, "{asked} questions");
    assert!((1..=2).contains(&results.len()));
    results.iter().for_each(|result| check(result, &zone));
}

/// With a clock for deadlines, which are never reached.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

fn check(result: &SpfResult, zone: &Zone) {
    let failed = matches!(result.outcome, AuthOutcome::TempError | AuthOutcome::PermError);
    assert_eq!(result.reason.is_some(), failed, "{result:?}");
    assert_eq!(result.mechanism.is_some(), !failed && result.outcome != AuthOutcome::None, "{result:?}");
    assert!(result.outcome != AuthOutcome::Policy);
    if let Some(mechanism) = &result.mechanism {
        let written = zone
            .records
            .iter()
            .any(|record| record.split(|octet| *octet == b' ').any(|term| term == mechanism.as_bytes()));
        assert!(written || mechanism == "default", "{mechanism:?} stands in no record");
    }
    if let Some(text) = &result.explanation {
        assert_eq!(result.outcome, AuthOutcome::Fail);
        assert!(text.len() <= 400 && text.bytes().all(|b| (b' '..=b'~').contains(&b)), "{text:?}");
    }
    if result.identity == SpfIdentity::MailFrom && zone.record("a0.example").is_some_and(is_broken) {
        assert!(failed, "a record with octets outside ASCII is none: {result:?}");
    }
}

/// Whether this claims to be an SPF record, but has characters that none may have.
fn is_broken(record: &[u8]) -> bool {
    record.starts_with(b"v=spf1 ") && !record.is_ascii()
}

/// Each name has the record whose number is the digit after its first letter; other records are as the setting says.
struct Zone {
    records: Vec<Vec<u8>>,
    setting: u8,
    asked: AtomicUsize,
}

impl Zone {
    fn record(&self, name: &str) -> Option<&[u8]> {
        let number = name.bytes().find(u8::is_ascii_digit).map_or(0, |digit| usize::from(digit - b'0'));
        self.records.get(number).map(Vec::as_slice)
    }

    fn answer(&self, name: &str, kind: DnsRecordKind) -> Result<Vec<DnsRecord>, DnsError> {
        let bit = |at: u8| self.setting >> at & 1 == 1;
        let there = bit(2) || name.contains('y');
        Ok(match kind {
            DnsRecordKind::Txt => vec![DnsRecord::Txt(self.record(name).ok_or(DnsError::NxDomain)?.to_vec())],
            DnsRecordKind::A if there => vec![DnsRecord::A([192, 0, 2, if bit(3) { 3 } else { 4 }].into())],
            DnsRecordKind::Aaaa if there => vec![DnsRecord::Aaaa("2001:db8::4".parse().unwrap())],
            DnsRecordKind::Mx if bit(4) => (0..10).map(host).collect(),
            DnsRecordKind::Mx if bit(5) => (0..20).map(host).collect(),
            DnsRecordKind::Ptr if bit(6) => {
                (0..20).map(|n| DnsRecord::Ptr(format!("p{n}y.example"))).collect()
            }
            _ if name.contains("fail") => return Err(DnsError::ServFail),
            _ => return Err(DnsError::NoData),
        })
    }
}

fn host(number: u16) -> DnsRecord {
    DnsRecord::Mx { preference: number, exchange: format!("m{number}y.example") }
}

impl Resolver for Zone {
    fn lookup(&self, name: &str, kind: DnsRecordKind) -> BoxFuture<'_, Result<DnsAnswer, DnsError>> {
        assert!(name.len() <= 254, "{} octets of a name", name.len());
        self.asked.fetch_add(1, Ordering::Relaxed);
        let records = self.answer(name, kind);
        let answer = records.map(|records| DnsAnswer { records, ttl: Duration::from_secs(60) });
        Box::pin(std::future::ready(answer))
    }
}
