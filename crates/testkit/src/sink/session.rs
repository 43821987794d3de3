//! One session of a sink: a plain loop over lines, with its own implementation of RFC 5321.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::transaction::MailInProgress;
use super::{Act, Script, SinkCommand, SinkLog, SinkShared, SinkStep};
use crate::wire::Wire;

/// Serves one connection to its end. I/O errors end it: they mean that the client has disconnected.
pub(super) async fn serve(stream: TcpStream, peer: SocketAddr, shared: Arc<SinkShared>) {
    let number = shared.begin();
    let _open = OpenSession(Arc::clone(&shared));
    let wire = Wire::new(stream);
    let session = SinkSession { shared, wire, number, peer, hello: None, tls: None, user: None, mail: None };
    let _ = session.run().await;
}

pub(super) struct SinkSession {
    pub(super) shared: Arc<SinkShared>,
    pub(super) wire: Wire,
    pub(super) number: usize,
    pub(super) peer: SocketAddr,
    pub(super) hello: Option<SinkHello>,
    pub(super) tls: Option<String>,
    pub(super) user: Option<String>,
    pub(super) mail: Option<MailInProgress>,
}

pub(super) struct SinkHello {
    pub(super) name: String,
    pub(super) extended: bool,
}

/// The result of a step.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum StepResult {
    Ahead,
    Refused,
}

/// The next reply, after the script has been consulted.
pub(super) enum SinkReply {
    Reply(String),
    ReplyThenClose(String),
    Raw(Vec<u8>),
    Close,
    AcceptThenClose,
}

impl SinkSession {
    async fn run(mut self) -> io::Result<()> {
        if self.script(|script| script.implicit_tls) {
            self = self.handshake().await?;
        }
        self.step(SinkStep::Connect, "", "220 sink.example ESMTP").await?;
        loop {
            let line = self.command().await?;
            let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
            match verb.to_ascii_uppercase().as_str() {
                "STARTTLS" => self = self.starttls(&line).await?,
                "QUIT" => {
                    self.step(SinkStep::Quit, &line, "221 2.0.0 Goodbye").await?;
                    return Ok(());
                }
                verb => self.dispatch(verb, rest, &line).await?,
            }
        }
    }

    async fn dispatch(&mut self, verb: &str, rest: &str, line: &str) -> io::Result<()> {
        match verb {
            "EHLO" | "HELO" | "LHLO" => self.hello(verb, rest, line).await,
            "AUTH" => self.auth(rest, line).await,
            "MAIL" => self.mail(rest, line).await,
            "RCPT" => self.rcpt(rest, line).await,
            "DATA" => self.data(line).await,
            "BDAT" => self.bdat(rest, line).await,
            "RSET" => {
                self.mail = None;
                self.step(SinkStep::Rset, line, "250 2.0.0 Forgotten").await.map(drop)
            }
            "NOOP" => self.step(SinkStep::Noop, line, "250 2.0.0 Nothing done").await.map(drop),
            "VRFY" => self.step(SinkStep::Vrfy, line, "252 2.5.0 Try it").await.map(drop),
            _ => self.step(SinkStep::Unknown, line, "500 5.5.1 Unknown command").await.map(drop),
        }
    }

    /// Reads the next command line, without its line end. The end of the stream is an error, which ends the session.
    async fn command(&mut self) -> io::Result<String> {
        let raw = self.wire.line().await?;
        if raw.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if !raw.ends_with(b"\r\n") {
            self.violation("a command line that does not end in CRLF", &raw);
        }
        // RFC 5321 section 4.5.3.1.4, with room for the parameters of the extensions.
        if raw.len() > 2_048 {
            self.violation("a command line of more than 2,048 bytes", &raw[..80]);
        }
        let line = String::from_utf8_lossy(&raw).trim_end_matches(['\r', '\n']).to_owned();
        let known = line.clone();
        self.note(|log, session| log.commands.push(SinkCommand { session, line: known }));
        self.check_pipelining(&line);
        Ok(line)
    }

    /// RFC 2920 section 3.1: no command may come before the reply to the last one unless PIPELINING is offered, and
    /// even then nothing may follow these verbs.
    fn check_pipelining(&mut self, line: &str) {
        if self.wire.ahead() == 0 || starts(line, "BDAT") {
            return;
        }
        let waits = ["EHLO", "HELO", "LHLO", "DATA", "VRFY", "NOOP", "QUIT", "STARTTLS", "AUTH"];
        if let Some(verb) = waits.iter().find(|verb| starts(line, verb)) {
            self.violation("more bytes before the reply to", verb.as_bytes());
        } else if !self.script(|script| script.offers("PIPELINING")) {
            self.violation("pipelining that was not offered, behind", line.as_bytes());
        }
    }

