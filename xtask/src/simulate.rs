//! `cargo xtask simulate`: the simulation of spool, queue and delivery with more seeds than the tests take.

use clap::Args;

use crate::run::{ChoreError, cargo, run, step};

/// Which seeds.
#[derive(Debug, Args)]
pub(crate) struct SimulateOptions {
    /// How many
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first; the tests take those from 0 to 999
    #[arg(long, default_value_t = 1_000)]
    from: u64,
}

/// Runs them, each core its share; fails when one of them breaks a law, and says how to repeat it.
pub(crate) fn simulate(options: &SimulateOptions) -> Result<(), ChoreError> {
    step(format!("Running {} seeds from {}; each hundredth of a share is told", options.seeds, options.from));
    let mut cargo = cargo(&["test", "--quiet", "--workspace", "--test", "simulation", "--"]);
    run(cargo
        .args(["no_seed", "--nocapture"])
        .env("SEEDS", options.seeds.to_string())
        .env("FROM", options.from.to_string()))?;
    println!("\nxtask: no seed broke a law");
    Ok(())
}
