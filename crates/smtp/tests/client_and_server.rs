//! The client session against the server session, in memory: whatever envelope and message the client sends, the server
//! receives exactly that, byte by byte, and what the server decides is what the client reports.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use pintle_mail::{
    Address, BodyType, Charset, EnhancedCode, Envelope, MailParams, Notify, RcptParams, Recipient, Reply,
    Return, ReversePath, TlsPolicy,
};
use pintle_smtp::Extension;
use pintle_smtp::client::{self, ContentClass, Delivery, ReplyOutcome, Transaction, Transfer};
use pintle_smtp::server::{self, HostAnswer, Question, Sequence, SessionFault};
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// Two sessions and the wire between them; `cut` is the number of octets that travel at once.
struct Pair {
    now: Instant,
    client: client::Session,
    server: server::Session<&'static str>,
    cut: usize,
    pieces: VecDeque<Bytes>,
    /// Random decisions of the server's host: one for each sender, recipient and message.
    dice: VecDeque<u8>,
    ready: usize,
    deliveries: Vec<Delivery>,
    client_end: Option<client::Closed>,
    server_end: Option<server::Closed>,
    seen: Seen,
}

/// What the server's host received in the last transaction.
#[derive(Debug, Default)]
struct Seen {
    sender: Option<(ReversePath, MailParams)>,
    recipients: Vec<Recipient>,
    accepted: Vec<u32>,
    message: Vec<u8>,
    taken: bool,
}

impl Pair {
    fn new(client: client::Config, server: server::Config, cut: usize, dice: Vec<u8>) -> Self {
        let now = Instant::now();
        Self {
            now,
            client: client::Session::new(client, now),
            server: server::Session::new(Arc::new(server), server::Start::default(), now),
            cut,
            pieces: VecDeque::new(),
            dice: dice.into(),
            ready: 0,
            deliveries: Vec::new(),
            client_end: None,
            server_end: None,
            seen: Seen::default(),
        }
    }

