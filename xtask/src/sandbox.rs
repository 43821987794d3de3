//! `cargo xtask sandbox`: from a fresh clone to a gateway to play with.

use crate::plugins;
use crate::run::{Fault, cargo, run, step};

/// Runs `pintle sandbox` until it is interrupted.
pub(crate) fn sandbox(arguments: &[String]) -> Result<(), Fault> {
    plugins::plugins()?;
    step("Building and starting the sandbox");
    // Unoptimised, since a newcomer waits for the compiler and not for the gateway.
    run(cargo(&["run", "--quiet", "--package", "pintle", "--", "sandbox"]).args(arguments))
}
