//! DATA and BDAT: from the first octet of a message to the host's verdict on it (RFC 5321 section 4.1.1.4, RFC 3030).
//!
//! Both commands run through [`Receiving`]; they differ in how the end is found. A message that is refused before its
//! end is still read to that end, because the reply is due only there, but its content is dropped.

use std::time::Instant;

use bytes::Bytes;
use pintle_mail::{EnhancedCode, Reply};

use super::ehlo::{Before, hello};
use super::{Advance, Commanded, Negotiated, Ready, RecipientsAccepted, SessionState, common, misuse};
use crate::server::command::Command;
use crate::server::content::ContentDecoder;
use crate::server::event::{Event, Headers, MessageCounts, Question};
use crate::server::fault::{Misuse, Sequence, SessionFault};
use crate::server::head::{CompleteHeader, HeaderReader};
use crate::server::prdr::PrdrRecipients;
use crate::server::replies;
use crate::server::ruling::AnswerKind;
use crate::server::shared::Core;

/// A message is being received.
#[derive(Debug)]
pub(crate) struct Receiving {
    incoming: IncomingMessage,
    frame: FrameState,
}

/// The state of a message before its end.
#[derive(Debug)]
struct IncomingMessage {
    negotiated: Negotiated,
    prdr: Option<PrdrRecipients>,
    decoder: ContentDecoder,
    phase: MessagePhase,
    header_size: u64,
    body_size: u64,
    limit: u64,
    /// When the complete message must have arrived.
    deadline: Option<Instant>,
}

/// Which part of the message is being received.
#[derive(Debug)]
enum MessagePhase {
    Header(HeaderReader),
    Body,
    /// Nothing more: the message is refused for this reason.
    Refused(MessageRefusal),
}

/// Why a message is refused before its end.
#[derive(Debug)]
enum MessageRefusal {
    Fault(SessionFault),
    Host(Reply),
    /// By the host, with this last reply of the session.
    Close(Reply),
}

/// How the end of the octets is found: by the final dot, or by the length of a chunk.
#[derive(Debug, Clone, Copy)]
enum FrameState {
    Dots,
    Chunk { size: u64, left: u64, last: bool },
}

/// What the octets that were just decoded complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FrameEnd {
    /// Neither a chunk nor the message is complete.
    Open,
    /// A chunk of this size, not the last.
    Chunk(u64),
    /// The message is complete.
    Message,
}

/// The host decides whether a message may be sent.
#[derive(Debug)]
pub(crate) struct DataAsked {
    addressed: RecipientsAccepted,
    frame: FrameState,
}

impl DataAsked {
    /// Asks the host about a message after DATA.
    pub(crate) fn data(addressed: RecipientsAccepted, core: &mut Core) -> SessionState {
        core.ask(Question::Data);
        Self { addressed, frame: FrameState::Dots }.into()
    }

    /// Asks the host about a message with its first BDAT.
    pub(crate) fn first_chunk(
        addressed: RecipientsAccepted,
        size: u64,
        last: bool,
        core: &mut Core,
    ) -> SessionState {
        core.ask(Question::Data);
        Self { addressed, frame: FrameState::Chunk { size, left: size, last } }.into()
    }

    pub(crate) fn ruled(self, ruling: AnswerKind, core: &mut Core) -> SessionState {
        match ruling {
            AnswerKind::Accept(_) => self.begin(core),
            AnswerKind::Refuse(wish) => self.refuse(MessageRefusal::Host(wish), core),
            AnswerKind::Close(wish) => core.close_with(wish),
            _ => {
                let misuse = SessionFault::HostMisuse(Misuse::WrongAnswer);
                self.refuse(MessageRefusal::Fault(misuse), core)
            }
        }
    }

    fn begin(self, core: &mut Core) -> SessionState {
        if matches!(self.frame, FrameState::Dots) {
            core.reply(&replies::DATA);
        }
        Receiving::boxed(IncomingMessage::new(self.addressed, self.frame, core), self.frame)
    }

