//! The public test suite for RFC 7208, and our own cases, with the clients' real addresses.

use std::time::{Duration, Instant};

use pintle_dns::DnsError;
use pintle_sender_auth::{DeadlineResolver, SpfClient, SpfIdentity, SpfResult, spf};
use pintle_testkit::{SpfCase, SpfScenario, StaticResolver};

#[tokio::test]
async fn the_suite_of_rfc_7208_passes() {
    assert_eq!(run("rfc7208-tests.json").await, 203);
}

#[tokio::test]
async fn our_own_cases_pass() {
    assert_eq!(run("pintle.json").await, OURS);
}

/// The number of cases, so that none gets lost.
const OURS: usize = 43;

/// Runs every case of a file, and returns their number.
async fn run(file: &str) -> usize {
    let (mut count, mut wrong) = (0, Vec::new());
    for scenario in SpfScenario::read(file) {
        let resolver = StaticResolver::new();
        for (name, record) in &scenario.records {
            resolver.add(name, record.clone());
        }
        for (name, kind) in &scenario.silent {
            resolver.fail(name, *kind, DnsError::Timeout);
        }
        for case in &scenario.cases {
            count += 1;
            let result = check(&resolver, case).await;
            if let Some(text) = complaint(case, &result) {
                wrong.push(format!("{}, {}: {text}", scenario.description, case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {count} cases are wrong:\n{}", wrong.len(), wrong.join("\n"));
    count
}

/// The result for the sender, or for the HELO name when the reverse-path is null.
async fn check(resolver: &StaticResolver, case: &SpfCase) -> SpfResult {
    let client = SpfClient {
        address: case.host,
        hello: &case.helo,
        sender: case.sender.rsplit_once('@'),
        receiver: "gate.example",
    };
    let ask = DeadlineResolver::new(resolver, Instant::now() + Duration::from_secs(600));
    let results = spf::check(ask, &client).await;
    let identity = if case.sender.is_empty() { SpfIdentity::Hello } else { SpfIdentity::MailFrom };
    let result = results.into_iter().find(|result| result.identity == identity);
    result.unwrap_or_else(|| panic!("{}: no result for {identity:?}", case.name))
}

fn complaint(case: &SpfCase, result: &SpfResult) -> Option<String> {
    if !case.results.iter().any(|right| right == result.outcome.name()) {
        return Some(format!("{:?} is right, not {result:?}", case.results));
    }
    let expected = case.explanation.as_ref()?;
    let same = match (expected, &result.explanation) {
        // The suite writes the nibbles of IPv6 addresses in capitals.
        (Some(right), Some(given)) => right.eq_ignore_ascii_case(given),
        (right, given) => right == given,
    };
    (!same).then(|| format!("explained as {:?}, not {expected:?}", result.explanation))
}
