//! What a host relies on apart from the dialogue: how replies and bodies are returned, and how much memory a session
//! holds.

#![allow(clippy::unwrap_used, reason = "a broken promise is a failed test")]

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use pintle_mail::{EnhancedCode, Reply};
use pintle_smtp::Extension;
use pintle_smtp::server::{Closed, Config, Event, HostAnswer, Question, Session, Start};

/// A session after EHLO, whose host accepts everything.
struct Yes {
    session: Session<&'static str>,
    now: Instant,
    bodies: Vec<Bytes>,
}

impl Yes {
    fn new(config: Config) -> Self {
        let now = Instant::now();
        let session = Session::new(Arc::new(config), Start::default(), now);
        let mut yes = Self { session, now, bodies: Vec::new() };
        yes.agree();
        yes.feed(b"EHLO client.example\r\n");
        yes.session.poll_transmit();
        yes
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.session.receive(bytes, self.now);
        self.agree();
    }

    fn agree(&mut self) {
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Ask(Question::Message(_)) => {
                    let (receipt, reply) = ("R", None);
                    self.session.answer(HostAnswer::Accepted { receipt, reply }, self.now);
                }
                Event::Ask(_) => self.session.answer(HostAnswer::Accept(None), self.now),
                Event::Body(bytes) => self.bodies.push(bytes),
                _ => {}
            }
        }
    }
}

#[test]
fn a_pipelined_group_is_answered_in_one_piece() {
    let mut yes = Yes::new(Config::default());
    yes.feed(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nRCPT TO:<e@f.example>\r\nDATA\r\n");
    let sent = yes.session.poll_transmit().unwrap();
    assert_eq!(sent.split(|byte| *byte == b'\n').count(), 5, "four replies and the end");
    assert_eq!(yes.session.poll_transmit(), None);
}

#[test]
fn clean_content_is_handed_on_as_it_was_read() {
    let mut yes = Yes::new(Config::default());
    yes.feed(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n");
    yes.feed(b"A: 1\r\n\r\n");
    for _ in 0..3 {
        yes.feed("0123456789\r\n".repeat(1_000).as_bytes());
    }
    let sizes: Vec<_> = yes.bodies.iter().map(Bytes::len).collect();
    assert_eq!(sizes, [12_000; 3], "one piece a read");
    assert_eq!(yes.session.buffered(), 0, "a body is not held");
}

/// A host must not begin a TLS handshake, or decide about a command, after it has ended the session.
#[test]
fn a_dismissed_session_asks_for_nothing_more() {
    let reply = || Reply::new(421, EnhancedCode(4, 7, 0), "Enough");
    for pipelined in [&b"EHLO client.example\r\nSTARTTLS\r\n"[..], b"EHLO client.example\r\nMAIL FROM:<>\r\n"]
    {
        let mut yes = Yes::new(Config::default().with(Extension::StartTls));
        yes.session.receive(pipelined, yes.now);
        assert!(matches!(yes.session.poll_event(), Some(Event::Ask(Question::Hello(_)))));
        yes.session.answer(HostAnswer::Accept(None), yes.now);
        yes.session.dismiss(reply(), yes.now);
        assert_eq!(yes.session.poll_event(), Some(Event::Closed(Closed::Host)));
        let sent = yes.session.poll_transmit().unwrap();
        assert!(sent.ends_with(b"421 4.7.0 Enough\r\n"), "{sent:?}");
    }
}

#[test]
fn an_idle_session_is_small() {
    assert!(size_of::<Session<String>>() <= 1_024, "{}", size_of::<Session<String>>());
}

#[test]
fn a_session_does_not_show_passwords() {
    let mut config = Config::default().with(Extension::Auth);
    config.auth.without_tls = true;
    let mut yes = Yes::new(config);
    // The credentials must not be printed, neither while they are unread input nor while they are an open question.
    for piece in [&b"AUTH PLAIN AGFsaWNlAGh1bnRlcjI="[..], b"\r\n"] {
        yes.session.receive(piece, yes.now);
        let shown = format!("{:?}", yes.session);
        assert!(!shown.contains("hunter2") && !shown.contains("AGFsaWNl"), "{shown}");
    }
    let asked = yes.session.poll_event();
    assert!(format!("{asked:?}").contains("alice") && !format!("{asked:?}").contains("hunter2"));
}
