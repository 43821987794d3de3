//! The server side: one SMTP session as a value (RFC 5321), without sockets, clock or runtime.
//!
//! The host passes in bytes, the current time and its decisions; the session returns bytes, events and a deadline. The
//! loop of a host:
//!
//! 1. process [`Session::poll_event`] until it is `None`, calling [`Session::answer`] for each [`Event::Ask`];
//! 2. send what [`Session::poll_transmit`] returns (also before waiting for anything slow);
//! 3. after [`Event::Closed`], close the socket; after [`Event::StartTls`], do the TLS handshake;
//! 4. wait for bytes while [`Session::wants_read`], or for [`Session::poll_timeout`], and go to 1.
//!
//! Guarantees: no 250 for a message, or for one of its recipients, without a receipt of the host's type `R` (or
//! [`HostAnswer::Discard`] or [`HostAnswer::DiscardExcept`]); one final reply to each command, in order, pipelined or not (with PRDR, also one for each
//! recipient at the end of data); memory bounded by [`config::Limits`] whatever the client sends;
//! only `CRLF . CRLF` ends DATA. The host decides which mail is accepted from whom.

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
mod prdr;
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

/// What the host knows about a connection when it is accepted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Start {
    /// Appended to every 4xx and 5xx reply as `(session ID)`, so that the client's operator can quote it to ours.
    pub session_id: Option<String>,
    /// Whether TLS is active from the first byte.
    pub tls: bool,
    /// The client's identity, if the host knows it without AUTH.
    pub identity: Option<String>,
}

/// One SMTP session with a client. `R` is the receipt of a durable commit; the session only prints it.
pub struct Session<R> {
    core: Core,
    state: SessionState,
    deadline: Option<Instant>,
    receipt: PhantomData<fn(R)>,
}

impl<R: fmt::Display> Session<R> {
    /// Begins a session, which first asks [`Question::Connect`].
    #[must_use]
    pub fn new(config: Arc<Config>, start: Start, now: Instant) -> Self {
        let mut core = Core::new(config, start, now);
        core.ask(Question::Connect);
        Self { core, state: Connecting::default().into(), deadline: None, receipt: PhantomData }
    }

    /// Processes bytes from the client. Pass one read at a time, and only while [`Session::wants_read`]. Passing bytes
    /// before the greeting is how early talkers are detected.
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

    /// Answers the open question and processes the input that has already arrived.
    pub fn answer(&mut self, answer: HostAnswer<R>, now: Instant) {
        self.core.now = now;
        self.state = self.take_state().ruled(AnswerKind::from(answer), &mut self.core);
        self.run();
    }

    /// Returns all bytes to send to the client, if there are any. The replies to one read come as one piece.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        self.core.take_output()
    }

    /// Returns the next event, if there is one.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.core.events.pop_front()
    }

    /// Returns when [`Session::handle_timeout`] must be called; `None` while a question is open.
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

    /// Whether the host should read from the socket: no question is open, no handshake is pending, the session has not
    /// ended, and all events have been polled.
    #[must_use]
    pub fn wants_read(&self) -> bool {
        !self.core.eof
            && self.core.events.is_empty()
            && matches!(self.state.turn(), WhoseMove::Command | WhoseMove::Content)
    }

    /// Octets from the client that are held in memory: input not yet processed, and an incomplete header. At most
    /// [`config::Limits::input`] and [`config::Limits::header`], plus one read each.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.core.input.len() + self.state.held()
    }

    /// Reports that the handshake after [`Event::StartTls`] succeeded. The session starts over (RFC 3207 section 4.2);
    /// what the host knows about the client, including a login, is void.
    pub fn tls_started(&mut self, now: Instant) {
        self.handshake_over(now, state::Handshake::succeeded);
    }

    /// Reports that the handshake after [`Event::StartTls`] failed; the session is over.
    pub fn tls_failed(&mut self, now: Instant) {
        self.handshake_over(now, state::Handshake::failed);
    }

    /// Reports that the client will send no more. Pending input is still processed; [`Event::Closed`] follows when that
    /// is done.
    pub fn peer_closed(&mut self, now: Instant) {
        self.core.now = now;
        self.core.eof = true;
        self.run();
    }

    /// Closes the session with 421 as soon as no transaction is open (RFC 5321 section 3.8).
    pub fn shutdown(&mut self, now: Instant) {
        self.drain((replies::SHUTDOWN, Closed::Shutdown), now);
    }

    /// Like [`Self::shutdown`], with this reply, for a reason of the host's own. A reply that is not 4xx or 5xx becomes
    /// a 421.
    pub fn retire(&mut self, reply: Reply, now: Instant) {
        self.drain((replies::negative(reply, &replies::CLOSING), Closed::Host), now);
    }

    /// Closes the session with 421 at once. An open question need not be answered any more.
    pub fn abort(&mut self, now: Instant) {
        self.end((replies::SHUTDOWN, Closed::Shutdown), now);
    }

    /// Like [`Self::abort`], with this reply, for a reason of the host's own. A reply that is not 4xx or 5xx becomes a
    /// 421.
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

    /// Processes the input until the client or the host must act.
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

    /// Sets the deadline again if the client has made progress.
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
            // `None` sorts first, so a plain min would give "never" if only one of them is set.
            self.deadline = [next, last].into_iter().flatten().min();
        }
    }
}

/// Buffers and events are omitted, because AUTH exchanges pass through them.
impl<R> fmt::Debug for Session<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("state", &self.state)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}
