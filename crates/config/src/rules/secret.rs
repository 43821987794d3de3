//! Passwords and other secrets.

use std::fmt;

/// Passwords and other secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SecretRule {
    /// `password` and `password_hash` both, or neither.
    OnePassword,
    /// A user name without a password, or the reverse.
    HalfCredentials,
    /// Credentials over sessions with this relay that may be in the clear.
    CredentialsInTheClear(String),
    /// Credentials for this relay, whose certificate nobody verifies.
    CredentialsUnverified(String),
    /// A secret stands in the file (a warning).
    InlineSecret,
}

impl fmt::Display for SecretRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OnePassword => f.write_str("a user has either a password or a password_hash"),
            Self::HalfCredentials => f.write_str("username and password go together"),
            Self::CredentialsInTheClear(relay) => {
                write!(f, "the password for relay {relay:?} could be sent in the clear")
            }
            Self::CredentialsUnverified(relay) => {
                write!(
                    f,
                    "the password for relay {relay:?} would go to whoever answers: no certificate is verified"
                )
            }
            Self::InlineSecret => f.write_str("a secret stands in the configuration file"),
        }
    }
}

impl SecretRule {
    pub(super) fn remedy(&self) -> String {
        match self {
            Self::OnePassword => "give exactly one of the two",
            Self::HalfCredentials => "give both, or neither",
            Self::CredentialsInTheClear(_) => {
                "set tls = \"verified\" for the relay; plain_without_tls = true lets the password travel in the clear"
            }
            Self::CredentialsUnverified(_) => {
                "set tls = \"verified\" for the relay, with [tls] roots where its authority is your own; \
                 credentials_without_verified_tls = true lets the password go to an unverified host"
            }
            Self::InlineSecret => "better: { file = \"...\" } or { env = \"NAME\" }",
        }
        .into()
    }
}