    /// Runs both sessions until both wait.
    fn settle(&mut self) {
        loop {
            self.client_events();
            self.server_events();
            let mut moved = false;
            while let Some(bytes) = self.client.poll_transmit() {
                moved = true;
                for piece in bytes.chunks(self.cut) {
                    self.server.receive(piece, self.now);
                    self.server_events();
                }
                self.client_events();
            }
            while let Some(bytes) = self.server.poll_transmit() {
                moved = true;
                for piece in bytes.chunks(self.cut) {
                    self.client.receive(piece, self.now);
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn client_events(&mut self) {
        while let Some(event) = self.client.poll_event() {
            match event {
                client::Event::Ready => self.ready += 1,
                client::Event::StartTls => self.client.tls_started(client::Channel::Tls, self.now),
                client::Event::NeedBody => match self.pieces.pop_front() {
                    Some(piece) => self.client.body(piece, self.now),
                    None => self.client.end_of_body(self.now),
                },
                client::Event::Done(delivery) => self.deliveries.push(delivery),
                client::Event::Closed(why) => self.client_end = Some(why),
            }
        }
    }

    fn server_events(&mut self) {
        while let Some(event) = self.server.poll_event() {
            match event {
                server::Event::Ask(question) => {
                    let answer = self.decide(question);
                    self.server.answer(answer, self.now);
                }
                server::Event::Body(bytes) => self.seen.message.extend_from_slice(&bytes),
                server::Event::StartTls => self.server.tls_started(self.now),
                server::Event::Reset => {}
                // RFC 2920 section 3.1: commands that were pipelined after a refused one are out of sequence, which is
                // no one's fault.
                server::Event::Fault(SessionFault::Sequence(
                    Sequence::MailFirst | Sequence::RecipientFirst | Sequence::NoRecipients,
                )) => {}
                server::Event::Fault(fault) => panic!("the client made a fault: {fault:?}"),
                server::Event::Closed(why) => self.server_end = Some(why),
            }
        }
    }

    fn decide(&mut self, question: Question) -> HostAnswer<&'static str> {
        match question {
            Question::Connect | Question::Hello(_) => HostAnswer::Accept(None),
            Question::Auth(credentials) => HostAnswer::Granted { identity: credentials.username },
            Question::Sender(sender) => {
                self.seen = Seen { sender: Some((sender.path, sender.params)), ..Seen::default() };
                self.verdict()
            }
            Question::Recipient(recipient) => {
                let answer = self.verdict();
                if matches!(answer, HostAnswer::Accept(_)) {
                    self.seen.accepted.push(recipient.id);
                }
                self.seen.recipients.push(recipient);
                answer
            }
            Question::Data => HostAnswer::Accept(None),
            Question::Headers(headers) => {
                self.seen.message.extend_from_slice(&headers.header);
                if headers.separated {
                    self.seen.message.extend_from_slice(b"\r\n");
                }
                HostAnswer::Accept(None)
            }
            Question::Message(_) => match self.verdict() {
                HostAnswer::Accept(_) => {
                    self.seen.taken = true;
                    HostAnswer::Accepted { receipt: "R1", reply: None }
                }
                other => other,
            },
        }
    }

    fn verdict(&mut self) -> HostAnswer<&'static str> {
        match self.dice.pop_front().unwrap_or(0) {
            0..=7 => HostAnswer::Accept(None),
            8 => HostAnswer::Refuse(Reply::new(451, EnhancedCode(4, 7, 1), "later")),
            _ => HostAnswer::Refuse(Reply::new(550, EnhancedCode(5, 7, 1), "never")),
        }
    }
}

#[derive(Debug, Clone)]
struct Letter {
    transaction: Transaction,
    message: Vec<u8>,
    cuts: Vec<Index>,
}

fn address() -> impl Strategy<Value = Address> {
    let local = prop_oneof![
        "[a-z0-9!#$%&'*+/=?^_`{|}~-]{1,10}(\\.[a-z]{1,5})?",
        "\"[ -!#-\\[\\]-~]{0,10}\"",
        "\"(\\\\[ -~]){1,4}\"",
        "[a-zäöüßλ字]{1,6}",
    ];
    let domain =
        select(vec!["b.example", "B.Example", "[192.0.2.7]", "[IPv6:2001:db8::1]", "bücher.example"]);
    (local, domain)
        .prop_map(|(local, domain)| Address::parse(&format!("{local}@{domain}"), Charset::Utf8).unwrap())
}

fn rcpt_params() -> impl Strategy<Value = RcptParams> {
    let notify = (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(success, failure, delay)| Notify {
        success,
        failure,
        delay,
    });
    let orcpt = prop::option::of("rfc822;[a-z]{1,5}@[a-z]{1,5}\\.example");
    (prop::option::of(notify), orcpt).prop_map(|(notify, orcpt)| RcptParams {
        notify,
        orcpt,
        other: Vec::new(),
    })
}

fn envelope() -> impl Strategy<Value = Envelope> {
    let sender = prop_oneof![
        1 => Just(ReversePath::Null),
        4 => address().prop_map(ReversePath::Address),
    ];
    let ret = prop::option::of(select(vec![Return::Full, Return::Headers]));
    let params = (ret, prop::option::of("[A-Za-z0-9.]{1,20}"), any::<bool>(), any::<bool>());
    let recipients = prop::collection::vec((address(), rcpt_params()), 1..6);
    (sender, params, recipients).prop_map(|(sender, (ret, envid, smtputf8, prdr), recipients)| Envelope {
        sender,
        params: MailParams { ret, envid, smtputf8, prdr, ..MailParams::default() },
        recipients: (0..)
            .zip(recipients)
            .map(|(id, (address, params))| Recipient { params, ..Recipient::new(id, address) })
            .collect(),
    })
}

fn line() -> impl Strategy<Value = Vec<u8>> {
    let octet = any::<u8>().prop_map(|byte| if matches!(byte, b'\r' | b'\n' | 0) { b'.' } else { byte });
    prop_oneof![
        "[.]{0,3}[ -~]{0,30}".prop_map(String::into_bytes),
        prop::collection::vec(octet, 0..60),
        (0..3_usize).prop_map(|dots| b".".repeat(dots)),
        (60..3_000_usize).prop_map(|len| b"x".repeat(len)),
    ]
}

fn letter() -> impl Strategy<Value = Letter> {
    let fields = prop::collection::vec("X-[A-Za-z]{1,8}: [ -~äö]{0,30}", 1..4);
    let body = prop::option::of(prop::collection::vec(line(), 0..30));
    let cuts = prop::collection::vec(any::<Index>(), 0..6);
    (envelope(), fields, body, cuts).prop_map(|(envelope, fields, body, cuts)| {
        let mut message = Vec::new();
        for field in &fields {
            message.extend_from_slice(field.as_bytes());
            message.extend_from_slice(b"\r\n");
        }
        let header = message.len();
        for line in
            body.iter().flat_map(|lines| std::iter::once(&[][..]).chain(lines.iter().map(Vec::as_slice)))
        {
            message.extend_from_slice(line);
            message.extend_from_slice(b"\r\n");
        }
        let content = match (message[..header].is_ascii(), message.is_ascii()) {
            (false, _) => ContentClass::EightBitHeader,
            (true, false) => ContentClass::EightBitBody,
            (true, true) => ContentClass::SevenBit,
        };
        let size = message.len() as u64;
        Letter { transaction: Transaction { envelope, size, content }, message, cuts }
    })
}

fn pieces(message: &[u8], cuts: &[Index]) -> VecDeque<Bytes> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(message.len() + 1)).collect();
    ends.push(message.len());
    ends.sort_unstable();
    let starts = std::iter::once(0).chain(ends.iter().copied());
    starts.zip(&ends).map(|(start, end)| Bytes::copy_from_slice(&message[start..*end])).collect()
}

