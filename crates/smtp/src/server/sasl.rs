//! The server side of SASL (RFC 4422): PLAIN and LOGIN exchanges as values, and the credentials that come of them.
//!
//! Whether credentials are good is for the host to say.

use std::fmt;

use super::offers::Mechanism;

/// What a client proved, or claims to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// How they came.
    pub mechanism: Mechanism,
    /// Whom the client wants to act as, when it says so (PLAIN alone can).
    pub authorization_id: Option<String>,
    /// Who the client is.
    pub username: String,
    /// The secret.
    pub password: Password,
}

/// A password: it compares and clones, but never shows itself in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Wraps a secret.
    #[must_use]
    pub fn new(secret: String) -> Self {
        Self(secret)
    }

    /// The secret itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}
