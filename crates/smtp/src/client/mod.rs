//! The client side: one session with one next hop, in SMTP (RFC 5321) or LMTP (RFC 2033), without I/O.
//!
//! The host passes in bytes, requests and the current time; the session returns bytes, events and a deadline. The host
//! owns the socket:
//!
//! ```text
//! Session::new(config, now)              poll_event → Ready, StartTls, NeedBody, Done, Closed
//! receive(&bytes, now)                   bytes from the next hop; connection_lost() at their end
//! poll_transmit() → Option<Bytes>        bytes for the next hop, until None
//! poll_timeout(), handle_timeout(now)    the next deadline
//! send(transaction, now)                 after Ready; then body / end_of_body, one for each NeedBody
//! quit(now), abandon()                   between transactions; at any time
//! ```
//!
//! Guarantees: each recipient of an accepted transaction gets exactly one outcome, in one `Done`, which comes before
//! `Closed` if the session ends; whatever the next hop sends, the session neither panics nor holds more than its limits;
//! nothing received before TLS counts after it; QUIT is never pipelined after the final dot. The host is responsible for
//! names and addresses, the TLS handshake and its certificates, which message goes when, and what an outcome means for
//! the queue.

mod auth;
mod body;
mod commands;
mod config;
mod core;
mod dialogue;
mod end;
mod greeting;
mod hello;
mod idle;
mod ledger;
mod outcome;
mod peer;
mod reply_reader;
mod start_tls;
mod state;
mod stuffing;

use std::time::Instant;

use bytes::Bytes;

use self::core::Core;
use self::dialogue::Dialogue;
use self::greeting::Greeting;
use self::hello::HelloState;
use self::reply_reader::ReplyReader;
use self::state::{ClientState, SessionStop, Turn};

pub use self::config::{Channel, Config, Credentials, EightBit, Limits, Protocol, Timeouts, Transfer};
pub use self::outcome::{
    Closed, ContentClass, Delivery, DialogueStep, DsnRelay, Event, Lack, Owner, ProtocolFault,
    RecipientOutcome, ReplyOutcome, Speaker, Transaction, demands_tls, is_hop_trouble,
};
pub use self::peer::Peer;
pub use self::reply_reader::ReplyFault;

/// One session with a next hop.
#[derive(Debug)]
pub struct Session {
    core: Core,
    reader: ReplyReader,
    state: ClientState,
}

/// The session cannot take a transaction now; this returns it unchanged.
#[derive(Debug)]
pub struct NotReady(pub Box<Transaction>);

impl Session {
    /// Begins a session over a connection that has just been opened; the next hop speaks first.
    #[must_use]
    pub fn new(config: Config, now: Instant) -> Self {
        let reader = ReplyReader::new(config.limits);
        let mut core = Core::new(config);
        let state = Greeting::begin(&mut core, now);
        Self { core, reader, state }
    }

    /// Processes bytes that the next hop sent.
    pub fn receive(&mut self, mut bytes: &[u8], now: Instant) {
        while !bytes.is_empty() {
            match self.state {
                ClientState::Closed => return,
                // RFC 3207 section 6, CVE-2011-0411: plaintext must not be taken for something received under TLS.
                ClientState::Handshake => return self.fault(ProtocolFault::PlaintextAfterStartTls),
                _ => {}
            }
            match self.reader.next(&mut bytes) {
                Ok(Some(reply)) => self.turn(|state, core| state.on_reply(reply, core, now)),
                Ok(None) => {}
                Err(fault) => self.fault(ProtocolFault::Reply(fault)),
            }
        }
    }

    /// Reports that the connection ended or failed: nothing more can be read or written.
    pub fn connection_lost(&mut self) {
        let why = match self.state {
            ClientState::Quit => Closed::Quit,
            _ => Closed::Lost(self.state.step()),
        };
        self.close(why);
    }

    /// Reports that the handshake requested by [`Event::StartTls`] succeeded, with the resulting `channel`.
    pub fn tls_started(&mut self, channel: Channel, now: Instant) {
        if matches!(self.state, ClientState::Handshake) {
            self.core.channel = channel;
            // RFC 3207 section 4.2: discard everything known about the server, and send EHLO again.
            self.core.peer = Peer::default();
            self.state = HelloState::begin(&mut self.core, now);
        }
    }

    /// Sets how bodies are sent from the next transaction on.
    pub fn set_transfer(&mut self, transfer: Transfer) {
        self.core.config.transfer = transfer;
    }

    /// Stops pipelining from now on, even if the next hop offers PIPELINING: each command waits for the reply to the
    /// one before.
    pub fn keep_in_step(&mut self) {
        self.core.config.limits.pipeline = 1;
    }

