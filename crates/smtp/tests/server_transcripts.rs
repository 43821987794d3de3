//! Plays the transcripts of `transcripts/server` against the server session; the format is described in
//! `transcript/mod.rs`.
//!
//! Settings: `tls`, `session ID`, `offer EXTENSION`, `without EXTENSION`, `limit NAME N`, `bare-lf refuse`,
//! `early-talk refuse`, `auth-in-clear`, `mechanisms NAMES`, `require-tls`, `require-auth`, `cuts whole` (if the outcome
//! depends on where a read ends). Without any, all extensions but STARTTLS and AUTH are offered.
//!
//! Actions: `accept [REPLY]`, `refuse REPLY`, `close REPLY`, `accepted RECEIPT [REPLY]`, `except RECEIPT [ID REPLY | ID
//! REPLY …]` (accepted except for these recipients), `discard`, `discard-except [ID REPLY | …]`, `granted NAME`, `denied [REPLY]`, `unavailable`, `offer
//! KEYWORD [VALUE]` and `withhold KEYWORD` (which edit the offers before `offers`), `early BYTES` (passed although none
//! are wanted), `tls`, `tls-failed`, `eof`, `shutdown`, `abort`, `retire` and `dismiss` with a reply. `begin` stands
//! for an accepted connection, the greeting and an answered EHLO; `transaction` for an accepted MAIL and an accepted
//! RCPT, with their replies; `prdr N` for an accepted MAIL with PRDR and N accepted RCPT.

#![allow(clippy::unwrap_used, reason = "a transcript that cannot be read is a failed test")]

mod transcript;

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pintle_mail::{MailParams, RcptParams, Reply};
use pintle_smtp::Extension;
use pintle_smtp::server::config::{BareCr, BareLf, EarlyTalk};
use pintle_smtp::server::{
    Closed, Config, Event, Hello, HelloVerb, HostAnswer, MessageCounts, Offers, Question, SaslCredentials,
    SaslMechanisms, Session, SessionFault, Start,
};
use transcript::{Cut, Kind, Script, Step, duration, quoted, scripts, unescape};

#[test]
fn every_transcript_holds_however_it_is_cut() {
    // Each file fails on its own, so that one run shows everything that a change broke.
    let failed: Vec<_> = scripts("server")
        .into_iter()
        .filter(|script| std::panic::catch_unwind(|| play_every_cut(script)).is_err())
        .map(|script| script.path)
        .collect();
    assert!(failed.is_empty(), "{} transcripts failed: {failed:#?}", failed.len());
}

fn play_every_cut(script: &Script) {
    let whole = script.settings.iter().any(|(name, value)| name == "cuts" && value == "whole");
    for cut in Cut::all().take(if whole { 1 } else { usize::MAX }) {
        Run::new(script, cut).play();
    }
}

/// A run of one transcript with one cut.
struct Run<'a> {
    script: &'a Script,
    cut: Cut,
    session: Session<String>,
    now: Instant,
    /// Split and not yet passed in: a real host leaves it in the socket.
    pending: VecDeque<Vec<u8>>,
    sent: Vec<u8>,
    events: VecDeque<Event>,
    /// The offers of the open EHLO question.
    offers: Option<Offers>,
    /// Whether the script answers [`Question::Data`] itself.
    asks_data: bool,
    place: String,
}

impl<'a> Run<'a> {
    fn new(script: &'a Script, cut: Cut) -> Self {
        let (config, start) = configured(script);
        let now = Instant::now();
        Self {
            script,
            cut,
            session: Session::new(Arc::new(config), start, now),
            now,
            pending: VecDeque::new(),
            sent: Vec::new(),
            events: VecDeque::new(),
            offers: None,
            asks_data: script.settings.iter().any(|(name, _)| name == "ask-data"),
            place: String::new(),
        }
    }

    fn play(mut self) {
        self.collect();
        let mut steps = self.script.steps.iter().peekable();
        while let Some(step) = steps.next() {
            self.place = format!("{} ({:?})", self.script.place(step), self.cut);
            match &step.kind {
                Kind::Client(bytes) => {
                    let mut block = bytes.clone();
                    while let Some(more) = steps.next_if(|next| matches!(next.kind, Kind::Client(_))) {
                        let Step { kind: Kind::Client(bytes), .. } = more else { unreachable!() };
                        block.extend_from_slice(bytes);
                    }
                    self.peer_sends(&block);
                }
                Kind::Server(bytes) => self.expect_sent(bytes),
                Kind::Act(act) => self.act(act),
                Kind::Clock(by) => self.move_clock(*by),
                Kind::Event(text) => self.expect_event(text),
            }
        }
        self.place = format!("{} (end, {:?})", self.script.path.display(), self.cut);
        self.pump();
        self.expect_quiet();
        assert!(self.pending.is_empty(), "{}: bytes left over: {:?}", self.place, self.pending);
    }

