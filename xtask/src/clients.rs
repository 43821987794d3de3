//! Programs that tests use: the mail clients that `tests/tests/clients.rs` sends with, and the verifiers that
//! `crates/sender-auth/tests/it/interop.rs` checks our signatures with.
//!
//! On a developer's machine a missing program is only reported, since its test is skipped there and nobody asked to
//! install packages. CI runs every test, so they are installed there.

use crate::apt;
use crate::run::{command, step, succeeds};

/// A program, and how to find out whether it is installed.
struct ComparedProgram {
    /// The Debian package that contains it.
    package: &'static str,
    /// A command that succeeds if it is installed.
    probe: &'static [&'static str],
}

const PROGRAMS: [ComparedProgram; 6] = [
    ComparedProgram { package: "swaks", probe: &["swaks", "--version"] },
    ComparedProgram { package: "msmtp", probe: &["msmtp", "--version"] },
    ComparedProgram { package: "curl", probe: &["curl", "--version"] },
    ComparedProgram { package: "python3", probe: &["python3", "--version"] },
    // Debian's module is for Debian's Python, which need not be the first on the PATH.
    ComparedProgram { package: "python3-dkim", probe: &["/usr/bin/python3", "-c", "import dkim, nacl"] },
    ComparedProgram { package: "opendkim", probe: &["opendkim", "-V"] },
];

/// In CI, installs what is missing; elsewhere only reports it.
pub(crate) fn provide() {
    let lacking = lacking(|probe| succeeds(&mut command(probe[0], &probe[1..])));
    if lacking.is_empty() {
        return;
    }
    let packages = lacking.join(" ");
    if std::env::var_os("CI").is_none() {
        step(format!("Not installed, so their tests are skipped: {packages} (apt-get install {packages})"));
        return;
    }
    step("Installing the programs that the tests need");
    if !apt::install(&lacking) {
        println!("    their tests will fail; install them by hand: {packages}");
    }
}

/// The packages that are not installed.
fn lacking(succeeds: impl Fn(&[&str]) -> bool) -> Vec<&'static str> {
    PROGRAMS.iter().filter(|program| !succeeds(program.probe)).map(|program| program.package).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_there_is_lacking() {
        assert_eq!(lacking(|_| true), Vec::<&str>::new());
        assert_eq!(lacking(|probe| probe.contains(&"--version")), ["python3-dkim", "opendkim"]);
    }
}
