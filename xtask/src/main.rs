//! Development tasks, run as `cargo xtask NAME`. One module per task; this file only lists them.
//!
//! A task does its own set-up, prints each step before it runs it, and ends with one line that gives the result.
//! Commands are printed as they would be typed, so that each step can be repeated by hand.

#![allow(clippy::print_stdout, reason = "tasks print to the terminal")]

mod apt;
mod bench;
mod ci;
mod clients;
mod contract;
mod deny;
mod faults;
mod fuzz;
mod plugins;
mod run;
mod sandbox;
mod setup;
mod simulate;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Development tasks of this repository")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Find or install a toolchain that builds plugins; in CI also the mail clients that tests use
    Setup,
    /// Build all plugins of the repository into target/plugins
    Plugins,
    /// Set up, build the plugins and run all tests; further arguments go to the test runner
    Test {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Set up, build, and start a sandbox gateway; further arguments go to `pintle sandbox`
    Sandbox {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Benchmark the release binary, and Postfix for comparison where it is installed
    Bench(bench::BenchOptions),
    /// Run the fault matrix on the real binary, and update docs/reliability.md when all of it was run
    Faults(faults::FaultsOptions),
    /// Run mixed mail and faults for half an hour: no mail may be lost, and no resource use may grow
    Soak(faults::SoakOptions),
    /// Run the simulation of spool, queue and delivery with many seeds
    Simulate(simulate::SimulateOptions),
    /// Run the fuzz targets, ten minutes each by default
    Fuzz(fuzz::FuzzOptions),
    /// Check what the compiler cannot: dependencies between crates, sizes, first lines, copies, the contract
    Tidy,
    /// Freeze wit/plugin.wit as a version of the contract, to which it is held from then on
    WitFreeze(contract::freeze::WitFreezeOptions),
    /// Check licences, duplicate and forbidden crates, sources and advisories
    Deny,
    /// Run all checks that must pass before a change is merged
    Ci,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().chore {
        Chore::Setup => {
            clients::provide();
            setup::setup().map(drop)
        }
        Chore::Plugins => plugins::plugins().map(drop),
        Chore::Test { arguments } => test::test(&arguments),
        Chore::Sandbox { arguments } => sandbox::sandbox(&arguments),
        Chore::Bench(options) => bench::bench(&options),
        Chore::Faults(options) => faults::faults(&options),
        Chore::Soak(options) => faults::soak(&options),
        Chore::Simulate(options) => simulate::simulate(&options),
        Chore::Fuzz(options) => fuzz::fuzz(&options),
        Chore::Tidy => tidy::tidy(),
        Chore::WitFreeze(options) => contract::freeze::wit_freeze(&options),
        Chore::Deny => deny::deny(),
        Chore::Ci => ci::ci(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            println!("\nxtask: {fault}");
            ExitCode::FAILURE
        }
    }
}
