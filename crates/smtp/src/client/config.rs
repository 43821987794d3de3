//! Settings of a client session: EHLO name, TLS policy, credentials, timeouts (RFC 5321 section 4.5.3.2), limits.
//!
//! The defaults are defined here; the configuration file is translated to these types elsewhere.

use std::fmt;
use std::time::Duration;

use pintle_mail::TlsPolicy;

/// Settings of one session with a next hop.
#[derive(Debug, Clone)]
pub struct Config {
    /// The name sent in EHLO, HELO or LHLO: a domain or an address literal.
    pub hello_name: String,
    /// The protocol of the session: SMTP or LMTP.
    pub protocol: Protocol,
    /// Whether this session requires TLS. `Verified` has the effect of `Required` here: the host verifies the
    /// certificate.
    pub tls: TlsPolicy,
    /// What the connection is secured with when the session begins.
    pub channel: Channel,
    /// Credentials for AUTH. If set, the session is not used without authentication.
    pub credentials: Option<Credentials>,
    /// How message bodies are sent: DATA or BDAT.
    pub transfer: Transfer,
    /// What to do with 8-bit content if the next hop lacks 8BITMIME.
    pub eight_bit: EightBit,
    /// How long to wait for each kind of reply.
    pub timeouts: Timeouts,
    /// Bounds on what a next hop may send, and on what is held for it.
    pub limits: Limits,
}

impl Config {
    /// Returns settings for SMTP over a plain channel with opportunistic TLS, and the defaults for everything else.
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

/// Which protocol the next hop speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// RFC 5321: one final reply for all recipients.
    #[default]
    Smtp,
    /// RFC 2033: LHLO, and one final reply for each accepted recipient.
    Lmtp,
}

/// What the connection is secured with, from the weakest to the strongest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Channel {
    /// Nothing: plain TCP or a local socket.
    #[default]
    Plain,
    /// TLS, from the start (implicit TLS) or since STARTTLS, without a verified certificate.
    Tls,
    /// TLS with a certificate whose chain and name were verified.
    VerifiedTls,
}

/// How message bodies are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transfer {
    /// DATA, except for binary content. The default, because BDAT stalls with some servers.
    #[default]
    Data,
    /// BDAT (RFC 3030) if the next hop offers CHUNKING, else DATA.
    Chunking,
}

/// What to do with 8-bit content if the next hop lacks 8BITMIME.
///
/// RFC 6152 section 3 requires such content to be converted or returned. Conversion would break DKIM signatures and the
/// promise that bytes arrive as they came; returning it loses real mail, because practically every server that forgets
/// to offer 8BITMIME is 8-bit clean anyway. So the default sends it unchanged, without comment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EightBit {
    /// Send the content unchanged.
    #[default]
    SendAnyway,
    /// Fail the message with 5.6.3, as the RFC requires.
    Strict,
}

/// A user name and a password for AUTH (RFC 4954). `Debug` shows neither.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The authentication identity (user name).
    pub user: String,
    /// The password, as plain text.
    pub password: String,
    /// The weakest channel that they may be sent over. PLAIN and LOGIN do not hide them (RFC 4954 section 4), and TLS
    /// without a verified certificate does not protect against an impostor.
    pub over: Channel,
}

impl Credentials {
    /// Returns credentials that are sent only to a host whose certificate was verified.
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

/// How long to wait for the next hop. The defaults are those of RFC 5321 section 4.5.3.2 where it names one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Until the greeting (section 4.5.3.2.1): 5 minutes.
    pub greeting: Duration,
    /// EHLO, HELO, LHLO, STARTTLS, AUTH, RSET and NOOP: 5 minutes, as the RFC requires for commands it does not list.
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
    /// From QUIT to 221. Nothing depends on that reply, so 10 seconds are enough.
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

/// Bounds on what a next hop may send, and on what is held for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Octets that are kept of one line of a reply; the rest of the line is skipped. RFC 5321 section 4.5.3.1.5 says
    /// 512, and real servers exceed it.
    pub reply_line: usize,
    /// Octets of text that are kept of one reply; further lines are skipped. The text is stored for each recipient that
    /// it applies to.
    pub reply_text: usize,
    /// Octets in one reply, all its lines together; a longer reply is a protocol fault.
    pub reply_octets: usize,
    /// Commands that may be sent ahead of their replies when PIPELINING is offered.
    pub pipeline: usize,
    /// More of the body is requested only while fewer than this many octets wait to be written.
    pub transmit: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { reply_line: 2_048, reply_text: 8_192, reply_octets: 65_536, pipeline: 100, transmit: 65_536 }
    }
}
