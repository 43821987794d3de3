//! `cargo xtask sandbox`: from a fresh clone to a gateway to play with.

use crate::plugins;
use crate::run::{ChoreError, cargo, run, step};

/// Optimised, since plugins are compiled by it: unoptimised its first start takes longer than this does. Not quiet, since it
/// takes minutes, and who sees nothing happen believes that nothing does.
const BUILD: [&str; 4] = ["build", "--release", "--package", "pintle"];
/// By now there is nothing to build.
const START: [&str; 7] = ["run", "--release", "--quiet", "--package", "pintle", "--", "sandbox"];

/// Runs `pintle sandbox` until it is interrupted.
pub(crate) fn sandbox(arguments: &[String]) -> Result<(), ChoreError> {
    plugins::plugins()?;
    step("Building the gateway, as it is released: some minutes the first time");
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
