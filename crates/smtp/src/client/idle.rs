//! Between transactions: the session is ready for the next one or for QUIT.

use super::core::Core;
use super::ledger::Ledger;
use super::outcome::Event;
use super::state::ClientState;

/// The session is ready for a transaction.
#[derive(Debug)]
pub(super) struct Idle {
    pub(super) slate: Slate,
}

/// Whether the next hop still has the last transaction open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slate {
    Clean,
    /// MAIL was accepted and nothing ended it: RSET must come before the next MAIL (RFC 5321 section 4.1.4). It is not
    /// sent at once, because the session may have no next transaction, and with PIPELINING it costs no round trip then.
    NeedsReset,
}

impl Idle {
    pub(super) fn fresh(core: &mut Core) -> ClientState {
        Self::ready(Slate::Clean, core)
    }

    /// Closes the ledger of a transaction; the session is ready for the next.
    pub(super) fn after(ledger: Ledger, slate: Slate, core: &mut Core) -> ClientState {
        core.event(Event::Done(ledger.close()));
        Self::ready(slate, core)
    }

    fn ready(slate: Slate, core: &mut Core) -> ClientState {
        core.deadline = None;
        core.event(Event::Ready);
        ClientState::Idle(Self { slate })
    }
}
