//! Functions that build verdicts and replies, and the text forms of shared types.

use std::fmt;

use crate::{Address, HostError, IpAddress, Reply, Verdict};

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

impl Address {
    /// Whether this is the null reverse-path, `<>`, which bounces use.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.local.is_empty() && self.domain.is_empty()
    }
}

/// `local@domain` as sent in SMTP, without angle brackets; `<>` for the null reverse-path, since an empty string would
/// be unclear in a log.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_null() {
            return f.write_str("<>");
        }
        if is_dot_string(&self.local) {
            f.write_str(&self.local)?;
        } else {
            // RFC 5321 section 4.1.2: only quote and backslash must be escaped in a quoted string.
            write!(f, "\"{}\"", self.local.replace('\\', "\\\\").replace('"', "\\\""))?;
        }
        if self.domain.is_empty() { Ok(()) } else { write!(f, "@{}", self.domain) }
    }
}

/// RFC 5321 section 4.1.2, Dot-string, with the non-ASCII characters that RFC 6531 section 3.3 permits in its atoms.
fn is_dot_string(local: &str) -> bool {
    let is_atext = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || !c.is_ascii();
    local.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atext))
}

impl fmt::Display for IpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
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

    fn address(local: &str, domain: &str) -> Address {
        Address { local: local.to_owned(), domain: domain.to_owned(), domain_ascii: domain.to_owned() }
    }

    #[test]
    fn an_address_is_quoted_where_the_wire_would_quote_it() {
        assert_eq!(address("ann.lee", "example.com").to_string(), "ann.lee@example.com");
        assert_eq!(address("zoë", "example.com").to_string(), "zoë@example.com");
        assert_eq!(address("a b\"c\\", "example.com").to_string(), r#""a b\"c\\"@example.com"#);
        assert_eq!(address("a..b", "example.com").to_string(), "\"a..b\"@example.com");
        assert_eq!(address("postmaster", "").to_string(), "postmaster");
        assert_eq!(address("", "").to_string(), "<>");
    }

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
