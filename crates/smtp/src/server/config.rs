//! What a server session is allowed and told: names, extensions, limits, timeouts, leniency.
//!
//! Plain values with the defaults of RFC 5321 sections 4.5.3.1 and 4.5.3.2; where these come from (a file, a test) is not
//! known here. One [`Config`] is shared by all sessions of a listener.

use std::time::Duration;

use super::offers::SaslMechanisms;
use crate::extension::{Extension, Extensions};

/// The settings of a listener's sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The name in the greeting and in the replies to EHLO and HELO: a domain or an address literal.
    pub hostname: String,
    /// What follows the name in the greeting. `ESMTP` should be its first word.
    pub banner: String,
    /// What may be offered; see [`Extensions`] for what is left out of an offer all the same.
    pub extensions: Extensions,
    /// How clients may authenticate.
    pub auth: Auth,
    /// No mail, no AUTH and no VRFY before TLS: 530 instead (RFC 3207 section 4).
    pub require_tls: bool,
    /// No mail before AUTH: 530 instead (RFC 4954 section 6). For submission.
    pub require_auth: bool,
    /// How much of everything.
    pub limits: Limits,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// Which common mistakes of clients are forgiven.
    pub leniency: Leniency,
    /// The domain of senders and recipients who come without one, as scanners and scripts give them; such addresses are
    /// refused where there is none.
    pub default_domain: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hostname: "localhost".to_owned(),
            banner: "ESMTP Pintle".to_owned(),
            extensions: Extensions::default(),
            auth: Auth::default(),
            require_tls: false,
            require_auth: false,
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            leniency: Leniency::default(),
            default_domain: None,
        }
    }
}

impl Config {
    /// The same with an extension offered as well: [`Extension::StartTls`] and [`Extension::Auth`] need a host that
    /// can serve them and are therefore not on by default.
    #[must_use]
    pub fn with(mut self, extension: Extension) -> Self {
        self.extensions = self.extensions.with(extension);
        self
    }
}

/// How clients may authenticate, once [`Extension::Auth`] is among the extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Auth {
    /// The mechanisms on offer.
    pub mechanisms: SaslMechanisms,
    /// Passwords may cross the wire in the clear. Off by default (RFC 4954 section 4).
    pub without_tls: bool,
}

/// How much of everything one session may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A command line with its CRLF, in octets; MAIL and RCPT get what the offered extensions add (RFC 5321 section
    /// 4.5.3.1.4).
    pub command_line: usize,
    /// A line of an AUTH exchange with its CRLF, in octets (RFC 4954 section 4).
    pub auth_line: usize,
    /// Recipients of one message; more get 452 (RFC 5321 section 4.5.3.1.10).
    pub recipients: u32,
    /// A message without dot-stuffing, in octets: the value of SIZE. 0 is no limit (RFC 1870).
    pub message: u64,
    /// The header block, in octets. It is held in memory, and nothing else of a message is.
    pub header: usize,
    /// Commands refused for their form or order, since the session or its last accepted message began, before the
    /// session is closed with 421.
    pub bad_commands: u32,
    /// Commands that bring no message nearer (NOOP, RSET, VRFY, HELP, EHLO), counted alike.
    pub idle_commands: u32,
    /// Failed authentications before the session is closed.
    pub auth_failures: u32,
    /// Messages in one session, if limited; MAIL gets 421 thereafter.
    pub messages: Option<u32>,
    /// Octets received and not yet worked on. Passing it means that the host reads while [`super::Session::wants_read`]
    /// says no.
    pub input: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            command_line: 512,
            auth_line: 12_288,
            recipients: 1_000,
            message: 50 * 1024 * 1024,
            header: 256 * 1024,
            bad_commands: 20,
            idle_commands: 100,
            auth_failures: 3,
            messages: None,
            input: 256 * 1024,
        }
    }
}

/// How long to wait for the peer. While a question is open nothing runs out here: the host bounds its own work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a whole command; dribbling bytes does not extend it (RFC 5321 section 4.5.3.2.7: at least 5 minutes).
    pub command: Duration,
    /// For the next bytes of a message.
    pub data: Duration,
    /// For a whole message, from DATA or the first BDAT to its end.
    pub message: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            command: Duration::from_secs(5 * 60),
            data: Duration::from_secs(5 * 60),
            message: Duration::from_secs(60 * 60),
        }
    }
}

/// Which common mistakes of clients are forgiven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leniency {
    /// A LF without CR, in commands and in DATA. In BDAT it always becomes CRLF.
    pub bare_lf: BareLf,
    /// A CR without LF in a message, by DATA or BDAT.
    pub bare_cr: BareCr,
    /// `MAIL FROM:a@b.example`, as old devices say it.
    pub missing_brackets: bool,
    /// A client that speaks before the greeting.
    pub early_talk: EarlyTalk,
    /// The longest text line of a message without its CRLF, in octets; none accepts lines of any length, since a body
    /// is streamed and the next hop may be able to take them (RFC 5321 section 4.5.3.1.6 demands 998).
    pub text_line: Option<u64>,
}

impl Default for Leniency {
    fn default() -> Self {
        Self {
            bare_lf: BareLf::Normalise,
            bare_cr: BareCr::Refuse,
            missing_brackets: true,
            early_talk: EarlyTalk::Tolerate,
            text_line: None,
        }
    }
}

/// What a LF without CR is taken for. It never ends data, whatever stands here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BareLf {
    /// A line end, passed on as CRLF: curl and Python's smtplib send such content.
    Normalise,
    /// A fault: the message, or the command, is refused.
    Refuse,
}

/// What a CR without LF is taken for. It never ends data or a line, since others would see another message than we do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BareCr {
    /// White space: a blank takes its place. Of several before a CRLF, as in `CR CR LF`, nothing is left but the line end.
    Normalise,
    /// A fault: the message is refused (RFC 5321 section 2.3.8).
    Refuse,
}

/// What becomes of a client that speaks before the greeting (RFC 5321 section 3.1 makes it wait).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EarlyTalk {
    /// It is reported as a fault and served.
    Tolerate,
    /// 554, and the session is closed.
    Refuse,
}