    /// RFC 3030 section 2: the octets of a chunk follow even if it is refused, and the refusal is the reply to it.
    fn refuse(self, refusal: MessageRefusal, core: &mut Core) -> SessionState {
        let mut incoming = IncomingMessage::new(self.addressed, self.frame, core);
        if matches!(self.frame, FrameState::Dots) {
            return refusal.speak(incoming.negotiated, core);
        }
        incoming.phase = MessagePhase::Refused(refusal);
        Receiving::boxed(incoming, self.frame)
    }
}

impl Receiving {
    fn chunk(incoming: IncomingMessage, size: u64, last: bool) -> SessionState {
        Self::boxed(incoming, FrameState::Chunk { size, left: size, last })
    }

    fn boxed(incoming: IncomingMessage, frame: FrameState) -> SessionState {
        Box::new(Self { incoming, frame }).into()
    }

    /// When the complete message must have arrived.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.incoming.deadline
    }

    pub(crate) fn held(&self) -> usize {
        self.incoming.held()
    }

    pub(crate) fn advance(mut self: Box<Self>, core: &mut Core) -> Advance {
        let before = core.input.len();
        let (content, end) = self.decode(core);
        core.progress |= core.input.len() < before;
        if content.is_empty() && end == FrameEnd::Open {
            return Advance::Wait(self.into());
        }
        Advance::Again(self.take(content, end, core))
    }

    fn decode(&mut self, core: &mut Core) -> (Bytes, FrameEnd) {
        let decoder = &mut self.incoming.decoder;
        match &mut self.frame {
            FrameState::Dots => {
                let (content, ended) = decoder.decode_data(&mut core.input);
                (content, if ended { FrameEnd::Message } else { FrameEnd::Open })
            }
            FrameState::Chunk { size, left, last } => {
                let content = decoder.decode_chunk(&mut core.input, left);
                match (*left, *last) {
                    (0, true) => {
                        decoder.finish_chunks();
                        (content, FrameEnd::Message)
                    }
                    (0, false) => (content, FrameEnd::Chunk(*size)),
                    _ => (content, FrameEnd::Open),
                }
            }
        }
    }

    /// Counts and checks content, and looks for the end of the header in it.
    fn take(mut self: Box<Self>, content: Bytes, end: FrameEnd, core: &mut Core) -> SessionState {
        let incoming = &mut self.incoming;
        incoming.check(content.len() as u64, core);
        let found = match &mut incoming.phase {
            MessagePhase::Header(head) => {
                head.push(content).or_else(|| (end == FrameEnd::Message).then(|| head.finish()))
            }
            MessagePhase::Body => {
                incoming.pass_on(content, core);
                None
            }
            MessagePhase::Refused(_) => None,
        };
        match found {
            Some(found) => self.ask_headers(found, end, core),
            None => self.go_on(end, core),
        }
    }

    fn ask_headers(
        mut self: Box<Self>,
        found: CompleteHeader,
        end: FrameEnd,
        core: &mut Core,
    ) -> SessionState {
        self.incoming.header_size = found.header.len() as u64;
        if found.header.len() > core.config.limits.header {
            self.incoming.condemn(SessionFault::HeaderTooBig);
            return self.go_on(end, core);
        }
        core.ask(Question::Headers(Headers { header: found.header, separated: found.separated }));
        HeadersAsked { receiving: self, rest: found.rest, end }.into()
    }

    fn go_on(self: Box<Self>, end: FrameEnd, core: &mut Core) -> SessionState {
        match end {
            FrameEnd::Open => self.into(),
            FrameEnd::Chunk(size) => self.incoming.end_chunk(size, core),
            FrameEnd::Message => self.incoming.end(core),
        }
    }
}

impl IncomingMessage {
    fn new(addressed: RecipientsAccepted, frame: FrameState, core: &Core) -> Self {
        let decoder = match frame {
            FrameState::Dots => ContentDecoder::for_data(&core.config.leniency),
            FrameState::Chunk { .. } => ContentDecoder::for_chunks(&core.config.leniency),
        };
        let (negotiated, prdr) = addressed.into_parts();
        Self {
            limit: negotiated.message_limit(core),
            deadline: core.now.checked_add(core.config.timeouts.message),
            negotiated,
            prdr,
            decoder,
            phase: MessagePhase::Header(HeaderReader::default()),
            header_size: 0,
            body_size: 0,
        }
    }

