//! Mailbox addresses (RFC 5321 section 4.1.2, RFC 6531 section 3.3), kept exactly as received.
//!
//! An [`Address`] keeps the text that the client sent, quotes included, since a relay must pass on the local part
//! unchanged (RFC 5321 section 2.3.11). Its meaning (unquoted local part, A-label domain, address literal) is computed
//! on request. Whether an address is local, relayed or refused is decided elsewhere.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest domain, in octets (RFC 5321 section 4.5.3.1.2).
pub const MAX_DOMAIN: usize = 255;
/// The longest path with its angle brackets, in octets (RFC 5321 section 4.5.3.1.3).
///
/// It is the only limit of a local part. The 64 octets of section 4.5.3.1.1 are the minimum that every server must
/// accept, and variable envelope return paths, rewritten senders and mailing-list software write longer ones.
pub const MAX_PATH: usize = 256;

/// A mailbox: `local@domain`, or the bare `postmaster` of RFC 5321 section 4.1.1.3.
///
/// Two addresses are equal when their texts are; use [`Address::key`] to compare what they mean.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    text: Box<str>,
    /// The offset of the `@` between local part and domain; the length of the text when there is no domain.
    at: usize,
}

/// Which characters an address may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charset {
    /// US-ASCII alone (RFC 5321).
    Ascii,
    /// UTF-8 as well, once the client has said SMTPUTF8 (RFC 6531).
    Utf8,
}

/// Why a text is not a mailbox. These are all errors of the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressError {
    /// The path lacks its `<` or its `>`.
    Brackets,
    /// The local part is empty or holds what must be quoted.
    Local,
    /// There is no domain.
    NoDomain,
    /// The domain is empty or malformed.
    Domain,
    /// The address literal is not `[192.0.2.1]` or `[IPv6:2001:db8::1]`.
    Literal,
    /// The domain or the path exceeds its limit.
    TooLong,
    /// There are characters outside US-ASCII, and SMTPUTF8 was not asked for.
    NotAscii,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Brackets => "the address must be in angle brackets",
            Self::Local => "the local part of the address is malformed",
            Self::NoDomain => "the address has no domain; write user@domain",
            Self::Domain => "the domain of the address is malformed",
            Self::Literal => "the address literal is malformed",
            Self::TooLong => "the address is too long",
            Self::NotAscii => "the address holds non-ASCII characters, which need SMTPUTF8",
        })
    }
}

impl std::error::Error for AddressError {}

impl Address {
    /// Parses `local@domain`, without angle brackets. The bare word `postmaster` is accepted too, in any case.
    ///
    /// # Errors
    /// The part of the text that breaks the grammar.
    pub fn parse(text: &str, charset: Charset) -> Result<Self, AddressError> {
        if charset == Charset::Ascii && !text.is_ascii() {
            return Err(AddressError::NotAscii);
        }
        let address = Self::read(text)?;
        // RFC 6531 section 3.3: a domain is made of U-labels. A text that does not convert to a domain, like
        // `evil.example\u{ff20}ours` with its full-width sign, is a different address to software that normalises it.
        if !address.domain().is_ascii() && !address.domain_ascii().is_ascii() {
            return Err(AddressError::Domain);
        }
        Ok(address)
    }

    /// Checks the grammar alone: an address that an earlier version accepted must stay readable where it is stored.
    fn read(text: &str) -> Result<Self, AddressError> {
        // RFC 5321 section 4.5.1: <postmaster> without a domain must be accepted, in any case.
        if text.eq_ignore_ascii_case("postmaster") {
            return Ok(Self { text: text.into(), at: text.len() });
        }
        let at = local_end(text)?;
        let domain = text[at..].strip_prefix('@').ok_or(AddressError::NoDomain)?;
        // The final dot of a name as DNS writes it is not part of the address, and next hops treat it differently, so
        // it is removed.
        let domain = domain.strip_suffix('.').unwrap_or(domain);
        let text = &text[..=at + domain.len()];
        check_domain(domain)?;
        if domain.len() > MAX_DOMAIN || text.len() + 2 > MAX_PATH {
            return Err(AddressError::TooLong);
        }
        Ok(Self { text: text.into(), at })
    }

    /// The text as received, without angle brackets.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The local part as received, quotes and backslashes included.
    #[must_use]
    pub fn local_as_received(&self) -> &str {
        &self.text[..self.at]
    }

