//! A host that drives the server session and checks its guarantees: shared by the property tests and the fuzz target.
//!
//! [`Host`] passes in bytes, answers questions as the caller's random number says, and panics as soon as the session
//! breaks a guarantee: a 250 without a receipt, the wrong replies to recipients, a message without an envelope, content
//! with stray control characters, a transaction that neither ends nor is reset, malformed replies, memory beyond the
//! limits, anything after the end.

#![allow(dead_code, reason = "each test binary uses its own part of this module")]
#![allow(unreachable_pub, reason = "public to the binaries that include it, which the lint cannot see")]
#![allow(clippy::unwrap_used, reason = "a broken promise is a failed test")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use pintle_mail::{EnhancedCode, Reply};
use pintle_smtp::Extension;
use pintle_smtp::server::config::Limits;
use pintle_smtp::server::{Closed, Config, Event, Headers, HostAnswer, Question, Session, Start};

/// Limits small enough to be reached at random.
const LIMITS: Limits = Limits {
    command_line: 80,
    auth_line: 60,
    recipients: 3,
    message: 300,
    header: 100,
    bad_commands: 12,
    idle_commands: 12,
    auth_failures: 2,
    messages: Some(4),
    input: 600,
};

/// Lines that a client may send, so that random input gets past the first command.
pub const LINES: [&str; 36] = [
    "EHLO client.example\r\n",
    "HELO client.example\r\n",
    "MAIL FROM:<a@client.example>\r\n",
    "MAIL FROM:<> BODY=8BITMIME\r\n",
    "MAIL FROM:<a@client.example> SIZE=301\r\n",
    "MAIL FROM:a@client.example PRDR\r\n",
    "RCPT TO:<b@mx.example>\r\n",
    "RCPT TO:<postmaster> NOTIFY=NEVER\r\n",
    "RCPT TO:<\"a b\"@mx.example>\r\n",
    "DATA\r\n",
    "BDAT 10\r\nA: 1\r\n\r\nxy",
    "BDAT 0 LAST\r\n",
    "BDAT 5 LAST\r\nA\r\nB\r",
    "BDAT 3\r\n\nx\r",
    "BDAT 9\r\n",
    "RSET\r\n",
    "NOOP\r\n",
    "QUIT\r\n",
    "VRFY a\r\n",
    "HELP\r\n",
    "STARTTLS\r\n",
    "AUTH PLAIN AGEAYg==\r\n",
    "AUTH LOGIN\r\n",
    "YQ==\r\n",
    "*\r\n",
    "Subject: x\r\n",
    " folded\r\n",
    "\r\n",
    ".\r\n",
    "..\r\n",
    "text\r\n",
    "bare\n",
    "\n.\r\n",
    "\r\n.\r\n",
    "\r.\r\n",
    "\0\r\n",
];

/// A host that drives a session and checks it.
pub struct Host {
    pub session: Session<String>,
    pub now: Instant,
    /// The open question, if there is one.
    pub question: Option<Question>,
    pub closed: Option<Closed>,
    /// Whether a TLS handshake is pending.
    pub handshake: bool,
    /// Everything sent so far.
    pub sent: Vec<u8>,
    /// Every event so far, in text form.
    pub story: Vec<String>,
    stage: Stage,
    /// Whether the answer to [`Question::Data`] is chosen as others are; otherwise it is always yes, so that plans mean what
    /// they meant before there was this question.
    decides_on_data: bool,
    /// Whether the client requested a reply for each recipient.
    prdr: bool,
    /// The ids of the accepted recipients.
    accepted: Vec<u32>,
    next_id: u32,
    header: Option<Headers>,
    body: Vec<u8>,
    receipts: u32,
}

/// How far the transaction has come, as the host sees it.
#[derive(Debug, PartialEq, Eq, PartialOrd)]
enum Stage {
    None,
    Envelope,
    Body,
}

