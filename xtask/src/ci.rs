//! `cargo xtask ci`: all checks that must pass before a change is merged, the cheap and informative ones first. Clippy
//! already builds the stock plugins, so the toolchain for plugins comes before it.

use std::time::Instant;

use pintle_guest_build::{guests, target_dir};

use crate::run::{ChoreError, cargo, run, step};
use crate::{deny, setup, test, tidy};

type CiCheck = (&'static str, fn() -> Result<(), ChoreError>);

const CHECKS: [CiCheck; 7] = [
    ("format", format),
    ("tidy", tidy::tidy),
    ("set-up", set_up),
    ("clippy", clippy),
    ("documentation", documentation),
    ("deny", deny::deny),
    ("tests", tests),
];

/// Stops at the first check that fails. At the end it prints how long each took, to show what could be made faster.
pub(crate) fn ci() -> Result<(), ChoreError> {
    let mut times = Vec::new();
    for (name, check) in CHECKS {
        let start = Instant::now();
        check()?;
        times.push(format!("{name} {} s", start.elapsed().as_secs()));
    }
    println!("xtask: everything passed: {}", times.join(", "));
    Ok(())
}

fn set_up() -> Result<(), ChoreError> {
    setup::setup().map(drop)
}

fn tests() -> Result<(), ChoreError> {
    test::test(&[])
}

fn format() -> Result<(), ChoreError> {
    step("Checking the format");
    run(&mut cargo(&["fmt", "--all", "--check"]))?;
    guests()?.iter().try_for_each(|guest| {
        run(cargo(&["fmt", "--check", "--manifest-path"]).arg(guest.folder.join("Cargo.toml")))
    })
}

fn clippy() -> Result<(), ChoreError> {
    step("Running clippy");
    run(&mut cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    guests()?.iter().try_for_each(|guest| {
        let mut cargo = cargo(&["clippy", "--quiet", "--all-targets", "--manifest-path"]);
        cargo.arg(guest.folder.join("Cargo.toml")).arg("--target-dir").arg(target_dir().join("guests"));
        run(cargo.args(["--", "-D", "warnings"]))
    })
}

fn documentation() -> Result<(), ChoreError> {
    step("Building the documentation");
    // With the examples included, the tests' dependencies count and the crate graph has the features that clippy has
    // just checked. Without them, most crates would be checked once more.
    let mut cargo = cargo(&[
        "doc",
        "--quiet",
        "--workspace",
        "--lib",
        "--bins",
        "--examples",
        "--no-deps",
        "--document-private-items",
    ]);
    run(cargo.env("RUSTDOCFLAGS", "-D warnings"))
}
