//! The server machine: one SMTP session as a value (RFC 5321), without sockets, clock or runtime.
//!
//! The host brings bytes, the time and its decisions; the machine gives bytes, events and a deadline. A host's loop:
//!
//! 1. work on [`Session::poll_event`] until it is `None`, calling [`Session::answer`] for each [`Event::Ask`];
//! 2. send what [`Session::poll_transmit`] gives (before waiting for anything slow, too);
//! 3. after [`Event::Closed`], close the socket; after [`Event::StartTls`], shake hands;
//! 4. wait for bytes while [`Session::wants_read`], or for [`Session::poll_timeout`], and go to 1.
//!
//! It promises: no 250 for a message without a receipt of the host's type `R` (or [`Answer::Discard`]); one final reply
//! to each command, in order; memory bounded by [`config::Limits`] whatever the peer sends; only `CRLF . CRLF` ends DATA.
//! What is accepted from whom is left to the host.

use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

pub mod config;
mod event;
mod fault;
mod offers;
mod sasl;

pub use config::Config;
pub use event::{Answer, Closed, Event, Headers, Hello, HelloVerb, Message, Question, Sender};
pub use fault::{Fault, Level, Misuse, OtherProtocol, Owner, Sequence, Syntax};
pub use offers::{Extension, Extensions, Mechanism, Mechanisms, OfferError, Offers};
pub use sasl::{Credentials, Password};

/// What the host knows when a connection comes in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Start {
    /// Stands in every 4xx and 5xx as `(session ID)`, so that the peer's operator can name it to ours.
    pub session_id: Option<String>,
    /// TLS is on from the first byte.
    pub tls: bool,
}

/// One session. `R` is the receipt of a durable commit; the machine only ever prints it.
#[derive(Debug)]
pub struct Session<R> {
    config: Arc<Config>,
    start: Start,
    input: BytesMut,
    output: BytesMut,
    events: VecDeque<Event>,
    deadline: Option<Instant>,
    receipt: PhantomData<fn(R)>,
}

impl<R: fmt::Display> Session<R> {
    /// A session that begins by asking [`Question::Connect`].
    #[must_use]
    pub fn new(config: Arc<Config>, start: Start, now: Instant) -> Self {
        Self {
            deadline: now.checked_add(config.timeouts.command),
            config,
            start,
            input: BytesMut::new(),
            output: BytesMut::new(),
            events: VecDeque::from([Event::Ask(Question::Connect)]),
            receipt: PhantomData,
        }
    }

    /// Takes bytes from the peer. Feed a read's worth at a time, and only while [`Session::wants_read`]; feeding before
    /// the greeting is how early talkers are found.
    pub fn receive(&mut self, bytes: &[u8], now: Instant) {
        self.input.extend_from_slice(bytes);
        self.deadline = now.checked_add(self.config.timeouts.command);
    }

    /// Answers the open question and works on what is already here.
    pub fn answer(&mut self, answer: Answer<R>, now: Instant) {
        let _ = (answer, now);
    }

    /// Bytes for the peer, all that there are. Everything that one read caused comes as one piece.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        (!self.output.is_empty()).then(|| self.output.split().freeze())
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Session::handle_timeout`] wants to be called; none while a question is open.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// The deadline may have passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
    }

    /// Whether the host should read from the socket: no question is open, no handshake is due, the session lives.
    #[must_use]
    pub fn wants_read(&self) -> bool {
        self.events.is_empty()
    }

    /// The handshake after [`Event::StartTls`] succeeded; the session begins anew (RFC 3207 section 4.2).
    pub fn tls_started(&mut self, now: Instant) {
        self.start.tls = true;
        let _ = now;
    }

    /// The handshake after [`Event::StartTls`] failed.
    pub fn tls_failed(&mut self, now: Instant) {
        let _ = now;
    }

    /// The peer will send no more. What it has sent is still worked on; [`Event::Closed`] follows when that is done.
    pub fn peer_closed(&mut self, now: Instant) {
        let _ = now;
    }

    /// Drain: 421 as soon as no transaction is open (RFC 5321 section 3.8).
    pub fn shutdown(&mut self, now: Instant) {
        let _ = now;
    }

    /// 421 and the end, now, whatever is going on.
    pub fn abort(&mut self, now: Instant) {
        let _ = now;
    }
}
