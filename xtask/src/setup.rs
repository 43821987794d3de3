//! `cargo xtask setup`: makes sure that plugins can be built on this machine.
//!
//! If there is a complete toolchain, it does nothing. Otherwise it tries rustup, then Debian's packages, and if neither
//! works, it ends with instructions. It changes nothing else on the machine.

use std::time::Duration;

use pintle_guest_build::{MissingPart, MissingToolchain, Toolchain, WASM_TARGET};

use crate::apt;
use crate::run::{ChoreError, command, run_at_most, step};

/// The time limit for a download of some 30 MB, if there is a network at all.
const RUSTUP_LIMIT: Duration = Duration::from_mins(3);

/// Returns a toolchain that builds plugins, which is installed first if necessary and possible.
pub(crate) fn setup() -> Result<Toolchain, ChoreError> {
    let Err(missing) = Toolchain::find() else {
        return found();
    };
    step(format!("No toolchain for plugins yet. {missing}"));
    if apt::has("rustup") && add_target().is_ok() && Toolchain::find().is_ok() {
        return found();
    }
    if install_packages(&missing) && Toolchain::find().is_ok() {
        return found();
    }
    let left = Toolchain::find().err().unwrap_or(missing);
    Err(ChoreError::NoToolchain(instruction(&left)))
}

fn found() -> Result<Toolchain, ChoreError> {
    let toolchain = Toolchain::find().map_err(|missing| ChoreError::NoToolchain(instruction(&missing)))?;
    let by = match &toolchain {
        Toolchain::Active => "the active toolchain",
        Toolchain::Debian(_) => "Debian's rustc-web, the standard library included",
    };
    step(format!("Plugins are built by {by}, for {WASM_TARGET}"));
    Ok(toolchain)
}

fn add_target() -> Result<(), ChoreError> {
    step("Installing the target by rustup");
    let outcome = run_at_most(&mut command("rustup", &["target", "add", WASM_TARGET]), RUSTUP_LIMIT);
    if let Err(fault) = &outcome {
        println!("    failed: {fault}");
    }
    outcome
}

/// False if apt-get fails or is not enough.
fn install_packages(missing: &MissingToolchain) -> bool {
    let packages = packages(missing);
    if packages.is_empty() || missing.0.contains(&MissingPart::Linkers) {
        return false;
    }
    step("Installing Debian's Rust for WebAssembly, which brings the standard library as source");
    apt::install(&packages)
}

fn packages(missing: &MissingToolchain) -> Vec<&'static str> {
    let package = |lack: &MissingPart| match lack {
        MissingPart::Package { package, .. } => Some(*package),
        MissingPart::Target | MissingPart::Linkers => None,
    };
    missing.0.iter().filter_map(package).collect()
}

fn instruction(missing: &MissingToolchain) -> String {
    let mut text = format!("{missing}\n\nOne of these makes it complete:\n");
    text.push_str(&format!(
        "  - with rustup (https://rustup.rs) and a network: rustup target add {WASM_TARGET}\n"
    ));
    let packages = packages(missing);
    if !packages.is_empty() {
        let packages = packages.join(" ");
        text.push_str(&format!(
            "  - on Debian, as root, beside a rustup toolchain: apt-get install {packages}\n"
        ));
    }
    text.push_str("and then run the same command again.");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing() -> MissingToolchain {
        let package = MissingPart::Package { path: "/usr/lib/wasm32-wasi/libc.a", package: "wasi-libc" };
        MissingToolchain(vec![MissingPart::Target, package])
    }

    #[test]
    fn the_instruction_names_what_is_lacking_and_each_remedy() {
        let text = instruction(&missing());
        for part in
            ["/usr/lib/wasm32-wasi/libc.a", "rustup target add wasm32-wasip2", "apt-get install wasi-libc"]
        {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
    }

    #[test]
    fn packages_are_not_installed_when_they_would_not_be_enough() {
        let mut missing = missing();
        missing.0.push(MissingPart::Linkers);
        assert!(!install_packages(&missing));
        assert!(!install_packages(&MissingToolchain(vec![MissingPart::Target])));
    }
}
