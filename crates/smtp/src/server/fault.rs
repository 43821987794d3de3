//! What can go wrong in a server session: who must act, the reply text and code, the log level, the counter.
//!
//! Each [`SessionFault`] has one owner, one reply, one log level and one counter name, so that the wire, the log and
//! the metrics agree.

use std::borrow::Cow;
use std::fmt;

use pintle_mail::{AddressError, EnhancedCode, Reply};

/// A mistake of the client or the host, or an exceeded limit, in a server session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionFault {
    /// The client sent something before the greeting.
    EarlyTalk,
    /// The command is unknown.
    UnknownCommand,
    /// The command is known and not served: EXPN, TURN and the like, or one whose extension is not offered.
    NotImplemented,
    /// The command's argument violates its grammar.
    Syntax(Syntax),
    /// The command is not allowed now (RFC 5321 section 4.1.4).
    Sequence(Sequence),
    /// The address of MAIL is malformed.
    SenderAddress(AddressError),
    /// The address of RCPT is malformed.
    RecipientAddress(AddressError),
    /// A parameter of MAIL or RCPT that is not offered.
    UnknownParameter(String),
    /// An offered parameter with an invalid value, or given twice.
    BadParameter(String),
    /// The command needs TLS first.
    TlsRequired,
    /// The command needs authentication first.
    AuthRequired,
    /// The SASL mechanism is not offered.
    UnknownMechanism,
    /// AUTH without TLS, which would expose the password.
    AuthNeedsTls,
    /// The client sent `*` instead of a SASL response.
    AuthCancelled,
    /// The SASL response is not base64, or does not fit the mechanism.
    BadAuthResponse,
    /// Bytes followed STARTTLS before the handshake; they were discarded (CVE-2011-0411).
    PlaintextBehindStartTls,
    /// The TLS handshake failed.
    TlsFailed,
    /// The client speaks HTTP, or TLS on a plaintext port.
    OtherProtocol(OtherProtocol),
    /// The size in BDAT is not a number, so the start of the next command is unknown.
    ChunkSize,
    /// The message contains a CR without LF.
    BareCr,
    /// The message contains a LF without CR, and the configuration refuses it.
    BareLf,
    /// The message contains a NUL octet.
    Nul,
    /// A command line exceeds its limit.
    LineTooLong,
    /// A line of an AUTH exchange exceeds its limit.
    AuthLineTooLong,
    /// The message has more recipients than allowed.
    TooManyRecipients,
    /// The message is larger than SIZE allows, as declared by the client or as counted.
    MessageTooBig,
    /// The header is larger than allowed.
    HeaderTooBig,
    /// The client sent too many commands that were refused.
    TooManyBadCommands,
    /// The client sent too many commands that do not advance a message.
    TooManyIdleCommands,
    /// Authentication failed too often.
    TooManyAuthFailures,
    /// The client sent more messages in one session than allowed.
    TooManyMessages,
    /// The client did not send anything in time.
    Timeout,
    /// The host gave an answer that does not fit the question, or passed bytes when none were wanted.
    HostMisuse(Misuse),
}

/// What is wrong with a command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    /// It contains control characters, or octets that are not UTF-8.
    Characters,
    /// It ends in LF alone, and the configuration refuses that.
    LineEnd,
    /// It has an argument, and the command takes none.
    UnexpectedArgument,
    /// EHLO or HELO without a usable host name.
    Hello,
    /// MAIL without `FROM:`, or RCPT without `TO:`.
    Path,
    /// Something other than parameters follows the path.
    Parameters,
    /// VRFY without an argument, AUTH without a mechanism.
    MissingArgument,
}

/// Why a command is out of sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sequence {
    /// EHLO or HELO must come first.
    HelloFirst,
    /// EHLO must come first, because the command belongs to an extension.
    EhloFirst,
    /// MAIL must come first.
    MailFirst,
    /// BDAT without an accepted recipient.
    RecipientFirst,
    /// DATA without an accepted recipient.
    NoRecipients,
    /// The command is not allowed within a transaction.
    InTransaction,
    /// After BDAT only BDAT or RSET may follow.
    InChunks,
    /// TLS is already active.
    TlsAlready,
    /// The client is already authenticated.
    AuthAlready,
    /// The greeting was a refusal; only QUIT is allowed (RFC 5321 section 3.1).
    TurnedAway,
}

