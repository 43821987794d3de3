//! What a session reports: events for the host, an outcome for each recipient, and why the session ended.
//!
//! Each recipient of a transaction that [`send`](super::Session::send) accepted gets exactly one [`RecipientOutcome`],
//! whatever the next hop does. If the next hop gave no reply, one is made up here, in words that can be quoted in a
//! bounce.

use std::fmt;

use pintle_mail::{EnhancedCode, Envelope, Reply, Severity};

use super::config::Transfer;
use super::reply_reader::ReplyFault;

/// What the host must know or do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The next hop waits for a TLS handshake. Call [`tls_started`](super::Session::tls_started) when it is done. If it
    /// fails, drop the session: retrying in plaintext needs a new connection.
    StartTls,
    /// A transaction may be sent. Comes after the set-up and after every [`Event::Done`].
    Ready,
    /// The next piece of the message is needed: call [`body`](super::Session::body) or
    /// [`end_of_body`](super::Session::end_of_body), once for each such event.
    NeedBody,
    /// A transaction is over; these are its outcomes.
    Done(Delivery),
    /// The session is over. Write what [`poll_transmit`](super::Session::poll_transmit) still returns, if the
    /// connection accepts it, and close without waiting. No event follows.
    Closed(Closed),
}

/// What to deliver: one message for some recipients at one next hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Reverse-path, parameters, and the recipients that this next hop serves (at least one).
    pub envelope: Envelope,
    /// The size of the message in octets, header and body, as it will be passed; for SIZE (RFC 1870).
    pub size: u64,
    /// Whether the message is 7-bit, and where it is not.
    pub content: ContentClass,
}

/// Which octets a message contains, as found in it and not as its sender declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ContentClass {
    /// US-ASCII in header and body.
    #[default]
    SevenBit,
    /// 8-bit octets, but only in the body.
    EightBitBody,
    /// 8-bit octets in the header; with SMTPUTF8 in the envelope it may only go to a next hop that offers SMTPUTF8.
    EightBitHeader,
}

/// The outcomes of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// One outcome for each recipient, in the order of the envelope.
    pub recipients: Vec<RecipientOutcome>,
    /// Whether the sender's DSN parameters were relayed.
    pub dsn: DsnRelay,
    /// How the body was sent, or would have been.
    pub transfer: Transfer,
    /// Why the session ended during the transaction, if it did.
    pub ended: Option<Closed>,
}

impl Delivery {
    /// Whether recipients are left only because the next hop accepts no more in one transaction: try those again at
    /// once.
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
    /// The recipient's id within the message: [`Recipient::id`](pintle_mail::Recipient::id).
    pub id: u32,
    /// Delivered, deferred or failed, with the reply.
    pub outcome: ReplyOutcome,
    /// Who gave the reply in `outcome`.
    pub speaker: Speaker,
    /// The command that decided the outcome.
    pub step: DialogueStep,
    /// The session ended before the next hop answered for this recipient; the reply is about the session.
    pub cut: bool,
}

/// The result for one recipient, with the reply that decided it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyOutcome {
    /// The next hop has taken responsibility (2xx).
    Delivered(Reply),
    /// A temporary failure: try again later. The reply may have a 5xx code where an RFC requires it to be taken as
    /// temporary.
    Deferred(Reply),
    /// A permanent failure (5xx): the recipient is not retried.
    Failed(Reply),
}

impl ReplyOutcome {
    /// Returns the reply that decided the outcome.
    #[must_use]
    pub fn reply(&self) -> &Reply {
        match self {
            Self::Delivered(reply) | Self::Deferred(reply) | Self::Failed(reply) => reply,
        }
    }

    /// Returns the outcome for a negative reply: 5xx fails, anything else is deferred.
    pub(crate) fn refused(reply: Reply) -> Self {
        if reply.severity() == Severity::Permanent { Self::Failed(reply) } else { Self::Deferred(reply) }
    }
}

/// Who gave a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// The next hop, on the wire.
    NextHop,
    /// This gateway, because the next hop gave no reply, or because the answer was known beforehand.
    Us,
}

/// Whether DSN parameters (RFC 3461) were relayed to the next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DsnRelay {
    /// The next hop offers DSN and reports from now on.
    HandedOn,
    /// The next hop does not offer DSN: if the sender asked for `NOTIFY=SUCCESS`, a "relayed" report is due (RFC 3461
    /// section 6.1).
    NotOffered,
}

/// A step of the dialogue, named by the command that is being answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DialogueStep {
    /// Waiting for the greeting.
    Greeting,
    /// EHLO, HELO or LHLO.
    Hello,
    /// STARTTLS and the handshake.
    StartTls,
    /// AUTH (RFC 4954), including its challenges.
    Auth,
    /// Between transactions, when no command is pending.
    Idle,
    /// MAIL, or before it.
    Mail,
    /// RCPT for any recipient.
    Rcpt,
    /// DATA, until its 354 reply.
    Data,
    /// The body is being sent.
    Body,
    /// After the final dot or the last chunk.
    End,
    /// QUIT, until its reply.
    Quit,
}

