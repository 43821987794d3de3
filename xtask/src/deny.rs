//! `cargo xtask deny`: licences, duplicates, forbidden crates, sources and advisories, by cargo-deny and deny.toml.
//!
//! Where cargo-deny is not installed it is built once into the user's cache folder. Advisories need the RustSec
//! database, which comes by git: where it cannot be had, the other checks still decide, and a line says so.

use std::path::PathBuf;
use std::time::Duration;

use pintle_guest_build::{Guest, guests};

use crate::run::{ChoreError, cargo, command, run, run_at_most, step, succeeds};

/// Read when a version moves: the configuration file's format follows it.
const VERSION: &str = "0.20.2";

/// Fetching the database takes seconds where it can be reached.
const ADVISORIES_LIMIT: Duration = Duration::from_mins(2);

/// Fails on what deny.toml forbids.
pub(crate) fn deny() -> Result<(), ChoreError> {
    let program = program()?;
    step("Checking licences, duplicate crates and their sources");
    run(&mut command(&program, &["check", "--hide-inclusion-graph", "bans", "licenses", "sources"]))?;
    for guest in guests()? {
        check_guest(&program, &guest)?;
    }
    advisories(&program)
}

/// Plugins are linked from graphs of their own and are passed on like the rest; they need not use every licence.
fn check_guest(program: &str, guest: &Guest) -> Result<(), ChoreError> {
    let mut check = command(program, &["--config", "deny.toml", "--manifest-path"]);
    check.arg(guest.folder.join("Cargo.toml")).args(["check", "--hide-inclusion-graph"]);
    check.args(["--allow", "license-not-encountered"]);
    run(check.args(["bans", "licenses", "sources"]))
}

/// A database that cannot be fetched is no fault of the change at hand; an advisory in one that was fetched is.
fn advisories(program: &str) -> Result<(), ChoreError> {
    step("Checking for advisories");
    if let Err(fault) = run_at_most(&mut command(program, &["fetch", "db"]), ADVISORIES_LIMIT) {
        println!("    NOT CHECKED: the advisory database cannot be fetched ({fault})");
        return Ok(());
    }
    run(&mut command(program, &["check", "--disable-fetch", "--hide-inclusion-graph", "advisories"]))
}

/// cargo-deny from the PATH, or from the cache folder, built there first where it must be.
fn program() -> Result<String, ChoreError> {
    if succeeds(&mut command("cargo-deny", &["--version"])) {
        return Ok("cargo-deny".to_owned());
    }
    let root = cache().join(format!("cargo-deny-{VERSION}"));
    let program = root.join("bin/cargo-deny").to_string_lossy().into_owned();
    if !succeeds(&mut command(&program, &["--version"])) {
        step(format!("Building cargo-deny {VERSION}, once, into {}", root.display()));
        // Unoptimised it builds in a third of the time, and it runs for seconds.
        let mut install =
            cargo(&["install", "cargo-deny", "--locked", "--debug", "--quiet", "--version", VERSION]);
        run(install.arg("--root").arg(&root).env_remove("CARGO_TARGET_DIR"))?;
    }
    Ok(program)
}

/// `$XDG_CACHE_HOME/pintle`, by default below the home folder; a machine without either gets the target folder.
fn cache() -> PathBuf {
    let home = || std::env::home_dir().map(|home| home.join(".cache"));
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    base.map_or_else(|| pintle_guest_build::target_dir().join("tools"), |base| base.join("pintle"))
}
