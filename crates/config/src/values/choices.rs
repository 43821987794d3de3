//! The types whose values are words (enumerations), with the words that the file uses for them.

use pintle_inbound::{AuthOffer, RefusedRecipients, TlsMode};
use pintle_mail::TlsPolicy;
use pintle_outbound::{EightBit, Protocol, Transfer, WhenFull};
use pintle_plugin::{FailurePolicy, GrantKind};
use pintle_sender_auth::sign::Canonicalization;
use pintle_smtp::Extension;
use pintle_smtp::server::SaslMechanism;
use pintle_smtp::server::config::{BareCr, BareLf, EarlyTalk};

use super::Choice;

impl Choice for TlsPolicy {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("none", Self::None),
        ("opportunistic", Self::Opportunistic),
        ("required", Self::Required),
        ("verified", Self::Verified),
    ];
}

impl Choice for Protocol {
    const WORDS: &'static [(&'static str, Self)] = &[("smtp", Self::Smtp), ("lmtp", Self::Lmtp)];
}

impl Choice for EightBit {
    const WORDS: &'static [(&'static str, Self)] =
        &[("send-anyway", Self::SendAnyway), ("strict", Self::Strict)];
}

impl Choice for Transfer {
    const WORDS: &'static [(&'static str, Self)] = &[("data", Self::Data), ("chunking", Self::Chunking)];
}

/// The purpose of a listener, which determines the defaults of its keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum ListenerKind {
    #[default]
    Mx,
    Submission,
    Relay,
}

impl Choice for ListenerKind {
    const WORDS: &'static [(&'static str, Self)] =
        &[("mx", Self::Mx), ("submission", Self::Submission), ("relay", Self::Relay)];
}

impl Choice for TlsMode {
    const WORDS: &'static [(&'static str, Self)] =
        &[("none", Self::None), ("starttls", Self::StartTls), ("implicit", Self::Implicit)];
}

impl Choice for AuthOffer {
    const WORDS: &'static [(&'static str, Self)] =
        &[("off", Self::Off), ("offered", Self::Offered), ("required", Self::Required)];
}

impl Choice for BareLf {
    const WORDS: &'static [(&'static str, Self)] =
        &[("normalise", Self::Normalise), ("refuse", Self::Refuse)];
}

impl Choice for BareCr {
    const WORDS: &'static [(&'static str, Self)] =
        &[("normalise", Self::Normalise), ("refuse", Self::Refuse)];
}

impl Choice for EarlyTalk {
    const WORDS: &'static [(&'static str, Self)] = &[("tolerate", Self::Tolerate), ("refuse", Self::Refuse)];
}

impl Choice for SaslMechanism {
    const WORDS: &'static [(&'static str, Self)] = &[("PLAIN", Self::Plain), ("LOGIN", Self::Login)];
}

impl Choice for RefusedRecipients {
    const WORDS: &'static [(&'static str, Self)] =
        &[("quarantine", Self::Quarantine), ("report", Self::Report), ("discard", Self::Discard)];
}

impl Choice for Extension {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("PIPELINING", Self::Pipelining),
        ("SIZE", Self::Size),
        ("8BITMIME", Self::EightBitMime),
        ("SMTPUTF8", Self::SmtpUtf8),
        ("CHUNKING", Self::Chunking),
        ("ENHANCEDSTATUSCODES", Self::EnhancedStatusCodes),
        ("DSN", Self::Dsn),
        ("PRDR", Self::Prdr),
    ];
}

impl Choice for pintle_tls::ClientCertificates {
    const WORDS: &'static [(&'static str, Self)] = &[("ignore", Self::Ignore), ("record", Self::Record)];
}

impl Choice for Canonicalization {
    const WORDS: &'static [(&'static str, Self)] = &[("relaxed", Self::Relaxed), ("simple", Self::Simple)];
}

impl Choice for WhenFull {
    const WORDS: &'static [(&'static str, Self)] =
        &[("refuse", Self::Refuse), ("drop-oldest", Self::DropOldest)];
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Text for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl Choice for LogFormat {
    const WORDS: &'static [(&'static str, Self)] = &[("text", Self::Text), ("json", Self::Json)];
}

/// The lowest level of the events that are logged. Each level includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum LogLevel {
    /// Errors that the operator has to act on.
    Error,
    /// Other errors.
    Warn,
    /// What happens to messages.
    #[default]
    Info,
    /// The reasons for decisions.
    Debug,
    /// Everything else.
    Trace,
}

impl LogLevel {
    /// The level's name, as log filters use it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl Choice for LogLevel {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];
}

impl Choice for FailurePolicy {
    const WORDS: &'static [(&'static str, Self)] =
        &[("defer", Self::Defer), ("accept", Self::Accept), ("reject", Self::Reject), ("skip", Self::Skip)];
}

impl Choice for GrantKind {
    const WORDS: &'static [(&'static str, Self)] = &{
        let mut words = [("", Self::EditHeaders); Self::ALL.len()];
        let mut at = 0;
        while at < words.len() {
            words[at] = (Self::ALL[at].name(), Self::ALL[at]);
            at += 1;
        }
        words
    };
}
