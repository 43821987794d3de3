//! The next hop: accepts mail and records it in the ledger, or fails in the ways in which next hops do.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::ledger::{HopAnswer, MailLedger, wish};

/// How the next hop behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HopMode {
    /// It accepts everything.
    Well,
    /// It closes each connection at once.
    Away,
    /// It accepts connections and octets, and never replies.
    Silent,
    /// It delays every reply.
    Slow,
    /// It replies 421 to everything.
    Busy,
    /// It replies 354, and then reads nothing.
    Deaf,
    /// The first session ends after no octet, the next one `.0` octets later, and so on; octets are counted in both
    /// directions.
    Cut(u64),
}

/// A running next hop; dropping this ends it.
#[derive(Debug)]
pub(super) struct FaultyHop {
    address: SocketAddr,
    shared: Arc<HopShared>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug)]
struct HopShared {
    book: Arc<MailLedger>,
    mode: watch::Sender<HopMode>,
    /// The number of octets after which the next session ends.
    octets: AtomicU64,
    deferred: parking_lot::Mutex<std::collections::HashSet<String>>,
}

impl FaultyHop {
    pub(super) async fn start(book: Arc<MailLedger>) -> std::io::Result<Self> {
        // It has not the gateway's address, or mail by MX would loop (RFC 5321 section 5.1).
        let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 9), 0)).await?;
        let shared = Arc::new(HopShared {
            book,
            mode: watch::Sender::new(HopMode::Well),
            octets: AtomicU64::new(0),
            deferred: parking_lot::Mutex::default(),
        });
        let address = listener.local_addr()?;
        Ok(Self { address, task: tokio::spawn(accept(listener, Arc::clone(&shared))), shared })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the mode from now on; sessions in another mode end.
    pub(super) fn become_(&self, mode: HopMode) {
        self.shared.mode.send_replace(mode);
    }

    /// The octet at which the next session ends.
    pub(super) fn octets(&self) -> u64 {
        self.shared.octets.load(Ordering::Relaxed)
    }
}

impl Drop for FaultyHop {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Owns the sessions: they end with this task.
async fn accept(listener: TcpListener, shared: Arc<HopShared>) {
    let mut sessions = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        sessions.spawn(async move {
            let mut mode = shared.mode.subscribe();
            let now = *mode.borrow_and_update();
            let ended = tokio::select! {
                ended = session(stream, &shared, now) => ended,
                _ = mode.changed() => Err(std::io::ErrorKind::ConnectionAborted.into()),
            };
            if ended.is_err() {
                shared.book.failed();
            }
        });
        while sessions.try_join_next().is_some() {}
    }
}

/// One session, which fails as `mode` says.
async fn session(stream: TcpStream, shared: &HopShared, mode: HopMode) -> std::io::Result<()> {
    let budget = match mode {
        HopMode::Away => return Err(std::io::ErrorKind::ConnectionAborted.into()),
        HopMode::Cut(step) => Some(shared.octets.fetch_add(step, Ordering::Relaxed)),
        _ => None,
    };
    stream.set_nodelay(true)?;
    let mut wire = HopWire { stream, buffer: Vec::new(), budget, mode };
    wire.say("220 hop.example ESMTP").await?;
    let mut envelope = HopEnvelope::default();
    loop {
        let Some(line) = wire.line().await? else { return Ok(()) };
        let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
        let reply = match verb.as_str() {
            "DATA" => {
                wire.say("354 go on").await?;
                let content = wire.content().await?;
                shared.book.arrive(&envelope.sender, &envelope.recipients, &content);
                "250 2.0.0 taken"
            }
            "QUIT" => return wire.say("221 2.0.0 bye").await,
            _ => envelope.command(&verb, &line, shared),
        };
        wire.say(reply).await?;
    }
}

#[derive(Default)]
struct HopEnvelope {
    sender: String,
    recipients: Vec<String>,
}

impl HopEnvelope {
    fn command(&mut self, verb: &str, line: &str, shared: &HopShared) -> &'static str {
        match verb {
            "EHLO" => "250-hop.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES",
            "MAIL" => {
                *self = Self { sender: address(line), recipients: Vec::new() };
                "250 2.1.0 ok"
            }
            "RCPT" => self.recipient(address(line), shared),
            _ => "250 2.0.0 ok",
        }
    }

    fn recipient(&mut self, address: String, shared: &HopShared) -> &'static str {
        match wish(&address) {
            HopAnswer::Late if shared.deferred.lock().insert(address.clone()) => "451 4.2.0 not yet",
            HopAnswer::Never => "550 5.1.1 nobody of that name",
            _ => {
                self.recipients.push(address);
                "250 2.1.5 ok"
            }
        }
    }
}

fn address(line: &str) -> String {
    let inside = line.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
    inside.map_or(String::new(), |(address, _)| address.to_owned())
}

struct HopWire {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// The octets left until the connection is cut.
    budget: Option<u64>,
    mode: HopMode,
}

impl HopWire {
    async fn say(&mut self, reply: &str) -> std::io::Result<()> {
        match self.mode {
            HopMode::Silent => return std::future::pending().await,
            HopMode::Deaf if reply.starts_with("250 2.0.0 taken") => return std::future::pending().await,
            HopMode::Slow => tokio::time::sleep(Duration::from_millis(300)).await,
            HopMode::Busy => {
                self.stream.write_all(b"421 4.3.2 not now\r\n").await?;
                return Err(std::io::ErrorKind::ConnectionAborted.into());
            }
            _ => {}
        }
        let text = format!("{reply}\r\n").into_bytes();
        let may = self.budget.map_or(text.len(), |budget| text.len().min(to_usize(budget)));
        self.stream.write_all(&text[..may]).await?;
        self.spend(may)?;
        if may < text.len() { Err(std::io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }

    fn spend(&mut self, octets: usize) -> std::io::Result<()> {
        let Some(budget) = &mut self.budget else { return Ok(()) };
        *budget = budget.saturating_sub(octets as u64);
        if *budget == 0 { Err(std::io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }

    /// Reads the next line, without its line end; none when the client has disconnected.
    async fn line(&mut self) -> std::io::Result<Option<String>> {
        loop {
            if let Some(end) = memchr::memmem::find(&self.buffer, b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 2);
                return Ok(Some(line));
            }
            if self.more().await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Reads everything up to the final dot, and removes dot-stuffing.
    async fn content(&mut self) -> std::io::Result<Vec<u8>> {
        if self.mode == HopMode::Deaf {
            return std::future::pending().await;
        }
        let mut from = 0;
        loop {
            if let Some(at) = memchr::memmem::find(&self.buffer[from..], b"\r\n.\r\n") {
                let content = self.buffer.drain(..from + at + 5).collect::<Vec<_>>();
                return Ok(content[..content.len() - 3].to_vec());
            }
            from = self.buffer.len().saturating_sub(4);
            if self.more().await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn more(&mut self) -> std::io::Result<usize> {
        let mut piece = vec![0; self.budget.map_or(65_536, |budget| to_usize(budget).clamp(1, 65_536))];
        let count = self.stream.read(&mut piece).await?;
        self.buffer.extend_from_slice(&piece[..count]);
        self.spend(count)?;
        Ok(count)
    }
}

fn to_usize(octets: u64) -> usize {
    usize::try_from(octets).unwrap_or(usize::MAX)
}
