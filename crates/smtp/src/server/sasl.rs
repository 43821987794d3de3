//! The server side of SASL (RFC 4422): PLAIN and LOGIN exchanges as values, and the credentials that result from them.
//!
//! The host decides whether the credentials are valid.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::fault::SessionFault;
use super::offers::SaslMechanism;

/// The credentials that a client sent, not yet verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaslCredentials {
    /// The mechanism that they were sent with.
    pub mechanism: SaslMechanism,
    /// The identity that the client wants to act as, if it sent one (only PLAIN can).
    pub authorization_id: Option<String>,
    /// The user name (the authentication identity).
    pub username: String,
    /// The password as sent by the client.
    pub password: Password,
}

/// A password. Its `Debug` output hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Wraps a password, so that it is not printed by `Debug`.
    #[must_use]
    pub fn new(secret: String) -> Self {
        Self(secret)
    }

    /// Returns the password in plaintext.
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

/// An exchange in progress, named by what the client must send next.
#[derive(Debug)]
pub(crate) enum SaslExchange {
    /// PLAIN: everything in one response.
    Plain,
    /// LOGIN: the user name.
    LoginUsername,
    /// LOGIN: the password for this user name.
    LoginPassword(String),
}

/// The result of a response.
#[derive(Debug)]
pub(crate) enum SaslProgress {
    /// Another challenge must be sent.
    Challenge(SaslExchange),
    /// The exchange is complete.
    Done(SaslCredentials),
}

impl SaslExchange {
    pub(crate) fn begin(mechanism: SaslMechanism) -> Self {
        match mechanism {
            SaslMechanism::Plain => Self::Plain,
            SaslMechanism::Login => Self::LoginUsername,
        }
    }

    /// Returns the text after `334 `: empty, or the prompts that LOGIN clients wait for, in base64.
    pub(crate) fn challenge(&self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::LoginUsername => "VXNlcm5hbWU6",
            Self::LoginPassword(_) => "UGFzc3dvcmQ6",
        }
    }

    /// Processes an initial response, where `=` means the empty one (RFC 4954 section 4).
    pub(crate) fn initial(self, response: &str) -> Result<SaslProgress, SessionFault> {
        self.respond(if response == "=" { "" } else { response })
    }

    /// Processes a response in base64.
    pub(crate) fn respond(self, response: &str) -> Result<SaslProgress, SessionFault> {
        if response == "*" {
            return Err(SessionFault::AuthCancelled);
        }
        let octets = STANDARD.decode(response).map_err(|_| SessionFault::BadAuthResponse)?;
        let text = String::from_utf8(octets).map_err(|_| SessionFault::BadAuthResponse)?;
        match self {
            Self::Plain => plain(&text).map(SaslProgress::Done).ok_or(SessionFault::BadAuthResponse),
            _ if text.is_empty() || text.contains('\0') => Err(SessionFault::BadAuthResponse),
            Self::LoginUsername => Ok(SaslProgress::Challenge(Self::LoginPassword(text))),
            Self::LoginPassword(username) => Ok(SaslProgress::Done(SaslCredentials {
                mechanism: SaslMechanism::Login,
                authorization_id: None,
                username,
                password: Password(text),
            })),
        }
    }
}

/// RFC 4616 section 2: `[authzid] NUL authcid NUL passwd`, the last two not empty. In particular, an empty password
/// must not reach an LDAP server that treats it as an anonymous bind.
fn plain(text: &str) -> Option<SaslCredentials> {
    let mut parts = text.split('\0');
    let (authorization_id, username, password) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || username.is_empty() || password.is_empty() {
        return None;
    }
    Some(SaslCredentials {
        mechanism: SaslMechanism::Plain,
        authorization_id: (!authorization_id.is_empty()).then(|| authorization_id.to_owned()),
        username: username.to_owned(),
        password: Password(password.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_is_read_strictly() {
        let credentials = plain("admin\0alice\0secret").unwrap();
        assert_eq!(credentials.authorization_id.as_deref(), Some("admin"));
        assert_eq!((credentials.username.as_str(), credentials.password.expose()), ("alice", "secret"));
        for bad in ["", "alice", "\0alice", "\0alice\0", "\0\0secret", "\0a\0b\0c"] {
            assert_eq!(plain(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn passwords_do_not_show() {
        let credentials = plain("\0alice\0secret").unwrap();
        assert!(!format!("{credentials:?}").contains("secret"));
    }
}
