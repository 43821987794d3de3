//! Sends the message: dot-stuffed after DATA, or in chunks with BDAT (RFC 3030). It asks the host for more only while
//! the outgoing buffer is below its limit (backpressure).

use std::time::Instant;

use bytes::Bytes;
use pintle_mail::Reply;

use super::core::Core;
use super::end::{Drain, EndOfData};
use super::ledger::Ledger;
use super::outcome::{Closed, DialogueStep, Event, ProtocolFault, ReplyOutcome};
use super::state::{ClientState, SessionStop, Turn, unexpected};
use super::stuffing::{Stuffer, Tail};
use crate::extension::Extension;

/// The next hop takes the message.
#[derive(Debug)]
pub(super) struct SendingBody {
    pub(super) ledger: Ledger,
    framing: Framing,
    demand: Demand,
}

#[derive(Debug)]
enum Framing {
    Dots(Stuffer),
    Chunks(Chunks),
}

/// Whether the host owes a piece of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Demand {
    /// A piece has been requested.
    Asked,
    /// Enough is waiting to be written; nothing is requested.
    Enough,
}

/// BDAT framing. One piece is held back, because the last chunk must carry LAST.
#[derive(Debug)]
struct Chunks {
    held: Bytes,
    tail: Tail,
    /// Chunks that have not been answered yet.
    unanswered: usize,
    /// How many chunks may be unanswered at a time.
    window: usize,
}

impl SendingBody {
    pub(super) fn begin_data(ledger: Ledger, core: &mut Core, now: Instant) -> ClientState {
        Self::begin(ledger, Framing::Dots(Stuffer::new()), core, now)
    }

    pub(super) fn begin_chunks(ledger: Ledger, core: &mut Core, now: Instant) -> ClientState {
        // RFC 3030 section 2: BDAT may be pipelined. A few chunks are enough to keep the line busy.
        let chunks = Chunks {
            held: Bytes::new(),
            tail: Tail::LineStart,
            unanswered: 0,
            window: if core.offers().has(Extension::Pipelining) { 4 } else { 1 },
        };
        Self::begin(ledger, Framing::Chunks(chunks), core, now)
    }

    fn begin(ledger: Ledger, framing: Framing, core: &mut Core, now: Instant) -> ClientState {
        core.expect(core.config.timeouts.block, now);
        let mut body = Self { ledger, framing, demand: Demand::Enough };
        body.ask(core);
        ClientState::Body(body)
    }

    /// Requests the next piece if there is room for it.
    pub(super) fn ask(&mut self, core: &mut Core) {
        let open = match &self.framing {
            Framing::Dots(_) => true,
            Framing::Chunks(chunks) => chunks.unanswered < chunks.window,
        };
        if self.demand == Demand::Enough && open && core.out.len() < core.config.limits.transmit {
            self.demand = Demand::Asked;
            core.event(Event::NeedBody);
        }
    }

    pub(super) fn take(&mut self, piece: Bytes, core: &mut Core, now: Instant) {
        // RFC 5321 section 4.5.3.2.5: the timeout for a block of data starts with the block.
        core.expect(core.config.timeouts.block, now);
        self.demand = Demand::Enough;
        match &mut self.framing {
            Framing::Dots(stuffer) => stuffer.write(piece, &mut core.out),
            Framing::Chunks(chunks) => chunks.write(piece, core),
        }
        self.ask(core);
    }

    pub(super) fn finish(self, core: &mut Core, now: Instant) -> ClientState {
        core.expect(core.config.timeouts.end, now);
        let chunks = match self.framing {
            Framing::Dots(stuffer) => {
                stuffer.finish(&mut core.out);
                0
            }
            Framing::Chunks(chunks) => chunks.finish(core),
        };
        EndOfData::begin(self.ledger, chunks)
    }

    pub(super) fn on_reply(mut self, reply: Reply, core: &mut Core) -> Turn {
        match &mut self.framing {
            Framing::Dots(_) => Err(self.interrupted(reply)),
            Framing::Chunks(chunks) if chunks.unanswered > 0 => match reply.code / 100 {
                2 => {
                    chunks.unanswered -= 1;
                    self.ask(core);
                    Ok(ClientState::Body(self))
                }
                3 => Err(SessionStop::during(self.ledger, unexpected(DialogueStep::Body, &reply))),
                _ if is_unknown_command(&reply) => {
                    Err(SessionStop::during(self.ledger, unexpected(DialogueStep::Body, &reply)))
                }
                _ => {
                    let left = chunks.unanswered - 1;
                    self.ledger.settle_rest(&ReplyOutcome::refused(reply), DialogueStep::Body);
                    Ok(Drain::begin(self.ledger, left, core))
                }
            },
            Framing::Chunks(_) => Err(SessionStop::during(self.ledger, unsolicited(&reply))),
        }
    }

    /// Handles a reply that came before the final dot. A refusal counts, because many servers send it early, but the
    /// session cannot be used any more: a message cannot be stopped half way.
    fn interrupted(mut self, reply: Reply) -> Box<SessionStop> {
        // 500 to 504 answer a command, and none was sent: client and server are out of step.
        if matches!(reply.code, ..400 | 500..=504) {
            return SessionStop::during(self.ledger, unsolicited(&reply));
        }
        self.ledger.settle_rest(&ReplyOutcome::refused(reply.clone()), DialogueStep::Body);
        let step = DialogueStep::Body;
        SessionStop::during(self.ledger, Closed::Refused { step, reply })
    }
}

/// Whether this reply refuses BDAT itself and not the message: a proxy in between does not know what the next hop
/// offers.
pub(super) fn is_unknown_command(reply: &Reply) -> bool {
    matches!(reply.code, 500 | 502)
}

fn unsolicited(reply: &Reply) -> Closed {
    Closed::Fault { step: DialogueStep::Body, fault: ProtocolFault::Unsolicited(reply.code) }
}

impl Chunks {
    fn write(&mut self, piece: Bytes, core: &mut Core) {
        self.tail = self.tail.after(&piece);
        let ready = std::mem::replace(&mut self.held, piece);
        if !ready.is_empty() {
            core.line(&format!("BDAT {}", ready.len()));
            core.out.put_piece(ready);
            self.unanswered += 1;
        }
    }

    /// Sends the last chunk. Returns the number of replies that come before the reply to it.
    fn finish(self, core: &mut Core) -> usize {
        let end = self.tail.missing_end();
        core.line(&format!("BDAT {} LAST", self.held.len() + end.len()));
        core.out.put_piece(self.held);
        core.out.put(end);
        self.unanswered
    }
}