/// The parameters of MAIL that the server must have received.
fn expected_params(transaction: &Transaction) -> MailParams {
    let envelope = &transaction.envelope;
    let utf8_header = envelope.params.smtputf8 && transaction.content == ContentClass::EightBitHeader;
    let utf8_sender = envelope.sender.address().is_some_and(|address| address.needs_smtputf8());
    let utf8_recipient = envelope.recipients.iter().any(|recipient| recipient.address.needs_smtputf8());
    MailParams {
        size: Some(transaction.size),
        body: match transaction.content {
            ContentClass::SevenBit => BodyType::SevenBit,
            ContentClass::EightBitBody | ContentClass::EightBitHeader => BodyType::EightBitMime,
        },
        smtputf8: utf8_header || utf8_sender || utf8_recipient,
        // What a client of ours requested for its own session is not requested from the next hop.
        prdr: false,
        ..envelope.params.clone()
    }
}

/// The address as it is sent in this transaction: without SMTPUTF8, its domain is written in A-labels.
fn as_sent(address: &Address, utf8: bool) -> Address {
    let ascii = address.ascii().filter(|_| !utf8);
    ascii.map_or_else(|| address.clone(), |ascii| Address::parse(&ascii, Charset::Ascii).unwrap())
}

fn check(pair: &Pair, letter: &Letter) {
    let seen = &pair.seen;
    let params = expected_params(&letter.transaction);
    let mut wanted = letter.transaction.envelope.clone();
    if let ReversePath::Address(sender) = &mut wanted.sender {
        *sender = as_sent(sender, params.smtputf8);
    }
    for recipient in &mut wanted.recipients {
        recipient.address = as_sent(&recipient.address, params.smtputf8);
    }
    assert_eq!(seen.sender, Some((wanted.sender.clone(), params)));
    let refused_mail = seen.recipients.is_empty();
    if !refused_mail {
        assert_eq!(seen.recipients, wanted.recipients);
    }
    if seen.taken {
        assert_eq!(seen.message, letter.message, "the bytes differ");
    }
    let delivery = pair.deliveries.last().unwrap();
    for one in &delivery.recipients {
        let expected = seen.taken && seen.accepted.contains(&one.id);
        assert_eq!(matches!(one.outcome, ReplyOutcome::Delivered(_)), expected, "{one:?}");
    }
}

fn client_config(chunking: bool, tls: bool, login: bool) -> client::Config {
    let mut config = client::Config::new("relay.example");
    config.transfer = if chunking { Transfer::Chunking } else { Transfer::Data };
    config.tls = if tls { TlsPolicy::Required } else { TlsPolicy::None };
    config.credentials = login.then(|| client::Credentials {
        over: client::Channel::Plain,
        ..client::Credentials::new("user", "password")
    });
    config
}

fn server_config(login: bool) -> server::Config {
    let mut config = server::Config::default().with(Extension::StartTls);
    if login {
        config = config.with(Extension::Auth);
        config.auth.without_tls = true;
        config.require_auth = true;
    }
    config
}

proptest! {
    #[test]
    fn what_is_sent_is_what_arrives(
        letters in prop::collection::vec(letter(), 1..4),
        chunking in any::<bool>(),
        tls in any::<bool>(),
        login in any::<bool>(),
        cut in prop_oneof![1..20_usize, Just(100_000)],
        dice in prop::collection::vec(0..10_u8, 0..20),
    ) {
        let mut pair = Pair::new(client_config(chunking, tls, login), server_config(login), cut, dice);
        pair.settle();
        prop_assert_eq!(pair.ready, 1, "{:?}", pair.client_end);
        for (number, letter) in letters.iter().enumerate() {
            pair.pieces = pieces(&letter.message, &letter.cuts);
            pair.client.send(letter.transaction.clone(), pair.now).unwrap();
            pair.settle();
            prop_assert_eq!(pair.deliveries.len(), number + 1);
            prop_assert_eq!(pair.ready, number + 2, "{:?}", pair.client_end);
            check(&pair, letter);
        }
        pair.client.quit(pair.now);
        pair.settle();
        prop_assert_eq!(pair.client_end, Some(client::Closed::Quit));
        prop_assert_eq!(pair.server_end, Some(server::Closed::Quit));
    }
}
