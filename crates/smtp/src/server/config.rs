//! Settings of a listener's SMTP sessions: host name, extensions, limits, timeouts, and which client mistakes are
//! tolerated.
//!
//! The defaults are those of RFC 5321 sections 4.5.3.1 and 4.5.3.2. Where the values come from (a file, a test) is not
//! known here. All sessions of a listener share one [`Config`].

use std::time::Duration;

use super::offers::SaslMechanisms;
use crate::extension::{Extension, Extensions};

/// The settings of a listener's sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The name in the greeting and in the replies to EHLO and HELO: a domain or an address literal.
    pub hostname: String,
    /// The text after the host name in the greeting. `ESMTP` should be its first word.
    pub banner: String,
    /// The extensions that may be offered; a session may offer fewer (STARTTLS only without TLS, AUTH only where
    /// allowed).
    pub extensions: Extensions,
    /// The SASL mechanisms, and whether they need TLS.
    pub auth: Auth,
    /// Refuse mail, AUTH and VRFY before TLS with 530 (RFC 3207 section 4).
    pub require_tls: bool,
    /// Refuse mail before AUTH with 530 (RFC 4954 section 6). For submission.
    pub require_auth: bool,
    /// Size and count limits of one session.
    pub limits: Limits,
    /// How long to wait for the client.
    pub timeouts: Timeouts,
    /// Which common mistakes of clients are tolerated.
    pub leniency: Leniency,
    /// The domain to add to sender and recipient addresses without one, as scanners and scripts send them. If `None`,
    /// such addresses are refused.
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
    /// Returns the settings with one more extension offered. [`Extension::StartTls`] and [`Extension::Auth`] need a
    /// host that can serve them and are therefore not in the default.
    #[must_use]
    pub fn with(mut self, extension: Extension) -> Self {
        self.extensions = self.extensions.with(extension);
        self
    }
}

/// How clients may authenticate, if [`Extension::Auth`] is among the extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Auth {
    /// The mechanisms to offer.
    pub mechanisms: SaslMechanisms,
    /// Allow passwords in plaintext, without TLS. Off by default (RFC 4954 section 4).
    pub without_tls: bool,
}

/// Size and count limits of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest command line in octets, with its CRLF. MAIL and RCPT may be longer by what the offered extensions
    /// add (RFC 5321 section 4.5.3.1.4).
    pub command_line: usize,
    /// The longest line of an AUTH exchange in octets, with its CRLF (RFC 4954 section 4).
    pub auth_line: usize,
    /// The most recipients of one message; more get 452 (RFC 5321 section 4.5.3.1.10).
    pub recipients: u32,
    /// The largest message in octets, before dot stuffing: the value of SIZE. 0 is no limit (RFC 1870).
    pub message: u64,
    /// The largest header block in octets. The header is held in memory; the body is not.
    pub header: usize,
    /// How many commands may be refused for their syntax or sequence, since the session or its last accepted message
    /// began, before the session is closed with 421.
    pub bad_commands: u32,
    /// How many commands that do not advance a message (NOOP, RSET, VRFY, HELP, EHLO) are allowed in the same span.
    pub idle_commands: u32,
    /// The number of failed authentications that closes the session.
    pub auth_failures: u32,
    /// The most messages in one session, if limited; after that, MAIL gets 421.
    pub messages: Option<u32>,
    /// The most octets received and not yet processed. It is exceeded only if the host reads while
    /// [`super::Session::wants_read`] returns false.
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

/// How long to wait for the client. No timeout runs while a question to the host is open: the host bounds its own work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a complete command; sending it byte by byte does not extend the timeout (RFC 5321 section 4.5.3.2.7: at
    /// least 5 minutes).
    pub command: Duration,
    /// For the next bytes of a message.
    pub data: Duration,
    /// For a complete message, from DATA or the first BDAT to its end.
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

/// Which common mistakes of clients are tolerated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leniency {
    /// A LF without CR, in commands and in DATA. In BDAT it always becomes CRLF.
    pub bare_lf: BareLf,
    /// A CR without LF in a message, by DATA or BDAT.
    pub bare_cr: BareCr,
    /// A client that speaks before the greeting.
    pub early_talk: EarlyTalk,
}

impl Default for Leniency {
    fn default() -> Self {
        Self { bare_lf: BareLf::Normalise, bare_cr: BareCr::Refuse, early_talk: EarlyTalk::Tolerate }
    }
}

/// How a LF without CR is treated. It never ends the data, whatever the setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BareLf {
    /// As a line end, passed on as CRLF: curl and Python's smtplib send such content.
    Normalise,
    /// As a fault: the message, or the command, is refused.
    Refuse,
}

/// How a CR without LF is treated. It never ends the data or a line, because other implementations would see a
/// different message (SMTP smuggling).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BareCr {
    /// As white space: it is replaced by a space. Several before a CRLF, as in `CR CR LF`, are removed.
    Normalise,
    /// As a fault: the message is refused (RFC 5321 section 2.3.8).
    Refuse,
}

/// What to do with a client that sends commands before the greeting (RFC 5321 section 3.1 requires it to wait).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EarlyTalk {
    /// Report a fault and serve the client.
    Tolerate,
    /// Reply 554 and close the session.
    Refuse,
}
