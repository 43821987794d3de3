//! What can go wrong in a session, who owns it, and what is said about it.
//!
//! Each [`Fault`] has one owner, one reply, one level for the log and one counter's name, so that the wire, the log and
//! the metrics cannot tell different stories.

use std::borrow::Cow;
use std::fmt;

use pintle_mail::{AddressError, EnhancedCode, Reply};

/// Something went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionFault {
    /// The client spoke before the greeting.
    EarlyTalk,
    /// Not a command that we know.
    UnknownCommand,
    /// A command that we know and do not serve: EXPN, TURN and the like, or one whose extension is not on offer.
    NotImplemented,
    /// The command's argument is not what its grammar allows.
    Syntax(Syntax),
    /// The command is not allowed here (RFC 5321 section 4.1.4).
    Sequence(Sequence),
    /// The address of MAIL is malformed.
    SenderAddress(AddressError),
    /// The address of RCPT is malformed.
    RecipientAddress(AddressError),
    /// A parameter of MAIL or RCPT that is not on offer.
    UnknownParameter(String),
    /// A parameter that is on offer with a value that it cannot have, or given twice.
    BadParameter(String),
    /// The session must be encrypted first.
    TlsRequired,
    /// The client must authenticate first.
    AuthRequired,
    /// Not a mechanism on offer.
    UnknownMechanism,
    /// A password would have crossed the wire in the clear.
    AuthNeedsTls,
    /// `*` instead of a SASL response.
    AuthCancelled,
    /// The SASL response is not base64, or not what the mechanism wants.
    BadAuthResponse,
    /// Bytes came behind STARTTLS before the handshake; they were thrown away (CVE-2011-0411).
    PlaintextBehindStartTls,
    /// The handshake failed.
    TlsFailed,
    /// HTTP, or TLS where plain text is spoken.
    OtherProtocol(OtherProtocol),
    /// Where the next command begins cannot be known: the size of a BDAT is no number.
    ChunkSize,
    /// A CR without LF in the message.
    BareCr,
    /// A LF without CR in the message, where the configuration refuses it.
    BareLf,
    /// A NUL in the message.
    Nul,
    /// A command line beyond its limit.
    LineTooLong,
    /// A line of an AUTH exchange beyond its limit.
    AuthLineTooLong,
    /// A text line of the message beyond the configured limit.
    TextLineTooLong,
    /// More recipients than allowed.
    TooManyRecipients,
    /// The message is larger than SIZE allows, by the client's own word or by count.
    MessageTooBig,
    /// The header is larger than allowed.
    HeaderTooBig,
    /// Too many commands refused.
    TooManyBadCommands,
    /// Too many commands that bring no message nearer.
    TooManyIdleCommands,
    /// Too many failed authentications.
    TooManyAuthFailures,
    /// Too many messages in one session.
    TooManyMessages,
    /// The peer kept us waiting too long.
    Timeout,
    /// The host gave an answer that does not fit the question, or fed bytes that nobody wanted.
    HostMisuse(Misuse),
}

/// What is wrong with a command's argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    /// Control characters, or octets that are not UTF-8.
    Characters,
    /// A line that ends in LF alone, where the configuration refuses it.
    LineEnd,
    /// An argument where none belongs.
    UnexpectedArgument,
    /// EHLO or HELO without a usable name.
    Hello,
    /// MAIL without `FROM:`, or RCPT without `TO:`.
    Path,
    /// Anything but parameters behind the path.
    Parameters,
    /// VRFY without an argument, AUTH without a mechanism.
    MissingArgument,
}

/// What should have come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sequence {
    /// EHLO or HELO.
    HelloFirst,
    /// EHLO, for an extension.
    EhloFirst,
    /// MAIL.
    MailFirst,
    /// A recipient, for BDAT.
    RecipientFirst,
    /// A recipient, for DATA.
    NoRecipients,
    /// The end of the transaction.
    InTransaction,
    /// The message goes on with BDAT, or ends with RSET.
    InChunks,
    /// Nothing: TLS is on already.
    TlsAlready,
    /// Nothing: the client is authenticated already.
    AuthAlready,
    /// Nothing but QUIT: the greeting was a refusal (RFC 5321 section 3.1).
    TurnedAway,
}

/// What the peer speaks instead of SMTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherProtocol {
    /// HTTP.
    Http,
    /// A TLS handshake on a plain port.
    Tls,
}

/// What the host did wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misuse {
    /// An answer that does not fit the open question.
    WrongAnswer,
    /// An answer while no question is open.
    NoQuestion,
    /// More bytes than [`super::config::Limits::input`] while none were wanted.
    Overfed,
    /// A report about TLS that nobody waited for.
    NoHandshake,
}

