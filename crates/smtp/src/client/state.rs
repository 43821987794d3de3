//! The states of a session, and what each does with a reply.
//!
//! Every state is a struct of its own that its transition consumes. A transition gives the next state or a [`Stop`],
//! which carries the ledger of the transaction that the session's end cuts short, so that no recipient is forgotten.

use std::time::Instant;

use pintle_mail::Reply;

use super::auth::Auth;
use super::body::SendingBody;
use super::core::Core;
use super::dialogue::Dialogue;
use super::end::{Drain, EndOfData};
use super::greeting::Greeting;
use super::hello::HelloState;
use super::idle::{Idle, Probe};
use super::ledger::Ledger;
use super::outcome::{Closed, DialogueStep, ProtocolFault};
use super::start_tls::StartTls;

#[derive(Debug)]
pub(super) enum ClientState {
    Greeting(Greeting),
    Hello(HelloState),
    StartTls(StartTls),
    /// The host does the handshake; nothing may be said by either side.
    Handshake,
    Auth(Auth),
    Idle(Idle),
    Probe(Probe),
    Dialogue(Box<Dialogue>),
    Body(SendingBody),
    End(EndOfData),
    Drain(Drain),
    /// QUIT is said.
    Quit,
    Closed,
}

/// The end of a session, with what it cuts short.
#[derive(Debug)]
pub(super) struct SessionStop {
    pub(super) why: Closed,
    pub(super) ledger: Option<Ledger>,
}

/// What a transition gives.
pub(super) type Turn = Result<ClientState, Box<SessionStop>>;

impl SessionStop {
    /// An end outside any transaction.
    pub(super) fn new(why: Closed) -> Box<Self> {
        Box::new(Self { why, ledger: None })
    }

    /// An end that cuts a transaction short.
    pub(super) fn during(ledger: Ledger, why: Closed) -> Box<Self> {
        Box::new(Self { why, ledger: Some(ledger) })
    }

    pub(super) fn unexpected(step: DialogueStep, reply: &Reply) -> Box<Self> {
        Self::new(unexpected(step, reply))
    }
}

/// The fault of a reply whose code has no meaning in this step.
pub(super) fn unexpected(step: DialogueStep, reply: &Reply) -> Closed {
    Closed::Fault { step, fault: ProtocolFault::Unexpected(reply.code) }
}

impl ClientState {
    pub(super) fn step(&self) -> DialogueStep {
        match self {
            Self::Greeting(_) => DialogueStep::Greeting,
            Self::Hello(_) => DialogueStep::Hello,
            Self::StartTls(_) | Self::Handshake => DialogueStep::StartTls,
            Self::Auth(_) => DialogueStep::Auth,
            Self::Idle(_) | Self::Closed => DialogueStep::Idle,
            Self::Probe(_) => DialogueStep::Probe,
            Self::Dialogue(dialogue) => dialogue.step(),
            Self::Body(_) => DialogueStep::Body,
            Self::End(_) | Self::Drain(_) => DialogueStep::End,
            Self::Quit => DialogueStep::Quit,
        }
    }

    /// Ends the session in this state.
    pub(super) fn stop(self, why: Closed) -> Box<SessionStop> {
        let ledger = match self {
            Self::Dialogue(dialogue) => Some(dialogue.ledger),
            Self::Body(body) => Some(body.ledger),
            Self::End(end) => Some(end.ledger),
            Self::Drain(drain) => Some(drain.ledger),
            _ => None,
        };
        Box::new(SessionStop { why, ledger })
    }

    pub(super) fn on_reply(self, reply: Reply, core: &mut Core, now: Instant) -> Turn {
        let step = self.step();
        // RFC 5321 section 3.8: 421 may answer any command, and the channel closes after it.
        if reply.code == 421 && !matches!(self, Self::Quit | Self::Closed) {
            return Err(self.stop(Closed::Refused { step, reply }));
        }
        match self {
            Self::Greeting(state) => state.on_reply(reply, core, now),
            Self::Hello(state) => state.on_reply(reply, core, now),
            Self::StartTls(state) => state.on_reply(reply, core, now),
            Self::Auth(state) => state.on_reply(reply, core, now),
            Self::Probe(state) => state.on_reply(reply, core),
            Self::Dialogue(state) => state.on_reply(reply, core, now),
            Self::Body(state) => state.on_reply(reply, core),
            Self::End(state) => state.on_reply(reply, core, now),
            Self::Drain(state) => state.on_reply(core, now),
            // Whatever answers QUIT, the session is over.
            Self::Quit => Err(SessionStop::new(Closed::Quit)),
            Self::Closed => Ok(Self::Closed),
            Self::Idle(_) | Self::Handshake => {
                Err(SessionStop::new(Closed::Fault { step, fault: ProtocolFault::Unsolicited(reply.code) }))
            }
        }
    }
}