    async fn hello(&mut self, verb: &str, name: &str, line: &str) -> io::Result<()> {
        let extended = verb != "HELO";
        if extended && (verb == "LHLO") != self.script(|script| script.lmtp) {
            return self.refuse("500 5.5.1 Not spoken here").await;
        }
        if name.is_empty() {
            return self.refuse("501 5.5.4 Who?").await;
        }
        let (step, reply) = if extended {
            (SinkStep::Ehlo, self.greeting())
        } else {
            (SinkStep::Helo, "250 sink.example".to_owned())
        };
        if self.step(step, line, &reply).await? == StepResult::Ahead {
            self.hello = Some(SinkHello { name: name.to_owned(), extended });
            self.mail = None;
        }
        Ok(())
    }

    /// The reply to EHLO. Its lines are separated by "\n" and not yet numbered: `say` does that.
    fn greeting(&self) -> String {
        let mut lines = vec!["sink.example".to_owned()];
        self.script(|script| {
            lines.extend(script.extensions.iter().cloned());
            if script.tls.is_some() && self.tls.is_none() {
                lines.push("STARTTLS".into());
            }
            if !script.logins.is_empty() {
                lines.push("AUTH PLAIN LOGIN".into());
            }
        });
        let last = lines.pop().unwrap_or_default();
        let first: String = lines.iter().map(|line| format!("250-{line}\n")).collect();
        format!("{first}250 {last}")
    }

    async fn starttls(mut self, line: &str) -> io::Result<Self> {
        if self.tls.is_some() || self.script(|script| script.tls.is_none()) {
            self.refuse("503 5.5.1 No TLS now").await?;
            return Ok(self);
        }
        if self.step(SinkStep::StartTls, line, "220 2.0.0 Go ahead").await? == StepResult::Refused {
            return Ok(self);
        }
        self.handshake().await
    }

    /// RFC 3207 section 4.2: the state from before the handshake is discarded.
    async fn handshake(self) -> io::Result<Self> {
        let config = self.script(|script| script.tls.clone()).ok_or(io::ErrorKind::Unsupported)?;
        let (stream, _early) = self.wire.into_parts();
        let stream = TlsAcceptor::from(config).accept(stream).await?;
        let version = stream.get_ref().1.protocol_version();
        let tls = version.map(|version| format!("{version:?}").replace('_', "."));
        let wire = Wire::new(stream);
        Ok(Self { wire, tls, hello: None, user: None, mail: None, ..self })
    }

    async fn auth(&mut self, rest: &str, line: &str) -> io::Result<()> {
        let (mechanism, initial) = rest.split_once(' ').unwrap_or((rest, ""));
        let found = match mechanism.to_ascii_uppercase().as_str() {
            _ if self.script(|script| script.logins.is_empty()) || self.hello.is_none() => None,
            "PLAIN" => self.auth_plain(initial).await?,
            "LOGIN" => self.auth_login(initial).await?,
            _ => return self.refuse("504 5.5.4 PLAIN or LOGIN").await,
        };
        let Some(user) = found else {
            return self.refuse("535 5.7.8 No").await;
        };
        if self.step(SinkStep::Auth, line, "235 2.7.0 Welcome").await? == StepResult::Ahead {
            self.user = Some(user);
        }
        Ok(())
    }

    /// RFC 4616: authorization id, user and password, separated by NUL.
    async fn auth_plain(&mut self, initial: &str) -> io::Result<Option<String>> {
        let response = if initial.is_empty() { self.challenge("334 ").await? } else { initial.to_owned() };
        let decoded = BASE64.decode(response).unwrap_or_default();
        let text = String::from_utf8(decoded).unwrap_or_default();
        let mut parts = text.splitn(3, '\0').skip(1);
        Ok(self.known(parts.next().unwrap_or_default(), parts.next().unwrap_or_default()))
    }

    async fn auth_login(&mut self, initial: &str) -> io::Result<Option<String>> {
        let user =
            if initial.is_empty() { self.challenge("334 VXNlcm5hbWU6").await? } else { initial.to_owned() };
        let password = self.challenge("334 UGFzc3dvcmQ6").await?;
        let text =
            |line: &str| String::from_utf8(BASE64.decode(line).unwrap_or_default()).unwrap_or_default();
        Ok(self.known(&text(&user), &text(&password)))
    }

