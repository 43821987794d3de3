//! Between transactions: ready for the next one, for a probe, or for QUIT.

use std::time::Instant;

use pintle_mail::Reply;

use super::core::Core;
use super::ledger::Ledger;
use super::outcome::{Closed, DialogueStep, Event};
use super::state::{ClientState, SessionStop, Turn, unexpected};

/// Ready.
#[derive(Debug)]
pub(super) struct Idle {
    pub(super) slate: Slate,
}

/// What the next hop still holds of the last transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slate {
    Clean,
    /// MAIL was taken and nothing ended it: RSET must come before the next MAIL (RFC 5321 section 4.1.4). It is not sent
    /// at once, since a session may have no next transaction, and with PIPELINING it then costs no round trip.
    NeedsReset,
}

impl Idle {
    pub(super) fn fresh(core: &mut Core) -> ClientState {
        Self::ready(Slate::Clean, core)
    }

    /// Closes the book of a transaction and is ready for the next.
    pub(super) fn after(ledger: Ledger, slate: Slate, core: &mut Core) -> ClientState {
        core.event(Event::Done(ledger.close()));
        Self::ready(slate, core)
    }

    fn ready(slate: Slate, core: &mut Core) -> ClientState {
        core.deadline = None;
        core.event(Event::Ready);
        ClientState::Idle(Self { slate })
    }

    pub(super) fn probe(self, core: &mut Core, now: Instant) -> ClientState {
        let verb = match self.slate {
            Slate::Clean => "NOOP",
            Slate::NeedsReset => "RSET",
        };
        core.command(verb, core.config.timeouts.command, now);
        ClientState::Probe(Probe)
    }
}

/// NOOP or RSET is said.
#[derive(Debug)]
pub(super) struct Probe;

impl Probe {
    pub(super) fn on_reply(self, reply: Reply, core: &mut Core) -> Turn {
        match reply.code / 100 {
            2 => Ok(Idle::fresh(core)),
            3 => Err(SessionStop::new(unexpected(DialogueStep::Probe, &reply))),
            _ => Err(SessionStop::new(Closed::Refused { step: DialogueStep::Probe, reply })),
        }
    }
}
