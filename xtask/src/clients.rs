//! Programs that tests compare us with: the mail clients that `tests/tests/clients.rs` sends with, and the verifiers that
//! `crates/sender-auth/tests/it/interop.rs` asks about our signatures.
//!
//! On somebody's own machine a missing one is only told, since its test is passed over there: nobody asked for their
//! packages to be changed. CI runs every test, so there they are installed.

use crate::apt;
use crate::run::{command, step, succeeds};

/// A program, and how its presence shows.
struct ComparedProgram {
    /// Debian's package.
    package: &'static str,
    /// A command that succeeds where it is installed.
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

/// Installs what is missing where CI runs, and says what is missing elsewhere.
pub(crate) fn provide() {
    let lacking = lacking(|probe| succeeds(&mut command(probe[0], &probe[1..])));
    if lacking.is_empty() {
        return;
    }
    let packages = lacking.join(" ");
    if std::env::var_os("CI").is_none() {
        step(format!(
            "Not installed, so their tests are passed over: {packages} (apt-get install {packages})"
        ));
        return;
    }
    step("Installing the programs that the tests compare with");
    if !apt::install(&lacking) {
        println!("    their tests will fail; install them by hand: {packages}");
    }
}

/// The packages that are not there.
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
