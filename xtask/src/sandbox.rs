//! `cargo xtask sandbox`: from a fresh clone to a running sandbox gateway.

use crate::plugins;
use crate::run::{ChoreError, cargo, run, step};

/// Optimised, since the binary compiles plugins: the first start of an unoptimised one takes longer than this build.
/// Not quiet, since it takes minutes, and without output it would seem to hang.
const BUILD: [&str; 4] = ["build", "--release", "--package", "pintle"];
/// Nothing is left to build by then.
const START: [&str; 7] = ["run", "--release", "--quiet", "--package", "pintle", "--", "sandbox"];

/// Runs `pintle sandbox` until it is interrupted.
pub(crate) fn sandbox(arguments: &[String]) -> Result<(), ChoreError> {
    plugins::plugins()?;
    step("Building the release binary, which takes some minutes the first time");
    run(&mut cargo(&BUILD))?;
    step("Starting the sandbox");
    run(cargo(&START).args(arguments))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newcomer_sees_the_build_and_runs_what_is_released() {
        assert!(!BUILD.contains(&"--quiet") && BUILD.contains(&"--release"));
        assert_eq!(
            BUILD[1..],
            START[1..].iter().copied().filter(|word| *word != "--quiet").take(3).collect::<Vec<_>>()
        );
    }
}
