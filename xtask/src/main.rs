//! The project's chores, run as `cargo xtask NAME`. One module per chore; this file only lists them.
//!
//! A chore does its own set-up, says each step before it takes it, and ends with one line that tells how it went. What
//! it runs is printed as it would be typed, so that anybody can repeat a step by hand.

#![allow(clippy::print_stdout, reason = "chores talk to whoever ran them")]

mod apt;
mod bench;
mod ci;
mod clients;
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
#[command(name = "cargo xtask", about = "The project's chores")]
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
    /// Set up, build the plugins, run every test; further arguments go to the test runner
    Test {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Set up, build, and start a gateway to play with; further arguments go to `pintle sandbox`
    Sandbox {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Measure the release binary under load, beside Postfix where it is installed
    Bench(bench::BenchOptions),
    /// Play the fault matrix on the real binary, and write docs/reliability.md when all of it was played
    Faults(faults::FaultsOptions),
    /// Half an hour of mixed mail and faults: nothing may be lost, and nothing may grow
    Soak(faults::SoakOptions),
    /// Run the simulation of spool, queue and delivery with many seeds
    Simulate(simulate::SimulateOptions),
    /// Run the fuzz targets, ten minutes each unless told otherwise
    Fuzz(fuzz::FuzzOptions),
    /// Check what the compiler cannot: fences between crates, sizes, first lines, copies
    Tidy,
    /// Check licences, duplicate and forbidden crates, sources and advisories
    Deny,
    /// All that must pass before a change lands
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