    fn peer_sends(&mut self, bytes: &[u8]) {
        self.expect_quiet();
        self.pending.extend(self.cut.pieces(bytes));
        self.pump();
    }

    /// Passes in what the session wants, and takes what it returns.
    fn pump(&mut self) {
        self.collect();
        while self.session.wants_read()
            && let Some(piece) = self.pending.pop_front()
        {
            self.session.receive(&piece, self.now);
            self.collect();
        }
    }

    fn collect(&mut self) {
        while let Some(event) = self.session.poll_event() {
            match (self.events.back_mut(), event) {
                // Most scripts are not about this question: without `% ask-data`, the answer is yes.
                (_, Event::Ask(Question::Data)) if !self.asks_data => {
                    self.session.answer(HostAnswer::Accept(None), self.now);
                }
                // How a body is split depends on how the input was split: only the concatenation counts.
                (Some(Event::Body(before)), Event::Body(more)) => {
                    *before = [&before[..], &more[..]].concat().into();
                }
                (_, event) => self.events.push_back(event),
            }
        }
        while let Some(bytes) = self.session.poll_transmit() {
            self.sent.extend_from_slice(&bytes);
        }
    }

    fn expect_quiet(&self) {
        assert!(self.sent.is_empty(), "{}: unexpected: {}", self.place, quoted(&self.sent));
        assert!(self.events.is_empty(), "{}: unexpected: {:?}", self.place, self.events);
    }

    fn expect_sent(&mut self, bytes: &[u8]) {
        let place = &self.place;
        let sent = self.sent.get(..bytes.len()).unwrap_or(&self.sent);
        assert!(sent == bytes, "{place}: got {}, events {:?}", quoted(&self.sent), self.events);
        self.sent.drain(..bytes.len());
    }

    fn expect_event(&mut self, text: &str) {
        let event = self.events.pop_front();
        let got = event.as_ref().map_or("nothing".to_owned(), describe);
        assert_eq!(got, text, "{}", self.place);
        if let Some(Event::Ask(Question::Hello(hello))) = event {
            self.offers = Some(hello.offers);
        }
    }

    fn move_clock(&mut self, by: Duration) {
        self.now += by;
        if self.session.poll_timeout().is_some_and(|deadline| deadline <= self.now) {
            self.session.handle_timeout(self.now);
        }
        self.pump();
    }

    fn act(&mut self, act: &str) {
        let (verb, rest) = act.split_once(' ').unwrap_or((act, ""));
        match verb {
            "begin" => self.begin(),
            "transaction" => self.transaction(),
            "prdr" => self.prdr_transaction(rest.parse().unwrap()),
            "offer" => {
                let (keyword, value) = rest.split_once(' ').map_or((rest, None), |(k, v)| (k, Some(v)));
                self.offers.as_mut().unwrap().offer(keyword, value).unwrap();
            }
            "withhold" => self.offers.as_mut().unwrap().withhold(rest),
            "early" => self.session.receive(&unescape(rest), self.now),
            "tls" => self.session.tls_started(self.now),
            "tls-failed" => self.session.tls_failed(self.now),
            "eof" => self.session.peer_closed(self.now),
            "shutdown" => self.session.shutdown(self.now),
            "abort" => self.session.abort(self.now),
            "retire" => self.session.retire(reply(rest).unwrap(), self.now),
            "dismiss" => self.session.dismiss(reply(rest).unwrap(), self.now),
            _ => {
                let answer = self.answer(verb, rest);
                self.session.answer(answer, self.now);
            }
        }
        self.pump();
    }

    fn answer(&mut self, verb: &str, rest: &str) -> HostAnswer<String> {
        match verb {
            "accept" => HostAnswer::Accept(reply(rest)),
            "offers" => HostAnswer::Offer(self.offers.take().unwrap()),
            "refuse" => HostAnswer::Refuse(reply(rest).unwrap()),
            "close" => HostAnswer::Close(reply(rest).unwrap()),
            "accepted" => {
                let (receipt, text) = rest.split_once(' ').unwrap_or((rest, ""));
                HostAnswer::Accepted { receipt: receipt.to_owned(), reply: reply(text) }
            }
            "except" => {
                let (receipt, refused) = rest.split_once(' ').unwrap_or((rest, ""));
                HostAnswer::AcceptedExcept { receipt: receipt.to_owned(), refused: refusals(refused) }
            }
            "discard" => HostAnswer::Discard(reply(rest)),
            "discard-except" => HostAnswer::DiscardExcept { refused: refusals(rest) },
            "granted" => HostAnswer::Granted { identity: rest.to_owned() },
            "denied" => HostAnswer::Denied(reply(rest)),
            "unavailable" => HostAnswer::Unavailable(reply(rest)),
            _ => panic!("{}: no act: {verb}", self.place),
        }
    }

