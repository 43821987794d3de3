//! A sink: accepts every message, keeps none, and counts.
//!
//! Prints `listening ADDR` first, for the program that started it; then `taken N` for each line on standard input; it
//! ends when standard input does. With `--ids FILE` it appends the `X-Load-Id` of every message that got a 250, from
//! which a crash test finds out what has arrived. It shares no code with the gateway.

#![allow(clippy::print_stdout, reason = "the caller reads its standard output")]

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The state that all sessions share.
#[derive(Default)]
struct SinkCounters {
    taken: AtomicU64,
    ids: Option<Mutex<std::fs::File>>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let mut listen: SocketAddr = ([127, 0, 0, 1], 0).into();
    let mut shared = SinkCounters::default();
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let value = args.next().unwrap_or_default();
        match flag.as_str() {
            "--listen" => listen = value.parse().map_err(io::Error::other)?,
            "--ids" => {
                shared.ids =
                    Some(Mutex::new(std::fs::File::options().append(true).create(true).open(value)?));
            }
            _ => {
                return Err(io::Error::other(format!(
                    "usage: pintle-sink [--listen ADDR] [--ids FILE]; not {flag}"
                )));
            }
        }
    }
    if !listen.ip().is_loopback() {
        return Err(io::Error::other("the sink listens on loopback alone"));
    }
    let listener = TcpListener::bind(listen).await?;
    println!("listening {}", listener.local_addr()?);
    serve(listener, Arc::new(shared)).await
}

async fn serve(listener: TcpListener, shared: Arc<SinkCounters>) -> io::Result<()> {
    let mut lines = tokio::io::BufReader::new(tokio::io::stdin()).lines();
    let mut sessions = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            socket = listener.accept() => {
                let (stream, _) = socket?;
                sessions.spawn(session(stream, Arc::clone(&shared)));
            }
            line = lines.next_line() => match line? {
                Some(_) => println!("taken {}", shared.taken.load(Ordering::Relaxed)),
                None => return Ok(()),
            },
            Some(_) = sessions.join_next() => {}
        }
    }
}

async fn session(mut stream: TcpStream, shared: Arc<SinkCounters>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(b"220 sink.example ESMTP\r\n").await?;
    let mut dialogue = SinkDialogue::default();
    let mut replies = Vec::with_capacity(256);
    let mut buffer = vec![0_u8; 65_536];
    while !dialogue.quit {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            break;
        }
        dialogue.take(&buffer[..count], &mut replies, &shared);
        if !replies.is_empty() {
            stream.write_all(&replies).await?;
            replies.clear();
        }
    }
    Ok(())
}

/// The dialogue's state between two reads.
#[derive(Default)]
struct SinkDialogue {
    in_data: bool,
    quit: bool,
    /// An incomplete line, or the beginning of the data while it is still needed for the id.
    pending: Vec<u8>,
    /// The last octets of the data so far, to find an end that is split over two reads.
    tail: [u8; 5],
}

impl SinkDialogue {
    fn take(&mut self, mut bytes: &[u8], replies: &mut Vec<u8>, shared: &SinkCounters) {
        while !bytes.is_empty() {
            bytes =
                if self.in_data { self.data(bytes, replies, shared) } else { self.command(bytes, replies) };
        }
    }

    fn command<'a>(&mut self, bytes: &'a [u8], replies: &mut Vec<u8>) -> &'a [u8] {
        let Some(end) = memchr::memchr(b'\n', bytes) else {
            self.pending.extend_from_slice(bytes);
            return &[];
        };
        self.pending.extend_from_slice(&bytes[..=end]);
        let verb = self.pending.get(..4).unwrap_or_default().to_ascii_uppercase();
        let reply: &[u8] = match verb.as_slice() {
            b"EHLO" => b"250-sink.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 SIZE 104857600\r\n",
            b"DATA" => b"354 go\r\n",
            b"QUIT" => b"221 bye\r\n",
            _ => b"250 ok\r\n",
        };
        replies.extend_from_slice(reply);
        self.in_data = verb == b"DATA";
        self.quit = verb == b"QUIT";
        self.tail = *b"xxx\r\n";
        self.pending.clear();
        &bytes[end + 1..]
    }

    fn data<'a>(&mut self, bytes: &'a [u8], replies: &mut Vec<u8>, shared: &SinkCounters) -> &'a [u8] {
        let Some(end) = self.end_of_data(bytes) else {
            self.remember(bytes, shared);
            return &[];
        };
        self.remember(&bytes[..end], shared);
        shared.record(&self.pending);
        shared.taken.fetch_add(1, Ordering::Relaxed);
        replies.extend_from_slice(b"250 taken\r\n");
        self.in_data = false;
        self.pending.clear();
        &bytes[end..]
    }

    /// The end of the data: after `CRLF . CRLF`, which may have begun in an earlier read.
    fn end_of_data(&self, bytes: &[u8]) -> Option<usize> {
        let mut joined = [0_u8; 9];
        let head = bytes.len().min(4);
        joined[..5].copy_from_slice(&self.tail);
        joined[5..5 + head].copy_from_slice(&bytes[..head]);
        let across = joined[..5 + head].windows(5).skip(1).position(|window| window == b"\r\n.\r\n");
        across.map(|at| at + 1).or_else(|| memchr::memmem::find(bytes, b"\r\n.\r\n").map(|at| at + 5))
    }

    fn remember(&mut self, bytes: &[u8], shared: &SinkCounters) {
        if shared.ids.is_some() && self.pending.len() < 8_192 {
            self.pending.extend_from_slice(&bytes[..bytes.len().min(8_192)]);
        }
        for byte in &bytes[bytes.len().saturating_sub(5)..] {
            self.tail.rotate_left(1);
            self.tail[4] = *byte;
        }
    }
}

impl SinkCounters {
    fn record(&self, data: &[u8]) {
        let Some(ids) = &self.ids else { return };
        let Some(at) = memchr::memmem::find(data, b"X-Load-Id: ") else {
            return;
        };
        let id: Vec<u8> =
            data[at + 11..].iter().copied().take_while(|byte| !byte.is_ascii_whitespace()).collect();
        let mut ids = ids.lock();
        let written = ids.write_all(&id).and_then(|()| ids.write_all(b"\n"));
        if let Err(error) = written {
            eprintln!("pintle-sink: cannot write an id: {error}");
        }
    }
}
