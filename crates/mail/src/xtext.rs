//! xtext (RFC 3461 section 4): how ENVID, ORCPT and AUTH encode characters that a command line cannot hold; and how an
//! address in Unicode is written where only US-ASCII is allowed (RFC 6533 section 3).

use std::borrow::Cow;
use std::fmt::Write as _;

/// Decodes xtext. A `+` that is not followed by two upper-case hexadecimal digits stands for itself.
#[must_use]
pub fn decode(xtext: &str) -> String {
    let bytes = xtext.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let coded = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'+').and_then(octet);
        out.push(coded.unwrap_or(bytes[at]));
        at += if coded.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Whether the decoded text has no control characters, so that it may be shown.
#[must_use]
pub fn is_shown(xtext: &str) -> bool {
    // Decoding replaces octets that are not UTF-8 by U+FFFD, which is not a control character.
    !decode(xtext).chars().any(|c| c.is_ascii_control())
}

/// Writes an address in Unicode as RFC 6533 section 3 does in US-ASCII (`utf-8-addr-xtext`): each other character
/// becomes `\x{HEX}`.
#[must_use]
pub fn unicode_in_ascii(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            c if c.is_ascii() => out.push(c),
            // Writing into a string cannot fail.
            c => drop(write!(out, "\\x{{{:X}}}", u32::from(c))),
        }
    }
    Cow::Owned(out)
}

fn octet(digits: &[u8]) -> Option<u8> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    };
    Some(digit(digits[0])? << 4 | digit(digits[1])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coded_octets_are_read_and_the_rest_is_kept() {
        assert_eq!(decode("a+2Bb+3D"), "a+b=");
        assert_eq!(decode("+"), "+");
        assert_eq!(decode("+2"), "+2");
        assert_eq!(decode("+2b+zz"), "+2b+zz");
        assert_eq!(decode("+C3+A4"), "ä");
        assert_eq!(decode("ä+2B"), "ä+");
    }

    #[test]
    fn control_characters_are_seen_behind_their_code() {
        assert!(is_shown("a+2Bb") && is_shown("+C3+A4") && is_shown("+80") && is_shown("q+20r"));
        assert!(!is_shown("a+0D+0Ab") && !is_shown("+00") && !is_shown("+7F") && !is_shown("a+09"));
    }

    #[test]
    fn unicode_is_written_in_ascii() {
        assert_eq!(
            unicode_in_ascii("utf-8;gr\u{fc}n@\u{1f600}.example"),
            "utf-8;gr\\x{FC}n@\\x{1F600}.example"
        );
        assert_eq!(unicode_in_ascii("rfc822;a+2Bb@c.example"), "rfc822;a+2Bb@c.example");
    }
}
