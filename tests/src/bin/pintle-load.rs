//! A load generator: a number of concurrent sessions, a number of messages in all, and one line of JSON at the end.
//!
//! It measures what a client sees (from MAIL to the reply after the final dot) and shares no code with the gateway, so
//! that neither distorts the other's results. One thread serves all sessions; its own cost is small compared to any
//! server's. It sends only to loopback.

#![allow(clippy::print_stdout, reason = "the caller reads its standard output")]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The options of a run.
#[derive(Debug, Clone)]
struct LoadOptions {
    target: SocketAddr,
    sessions: u64,
    messages: u64,
    per_session: u64,
    size: usize,
    pipeline: bool,
    from: String,
    to: String,
    /// A file to send instead of a message of `size` octets.
    message: Option<std::path::PathBuf>,
    /// Print the message and send nothing.
    print: bool,
}

/// The results.
#[derive(Debug, Default)]
struct LoadTally {
    accepted: u64,
    refused: u64,
    broken: u64,
    latencies: Vec<Duration>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let plan = match plan(std::env::args().skip(1)) {
        Ok(plan) => Arc::new(plan),
        Err(text) => {
            eprintln!("pintle-load: {text}\n{USAGE}");
            std::process::exit(2);
        }
    };
    let mut message = match &plan.message {
        None => message(plan.size),
        // Its lines must end in CRLF and must not begin with dots.
        Some(file) => std::fs::read(file).expect("the message can be read"),
    };
    if plan.print {
        print!("{}", String::from_utf8_lossy(&message));
        return;
    }
    message.extend_from_slice(b".\r\n");
    let message: Arc<[u8]> = message.into();
    let left = Arc::new(AtomicU64::new(plan.messages));
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..plan.sessions {
        tasks.spawn(client(Arc::clone(&plan), Arc::clone(&message), Arc::clone(&left)));
    }
    let mut tally = LoadTally::default();
    while let Some(done) = tasks.join_next().await {
        tally.add(done.unwrap_or_default());
    }
    report(&plan, &mut tally, start.elapsed());
}

const USAGE: &str =
    "usage: pintle-load --target ADDR [--sessions N] [--messages N] [--per-session N] [--size OCTETS]
                   [--pipeline] [--from ADDRESS] [--to ADDRESS] [--message FILE] | --print [--size OCTETS]";

fn plan(mut args: impl Iterator<Item = String>) -> Result<LoadOptions, String> {
    let mut plan = LoadOptions {
        target: ([127, 0, 0, 1], 0).into(),
        sessions: 20,
        messages: 1_000,
        per_session: 1,
        size: 10_240,
        pipeline: false,
        from: "sender@load.example".to_owned(),
        to: "recipient@sink.example".to_owned(),
        message: None,
        print: false,
    };
    while let Some(flag) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{flag} needs a value"));
        match flag.as_str() {
            "--target" => plan.target = parse(&value()?)?,
            "--sessions" => plan.sessions = parse(&value()?)?,
            "--messages" => plan.messages = parse(&value()?)?,
            "--per-session" => plan.per_session = parse(&value()?)?,
            "--size" => plan.size = parse(&value()?)?,
            "--from" => plan.from = value()?,
            "--to" => plan.to = value()?,
            "--message" => plan.message = Some(value()?.into()),
            "--pipeline" => plan.pipeline = true,
            "--print" => plan.print = true,
            _ => return Err(format!("unknown option {flag}")),
        }
    }
    if plan.print {
        return Ok(plan);
    }
    if plan.target.port() == 0 || !plan.target.ip().is_loopback() {
        return Err("--target must be a loopback address with a port".to_owned());
    }
    Ok(plan)
}

fn parse<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is not understood"))
}

