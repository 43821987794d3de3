//! What comes out of a session: events for the host, an outcome for every recipient, and the reason for its end.
//!
//! Each recipient of a transaction that [`send`](super::Session::send) took gets exactly one [`Outcome`], whatever the
//! next hop does; a reply that the next hop never gave is made up here, in words fit for a bounce.

use std::fmt;

use pintle_mail::{EnhancedCode, Envelope, Reply, Severity};

use super::config::Transfer;
use super::reply_reader::ReplyFault;

/// What the host must know or do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The next hop awaits a TLS handshake. When it is done, call [`tls_started`](super::Session::tls_started); when it
    /// fails, drop the session: a plain retry needs a new connection.
    StartTls,
    /// A transaction may be sent. Comes after the set-up, after every [`Event::Done`], and after a good probe.
    Ready,
    /// The next piece of the message is wanted: answer with [`body`](super::Session::body) or
    /// [`end_of_body`](super::Session::end_of_body), once for each such event.
    NeedBody,
    /// A transaction is over.
    Done(Delivery),
    /// The session is over: write what [`poll_transmit`](super::Session::poll_transmit) still gives, if the connection
    /// can take it, and close without waiting. Nothing follows.
    Closed(Closed),
}

/// What is to be delivered: one message for some recipients at one next hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Reverse-path, parameters, and those recipients that this next hop serves (at least one).
    pub envelope: Envelope,
    /// The message's octets, header and body, as they will be given; for SIZE (RFC 1870).
    pub size: u64,
    /// Which octets the message holds.
    pub content: Content,
}

/// Which octets a message holds; more than its sender claimed, or less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Content {
    /// US-ASCII throughout.
    #[default]
    SevenBit,
    /// 8-bit octets, but only in the body.
    EightBitBody,
    /// 8-bit octets in the header; with SMTPUTF8 in the envelope it may only go where SMTPUTF8 is offered.
    EightBitHeader,
}

/// What became of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// One outcome for each recipient, in the order of the envelope.
    pub recipients: Vec<RecipientOutcome>,
    /// Whether the sender's wishes about reports went along.
    pub dsn: DsnRelay,
    /// How the message travelled, or would have.
    pub transfer: Transfer,
    /// Why the session ended under it, if it did.
    pub ended: Option<Closed>,
}

impl Delivery {
    /// The reply that speaks for the next hop as a whole rather than for this message, if there was one: 421, or a
    /// system status 4.3.1 or 4.3.2 (RFC 3463 section 3.4). The queue then puts off the whole next hop.
    #[must_use]
    pub fn hop_trouble(&self) -> Option<&Reply> {
        self.recipients.iter().find_map(|recipient| match &recipient.outcome {
            ReplyOutcome::Deferred(reply)
                if recipient.speaker == Speaker::NextHop && is_hop_trouble(reply) =>
            {
                Some(reply)
            }
            _ => None,
        })
    }

    /// Whether recipients are left only because the next hop took no more in one transaction: try those at once.
    #[must_use]
    pub fn has_overflow(&self) -> bool {
        let delivered = |r: &RecipientOutcome| matches!(r.outcome, ReplyOutcome::Delivered(_));
        let overflow = |r: &RecipientOutcome| {
            r.step == DialogueStep::Rcpt
                && matches!(&r.outcome, ReplyOutcome::Deferred(reply) if is_too_many_recipients(reply))
        };
        self.recipients.iter().any(delivered) && self.recipients.iter().any(overflow)
    }
}

/// One recipient's part of a [`Delivery`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecipientOutcome {
    /// [`Recipient::id`](pintle_mail::Recipient::id).
    pub id: u32,
    /// What became of it.
    pub outcome: ReplyOutcome,
    /// Whose words the outcome's reply holds.
    pub speaker: Speaker,
    /// Where in the dialogue it was decided.
    pub step: DialogueStep,
    /// The session ended before anything was said of this recipient; the reply is about the session.
    pub cut: bool,
}

/// What became of one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyOutcome {
    /// The next hop has taken responsibility.
    Delivered(Reply),
    /// Not now. The reply may bear a 5xx code where an RFC wants that taken as temporary.
    Deferred(Reply),
    /// Never in this form.
    Failed(Reply),
}

impl ReplyOutcome {
    /// The reply that decided.
    #[must_use]
    pub fn reply(&self) -> &Reply {
        match self {
            Self::Delivered(reply) | Self::Deferred(reply) | Self::Failed(reply) => reply,
        }
    }

