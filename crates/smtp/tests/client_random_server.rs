//! The client session against servers that answer at random: plausible replies, or noise.
//!
//! Against a plausible server, which records what it accepts: what the client reports as delivered is what the server
//! accepted, and the bytes are those that were passed. Against noise: no panic, exactly one outcome for each recipient,
//! one end, and no more bytes waiting to be written than allowed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use pintle_mail::{Address, Charset, Envelope, MailParams, Recipient, ReversePath};
use pintle_smtp::client::{
    Channel, Config, ContentClass, Delivery, Event, Protocol, ReplyOutcome, Session, Transaction, Transfer,
};
use proptest::prelude::*;

/// A server that implements SMTP and answers at random.
struct Server {
    lmtp: bool,
    offers: &'static str,
    dice: VecDeque<u8>,
    input: Vec<u8>,
    mode: Mode,
    accepted: Vec<String>,
    mail: bool,
    message: Vec<u8>,
    /// What was accepted: recipient and message.
    taken: Vec<(String, Vec<u8>)>,
    out: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Commands,
    Data,
    Chunk { left: usize, last: bool },
}

impl Server {
    fn new(lmtp: bool, offers: &'static str, dice: Vec<u8>) -> Self {
        Self {
            lmtp,
            offers,
            dice: dice.into(),
            input: Vec::new(),
            mode: Mode::Commands,
            accepted: Vec::new(),
            mail: false,
            message: Vec::new(),
            taken: Vec::new(),
            out: b"220 hello\r\n".to_vec(),
        }
    }

    fn say(&mut self, line: &str) {
        self.out.extend_from_slice(line.as_bytes());
        self.out.extend_from_slice(b"\r\n");
    }

    /// Accepts, usually, or refuses. Returns whether it accepted.
    fn verdict(&mut self) -> bool {
        let reply = match self.dice.pop_front().unwrap_or(0) {
            0..=3 => "250-yes\r\n250 2.0.0 really",
            4 => "451 4.3.0 not now",
            5 => "552 too much",
            _ => "550 5.1.1 never",
        };
        self.say(reply);
        reply.starts_with('2')
    }

    fn hear(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        while self.step() {}
    }

    fn step(&mut self) -> bool {
        match self.mode {
            Mode::Commands => self.line().is_some_and(|line| {
                self.command(&line);
                true
            }),
            Mode::Data => self.line().is_some_and(|line| {
                self.data_line(&line);
                true
            }),
            Mode::Chunk { left, last } if self.input.len() >= left => {
                self.message.extend(self.input.drain(..left));
                self.mode = Mode::Commands;
                self.chunk(last);
                true
            }
            Mode::Chunk { .. } => false,
        }
    }

    /// Takes a line, without its CRLF.
    fn line(&mut self) -> Option<Vec<u8>> {
        let end = self.input.windows(2).position(|pair| pair == b"\r\n")?;
        let mut line: Vec<u8> = self.input.drain(..end + 2).collect();
        line.truncate(end);
        Some(line)
    }

    fn command(&mut self, line: &[u8]) {
        let line = std::str::from_utf8(line).expect("commands are text");
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match verb {
            "EHLO" | "LHLO" => self.say(self.offers),
            "RSET" => {
                self.reset();
                self.say("250 reset");
            }
            "MAIL" => {
                assert!(!self.mail, "MAIL within a transaction");
                self.mail = self.verdict();
            }
            "RCPT" if !self.mail => self.say("503 MAIL first"),
            "RCPT" => {
                let path = rest.trim_start_matches("TO:<").split('>').next().unwrap();
                if self.verdict() {
                    self.accepted.push(path.to_owned());
                }
            }
            "DATA" => self.data(),
            "BDAT" => {
                let (size, last) = rest.split_once(' ').unwrap_or((rest, ""));
                self.mode = Mode::Chunk { left: size.parse().unwrap(), last: last == "LAST" };
            }
            "QUIT" => self.say("221 bye"),
            other => panic!("what is {other}?"),
        }
    }

