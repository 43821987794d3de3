//! `cargo xtask test`: runs all tests, on a machine with nothing installed but Rust.

use std::time::Instant;

use pintle_guest_build::{FRESH_COMPONENTS, Guest, guests, plugins_dir, target_dir};

use crate::run::{ChoreError, cargo, run, step, succeeds};
use crate::{clients, plugins};

/// Sets up, builds the plugins and runs all tests; `arguments` go to the test runner of the workspace.
pub(crate) fn test(arguments: &[String]) -> Result<(), ChoreError> {
    let start = Instant::now();
    clients::provide();
    let components = plugins::plugins()?;
    step("Building the binary and the tests");
    // Scenarios run the binary; when it is built together with the tests, both share one set of dependencies.
    run(&mut cargo(&["build", "--quiet", "--workspace", "--lib", "--bins", "--tests"]))?;
    step("Running the tests of the workspace");
    run(runner().args(arguments).env(FRESH_COMPONENTS, plugins_dir()))?;
    step("Running the examples in the documentation");
    run(cargo(&["test", "--quiet", "--doc", "--workspace"]).env(FRESH_COMPONENTS, plugins_dir()))?;
    step("Running the plugins' own tests");
    for guest in guests()? {
        test_guest(&guest)?;
    }
    let seconds = start.elapsed().as_secs();
    println!("\nxtask: all tests passed, {} plugin(s) built, {seconds} s", components.len());
    Ok(())
}

/// nextest if it is installed, since it runs the tests of all crates in parallel.
fn runner() -> std::process::Command {
    if succeeds(&mut cargo(&["nextest", "--version"])) {
        cargo(&["nextest", "run", "--workspace", "--no-fail-fast"])
    } else {
        cargo(&["test", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast"])
    }
}

/// Tests a plugin's pure functions on the host.
fn test_guest(guest: &Guest) -> Result<(), ChoreError> {
    let mut cargo = cargo(&["test", "--quiet", "--manifest-path"]);
    cargo.arg(guest.folder.join("Cargo.toml")).arg("--target-dir").arg(target_dir().join("guests"));
    run(&mut cargo)
}
