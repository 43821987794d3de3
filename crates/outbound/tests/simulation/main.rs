//! A simulation of spool, queue and delivery: the real crates on a clock, a disk and a network that the test controls,
//! driven by a schedule drawn from a seed, with the laws of `docs/architecture.md` as its assertions.
//!
//! `SEED=7 cargo nextest run -p pintle-outbound --test simulation` repeats one run exactly and prints its trace;
//! `cargo xtask simulate` runs as many as one likes. See `docs/testing.md`.

#![allow(unreachable_pub, reason = "modules of a test see each other")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a run is shown to whoever asks for it")]

mod hop;
mod laws;
mod ledger;
mod messages;
mod outside;
mod random;
mod run;
mod store;
mod time;
mod wire;
mod world;

use std::sync::Once;

use pintle_testkit::{TempDir, TestCa};
use pintle_tls::{ClientConfig, ClientTls, Roots};

use crate::ledger::Counts;
use crate::run::{Outcome, PANICS, run};
use crate::world::Sabotage;

/// Test functions that share the seeds, so that they run beside each other.
const SLICES: u64 = 8;
/// Seeds of an ordinary run.
const SEEDS: u64 = 1_000;
/// Lines of a trace that are shown unless this seed was asked for.
const SHOWN: usize = 400;

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} is no number: {value:?}")))
}

fn tls() -> ClientTls {
    let folder = TempDir::new().expect("a temporary folder");
    let roots = Roots::File(TestCa::new().write(folder.path()));
    ClientTls::load(&ClientConfig { roots }).expect("a TLS set-up")
}

/// Counts panics of tasks, which their runtime catches.
fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.set(PANICS.get() + 1);
            before(panic);
        }));
    });
}

/// The seeds of a slice.
fn slice(slice: u64) {
    watch_panics();
    let tls = tls();
    if let Some(seed) = number("SEED") {
        if seed % SLICES == slice {
            let outcome = run(seed, None, &tls);
            if outcome.broken.is_empty() {
                println!("{}", outcome.trace);
            } else {
                report(&[(seed, outcome)], usize::MAX);
            }
        }
        return;
    }
    let (from, count) = (number("FROM").unwrap_or(0), number("SEEDS").unwrap_or(SEEDS));
    let (mut seen, mut broken) = (Counts::default(), Vec::new());
    for seed in (from..from + count).filter(|seed| seed % SLICES == slice) {
        let outcome = run(seed, None, &tls);
        seen.add(&outcome.counts);
        if !outcome.broken.is_empty() {
            broken.push((seed, outcome));
        }
        if count > SEEDS && (seed - from) / SLICES % 100 == 99 {
            eprintln!("seed {seed}: {seen:?}");
        }
    }
    println!("{seen:?}");
    report(&broken, SHOWN);
    if count >= SEEDS {
        seen.assert_busy();
    }
}

/// Fails when a seed has broken a law: says how the first went, and which others do.
fn report(broken: &[(u64, Outcome)], shown: usize) {
    let Some((seed, outcome)) = broken.first() else { return };
    let lines: Vec<&str> = outcome.trace.lines().collect();
    println!("{}", lines[lines.len().saturating_sub(shown)..].join("\n"));
    let laws = broken.iter().map(|(seed, outcome)| format!("seed {seed}: {}", outcome.broken.join("\n  ")));
    let laws = laws.collect::<Vec<_>>().join("\n");
    panic!(
        "laws are broken; the trace above is that of seed {seed}\n{laws}\n\n\
         to repeat it: SEED={seed} cargo nextest run --workspace --test simulation --no-capture"
    );
}

macro_rules! slices {
    ($($name:ident: $slice:literal),* $(,)?) => {
        $(#[test]
        fn $name() {
            slice($slice);
        })*
    };
}

slices! {
    no_seed_breaks_a_law_0: 0,
    no_seed_breaks_a_law_1: 1,
    no_seed_breaks_a_law_2: 2,
    no_seed_breaks_a_law_3: 3,
    no_seed_breaks_a_law_4: 4,
    no_seed_breaks_a_law_5: 5,
    no_seed_breaks_a_law_6: 6,
    no_seed_breaks_a_law_7: 7,
}

#[test]
fn a_seed_is_repeated_exactly() {
    watch_panics();
    let tls = tls();
    for seed in 0..6 {
        let (first, second) = (run(seed, None, &tls), run(seed, None, &tls));
        let differ = first.trace.lines().zip(second.trace.lines()).position(|(one, other)| one != other);
        assert_eq!(differ, None, "seed {seed} goes another way from this line on");
        assert_eq!(first.trace.len(), second.trace.len(), "seed {seed}");
    }
}

#[test]
fn the_laws_notice_what_is_wrong() {
    watch_panics();
    let tls = tls();
    for (sabotage, law) in [
        (Sabotage::FlipsOctets, "that nobody committed"),
        (Sabotage::ForgetsSettlements, "again"),
        (Sabotage::LosesReports, "was due"),
        (Sabotage::IgnoresHolds, "while it was held"),
        (Sabotage::LosesMessages, "does not hold what was made durable"),
        (Sabotage::AgesMessages, "ended as expired without a reason"),
        (Sabotage::ForgetsGroups, "in one transaction, in the groups"),
    ] {
        let broken = (0..40).flat_map(|seed| run(seed, Some(sabotage), &tls).broken);
        assert!(broken.into_iter().any(|broken| broken.contains(law)), "{sabotage:?} goes unnoticed");
    }
}