    fn begin(&mut self) {
        self.collect();
        self.expect_event("ask connect");
        self.act("accept");
        self.expect_sent(b"220 mx.example ESMTP Pintle\r\n");
        self.peer_sends(b"EHLO client.example\r\n");
        self.expect_event("ask hello ehlo client.example");
        self.act("accept");
        self.sent.clear();
    }

    fn transaction(&mut self) {
        self.peer_sends(b"MAIL FROM:<a@client.example>\r\n");
        self.expect_event("ask sender <a@client.example>");
        self.act("accept");
        self.expect_sent(b"250 2.1.0 Sender ok\r\n");
        self.peer_sends(b"RCPT TO:<b@mx.example>\r\n");
        self.expect_event("ask recipient 0 <b@mx.example>");
        self.act("accept");
        self.expect_sent(b"250 2.1.5 Recipient ok\r\n");
    }

    fn prdr_transaction(&mut self, recipients: u32) {
        self.peer_sends(b"MAIL FROM:<a@client.example> PRDR\r\n");
        self.expect_event("ask sender <a@client.example> SevenBit prdr");
        self.act("accept");
        self.expect_sent(b"250 2.1.0 Sender ok\r\n");
        for id in 0..recipients {
            self.peer_sends(b"RCPT TO:<b@mx.example>\r\n");
            self.expect_event(&format!("ask recipient {id} <b@mx.example>"));
            self.act("accept");
            self.expect_sent(b"250 2.1.5 Recipient ok\r\n");
        }
    }
}

fn configured(script: &Script) -> (Config, Start) {
    let mut config = Config { hostname: "mx.example".to_owned(), ..Config::default() };
    let mut start = Start::default();
    for (name, value) in &script.settings {
        match name.as_str() {
            "tls" => start.tls = true,
            "session" => start.session_id = Some(value.clone()),
            _ => configure(&mut config, name, value)
                .unwrap_or_else(|| panic!("{}: % {name} {value}", script.path.display())),
        }
    }
    (config, start)
}

fn configure(config: &mut Config, name: &str, value: &str) -> Option<()> {
    match name {
        "offer" => config.extensions = config.extensions.with(Extension::named(value)?),
        "without" => config.extensions = config.extensions.without(Extension::named(value)?),
        "limit" => limit(config, value)?,
        "timeout" => {
            let (name, value) = value.split_once(' ')?;
            match name {
                "command" => config.timeouts.command = duration(value),
                "data" => config.timeouts.data = duration(value),
                _ => config.timeouts.message = duration(value),
            }
        }
        "bare-lf" => config.leniency.bare_lf = BareLf::Refuse,
        "bare-cr" => config.leniency.bare_cr = BareCr::Normalise,
        "early-talk" => config.leniency.early_talk = EarlyTalk::Refuse,
        "auth-in-clear" => config.auth.without_tls = true,
        "mechanisms" => {
            config.auth.mechanisms =
                SaslMechanisms { plain: value.contains("PLAIN"), login: value.contains("LOGIN") }
        }
        "require-tls" => config.require_tls = true,
        "require-auth" => config.require_auth = true,
        "cuts" | "ask-data" => {}
        _ => return None,
    }
    Some(())
}

fn limit(config: &mut Config, text: &str) -> Option<()> {
    let (name, number) = text.split_once(' ')?;
    let limits = &mut config.limits;
    let small: u32 = number.parse().ok()?;
    match name {
        "recipients" => limits.recipients = small,
        "message" => limits.message = small.into(),
        "header" => limits.header = small as usize,
        "bad-commands" => limits.bad_commands = small,
        "idle-commands" => limits.idle_commands = small,
        "auth-failures" => limits.auth_failures = small,
        "messages" => limits.messages = Some(small),
        "input" => limits.input = small as usize,
        _ => return None,
    }
    Some(())
}

