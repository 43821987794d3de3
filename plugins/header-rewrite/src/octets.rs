//! Values of header fields that are not UTF-8, as text that patterns can match, and back to the same octets.
//!
//! Octets that are not UTF-8 are represented by the private-use characters U+10FF80 to U+10FFFF. Where a value has such
//! characters itself, their octets are represented in the same way, so that each text has one meaning.

use pintle_plugin_sdk::HostError;
use pintle_plugin_sdk::message::{self, Field, unfoldable_pieces};

/// Added to an octet (128 to 255), this gives its character.
const BASE: u32 = 0x10_FF00;

/// Length from which a line is folded, in octets (RFC 5322 section 2.1.1).
const LINE: usize = 78;

/// The fields of the message, with values in this module's form.
pub(crate) fn fields() -> Result<Vec<Field>, HostError> {
    let mut fields = message::headers()?;
    for field in &mut fields {
        if field.value.contains(char::REPLACEMENT_CHARACTER) {
            field.value = value_of(&message::raw_header(field.index)?);
        } else if has_octets(&field.value) {
            field.value = text(field.value.as_bytes());
        }
    }
    Ok(fields)
}

/// Whether the text represents octets that are not UTF-8.
pub(crate) fn has_octets(text: &str) -> bool {
    text.chars().any(|c| octet(c).is_some())
}

/// The text for logs: U+FFFD for each represented octet.
pub(crate) fn shown(text: &str) -> String {
    text.replace(|c| octet(c).is_some(), "\u{fffd}")
}

/// The field as octets, folded, without the final line end.
pub(crate) fn field(name: &str, value: &str) -> Vec<u8> {
    let mut field = format!("{name}: ");
    let mut line = field.len();
    for (at, piece) in unfoldable_pieces(value).enumerate() {
        if at > 0 && line + piece.len() > LINE {
            field.push_str("\r\n");
            line = 0;
        }
        field.push_str(piece);
        line += piece.len();
    }
    let mut octets = Vec::with_capacity(field.len());
    for c in field.chars() {
        match octet(c) {
            Some(octet) => octets.push(octet),
            None => octets.extend(c.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    octets
}

/// The value of a field as received, unfolded and without surrounding blanks.
fn value_of(raw: &[u8]) -> String {
    let begin = raw.iter().position(|octet| *octet == b':').map_or(0, |colon| colon + 1);
    let unfolded: Vec<u8> =
        raw[begin..].iter().copied().filter(|octet| !matches!(octet, b'\r' | b'\n')).collect();
    text(unfolded.trim_ascii())
}

fn text(octets: &[u8]) -> String {
    let mut text = String::with_capacity(octets.len());
    for chunk in octets.utf8_chunks() {
        for c in chunk.valid().chars() {
            match octet(c) {
                Some(_) => text.extend(c.encode_utf8(&mut [0; 4]).bytes().filter_map(character)),
                None => text.push(c),
            }
        }
        text.extend(chunk.invalid().iter().copied().filter_map(character));
    }
    text
}

fn character(octet: u8) -> Option<char> {
    char::from_u32(BASE + u32::from(octet))
}

fn octet(c: char) -> Option<u8> {
    u32::from(c).checked_sub(BASE).and_then(|octet| u8::try_from(octet).ok()).filter(|octet| *octet >= 0x80)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_octets_come_back_as_they_were() {
        for octets in
            [&b"plain"[..], b"caf\xe9 au lait", b"\xff\xfe", "\u{fffd} \u{10ff80}\u{e9}".as_bytes(), b""]
        {
            let value = text(octets);
            assert_eq!(field("X", &value), [b"X: ", octets].concat(), "{octets:?}");
        }
        assert!(has_octets(&text(b"caf\xe9")) && !has_octets("caf\u{e9} \u{fffd}"));
        assert_eq!(shown(&text(b"caf\xe9")), "caf\u{fffd}");
        assert_eq!(text("\u{10ffff}".as_bytes()).chars().count(), 4, "it does not stand for the octet 255");
    }

    #[test]
    fn a_value_is_unfolded_as_the_gateway_does() {
        assert_eq!(value_of(b"Subject:  a: caf\xe9\r\n\tb \r\n"), format!("a: {}\tb", text(b"caf\xe9")));
    }

    #[test]
    fn a_long_value_is_folded_before_blanks() {
        let folded = field("Subject", &format!("{} \t{} end", "a".repeat(60), "b".repeat(60)));
        let lines: Vec<&[u8]> = folded.split(|octet| *octet == b'\n').collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[1].starts_with(b" \tb") && lines[1].ends_with(b"b end"));
        assert_eq!(field("N", "w".repeat(200).as_str()).len(), 203, "a first word stays beside the name");
    }
}
