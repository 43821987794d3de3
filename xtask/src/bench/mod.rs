//! `cargo xtask bench`: measures the release binary under load, together with Postfix on the same machine in the same
//! run.
//!
//! Each contender relays 10 KB messages from the load generator to a sink, durably, with its default settings.
//! Contenders take turns in each round, so that noise affects all of them, and medians are reported. Rates are measured
//! until the last message has reached the sink; CPU and memory are those of the gateway's own processes, without
//! generator and sink.

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
use contender::{Contender, ContenderPlugins, RunningContender};
use load::{LoadMessage, LoadShape, SinkProcess};
use stock::ZoneProcess;
use table::Measurement;

/// The options of `cargo xtask bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchOptions {
    /// Rounds of each contender and load; medians are reported
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Messages in each round
    #[arg(long, default_value_t = 5_000)]
    messages: u64,
    /// The size of each message in octets
    #[arg(long, default_value_t = 10_240)]
    size: usize,
    /// Leave Postfix out. By default it is measured where it is installed, which needs root
    #[arg(long)]
    no_postfix: bool,
    /// Write all results to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// The loads: concurrent sessions, and messages in each session.
const SHAPES: [LoadShape; 4] = [
    LoadShape { sessions: 1, per_session: 1 },
    LoadShape { sessions: 20, per_session: 1 },
    LoadShape { sessions: 20, per_session: 50 },
    LoadShape { sessions: 100, per_session: 1 },
];

/// Builds, measures, and prints the table.
pub(crate) fn bench(options: &BenchOptions) -> Result<(), ChoreError> {
    step("Building in release: the gateway, the load generator, the sink, the example plugin");
    run(&mut cargo(&["build", "--release", "--quiet", "--package", "pintle", "--package", "e2e", "--bins"]))?;
    let plugin = component("example")?;
    let zone = ZoneProcess::start(contender::scratch()?)?;
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

fn contenders(
    options: &BenchOptions,
    plugin: &Path,
    zone: &ZoneProcess,
) -> Result<Vec<Contender>, ChoreError> {
    let all = [
        ContenderPlugins::None,
        ContenderPlugins::Example(plugin.to_owned()),
        ContenderPlugins::Stock(zone.unsigned()?),
        ContenderPlugins::StockSigned(zone.signed(options.size)?),
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
fn measure(
    contender: &Contender,
    shape: LoadShape,
    options: &BenchOptions,
) -> Result<Measurement, ChoreError> {
    let sink = SinkProcess::start(&release("pintle-sink"))?;
    let running = RunningContender::start(contender, sink.address)?;
    // The first messages have one-time costs: sessions, caches, segments.
    let warm = LoadShape { sessions: 4, per_session: 10 };
    let what = LoadMessage { size: options.size, message: contender.message() };
    // A greylist defers the first message.
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
    Ok(Measurement::new(contender.name(), shape, &figures, through, &used))
}

/// Measures the memory of 2,000 sessions that have sent EHLO and wait.
fn idle_memory(
    contenders: &[Contender],
    rows: &mut Vec<Measurement>,
    options: &BenchOptions,
) -> Result<(), ChoreError> {
    const SESSIONS: u64 = 2_000;
    let Some(contender) = contenders.first() else {
        return Ok(());
    };
    step(format!("Memory of {SESSIONS} idle sessions"));
    let sink = SinkProcess::start(&release("pintle-sink"))?;
    let running = RunningContender::start(contender, sink.address)?;
    let warm = LoadShape { sessions: 100, per_session: 10 };
    let what = LoadMessage { size: options.size, message: None };
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
    rows.push(Measurement::idle(contender.name(), SESSIONS, each));
    Ok(())
}

fn release(name: &str) -> PathBuf {
    target_dir().join("release").join(name)
}
