//! A dry run: passes one message from one client through the SMTP session and the pipeline, in memory, without a
//! socket.
//!
//! The replies are those that a client of the listener would get, because session and pipeline are the listener's own.
//! The client's part is played here: it accepts every reply, sends its message to the accepted recipients, and quits if
//! there is none.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use pintle_mail::{Address, ReversePath};
use pintle_policy::{Call, Decision, Hook, Session as SessionView, TlsFacts, View};
use pintle_smtp::server::{Event, Session, Start};
use pintle_spool::Receipt;

use crate::config::{ListenerConfig, TlsMode};
use crate::pipeline::{Observer, Pipeline};
use crate::services::Services;

/// The client's port; its value has no effect.
const PORT: u16 = 50_000;
/// How many octets of the message the session gets at a time.
const PIECE: usize = 64 * 1024;

/// The client that a dry run simulates.
#[derive(Debug, Clone)]
pub struct DryRunClient {
    /// The IP address it connects from.
    pub address: IpAddr,
    /// The name it sends in EHLO.
    pub hello: String,
    /// Whether the session uses TLS.
    pub tls: bool,
    /// The identity it has authenticated as.
    pub identity: Option<String>,
    /// Whether it is in a trusted network, whatever the listener's configuration says.
    pub trusted: bool,
}

/// The message that the client sends.
#[derive(Debug, Clone, Copy)]
pub struct DryRunMail<'a> {
    /// The reverse-path.
    pub sender: &'a ReversePath,
    /// The recipients, in the order of RCPT.
    pub recipients: &'a [Address],
    /// Header and body, with CRLF line ends.
    pub octets: &'a [u8],
}

/// One SMTP command with its reply, and what the chain was asked about it.
pub struct DryRunExchange {
    /// The stage that the command belongs to. For DATA it is the message stage.
    pub stage: Hook,
    /// The recipient of RCPT.
    pub recipient: Option<Address>,
    /// The questions to the chain about this command, in order; for DATA, about the command, the header and then the
    /// message.
    pub asked: Vec<AskedQuestion>,
    /// The reply as the client receives it.
    pub reply: HeardReply,
    /// Whether the reply ends the session.
    pub closes: bool,
}

/// A question to the chain, with its decision.
pub struct AskedQuestion {
    /// The hook that was called.
    pub hook: Hook,
    /// What the chain decided from all verdicts. The core's own rules are applied after it.
    pub decision: Decision,
    /// Session, transaction and message as the plugins left them.
    pub view: View,
}

/// A reply as the client receives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeardReply {
    /// The three-digit reply code; 0 if there was no reply.
    pub code: u16,
    /// The lines of its text, without the codes.
    pub text: String,
}

impl HeardReply {
    /// Whether it refuses, temporarily (4xx) or permanently (5xx).
    #[must_use]
    pub fn refuses(&self) -> bool {
        !(200..400).contains(&self.code)
    }

    fn of(octets: &[u8]) -> Self {
        let text = String::from_utf8_lossy(octets);
        let code = text.get(..3).and_then(|digits| digits.parse().ok()).unwrap_or(0);
        let lines: Vec<_> = text.lines().map(|line| line.get(4..).unwrap_or_default()).collect();
        Self { code, text: lines.join("\n") }
    }
}

/// Sends a message through a listener's SMTP session and pipeline. Returns the commands, questions and replies, in
/// order.
///
/// What the pipeline stores goes to the spool of `services`: a dry run passes a spool in memory, and reads from it what
/// would have been stored. Delays that plugins request are observed.
pub async fn run(
    services: Arc<Services>,
    listener: &ListenerConfig,
    client: &DryRunClient,
    mail: DryRunMail<'_>,
) -> Vec<DryRunExchange> {
    DryRun::new(services, listener, client).play(&client.hello, mail).await
}

struct DryRun {
    machine: Session<Receipt>,
    pipeline: Pipeline,
    log: Arc<QuestionLog>,
    exchanges: Vec<DryRunExchange>,
    over: bool,
}

