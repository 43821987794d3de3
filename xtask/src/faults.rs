//! `cargo xtask faults` and `cargo xtask soak`: the real binary under faults, and for long.
//!
//! This builds what they need and starts `pintle-faults` or `pintle-soak` of package e2e, which do the work.

use std::path::PathBuf;
use std::process::Command;

use clap::Args;
use pintle_guest_build::{component, repository, target_dir};

use crate::run::{ChoreError, cargo, run, step};
use crate::setup;

/// The page that a full run writes its table into.
const PAGE: &str = "docs/reliability.md";

/// Which rows.
#[derive(Debug, Args)]
pub(crate) struct FaultsOptions {
    /// Rows, or beginnings of rows' names; all when none is named
    rows: Vec<String>,
    /// Name the rows and end
    #[arg(long)]
    list: bool,
    /// So many rounds of each row at most, and larger steps: a short run
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// What chance begins with
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Test the release binary
    #[arg(long)]
    release: bool,
    /// Where all figures go
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// How long.
#[derive(Debug, Args)]
pub(crate) struct SoakOptions {
    /// How long mail comes
    #[arg(long, value_name = "N", default_value_t = 30)]
    minutes: u64,
    /// Test the release binary
    #[arg(long)]
    release: bool,
}

/// Builds, plays the rows and, when all were played in full, writes the page.
pub(crate) fn faults(options: &FaultsOptions) -> Result<(), ChoreError> {
    let mut command = program("pintle-faults", options.release)?;
    command.args(&options.rows);
    if options.list {
        return run(command.arg("--list"));
    }
    command.arg("--unruly").arg(unruly()?).arg("--page").arg(repository().join(PAGE));
    let json = options.json.clone().unwrap_or_else(|| target_dir().join("faults.json"));
    command.arg("--json").arg(json);
    for (flag, value) in [("--rounds", options.rounds.map(u64::from)), ("--seed", options.seed)] {
        if let Some(value) = value {
            command.arg(flag).arg(value.to_string());
        }
    }
    step("Playing the fault matrix");
    run(&mut command)
}

/// Builds, and lets mail come for long.
pub(crate) fn soak(options: &SoakOptions) -> Result<(), ChoreError> {
    let mut command = program("pintle-soak", options.release)?;
    command.arg("--minutes").arg(options.minutes.to_string());
    step(format!("Soaking for {} minutes", options.minutes));
    run(&mut command)
}

/// A program of package e2e with the binary beside it; its scratch folders lie on the disk that build products are on,
/// since a temporary folder may lie in memory, where a sync costs nothing.
fn program(name: &str, release: bool) -> Result<Command, ChoreError> {
    let profile = if release { "release" } else { "debug" };
    step(format!("Building the {profile} binary and {name}"));
    let mut build = cargo(&["build", "--quiet", "--workspace"]);
    // The debug binary is the one of the tests, with the same features, so that dependencies are built once for both.
    run(build.args(if release { &["--bins", "--release"][..] } else { &["--lib", "--bins", "--tests"] }))?;
    let scratch = target_dir().join("scratch");
    std::fs::create_dir_all(&scratch)
        .map_err(|cause| ChoreError::Unreadable { path: scratch.display().to_string(), cause })?;
    let mut command = Command::new(target_dir().join(profile).join(name));
    command.env("TMPDIR", scratch);
    Ok(command)
}

/// The plugin that misbehaves.
fn unruly() -> Result<PathBuf, ChoreError> {
    setup::setup()?;
    Ok(component("unruly")?)
}
