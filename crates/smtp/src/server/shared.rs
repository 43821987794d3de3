//! What all states of a server session share: input and output buffers, events, counters.
//!
//! Every reply is written here, so that each refusal contains the session's id, each fault becomes an event, and a
//! session that sends too many useless commands is closed. What only one state needs, it owns.

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

/// An empty input buffer with a larger capacity than this, in octets, is freed: most sessions are idle, and there are
/// many.
const IDLE_BUFFER: usize = 4096;

/// The part of a session that all states share.
pub(crate) struct Core {
    pub(crate) config: Arc<Config>,
    pub(crate) input: BytesMut,
    pub(crate) output: BytesMut,
    pub(crate) events: VecDeque<Event>,
    /// The time of the host's last call.
    pub(crate) now: Instant,
    pub(crate) tls: bool,
    pub(crate) identity: Option<String>,
    /// The reply to send once no transaction is open, and why the session ends then.
    pub(crate) draining: Option<(Reply, Closed)>,
    /// Whether the client will send no more.
    pub(crate) eof: bool,
    /// Whether the client has done something since the deadline was last set that extends it.
    pub(crate) progress: bool,
    session_id: Option<String>,
    /// Whether the host knows of an open transaction.
    in_transaction: bool,
    /// Whether the rest of a line that is too long is being skipped.
    skipping: bool,
    counts: SessionCounts,
}

#[derive(Debug, Default)]
struct SessionCounts {
    bad_commands: u32,
    idle_commands: u32,
    auth_failures: u32,
    messages: u32,
    /// Commands that may still fail only because an earlier one was refused.
    consequences: u32,
}

/// A line of the input, or why there is none.
pub(crate) enum LineInput {
    Partial,
    /// A line without its line end.
    Whole(BytesMut),
    /// The line was too long and has been dropped.
    TooLong,
    /// The line ends in LF alone, which the configuration refuses.
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

    /// Queues a reply that is not a refusal.
    pub(crate) fn reply(&mut self, reply: &Reply) {
        reply.write_to(&mut self.output);
    }

    /// Queues a refusal, with the session's id in its text.
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

    /// Refuses a command because of a fault. The session continues in `next`, or ends if there were too many bad
    /// commands.
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

    /// Ends the session because of a fault.
    pub(crate) fn fail(&mut self, fault: SessionFault) -> SessionState {
        let mut reply = fault.reply();
        if reply.severity() == Severity::Transient {
            // RFC 5321 section 3.8: a server that closes temporarily replies 421.
            reply.code = 421;
        }
        self.event(Event::Fault(fault.clone()));
        self.close(Some(reply), Closed::Fault(fault))
    }

    /// Ends the session, with a final refusal if one is given. A question or a TLS handshake that the host has not polled
    /// yet is void.
    pub(crate) fn close(&mut self, last: Option<Reply>, why: Closed) -> SessionState {
        if let Some(reply) = last {
            self.refuse(reply);
        }
        self.events.retain(|event| !matches!(event, Event::Ask(_) | Event::StartTls));
        self.reset();
        self.event(Event::Closed(why));
        self.input = BytesMut::new();
        SessionState::Closed
    }

    /// Ends the session if the host has requested it with a drain.
    pub(crate) fn drained(&mut self) -> Option<SessionState> {
        let (reply, why) = self.draining.take()?;
        Some(self.close(Some(reply), why))
    }

    /// Refuses with the host's reply; a 421 ends the session (RFC 5321 section 3.8).
    pub(crate) fn refuse_with(
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

    pub(crate) fn close_with(&mut self, wish: Reply) -> SessionState {
        let reply = replies::negative(wish, &replies::CLOSING);
        self.close(Some(reply), Closed::Host)
    }

    /// Replies to a command that does not advance a message.
    pub(crate) fn idle(&mut self, reply: &Reply, next: impl Into<SessionState>) -> SessionState {
        if self.is_idle_too_long() {
            return self.fail(SessionFault::TooManyIdleCommands);
        }
        self.reply(reply);
        next.into()
    }

    /// Counts a command that does not advance a message. Returns true if there were too many.
    pub(crate) fn is_idle_too_long(&mut self) -> bool {
        self.counts.idle_commands += 1;
        self.counts.idle_commands > self.config.limits.idle_commands
    }

    /// Counts a failed authentication. Returns true if it was the last one allowed.
    pub(crate) fn is_last_login(&mut self) -> bool {
        self.counts.auth_failures += 1;
        self.counts.auth_failures >= self.config.limits.auth_failures
    }

    /// Called when MAIL, RCPT or a chunk was refused. A pipelining client may already have sent commands that depend on
    /// it (RFC 2920 section 3.1, RFC 3030 section 4.2): at most as many recipients as a message may have, and DATA.
    pub(crate) fn expect_consequences(&mut self) {
        self.counts.consequences = self.config.limits.recipients.saturating_add(1);
    }

    /// Whether a fault only follows from an earlier refusal. Each one uses up the allowance, so that the client cannot
    /// continue forever.
    fn is_consequence(&mut self, fault: &SessionFault) -> bool {
        let follows = fault.follows_refusal() && self.counts.consequences > 0;
        self.counts.consequences -= u32::from(follows);
        follows
    }

    /// Called when the host has accepted a sender.
    pub(crate) fn begin_transaction(&mut self) {
        self.in_transaction = true;
        self.counts.consequences = 0;
    }

    /// Called when the host has decided on the message; no [`Event::Reset`] is due then. An accepted message resets the
    /// counters, except those of messages and failed authentications.
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

    /// Tells the host to discard the transaction, if there is one.
    pub(crate) fn reset(&mut self) {
        if std::mem::take(&mut self.in_transaction) {
            self.event(Event::Reset);
        }
    }

    /// Takes the next line from the input. `limit` returns its maximum length, given its beginning.
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

    /// Takes the next command line.
    pub(crate) fn command_line(&mut self) -> Result<Option<BytesMut>, SessionFault> {
        // A TLS handshake record, version 3.x: no SMTP command begins like that.
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

    /// Frees memory while the session is idle.
    pub(crate) fn shrink(&mut self) {
        if self.input.is_empty() && self.input.capacity() > IDLE_BUFFER {
            self.input = BytesMut::new();
        }
    }

    /// Takes all output that is to be sent.
    pub(crate) fn take_output(&mut self) -> Option<Bytes> {
        (!self.output.is_empty()).then(|| self.output.split().freeze())
    }
}

/// How much extensions add to the length of a command: SIZE 26 (RFC 1870 section 3), BODY 17 (RFC 6152 section 2),
/// SMTPUTF8 10 (RFC 6531 section 3.4), PRDR 5 (a blank and the keyword), AUTH 500 (RFC 4954 section 5), DSN 500 on
/// either command (RFC 3461 section 4).
fn extra_length(start: &[u8], auth_line: usize) -> usize {
    let verb = |verb: &[u8]| start.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(verb));
    if verb(b"MAIL") {
        26 + 17 + 10 + 5 + 500 + 500
    } else if verb(b"RCPT") {
        500
    } else if verb(b"AUTH") {
        auth_line
    } else {
        0
    }
}
