//! `cargo xtask bench`: what the release binary does under load, beside Postfix on the same machine in the same run.
//!
//! Each contender relays 10 KB messages from the load generator to a sink, durably, as it does by default. Rounds take
//! turns between contenders, so that a noisy moment hits all alike, and the medians are told. Rates run until the last
//! message has reached the sink; CPU and memory are the gateway's own processes, generator and sink left out.

mod contender;
mod load;
mod postfix;
mod process;
mod stock;
mod table;

use std::path::{Path, PathBuf};

use clap::Args;
use pintle_guest_build::{component, target_dir};

use crate::run::{ChoreError, cargo, run, step};
use contender::{Contender, Plugins, Running};
use load::{Sent, Shape, Sink};
use stock::Zone;
use table::Row;

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Rounds of each contender and load; the medians are told
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Messages in each round
    #[arg(long, default_value_t = 5_000)]
    messages: u64,
    /// Octets of each message
    #[arg(long, default_value_t = 10_240)]
    size: usize,
    /// Leave Postfix out. Otherwise it is measured where it is installed, which needs root
    #[arg(long)]
    no_postfix: bool,
    /// Write all figures here as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// The loads: sessions at once, and messages in each session.
const SHAPES: [Shape; 4] = [
    Shape { sessions: 1, per_session: 1 },
    Shape { sessions: 20, per_session: 1 },
    Shape { sessions: 20, per_session: 50 },
    Shape { sessions: 100, per_session: 1 },
];

/// Builds, measures, and prints the table.
pub(crate) fn bench(options: &Options) -> Result<(), ChoreError> {
    step("Building in release: the gateway, the load generator, the sink, the example plugin");
    run(&mut cargo(&["build", "--release", "--quiet", "--package", "pintle", "--package", "e2e", "--bins"]))?;
    let plugin = component("example")?;
    let zone = Zone::start(contender::scratch()?)?;
    let contenders = contenders(options, &plugin, &zone)?;
    let mut rows = Vec::new();
    for round in 1..=options.rounds {
        for shape in SHAPES {
            for contender in &contenders {
                let row = measure(contender, shape, options)?;
                println!("    round {round}: {row}");
                rows.push(row);
            }
        }
    }
    idle_memory(&contenders, &mut rows, options)?;
    step("Medians");
    println!("{}", table::medians(&rows));
    if let Some(path) = &options.json {
        table::write_json(path, &rows)?;
    }
    Ok(())
}

fn contenders(options: &Options, plugin: &Path, zone: &Zone) -> Result<Vec<Contender>, ChoreError> {
    let all = [
        Plugins::None,
        Plugins::Example(plugin.to_owned()),
        Plugins::Stock(zone.unsigned()?),
        Plugins::StockSigned(zone.signed(options.size)?),
    ];
    let mut contenders: Vec<_> = all.into_iter().map(Contender::Pintle).collect();
    if !options.no_postfix {
        match postfix::why_not() {
            None => contenders.push(Contender::Postfix),
            Some(why) => println!("    Postfix is left out: {why}"),
        }
    }
    Ok(contenders)
}

/// One contender under one load.
fn measure(contender: &Contender, shape: Shape, options: &Options) -> Result<Row, ChoreError> {
    let sink = Sink::start(&release("pintle-sink"))?;
    let running = Running::start(contender, sink.address)?;
    // The first messages pay for what is made once: sessions, caches, segments.
    let warm = Shape { sessions: 4, per_session: 10 };
    let what = Sent { size: options.size, message: contender.message() };
    // A greylist says no to the first.
    let warm = load::run(&release("pintle-load"), running.address, warm, 200, what)?;
    sink.wait_for(warm.accepted)?;
    let before = running.usage();
    let start = std::time::Instant::now();
    let figures = load::run(&release("pintle-load"), running.address, shape, options.messages, what)?;
    figures.must_be_whole()?;
    sink.wait_for(warm.accepted + figures.accepted)?;
    let through = start.elapsed();
    let used = running.usage().since(&before);
    running.stop();
    Ok(Row::new(contender.name(), shape, &figures, through, &used))
}

/// What 2,000 sessions cost that have said EHLO and wait.
fn idle_memory(contenders: &[Contender], rows: &mut Vec<Row>, options: &Options) -> Result<(), ChoreError> {
    const SESSIONS: u64 = 2_000;
    let Some(contender) = contenders.first() else {
        return Ok(());
    };
    step(format!("Memory of {SESSIONS} idle sessions"));
    let sink = Sink::start(&release("pintle-sink"))?;
    let running = Running::start(contender, sink.address)?;
    let warm = Shape { sessions: 100, per_session: 10 };
    let what = Sent { size: options.size, message: None };
    load::run(&release("pintle-load"), running.address, warm, 1_000, what)?.must_be_whole()?;
    sink.wait_for(1_000)?;
    let before = running.usage().resident_kb;
    let idle = load::idle(running.address, SESSIONS)?;
    let after = running.usage().resident_kb;
    drop(idle);
    running.stop();
    #[expect(clippy::cast_precision_loss, reason = "kilobytes of one process")]
    let each = after.saturating_sub(before) as f64 / SESSIONS as f64;
    println!("    {each:.1} KB a session ({before} KB before, {after} KB with them)");
    rows.push(Row::idle(contender.name(), SESSIONS, each));
    Ok(())
}

fn release(name: &str) -> PathBuf {
    target_dir().join("release").join(name)
}
