//! Functions on mail addresses and IP addresses: construction, quoting of local parts, and the text forms for logs.

use std::fmt;
use std::net::IpAddr;

use crate::{Address, IpAddress};

impl Address {
    /// The address with this local part, without quotes and escapes, and this domain, in A-labels or empty. Both empty
    /// give the null reverse-path.
    #[must_use]
    pub fn new(local: &str, domain: &str) -> Self {
        let domain = domain.to_ascii_lowercase();
        let text = wire_form(local, &domain);
        Self { text, local: local.to_owned(), domain_shown: domain.clone(), domain }
    }

    /// The address with another local part, without quotes and escapes, in the same domain.
    #[must_use]
    pub fn with_local(&self, local: &str) -> Self {
        Self { text: wire_form(local, &self.domain_shown), local: local.to_owned(), ..self.clone() }
    }

    /// Whether this is the null reverse-path, `<>`, which bounces use.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.text.is_empty()
    }
}

/// `local@domain`, with the local part quoted where necessary.
fn wire_form(local: &str, domain: &str) -> String {
    if local.is_empty() && domain.is_empty() {
        return String::new();
    }
    let at = if domain.is_empty() { "" } else { "@" };
    if is_dot_string(local) {
        return format!("{local}{at}{domain}");
    }
    // RFC 5321 section 4.1.2: only quote and backslash must be escaped in a quoted string.
    let escaped = local.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{escaped}\"{at}{domain}")
}

/// RFC 5321 section 4.1.2, Dot-string, with the non-ASCII characters that RFC 6531 section 3.3 permits in its atoms.
fn is_dot_string(local: &str) -> bool {
    let is_atext = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || !c.is_ascii();
    local.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atext))
}

/// [`Address::text`], but `<>` for the null reverse-path, since an empty string would be unclear in a log. Functions of
/// the host take the field.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_null() { "<>" } else { &self.text })
    }
}

impl From<IpAddr> for IpAddress {
    fn from(address: IpAddr) -> Self {
        let address = address.to_canonical();
        let octets = match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        Self { text: address.to_string(), octets }
    }
}

impl fmt::Display for IpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(local: &str, domain: &str) -> String {
        Address::new(local, domain).to_string()
    }

    #[test]
    fn an_address_is_quoted_where_the_wire_would_quote_it() {
        assert_eq!(text("ann.lee", "example.com"), "ann.lee@example.com");
        assert_eq!(text("zoë", "Example.com"), "zoë@example.com");
        assert_eq!(text("a b\"c\\", "example.com"), r#""a b\"c\\"@example.com"#);
        assert_eq!(text("a..b", "example.com"), "\"a..b\"@example.com");
        assert_eq!(text("postmaster", ""), "postmaster");
        assert_eq!(text("", ""), "<>");
        assert!(Address::new("", "").is_null() && Address::new("", "").text.is_empty());
    }

    #[test]
    fn another_local_part_leaves_the_domain_as_it_was_sent() {
        let address = Address {
            text: "ann@bücher.example".to_owned(),
            local: "ann".to_owned(),
            domain: "xn--bcher-kva.example".to_owned(),
            domain_shown: "bücher.example".to_owned(),
        };
        let other = address.with_local("a b");
        assert_eq!((other.text.as_str(), other.local.as_str()), ("\"a b\"@bücher.example", "a b"));
        assert_eq!(other.domain, "xn--bcher-kva.example");
    }

    #[test]
    fn a_mapped_address_is_ipv4() {
        let mapped = IpAddress::from("::ffff:192.0.2.1".parse::<IpAddr>().unwrap());
        assert_eq!((mapped.text.as_str(), mapped.octets.len()), ("192.0.2.1", 4));
    }
}
