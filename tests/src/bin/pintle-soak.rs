//! Sends mixed mail through the binary next to it for half an hour, with faults; `cargo xtask soak` builds both and
//! runs this.

#![allow(clippy::print_stdout, reason = "the caller reads its standard output")]

use std::process::ExitCode;
use std::time::Duration;

use e2e::faults::{self, SoakReport};

const USAGE: &str = "usage: pintle-soak [--minutes N] [--seed N]";

#[tokio::main]
async fn main() -> ExitCode {
    let Some((minutes, seed)) = wanted(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match faults::soak(Duration::from_secs(minutes * 60), seed, |line| println!("{line}")).await {
        Ok(report) => say(&report),
        Err(why) => {
            eprintln!("pintle-soak: the stage could not be set up: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Parses minutes and seed.
fn wanted(mut arguments: impl Iterator<Item = String>) -> Option<(u64, u64)> {
    let (mut minutes, mut seed) = (30, 1);
    while let Some(argument) = arguments.next() {
        let value = arguments.next()?.parse().ok()?;
        match argument.as_str() {
            "--minutes" => minutes = value,
            "--seed" => seed = value,
            _ => return None,
        }
    }
    Some((minutes, seed))
}

fn say(report: &SoakReport) -> ExitCode {
    let account = &report.account;
    println!(
        "\n{} copies acknowledged, {} accounted for ({} bounced), {} twice, {} messages lost; {} refused, {} sessions \
         broken, {} times killed",
        account.promised,
        account.accounted,
        account.reported,
        account.twice,
        report.lost,
        account.refused,
        account.broken,
        report.kills
    );
    println!("\n| medians | memory, KiB | descriptors | threads | spool, KiB |\n|---|--:|--:|--:|--:|");
    for (half, used) in ["first half", "second half"].iter().zip(report.halves) {
        let numbers =
            [used.memory, used.descriptors, used.threads, used.spool].map(|number| number.to_string());
        println!("| {half} | {} |", numbers.join(" | "));
    }
    report.problems.iter().for_each(|problem| println!("BAD: {problem}"));
    if report.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
