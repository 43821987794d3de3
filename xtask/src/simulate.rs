//! `cargo xtask simulate`: runs the simulation of spool, queue and delivery with more seeds than the tests do.

use clap::Args;

use crate::run::{ChoreError, cargo, run, step};

/// The options of `cargo xtask simulate`.
#[derive(Debug, Args)]
pub(crate) struct SimulateOptions {
    /// The number of seeds
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first seed; the tests use those from 0 to 999
    #[arg(long, default_value_t = 1_000)]
    from: u64,
}

/// Runs the seeds, distributed over all cores. Fails when one of them violates an invariant, and says how to repeat it.
pub(crate) fn simulate(options: &SimulateOptions) -> Result<(), ChoreError> {
    step(format!(
        "Running {} seeds from {}; progress is shown for each hundredth of a core's share",
        options.seeds, options.from
    ));
    let mut cargo = cargo(&["test", "--quiet", "--workspace", "--test", "simulation", "--"]);
    run(cargo
        .args(["no_seed", "--nocapture"])
        .env("SEEDS", options.seeds.to_string())
        .env("FROM", options.from.to_string()))?;
    println!("\nxtask: no seed violated an invariant");
    Ok(())
}