/// Plays a plan of arbitrary bytes: each selects the next action and supplies its input.
pub fn play(plan: &[u8]) {
    let mut plan = plan.iter().copied();
    let mut host = Host::new(plan.next().unwrap_or(0));
    while let Some(byte) = plan.next() {
        let operand = plan.next().unwrap_or(0);
        match byte % 16 {
            0..=7 => host.feed(LINES[usize::from(operand) % LINES.len()].as_bytes()),
            8 => {
                let bytes: Vec<u8> = plan.by_ref().take(usize::from(operand)).collect();
                host.feed(&bytes);
            }
            9..=12 => host.answer(operand),
            13 => host.wait(operand),
            14 => host.end(operand),
            _ => host.shake_hands(operand),
        }
    }
    host.finish();
}

impl Host {
    /// Starts a session that is configured by the bits of `setting`.
    pub fn new(setting: u8) -> Self {
        let mut config = Config { limits: LIMITS, ..Config::default() };
        if setting & 1 != 0 {
            config = config.with(Extension::StartTls);
        }
        if setting & 2 != 0 {
            config = config.with(Extension::Auth);
            config.auth.without_tls = setting & 4 != 0;
        }
        config.require_auth = setting & 24 == 24;
        let start = Start {
            session_id: (setting & 32 != 0).then(|| "ID".to_owned()),
            tls: setting & 64 != 0,
            ..Start::default()
        };
        let now = Instant::now();
        let mut host = Self {
            session: Session::new(Arc::new(config), start, now),
            now,
            question: None,
            closed: None,
            handshake: false,
            sent: Vec::new(),
            story: Vec::new(),
            stage: Stage::None,
            decides_on_data: setting & 128 != 0,
            prdr: false,
            accepted: Vec::new(),
            next_id: 0,
            header: None,
            body: Vec::new(),
            receipts: 0,
        };
        host.collect();
        host
    }

