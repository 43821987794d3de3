//! Hooks, the points at which judges are asked, and the verdicts that they can give.

use std::fmt;

use pintle_mail::Reply;
use serde::{Deserialize, Serialize};

/// What a judge decides at a stage: what the client hears. What becomes of accepted mail is requested beside it
/// ([`crate::Fate`]). Without a reply of its own, the host chooses the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// No opinion; the next judge is asked.
    Next,
    /// Accepts at this stage: objections of later judges do not count, except those of mandatory ones.
    Accept,
    /// Refuses permanently (5xx).
    Reject(Option<Reply>),
    /// Refuses temporarily (4xx).
    Defer(Option<Reply>),
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
        }
    }

    /// Whether the verdict refuses the command, which no later judge can change.
    #[must_use]
    pub fn refuses(&self) -> bool {
        matches!(self, Self::Reject(_) | Self::Defer(_))
    }
}

/// What a judge decides about credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthVerdict {
    /// No opinion; the next judge is asked.
    Next,
    /// The credentials are right; the client has this identity.
    Granted(String),
    /// The credentials are wrong.
    Denied(Option<Reply>),
    /// The credentials cannot be checked now.
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
        /// A point at which judges can be called. Its name is that of the contract's `on-*` interface without `on-`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Hook {
            $($(#[$doc])* $hook),+
        }

        impl Hook {
            /// All hooks, in the order in which a message meets them.
            pub const ALL: &'static [Self] = &[$(Self::$hook),+];

            /// The hook's name in configuration, logs and metrics.
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
    /// AUTH with a password, once the client has sent it.
    AuthPassword = "auth-password",
    /// The result of AUTH, whoever judged the credentials.
    AuthResult = "auth-result",
    /// MAIL FROM.
    Mail = "mail",
    /// RCPT TO, once for each recipient.
    Rcpt = "rcpt",
    /// DATA or the first BDAT, before anything of the message is accepted.
    Data = "data",
    /// The header has been received, the body has not.
    Headers = "headers",
    /// The whole message has been received; the final reply waits.
    Message = "message",
    /// A message has been committed and the client has its reply.
    Queued = "queued",
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

    /// This set with one more hook.
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
