//! `cargo xtask faults` and `cargo xtask soak`: fault matrix and soak test on the real binary.
//!
//! They build what they need and start `pintle-faults` or `pintle-soak` of package e2e, which do the work.

use std::path::PathBuf;
use std::process::Command;

use clap::Args;
use pintle_guest_build::{component, repository, target_dir};

use crate::run::{ChoreError, cargo, run, step};
use crate::setup;

/// The page that a full run updates with its table.
const PAGE: &str = "docs/reliability.md";

/// The options of `cargo xtask faults`.
#[derive(Debug, Args)]
pub(crate) struct FaultsOptions {
    /// Names of rows, or prefixes of names; all rows by default
    rows: Vec<String>,
    /// List the rows and exit
    #[arg(long)]
    list: bool,
    /// Run each row at most N times, with larger steps: a short run
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// The seed of the random numbers
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Test the release binary
    #[arg(long)]
    release: bool,
    /// Write all results to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// The options of `cargo xtask soak`.
#[derive(Debug, Args)]
pub(crate) struct SoakOptions {
    /// Send mail for N minutes
    #[arg(long, value_name = "N", default_value_t = 30)]
    minutes: u64,
    /// Test the release binary
    #[arg(long)]
    release: bool,
}

/// Builds, runs the rows and, if all of them were run in full, updates the page.
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
    step("Running the fault matrix");
    run(&mut command)
}

/// Builds, and runs the soak test.
pub(crate) fn soak(options: &SoakOptions) -> Result<(), ChoreError> {
    let mut command = program("pintle-soak", options.release)?;
    command.arg("--minutes").arg(options.minutes.to_string());
    step(format!("Soaking for {} minutes", options.minutes));
    run(&mut command)
}

/// A program of package e2e with the binary next to it. Its scratch folders are on the disk with the build products,
/// since a temporary folder may be in memory, where a sync costs nothing.
fn program(name: &str, release: bool) -> Result<Command, ChoreError> {
    let profile = if release { "release" } else { "debug" };
    step(format!("Building the {profile} binary and {name}"));
    let mut build = cargo(&["build", "--quiet", "--workspace"]);
    // The debug binary is the one that the tests use, with the same features, so that dependencies are built once for
    // both.
    run(build.args(if release { &["--bins", "--release"][..] } else { &["--lib", "--bins", "--tests"] }))?;
    let scratch = target_dir().join("scratch");
    std::fs::create_dir_all(&scratch)
        .map_err(|cause| ChoreError::Unreadable { path: scratch.display().to_string(), cause })?;
    let mut command = Command::new(target_dir().join(profile).join(name));
    command.env("TMPDIR", scratch);
    Ok(command)
}

/// The path of the component of the misbehaving plugin.
fn unruly() -> Result<PathBuf, ChoreError> {
    setup::setup()?;
    Ok(component("unruly")?)
}