    /// The local part without the quotes and backslashes of a quoted string.
    #[must_use]
    pub fn local(&self) -> Cow<'_, str> {
        let raw = self.local_as_received();
        match raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            Some(inner) if inner.contains('\\') => Cow::Owned(unescape(inner)),
            Some(inner) => Cow::Borrowed(inner),
            None => Cow::Borrowed(raw),
        }
    }

    /// The domain as received, possibly an address literal with its brackets; empty for the bare `postmaster`.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.text.get(self.at + 1..).unwrap_or("")
    }

    /// The domain in A-labels and lower case, as DNS and routing tables require it.
    ///
    /// A domain without a valid A-label form is only lower-cased; DNS will not find it.
    #[must_use]
    pub fn domain_ascii(&self) -> String {
        domain_to_ascii(self.domain())
    }

    /// The IP address, when the domain is an address literal; otherwise none.
    #[must_use]
    pub fn literal(&self) -> Option<IpAddr> {
        parse_literal(self.domain())
    }

    /// Whether this is `postmaster` without a domain.
    #[must_use]
    pub fn is_bare_postmaster(&self) -> bool {
        self.at == self.text.len()
    }

    /// The address as it is sent without SMTPUTF8: as received, or with its domain in A-labels. None when the local
    /// part is not US-ASCII, since a local part has no other form (RFC 6531 section 3.2).
    #[must_use]
    pub fn ascii(&self) -> Option<Cow<'_, str>> {
        if self.text.is_ascii() {
            return Some(Cow::Borrowed(&self.text));
        }
        let domain = self.domain_ascii();
        let has_form = self.local_as_received().is_ascii() && domain.is_ascii();
        has_form.then(|| Cow::Owned(format!("{}@{domain}", self.local_as_received())))
    }

    /// Whether the address cannot be sent without SMTPUTF8.
    #[must_use]
    pub fn needs_smtputf8(&self) -> bool {
        self.ascii().is_none()
    }

    /// What all spellings of one mailbox have in common: the unquoted local part, in its own case, and the A-label
    /// domain.
    #[must_use]
    pub fn key(&self) -> (String, String) {
        (self.local().into_owned(), self.domain_ascii())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.text)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        Self::read(&text).map_err(serde::de::Error::custom)
    }
}

/// Where bounces are sent: an address, or nowhere (RFC 5321 section 4.5.5).
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum ReversePath {
    /// `<>`: no report may be sent.
    Null,
    /// `<local@domain>`: reports are sent to this address.
    Address(Address),
}

impl ReversePath {
    /// The address, unless the path is null.
    #[must_use]
    pub fn address(&self) -> Option<&Address> {
        match self {
            Self::Null => None,
            Self::Address(address) => Some(address),
        }
    }

    /// Whether this is `<>`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The text between the angle brackets; empty for the null path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.address().map_or("", Address::as_str)
    }

    /// Parses the text between the brackets; the empty text is the null path.
    ///
    /// # Errors
    /// As [`Address::parse`]; a reverse-path without a domain is refused.
    pub fn parse(text: &str, charset: Charset) -> Result<Self, AddressError> {
        Self::of(text, |text| Address::parse(text, charset))
    }

    fn of(
        text: &str,
        read: impl FnOnce(&str) -> Result<Address, AddressError>,
    ) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Ok(Self::Null);
        }
        let address = read(text)?;
        if address.is_bare_postmaster() { Err(AddressError::NoDomain) } else { Ok(Self::Address(address)) }
    }
}

impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.as_str())
    }
}

impl Serialize for ReversePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ReversePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        Self::of(&text, Address::read).map_err(serde::de::Error::custom)
    }
}

/// Splits `<path>` off the front of a command's argument. Returns the mailbox text between the brackets, without a
/// source route (RFC 5321 appendix C: accepted and ignored), and the text after the `>`.
///
/// # Errors
/// [`AddressError::Brackets`] when a bracket is missing. The mailbox itself is not checked.
pub fn split_path(argument: &str) -> Result<(&str, &str), AddressError> {
    let inner = argument.strip_prefix('<').ok_or(AddressError::Brackets)?;
    let end = closing_bracket(inner).ok_or(AddressError::Brackets)?;
    let (path, rest) = (&inner[..end], &inner[end + 1..]);
    // Blanks inside the brackets are a common mistake and are ignored.
    let path = path.trim_matches([' ', '\t']);
    Ok((without_source_route(path)?, rest))
}

