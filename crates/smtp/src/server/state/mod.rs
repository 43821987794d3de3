//! The states of a server session. Each is a type that holds its own data and is consumed by the transition out of it.
//!
//! ```text
//! Connecting ─► ExpectHello ─► HelloAsked ─► Ready ─► SenderAsked ─► SenderAccepted
//!     └► TurnedAway   ▲                       │                          │    ▲
//!                     └────── Handshake ◄─────┤        RecipientAsked ◄──┘    └─ every recipient refused
//!                                             │            └► RecipientsAccepted ─► RecipientAsked, DataAsked
//!             Ready ◄─ LoginAsked ◄─ Responding
//!
//! DataAsked ─► Receiving, Ready
//! Receiving ─► HeadersAsked ─► Receiving ◄─► BetweenChunks        Receiving ─► MessageAsked ─► Ready
//! ```
//!
//! DATA without recipients is ruled out by the types: only [`RecipientsAccepted`] becomes [`DataAsked`] and then
//! [`Receiving`], and it takes an accepted recipient to create it.

mod auth;
mod data;
mod ehlo;
mod greeting;
mod mail;
mod rcpt;
mod ready;
mod starttls;

pub(crate) use auth::{LoginAsked, Responding};
pub(crate) use data::{BetweenChunks, DataAsked, DiscardingChunk, HeadersAsked, MessageAsked, Receiving};
pub(crate) use ehlo::{ExpectHello, HelloAsked};
pub(crate) use greeting::{Connecting, TurnedAway};
pub(crate) use mail::{SenderAccepted, SenderAsked};
pub(crate) use rcpt::{RecipientAsked, RecipientsAccepted};
pub(crate) use ready::Ready;
pub(crate) use starttls::Handshake;

use std::time::Instant;

use super::command::Command;
use super::event::Closed;
use super::fault::{Misuse, SessionFault};
use super::offers::Offers;
use super::replies;
use super::ruling::AnswerKind;
use super::shared::Core;

/// The state of a session.
#[derive(Debug)]
pub(crate) enum SessionState {
    Connecting(Connecting),
    TurnedAway(TurnedAway),
    ExpectHello(ExpectHello),
    HelloAsked(HelloAsked),
    Handshake(Handshake),
    Ready(Ready),
    Responding(Responding),
    LoginAsked(LoginAsked),
    SenderAsked(SenderAsked),
    SenderAccepted(SenderAccepted),
    RecipientAsked(RecipientAsked),
    RecipientsAccepted(RecipientsAccepted),
    DataAsked(DataAsked),
    Receiving(Box<Receiving>),
    HeadersAsked(HeadersAsked),
    MessageAsked(MessageAsked),
    BetweenChunks(BetweenChunks),
    DiscardingChunk(DiscardingChunk),
    Closed,
}

/// What EHLO or HELO has negotiated.
#[derive(Debug)]
pub(crate) struct Negotiated {
    pub(crate) offers: Offers,
    pub(crate) esmtp: bool,
}

/// The result of processing the input.
pub(crate) enum Advance {
    /// There may be more input to process.
    Again(SessionState),
    /// Nothing more can be done until the client or the host acts.
    Wait(SessionState),
}

/// Who must act next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WhoseMove {
    /// The client: a command, or a line of an AUTH exchange.
    Command,
    /// The client: message content.
    Content,
    /// The host: a question is open.
    Host,
    /// The host: the TLS handshake.
    Handshake,
    /// No one: the session is over.
    Over,
}

/// A state in which the client may send commands.
pub(crate) trait Commanded: Into<SessionState> + Sized {
    fn command(self, command: Command<'_>, core: &mut Core) -> SessionState;
}

impl SessionState {
    /// Processes the next command or piece of content, if it has arrived.
    pub(crate) fn advance(self, core: &mut Core) -> Advance {
        if matches!(self, Self::TurnedAway(_) | Self::ExpectHello(_) | Self::Ready(_))
            && let Some(over) = core.drained()
        {
            return Advance::Again(over);
        }
        match self {
            Self::TurnedAway(state) => next_command(state, core),
            Self::ExpectHello(state) => next_command(state, core),
            Self::Ready(state) => next_command(state, core),
            Self::SenderAccepted(state) => next_command(state, core),
            Self::RecipientsAccepted(state) => next_command(state, core),
            Self::BetweenChunks(state) => next_command(state, core),
            Self::Responding(state) => state.advance(core),
            Self::Receiving(state) => state.advance(core),
            Self::DiscardingChunk(state) => state.advance(core),
            Self::Handshake(state) => Advance::Wait(state.ignore_input(core)),
            _ => Advance::Wait(self),
        }
    }