    async fn challenge(&mut self, text: &str) -> io::Result<String> {
        self.wire.write(format!("{text}\r\n").as_bytes()).await?;
        self.command().await
    }

    fn known(&self, user: &str, password: &str) -> Option<String> {
        let login = (user.to_owned(), password.to_owned());
        self.script(|script| script.logins.contains(&login)).then_some(login.0)
    }

    /// Sends the usual reply, unless the script has something else at this point.
    pub(super) async fn step(&mut self, step: SinkStep, line: &str, usual: &str) -> io::Result<StepResult> {
        let say = self.ask_script(step, line, usual).await;
        self.say(say).await
    }

    pub(super) async fn ask_script(&mut self, step: SinkStep, line: &str, usual: &str) -> SinkReply {
        let act = self.shared.script.lock().unwrap_or_else(PoisonError::into_inner).act(step, line);
        match act {
            Some(Act::Reply(text)) => return SinkReply::Reply(text),
            Some(Act::ReplyThenClose(text)) => return SinkReply::ReplyThenClose(text),
            Some(Act::Raw(bytes)) => return SinkReply::Raw(bytes),
            Some(Act::Close) => return SinkReply::Close,
            Some(Act::AcceptThenClose) => return SinkReply::AcceptThenClose,
            Some(Act::Hold) => self.hold().await,
            Some(Act::Delay(time)) => tokio::time::sleep(time).await,
            None => {}
        }
        SinkReply::Reply(usual.to_owned())
    }

    async fn hold(&mut self) {
        let mut released = self.shared.released.subscribe();
        self.note(|log, _| log.held += 1);
        let _ = released.wait_for(|released| *released).await;
        self.note(|log, _| log.held -= 1);
    }

    pub(super) async fn say(&mut self, say: SinkReply) -> io::Result<StepResult> {
        let accepts = say.accepts();
        match say {
            SinkReply::Reply(text) => self.wire.write(&lines(&text)).await?,
            SinkReply::Raw(bytes) => self.wire.write(&bytes).await?,
            SinkReply::ReplyThenClose(text) => {
                self.wire.write(&lines(&text)).await?;
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            SinkReply::Close | SinkReply::AcceptThenClose => {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        }
        Ok(if accepts { StepResult::Ahead } else { StepResult::Refused })
    }

    /// A refusal by the sink itself, which no script can change: the client was wrong.
    pub(super) async fn refuse(&mut self, text: &str) -> io::Result<()> {
        self.say(SinkReply::Reply(text.to_owned())).await.map(drop)
    }

    pub(super) fn violation(&self, what: &str, bytes: &[u8]) {
        let text = format!("session {}: {what} {:?}", self.number, String::from_utf8_lossy(bytes));
        self.note(|log, _| log.violations.push(text));
    }

    pub(super) fn note(&self, write: impl FnOnce(&mut SinkLog, usize)) {
        self.shared.log.send_modify(|log| write(log, self.number));
    }

    pub(super) fn script<T>(&self, read: impl FnOnce(&Script) -> T) -> T {
        read(&self.shared.script.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl SinkReply {
    pub(super) fn accepts(&self) -> bool {
        match self {
            Self::Reply(text) | Self::ReplyThenClose(text) => text.starts_with(['2', '3']),
            Self::AcceptThenClose => true,
            Self::Raw(_) | Self::Close => false,
        }
    }

    pub(super) fn text(&self) -> &str {
        match self {
            Self::Reply(text) | Self::ReplyThenClose(text) => text,
            Self::Raw(_) | Self::Close | Self::AcceptThenClose => "",
        }
    }
}

impl SinkShared {
    fn begin(&self) -> usize {
        let mut number = 0;
        self.log.send_modify(|log| {
            log.sessions += 1;
            log.open += 1;
            log.most_open = log.most_open.max(log.open);
            number = log.sessions;
        });
        number
    }
}

/// Counts a session as open for as long as it lives, however it ends.
struct OpenSession(Arc<SinkShared>);

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.0.log.send_modify(|log| log.open -= 1);
    }
}

fn lines(text: &str) -> Vec<u8> {
    text.split('\n').flat_map(|line| [line.as_bytes(), b"\r\n"].concat()).collect()
}

fn starts(line: &str, verb: &str) -> bool {
    line.get(..verb.len()).is_some_and(|start| start.eq_ignore_ascii_case(verb))
}
