//! Plays the transcripts of `transcripts/client` against the client session: `S:` bytes go in, `C:` bytes must come
//! out. The format is described in `transcript/mod.rs`.
//!
//! Settings: `hello`, `protocol`, `tls`, `channel plain|tls|verified`, `login USER PASSWORD`, `login-over` a channel,
//! `transfer`, `strict`, `pipeline N`, `transmit N`.
//!
//! Actions: `send KEY=VALUE …` (`from`, `to` repeated and followed by `,notify=`/`,orcpt=`, `size`, `content`,
//! `smtputf8`, `binary`, `require-tls`, `prdr`, `ret`, `envid`), `body TEXT`, `end`, `tls` or `tls verified`, `quit`,
//! `abandon`, `lost`, `refused-send` (a `send` that must be returned).
//!
//! Events: `ready`, `start-tls`, `need-body`, `done handed-on|not-offered` followed by one `rcpt ID
//! delivered|deferred|failed next-hop|us STEP REPLY` for each recipient, `closed OWNER TEXT`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod transcript;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pintle_mail::{
    Address, BodyType, Charset, Envelope, MailParams, Notify, RcptParams, Recipient, Return, ReversePath,
    TlsPolicy,
};
use pintle_smtp::client::{
    Channel, Config, ContentClass, Credentials, Delivery, DsnRelay, EightBit, Event, Protocol,
    RecipientOutcome, ReplyOutcome, Session, Speaker, Transaction, Transfer, is_hop_trouble,
};
use transcript::{Cut, Kind, Script, unescape};

#[test]
fn transcripts_hold_however_the_bytes_are_split() {
    for script in transcript::scripts("client") {
        for cut in Cut::all() {
            Player::new(&script, cut).play();
        }
    }
}

struct Player<'a> {
    script: &'a Script,
    cut: Cut,
    session: Session,
    now: Instant,
    wire: Vec<u8>,
    events: VecDeque<String>,
    place: String,
}

impl<'a> Player<'a> {
    fn new(script: &'a Script, cut: Cut) -> Self {
        let now = Instant::now();
        Self {
            script,
            cut,
            session: Session::new(config(&script.settings), now),
            now,
            wire: Vec::new(),
            events: VecDeque::new(),
            place: String::new(),
        }
    }

    fn play(mut self) {
        let mut steps = self.script.steps.iter().peekable();
        while let Some(step) = steps.next() {
            self.place = format!("{} ({:?})", self.script.place(step), self.cut);
            match &step.kind {
                Kind::Server(bytes) => {
                    let mut bytes = bytes.clone();
                    while let Some(Kind::Server(more)) = steps.peek().map(|step| &step.kind) {
                        bytes.extend_from_slice(more);
                        steps.next();
                    }
                    self.hear(&bytes);
                }
                Kind::Client(bytes) => self.expect_bytes(bytes),
                Kind::Event(text) => self.expect_event(text),
                Kind::Act(text) => self.act(text),
                Kind::Clock(time) => self.pass(*time),
            }
        }
        self.expect_quiet();
    }

    fn hear(&mut self, bytes: &[u8]) {
        self.expect_quiet();
        for piece in self.cut.pieces(bytes) {
            self.session.receive(&piece, self.now);
            self.collect();
        }
    }

    fn pass(&mut self, time: Duration) {
        self.expect_quiet();
        self.now += time;
        self.session.handle_timeout(self.now);
        self.collect();
    }

    fn collect(&mut self) {
        while let Some(piece) = self.session.poll_transmit() {
            self.wire.extend_from_slice(&piece);
        }
        while let Some(event) = self.session.poll_event() {
            describe(&event, &mut self.events);
        }
    }

    fn expect_bytes(&mut self, bytes: &[u8]) {
        self.collect();
        let (shown, wanted) = (String::from_utf8_lossy(&self.wire), String::from_utf8_lossy(bytes));
        assert!(self.wire.starts_with(bytes), "{}: sent {shown:?}, not {wanted:?}", self.place);
        self.wire.drain(..bytes.len());
    }

    fn expect_event(&mut self, text: &str) {
        self.collect();
        let event = self.events.pop_front();
        assert_eq!(event.as_deref(), Some(text), "{}", self.place);
    }

