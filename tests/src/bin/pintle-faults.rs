//! Runs the fault matrix on the binary next to it; `cargo xtask faults` builds both and runs this.

#![allow(clippy::print_stdout, reason = "the caller reads its standard output")]

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use e2e::faults::{self, MatrixOptions, MatrixRow, ROWS, RowOutcome};

const USAGE: &str = "usage: pintle-faults [ROW...] [--list] [--rounds N] [--seed N] [--unruly FILE] [--json FILE] [--page FILE]

  ROW            a row, or a prefix of the names of several; all rows by default
  --list         list the rows and exit
  --rounds N     run each row at most N times, with larger steps: a short run
  --seed N       the seed of the random numbers
  --unruly FILE  the component of tests/guests/unruly, for rows with plugins
  --json FILE    write all results to this file
  --page FILE    write the table into this page, between its markers, when all rows were run in full";

#[derive(Default)]
struct FaultsArguments {
    names: Vec<String>,
    list: bool,
    json: Option<PathBuf>,
    page: Option<PathBuf>,
    options: MatrixOptions,
}

#[tokio::main]
async fn main() -> ExitCode {
    if std::env::args().skip(1).any(|argument| argument == "--help" || argument == "-h") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let wanted = match wanted(std::env::args().skip(1)) {
        Ok(wanted) => wanted,
        Err(text) => {
            eprintln!("pintle-faults: {text}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let rows: Vec<&MatrixRow> = ROWS.iter().filter(|row| wanted.wants(row)).collect();
    if wanted.list {
        rows.iter().for_each(|row| println!("{:20} {} ({} rounds)", row.name, row.about, row.rounds));
        return ExitCode::SUCCESS;
    }
    if rows.is_empty() {
        eprintln!("pintle-faults: no row is called {:?}; --list names them", wanted.names);
        return ExitCode::from(2);
    }
    play(&rows, &wanted).await
}

fn wanted(mut arguments: impl Iterator<Item = String>) -> Result<FaultsArguments, String> {
    let mut wanted = FaultsArguments::default();
    wanted.options.seed = 1;
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--list" => wanted.list = true,
            "--rounds" => wanted.options.rounds = Some(number(&value()?)?),
            "--seed" => wanted.options.seed = number(&value()?)?,
            "--unruly" => wanted.options.unruly = Some(value()?.into()),
            "--json" => wanted.json = Some(value()?.into()),
            "--page" => wanted.page = Some(value()?.into()),
            flag if flag.starts_with('-') => return Err(format!("unknown option {flag}")),
            name => wanted.names.push(name.to_owned()),
        }
    }
    Ok(wanted)
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is not a number"))
}

impl FaultsArguments {
    fn wants(&self, row: &MatrixRow) -> bool {
        let names = |name: &String| match faults::row(name) {
            Some(named) => named.name == row.name,
            None => row.name.starts_with(name.as_str()),
        };
        self.names.is_empty() || self.names.iter().any(names)
    }
}

async fn play(rows: &[&MatrixRow], wanted: &FaultsArguments) -> ExitCode {
    let mut outcomes = Vec::new();
    for row in rows {
        println!("==> {}: {}", row.name, row.about);
        let outcome = faults::play(row, &wanted.options).await;
        say(&outcome);
        outcomes.push(outcome);
    }
    println!("\n{}", faults::table(&outcomes));
    if let Err(why) = write(&outcomes, wanted) {
        eprintln!("pintle-faults: {why}");
        return ExitCode::FAILURE;
    }
    let bad: Vec<_> = outcomes.iter().filter(|outcome| !outcome.problems.is_empty()).collect();
    println!("{} of {} rows are good", outcomes.len() - bad.len(), outcomes.len());
    if bad.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn say(outcome: &RowOutcome) {
    let account = &outcome.account;
    println!(
        "    {} acknowledged, {} accounted for, {} twice, {} lost, {} set aside, {} restarts, {:.1} s",
        account.promised,
        account.accounted,
        account.twice,
        outcome.lost,
        outcome.set_aside,
        outcome.restarts,
        outcome.took.as_secs_f64()
    );
    outcome.problems.iter().for_each(|problem| println!("    BAD: {problem}"));
}

fn write(outcomes: &[RowOutcome], wanted: &FaultsArguments) -> Result<(), String> {
    if let Some(path) = &wanted.json {
        let text = format!("{:#}\n", faults::json(outcomes));
        std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let whole = wanted.names.is_empty() && wanted.options.rounds.is_none();
    let Some(path) = wanted.page.as_ref().filter(|_| whole) else { return Ok(()) };
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let page = std::fs::read_to_string(path).map_err(failed)?;
    let page = faults::page(&page, outcomes, &heading(outcomes, wanted.options.seed))?;
    std::fs::write(path, page).map_err(failed)
}

/// The heading: date, version, and totals.
fn heading(outcomes: &[RowOutcome], seed: u64) -> String {
    let promised: u64 = outcomes.iter().map(|outcome| outcome.account.promised).sum();
    let lost: u64 = outcomes.iter().map(|outcome| outcome.lost).sum();
    let version = said(Command::new(e2e::binary()).arg("--version"));
    let date = said(Command::new("date").args(["-u", "+%Y-%m-%d"]));
    format!(
        "Measured on {date} with {version}, seed {seed}: {} rows, {promised} copies acknowledged, {lost} messages lost.",
        outcomes.len()
    )
}

fn said(command: &mut Command) -> String {
    let output = command.output().map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    output.unwrap_or_default()
}