    /// Passes in bytes if any are wanted, in pieces of bounded size.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.session.wants_read() {
            self.session.receive(bytes, self.now);
            self.collect();
        }
    }

    /// Answers the open question, if there is one, as `whim` selects.
    pub fn answer(&mut self, whim: u8) {
        let Some(question) = self.question.take() else {
            return;
        };
        let answer = self.choose(&question, whim);
        self.enter(&question, &answer);
        let before = self.sent.len();
        let refused = match &answer {
            HostAnswer::AcceptedExcept { refused, .. } | HostAnswer::DiscardExcept { refused } => {
                Some(refused.len())
            }
            _ => None,
        };
        self.session.answer(answer, self.now);
        self.collect();
        if let Some(refused) = refused {
            self.check_replies(before, refused);
        }
    }

    /// Checks the replies after an answer that accepts or drops a message for all recipients but some. Refusals come first in
    /// the order of RCPT, as [`Self::accepted_except`] refuses them.
    fn check_replies(&self, before: usize, refused: usize) {
        let all = self.accepted.len();
        let mut expected = vec![451];
        if self.prdr && refused < all {
            expected = vec![353];
            expected.extend((0..all).map(|at| if at < refused { 550 } else { 250 }));
            expected.push(250);
        }
        let codes = replies(std::str::from_utf8(&self.sent[before..]).unwrap());
        assert_eq!(codes[..expected.len()], expected, "{refused} of {all} refused");
    }

    fn choose(&mut self, question: &Question, whim: u8) -> HostAnswer<String> {
        let reply = |code, class| Reply::new(code, EnhancedCode(class, 7, 1), "whim");
        match (whim % 24, question) {
            (0, _) => HostAnswer::Refuse(reply(550, 5)),
            (1, _) => HostAnswer::Refuse(reply(451, 4)),
            (2, _) => HostAnswer::Refuse(reply(250, 2)),
            (3, _) => HostAnswer::Close(reply(421, 4)),
            // Answers that fit no question, or not this one.
            (4, Question::Message(_)) => HostAnswer::Accept(Some(reply(250, 2))),
            (4, _) => self.receipt(),
            (5, Question::Message(_)) => HostAnswer::Discard(None),
            (6, Question::Message(_)) => self.accepted_except(usize::from(whim) / 24 % 3 + 1),
            (7, Question::Message(_)) => {
                HostAnswer::DiscardExcept { refused: self.refusals(usize::from(whim) / 24 % 3 + 1) }
            }
            (5 | 6, Question::Auth(_)) => HostAnswer::Denied(None),
            (7, Question::Auth(_)) => HostAnswer::Unavailable(None),
            (_, Question::Auth(_)) => HostAnswer::Granted { identity: "a".to_owned() },
            (_, Question::Message(_)) => self.receipt(),
            (6, _) => HostAnswer::Accept(Some(reply(550, 2))),
            (7, Question::Hello(hello)) => {
                let mut offers = hello.offers.clone();
                offers.withhold("CHUNKING");
                HostAnswer::Offer(offers)
            }
            _ => HostAnswer::Accept(None),
        }
    }

    fn receipt(&mut self) -> HostAnswer<String> {
        self.receipts += 1;
        HostAnswer::Accepted { receipt: format!("R{}.", self.receipts), reply: None }
    }

    /// Accepts a message for all recipients but the first ones.
    fn accepted_except(&mut self, most: usize) -> HostAnswer<String> {
        self.receipts += 1;
        HostAnswer::AcceptedExcept { receipt: format!("R{}.", self.receipts), refused: self.refusals(most) }
    }

    /// Refusals of the first recipients.
    fn refusals(&self, most: usize) -> Vec<(u32, Reply)> {
        let refusal = |id: &u32| (*id, Reply::new(550, EnhancedCode(5, 7, 1), "whim"));
        self.accepted.iter().take(most).map(refusal).collect()
    }

    /// Records what was decided, as the session should.
    fn enter(&mut self, question: &Question, answer: &HostAnswer<String>) {
        match (question, answer) {
            (Question::Sender(sender), HostAnswer::Accept(_)) => {
                assert_eq!(self.stage, Stage::None);
                self.stage = Stage::Envelope;
                self.prdr = sender.params.prdr;
                self.accepted.clear();
                self.next_id = 0;
            }
            (Question::Recipient(recipient), HostAnswer::Accept(_)) => self.accepted.push(recipient.id),
            (Question::Headers(_), HostAnswer::Accept(_)) => self.stage = Stage::Body,
            (Question::Message(_), _) => self.stage = Stage::None,
            _ => {}
        }
    }

    /// Advances the clock by seconds or minutes.
    pub fn wait(&mut self, time: u8) {
        let unit = if time & 1 == 0 { 1 } else { 10 };
        self.now += Duration::from_secs(u64::from(time) * unit);
        if self.session.poll_timeout().is_some_and(|deadline| deadline <= self.now) {
            self.session.handle_timeout(self.now);
            assert!(self.question.is_none(), "no time runs out while a question is open");
            self.collect();
            assert!(self.closed.is_some(), "a deadline that passed ends the session");
        }
    }

    fn end(&mut self, how: u8) {
        match how % 8 {
            0 => self.session.peer_closed(self.now),
            1 => self.session.shutdown(self.now),
            2 => {
                self.session.abort(self.now);
                self.question = None;
            }
            _ => return,
        }
        self.collect();
    }

    /// Ends the TLS handshake, if one is pending.
    pub fn shake_hands(&mut self, result: u8) {
        if std::mem::take(&mut self.handshake) {
            if result.is_multiple_of(8) {
                self.session.tls_failed(self.now);
            } else {
                self.session.tls_started(self.now);
            }
            self.collect();
        }
    }

    /// Ends the session and checks the result.
    pub fn finish(mut self) {
        self.session.peer_closed(self.now);
        self.collect();
        for _ in 0..1_000 {
            if self.closed.is_some() {
                break;
            }
            self.answer(23);
            self.shake_hands(1);
        }
        assert!(self.closed.is_some(), "a session ends with its peer");
        let said = String::from_utf8(self.sent).unwrap();
        replies(&said);
        for receipt in said.split("Queued as ").skip(1) {
            let number: u32 = receipt[1..receipt.find('.').unwrap()].parse().unwrap();
            assert!(number <= self.receipts);
        }
    }

    fn collect(&mut self) {
        while let Some(event) = self.session.poll_event() {
            assert!(self.closed.is_none(), "after the end: {event:?}");
            self.tell(&event);
            self.watch(event);
        }
        while let Some(bytes) = self.session.poll_transmit() {
            self.sent.extend_from_slice(&bytes);
        }
        let most = LIMITS.input + LIMITS.header + 2 * 256;
        assert!(self.session.buffered() <= most, "{} octets held", self.session.buffered());
        if self.closed.is_some() || self.question.is_some() {
            assert!(self.session.poll_timeout().is_none() && !self.session.wants_read());
        } else if !self.handshake {
            assert!(self.session.poll_timeout().is_some(), "the peer has a deadline");
        }
    }

    /// Records an event in text form. Content is recorded with its message: how much of a refused message the host has
    /// seen before depends on how the input was split.
    fn tell(&mut self, event: &Event) {
        match event {
            Event::Body(_) | Event::Ask(Question::Headers(_)) => {}
            Event::Ask(Question::Data) if !self.decides_on_data => {}
            Event::Ask(Question::Message(message)) => {
                let content = self.body.escape_ascii();
                self.story.push(format!("{message:?} {:?} {content}", self.header));
            }
            event => self.story.push(format!("{event:?}")),
        }
    }

    fn watch(&mut self, event: Event) {
        match event {
            Event::Ask(Question::Data) if !self.decides_on_data => {
                self.watch_question(&Question::Data);
                self.session.answer(HostAnswer::Accept(None), self.now);
            }
            Event::Ask(question) => {
                self.watch_question(&question);
                self.question = Some(question);
            }
            Event::Body(bytes) => {
                assert_eq!(self.stage, Stage::Body);
                self.body.extend_from_slice(&bytes);
            }
            Event::StartTls => self.handshake = true,
            Event::Reset => {
                assert!(self.stage >= Stage::Envelope, "a reset of nothing");
                self.stage = Stage::None;
            }
            Event::Fault(fault) => {
                let reply = fault.reply();
                assert!(!reply.is_positive() && reply.enhanced.is_some());
            }
            Event::Closed(why) => {
                let asked = matches!(self.question, Some(Question::Message(_)));
                assert!(self.stage == Stage::None || asked, "closed with a transaction open");
                self.question = None;
                self.handshake = false;
                self.closed = Some(why);
            }
        }
    }

    fn watch_question(&mut self, question: &Question) {
        match question {
            Question::Sender(_) => assert_eq!(self.stage, Stage::None),
            Question::Recipient(recipient) => {
                assert_eq!((&self.stage, recipient.id), (&Stage::Envelope, self.next_id));
                self.next_id += 1;
            }
            Question::Data => {
                assert!(self.stage == Stage::Envelope && !self.accepted.is_empty());
            }
            Question::Headers(headers) => {
                assert!(self.stage == Stage::Envelope && !self.accepted.is_empty());
                assert!(headers.header.len() <= LIMITS.header);
                clean(&headers.header);
                self.header = Some(headers.clone());
                self.body.clear();
            }
            Question::Message(message) => {
                assert!(self.stage == Stage::Body && !self.accepted.is_empty());
                assert!(self.accepted.len() <= LIMITS.recipients as usize);
                assert_eq!(message.body_size, self.body.len() as u64);
                assert!(message.header_size + message.body_size <= LIMITS.message);
                clean(&self.body);
            }
            _ => {}
        }
    }
}

