//! Runs the load generator and the sink as separate processes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::run::ChoreError;

/// The time limit for the last message to arrive.
const PATIENCE: Duration = Duration::from_secs(300);

/// The shape of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LoadShape {
    /// The number of concurrent sessions.
    pub(crate) sessions: u64,
    /// The number of messages in each session.
    pub(crate) per_session: u64,
}

/// The report of the load generator.
#[derive(Debug, Deserialize)]
pub(crate) struct LoadFigures {
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
    pub(crate) broken: u64,
    pub(crate) per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
}

/// The message that is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LoadMessage<'a> {
    /// The size of each message in octets.
    pub(crate) size: usize,
    /// A file to send instead of the load generator's own message.
    pub(crate) message: Option<&'a Path>,
}

impl LoadFigures {
    /// Fails if there were refusals or broken sessions, since these would improve the results.
    pub(crate) fn must_be_whole(&self) -> Result<(), ChoreError> {
        if self.refused + self.broken > 0 {
            return Err(ChoreError::BadRun(format!("{} refused, {} broken", self.refused, self.broken)));
        }
        Ok(())
    }
}

/// Sends `messages` messages and returns the generator's report.
pub(crate) fn run(
    program: &Path,
    target: SocketAddr,
    shape: LoadShape,
    messages: u64,
    sent: LoadMessage<'_>,
) -> Result<LoadFigures, ChoreError> {
    let pairs = [
        ("--target", target.to_string()),
        ("--sessions", shape.sessions.to_string()),
        ("--per-session", shape.per_session.to_string()),
        ("--messages", messages.to_string()),
        ("--size", sent.size.to_string()),
    ];
    let mut command = Command::new(program);
    for (flag, value) in pairs {
        command.arg(flag).arg(value);
    }
    if let Some(message) = sent.message {
        command.arg("--message").arg(message);
    }
    let line = crate::run::output(&mut command)?;
    serde_json::from_slice(&line)
        .map_err(|cause| ChoreError::Unexpected { command: "pintle-load".to_owned(), cause })
}

/// A running sink process; dropping this ends it.
pub(crate) struct SinkProcess {
    pub(crate) address: SocketAddr,
    child: Child,
    pipes: std::cell::RefCell<(ChildStdin, BufReader<ChildStdout>)>,
}

impl SinkProcess {
    pub(crate) fn start(program: &Path) -> Result<Self, ChoreError> {
        let started = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child =
            started.map_err(|cause| ChoreError::NotStarted { program: "pintle-sink".to_owned(), cause })?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(ChoreError::BadRun("the sink has no pipes".to_owned()));
        };
        let mut output = BufReader::new(output);
        let address = number_after(&mut output, "listening ")?;
        Ok(Self { address, child, pipes: (input, output).into() })
    }

    /// Waits until `count` messages have arrived.
    pub(crate) fn wait_for(&self, count: u64) -> Result<(), ChoreError> {
        let start = Instant::now();
        loop {
            let taken = self.taken()?;
            if taken >= count {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                return Err(ChoreError::BadRun(format!("{taken} of {count} messages arrived")));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn taken(&self) -> Result<u64, ChoreError> {
        let (input, output) = &mut *self.pipes.borrow_mut();
        input
            .write_all(b"\n")
            .map_err(|cause| ChoreError::Unreadable { path: "the sink".to_owned(), cause })?;
        number_after(output, "taken ")
    }
}

impl Drop for SinkProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn number_after<T: std::str::FromStr>(output: &mut impl BufRead, word: &str) -> Result<T, ChoreError> {
    let mut line = String::new();
    output
        .read_line(&mut line)
        .map_err(|cause| ChoreError::Unreadable { path: "the sink".to_owned(), cause })?;
    let value = line.strip_prefix(word).and_then(|rest| rest.trim().parse().ok());
    value.ok_or_else(|| ChoreError::BadRun(format!("the sink said {line:?}")))
}

/// Opens sessions that send EHLO and then wait.
pub(crate) fn idle(target: SocketAddr, sessions: u64) -> Result<Vec<TcpStream>, ChoreError> {
    let open = || -> std::io::Result<TcpStream> {
        let mut stream = TcpStream::connect(target)?;
        let mut buffer = [0; 1024];
        let _greeting = stream.read(&mut buffer)?;
        stream.write_all(b"EHLO idle.example\r\n")?;
        let _offers = stream.read(&mut buffer)?;
        Ok(stream)
    };
    let each = |_| open().map_err(|cause| ChoreError::Unreadable { path: target.to_string(), cause });
    (0..sessions).map(each).collect()
}