/// Who must act on a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultOwner {
    /// The peer broke the protocol.
    PeerMisbehaved,
    /// The peer wants what we do not do.
    PeerIncompatible,
    /// The peer wants more than the operator allows.
    LimitExceeded,
    /// We did it.
    Us,
}

/// How loud a fault is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultLevel {
    /// Everyday.
    Debug,
    /// Worth knowing when somebody complains.
    Info,
    /// Worth a look.
    Warn,
    /// A bug of ours.
    Error,
}

impl SessionFault {
    /// Who must act.
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
            | Self::TextLineTooLong
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

    /// How loud it is.
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

    /// Its name in the metrics.
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
            Self::TextLineTooLong => "text_line_too_long",
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
    /// A long list of recipients, or a large message, is no sign of a client that fumbles for a way in.
    #[must_use]
    pub fn is_bad_command(&self) -> bool {
        !matches!(
            self,
            Self::TooManyRecipients | Self::MessageTooBig | Self::HeaderTooBig | Self::HostMisuse(_)
        )
    }

    /// Whether a well-formed command gets it when one before it in the same pipelined group was refused.
    pub(crate) fn follows_refusal(&self) -> bool {
        matches!(
            self,
            Self::Sequence(Sequence::MailFirst | Sequence::RecipientFirst | Sequence::NoRecipients)
        )
    }

    /// What the peer is told. Faults that no command caused (an early talker that is tolerated, a failed handshake)
    /// have a reply too, which is not sent.
    #[must_use]
    pub fn reply(&self) -> Reply {
        let ((code, enhanced), text) = (self.codes(), self.text());
        Reply::new(code, EnhancedCode(enhanced.0, enhanced.1, enhanced.2), text)
    }

    fn codes(&self) -> (u16, (u8, u16, u16)) {
        match self {
            // RFC 2920 section 3.1: DATA after nothing but refused recipients gets 554.
            Self::EarlyTalk | Self::OtherProtocol(_) | Self::Sequence(Sequence::NoRecipients) => {
                (554, (5, 5, 1))
            }
            Self::UnknownCommand => (500, (5, 5, 1)),
            Self::Syntax(Syntax::Characters | Syntax::LineEnd) | Self::LineTooLong => (500, (5, 5, 2)),
            Self::Syntax(Syntax::Path) | Self::BadAuthResponse => (501, (5, 5, 2)),
            Self::Syntax(_) | Self::BadParameter(_) | Self::ChunkSize => (501, (5, 5, 4)),
            Self::NotImplemented => (502, (5, 5, 1)),
            Self::Sequence(_) => (503, (5, 5, 1)),
            // RFC 6531 section 3.7.4.2: 553 5.6.7 where the address needs SMTPUTF8.
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
            Self::BareCr | Self::BareLf | Self::Nul | Self::TextLineTooLong => (554, (5, 6, 0)),
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
            Self::TlsRequired => "Say STARTTLS first; this server wants encryption",
            Self::AuthRequired => "Authentication required; log in with AUTH first",
            Self::UnknownMechanism => "Authentication mechanism not offered",
            Self::AuthNeedsTls => "Passwords are taken over TLS only; say STARTTLS first",
            Self::AuthCancelled => "Authentication cancelled",
            Self::BadAuthResponse => "Authentication response is malformed",
            Self::PlaintextBehindStartTls => "Commands behind STARTTLS are ignored",
            Self::TlsFailed => "TLS handshake failed",
            Self::OtherProtocol(OtherProtocol::Http) => "This is an SMTP server, not an HTTP server",
            Self::OtherProtocol(OtherProtocol::Tls) => {
                "TLS here begins with STARTTLS; for implicit TLS use its own port"
            }
            Self::ChunkSize => "BDAT needs the size of its chunk, a decimal number",
            Self::BareCr => "Message holds a CR without LF; end its lines with CR LF",
            Self::BareLf => "Message holds a LF without CR; end its lines with CR LF",
            Self::Nul => "Message holds a NUL octet; encode what is no text, with base64 say",
            Self::LineTooLong => "Command line too long",
            Self::AuthLineTooLong => "Authentication line too long",
            Self::TextLineTooLong => "Message holds a line that is too long; wrap or encode it",
            Self::TooManyRecipients => "Too many recipients for one message; send the rest in another",
            Self::MessageTooBig => "Message is larger than this server accepts",
            Self::HeaderTooBig => "Message header is larger than this server accepts",
            Self::TooManyBadCommands => "Too many commands refused; closing",
            Self::TooManyIdleCommands => "Too many commands without a message; closing",
            Self::TooManyAuthFailures => "Too many failed logins; closing",
            Self::TooManyMessages => "Too many messages in one session; come again",
            Self::Timeout => "Waited too long; closing",
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
            Self::InTransaction => "Not within a mail transaction",
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
