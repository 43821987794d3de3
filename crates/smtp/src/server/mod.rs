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

use std::fmt;
use std::marker::PhantomData;
use std::mem;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use pintle_mail::Reply;

mod command;
pub mod config;
mod content;
mod event;
mod fault;
mod head;
mod offers;
mod params;
mod replies;
mod ruling;
mod sasl;
mod shared;
mod state;

use ruling::AnswerKind;
use shared::Core;
use state::{Advance, Connecting, SessionState, WhoseMove};

pub use config::Config;
pub use event::{Closed, Event, Headers, Hello, HelloVerb, HostAnswer, MessageCounts, Question, Sender};
pub use fault::{FaultLevel, FaultOwner, Misuse, OtherProtocol, Sequence, SessionFault, Syntax};
pub use head::split_message;
pub use offers::{OfferError, Offers, SaslMechanism, SaslMechanisms};
pub use sasl::{Password, SaslCredentials};

/// What the host knows when a connection comes in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Start {
    /// Stands in every 4xx and 5xx as `(session ID)`, so that the peer's operator can name it to ours.
    pub session_id: Option<String>,
    /// TLS is on from the first byte.
    pub tls: bool,
    /// Who the client is, where the host knows that without AUTH.
    pub identity: Option<String>,
}

/// One session. `R` is the receipt of a durable commit; the machine only ever prints it.
pub struct Session<R> {
    core: Core,
    state: SessionState,
    deadline: Option<Instant>,
    receipt: PhantomData<fn(R)>,
}

impl<R: fmt::Display> Session<R> {
    /// A session that begins by asking [`Question::Connect`].
    #[must_use]
    pub fn new(config: Arc<Config>, start: Start, now: Instant) -> Self {
        let mut core = Core::new(config, start, now);
        core.ask(Question::Connect);
        Self { core, state: Connecting::default().into(), deadline: None, receipt: PhantomData }
    }

    /// Takes bytes from the peer. Feed a read's worth at a time, and only while [`Session::wants_read`]; feeding before
    /// the greeting is how early talkers are found.
    pub fn receive(&mut self, bytes: &[u8], now: Instant) {
        self.core.now = now;
        match &mut self.state {
            SessionState::Closed => return,
            SessionState::Connecting(connecting) if !bytes.is_empty() => {
                connecting.early_talk(&mut self.core)
            }
            _ => {}
        }
        let held = self.core.input.len() + bytes.len();
        if self.state.turn() == WhoseMove::Host && held > self.core.config.limits.input {
            self.state = self.core.fail(SessionFault::HostMisuse(Misuse::Overfed));
        } else {
            self.core.input.extend_from_slice(bytes);
        }
        self.run();
    }

    /// Answers the open question and works on what is already here.
    pub fn answer(&mut self, answer: HostAnswer<R>, now: Instant) {
        self.core.now = now;
        self.state = self.take_state().ruled(AnswerKind::from(answer), &mut self.core);
        self.run();
    }