    /// The outcome that a negative reply stands for; anything that is not 5xx is worth another try.
    pub(crate) fn refused(reply: Reply) -> Self {
        if reply.severity() == Severity::Permanent { Self::Failed(reply) } else { Self::Deferred(reply) }
    }
}

/// Who spoke a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// The next hop, on the wire.
    NextHop,
    /// This machine, for want of a word from the next hop, or because it knew the answer beforehand.
    Us,
}

/// Whether DSN parameters (RFC 3461) went along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DsnRelay {
    /// The next hop offers DSN: it reports from now on.
    HandedOn,
    /// It does not: whoever asked for `NOTIFY=SUCCESS` is due a "relayed" report (RFC 3461 section 6.1).
    NotOffered,
}

/// Where in the dialogue something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DialogueStep {
    /// Waiting for the greeting.
    Greeting,
    /// EHLO, HELO or LHLO.
    Hello,
    /// STARTTLS and the handshake.
    StartTls,
    /// AUTH.
    Auth,
    /// Between transactions.
    Idle,
    /// MAIL, or before it.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA, until 354.
    Data,
    /// The body is on its way.
    Body,
    /// After the final dot or the last chunk.
    End,
    /// RSET or NOOP.
    Probe,
    /// QUIT.
    Quit,
}

impl fmt::Display for DialogueStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Greeting => "waiting for the greeting",
            Self::Hello => "saying hello",
            Self::StartTls => "starting TLS",
            Self::Auth => "authenticating",
            Self::Idle => "between transactions",
            Self::Mail => "sending MAIL",
            Self::Rcpt => "sending RCPT",
            Self::Data => "sending DATA",
            Self::Body => "sending the message",
            Self::End => "waiting for the final reply",
            Self::Probe => "probing the session",
            Self::Quit => "sending QUIT",
        })
    }
}

/// Why a session is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closed {
    /// We said QUIT, and it was answered or need not be.
    Quit,
    /// The next hop will not serve this session; its own words.
    Refused {
        /// Which step was refused; 421 may come at any.
        step: DialogueStep,
        /// 4xx or 5xx.
        reply: Reply,
    },
    /// The connection ended under us.
    Lost(DialogueStep),
    /// The next hop took longer than [`Timeouts`](super::Timeouts) allow.
    TimedOut(DialogueStep),
    /// The next hop broke the protocol.
    Fault {
        /// In which step.
        step: DialogueStep,
        /// How.
        fault: ProtocolFault,
    },
    /// The next hop cannot do what our configuration demands.
    Lacking(Lack),
    /// The host gave up ([`abandon`](super::Session::abandon)).
    Abandoned(DialogueStep),
}

/// How a next hop broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtocolFault {
    /// What it sent is no reply.
    Reply(ReplyFault),
    /// It spoke without having been asked.
    Unsolicited(u16),
    /// This code means nothing where it came.
    Unexpected(u16),
    /// Plaintext followed the reply to STARTTLS: an injection, or a very broken server (RFC 3207 section 6).
    PlaintextAfterStartTls,
    /// The challenge of AUTH is none we can answer.
    Challenge,
}

/// What a next hop lacks that our configuration demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lack {
    /// TLS is required, and STARTTLS is not offered.
    StartTls,
    /// There are credentials, and no mechanism for them is offered.
    Auth,
    /// There are credentials which must not be said without TLS.
    AuthWithoutTls,
    /// There are credentials which must not be said to a host that nobody verified.
    AuthUnverified,
}

/// Who must act on a session's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Nobody: a session ended as it should.
    Nobody,
    /// Whoever runs the next hop, or the network in between.
    NextHop,
    /// Whoever configured us: the next hop refuses our credentials or cannot do what was demanded.
    Operator,
    /// Our own host program.
    Us,
}

impl Closed {
    /// Who must act.
    #[must_use]
    pub fn owner(&self) -> Owner {
        match self {
            Self::Quit => Owner::Nobody,
            Self::Refused { step: DialogueStep::Auth, .. } | Self::Lacking(_) => Owner::Operator,
            Self::Refused { .. } | Self::Lost(_) | Self::TimedOut(_) | Self::Fault { .. } => Owner::NextHop,
            Self::Abandoned(_) => Owner::Us,
        }
    }