impl fmt::Display for DialogueStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Greeting => "waiting for the greeting",
            Self::Hello => "sending EHLO or LHLO",
            Self::StartTls => "starting TLS",
            Self::Auth => "authenticating",
            Self::Idle => "between transactions",
            Self::Mail => "sending MAIL",
            Self::Rcpt => "sending RCPT",
            Self::Data => "sending DATA",
            Self::Body => "sending the message",
            Self::End => "waiting for the final reply",
            Self::Quit => "sending QUIT",
        })
    }
}

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closed {
    /// We sent QUIT, and either it was answered or no answer is needed.
    Quit,
    /// The next hop refused to serve this session.
    Refused {
        /// The step that was refused; 421 may come at any.
        step: DialogueStep,
        /// The next hop's reply, 4xx or 5xx.
        reply: Reply,
    },
    /// The connection was lost.
    Lost(DialogueStep),
    /// The next hop took longer than [`Timeouts`](super::Timeouts) allow.
    TimedOut(DialogueStep),
    /// The next hop broke the protocol.
    Fault {
        /// The step in which it did.
        step: DialogueStep,
        /// How the next hop broke the protocol.
        fault: ProtocolFault,
    },
    /// The next hop does not offer what our configuration requires.
    Lacking(Lack),
    /// The host called [`abandon`](super::Session::abandon).
    Abandoned(DialogueStep),
}

/// How a next hop broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtocolFault {
    /// The bytes it sent are not a reply.
    Reply(ReplyFault),
    /// A reply with this code came without a command.
    Unsolicited(u16),
    /// A reply whose code has no meaning at this step.
    Unexpected(u16),
    /// Plaintext followed the reply to STARTTLS: an injection, or a faulty server (RFC 3207 section 6).
    PlaintextAfterStartTls,
    /// A challenge of AUTH that the mechanism has no response to.
    Challenge,
}

/// What our configuration requires and a next hop does not offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lack {
    /// TLS is required, and STARTTLS is not offered.
    StartTls,
    /// There are credentials, and no mechanism for them is offered.
    Auth,
    /// There are credentials that must not be sent without TLS.
    AuthWithoutTls,
    /// There are credentials that must not be sent to a host whose certificate was not verified.
    AuthUnverified,
}

/// Who must act on the end of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// No one: the session ended normally.
    Nobody,
    /// The operator of the next hop, or of the network in between.
    NextHop,
    /// Our operator: the next hop refuses our credentials, or does not offer what the configuration requires.
    Operator,
    /// Our own host program.
    Us,
}

impl Closed {
    /// Returns who must act.
    #[must_use]
    pub fn owner(&self) -> Owner {
        match self {
            Self::Quit => Owner::Nobody,
            Self::Refused { step: DialogueStep::Auth, .. } | Self::Lacking(_) => Owner::Operator,
            Self::Refused { .. } | Self::Lost(_) | Self::TimedOut(_) | Self::Fault { .. } => Owner::NextHop,
            Self::Abandoned(_) => Owner::Us,
        }
    }

    /// Returns the step at which the session ended.
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

    /// Returns who gave [`Self::reply`].
    #[must_use]
    pub fn speaker(&self) -> Speaker {
        match self {
            Self::Refused { .. } => Speaker::NextHop,
            _ => Speaker::Us,
        }
    }

    /// Returns the reply to record for recipients without one of their own: the next hop's reply that ended the
    /// session, or a 4xx of ours.
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
            Self::Unsolicited(code) => write!(f, "unsolicited reply {code}"),
            Self::Unexpected(code) => write!(f, "unexpected reply code {code}"),
            Self::PlaintextAfterStartTls => f.write_str("plaintext followed the reply to STARTTLS"),
            Self::Challenge => f.write_str("authentication challenge cannot be answered"),
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

/// Whether a reply of a next hop concerns it as a whole rather than one message: 421, or a transient system status 4.3.1
/// or 4.3.2 (RFC 3463 section 3.4). The queue then defers everything for that next hop.
#[must_use]
pub fn is_hop_trouble(reply: &Reply) -> bool {
    // RFC 5321 section 3.8: 421 may answer any command and announces the end of service.
    reply.code == 421
        || (reply.severity() == Severity::Transient
            && matches!(reply.enhanced, Some(EnhancedCode(4, 3, 1 | 2))))
}

/// Whether a reply to MAIL, RCPT or DATA says that STARTTLS must come first (RFC 3207 section 4; RFC 5248: X.7.10,
/// encryption needed).
#[must_use]
pub fn demands_tls(reply: &Reply) -> bool {
    reply.code == 530 || matches!(reply.enhanced, Some(EnhancedCode(5, 7, 10)))
}

/// Whether a reply to RCPT says that the transaction is full, rather than that this recipient is refused.
pub(crate) fn is_too_many_recipients(reply: &Reply) -> bool {
    // RFC 5321 section 4.5.3.1.10: 452, or 552 from older servers, which is to be taken as 452. If there is an enhanced
    // code, it distinguishes a full mailbox (X.2.2) or a full disk (X.3.1) from too many recipients (X.5.3); X.5.3
    // means too many recipients with any other code (RFC 3463 section 3.6 has the client divide the recipients).
    matches!((reply.code, reply.enhanced), (452 | 552, None) | (_, Some(EnhancedCode(_, 5, 3))))
}

fn ours(enhanced: EnhancedCode, text: &impl fmt::Display) -> Reply {
    Reply::new(451, enhanced, text.to_string())
}