/// The IP address that an address literal names: `[192.0.2.1]`, `[IPv6:2001:db8::1]` (RFC 5321 section 4.1.3).
fn parse_literal(domain: &str) -> Option<IpAddr> {
    let inner = domain.strip_prefix('[')?.strip_suffix(']')?;
    match inner.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("IPv6:") => inner[5..].parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => inner.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

/// Converts a domain to A-labels and lower case; a literal is only lower-cased. A name without A-labels is only
/// lower-cased too, also where UTS 46 mapping would produce characters that no domain has: `evil.example\u{ff20}ours`
/// is not `evil.example@ours`.
#[must_use]
pub fn domain_to_ascii(domain: &str) -> String {
    if domain.is_ascii() {
        return domain.to_ascii_lowercase();
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let ascii = idna::domain_to_ascii(domain).ok();
    let ascii = ascii.filter(|ascii| ascii.chars().all(is_name) && !ascii.is_empty());
    ascii.unwrap_or_else(|| domain.to_lowercase())
}

/// Checks that the text is a domain or an address literal, as EHLO and addresses require.
///
/// # Errors
/// Whether the domain or the literal is malformed.
pub fn check_domain(domain: &str) -> Result<(), AddressError> {
    if domain.starts_with('[') {
        return parse_literal(domain).map(|_| ()).ok_or(AddressError::Literal);
    }
    // RFC 5321 section 4.1.2 does not allow underscores, but they are common in internal host names. Refusing them
    // would refuse real mail, and they harm no next hop.
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_') || is_utf8_text(c))
    };
    if domain.split('.').all(label) { Ok(()) } else { Err(AddressError::Domain) }
}

/// The offset of the `>` that ends the path; a `>` inside a quoted string is text.
fn closing_bracket(inner: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in inner.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

fn without_source_route(path: &str) -> Result<&str, AddressError> {
    if !path.starts_with('@') {
        return Ok(path);
    }
    let (route, mailbox) = path.split_once(':').ok_or(AddressError::Local)?;
    for hop in route.split(',') {
        check_domain(hop.strip_prefix('@').ok_or(AddressError::Domain)?)?;
    }
    Ok(mailbox)
}

fn local_end(text: &str) -> Result<usize, AddressError> {
    if text.starts_with('"') { quoted_end(text) } else { dot_string_end(text) }
}

fn dot_string_end(text: &str) -> Result<usize, AddressError> {
    let end = text.find('@').ok_or(AddressError::NoDomain)?;
    // RFC 5321 section 4.1.2 forbids adjacent dots and dots at the ends. Mobile carriers have issued such addresses,
    // and their mail servers, like most others, accept them.
    let is_known = |c: char| is_atext(c) || c == '.';
    if end > 0 && text[..end].chars().all(is_known) { Ok(end) } else { Err(AddressError::Local) }
}

fn quoted_end(text: &str) -> Result<usize, AddressError> {
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok(at + 1),
            '\\' => match chars.next() {
                Some((_, ' '..='~')) => {}
                _ => return Err(AddressError::Local),
            },
            ' '..='~' => {}
            c if is_utf8_text(c) => {}
            _ => return Err(AddressError::Local),
        }
    }
    Err(AddressError::Local)
}

/// The characters of an atom: RFC 5322 section 3.2.3, extended by RFC 6531 section 3.3.
fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || is_utf8_text(c)
}

fn is_utf8_text(c: char) -> bool {
    !c.is_ascii() && !c.is_control()
}