impl DryRun {
    fn new(services: Arc<Services>, listener: &ListenerConfig, client: &DryRunClient) -> Self {
        let local = listener.addresses.first().copied();
        let local = local.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 25)));
        let log = Arc::new(QuestionLog::default());
        let tls = client.tls || listener.tls == TlsMode::Implicit;
        let assume = |session: &mut SessionView| {
            session.trusted |= client.trusted;
            session.identity.clone_from(&client.identity);
            session.tls = tls.then(assumed_tls);
        };
        let pipeline = Pipeline::new(services, listener, SocketAddr::new(client.address, PORT), local)
            .observed(Arc::clone(&log) as Arc<dyn Observer>, assume);
        let start = Start { session_id: None, tls, identity: client.identity.clone() };
        let machine = Session::new(Arc::clone(&listener.smtp), start, Instant::now());
        Self { machine, pipeline, log, exchanges: Vec::new(), over: false }
    }

    async fn play(mut self, hello: &str, mail: DryRunMail<'_>) -> Vec<DryRunExchange> {
        self.session(hello, mail).await;
        self.pipeline.reset();
        self.exchanges
    }

    async fn session(&mut self, hello: &str, mail: DryRunMail<'_>) {
        if self.say(Hook::Connect, None, "").await.refuses() {
            return;
        }
        let offered = self.say(Hook::Hello, None, &format!("EHLO {}\r\n", in_one_line(hello))).await;
        if offered.refuses() {
            return;
        }
        let command = format!("MAIL FROM:<{}>{}\r\n", mail.sender.as_str(), parameters(&offered, mail));
        if self.say(Hook::Mail, None, &command).await.refuses() {
            return;
        }
        let mut taken = 0;
        for recipient in mail.recipients {
            let command = format!("RCPT TO:<{}>\r\n", recipient.as_str());
            let reply = self.say(Hook::Rcpt, Some(recipient), &command).await;
            if self.over {
                return;
            }
            taken += usize::from(!reply.refuses());
        }
        if taken > 0 {
            self.data(mail.octets).await;
        }
    }

    async fn data(&mut self, octets: &[u8]) {
        let begun = self.command("DATA\r\n".as_bytes()).await;
        let reply = if begun.code == 354 { self.command(&stuffed(octets)).await } else { begun };
        self.note(Hook::Message, None, reply);
    }

    /// Sends a command and records its reply; for the greeting, there is no command.
    async fn say(&mut self, stage: Hook, recipient: Option<&Address>, command: &str) -> HeardReply {
        let reply = self.command(command.as_bytes()).await;
        self.note(stage, recipient.cloned(), reply.clone());
        reply
    }

    fn note(&mut self, stage: Hook, recipient: Option<Address>, reply: HeardReply) {
        self.exchanges.push(DryRunExchange {
            stage,
            recipient,
            asked: self.log.take(),
            reply,
            closes: self.over,
        });
    }

    async fn command(&mut self, octets: &[u8]) -> HeardReply {
        let mut heard = self.work().await;
        for piece in octets.chunks(PIECE) {
            if self.over {
                break;
            }
            self.machine.receive(piece, Instant::now());
            heard.extend(self.work().await);
        }
        HeardReply::of(&heard)
    }

    /// Processes all events, as a connection does. Returns what the client receives.
    async fn work(&mut self) -> Vec<u8> {
        while let Some(event) = self.machine.poll_event() {
            match event {
                Event::Ask(question) => {
                    let answer = self.pipeline.answer(question).await;
                    self.machine.answer(answer, Instant::now());
                    self.close_if_requested();
                }
                Event::Body(chunk) => self.pipeline.body(chunk).await,
                Event::Reset => {
                    self.pipeline.reset();
                    self.close_if_requested();
                }
                // This client never sends STARTTLS, and sees a fault in its reply.
                Event::StartTls | Event::Fault(_) => {}
                Event::Closed(_) => self.over = true,
            }
        }
        std::iter::from_fn(|| self.machine.poll_transmit()).flatten().collect()
    }

    fn close_if_requested(&mut self) {
        if let Some(reply) = self.pipeline.closing() {
            self.machine.dismiss(reply, Instant::now());
        }
    }
}

/// The questions to the chain since the last command.
#[derive(Default)]
struct QuestionLog(Mutex<Vec<AskedQuestion>>);

impl QuestionLog {
    fn take(&self) -> Vec<AskedQuestion> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Observer for QuestionLog {
    fn decided(&self, call: &Call, decision: &Decision, view: &View) {
        let asked = AskedQuestion { hook: call.hook(), decision: decision.clone(), view: view.clone() };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
    }
}

fn assumed_tls() -> TlsFacts {
    TlsFacts {
        version: "TLSv1.3".to_owned(),
        cipher: "TLS13_AES_256_GCM_SHA384".to_owned(),
        server_name: None,
        client_certificate_sha256: None,
        client_certificate_subject: None,
        client_certificate_verified: false,
    }
}

/// The parameters of MAIL for this message, if their extensions are offered.
fn parameters(offered: &HeardReply, mail: DryRunMail<'_>) -> String {
    let is = |line: &str, keyword: &str| {
        line.split(' ').next().is_some_and(|word| word.eq_ignore_ascii_case(keyword))
    };
    let has = |keyword: &str| offered.text.lines().skip(1).any(|line| is(line, keyword));
    let mut parameters = String::new();
    if has("SIZE") {
        parameters += &format!(" SIZE={}", mail.octets.len());
    }
    if has("8BITMIME") && !mail.octets.is_ascii() {
        parameters += " BODY=8BITMIME";
    }
    let header = mail.octets.windows(4).position(|end| end == b"\r\n\r\n").unwrap_or(mail.octets.len());
    let ascii = mail.sender.as_str().is_ascii()
        && mail.recipients.iter().all(|recipient| recipient.as_str().is_ascii())
        && mail.octets[..header].is_ascii();
    if has("SMTPUTF8") && !ascii {
        parameters += " SMTPUTF8";
    }
    parameters
}

/// The message as DATA sends it, with dot stuffing (RFC 5321 section 4.5.2) and the final dot.
fn stuffed(octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(octets.len() + octets.len() / 64 + 5);
    for line in octets.split_inclusive(|octet| *octet == b'\n') {
        if line.starts_with(b".") {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    if !out.is_empty() && !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
    out
}

/// Removes line breaks from an EHLO name, so that it cannot become a command.
fn in_one_line(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_sent_as_data_wants_it() {
        assert_eq!(stuffed(b".a\r\n..\r\nb"), b"..a\r\n...\r\nb\r\n.\r\n");
        assert_eq!(stuffed(b""), b".\r\n");
    }

    #[test]
    fn replies_are_read() {
        let heard = HeardReply::of(b"250-gate.example\r\n250-SIZE 10\r\n250 SMTPUTF8\r\n");
        assert_eq!(heard, HeardReply { code: 250, text: "gate.example\nSIZE 10\nSMTPUTF8".to_owned() });
        assert!(
            !heard.refuses()
                && HeardReply::of(b"").refuses()
                && HeardReply::of(b"421 4.3.2 No\r\n").refuses()
        );
        let recipients = [];
        let mail = DryRunMail {
            sender: &ReversePath::Null,
            recipients: &recipients,
            octets: "A: ä\r\n\r\nb".as_bytes(),
        };
        assert_eq!(parameters(&heard, mail), " SIZE=10 SMTPUTF8");
    }
}
