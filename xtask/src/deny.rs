//! `cargo xtask deny`: licences, duplicates, forbidden crates, sources and advisories, by cargo-deny and deny.toml.
//!
//! If cargo-deny is not installed, it is built once into the user's cache folder. Advisories need the RustSec database,
//! which comes by git: if it cannot be fetched, only the other checks count, and a line says so.

use std::path::PathBuf;
use std::time::Duration;

use pintle_guest_build::{Guest, guests};

use crate::run::{ChoreError, cargo, command, run, run_at_most, step, succeeds};

/// The version of cargo-deny; the format of the configuration file depends on it.
const VERSION: &str = "0.20.2";

/// The time limit for fetching the database, which takes seconds if it can be reached.
const ADVISORIES_LIMIT: Duration = Duration::from_mins(2);

/// Fails if anything violates deny.toml.
pub(crate) fn deny() -> Result<(), ChoreError> {
    let program = program()?;
    step("Checking licences, duplicate crates and their sources");
    run(&mut command(&program, &["check", "--hide-inclusion-graph", "bans", "licenses", "sources"]))?;
    for guest in guests()? {
        check_guest(&program, &guest)?;
    }
    advisories(&program)
}

/// Plugins have their own dependency graphs and are distributed like the rest; they need not use every licence.
fn check_guest(program: &str, guest: &Guest) -> Result<(), ChoreError> {
    let mut check = command(program, &["--config", "deny.toml", "--manifest-path"]);
    check.arg(guest.folder.join("Cargo.toml")).args(["check", "--hide-inclusion-graph"]);
    check.args(["--allow", "license-not-encountered"]);
    run(check.args(["bans", "licenses", "sources"]))
}

/// A database that cannot be fetched is no error of the change at hand; an advisory in a fetched one is.
fn advisories(program: &str) -> Result<(), ChoreError> {
    step("Checking for advisories");
    if let Err(fault) = run_at_most(&mut command(program, &["fetch", "db"]), ADVISORIES_LIMIT) {
        println!("    NOT CHECKED: the advisory database cannot be fetched ({fault})");
        return Ok(());
    }
    run(&mut command(program, &["check", "--disable-fetch", "--hide-inclusion-graph", "advisories"]))
}

/// Finds cargo-deny on the PATH, or in the cache folder, where it is built first if necessary.
fn program() -> Result<String, ChoreError> {
    if succeeds(&mut command("cargo-deny", &["--version"])) {
        return Ok("cargo-deny".to_owned());
    }
    let root = cache().join(format!("cargo-deny-{VERSION}"));
    let program = root.join("bin/cargo-deny").to_string_lossy().into_owned();
    if !succeeds(&mut command(&program, &["--version"])) {
        step(format!("Building cargo-deny {VERSION}, once, into {}", root.display()));
        // An unoptimised build takes a third of the time, and the program runs only for seconds.
        let mut install =
            cargo(&["install", "cargo-deny", "--locked", "--debug", "--quiet", "--version", VERSION]);
        run(install.arg("--root").arg(&root).env_remove("CARGO_TARGET_DIR"))?;
    }
    Ok(program)
}

/// `$XDG_CACHE_HOME/pintle`, by default below the home folder; without either, a folder in the target folder.
fn cache() -> PathBuf {
    let home = || std::env::home_dir().map(|home| home.join(".cache"));
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    base.map_or_else(|| pintle_guest_build::target_dir().join("tools"), |base| base.join("pintle"))
}
