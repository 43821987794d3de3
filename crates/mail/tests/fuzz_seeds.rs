//! Runs the plays on the seeds of the fuzz targets and on random octets, so that a fault found once stays fixed.

#![allow(clippy::unwrap_used, reason = "a violated property is a failed test")]

mod plays;

use std::path::Path;

use plays::{address, auth_results, dsn, header};
use proptest::collection::vec;
use proptest::prelude::*;

/// Plays all seeds of a target.
fn replay(target: &str, play: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let seeds: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(seeds.len() >= 8, "{} seeds of {target}", seeds.len());
    seeds.iter().for_each(|seed| play(&std::fs::read(seed).unwrap()));
}

#[test]
fn the_seeds_of_addresses_hold() {
    replay("address", address::play);
}

#[test]
fn the_seeds_of_headers_hold() {
    replay("header", header::play);
}

#[test]
fn the_seeds_of_authentication_results_hold() {
    replay("auth_results", auth_results::play);
}

#[test]
fn the_seeds_of_reports_hold() {
    replay("dsn", dsn::play);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_octets_break_a_promise(plan in vec(any::<u8>(), 0..400)) {
        address::play(&plan);
        header::play(&plan);
        auth_results::play(&plan);
        dsn::play(&plan);
    }

    #[test]
    fn no_likely_address_breaks_a_promise(text in "<?(@a,@b:)?[\"\\\\]?[a-z. \"\\\\ä@]{0,6}@(\\[IPv6:)?[a-zA-Z0-9.:ß①-]{1,12}\\]?>?( X)?") {
        address::play(text.as_bytes());
    }

    #[test]
    fn no_likely_block_breaks_a_promise(edits in vec(any::<u8>(), 0..40), lines in "((X|Y|Subject) ?:[ a-z]{0,9}\r\n|[ \t]{1,3}[a-z]{0,5}\r?\n){0,9}") {
        let mut plan = vec![u8::try_from(edits.len() % 4).unwrap()];
        plan.extend(edits);
        plan.extend(lines.bytes());
        header::play(&plan);
    }
}