/// What the client speaks instead of SMTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherProtocol {
    /// HTTP, recognized by its methods.
    Http,
    /// A TLS handshake on a plaintext port.
    Tls,
}

/// A mistake of the host program in its use of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misuse {
    /// The answer does not fit the open question.
    WrongAnswer,
    /// An answer came while no question was open.
    NoQuestion,
    /// More than [`super::config::Limits::input`] bytes came while none were wanted.
    Overfed,
    /// A handshake result came while no handshake was pending.
    NoHandshake,
}

/// Who must act on a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultOwner {
    /// The client broke the protocol.
    PeerMisbehaved,
    /// The client wants something that the server does not offer.
    PeerIncompatible,
    /// The client exceeded a limit that the operator set.
    LimitExceeded,
    /// A fault of this gateway.
    Us,
}

/// The log level of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultLevel {
    /// Normal operation; nothing to act on.
    Debug,
    /// Useful when a complaint is investigated.
    Info,
    /// An operator should look at it.
    Warn,
    /// A bug in this gateway.
    Error,
}

impl SessionFault {
    /// Returns who must act.
    #[must_use]
    pub fn owner(&self) -> FaultOwner {
        match self {
            Self::NotImplemented
            | Self::UnknownParameter(_)
            | Self::TlsRequired
            | Self::AuthRequired
            | Self::UnknownMechanism
            | Self::AuthNeedsTls
            | Self::AuthCancelled
            | Self::TlsFailed => FaultOwner::PeerIncompatible,
            Self::LineTooLong
            | Self::AuthLineTooLong
            | Self::TooManyRecipients
            | Self::MessageTooBig
            | Self::HeaderTooBig
            | Self::TooManyBadCommands
            | Self::TooManyIdleCommands
            | Self::TooManyAuthFailures
            | Self::TooManyMessages
            | Self::Timeout => FaultOwner::LimitExceeded,
            Self::HostMisuse(_) => FaultOwner::Us,
            _ => FaultOwner::PeerMisbehaved,
        }
    }

    /// Returns the level to log it at.
    #[must_use]
    pub fn level(&self) -> FaultLevel {
        match self {
            Self::HostMisuse(_) => FaultLevel::Error,
            Self::PlaintextBehindStartTls | Self::TooManyAuthFailures => FaultLevel::Warn,
            Self::AuthCancelled | Self::NotImplemented | Self::UnknownCommand | Self::Timeout => {
                FaultLevel::Debug
            }
            _ => FaultLevel::Info,
        }
    }