    /// Continues with the host's answer.
    pub(crate) fn ruled(self, ruling: AnswerKind, core: &mut Core) -> Self {
        match self {
            Self::Connecting(state) => state.ruled(ruling, core),
            Self::HelloAsked(state) => state.ruled(ruling, core),
            Self::LoginAsked(state) => state.ruled(ruling, core),
            Self::SenderAsked(state) => state.ruled(ruling, core),
            Self::RecipientAsked(state) => state.ruled(ruling, core),
            Self::DataAsked(state) => state.ruled(ruling, core),
            Self::HeadersAsked(state) => state.ruled(ruling, core),
            Self::MessageAsked(state) => state.ruled(ruling, core),
            // The session ended while the host was still deciding; the answer is ignored.
            Self::Closed => Self::Closed,
            _ => core.fail(SessionFault::HostMisuse(Misuse::NoQuestion)),
        }
    }

    /// When the client must have completed the current message or chunk; the timeout for each step applies as well.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Receiving(state) => state.deadline(),
            Self::BetweenChunks(state) => state.deadline(),
            Self::DiscardingChunk(state) => state.deadline(),
            _ => None,
        }
    }

    /// Octets of the message that are held until the header is complete and accepted.
    pub(crate) fn held(&self) -> usize {
        match self {
            Self::Receiving(state) => state.held(),
            Self::HeadersAsked(state) => state.held(),
            Self::BetweenChunks(state) => state.held(),
            _ => 0,
        }
    }

    pub(crate) fn turn(&self) -> WhoseMove {
        match self {
            Self::Connecting(_)
            | Self::HelloAsked(_)
            | Self::LoginAsked(_)
            | Self::SenderAsked(_)
            | Self::RecipientAsked(_)
            | Self::DataAsked(_)
            | Self::HeadersAsked(_)
            | Self::MessageAsked(_) => WhoseMove::Host,
            Self::Handshake(_) => WhoseMove::Handshake,
            Self::Receiving(_) | Self::DiscardingChunk(_) => WhoseMove::Content,
            Self::Closed => WhoseMove::Over,
            _ => WhoseMove::Command,
        }
    }
}

fn next_command<S: Commanded>(state: S, core: &mut Core) -> Advance {
    Advance::Again(match core.command_line() {
        Ok(None) => return Advance::Wait(state.into()),
        Ok(Some(line)) => match Command::parse(&line) {
            Ok(Command::Quit) => quit(core),
            Ok(command) => state.command(command, core),
            Err(fault) => core.fault(fault, state),
        },
        Err(fault) => core.fault(fault, state),
    })
}

/// RFC 5321 section 4.1.1.10: QUIT may come at any time; an incomplete transaction is dropped.
fn quit(core: &mut Core) -> SessionState {
    core.reply(&replies::BYE);
    core.close(None, Closed::Quit)
}

/// Handles the commands that mean the same in every state; refuses the rest with `fault`.
fn common<S: Commanded>(
    state: S,
    command: Command<'_>,
    core: &mut Core,
    fault: SessionFault,
) -> SessionState {
    match command {
        Command::Noop => core.idle(&replies::NOOP, state),
        Command::Help => core.idle(&replies::HELP, state),
        Command::Vrfy if core.config.require_tls && !core.tls => core.fault(SessionFault::TlsRequired, state),
        Command::Vrfy => core.idle(&replies::VRFY, state),
        Command::Rset => core.idle(&replies::RESET, state),
        // The octets of a chunk follow even if it is refused (RFC 3030 section 2).
        Command::Bdat { size, .. } => DiscardingChunk::new(size, fault, state, core).into(),
        _ => core.fault(fault, state),
    }
}

macro_rules! into_state {
    ($($name:ident),*) => {$(
        impl From<$name> for SessionState {
            fn from(state: $name) -> Self {
                Self::$name(state)
            }
        }
    )*};
}

into_state!(
    Connecting,
    TurnedAway,
    ExpectHello,
    HelloAsked,
    Handshake,
    Ready,
    Responding,
    LoginAsked,
    SenderAsked,
    SenderAccepted,
    RecipientAsked,
    RecipientsAccepted,
    DataAsked,
    HeadersAsked,
    MessageAsked,
    BetweenChunks,
    DiscardingChunk
);

impl From<Box<Receiving>> for SessionState {
    fn from(state: Box<Receiving>) -> Self {
        Self::Receiving(state)
    }
}

/// Handles an answer that does not fit the question: the host is at fault, and the client gets a temporary refusal.
fn misuse(core: &mut Core, next: impl Into<SessionState>) -> SessionState {
    core.fault(SessionFault::HostMisuse(Misuse::WrongAnswer), next)
}
