//! Where decisions are made, and what they can be.

use std::fmt;

use pintle_mail::Reply;
use serde::{Deserialize, Serialize};

/// What a judge decides at a stage. A reply of none leaves the words to the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// No opinion: the next judge is asked.
    Next,
    /// Accept at this stage; later judges are skipped, mandatory ones excepted.
    Accept,
    /// Refuse for good (5xx).
    Reject(Option<Reply>),
    /// Refuse for now (4xx).
    Defer(Option<Reply>),
    /// Answer 2xx and drop: one recipient at [`Hook::Rcpt`], the whole message later; later judges are asked as well.
    Discard,
    /// Take the message and hold it in the quarantine of this name; later judges are asked as well.
    Quarantine(String),
    /// Reply (421 by default) and close the session.
    Close(Option<Reply>),
}

impl Verdict {
    /// The verdict's name in logs, metrics and documentation.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Accept => "accept",
            Self::Reject(_) => "reject",
            Self::Defer(_) => "defer",
            Self::Discard => "discard",
            Self::Quarantine(_) => "quarantine",
            Self::Close(_) => "close",
        }
    }

    /// Whether the client is told no: nothing a later judge says can change that.
    #[must_use]
    pub fn refuses(&self) -> bool {
        matches!(self, Self::Reject(_) | Self::Defer(_) | Self::Close(_))
    }
}

/// What a judge decides about credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthVerdict {
    /// Not mine: the next judge is asked.
    Next,
    /// The client is this identity.
    Granted(String),
    /// The credentials are wrong.
    Denied(Option<Reply>),
    /// It cannot be said now.
    Unavailable(Option<Reply>),
}

impl AuthVerdict {
    /// The verdict's name in logs and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Granted(_) => "granted",
            Self::Denied(_) => "denied",
            Self::Unavailable(_) => "unavailable",
        }
    }
}

macro_rules! hooks {
    ($($(#[$doc:meta])* $hook:ident = $name:literal),+ $(,)?) => {
        /// A point at which judges can be called. Its name is the one of the contract's `on-*` interface without `on-`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Hook {
            $($(#[$doc])* $hook),+
        }

        impl Hook {
            /// All hooks, in the order in which a message meets them.
            pub const ALL: &'static [Self] = &[$(Self::$hook),+];

            /// The name in configuration, logs and metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$hook => $name),+ }
            }
        }
    };
}

hooks! {
    /// A new connection, before the greeting.
    Connect = "connect",
    /// EHLO, HELO or LHLO, before its reply.
    Hello = "hello",
    /// Credentials have been given.
    Auth = "auth",
    /// MAIL FROM.
    Mail = "mail",
    /// RCPT TO, once a recipient.
    Rcpt = "rcpt",
    /// The header is here, the body is not.
    Headers = "headers",
    /// The whole message is here; the final reply waits.
    Message = "message",
    /// Before each delivery attempt.
    Deliver = "deliver",
    /// After each delivery attempt.
    DeliveryResult = "delivery-result",
    /// The session has ended.
    Disconnect = "disconnect",
    /// Background work at an interval.
    Timer = "timer",
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of hooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hooks(u16);

impl Hooks {
    /// The empty set.
    pub const NONE: Self = Self(0);

    /// This set and one more.
    #[must_use]
    pub const fn with(self, hook: Hook) -> Self {
        Self(self.0 | 1 << hook as u16)
    }

    /// Whether the set has this hook.
    #[must_use]
    pub const fn has(self, hook: Hook) -> bool {
        self.0 & 1 << hook as u16 != 0
    }

    /// The hooks of the set, in order.
    pub fn iter(self) -> impl Iterator<Item = Hook> {
        Hook::ALL.iter().copied().filter(move |hook| self.has(*hook))
    }
}

impl FromIterator<Hook> for Hooks {
    fn from_iter<I: IntoIterator<Item = Hook>>(hooks: I) -> Self {
        hooks.into_iter().fold(Self::NONE, Self::with)
    }
}
