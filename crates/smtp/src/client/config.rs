//! What a client session is told before its first byte: who we are, how much TLS, which credentials, how patient.
//!
//! The defaults stand here once; the configuration file is lowered to these types elsewhere.

use std::fmt;
use std::time::Duration;

use pintle_mail::TlsPolicy;

/// How a session speaks to its next hop.
#[derive(Debug, Clone)]
pub struct Config {
    /// The name said in EHLO, HELO or LHLO: a domain or an address literal.
    pub hello_name: String,
    /// SMTP or LMTP.
    pub protocol: Protocol,
    /// How much TLS this session demands. `Verified` is `Required` here: the certificate is the host's affair.
    pub tls: TlsPolicy,
    /// What the bytes run over when the session begins.
    pub channel: Channel,
    /// With what to authenticate. When given, the session is not used without authentication.
    pub credentials: Option<Credentials>,
    /// How bodies travel.
    pub transfer: Transfer,
    /// What to do with 8-bit content where the next hop lacks 8BITMIME.
    pub eight_bit: EightBit,
    /// How long to wait for what.
    pub timeouts: Timeouts,
    /// How much a next hop may say.
    pub limits: Limits,
}

impl Config {
    /// SMTP over a plain channel with opportunistic TLS, and the defaults for everything else.
    #[must_use]
    pub fn new(hello_name: impl Into<String>) -> Self {
        Self {
            hello_name: hello_name.into(),
            protocol: Protocol::default(),
            tls: TlsPolicy::default(),
            channel: Channel::default(),
            credentials: None,
            transfer: Transfer::default(),
            eight_bit: EightBit::default(),
            timeouts: Timeouts::default(),
            limits: Limits::default(),
        }
    }
}

/// Which of the two dialects the next hop speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// RFC 5321: one final reply for all recipients.
    #[default]
    Smtp,
    /// RFC 2033: LHLO, and one final reply for each accepted recipient.
    Lmtp,
}

/// What the bytes run over, from the weakest to the strongest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Channel {
    /// Plain TCP or a local socket.
    #[default]
    Plain,
    /// TLS, from the start (implicit TLS) or since STARTTLS, with whoever answered: no certificate was verified.
    Tls,
    /// TLS with a certificate whose chain and name were verified.
    VerifiedTls,
}

/// How bodies travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transfer {
    /// DATA, always but for binary content. The default, since BDAT towards some servers stalls.
    #[default]
    Data,
    /// BDAT (RFC 3030) where the next hop offers CHUNKING, DATA elsewhere.
    Chunking,
}

/// What to do with 8-bit content where the next hop lacks 8BITMIME.
///
/// RFC 6152 section 3 wants such content converted or returned. Converting would break DKIM signatures and cost the
/// promise that bytes arrive as they came; returning it loses real mail, as practically every server that forgets to
/// offer 8BITMIME is 8-bit clean all the same. So the default hands it on unchanged and says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EightBit {
    /// Hand it on as it is.
    #[default]
    SendAnyway,
    /// Fail the message with 5.6.3, as the RFC has it.
    Strict,
}

/// A user and a password for AUTH (RFC 4954). `Debug` shows neither.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The authentication identity.
    pub user: String,
    /// Its secret.
    pub password: String,
    /// The weakest channel that they may be said over. PLAIN and LOGIN do not hide them (RFC 4954 section 4), and TLS hides
    /// them only from those who do not answer in the next hop's place.
    pub over: Channel,
}

impl Credentials {
    /// Credentials that are only ever said to a host whose certificate was verified.
    #[must_use]
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { user: user.into(), password: password.into(), over: Channel::VerifiedTls }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// How long the next hop may take. The defaults are those of RFC 5321 section 4.5.3.2 where it names one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Until the greeting (section 4.5.3.2.1): 5 minutes.
    pub greeting: Duration,
    /// EHLO, HELO, LHLO, STARTTLS, AUTH, RSET and NOOP: 5 minutes, as the RFC asks for every command without a number.
    pub command: Duration,
    /// MAIL (section 4.5.3.2.2): 5 minutes.
    pub mail: Duration,
    /// Each RCPT (section 4.5.3.2.3): 5 minutes.
    pub rcpt: Duration,
    /// From DATA to its 354 (section 4.5.3.2.4): 2 minutes.
    pub data: Duration,
    /// Until a piece of the body is written out (section 4.5.3.2.5): 3 minutes.
    pub block: Duration,
    /// From the final dot to the final reply (section 4.5.3.2.6): 10 minutes.
    pub end: Duration,
    /// From QUIT to 221. Nothing hangs on that reply, so 10 seconds will do.
    pub quit: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        Self {
            greeting: minutes(5),
            command: minutes(5),
            mail: minutes(5),
            rcpt: minutes(5),
            data: minutes(2),
            block: minutes(3),
            end: minutes(10),
            quit: Duration::from_secs(10),
        }
    }
}

/// How much a next hop may say, and how much we hold for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Octets that are kept of one line of a reply; the rest of it is passed over. RFC 5321 section 4.5.3.1.5 says 512, and
    /// real servers exceed it.
    pub reply_line: usize,
    /// Octets of text that are kept of one reply; lines beyond are passed over. It is stored for each recipient that it was
    /// said of.
    pub reply_text: usize,
    /// Octets in one reply, all its lines together; with more it is a fault.
    pub reply_octets: usize,
    /// Commands sent ahead of their replies when PIPELINING is offered.
    pub pipeline: usize,
    /// More of the body is asked for only while less than this many octets wait to be written.
    pub transmit: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { reply_line: 2_048, reply_text: 8_192, reply_octets: 65_536, pipeline: 100, transmit: 65_536 }
    }
}
