//! The load: clients that send as many messages as are permitted, and record the replies.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::ledger::MailLedger;

/// How long a client waits for a reply.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a client waits after a refusal or a broken session, so that a fault does not cause a flood of attempts.
const BREATH: Duration = Duration::from_millis(20);

/// Running clients; dropping this ends them.
#[derive(Debug)]
pub(super) struct LoadClients {
    permits: Arc<Semaphore>,
    _clients: JoinSet<()>,
}

/// The gateway's address, while it runs.
pub(super) type GatewayAddress = watch::Receiver<Option<SocketAddr>>;

impl LoadClients {
    /// Starts clients that find the gateway by `address`; with `logins` they authenticate in each session.
    pub(super) fn start(
        clients: usize,
        book: &Arc<MailLedger>,
        address: &GatewayAddress,
        logins: bool,
    ) -> Self {
        let permits = Arc::new(Semaphore::new(0));
        let mut tasks = JoinSet::new();
        for _ in 0..clients {
            tasks.spawn(client(Arc::clone(book), address.clone(), Arc::clone(&permits), logins));
        }
        Self { permits, _clients: tasks }
    }

    /// Permits this many more messages.
    pub(super) fn send(&self, messages: usize) {
        self.permits.add_permits(messages);
    }
}

async fn client(book: Arc<MailLedger>, mut address: GatewayAddress, permits: Arc<Semaphore>, logins: bool) {
    loop {
        let Ok(there) = address.wait_for(Option::is_some).await.map(|there| *there) else { return };
        let Some(there) = there else { continue };
        let session = tokio::time::timeout(PATIENCE, LoadWire::open(there, logins)).await;
        if let Ok(Ok(mut wire)) = session
            && messages(&book, &mut wire, &permits, &mut address).await.is_ok()
        {
            continue;
        }
        book.broken();
        tokio::time::sleep(BREATH).await;
    }
}

/// Sends over one session until it breaks, or until the address changes.
async fn messages(
    book: &MailLedger,
    wire: &mut LoadWire,
    permits: &Semaphore,
    address: &mut GatewayAddress,
) -> std::io::Result<()> {
    loop {
        // A session whose server has gone must not hold its place until there is something to send.
        let permit = tokio::select! {
            permit = permits.acquire() => permit.map_err(std::io::Error::other)?,
            gone = wire.closed() => return gone,
            _ = address.changed() => return Ok(()),
        };
        permit.forget();
        let sent = tokio::time::timeout(PATIENCE, wire.send(book)).await;
        let promised = sent.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
        if !promised {
            tokio::time::sleep(BREATH).await;
        }
    }
}

pub(super) struct LoadWire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl LoadWire {
    async fn open(address: SocketAddr, logs_in: bool) -> std::io::Result<Self> {
        let mut wire = Self::connect(address).await?;
        if logs_in {
            // User "load" with the password "right", as the plugin `unruly` knows it.
            wire.ask("AUTH PLAIN AGxvYWQAcmlnaHQ=", 235).await?;
        }
        Ok(wire)
    }

    pub(super) async fn connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut wire = Self { stream, buffer: Vec::new() };
        wire.expect(220).await?;
        wire.ask("EHLO load.example", 250).await?;
        Ok(wire)
    }

    /// Sends one message; true when it was acknowledged.
    async fn send(&mut self, book: &MailLedger) -> std::io::Result<bool> {
        self.send_by(book, Duration::ZERO, usize::MAX).await
    }

    /// Sends one message, with a pause after each piece of this many octets.
    pub(super) async fn send_by(
        &mut self,
        book: &MailLedger,
        pause: Duration,
        piece: usize,
    ) -> std::io::Result<bool> {
        let number = book.open();
        let mut commands = vec![format!("MAIL FROM:<{}>", MailLedger::sender(number))];
        commands.extend(book.recipients(number).iter().map(|recipient| format!("RCPT TO:<{recipient}>")));
        for command in &commands {
            let (code, _) = self.command(command).await?;
            if code != 250 {
                return self.refused(book, number, code).await;
            }
        }
        let (code, _) = self.command("DATA").await?;
        if code != 354 {
            return self.refused(book, number, code).await;
        }
        for piece in [book.content(number), b".\r\n".to_vec()].concat().chunks(piece) {
            self.stream.write_all(piece).await?;
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
        }
        let (code, text) = self.reply().await?;
        if code != 250 {
            book.refuse(number, code);
            return Ok(false);
        }
        book.promise(number, text.rsplit(' ').next().unwrap_or_default());
        Ok(true)
    }

    /// Begins a message and disconnects in the middle of it.
    pub(super) async fn abort(mut self, book: &MailLedger) -> std::io::Result<()> {
        let number = book.open();
        self.ask(&format!("MAIL FROM:<{}>", MailLedger::sender(number)), 250).await?;
        self.ask(&format!("RCPT TO:<m{number}.0@to.example>"), 250).await?;
        self.ask("DATA", 354).await?;
        let content = book.content(number);
        self.stream.write_all(&content[..content.len() / 2]).await
    }

    async fn refused(&mut self, book: &MailLedger, number: u64, code: u16) -> std::io::Result<bool> {
        book.refuse(number, code);
        if code == 421 {
            return Err(std::io::ErrorKind::ConnectionAborted.into());
        }
        self.ask("RSET", 250).await?;
        Ok(false)
    }

    async fn ask(&mut self, command: &str, code: u16) -> std::io::Result<()> {
        self.stream.write_all(format!("{command}\r\n").as_bytes()).await?;
        self.expect(code).await
    }

    async fn command(&mut self, command: &str) -> std::io::Result<(u16, String)> {
        self.stream.write_all(format!("{command}\r\n").as_bytes()).await?;
        self.reply().await
    }

    async fn expect(&mut self, code: u16) -> std::io::Result<()> {
        match self.reply().await? {
            (got, _) if got == code => Ok(()),
            (got, text) => Err(std::io::Error::other(format!("expected {code}, got {got} {text}"))),
        }
    }

    /// Returns when the server has closed, or sends something unexpected.
    async fn closed(&mut self) -> std::io::Result<()> {
        self.stream.readable().await?;
        Err(std::io::ErrorKind::ConnectionAborted.into())
    }

    /// Reads the next reply; returns its code and last line.
    async fn reply(&mut self) -> std::io::Result<(u16, String)> {
        loop {
            while let Some(end) = memchr::memmem::find(&self.buffer, b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 2);
                if line.as_bytes().get(3) != Some(&b'-') {
                    let code = line.get(..3).and_then(|code| code.parse().ok()).unwrap_or(0);
                    return Ok((code, line));
                }
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}
