//! `pintle`: the programmable mail gateway.
//!
//! The binary parses the command line, and constructs, connects, starts and drains the parts; the logic is in the
//! library crates. Read [`app`] to see how the parts depend on each other.

#![allow(clippy::print_stdout, reason = "a command prints its result on standard output")]
#![warn(
    clippy::print_stderr,
    reason = "`eprintln!` panics when standard error is closed; `complain!` does not"
)]

mod app;
mod capture;
mod check;
mod cli;
mod dkim;
mod dry_run;
mod hash_password;
mod last_reload;
mod logging;
mod open_files;
mod operator;
mod output;
mod parts;
mod privileges;
mod quarantine;
mod quarantine_space;
mod queue;
mod records;
mod refusal;
mod reload;
mod remote;
mod run;
mod sandbox;
mod signals;
mod spool;
mod stock;
mod supervisor;

use std::process::ExitCode;

use clap::Parser;

// Mail processing makes small allocations of many sizes that live for milliseconds and are freed by other threads. The
// system's allocator fragments under that load; jemalloc uses arenas. `cargo xtask bench` measures memory and CPU.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // Files that this program writes hold mail or secrets, so other users get no access. The umask is set first, since
    // it applies to all threads.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    pintle_tls::install_provider();
    let result = match cli::Cli::parse().command {
        cli::CliCommand::Run(options) => run::run(&options),
        cli::CliCommand::Check(options) => check::check(&options),
        cli::CliCommand::Try(options) => dry_run::run(&options),
        cli::CliCommand::Sandbox(options) => sandbox::run(options),
        cli::CliCommand::Queue(options) => remote::queue(options),
        cli::CliCommand::Quarantine(options) => remote::quarantine(options),
        cli::CliCommand::Plugins(options) => remote::plugins(options),
        cli::CliCommand::Spool(options) => spool::run(&options),
        cli::CliCommand::Dkim(options) => dkim::run(&options),
        cli::CliCommand::HashPassword => hash_password::run(),
        cli::CliCommand::Reload(options) => remote::reload(&options),
        cli::CliCommand::Status(options) => remote::status(&options),
    };
    result.unwrap_or_else(|error| {
        output::complain!("pintle: {error}");
        ExitCode::FAILURE
    })
}