    fn data(&mut self) {
        // A lenient server sends 354 even without recipients, unless it speaks LMTP.
        let lenient = !self.lmtp && self.mail && self.dice.pop_front().unwrap_or(0) > 3;
        if self.accepted.is_empty() && !lenient {
            return self.say("503 RCPT first");
        }
        if self.dice.pop_front().unwrap_or(0) > 8 {
            return self.say("451 4.3.0 no data now");
        }
        self.say("354 go");
        self.mode = Mode::Data;
    }

    fn data_line(&mut self, line: &[u8]) {
        if line == b"." {
            self.mode = Mode::Commands;
            return self.finish();
        }
        self.message.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
        self.message.extend_from_slice(b"\r\n");
    }

    fn chunk(&mut self, last: bool) {
        if self.accepted.is_empty() {
            self.say("503 nothing to send it to");
        } else if last {
            self.finish();
        } else if self.dice.pop_front().unwrap_or(0) > 6 {
            self.accepted.clear();
            self.say("452 4.3.1 no room");
        } else {
            self.say("250 chunk");
        }
    }

    fn finish(&mut self) {
        let replies = if self.lmtp { self.accepted.len() } else { 1 };
        let accepted = std::mem::take(&mut self.accepted);
        if self.lmtp {
            for path in accepted.into_iter().take(replies) {
                if self.verdict() {
                    self.taken.push((path, self.message.clone()));
                }
            }
        } else if self.verdict() {
            let message = self.message.clone();
            self.taken.extend(accepted.into_iter().map(|path| (path, message.clone())));
        }
        self.reset();
    }

    fn reset(&mut self) {
        self.mail = false;
        self.accepted.clear();
        self.message.clear();
    }
}

fn recipients(count: u32, round: usize) -> Vec<Recipient> {
    let recipient =
        |id| Recipient::new(id, Address::parse(&format!("r{id}.{round}@b.example"), Charset::Ascii).unwrap());
    (0..count).map(recipient).collect()
}

fn transaction(count: u32, round: usize) -> Transaction {
    Transaction {
        envelope: Envelope {
            sender: ReversePath::Null,
            params: MailParams::default(),
            recipients: recipients(count, round),
        },
        size: 0,
        content: ContentClass::SevenBit,
    }
}

/// A host: passes the pieces when asked, collects deliveries, writes and reads until nothing moves.
struct Host {
    session: Session,
    now: Instant,
    pieces: VecDeque<Bytes>,
    deliveries: Vec<Delivery>,
    ready: usize,
    closed: usize,
}

impl Host {
    fn new(config: Config) -> Self {
        let now = Instant::now();
        Self {
            session: Session::new(config, now),
            now,
            pieces: VecDeque::new(),
            deliveries: Vec::new(),
            ready: 0,
            closed: 0,
        }
    }

    fn events(&mut self) {
        while let Some(event) = self.session.poll_event() {
            assert_eq!(self.closed, 0, "{event:?} after the end");
            match event {
                Event::Ready => self.ready += 1,
                Event::NeedBody => match self.pieces.pop_front() {
                    Some(piece) => self.session.body(piece, self.now),
                    None => self.session.end_of_body(self.now),
                },
                Event::Done(delivery) => self.deliveries.push(delivery),
                Event::Closed(_) => self.closed += 1,
                Event::StartTls => self.session.tls_started(Channel::Tls, self.now),
            }
        }
    }

    fn talk(&mut self, server: &mut Server, cut: usize) {
        loop {
            let heard = std::mem::take(&mut server.out);
            for piece in heard.chunks(cut) {
                self.session.receive(piece, self.now);
                self.events();
            }
            let mut moved = !heard.is_empty();
            while let Some(piece) = self.session.poll_transmit() {
                server.hear(&piece);
                self.events();
                moved = true;
            }
            self.events();
            if !moved {
                return;
            }
        }
    }
}

