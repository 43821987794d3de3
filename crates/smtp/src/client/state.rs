//! The states of a client session, and how each handles a reply.
//!
//! Every state is a struct of its own that its transition consumes. A transition returns the next state or a
//! [`SessionStop`], which carries the ledger of the interrupted transaction, so that every recipient gets an outcome.

use std::time::Instant;

use pintle_mail::Reply;

use super::auth::Auth;
use super::body::SendingBody;
use super::core::Core;
use super::dialogue::Dialogue;
use super::end::{Drain, EndOfData};
use super::greeting::Greeting;
use super::hello::HelloState;
use super::idle::Idle;
use super::ledger::Ledger;
use super::outcome::{Closed, DialogueStep, ProtocolFault};
use super::start_tls::StartTls;

#[derive(Debug)]
pub(super) enum ClientState {
    Greeting(Greeting),
    Hello(HelloState),
    StartTls(StartTls),
    /// The host does the TLS handshake; neither side may send SMTP.
    Handshake,
    Auth(Auth),
    Idle(Idle),
    Dialogue(Box<Dialogue>),
    Body(SendingBody),
    End(EndOfData),
    Drain(Drain),
    /// QUIT has been sent.
    Quit,
    Closed,
}

/// The end of a session, with the transaction that it interrupts.
#[derive(Debug)]
pub(super) struct SessionStop {
    pub(super) why: Closed,
    pub(super) ledger: Option<Ledger>,
}

/// The result of a transition.
pub(super) type Turn = Result<ClientState, Box<SessionStop>>;

impl SessionStop {
    /// An end outside of any transaction.
    pub(super) fn new(why: Closed) -> Box<Self> {
        Box::new(Self { why, ledger: None })
    }

    /// An end that interrupts a transaction.
    pub(super) fn during(ledger: Ledger, why: Closed) -> Box<Self> {
        Box::new(Self { why, ledger: Some(ledger) })
    }

    pub(super) fn unexpected(step: DialogueStep, reply: &Reply) -> Box<Self> {
        Self::new(unexpected(step, reply))
    }
}

/// The fault of a reply whose code has no meaning at this step.
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
            Self::Dialogue(state) => state.on_reply(reply, core, now),
            Self::Body(state) => state.on_reply(reply, core),
            Self::End(state) => state.on_reply(reply, core, now),
            Self::Drain(state) => state.on_reply(core, now),
            // Any reply to QUIT ends the session.
            Self::Quit => Err(SessionStop::new(Closed::Quit)),
            Self::Closed => Ok(Self::Closed),
            Self::Idle(_) | Self::Handshake => {
                Err(SessionStop::new(Closed::Fault { step, fault: ProtocolFault::Unsolicited(reply.code) }))
            }
        }
    }
}