    fn expect_quiet(&mut self) {
        self.collect();
        let wire = String::from_utf8_lossy(&self.wire);
        assert!(self.wire.is_empty(), "{}: also sent {wire:?}", self.place);
        assert!(self.events.is_empty(), "{}: also happened {:?}", self.place, self.events);
    }

    fn act(&mut self, text: &str) {
        self.expect_quiet();
        let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
        match verb {
            "send" => self.session.send(transaction(rest), self.now).expect("the session is not ready"),
            "refused-send" => drop(self.session.send(transaction(rest), self.now).expect_err("it was taken")),
            "body" => self.session.body(Bytes::from(unescape(rest)), self.now),
            "end" => self.session.end_of_body(self.now),
            "tls" => self.session.tls_started(channel(rest), self.now),
            "quit" => self.session.quit(self.now),
            "abandon" => self.session.abandon(),
            "lost" => self.session.connection_lost(),
            _ => panic!("{}: unknown action {verb:?}?", self.place),
        }
    }
}

fn config(settings: &[(String, String)]) -> Config {
    let mut config = Config::new("relay.example");
    for (name, value) in settings {
        match (name.as_str(), value.as_str()) {
            ("hello", name) => name.clone_into(&mut config.hello_name),
            ("protocol", "lmtp") => config.protocol = Protocol::Lmtp,
            ("tls", "none") => config.tls = TlsPolicy::None,
            ("tls", "required") => config.tls = TlsPolicy::Required,
            ("channel", name) => config.channel = channel(name),
            ("login", login) => {
                let (user, password) = login.split_once(' ').unwrap();
                let over = settings.iter().find(|(name, _)| name == "login-over");
                let over = over.map_or(Channel::VerifiedTls, |(_, name)| channel(name));
                config.credentials = Some(Credentials { over, ..Credentials::new(user, password) });
            }
            ("login-over", _) => {}
            ("transfer", "chunking") => config.transfer = Transfer::Chunking,
            ("strict", "") => config.eight_bit = EightBit::Strict,
            ("pipeline", count) => config.limits.pipeline = count.parse().unwrap(),
            ("transmit", count) => config.limits.transmit = count.parse().unwrap(),
            other => panic!("what is the setting {other:?}?"),
        }
    }
    config
}

fn channel(name: &str) -> Channel {
    match name {
        "plain" => Channel::Plain,
        "tls" | "" => Channel::Tls,
        "verified" => Channel::VerifiedTls,
        other => panic!("what is the channel {other:?}?"),
    }
}

fn transaction(text: &str) -> Transaction {
    let mut transaction = Transaction {
        envelope: Envelope {
            sender: ReversePath::Null,
            params: MailParams::default(),
            recipients: Vec::new(),
        },
        size: 0,
        content: ContentClass::SevenBit,
    };
    let envelope = &mut transaction.envelope;
    for word in text.split(' ') {
        match word.split_once('=').unwrap_or((word, "")) {
            ("from", path) => envelope.sender = ReversePath::parse(path, Charset::Utf8).unwrap(),
            ("to", path) => {
                let id = u32::try_from(envelope.recipients.len()).unwrap();
                envelope.recipients.push(recipient(id, path));
            }
            ("size", size) => transaction.size = size.parse().unwrap(),
            ("content", "8bit-body") => transaction.content = ContentClass::EightBitBody,
            ("content", "8bit-header") => transaction.content = ContentClass::EightBitHeader,
            ("smtputf8", "") => envelope.params.smtputf8 = true,
            ("binary", "") => envelope.params.body = BodyType::BinaryMime,
            ("require-tls", "") => envelope.params.require_tls = true,
            ("prdr", "") => envelope.params.prdr = true,
            ("ret", "full") => envelope.params.ret = Some(Return::Full),
            ("ret", "headers") => envelope.params.ret = Some(Return::Headers),
            ("envid", envid) => envelope.params.envid = Some(String::from_utf8(unescape(envid)).unwrap()),
            other => panic!("what is {other:?} in a transaction?"),
        }
    }
    transaction
}