fn unescape(inner: &str) -> String {
    let mut text = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        text.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ascii(text: &str) -> Result<Address, AddressError> {
        Address::parse(text, Charset::Ascii)
    }

    #[test]
    fn parts_are_kept_as_received() {
        let address = ascii(r#""a\"b@c d"@Example.ORG"#).unwrap();
        assert_eq!(address.as_str(), r#""a\"b@c d"@Example.ORG"#);
        assert_eq!(address.local(), r#"a"b@c d"#);
        assert_eq!(address.domain(), "Example.ORG");
        assert_eq!(address.domain_ascii(), "example.org");
    }

    #[test]
    fn postmaster_needs_no_domain() {
        let address = ascii("PostMaster").unwrap();
        assert!(address.is_bare_postmaster());
        assert_eq!(address.domain(), "");
        assert_eq!(address.as_str(), "PostMaster");
        assert_eq!(ascii("someone"), Err(AddressError::NoDomain));
    }

    #[test]
    fn literals_are_read() {
        assert_eq!(ascii("a@[192.0.2.1]").unwrap().literal(), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(ascii("a@[IPv6:2001:db8::1]").unwrap().literal(), Some("2001:db8::1".parse().unwrap()));
        assert_eq!(ascii("a@[2001:db8::1]"), Err(AddressError::Literal));
        assert_eq!(ascii("a@[1.2.3]"), Err(AddressError::Literal));
    }

    #[test]
    fn malformed_addresses_name_their_part() {
        for (text, error) in [
            ("@example.org", AddressError::Local),
            ("a b@example.org", AddressError::Local),
            ("\"a@example.org", AddressError::Local),
            ("a@", AddressError::Domain),
            ("a@-b.org", AddressError::Domain),
            ("a@b..org", AddressError::Domain),
            ("a@b.org..", AddressError::Domain),
            ("a@.", AddressError::Domain),
            ("a@b@c.org", AddressError::Domain),
            ("ä@example.org", AddressError::NotAscii),
        ] {
            assert_eq!(ascii(text), Err(error), "{text}");
        }
        // With the brackets, 256 octets.
        assert!(ascii(&format!("{}@example.org", "a".repeat(242))).is_ok());
        assert_eq!(ascii(&format!("{}@example.org", "a".repeat(243))), Err(AddressError::TooLong));
    }

    #[test]
    fn what_no_next_hop_takes_amiss_is_taken() {
        for local in ["a..b", ".a", "a.", "a.-.b"] {
            let address = ascii(&format!("{local}@example.org")).unwrap();
            assert_eq!((address.as_str(), &*address.local()), (&*format!("{local}@example.org"), local));
        }
        let address = ascii("ann@Example.org.").unwrap();
        assert_eq!((address.as_str(), address.domain()), ("ann@Example.org", "Example.org"));
    }

    #[test]
    fn utf8_is_taken_when_asked_for() {
        let address = Address::parse("grüße@bücher.example", Charset::Utf8).unwrap();
        assert!(address.needs_smtputf8());
        assert_eq!(address.domain_ascii(), "xn--bcher-kva.example");
    }

    #[test]
    fn an_address_that_is_foreign_in_its_domain_alone_has_an_ascii_form() {
        let form = |text: &str| Address::parse(text, Charset::Utf8).unwrap().ascii().map(Cow::into_owned);
        assert_eq!(form("info@B\u{fc}cher.example").as_deref(), Some("info@xn--bcher-kva.example"));
        assert_eq!(form("\"a b\"@b\u{fc}cher.example").as_deref(), Some("\"a b\"@xn--bcher-kva.example"));
        assert_eq!(form("Info@Example.org").as_deref(), Some("Info@Example.org"));
        assert_eq!(form("gr\u{fc}n@b\u{fc}cher.example"), None);
    }

    #[test]
    fn a_domain_that_becomes_two_addresses_or_none_is_no_domain() {
        for text in [
            "u@evil.example\u{ff20}x.ours.example",
            "u@evil.example\u{fe6b}ours.example",
            "u@evil.example\u{ff05}ours.example",
            "u@ours.example\u{ff1a}25",
            "u@\u{ff3b}192.0.2.1\u{ff3d}",
            "u@evil.example\u{2f}\u{e9}.ours.example",
            "u@evil.example\u{ff0f}.ours.example",
            "u@\u{2100}.ours.example",
            "u@evil.example\u{3000}.ours.example",
        ] {
            assert_eq!(Address::parse(text, Charset::Utf8), Err(AddressError::Domain), "{text}");
            let domain = &text[2..];
            assert!(!domain_to_ascii(domain).is_ascii(), "{text}");
        }
        let wide = Address::parse("u@ours\u{3002}example", Charset::Utf8).unwrap();
        assert_eq!(wide.domain_ascii(), "ours.example");
    }

    #[test]
    fn what_an_earlier_version_took_is_read_from_where_it_is_stored() {
        let stored = serde::de::value::StrDeserializer::<serde::de::value::Error>::new;
        let text = "u@evil.example\u{ff20}x.ours.example";
        assert_eq!(Address::deserialize(stored(text)).unwrap().as_str(), text);
        assert_eq!(ReversePath::deserialize(stored(text)).unwrap().as_str(), text);
        assert_eq!(ReversePath::deserialize(stored("")).unwrap(), ReversePath::Null);
        assert!(Address::deserialize(stored("u@")).is_err());
    }

    #[test]
    fn paths_end_at_the_unquoted_bracket() {
        assert_eq!(split_path("<a@b.c> SIZE=1"), Ok(("a@b.c", " SIZE=1")));
        assert_eq!(split_path(r#"<"a>b"@c.d>"#), Ok((r#""a>b"@c.d"#, "")));
        assert_eq!(split_path("<>"), Ok(("", "")));
        assert_eq!(split_path("< a@b.c\t> X"), Ok(("a@b.c", " X")));
        assert_eq!(split_path("<@x.y,@z.w:a@b.c>"), Ok(("a@b.c", "")));
        assert_eq!(split_path("a@b.c"), Err(AddressError::Brackets));
        assert_eq!(split_path("<a@b.c"), Err(AddressError::Brackets));
    }

    #[test]
    fn the_null_path_is_its_own_thing() {
        assert_eq!(ReversePath::parse("", Charset::Ascii), Ok(ReversePath::Null));
        assert_eq!(ReversePath::parse("postmaster", Charset::Ascii), Err(AddressError::NoDomain));
    }
}