/// Checks that content contains no NUL, and CR and LF only together.
fn clean(content: &[u8]) {
    for (at, byte) in content.iter().enumerate() {
        match byte {
            0 => panic!("NUL in {content:?}"),
            b'\r' => assert_eq!(content.get(at + 1), Some(&b'\n'), "{content:?}"),
            b'\n' => assert!(at > 0 && content[at - 1] == b'\r', "{content:?}"),
            _ => {}
        }
    }
}

/// Returns the codes of the replies; panics if one is malformed (RFC 5321 section 4.2).
pub fn replies(said: &str) -> Vec<u16> {
    let mut codes = Vec::new();
    let mut open: Option<u16> = None;
    for line in said.split_inclusive("\r\n") {
        let text = line.strip_suffix("\r\n").unwrap_or_else(|| panic!("no line end: {said:?}"));
        assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && text.len() <= 510, "{text:?}");
        let code: u16 = text[..3].parse().unwrap();
        assert!((200..600).contains(&code) && open.is_none_or(|before| before == code), "{said:?}");
        open = match text.as_bytes()[3] {
            b'-' => Some(code),
            b' ' => {
                codes.push(code);
                None
            }
            _ => panic!("{text:?}"),
        };
    }
    assert_eq!(open, None, "{said:?}");
    codes
}