    /// Returns its name in the metrics, in snake case.
    #[must_use]
    pub fn counter(&self) -> &'static str {
        match self {
            Self::EarlyTalk => "early_talk",
            Self::UnknownCommand => "unknown_command",
            Self::NotImplemented => "not_implemented",
            Self::Syntax(_) => "syntax",
            Self::Sequence(_) => "sequence",
            Self::SenderAddress(_) => "sender_address",
            Self::RecipientAddress(_) => "recipient_address",
            Self::UnknownParameter(_) => "unknown_parameter",
            Self::BadParameter(_) => "bad_parameter",
            Self::TlsRequired => "tls_required",
            Self::AuthRequired => "auth_required",
            Self::UnknownMechanism => "unknown_mechanism",
            Self::AuthNeedsTls => "auth_needs_tls",
            Self::AuthCancelled => "auth_cancelled",
            Self::BadAuthResponse => "bad_auth_response",
            Self::PlaintextBehindStartTls => "plaintext_behind_starttls",
            Self::TlsFailed => "tls_failed",
            Self::OtherProtocol(_) => "other_protocol",
            Self::ChunkSize => "chunk_size",
            Self::BareCr => "bare_cr",
            Self::BareLf => "bare_lf",
            Self::Nul => "nul",
            Self::LineTooLong => "line_too_long",
            Self::AuthLineTooLong => "auth_line_too_long",
            Self::TooManyRecipients => "too_many_recipients",
            Self::MessageTooBig => "message_too_big",
            Self::HeaderTooBig => "header_too_big",
            Self::TooManyBadCommands => "too_many_bad_commands",
            Self::TooManyIdleCommands => "too_many_idle_commands",
            Self::TooManyAuthFailures => "too_many_auth_failures",
            Self::TooManyMessages => "too_many_messages",
            Self::Timeout => "timeout",
            Self::HostMisuse(_) => "host_misuse",
        }
    }

    /// Whether it counts against [`super::config::Limits::bad_commands`].
    ///
    /// A long list of recipients or a large message is not a sign of a client that probes the server.
    pub(crate) fn is_bad_command(&self) -> bool {
        !matches!(
            self,
            Self::TooManyRecipients | Self::MessageTooBig | Self::HeaderTooBig | Self::HostMisuse(_)
        )
    }

    /// Whether a well-formed command gets this fault because an earlier one of the same pipelined group was refused.
    pub(crate) fn follows_refusal(&self) -> bool {
        matches!(
            self,
            Self::Sequence(Sequence::MailFirst | Sequence::RecipientFirst | Sequence::NoRecipients)
        )
    }

    /// Returns the reply to the client. Faults without a command (tolerated early talk, a failed handshake) have a
    /// reply too, which is not sent.
    #[must_use]
    pub fn reply(&self) -> Reply {
        let ((code, enhanced), text) = (self.codes(), self.text());
        Reply::new(code, EnhancedCode(enhanced.0, enhanced.1, enhanced.2), text)
    }

    fn codes(&self) -> (u16, (u8, u16, u16)) {
        match self {
            // RFC 2920 section 3.1: DATA gets 554 if all recipients were refused.
            Self::EarlyTalk | Self::OtherProtocol(_) | Self::Sequence(Sequence::NoRecipients) => {
                (554, (5, 5, 1))
            }
            Self::UnknownCommand => (500, (5, 5, 1)),
            Self::Syntax(Syntax::Characters | Syntax::LineEnd) | Self::LineTooLong => (500, (5, 5, 2)),
            Self::Syntax(Syntax::Path) | Self::BadAuthResponse => (501, (5, 5, 2)),
            Self::Syntax(_) | Self::BadParameter(_) | Self::ChunkSize => (501, (5, 5, 4)),
            Self::NotImplemented => (502, (5, 5, 1)),
            Self::Sequence(_) => (503, (5, 5, 1)),
            // RFC 6531 section 3.7.4.2: 553 5.6.7 if the address needs SMTPUTF8.
            Self::SenderAddress(AddressError::NotAscii) | Self::RecipientAddress(AddressError::NotAscii) => {
                (553, (5, 6, 7))
            }
            Self::SenderAddress(_) => (501, (5, 1, 7)),
            Self::RecipientAddress(_) => (501, (5, 1, 3)),
            // RFC 5321 section 4.1.1.11.
            Self::UnknownParameter(_) => (555, (5, 5, 4)),
            Self::TlsRequired | Self::AuthRequired => (530, (5, 7, 0)),
            Self::UnknownMechanism => (504, (5, 5, 4)),
            Self::AuthNeedsTls => (538, (5, 7, 11)),
            Self::AuthCancelled => (501, (5, 7, 0)),
            Self::PlaintextBehindStartTls | Self::TlsFailed => (454, (4, 7, 0)),
            Self::BareCr | Self::BareLf | Self::Nul => (554, (5, 6, 0)),
            // RFC 4954 section 4.
            Self::AuthLineTooLong => (500, (5, 5, 6)),
            // RFC 5321 section 4.5.3.1.10.
            Self::TooManyRecipients => (452, (4, 5, 3)),
            // RFC 1870 section 6.
            Self::MessageTooBig | Self::HeaderTooBig => (552, (5, 3, 4)),
            Self::TooManyBadCommands
            | Self::TooManyIdleCommands
            | Self::TooManyAuthFailures
            | Self::TooManyMessages => (421, (4, 7, 0)),
            Self::Timeout => (421, (4, 4, 2)),
            Self::HostMisuse(Misuse::Overfed) => (421, (4, 3, 0)),
            Self::HostMisuse(_) => (451, (4, 3, 0)),
        }
    }

    fn text(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Syntax(syntax) => syntax.text(),
            Self::Sequence(sequence) => sequence.text(),
            Self::SenderAddress(error) => return format!("Bad sender address: {error}").into(),
            Self::RecipientAddress(error) => return format!("Bad recipient address: {error}").into(),
            Self::UnknownParameter(name) => return format!("Parameter {name} is not supported here").into(),
            Self::BadParameter(name) => {
                return format!("Parameter {name} has a bad value or is given twice").into();
            }
            _ => self.fixed_text(),
        })
    }

    fn fixed_text(&self) -> &'static str {
        match self {
            Self::EarlyTalk => "You spoke before the greeting; wait for 220",
            Self::UnknownCommand => "Command not recognized",
            Self::NotImplemented => "Command not implemented",
            Self::TlsRequired => "Say STARTTLS first; this server requires encryption",
            Self::AuthRequired => "Authentication required; log in with AUTH first",
            Self::UnknownMechanism => "Authentication mechanism not offered",
            Self::AuthNeedsTls => "Passwords are taken over TLS only; say STARTTLS first",
            Self::AuthCancelled => "Authentication cancelled",
            Self::BadAuthResponse => "Authentication response is malformed",
            Self::PlaintextBehindStartTls => "Commands after STARTTLS are ignored",
            Self::TlsFailed => "TLS handshake failed",
            Self::OtherProtocol(OtherProtocol::Http) => "This is an SMTP server, not an HTTP server",
            Self::OtherProtocol(OtherProtocol::Tls) => {
                "TLS here begins with STARTTLS; for implicit TLS use its own port"
            }
            Self::ChunkSize => "BDAT needs the size of its chunk, a decimal number",
            Self::BareCr => "Message holds a CR without LF; end its lines with CR LF",
            Self::BareLf => "Message holds a LF without CR; end its lines with CR LF",
            Self::Nul => "Message holds a NUL octet; encode binary data, for example with base64",
            Self::LineTooLong => "Command line too long",
            Self::AuthLineTooLong => "Authentication line too long",
            Self::TooManyRecipients => "Too many recipients for one message; send the rest in another",
            Self::MessageTooBig => "Message is larger than this server accepts",
            Self::HeaderTooBig => "Message header is larger than this server accepts",
            Self::TooManyBadCommands => "Too many commands refused; closing",
            Self::TooManyIdleCommands => "Too many commands without a message; closing",
            Self::TooManyAuthFailures => "Too many failed logins; closing",
            Self::TooManyMessages => "Too many messages in one session; reconnect to send more",
            Self::Timeout => "Timeout exceeded; closing",
            _ => "Local error in processing; try again later",
        }
    }
}

impl Syntax {
    fn text(self) -> &'static str {
        match self {
            Self::Characters => "Command holds characters that are not allowed",
            Self::LineEnd => "Command lines end in CR LF",
            Self::UnexpectedArgument => "This command takes no argument",
            Self::Hello => "EHLO and HELO need your host name",
            Self::Path => "Syntax: MAIL FROM:<address> or RCPT TO:<address>",
            Self::Parameters => "Only parameters may follow the address",
            Self::MissingArgument => "This command needs an argument",
        }
    }
}

impl Sequence {
    fn text(self) -> &'static str {
        match self {
            Self::HelloFirst => "Say EHLO or HELO first",
            Self::EhloFirst => "Say EHLO first",
            Self::MailFirst => "Say MAIL FROM first",
            Self::RecipientFirst | Self::NoRecipients => "No valid recipients",
            Self::InTransaction => "Not allowed within a mail transaction",
            Self::InChunks => "The message goes on with BDAT; end it with BDAT 0 LAST or RSET",
            Self::TlsAlready => "TLS is active already",
            Self::AuthAlready => "You are authenticated already",
            Self::TurnedAway => "No service for you here; say QUIT",
        }
    }
}

impl fmt::Display for SessionFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl std::error::Error for SessionFault {}
