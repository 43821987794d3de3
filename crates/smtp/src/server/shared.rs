//! What all states of a session share: its bytes in and out, its events, its counts.
//!
//! Every reply goes through here, so that each refusal bears the session's id, each fault becomes an event, and a session
//! that goes on too long about nothing is closed. What a state knows beyond that, it owns.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use memchr::memchr;
use pintle_mail::{Reply, Severity};

use super::config::{BareLf, Config};
use super::event::{Closed, Event, Question};
use super::fault::{OtherProtocol, SessionFault, Syntax};
use super::state::SessionState;
use super::{Start, replies};

/// An input buffer of more than this is given back when it is empty: most sessions are idle, and there are many.
const IDLE_BUFFER: usize = 4096;

/// The shared part of a session.
pub(crate) struct Core {
    pub(crate) config: Arc<Config>,
    pub(crate) input: BytesMut,
    pub(crate) output: BytesMut,
    pub(crate) events: VecDeque<Event>,
    /// The time of the host's latest call.
    pub(crate) now: Instant,
    pub(crate) tls: bool,
    pub(crate) identity: Option<String>,
    /// What is said once no transaction is open, and how the session has ended then.
    pub(crate) draining: Option<(Reply, Closed)>,
    /// The peer will send no more.
    pub(crate) eof: bool,
    /// Since the last deadline was set, the peer has done something that deserves a new one.
    pub(crate) progress: bool,
    session_id: Option<String>,
    /// There is a transaction that the host knows of.
    in_transaction: bool,
    /// The rest of a line that was too long goes by unread.
    skipping: bool,
    counts: SessionCounts,
}

#[derive(Debug, Default)]
struct SessionCounts {
    bad_commands: u32,
    idle_commands: u32,
    auth_failures: u32,
    messages: u32,
    /// Commands that may still fail for nothing but the refusal of one before them.
    consequences: u32,
}

/// What the input holds for a state that waits for a line.
pub(crate) enum LineInput {
    Partial,
    /// Without its line end.
    Whole(BytesMut),
    /// Gone, since it was too long.
    TooLong,
    /// It ends in LF alone, which is refused here.
    BareLf,
}

impl Core {
    pub(crate) fn new(config: Arc<Config>, start: Start, now: Instant) -> Self {
        Self {
            config,
            input: BytesMut::new(),
            output: BytesMut::new(),
            events: VecDeque::new(),
            now,
            tls: start.tls,
            identity: start.identity,
            draining: None,
            eof: false,
            progress: false,
            session_id: start.session_id,
            in_transaction: false,
            skipping: false,
            counts: SessionCounts::default(),
        }
    }

    /// Queues a reply that refuses nothing.
    pub(crate) fn reply(&mut self, reply: &Reply) {
        reply.write_to(&mut self.output);
    }

    /// Queues a refusal, with the session's id.
    pub(crate) fn refuse(&mut self, mut reply: Reply) {
        if let Some(id) = &self.session_id {
            reply.text = format!("{} (session {id})", reply.text).into();
        }
        reply.write_to(&mut self.output);
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.events.push_back(event);
    }

    pub(crate) fn ask(&mut self, question: Question) {
        self.event(Event::Ask(question));
    }

    /// Refuses a command for its fault; the session goes on in `next`, or ends if there were too many of the kind.
    pub(crate) fn fault(&mut self, fault: SessionFault, next: impl Into<SessionState>) -> SessionState {
        if matches!(fault, SessionFault::OtherProtocol(_) | SessionFault::ChunkSize) {
            return self.fail(fault);
        }
        let bad = fault.is_bad_command() && !self.is_consequence(&fault);
        self.counts.bad_commands += u32::from(bad);
        if self.counts.bad_commands > self.config.limits.bad_commands {
            self.event(Event::Fault(fault));
            return self.fail(SessionFault::TooManyBadCommands);
        }
        self.refuse(fault.reply());
        self.event(Event::Fault(fault));
        next.into()
    }

    /// Ends the session for a fault.
    pub(crate) fn fail(&mut self, fault: SessionFault) -> SessionState {
        let mut reply = fault.reply();
        if reply.severity() == Severity::Transient {
            // RFC 5321 section 3.8: a server that closes for now says 421.
            reply.code = 421;
        }
        self.event(Event::Fault(fault.clone()));
        self.close(Some(reply), Closed::Fault(fault))
    }

    /// Ends the session, with a last refusal where one is due.
    pub(crate) fn close(&mut self, last: Option<Reply>, why: Closed) -> SessionState {
        if let Some(reply) = last {
            self.refuse(reply);
        }
        self.reset();
        self.event(Event::Closed(why));
        self.input = BytesMut::new();
        SessionState::Closed
    }

    /// Ends the session as it was told to end, if it was.
    pub(crate) fn drained(&mut self) -> Option<SessionState> {
        let (reply, why) = self.draining.take()?;
        Some(self.close(Some(reply), why))
    }

    /// Refuses what the host wants refused; a 421 ends the session (RFC 5321 section 3.8).
    pub(crate) fn refuse_as_told(
        &mut self,
        wish: Reply,
        usual: &Reply,
        next: impl Into<SessionState>,
    ) -> SessionState {
        let reply = replies::negative(wish, usual);
        if reply.code == 421 {
            return self.close(Some(reply), Closed::Host);
        }
        self.refuse(reply);
        next.into()
    }