fn recipient(id: u32, text: &str) -> Recipient {
    let mut words = text.split(',');
    let address = Address::parse(words.next().unwrap(), Charset::Utf8).unwrap();
    let mut params = RcptParams::default();
    for word in words {
        match word.split_once('=') {
            Some(("notify", when)) => {
                params.notify = Some(Notify {
                    success: when.contains("success"),
                    failure: when.contains("failure"),
                    delay: when.contains("delay"),
                });
            }
            Some(("orcpt", orcpt)) => params.orcpt = Some(orcpt.to_owned()),
            other => panic!("what is {other:?} of a recipient?"),
        }
    }
    Recipient { params, ..Recipient::new(id, address) }
}

fn describe(event: &Event, lines: &mut VecDeque<String>) {
    match event {
        Event::Ready => lines.push_back("ready".to_owned()),
        Event::StartTls => lines.push_back("start-tls".to_owned()),
        Event::NeedBody => lines.push_back("need-body".to_owned()),
        Event::Closed(why) => lines.push_back(format!("closed {:?} {why}", why.owner()).to_lowercase()),
        Event::Done(delivery) => describe_delivery(delivery, lines),
    }
}

/// Whether the next hop itself gave a reply that concerns it as a whole.
fn is_about_hop(recipient: &RecipientOutcome) -> bool {
    matches!(&recipient.outcome, ReplyOutcome::Deferred(reply)
        if recipient.speaker == Speaker::NextHop && is_hop_trouble(reply))
}

fn describe_delivery(delivery: &Delivery, lines: &mut VecDeque<String>) {
    let hints = [
        (delivery.dsn == DsnRelay::HandedOn, " handed-on"),
        (delivery.dsn == DsnRelay::NotOffered, " not-offered"),
        (delivery.recipients.iter().any(is_about_hop), " hop-trouble"),
        (delivery.has_overflow(), " overflow"),
    ];
    let hints: String = hints.iter().filter(|(on, _)| *on).map(|(_, word)| *word).collect();
    lines.push_back(format!("done{hints}"));
    for recipient in &delivery.recipients {
        let fate = match recipient.outcome {
            ReplyOutcome::Delivered(_) => "delivered",
            ReplyOutcome::Deferred(_) => "deferred",
            ReplyOutcome::Failed(_) => "failed",
        };
        let speaker = match recipient.speaker {
            Speaker::NextHop => "next-hop",
            Speaker::Us => "us",
        };
        let (id, step, reply) = (recipient.id, recipient.step, recipient.outcome.reply());
        let step = format!("{step:?}").to_lowercase();
        lines.push_back(format!("rcpt {id} {fate} {speaker} {step} {reply}"));
    }
}

#[test]
fn giving_up_writes_nothing_more() {
    let now = Instant::now();
    let mut session = Session::new(config(&[]), now);
    session.receive(b"220 mx\r\n", now);
    while session.poll_transmit().is_some() {}
    session.receive(b"250 mx\r\n", now);
    session.send(transaction("from=a@a.example to=b@b.example"), now).unwrap();
    session.abandon();
    assert_eq!(session.poll_transmit(), None);
}

#[test]
fn secrets_stay_out_of_debug_output() {
    let mut config = config(&[("login".to_owned(), "tim tanstaaf".to_owned())]);
    config.channel = Channel::Tls;
    let shown = format!("{:?}", Session::new(config, Instant::now()));
    assert!(shown.contains("Credentials") && !shown.contains("tanstaaf"), "{shown}");
}

#[test]
fn more_of_the_body_is_wanted_only_when_there_is_room_for_it() {
    let now = Instant::now();
    let mut config = config(&[]);
    config.limits.transmit = 10;
    let mut session = Session::new(config, now);
    for reply in ["220 mx", "250 mx"] {
        session.receive(format!("{reply}\r\n").as_bytes(), now);
    }
    session.send(transaction("from=a@a.example to=b@b.example"), now).unwrap();
    for reply in ["250 ok", "250 ok", "354 go"] {
        session.receive(format!("{reply}\r\n").as_bytes(), now);
    }
    while session.poll_transmit().is_some() {}
    let wants = |session: &mut Session| {
        let events: Vec<Event> = std::iter::from_fn(|| session.poll_event()).collect();
        events.contains(&Event::NeedBody)
    };
    assert!(wants(&mut session));
    session.body(Bytes::from_static(b"twelve octets, or so\r\n"), now);
    assert!(!wants(&mut session), "asked for more while too much waits");
    assert!(session.poll_transmit().is_some());
    assert!(wants(&mut session));
}