    /// Bytes for the peer, all that there are. Everything that one read caused comes as one piece.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        self.core.take_output()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.core.events.pop_front()
    }

    /// When [`Session::handle_timeout`] wants to be called; none while a question is open.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// Ends the session with 421 if its deadline has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.core.now = now;
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            self.state = self.core.fail(SessionFault::Timeout);
            self.run();
        }
    }

    /// Whether the host should read from the socket: no question is open, no handshake is due, the session lives, and
    /// all events are polled.
    #[must_use]
    pub fn wants_read(&self) -> bool {
        !self.core.eof
            && self.core.events.is_empty()
            && matches!(self.state.turn(), WhoseMove::Command | WhoseMove::Content)
    }

    /// Octets of the peer that are held in memory: input not worked on yet, and a header that is not complete. At most
    /// [`config::Limits::input`] and [`config::Limits::header`], and one read each beyond.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.core.input.len() + self.state.held()
    }

    /// Who authenticated.
    #[must_use]
    pub fn identity(&self) -> Option<&str> {
        self.core.identity.as_deref()
    }

    /// Whether the session is encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.core.tls
    }

    /// The handshake after [`Event::StartTls`] succeeded; the session begins anew (RFC 3207 section 4.2). What the host
    /// knows of it, a login included, is void.
    pub fn tls_started(&mut self, now: Instant) {
        self.handshake_over(now, state::Handshake::succeeded);
    }

    /// The handshake after [`Event::StartTls`] failed; the session is over.
    pub fn tls_failed(&mut self, now: Instant) {
        self.handshake_over(now, state::Handshake::failed);
    }

    /// The peer will send no more. What it has sent is still worked on; [`Event::Closed`] follows when that is done.
    pub fn peer_closed(&mut self, now: Instant) {
        self.core.now = now;
        self.core.eof = true;
        self.run();
    }

    /// Drain: 421 as soon as no transaction is open (RFC 5321 section 3.8).
    pub fn shutdown(&mut self, now: Instant) {
        self.drain((replies::SHUTDOWN, Closed::Shutdown), now);
    }

    /// The same for a reason of the host's own, told by this reply. One that is no refusal becomes a 421.
    pub fn retire(&mut self, reply: Reply, now: Instant) {
        self.drain((replies::negative(reply, &replies::CLOSING), Closed::Host), now);
    }

    /// 421 and the end, now, whatever is going on. An open question need not be answered any more.
    pub fn abort(&mut self, now: Instant) {
        self.end((replies::SHUTDOWN, Closed::Shutdown), now);
    }

    /// The same for a reason of the host's own, told by this reply. One that is no refusal becomes a 421.
    pub fn dismiss(&mut self, reply: Reply, now: Instant) {
        self.end((replies::negative(reply, &replies::CLOSING), Closed::Host), now);
    }

    fn drain(&mut self, how: (Reply, Closed), now: Instant) {
        self.core.now = now;
        self.core.draining = Some(how);
        self.run();
    }

    fn end(&mut self, (reply, why): (Reply, Closed), now: Instant) {
        self.core.now = now;
        if !matches!(self.state, SessionState::Closed) {
            self.state = self.core.close(Some(reply), why);
        }
        self.run();
    }

    fn handshake_over(
        &mut self,
        now: Instant,
        result: impl FnOnce(state::Handshake, &mut Core) -> SessionState,
    ) {
        self.core.now = now;
        self.state = match self.take_state() {
            SessionState::Handshake(handshake) => result(handshake, &mut self.core),
            SessionState::Closed => SessionState::Closed,
            _ => self.core.fail(SessionFault::HostMisuse(Misuse::NoHandshake)),
        };
        self.run();
    }

    fn take_state(&mut self) -> SessionState {
        mem::replace(&mut self.state, SessionState::Closed)
    }

    /// Works on the input until somebody else is needed.
    fn run(&mut self) {
        loop {
            match self.take_state().advance(&mut self.core) {
                Advance::Again(state) => self.state = state,
                Advance::Wait(state) => {
                    self.state = state;
                    break;
                }
            }
        }
        if self.core.eof && !matches!(self.state.turn(), WhoseMove::Host | WhoseMove::Over) {
            self.state = self.core.close(None, Closed::Peer);
        }
        self.core.shrink();
        self.schedule();
    }

    /// Sets the deadline anew where the peer has earned one.
    fn schedule(&mut self) {
        let timeouts = &self.core.config.timeouts;
        let wait = match self.state.turn() {
            WhoseMove::Command => timeouts.command,
            WhoseMove::Content => timeouts.data,
            WhoseMove::Host | WhoseMove::Handshake | WhoseMove::Over => {
                self.deadline = None;
                return;
            }
        };
        if mem::take(&mut self.core.progress) || self.deadline.is_none() {
            let next = self.core.now.checked_add(wait);
            let last = self.state.deadline();
            // None sorts first, so that min would mean "never" where one of them is set.
            self.deadline = [next, last].into_iter().flatten().min();
        }
    }
}

/// Buffers and events stay out: an AUTH exchange passes through them.
impl<R> fmt::Debug for Session<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("state", &self.state)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}