    /// Where in the dialogue the session ended.
    #[must_use]
    pub fn step(&self) -> DialogueStep {
        match self {
            Self::Quit => DialogueStep::Quit,
            Self::Refused { step, .. }
            | Self::Fault { step, .. }
            | Self::Lost(step)
            | Self::TimedOut(step)
            | Self::Abandoned(step) => *step,
            Self::Lacking(Lack::StartTls) => DialogueStep::StartTls,
            Self::Lacking(Lack::Auth | Lack::AuthWithoutTls | Lack::AuthUnverified) => DialogueStep::Auth,
        }
    }

    /// Who spoke [`Self::reply`].
    #[must_use]
    pub fn speaker(&self) -> Speaker {
        match self {
            Self::Refused { .. } => Speaker::NextHop,
            _ => Speaker::Us,
        }
    }

    /// The reply to record for recipients that this end leaves without one: the next hop's own, or one of ours, 4xx.
    #[must_use]
    pub fn reply(&self) -> Reply {
        match self {
            Self::Refused { reply, .. } => reply.clone(),
            // RFC 3463 section 3.5: X.4.2 bad connection, X.4.1 no answer; section 3.6: X.5.0 protocol status.
            Self::Lost(_) | Self::Abandoned(_) | Self::Quit => ours(EnhancedCode(4, 4, 2), self),
            Self::TimedOut(_) => ours(EnhancedCode(4, 4, 1), self),
            Self::Fault { .. } => ours(EnhancedCode(4, 5, 0), self),
            // RFC 3463 section 3.8: X.7.4 security features not supported.
            Self::Lacking(_) => ours(EnhancedCode(4, 7, 4), self),
        }
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quit => f.write_str("the session was closed"),
            Self::Refused { step, reply } => write!(f, "refused while {step}: {reply}"),
            Self::Lost(DialogueStep::End) => {
                f.write_str("connection lost after the end of the message; it may have arrived all the same")
            }
            Self::Lost(step) => write!(f, "connection lost while {step}"),
            Self::TimedOut(step) => write!(f, "timed out while {step}"),
            Self::Fault { step, fault } => write!(f, "protocol fault of the next hop while {step}: {fault}"),
            Self::Lacking(lack) => write!(f, "{lack}"),
            Self::Abandoned(step) => write!(f, "given up while {step}"),
        }
    }
}

impl fmt::Display for ProtocolFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reply(fault) => write!(f, "{fault}"),
            Self::Unsolicited(code) => write!(f, "a reply {code} that nobody asked for"),
            Self::Unexpected(code) => write!(f, "code {code} has no meaning there"),
            Self::PlaintextAfterStartTls => f.write_str("plaintext followed the reply to STARTTLS"),
            Self::Challenge => f.write_str("an authentication challenge that cannot be answered"),
        }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StartTls => "TLS is required, and the next hop does not offer STARTTLS",
            Self::Auth => "the next hop offers neither AUTH PLAIN nor AUTH LOGIN",
            Self::AuthWithoutTls => {
                "credentials must not be sent without TLS, which the next hop does not offer"
            }
            Self::AuthUnverified => {
                "credentials must not be sent to a next hop whose certificate has not been verified"
            }
        })
    }
}

/// Whether a reply speaks for the whole next hop: see [`Delivery::hop_trouble`].
#[must_use]
pub fn is_hop_trouble(reply: &Reply) -> bool {
    // RFC 5321 section 3.8: 421 may answer any command and announces the end of service.
    reply.code == 421
        || (reply.severity() == Severity::Transient
            && matches!(reply.enhanced, Some(EnhancedCode(4, 3, 1 | 2))))
}

/// Whether a reply to MAIL, RCPT or DATA says that TLS has to be begun first (RFC 3207 section 4; RFC
/// 5248: X.7.10, encryption needed).
#[must_use]
pub fn demands_tls(reply: &Reply) -> bool {
    reply.code == 530 || matches!(reply.enhanced, Some(EnhancedCode(5, 7, 10)))
}

/// Whether a reply to RCPT says that the transaction is full rather than that this recipient is refused.
pub(crate) fn is_too_many_recipients(reply: &Reply) -> bool {
    // RFC 5321 section 4.5.3.1.10: 452, or 552 from older servers, which is to be taken as 452. An enhanced code tells
    // a full mailbox (X.2.2) or a full disk (X.3.1) apart from too many recipients (X.5.3), where there is one; X.5.3 says
    // it with any other code (RFC 3463 section 3.6 has the client divide the recipients).
    matches!((reply.code, reply.enhanced), (452 | 552, None) | (_, Some(EnhancedCode(_, 5, 3))))
}

fn ours(enhanced: EnhancedCode, text: &impl fmt::Display) -> Reply {
    Reply::new(451, enhanced, text.to_string())
}
