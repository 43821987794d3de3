//! Functions that build verdicts and replies, and the text form of replies.

use std::fmt;

use crate::{HostError, Reply, Verdict};

/// Refuses permanently: 550 with an enhanced status code of class 5 (RFC 3463) such as "5.7.1", and a text that the
/// sender reads in a bounce.
#[must_use]
pub fn reject(enhanced: &str, text: impl Into<String>) -> Verdict {
    Verdict::Reject(Some(Reply::new(550, enhanced, text)))
}

/// Refuses temporarily: 451 with an enhanced status code of class 4 (RFC 3463) such as "4.7.1"; the client will retry.
#[must_use]
pub fn defer(enhanced: &str, text: impl Into<String>) -> Verdict {
    Verdict::Defer(Some(Reply::new(451, enhanced, text)))
}

impl Reply {
    /// A reply with this code; `text` may contain several lines.
    #[must_use]
    pub fn new(code: u16, enhanced: &str, text: impl Into<String>) -> Self {
        Self { code, enhanced: Some(enhanced.to_owned()), text: text.into() }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.enhanced {
            Some(enhanced) => write!(f, "{} {enhanced} {}", self.code, self.text),
            None => write!(f, "{} {}", self.code, self.text),
        }
    }
}

impl HostError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Temporary(_) | Self::Timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_carry_their_replies() {
        let Verdict::Reject(Some(reply)) = reject("5.7.1", "no") else { panic!("not a reply") };
        assert_eq!(reply.to_string(), "550 5.7.1 no");
        let Verdict::Defer(Some(reply)) = defer("4.7.1", "later") else { panic!("not a reply") };
        assert_eq!(reply.to_string(), "451 4.7.1 later");
    }

    #[test]
    fn trouble_that_may_pass_is_told_from_a_refusal() {
        assert!(HostError::Timeout.is_temporary());
        assert!(!HostError::Denied("dns".to_owned()).is_temporary());
    }
}
