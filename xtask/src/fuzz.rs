//! `cargo xtask fuzz`: runs the fuzz targets of the crates, one after the other, each for some minutes.
//!
//! A target is a file in `crates/*/fuzz/fuzz_targets`. It starts with the seeds that are checked in next to it, which a
//! test of its crate replays, and stores new inputs in `crates/*/fuzz/corpus`. Inputs that fail are stored in
//! `crates/*/fuzz/artifacts`, and the last line of output says so.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use pintle_guest_build::{repository, target_dir};

use crate::run::{ChoreError, command, run, step, succeeds};

/// The options of `cargo xtask fuzz`.
#[derive(Debug, Args)]
pub(crate) struct FuzzOptions {
    /// Names of targets; all by default
    targets: Vec<String>,
    /// Run each target for N minutes
    #[arg(long, value_name = "N", default_value_t = 10)]
    minutes: u64,
    /// List the targets and exit
    #[arg(long)]
    list: bool,
    /// Build with this sanitizer. It is slower by half or more, and finds memory errors, which crates without `unsafe`
    /// do not have
    #[arg(long, value_name = "NAME", default_value = "none")]
    sanitizer: String,
}

/// A fuzz target.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct FuzzTarget {
    name: String,
    /// The workspace of the target, from the repository's root: `crates/mail/fuzz`.
    folder: PathBuf,
}

/// Runs the selected targets, and then says which of them found something.
pub(crate) fn fuzz(options: &FuzzOptions) -> Result<(), ChoreError> {
    let targets = chosen(all(repository())?, &options.targets)?;
    if options.list {
        targets.iter().for_each(|target| println!("{:<14} {}", target.name, target.folder.display()));
        return Ok(());
    }
    provided()?;
    let mut found = Vec::new();
    for (at, target) in targets.iter().enumerate() {
        let (name, minutes) = (&target.name, options.minutes);
        step(format!("Fuzzing {name} for {minutes} minutes ({} of {})", at + 1, targets.len()));
        if let Err(fault) = one(target, options) {
            println!("    {name}: {fault}");
            found.push(target);
        }
    }
    let artifacts =
        |target: &&FuzzTarget| target.folder.join("artifacts").join(&target.name).display().to_string();
    match found.is_empty() {
        true => Ok(()),
        false => Err(ChoreError::BadRun(format!(
            "{} of {} targets failed; their findings, if they were built, are in {}. Fix the fault and keep the input in seeds/",
            found.len(),
            targets.len(),
            found.iter().map(artifacts).collect::<Vec<_>>().join(", "),
        ))),
    }
}

/// All targets, by name.
fn all(root: &Path) -> Result<Vec<FuzzTarget>, ChoreError> {
    let mut targets = Vec::new();
    for package in names(&root.join("crates"))? {
        let folder = Path::new("crates").join(package).join("fuzz");
        let sources = root.join(&folder).join("fuzz_targets");
        if sources.is_dir() {
            let files = names(&sources)?.into_iter();
            let names = files.filter_map(|file| file.strip_suffix(".rs").map(str::to_owned));
            targets.extend(names.map(|name| FuzzTarget { name, folder: folder.clone() }));
        }
    }
    targets.sort();
    Ok(targets)
}

fn names(folder: &Path) -> Result<Vec<String>, ChoreError> {
    let unreadable = |cause: io::Error| ChoreError::Unreadable { path: folder.display().to_string(), cause };
    let entries = fs::read_dir(folder).map_err(unreadable)?;
    let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
    entries.map(name).collect::<io::Result<_>>().map_err(unreadable)
}

/// The targets with these names, in the order of the names; all if no name is given.
fn chosen(all: Vec<FuzzTarget>, named: &[String]) -> Result<Vec<FuzzTarget>, ChoreError> {
    let known: Vec<&str> = all.iter().map(|target| target.name.as_str()).collect();
    if let Some(other) = named.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(ChoreError::BadRun(format!(
            "there is no fuzz target `{other}`; there are {}",
            known.join(", ")
        )));
    }
    Ok(all.into_iter().filter(|target| named.is_empty() || named.contains(&target.name)).collect())
}

/// Checks that the tools are installed, and says how to get a missing one. Nothing is installed without being asked
/// for.
fn provided() -> Result<(), ChoreError> {
    let lack = |what: &str| Err(ChoreError::NoToolchain(format!("{what}; then run this again")));
    if !succeeds(&mut nightly(&["--version"])) {
        return lack(
            "fuzz targets need a nightly compiler: rustup toolchain install nightly --profile minimal",
        );
    }
    if !succeeds(&mut nightly(&["fuzz", "--version"])) {
        return lack("fuzz targets are built and run by cargo-fuzz: cargo install cargo-fuzz --locked");
    }
    Ok(())
}

fn nightly(arguments: &[&str]) -> std::process::Command {
    command("rustup", &[&["run", "nightly", "cargo"], arguments].concat())
}

/// Builds and runs one target.
fn one(target: &FuzzTarget, options: &FuzzOptions) -> Result<(), ChoreError> {
    let root = repository();
    let folder = root.join(&target.folder);
    let unreadable = |cause| ChoreError::Unreadable { path: folder.display().to_string(), cause };
    let lock = folder.join("Cargo.lock");
    if !lock.exists() {
        // Use the dependency versions of the product.
        fs::copy(root.join("Cargo.lock"), lock).map_err(unreadable)?;
    }
    let corpus = folder.join("corpus").join(&target.name);
    fs::create_dir_all(&corpus).map_err(unreadable)?;
    let mut command = nightly(&["fuzz", "run", "--sanitizer", &options.sanitizer, "--fuzz-dir"]);
    command.arg(&target.folder).arg("--target-dir").arg(target_dir().join("fuzz")).arg(&target.name);
    command.arg(corpus).arg(folder.join("seeds").join(&target.name));
    command.args(["--", "-rss_limit_mb=2048", "-timeout=25", "-print_final_stats=1"]);
    run(command.arg(format!("-max_total_time={}", 60 * options.minutes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_found_and_chosen_by_name() {
        let found = all(repository()).unwrap();
        let server = FuzzTarget { name: "server".into(), folder: "crates/smtp/fuzz".into() };
        assert!(found.contains(&server), "{found:?}");
        assert_eq!(chosen(found.clone(), &["server".into()]).unwrap(), [server]);
        assert_eq!(chosen(found.clone(), &[]).unwrap(), found);
        let fault = chosen(found, &["sever".into()]).unwrap_err().to_string();
        assert!(fault.contains("`sever`") && fault.contains("server"), "{fault}");
    }

    /// A finding needs a place to be kept, and the build of the tests must stay small.
    #[test]
    fn every_target_is_built_and_has_a_few_small_seeds() {
        for FuzzTarget { name, folder } in all(repository()).unwrap() {
            let folder = repository().join(folder);
            let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
            assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
            let seeds = folder.join("seeds").join(&name);
            let count = names(&seeds).unwrap().len();
            assert!((8..=80).contains(&count), "{name} has {count} seeds");
            for seed in names(&seeds).unwrap() {
                let size = fs::metadata(seeds.join(&seed)).unwrap().len();
                assert!(size <= 8 << 10, "{name}/{seed} has {size} octets");
            }
        }
    }
}