fn lines() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec("[.]{0,3}[ -~]{0,20}", 0..12)
}

#[derive(Debug, Clone)]
struct Round {
    recipients: u32,
    lines: Vec<String>,
    cuts: Vec<prop::sample::Index>,
}

fn round() -> impl Strategy<Value = Round> {
    (1..6_u32, lines(), prop::collection::vec(any::<prop::sample::Index>(), 0..5))
        .prop_map(|(recipients, lines, cuts)| Round { recipients, lines, cuts })
}

fn pieces(message: &[u8], cuts: &[prop::sample::Index]) -> VecDeque<Bytes> {
    let mut ends: BTreeSet<usize> = cuts.iter().map(|cut| cut.index(message.len() + 1)).collect();
    ends.insert(message.len());
    let starts = std::iter::once(0).chain(ends.iter().copied());
    starts.zip(&ends).map(|(start, end)| Bytes::copy_from_slice(&message[start..*end])).collect()
}

fn delivered(delivery: &Delivery, round: usize) -> Vec<String> {
    let taken = |outcome: &ReplyOutcome| matches!(outcome, ReplyOutcome::Delivered(_));
    let ids = delivery.recipients.iter().filter(|one| taken(&one.outcome)).map(|one| one.id);
    ids.map(|id| format!("r{id}.{round}@b.example")).collect()
}

fn config(lmtp: bool, chunking: bool, pipeline: usize) -> Config {
    let mut config = Config::new("relay.example");
    config.protocol = if lmtp { Protocol::Lmtp } else { Protocol::Smtp };
    config.transfer = if chunking { Transfer::Chunking } else { Transfer::Data };
    config.limits.pipeline = pipeline;
    config
}

const OFFERS: [&str; 4] = [
    "250 mx",
    "250-mx\r\n250 PIPELINING",
    "250-mx\r\n250 CHUNKING",
    "250-mx\r\n250-PIPELINING\r\n250 CHUNKING",
];

proptest! {
    #[test]
    fn what_is_called_delivered_is_what_the_server_took(
        lmtp in any::<bool>(),
        chunking in any::<bool>(),
        offers in prop::sample::select(&OFFERS[..]),
        pipeline in 1..8_usize,
        cut in 1..40_usize,
        dice in prop::collection::vec(0..10_u8, 0..60),
        rounds in prop::collection::vec(round(), 1..4),
    ) {
        let mut server = Server::new(lmtp, offers, dice);
        let mut host = Host::new(config(lmtp, chunking, pipeline));
        host.talk(&mut server, cut);
        for (number, round) in rounds.iter().enumerate() {
            if !host.session.is_ready() {
                break;
            }
            let mut message: Vec<u8> = round.lines.join("\r\n").into_bytes();
            host.pieces = pieces(&message, &round.cuts);
            server.taken.clear();
            host.session.send(transaction(round.recipients, number), host.now).unwrap();
            host.talk(&mut server, cut);
            prop_assert_eq!(host.deliveries.len(), number + 1, "one Done for each send");
            if !message.is_empty() && !message.ends_with(b"\r\n") {
                message.extend_from_slice(b"\r\n");
            }
            let taken: Vec<String> = server.taken.iter().map(|(path, _)| path.clone()).collect();
            prop_assert_eq!(delivered(&host.deliveries[number], number), taken);
            prop_assert!(server.taken.iter().all(|(_, bytes)| *bytes == message), "bytes differ");
            let ids: Vec<u32> = host.deliveries[number].recipients.iter().map(|one| one.id).collect();
            prop_assert_eq!(ids, (0..round.recipients).collect::<Vec<_>>());
            prop_assert_eq!(host.ready + host.closed, number + 2, "Ready or Closed follows");
        }
        if host.session.is_ready() {
            host.session.quit(host.now);
            host.talk(&mut server, cut);
        }
        prop_assert_eq!(host.closed, 1);
    }
}

