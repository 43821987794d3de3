//! The mail servers that are compared: how each is configured, started and stopped.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use crate::bench::postfix::Postfix;
use crate::bench::process::{self, ProcessUsage};
use crate::bench::release;
use crate::bench::stock::StockSetup;
use crate::run::ChoreError;

/// A mail server to measure.
#[derive(Debug, Clone)]
pub(crate) enum Contender {
    /// Pintle, with or without plugins.
    Pintle(ContenderPlugins),
    /// Debian's Postfix.
    Postfix,
}

/// The plugins that Pintle runs with.
#[derive(Debug, Clone)]
pub(crate) enum ContenderPlugins {
    None,
    /// A component that is called at every stage.
    Example(PathBuf),
    /// All stock plugins, and unsigned mail.
    Stock(StockSetup),
    /// All stock plugins, and signed mail.
    StockSigned(StockSetup),
}

impl Contender {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Pintle(ContenderPlugins::None) => "pintle",
            Self::Pintle(ContenderPlugins::Example(_)) => "pintle + plugin",
            Self::Pintle(ContenderPlugins::Stock(_)) => "pintle + stock",
            Self::Pintle(ContenderPlugins::StockSigned(_)) => "pintle + stock, signed",
            Self::Postfix => "postfix",
        }
    }

    /// The message to send to it, if not the load generator's own.
    pub(crate) fn message(&self) -> Option<&Path> {
        match self {
            Self::Pintle(ContenderPlugins::StockSigned(stock)) => stock.message.as_deref(),
            _ => None,
        }
    }
}

/// A running contender.
pub(crate) struct RunningContender {
    pub(crate) address: SocketAddr,
    kind: ContenderProcess,
    folder: PathBuf,
}

enum ContenderProcess {
    Pintle { child: Child, log: Option<JoinHandle<()>> },
    Postfix(Postfix),
}

impl RunningContender {
    /// Starts a contender that relays everything to `sink`.
    pub(crate) fn start(contender: &Contender, sink: SocketAddr) -> Result<Self, ChoreError> {
        let folder = scratch()?;
        match contender {
            Contender::Pintle(plugins) => pintle(folder, sink, plugins),
            Contender::Postfix => {
                let postfix = Postfix::start(&folder, sink)?;
                Ok(Self { address: postfix.address, kind: ContenderProcess::Postfix(postfix), folder })
            }
        }
    }

    /// CPU and memory used by all its processes so far.
    pub(crate) fn usage(&self) -> ProcessUsage {
        match &self.kind {
            ContenderProcess::Pintle { child, .. } => process::usage(&[child.id()]),
            ContenderProcess::Postfix(postfix) => process::usage(&postfix.processes()),
        }
    }

    pub(crate) fn stop(mut self) {
        match &mut self.kind {
            ContenderProcess::Pintle { child, log } => {
                let _ = child.kill();
                let _ = child.wait();
                if let Some(log) = log.take() {
                    let _ = log.join();
                }
            }
            ContenderProcess::Postfix(postfix) => postfix.stop(),
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn pintle(
    folder: PathBuf,
    sink: SocketAddr,
    plugins: &ContenderPlugins,
) -> Result<RunningContender, ChoreError> {
    let config = folder.join("pintle.toml");
    let unreadable = |cause| ChoreError::Unreadable { path: config.display().to_string(), cause };
    fs::write(&config, configuration(&folder, sink, plugins)).map_err(unreadable)?;
    let mut command = Command::new(release("pintle"));
    command.arg("run").arg("--config").arg(&config).stdin(Stdio::null()).stderr(Stdio::piped());
    let mut child =
        command.spawn().map_err(|cause| ChoreError::NotStarted { program: "pintle".to_owned(), cause })?;
    let mut log = child.stderr.take().map(BufReader::new);
    let mut address = None;
    let mut said = String::new();
    while let Some(log) = &mut log {
        let mut line = String::new();
        if log.read_line(&mut line).unwrap_or(0) == 0 {
            return Err(ChoreError::BadRun(format!("the gateway did not start:\n{said}")));
        }
        said.push_str(&line);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        match value["message"].as_str() {
            Some("listening") => address = value["address"].as_str().and_then(|text| text.parse().ok()),
            Some("ready") => break,
            _ => {}
        }
    }
    let address = address.ok_or_else(|| ChoreError::BadRun("the gateway printed no address".to_owned()))?;
    // Its log must be read, or it would block.
    let log = log.map(|log| std::thread::spawn(move || log.lines().for_each(drop)));
    Ok(RunningContender { address, kind: ContenderProcess::Pintle { child, log }, folder })
}

fn configuration(folder: &Path, sink: SocketAddr, plugins: &ContenderPlugins) -> String {
    let folder = folder.display();
    // With the stock plugins the load must come from an untrusted client, or they would have nothing to do.
    let clients = match plugins {
        ContenderPlugins::None | ContenderPlugins::Example(_) => {
            "kind = \"relay\"\nmax_per_trusted_address = 10000\ntrusted = [\"127.0.0.0/8\"]"
        }
        ContenderPlugins::Stock(_) | ContenderPlugins::StockSigned(_) => {
            "max_per_address = 10000\nmax_per_network = 10000\nmax_stranger_time = \"1d\"\n\
             max_stranger_transactions = 1000000000\nmax_stranger_size = \"1000GiB\""
        }
    };
    let mut text = format!(
        r#"hostname = "bench.example"

[spool]
dir = "{folder}/spool"

[admin]
socket = "{folder}/admin.sock"

[log]
format = "json"
level = "info"

[[listener]]
name = "load"
addresses = ["127.0.0.1:0"]
tls = "none"
{clients}

[domains]
accepted = ["sink.example"]

[relays.sink]
hosts = ["{sink}"]
tls = "none"

[[route]]
domain = "*"
via = "sink"
"#
    );
    match plugins {
        ContenderPlugins::None => {}
        ContenderPlugins::Example(component) => {
            let component = component.display();
            text.push_str(&format!(
                "\n[[plugin]]\nname = \"example\"\ncomponent = \"{component}\"\ngrants = [\"edit-headers\"]\n"
            ));
        }
        ContenderPlugins::Stock(stock) | ContenderPlugins::StockSigned(stock) => {
            text.push('\n');
            text.push_str(&stock.sections);
        }
    }
    text
}

pub(crate) fn scratch() -> Result<PathBuf, ChoreError> {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("pintle-bench-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    // Below the target folder, since a temporary folder may be in memory, where a sync costs nothing.
    let path = pintle_guest_build::target_dir().join(name);
    fs::create_dir_all(&path)
        .map_err(|cause| ChoreError::Unreadable { path: path.display().to_string(), cause })?;
    Ok(path)
}