    /// Begins a transaction. Exactly one [`Event::Done`] follows.
    ///
    /// # Errors
    /// Returns the transaction if the session is not ready: no [`Event::Ready`] came since the last one, or the session
    /// has ended since.
    pub fn send(&mut self, transaction: Transaction, now: Instant) -> Result<(), NotReady> {
        match &self.state {
            ClientState::Idle(idle) => {
                self.state = Dialogue::begin(transaction, idle.slate, &mut self.core, now);
                Ok(())
            }
            _ => Err(NotReady(Box::new(transaction))),
        }
    }

    /// Passes the next piece of the message, header first. Line ends must be CRLF; a piece need not end
    /// at one and may have any size (the host's choice bounds memory; 16 to 64 KiB are good). Ignored if the transaction
    /// ended in the meantime.
    pub fn body(&mut self, piece: Bytes, now: Instant) {
        if let ClientState::Body(body) = &mut self.state {
            body.take(piece, &mut self.core, now);
        }
    }

    /// Reports that the whole message has been passed.
    pub fn end_of_body(&mut self, now: Instant) {
        self.turn(|state, core| match state {
            ClientState::Body(body) => Ok(body.finish(core, now)),
            other => Ok(other),
        });
    }

    /// Ends an idle session with QUIT; [`Event::Closed`] follows. In any other state it is [`Self::abandon`].
    pub fn quit(&mut self, now: Instant) {
        if matches!(self.state, ClientState::Idle(_)) {
            let patience = self.core.config.timeouts.quit;
            self.core.command("QUIT", patience, now);
            self.state = ClientState::Quit;
        } else {
            self.abandon();
        }
    }

    /// Ends the session at once, for example when the message cannot be read. Recipients without an outcome are
    /// deferred. Nothing more is written.
    pub fn abandon(&mut self) {
        self.close(Closed::Abandoned(self.state.step()));
    }

    /// Returns the next bytes to write, in order; `None` when there are no more for now. Small pieces are already
    /// joined.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        let piece = self.core.out.take();
        if let ClientState::Body(body) = &mut self.state {
            body.ask(&mut self.core);
        }
        piece
    }

    /// Returns the next event, if there is one.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.core.events.pop_front()
    }

    /// Returns when [`Self::handle_timeout`] must be called, unless something else happens before. An idle session has
    /// no deadline: the host decides how long to keep it.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.core.deadline
    }

    /// Closes the session if its deadline has passed; otherwise does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.core.deadline.is_some_and(|deadline| deadline <= now) {
            let why = match self.state {
                ClientState::Quit => Closed::Quit,
                _ => Closed::TimedOut(self.state.step()),
            };
            self.close(why);
        }
    }

    /// Whether [`Self::send`] would accept a transaction.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(self.state, ClientState::Idle(_))
    }

    /// Whether the session is over, even if there are still events to poll.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self.state, ClientState::Closed)
    }

    /// Returns the next hop's greeting and its EHLO offers.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.core.peer
    }

    fn fault(&mut self, fault: ProtocolFault) {
        let step = self.state.step();
        self.close(Closed::Fault { step, fault });
    }

    fn close(&mut self, why: Closed) {
        self.turn(|state, _| match state {
            ClientState::Closed => Ok(ClientState::Closed),
            state => Err(state.stop(why)),
        });
    }

    /// Runs a transition: replaces the state by the next one, or ends the session.
    fn turn(&mut self, go: impl FnOnce(ClientState, &mut Core) -> Turn) {
        let state = std::mem::replace(&mut self.state, ClientState::Closed);
        match go(state, &mut self.core) {
            Ok(next) => self.state = next,
            Err(stop) => self.stop(*stop),
        }
    }

    fn stop(&mut self, stop: SessionStop) {
        let core = &mut self.core;
        core.deadline = None;
        core.out.clear();
        if let Some(ledger) = stop.ledger {
            core.event(Event::Done(ledger.close_lost(&stop.why)));
        }
        if is_worth_a_quit(&stop.why) {
            core.line("QUIT");
        }
        core.event(Event::Closed(stop.why));
    }
}

/// Whether the next hop is waiting for a command, so that QUIT is neither pipelined after DATA nor read as a line of
/// the message. RFC 5321 section 3.1 requires QUIT even after a greeting of 554.
fn is_worth_a_quit(why: &Closed) -> bool {
    match why {
        Closed::Refused { step, reply } => {
            let listening =
                [DialogueStep::Greeting, DialogueStep::Hello, DialogueStep::StartTls, DialogueStep::Auth];
            reply.code != 421 && listening.contains(step)
        }
        Closed::Lacking(_) => true,
        _ => false,
    }
}
