//! `cargo xtask ci`: all that must pass before a change lands, the cheap and talkative checks first.

use pintle_guest_build::{guests, target_dir};

use crate::run::{Fault, cargo, run, step};
use crate::{deny, test, tidy};

/// Stops at the first check that fails.
pub(crate) fn ci() -> Result<(), Fault> {
    format()?;
    tidy::tidy()?;
    clippy()?;
    documentation()?;
    deny::deny()?;
    test::test(&[])?;
    println!("xtask: everything passed");
    Ok(())
}

fn format() -> Result<(), Fault> {
    step("Checking the format");
    run(&mut cargo(&["fmt", "--all", "--check"]))?;
    guests()?.iter().try_for_each(|guest| {
        run(cargo(&["fmt", "--check", "--manifest-path"]).arg(guest.folder.join("Cargo.toml")))
    })
}

fn clippy() -> Result<(), Fault> {
    step("Running clippy");
    run(&mut cargo(&[
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?;
    guests()?.iter().try_for_each(|guest| {
        let mut cargo = cargo(&["clippy", "--quiet", "--all-targets", "--manifest-path"]);
        cargo
            .arg(guest.folder.join("Cargo.toml"))
            .arg("--target-dir")
            .arg(target_dir().join("guests"));
        run(cargo.args(["--", "-D", "warnings"]))
    })
}

fn documentation() -> Result<(), Fault> {
    step("Building the documentation");
    let mut cargo = cargo(&[
        "doc",
        "--quiet",
        "--workspace",
        "--no-deps",
        "--document-private-items",
    ]);
    run(cargo.env("RUSTDOCFLAGS", "-D warnings"))
}