    fn held(&self) -> usize {
        match &self.phase {
            MessagePhase::Header(head) => head.len(),
            _ => 0,
        }
    }

    /// Refuses the message if the octets so far make it unacceptable.
    fn check(&mut self, more: u64, core: &Core) {
        let held = match &self.phase {
            MessagePhase::Header(head) => head.len() as u64,
            MessagePhase::Body => self.header_size + self.body_size,
            MessagePhase::Refused(_) => return,
        };
        if let Some(flaw) = self.decoder.flaw {
            self.condemn(flaw.into());
        } else if held + more > self.limit {
            self.condemn(SessionFault::MessageTooBig);
        } else if matches!(self.phase, MessagePhase::Header(_)) && held > core.config.limits.header as u64 {
            self.condemn(SessionFault::HeaderTooBig);
        }
    }

    fn condemn(&mut self, fault: SessionFault) {
        self.phase = MessagePhase::Refused(MessageRefusal::Fault(fault));
    }

    fn pass_on(&mut self, content: Bytes, core: &mut Core) {
        self.body_size += content.len() as u64;
        if !content.is_empty() {
            core.event(Event::Body(content));
        }
    }

    /// RFC 3030 section 2: each chunk gets a reply. A refused one ends the transaction, and the chunks after it get
    /// 503.
    fn end_chunk(self, size: u64, core: &mut Core) -> SessionState {
        match self.phase {
            MessagePhase::Refused(refusal) => refusal.speak(self.negotiated, core),
            _ => {
                let text = format!("{size} octets received");
                core.reply(&Reply::new(250, EnhancedCode(2, 0, 0), text));
                BetweenChunks { incoming: self }.into()
            }
        }
    }

    fn end(self, core: &mut Core) -> SessionState {
        match self.phase {
            MessagePhase::Refused(refusal) => refusal.speak(self.negotiated, core),
            _ => {
                core.ask(Question::Message(MessageCounts {
                    header_size: self.header_size,
                    body_size: self.body_size,
                    has_8bit: self.decoder.has_8bit,
                }));
                MessageAsked { negotiated: self.negotiated, prdr: self.prdr }.into()
            }
        }
    }
}

impl MessageRefusal {
    fn speak(self, negotiated: Negotiated, core: &mut Core) -> SessionState {
        core.expect_consequences();
        let next = match self {
            Self::Fault(fault) => core.fault(fault, Ready::new(negotiated)),
            Self::Host(reply) => core.refuse_with(reply, &replies::REFUSED_MESSAGE, Ready::new(negotiated)),
            Self::Close(reply) => core.close_with(reply),
        };
        core.reset();
        next
    }
}

/// The host decides on the header.
#[derive(Debug)]
pub(crate) struct HeadersAsked {
    receiving: Box<Receiving>,
    /// Part of the body that was read together with the header.
    rest: Bytes,
    end: FrameEnd,
}

impl HeadersAsked {
    pub(crate) fn held(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn ruled(self, ruling: AnswerKind, core: &mut Core) -> SessionState {
        let mut receiving = self.receiving;
        let incoming = &mut receiving.incoming;
        match ruling {
            AnswerKind::Accept(_) => {
                incoming.phase = MessagePhase::Body;
                incoming.pass_on(self.rest, core);
            }
            // RFC 5321 section 4.1.1.4: no reply before the end of data, so the refusal waits for it. So does the end of the
            // session: a client whose connection breaks while it sends data does not read the reply, and tries for days.
            AnswerKind::Refuse(wish) => incoming.phase = MessagePhase::Refused(MessageRefusal::Host(wish)),
            AnswerKind::Close(wish) => incoming.phase = MessagePhase::Refused(MessageRefusal::Close(wish)),
            _ => incoming.condemn(SessionFault::HostMisuse(Misuse::WrongAnswer)),
        }
        receiving.go_on(self.end, core)
    }
}

/// The host decides on the message and makes it durable.
#[derive(Debug)]
pub(crate) struct MessageAsked {
    negotiated: Negotiated,
    prdr: Option<PrdrRecipients>,
}

impl MessageAsked {
    pub(crate) fn ruled(self, ruling: AnswerKind, core: &mut Core) -> SessionState {
        match ruling {
            AnswerKind::DurableExcept(durable, refused) => {
                self.ruled_for_each(refused, &durable.into_reply(), core)
            }
            AnswerKind::DiscardExcept(refused) => self.ruled_for_each(refused, &replies::DISCARDED, core),
            ruling => self.ruled_for_all(ruling, core),
        }
    }

