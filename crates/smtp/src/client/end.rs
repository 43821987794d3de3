//! After the end of data: the final reply, or one for each recipient in LMTP; and draining the replies that no longer
//! matter.

use std::time::Instant;

use pintle_mail::{Reply, Severity};

use super::body::is_unknown_command;
use super::config::{Protocol, Transfer};
use super::core::Core;
use super::idle::{Idle, Slate};
use super::ledger::Ledger;
use super::outcome::{Closed, DialogueStep, ReplyOutcome};
use super::state::{ClientState, SessionStop, Turn, unexpected};

/// The whole message has been sent; the final reply is due.
#[derive(Debug)]
pub(super) struct EndOfData {
    pub(super) ledger: Ledger,
    /// Replies to chunks that come before the final one.
    chunks: usize,
}

impl EndOfData {
    pub(super) fn begin(ledger: Ledger, chunks: usize) -> ClientState {
        ClientState::End(Self { ledger, chunks })
    }

    pub(super) fn on_reply(mut self, reply: Reply, core: &mut Core, now: Instant) -> Turn {
        core.expect(core.config.timeouts.end, now);
        if self.ledger.transfer() == Transfer::Chunking && is_unknown_command(&reply) {
            return Err(SessionStop::during(self.ledger, unexpected(DialogueStep::Body, &reply)));
        }
        let outcome = match reply.severity() {
            Severity::Intermediate => {
                return Err(SessionStop::during(self.ledger, unexpected(DialogueStep::End, &reply)));
            }
            Severity::Positive => ReplyOutcome::Delivered(reply),
            Severity::Transient | Severity::Permanent => ReplyOutcome::refused(reply),
        };
        match (self.chunks, outcome) {
            (0, outcome) => Ok(self.settle(&outcome, core)),
            (_, ReplyOutcome::Delivered(_)) => {
                self.chunks -= 1;
                Ok(ClientState::End(self))
            }
            (chunks, refusal) => self.refuse_chunk(chunks, &refusal, core),
        }
    }

    fn settle(mut self, outcome: &ReplyOutcome, core: &mut Core) -> ClientState {
        match core.config.protocol {
            Protocol::Smtp => self.ledger.settle_rest(outcome, DialogueStep::End),
            // RFC 2033 section 4.2: one reply for each accepted recipient, in the order of the RCPTs.
            Protocol::Lmtp => {
                let first = self.ledger.open().next();
                self.ledger.settle(first.unwrap_or_default(), outcome, DialogueStep::End);
            }
        }
        if self.ledger.is_settled() {
            // RFC 5321 section 4.1.1.4: the end of data clears the buffers, whatever the reply.
            Idle::after(self.ledger, Slate::Clean, core)
        } else {
            ClientState::End(self)
        }
    }

    /// Handles the refusal of a chunk before the last, which refuses the message too (RFC 3030 section 2).
    fn refuse_chunk(mut self, chunks: usize, refusal: &ReplyOutcome, core: &mut Core) -> Turn {
        self.ledger.settle_rest(refusal, DialogueStep::Body);
        match core.config.protocol {
            Protocol::Smtp => Ok(Drain::begin(self.ledger, chunks, core)),
            // No RFC says how many replies an LMTP server sends to the last chunk of a refused message.
            Protocol::Lmtp => {
                let reply = refusal.reply().clone();
                Err(SessionStop::during(self.ledger, Closed::Refused { step: DialogueStep::End, reply }))
            }
        }
    }
}

/// Every recipient is settled, and some replies are still outstanding.
#[derive(Debug)]
pub(super) struct Drain {
    pub(super) ledger: Ledger,
    left: usize,
}

impl Drain {
    pub(super) fn new(ledger: Ledger, left: usize) -> Self {
        Self { ledger, left }
    }

    pub(super) fn begin(ledger: Ledger, left: usize, core: &mut Core) -> ClientState {
        if left == 0 {
            Idle::after(ledger, Slate::NeedsReset, core)
        } else {
            ClientState::Drain(Self::new(ledger, left))
        }
    }

    pub(super) fn on_reply(self, core: &mut Core, now: Instant) -> Turn {
        core.expect(core.config.timeouts.end, now);
        Ok(Self::begin(self.ledger, self.left.saturating_sub(1), core))
    }
}