#[derive(Debug, Clone)]
enum Noise {
    Bytes(Vec<u8>),
    Reply(u16, String),
    Send(u32),
    Body(usize),
    End,
    Tls,
    Quit,
    Pass(u64),
    Lost,
}

fn noise() -> impl Strategy<Value = Noise> {
    let codes =
        prop::sample::select(vec![220_u16, 235, 250, 250, 250, 334, 354, 354, 421, 450, 503, 550, 552, 999]);
    let texts = prop::sample::select(vec!["ok", "mx\r\n250-PIPELINING\r\n250-STARTTLS\r\n250 CHUNKING", ""]);
    prop_oneof![
        2 => prop::collection::vec(any::<u8>(), 0..60).prop_map(Noise::Bytes),
        20 => (codes, texts).prop_map(|(code, text)| Noise::Reply(code, text.to_owned())),
        5 => (0..4_u32).prop_map(Noise::Send),
        5 => (0..70_000_usize).prop_map(Noise::Body),
        3 => Just(Noise::End),
        3 => Just(Noise::Tls),
        1 => Just(Noise::Quit),
        1 => (0..400_u64).prop_map(Noise::Pass),
        1 => Just(Noise::Lost),
    ]
}

fn make_noise(session: &mut Session, now: &mut Instant, noise: &Noise) -> Option<u32> {
    match noise {
        Noise::Bytes(bytes) => session.receive(bytes, *now),
        Noise::Reply(code, text) => {
            let separator = if text.contains('\n') { '-' } else { ' ' };
            session.receive(format!("{code}{separator}{text}\r\n").as_bytes(), *now);
        }
        Noise::Send(count) => {
            return session.send(transaction(*count, 0), *now).is_ok().then_some(*count);
        }
        Noise::Body(len) => session.body(Bytes::from(vec![b'.'; *len]), *now),
        Noise::End => session.end_of_body(*now),
        Noise::Tls => session.tls_started(Channel::Tls, *now),
        Noise::Quit => session.quit(*now),
        Noise::Pass(seconds) => {
            *now += Duration::from_secs(*seconds);
            session.handle_timeout(*now);
        }
        Noise::Lost => session.connection_lost(),
    }
    None
}

proptest! {
    #[test]
    fn noise_costs_the_session_and_nothing_else(chunking in any::<bool>(), acts in prop::collection::vec(noise(), 1..80)) {
        let mut now = Instant::now();
        let mut session = Session::new(config(false, chunking, 5), now);
        let (mut owed, mut asked, mut closed) = (VecDeque::new(), 0, 0);
        // The session must end as well if the acts leave it open.
        for act in acts.iter().chain([&Noise::Lost]) {
            // This host keeps to the contract: it passes a piece when it is asked for one.
            if matches!(act, Noise::Body(_) | Noise::End) {
                if asked == 0 {
                    continue;
                }
                asked -= 1;
            }
            owed.extend(make_noise(&mut session, &mut now, act));
            let waiting: usize = std::iter::from_fn(|| session.poll_transmit()).map(|piece| piece.len()).sum();
            prop_assert!(waiting < 65_536 + 2 * 70_000 + 1_000, "{} octets waited", waiting);
            while let Some(event) = session.poll_event() {
                prop_assert_eq!(closed, 0, "{:?} after the end", event);
                match event {
                    Event::NeedBody => asked += 1,
                    Event::Closed(_) => closed += 1,
                    Event::Done(delivery) => {
                        let count: u32 = owed.pop_front().expect("a Done without a send");
                        let ids: Vec<u32> = delivery.recipients.iter().map(|one| one.id).collect();
                        prop_assert_eq!(ids, (0..count).collect::<Vec<_>>());
                        asked = 0;
                    }
                    Event::Ready => prop_assert!(owed.is_empty()),
                    Event::StartTls => {}
                }
            }
            prop_assert!(asked <= 1, "asked twice for one piece");
        }
        prop_assert!(owed.is_empty(), "{:?} never came back", owed);
        prop_assert_eq!(closed, 1);
    }
}