/// Makes a message of about this size, with lines of 76 characters.
fn message(size: usize) -> Vec<u8> {
    let mut bytes = b"From: <sender@load.example>\r\nTo: <recipient@sink.example>\r\nSubject: load\r\n\
        Date: Sun, 22 Nov 2026 00:00:00 +0000\r\nMessage-ID: <load@load.example>\r\n\r\n"
        .to_vec();
    while bytes.len() < size {
        bytes.extend_from_slice(&[b'x'; 76]);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// One client: opens sessions one after the other until no message is left.
async fn client(plan: Arc<LoadOptions>, message: Arc<[u8]>, left: Arc<AtomicU64>) -> LoadTally {
    let mut tally = LoadTally::default();
    while left.load(Ordering::Relaxed) > 0 {
        if session(&plan, &message, &left, &mut tally).await.is_err() {
            tally.broken += 1;
            if tally.broken > 100 {
                break;
            }
        }
    }
    tally
}

async fn session(
    plan: &LoadOptions,
    message: &[u8],
    left: &AtomicU64,
    tally: &mut LoadTally,
) -> io::Result<()> {
    let mut wire =
        LoadConnection { stream: TcpStream::connect(plan.target).await?, buffer: Vec::with_capacity(1024) };
    wire.stream.set_nodelay(true)?;
    wire.expect(220).await?;
    wire.ask(b"EHLO load.example\r\n", 250).await?;
    for _ in 0..plan.per_session {
        let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if taken.is_err() {
            break;
        }
        let start = Instant::now();
        match wire.send(plan, message).await? {
            250 => {
                tally.accepted += 1;
                tally.latencies.push(start.elapsed());
            }
            _ => tally.refused += 1,
        }
    }
    wire.ask(b"QUIT\r\n", 221).await
}

struct LoadConnection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl LoadConnection {
    /// Sends one message; returns the code of the final reply.
    async fn send(&mut self, plan: &LoadOptions, message: &[u8]) -> io::Result<u16> {
        let mail = format!("MAIL FROM:<{}>\r\n", plan.from);
        let rcpt = format!("RCPT TO:<{}>\r\n", plan.to);
        if plan.pipeline {
            self.stream.write_all(format!("{mail}{rcpt}DATA\r\n").as_bytes()).await?;
            self.expect(250).await?;
            self.expect(250).await?;
        } else {
            self.ask(mail.as_bytes(), 250).await?;
            self.ask(rcpt.as_bytes(), 250).await?;
            self.stream.write_all(b"DATA\r\n").await?;
        }
        self.expect(354).await?;
        self.stream.write_all(message).await?;
        self.reply().await
    }

    async fn ask(&mut self, command: &[u8], code: u16) -> io::Result<()> {
        self.stream.write_all(command).await?;
        self.expect(code).await
    }

    async fn expect(&mut self, code: u16) -> io::Result<()> {
        match self.reply().await? {
            got if got == code => Ok(()),
            got => Err(io::Error::other(format!("expected {code}, got {got}"))),
        }
    }

    /// Reads one reply, all its lines, and gives its code.
    async fn reply(&mut self) -> io::Result<u16> {
        loop {
            if let Some((code, used)) = last_line(&self.buffer) {
                self.buffer.drain(..used);
                return Ok(code);
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// The code of the first complete reply in the buffer, and where it ends.
fn last_line(buffer: &[u8]) -> Option<(u16, usize)> {
    let mut start = 0;
    loop {
        let end = start + buffer.get(start..)?.iter().position(|byte| *byte == b'\n')? + 1;
        let line = &buffer[start..end];
        if line.get(3) != Some(&b'-') {
            let code = std::str::from_utf8(line.get(..3)?).ok()?.parse().unwrap_or(0);
            return Some((code, end));
        }
        start = end;
    }
}

impl LoadTally {
    fn add(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.broken += other.broken;
        self.latencies.extend(other.latencies);
    }

    fn percentile(&self, share: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let at = (last as f64 * share) as usize;
        self.latencies.get(at).map_or(0.0, |latency| latency.as_secs_f64() * 1_000.0)
    }
}

fn report(plan: &LoadOptions, tally: &mut LoadTally, elapsed: Duration) {
    tally.latencies.sort_unstable();
    #[allow(clippy::cast_precision_loss)]
    let rate = tally.accepted as f64 / elapsed.as_secs_f64();
    println!(
        "{{\"sessions\":{},\"per_session\":{},\"size\":{},\"accepted\":{},\"refused\":{},\"broken\":{},\"seconds\":{:.3},\
         \"per_second\":{rate:.1},\"p50_ms\":{:.3},\"p90_ms\":{:.3},\"p99_ms\":{:.3},\"max_ms\":{:.3}}}",
        plan.sessions,
        plan.per_session,
        plan.size,
        tally.accepted,
        tally.refused,
        tally.broken,
        elapsed.as_secs_f64(),
        tally.percentile(0.5),
        tally.percentile(0.9),
        tally.percentile(0.99),
        tally.percentile(1.0),
    );
}