/// Parses `550 5.1.1 text` or `550 text`.
fn reply(text: &str) -> Option<Reply> {
    let (code, text) = text.split_once(' ')?;
    let code = code.parse().unwrap();
    let (first, rest) = text.split_once(' ').unwrap_or((text, ""));
    Some(match first.parse() {
        Ok(enhanced) => Reply::new(code, enhanced, rest.to_owned()),
        Err(_) => Reply::plain(code, text.to_owned()),
    })
}

/// Parses `ID REPLY | ID REPLY`.
fn refusals(text: &str) -> Vec<(u32, Reply)> {
    let one = |text: &str| {
        let (id, text) = text.split_once(' ').unwrap();
        (id.parse().unwrap(), reply(text).unwrap())
    };
    text.split(" | ").filter(|text| !text.is_empty()).map(one).collect()
}

fn describe(event: &Event) -> String {
    match event {
        Event::Ask(question) => format!("ask {}", asked(question)),
        Event::Body(bytes) => format!("body {}", quoted(bytes)),
        Event::StartTls => "starttls".to_owned(),
        Event::Reset => "reset".to_owned(),
        Event::Fault(fault) => format!("fault {}", fault.counter()),
        Event::Closed(why) => format!("closed {}", closed(why)),
    }
}

fn closed(why: &Closed) -> &'static str {
    match why {
        Closed::Quit => "quit",
        Closed::Peer => "peer",
        Closed::Host => "host",
        Closed::Shutdown => "shutdown",
        Closed::Fault(fault) => SessionFault::counter(fault),
    }
}

fn asked(question: &Question) -> String {
    match question {
        Question::Connect => "connect".to_owned(),
        Question::Hello(hello) => said_hello(hello),
        Question::Auth(credentials) => logged_in(credentials),
        Question::Sender(sender) => format!("sender <{}>{}", sender.path, mail_params(&sender.params)),
        Question::Recipient(rcpt) => {
            format!("recipient {} <{}>{}", rcpt.id, rcpt.address, rcpt_params(&rcpt.params))
        }
        Question::Data => "data".to_owned(),
        Question::Headers(headers) => {
            let end = if headers.separated { "" } else { " unseparated" };
            format!("headers {}{end}", quoted(&headers.header))
        }
        Question::Message(message) => counted(message),
    }
}

fn said_hello(hello: &Hello) -> String {
    let verb = match hello.verb {
        HelloVerb::Helo => "helo",
        HelloVerb::Ehlo => "ehlo",
    };
    format!("hello {verb} {}", hello.name)
}

fn logged_in(credentials: &SaslCredentials) -> String {
    let mut text = format!(
        "auth {} {} {}",
        credentials.mechanism.name(),
        credentials.username,
        credentials.password.expose()
    );
    if let Some(other) = &credentials.authorization_id {
        write!(text, " as {other}").unwrap();
    }
    text
}

fn mail_params(params: &MailParams) -> String {
    if *params == MailParams::default() {
        return String::new();
    }
    let mut text = String::new();
    if let Some(size) = params.size {
        write!(text, " size={size}").unwrap();
    }
    write!(text, " {:?}", params.body).unwrap();
    let mut word =
        |is: bool, word: String| text.push_str(&if is { format!(" {word}") } else { String::new() });
    word(params.smtputf8, "smtputf8".into());
    word(params.require_tls, "requiretls".into());
    word(params.prdr, "prdr".into());
    word(params.ret.is_some(), format!("ret={:?}", params.ret));
    word(params.envid.is_some(), format!("envid={}", params.envid.as_deref().unwrap_or_default()));
    word(params.auth.is_some(), format!("auth={}", params.auth.as_deref().unwrap_or_default()));
    for param in &params.other {
        word(true, format!("{}={:?}", param.name, param.value));
    }
    text
}

fn rcpt_params(params: &RcptParams) -> String {
    let mut text = String::new();
    if let Some(notify) = params.notify {
        let when = [(notify.success, "success"), (notify.failure, "failure"), (notify.delay, "delay")];
        let words: Vec<_> = when.iter().filter(|(is, _)| *is).map(|(_, word)| *word).collect();
        write!(text, " notify={}", words.join(",")).unwrap();
    }
    if let Some(orcpt) = &params.orcpt {
        write!(text, " orcpt={orcpt}").unwrap();
    }
    for param in &params.other {
        write!(text, " {}={:?}", param.name, param.value).unwrap();
    }
    text
}

fn counted(message: &MessageCounts) -> String {
    let mut text = format!("message {}+{}", message.header_size, message.body_size);
    if message.has_8bit {
        text.push_str(" 8bit");
    }
    text
}
