//! Installs Debian packages, where this machine has apt and the user may use it.

use std::process::Command;

use crate::run::{command, run, succeeds};

/// Installs the packages; false when apt-get fails, which it has then reported.
pub(crate) fn install(packages: &[&str]) -> bool {
    if !has("apt-get") {
        return false;
    }
    let Some(privilege) = privilege() else {
        println!("    apt-get needs root, and sudo asks for a password");
        return false;
    };
    let install = ["install", "--yes", "--no-install-recommends"];
    let steps = [vec!["update", "--quiet"], [&install[..], packages].concat()];
    steps.into_iter().all(|arguments| {
        let words = [privilege, &["apt-get"], &arguments].concat();
        let mut apt = command(words[0], &words[1..]);
        run(apt.env("DEBIAN_FRONTEND", "noninteractive"))
            .inspect_err(|fault| println!("    failed: {fault}"))
            .is_ok()
    })
}

/// Whether a program can be run here.
pub(crate) fn has(program: &str) -> bool {
    succeeds(&mut command(program, &["--version"]))
}

/// The command prefix for running as root, or `None` if that needs a password.
fn privilege() -> Option<&'static [&'static str]> {
    let id = Command::new("id").arg("-u").output().ok()?;
    if id.stdout.trim_ascii() == b"0" {
        return Some(&[]);
    }
    succeeds(&mut command("sudo", &["-n", "true"])).then_some(&["sudo", "-n"])
}