    pub(crate) fn close_as_told(&mut self, wish: Reply) -> SessionState {
        let reply = replies::negative(wish, &replies::CLOSING);
        self.close(Some(reply), Closed::Host)
    }

    /// Answers a command that brings no message nearer.
    pub(crate) fn idle(&mut self, reply: &Reply, next: impl Into<SessionState>) -> SessionState {
        if self.is_idle_too_long() {
            return self.fail(SessionFault::TooManyIdleCommands);
        }
        self.reply(reply);
        next.into()
    }

    /// Counts a command that brings no message nearer.
    pub(crate) fn is_idle_too_long(&mut self) -> bool {
        self.counts.idle_commands += 1;
        self.counts.idle_commands > self.config.limits.idle_commands
    }

    /// Counts a failed login; true when it was one too many.
    pub(crate) fn is_last_login(&mut self) -> bool {
        self.counts.auth_failures += 1;
        self.counts.auth_failures >= self.config.limits.auth_failures
    }

    /// MAIL, RCPT or a chunk was refused. A client may have sent what builds on it before it could hear that (RFC 2920
    /// section 3.1, RFC 3030 section 4.2): as many recipients as a message may have, and DATA.
    pub(crate) fn expect_consequences(&mut self) {
        self.counts.consequences = self.config.limits.recipients.saturating_add(1);
    }

    /// Whether a fault merely follows from a refusal, which is then used up a little: the client must not be able to go
    /// on for ever.
    fn is_consequence(&mut self, fault: &SessionFault) -> bool {
        let follows = fault.follows_refusal() && self.counts.consequences > 0;
        self.counts.consequences -= u32::from(follows);
        follows
    }

    /// The host has accepted a sender.
    pub(crate) fn begin_transaction(&mut self) {
        self.in_transaction = true;
        self.counts.consequences = 0;
    }

    /// The host has judged the message, and needs no reset. An accepted one wipes the slate clean.
    pub(crate) fn end_transaction(&mut self, accepted: bool) {
        self.in_transaction = false;
        if accepted {
            let messages = self.counts.messages + 1;
            self.counts = SessionCounts {
                messages,
                auth_failures: self.counts.auth_failures,
                ..SessionCounts::default()
            };
        }
    }

    pub(crate) fn has_message_left(&self) -> bool {
        self.config.limits.messages.is_none_or(|most| self.counts.messages < most)
    }

    /// Tells the host to forget the transaction, if there is one.
    pub(crate) fn reset(&mut self) {
        if std::mem::take(&mut self.in_transaction) {
            self.event(Event::Reset);
        }
    }

    /// The next line of the input, at most as long as `limit` says for its beginning.
    pub(crate) fn line(&mut self, limit: impl Fn(&[u8]) -> usize) -> LineInput {
        let Some(lf) = memchr(b'\n', &self.input) else {
            if self.skipping || self.input.len() > limit(&self.input) {
                self.skipping = true;
                self.input.clear();
            }
            return LineInput::Partial;
        };
        self.progress = true;
        let too_long = std::mem::take(&mut self.skipping) || lf + 1 > limit(&self.input[..lf]);
        let mut line = self.input.split_to(lf + 1);
        line.truncate(lf);
        if too_long {
            return LineInput::TooLong;
        }
        if line.last() == Some(&b'\r') {
            line.truncate(lf - 1);
        } else if self.config.leniency.bare_lf == BareLf::Refuse {
            return LineInput::BareLf;
        }
        LineInput::Whole(line)
    }

    /// The next command line, or what is the matter with it.
    pub(crate) fn command_line(&mut self) -> Result<Option<BytesMut>, SessionFault> {
        // A TLS record of type handshake, version 3.x: nobody's SMTP begins like that.
        if let [0x16, 3, ..] = self.input[..] {
            return Err(SessionFault::OtherProtocol(OtherProtocol::Tls));
        }
        let limits = self.config.limits;
        match self.line(|start| limits.command_line + extra_length(start, limits.auth_line)) {
            LineInput::Partial => Ok(None),
            LineInput::Whole(line) => Ok(Some(line)),
            LineInput::TooLong => Err(SessionFault::LineTooLong),
            LineInput::BareLf => Err(SessionFault::Syntax(Syntax::LineEnd)),
        }
    }

    /// Gives memory back while nothing is going on.
    pub(crate) fn shrink(&mut self) {
        if self.input.is_empty() && self.input.capacity() > IDLE_BUFFER {
            self.input = BytesMut::new();
        }
    }

    /// What is to be sent.
    pub(crate) fn take_output(&mut self) -> Option<Bytes> {
        (!self.output.is_empty()).then(|| self.output.split().freeze())
    }
}

/// What extensions add to the length of a command: SIZE 26 (RFC 1870 section 3), BODY 17 (RFC 6152 section 2), SMTPUTF8 10
/// (RFC 6531 section 3.4), AUTH 500 (RFC 4954 section 5), DSN 500 on either command (RFC 3461 section 4).
fn extra_length(start: &[u8], auth_line: usize) -> usize {
    let verb = |verb: &[u8]| start.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(verb));
    if verb(b"MAIL") {
        26 + 17 + 10 + 500 + 500
    } else if verb(b"RCPT") {
        500
    } else if verb(b"AUTH") {
        auth_line
    } else {
        0
    }
}
