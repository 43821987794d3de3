//! An SMTP client that sends whatever a test gives it, line by line, right or wrong.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use crate::wire::{Wire, WireStream};
use crate::within;

/// One SMTP session. Every method waits at most [`crate::PATIENCE`] and panics, showing the dialogue so far, when
/// something unexpected happens.
pub struct Client {
    wire: Wire,
    dialogue: String,
}

/// An SMTP reply with all its lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmtpReply {
    /// The reply code, which is the same on every line.
    pub code: u16,
    /// The text of each line, after code and separator.
    pub lines: Vec<String>,
}

impl SmtpReply {
    /// The lines, joined by "\n".
    pub fn text(&self) -> String {
        self.lines.join("\n")
    }

    /// Whether the reply to EHLO offers `keyword`.
    pub fn offers(&self, keyword: &str) -> bool {
        let first =
            |line: &String| line.split(' ').next().is_some_and(|word| word.eq_ignore_ascii_case(keyword));
        self.lines.iter().skip(1).any(first)
    }
}

impl Client {
    /// Connects without reading anything.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::over(connect(address).await)
    }

    /// Connects from this local address: any in 127.0.0.0/8, if the system has all of them.
    pub async fn connect_from(from: std::net::IpAddr, to: SocketAddr) -> Self {
        let socket = match from {
            std::net::IpAddr::V4(_) => TcpSocket::new_v4(),
            std::net::IpAddr::V6(_) => TcpSocket::new_v6(),
        };
        let bound = socket.and_then(|socket| socket.bind((from, 0).into()).map(|()| socket));
        let socket = bound.unwrap_or_else(|error| panic!("cannot connect from {from}: {error}"));
        let stream = within("a connection", socket.connect(to)).await;
        Self::over(stream.unwrap_or_else(|error| panic!("cannot connect from {from} to {to}: {error}")))
    }

    /// Connects with implicit TLS.
    pub async fn connect_tls(address: SocketAddr, config: Arc<ClientConfig>, name: &str) -> Self {
        let stream = connect(address).await;
        Self::over(handshake(stream, config, name).await)
    }

    /// Uses a connected stream.
    fn over(stream: impl WireStream + 'static) -> Self {
        Self { wire: Wire::new(stream), dialogue: String::new() }
    }

    /// Sends a line; CRLF is added.
    pub async fn send(&mut self, line: &str) {
        self.send_raw(format!("{line}\r\n").as_bytes()).await;
    }

    /// Sends bytes as they are.
    pub async fn send_raw(&mut self, bytes: &[u8]) {
        self.dialogue.push_str(&format!("C: {}\n", String::from_utf8_lossy(bytes).trim_end()));
        let sent = within("the peer to take our bytes", self.wire.write(bytes)).await;
        sent.unwrap_or_else(|error| panic!("cannot send: {error}\n{}", self.dialogue));
    }

    /// Reads the next reply.
    pub async fn reply(&mut self) -> SmtpReply {
        match self.try_reply().await {
            Some(reply) => reply,
            None => panic!("the peer closed the session\n{}", self.dialogue),
        }
    }

    /// Reads the next reply; none when the peer closes the session instead.
    pub async fn try_reply(&mut self) -> Option<SmtpReply> {
        let mut lines = Vec::new();
        loop {
            let line = within("a reply", self.wire.line()).await.unwrap_or_default();
            if line.is_empty() {
                return None;
            }
            let line = String::from_utf8_lossy(&line).into_owned();
            self.dialogue.push_str(&format!("S: {}\n", line.trim_end()));
            let (code, last, text) = self.parse(&line);
            lines.push(text);
            if last {
                return Some(SmtpReply { code, lines });
            }
        }
    }

    /// Reads the next reply, which must have this code.
    pub async fn expect(&mut self, code: u16) -> SmtpReply {
        let reply = self.reply().await;
        assert_eq!(reply.code, code, "an unexpected reply\n{}", self.dialogue);
        reply
    }

    /// Sends a line and expects a code.
    pub async fn ask(&mut self, line: &str, code: u16) -> SmtpReply {
        self.send(line).await;
        self.expect(code).await
    }

    /// Waits until the peer closes the session, without another reply.
    pub async fn expect_closed(&mut self) {
        if let Some(reply) = self.try_reply().await {
            panic!("expected the end of the session, not {reply:?}\n{}", self.dialogue);
        }
    }

    /// Reads the greeting and sends EHLO; returns the reply to it.
    pub async fn hello(&mut self, name: &str) -> SmtpReply {
        self.expect(220).await;
        self.ask(&format!("EHLO {name}"), 250).await
    }

    /// Sends STARTTLS and performs the handshake; EHLO must be sent again.
    pub async fn starttls(mut self, config: Arc<ClientConfig>, name: &str) -> Self {
        self.ask("STARTTLS", 220).await;
        let (stream, early) = self.wire.into_parts();
        assert!(early.is_empty(), "bytes after the reply to STARTTLS, before the handshake");
        let mut client = Self::over(handshake(stream, config, name).await);
        client.dialogue = self.dialogue + "(TLS)\n";
        client
    }

    /// Performs a whole transaction in which every step must succeed; returns the final reply. `message` has CRLF line
    /// ends and is dot-stuffed here.
    pub async fn deliver(&mut self, sender: &str, recipients: &[&str], message: &[u8]) -> SmtpReply {
        self.envelope(sender, recipients).await;
        self.send_data(message).await;
        self.expect(250).await
    }

    /// Sends MAIL, RCPT and DATA, each of which must succeed.
    pub async fn envelope(&mut self, sender: &str, recipients: &[&str]) {
        self.ask(&format!("MAIL FROM:<{sender}>"), 250).await;
        for recipient in recipients {
            self.ask(&format!("RCPT TO:<{recipient}>"), 250).await;
        }
        self.ask("DATA", 354).await;
    }

    /// Sends the content after a 354, dot-stuffed, and its end (RFC 5321 section 4.5.2).
    pub async fn send_data(&mut self, message: &[u8]) {
        let mut stuffed = Vec::with_capacity(message.len() + 5);
        for line in message.split_inclusive(|&byte| byte == b'\n') {
            if line.starts_with(b".") {
                stuffed.push(b'.');
            }
            stuffed.extend_from_slice(line);
        }
        if !stuffed.is_empty() && !stuffed.ends_with(b"\r\n") {
            stuffed.extend_from_slice(b"\r\n");
        }
        stuffed.extend_from_slice(b".\r\n");
        self.send_raw(&stuffed).await;
    }

    fn parse(&self, line: &str) -> (u16, bool, String) {
        let Some(line) = line.strip_suffix("\r\n") else {
            panic!("a reply line that does not end in CRLF: {line:?}\n{}", self.dialogue);
        };
        let code = line.get(..3).and_then(|digits| digits.parse().ok());
        match (code, line.as_bytes().get(3)) {
            (Some(code), None) => (code, true, String::new()),
            (Some(code), Some(b' ')) => (code, true, line[4..].to_owned()),
            (Some(code), Some(b'-')) => (code, false, line[4..].to_owned()),
            _ => panic!("not a reply line: {line:?}\n{}", self.dialogue),
        }
    }
}

async fn connect(address: SocketAddr) -> TcpStream {
    let stream = within("a connection", TcpStream::connect(address)).await;
    stream.unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"))
}

async fn handshake(
    stream: impl WireStream + 'static,
    config: Arc<ClientConfig>,
    name: &str,
) -> tokio_rustls::client::TlsStream<impl WireStream + 'static> {
    let name = ServerName::try_from(name.to_owned()).expect("a server name");
    let connecting = TlsConnector::from(config).connect(name, stream);
    within("a TLS handshake", connecting).await.unwrap_or_else(|error| panic!("no TLS: {error}"))
}