    /// Replies for each recipient, and with `last` for the message.
    fn ruled_for_each(self, refused: Vec<(u32, Reply)>, last: &Reply, core: &mut Core) -> SessionState {
        let ready = Ready::new(self.negotiated);
        let refusals = self.prdr.and_then(|recipients| recipients.refusals(refused));
        core.end_transaction(refusals.is_some());
        let Some(refusals) = refusals else {
            return misuse(core, ready);
        };
        refusals.reply(last, core);
        ready.into()
    }

    fn ruled_for_all(self, ruling: AnswerKind, core: &mut Core) -> SessionState {
        let accepted = matches!(ruling, AnswerKind::Durable(_) | AnswerKind::Discard(_));
        core.end_transaction(accepted);
        let ready = Ready::new(self.negotiated);
        match ruling {
            AnswerKind::Durable(durable) => core.reply(&durable.into_reply()),
            AnswerKind::Discard(wish) => core.reply(&replies::positive(wish, &[250], &replies::DISCARDED)),
            AnswerKind::Refuse(wish) => return core.refuse_with(wish, &replies::REFUSED_MESSAGE, ready),
            AnswerKind::Close(wish) => return core.close_with(wish),
            _ => return misuse(core, ready),
        }
        ready.into()
    }
}

/// A chunk that is not the last has been received.
#[derive(Debug)]
pub(crate) struct BetweenChunks {
    incoming: IncomingMessage,
}

impl BetweenChunks {
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.incoming.deadline
    }

    pub(crate) fn held(&self) -> usize {
        self.incoming.held()
    }
}

impl Commanded for BetweenChunks {
    fn command(self, command: Command<'_>, core: &mut Core) -> SessionState {
        match command {
            Command::Bdat { size, last } => Receiving::chunk(self.incoming, size, last),
            Command::Hello(verb, name) => {
                hello(verb, name, Before::Negotiated(self.incoming.negotiated), core)
            }
            Command::Rset => {
                core.reset();
                core.idle(&replies::RESET, Ready::new(self.incoming.negotiated))
            }
            // RFC 3030 section 2: DATA after BDAT is out of sequence, and so is every other command.
            _ => common(self, command, core, SessionFault::Sequence(Sequence::InChunks)),
        }
    }
}

/// The octets of a refused chunk are read and dropped; the refusal is sent after them.
#[derive(Debug)]
pub(crate) struct DiscardingChunk {
    left: u64,
    fault: SessionFault,
    next: Box<SessionState>,
    /// When the whole chunk must have arrived; the same timeout as for a message.
    deadline: Option<Instant>,
}

impl DiscardingChunk {
    pub(crate) fn new(size: u64, fault: SessionFault, next: impl Into<SessionState>, core: &Core) -> Self {
        Self {
            left: size,
            fault,
            next: Box::new(next.into()),
            deadline: core.now.checked_add(core.config.timeouts.message),
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    pub(crate) fn advance(mut self, core: &mut Core) -> Advance {
        let here = usize::try_from(self.left).map_or(core.input.len(), |left| left.min(core.input.len()));
        let _ = core.input.split_to(here);
        self.left -= here as u64;
        core.progress |= here > 0;
        if self.left > 0 {
            return Advance::Wait(self.into());
        }
        Advance::Again(core.fault(self.fault, *self.next))
    }
}
