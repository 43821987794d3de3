//! Rules for passwords and other secrets.

use std::fmt;

/// A rule for passwords and other secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SecretRule {
    /// `password` and `password_hash` both, or neither.
    OnePassword,
    /// A user name without a password, or a password without a user name.
    HalfCredentials,
    /// Credentials for this relay, sessions with which may be without TLS.
    CredentialsInTheClear(String),
    /// Credentials for this relay, whose certificate is not verified.
    CredentialsUnverified(String),
    /// A key of `[secrets]` that has fewer characters than this.
    ShortSecret(usize),
    /// A secret is written in the configuration file (a warning).
    InlineSecret,
}

impl fmt::Display for SecretRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OnePassword => f.write_str("a user needs either password or password_hash"),
            Self::HalfCredentials => f.write_str("username and password must be given together"),
            Self::CredentialsInTheClear(relay) => {
                write!(f, "the password for relay {relay:?} could be sent without TLS, in the clear")
            }
            Self::CredentialsUnverified(relay) => {
                write!(
                    f,
                    "the password for relay {relay:?} could be sent to any host that answers: its certificate is not verified"
                )
            }
            Self::ShortSecret(fewest) => {
                write!(f, "the key has fewer than {fewest} characters, so that it could be guessed")
            }
            Self::InlineSecret => f.write_str("a secret is written in the configuration file"),
        }
    }
}

impl SecretRule {
    pub(super) fn remedy(&self) -> String {
        match self {
            Self::OnePassword => "give exactly one of the two",
            Self::HalfCredentials => "give both, or neither",
            Self::CredentialsInTheClear(_) => {
                "set tls = \"verified\" for the relay; plain_without_tls = true allows the password to be sent in the clear"
            }
            Self::CredentialsUnverified(_) => {
                "set tls = \"verified\" for the relay, with [tls] roots if its certificate is from your own authority; \
                 credentials_without_verified_tls = true allows the password to be sent to an unverified host"
            }
            Self::ShortSecret(_) => "take a random text: `openssl rand -hex 20` writes one",
            Self::InlineSecret => "write { file = \"...\" } or { env = \"NAME\" } instead",
        }
        .into()
    }
}
