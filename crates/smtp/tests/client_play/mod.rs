//! Arbitrary bytes from the next hop, and arbitrary calls of a host that keeps to its contract, against the client
//! session. It never panics, returns exactly one outcome for each recipient, ends exactly once, and holds no more bytes
//! to write than were passed to it and its limits allow. Shared by the fuzz target and the test that replays its seeds.

#![allow(unreachable_pub, reason = "public to the binaries that include it, which the lint cannot see")]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pintle_mail::{Address, Charset, Envelope, MailParams, Recipient, ReversePath};
use pintle_smtp::client::{
    Channel, Config, ContentClass, Credentials, Event, Protocol, Session, Transaction, Transfer,
};

/// Plays actions: a letter and a length each, and the bytes for those that take some.
pub fn play(input: &[u8]) {
    let Some((&setting, acts)) = input.split_first() else {
        return;
    };
    let mut run = Run::new(setting);
    let mut rest = acts;
    while let [act, len, tail @ ..] = rest {
        let (bytes, tail) = tail.split_at(usize::from(*len).min(tail.len()));
        run.act(*act, bytes);
        rest = tail;
    }
    run.end();
}

struct Run {
    session: Session,
    now: Instant,
    owed: VecDeque<u32>,
    asked: bool,
    closed: bool,
}

impl Run {
    fn new(setting: u8) -> Self {
        let now = Instant::now();
        let mut config = Config::new("relay.example");
        if setting & 1 != 0 {
            config.protocol = Protocol::Lmtp;
        }
        if setting & 2 != 0 {
            config.transfer = Transfer::Chunking;
        }
        if setting & 4 != 0 {
            config.credentials =
                Some(Credentials { over: Channel::Plain, ..Credentials::new("user", "password") });
        }
        Self { session: Session::new(config, now), now, owed: VecDeque::new(), asked: false, closed: false }
    }

    fn act(&mut self, act: u8, bytes: &[u8]) {
        match act % 16 {
            0 => self.send(bytes.len() % 5),
            1 | 2 if self.asked => {
                self.asked = false;
                self.session.body(Bytes::copy_from_slice(bytes), self.now);
            }
            3 if self.asked => {
                self.asked = false;
                self.session.end_of_body(self.now);
            }
            4 => self.session.tls_started(Channel::Tls, self.now),
            5 => self.session.keep_in_step(),
            6 if bytes.len() > 200 => self.session.quit(self.now),
            7 if bytes.len() > 200 => self.session.connection_lost(),
            8 => {
                self.now += Duration::from_secs(bytes.len() as u64);
                self.session.handle_timeout(self.now);
            }
            _ => self.session.receive(bytes, self.now),
        }
        self.look();
    }

    fn send(&mut self, count: usize) {
        let recipient = |id: usize| {
            Recipient::new(
                u32::try_from(id).expect("few"),
                Address::parse("b@b.example", Charset::Ascii).expect("an address"),
            )
        };
        let transaction = Transaction {
            envelope: Envelope {
                sender: ReversePath::Null,
                params: MailParams::default(),
                recipients: (0..count).map(recipient).collect(),
            },
            size: 0,
            content: ContentClass::EightBitHeader,
        };
        if self.session.send(transaction, self.now).is_ok() {
            self.owed.push_back(u32::try_from(count).expect("few"));
        }
    }

    fn look(&mut self) {
        let waiting: usize =
            std::iter::from_fn(|| self.session.poll_transmit()).map(|piece| piece.len()).sum();
        assert!(waiting < 70_000, "{waiting} octets waited");
        while let Some(event) = self.session.poll_event() {
            assert!(!self.closed, "{event:?} after the end");
            match event {
                Event::NeedBody => {
                    assert!(!self.asked, "asked twice for one piece");
                    self.asked = true;
                }
                Event::Done(delivery) => {
                    let count = self.owed.pop_front().expect("a Done without a send");
                    assert!(delivery.recipients.iter().map(|one| one.id).eq(0..count));
                    self.asked = false;
                }
                Event::Closed(_) => self.closed = true,
                Event::Ready => assert!(self.owed.is_empty()),
                Event::StartTls => {}
            }
        }
    }

    fn end(&mut self) {
        self.session.connection_lost();
        self.look();
        assert!(self.closed && self.owed.is_empty());
    }
}
