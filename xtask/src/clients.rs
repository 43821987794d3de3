//! The mail clients that `tests/tests/clients.rs` sends with.
//!
//! On somebody's own machine a missing one is only told, since its test is passed over there: nobody asked for their
//! packages to be changed. CI runs every test, so there they are installed.

use crate::apt;
use crate::run::step;

/// The programs, each in Debian's package of the same name.
const CLIENTS: [&str; 4] = ["swaks", "msmtp", "curl", "python3"];

/// Installs what is missing where CI runs, and says what is missing elsewhere.
pub(crate) fn provide() {
    let lacking = lacking(apt::has);
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
    step("Installing the mail clients that the tests use");
    if !apt::install(&lacking) {
        println!("    their tests will fail; install them by hand: {packages}");
    }
}

/// The clients that are not there.
fn lacking(has: impl Fn(&str) -> bool) -> Vec<&'static str> {
    CLIENTS.into_iter().filter(|client| !has(client)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_there_is_lacking() {
        assert_eq!(lacking(|_| true), Vec::<&str>::new());
        assert_eq!(lacking(|program| program == "curl"), ["swaks", "msmtp", "python3"]);
    }
}
