//! Encoded words (RFC 2047) and charsets, in file names and in text.

use std::borrow::Cow;

use mail_parser::decoders::charsets::map::charset_decoder;
use mail_parser::parsers::MessageStream;

/// The longest encoded word that is read, in octets; RFC 2047 section 2 allows 75. Without a limit, a text in which a
/// word may begin at every third octet would be searched to its end each time.
const MAX_WORD: usize = 1_000;

/// Decodes encoded words. A word that cannot be decoded stays as it is.
pub(crate) fn decode(text: &str) -> String {
    let mut shown = String::new();
    let (mut rest, mut follows_word) = (text, false);
    while let Some(at) = rest.find("=?") {
        let (before, word) = rest.split_at(at);
        let decoded = word_at(word);
        // RFC 2047 section 6.2: white space between two encoded words is not part of the text.
        if !(follows_word && decoded.is_some() && before.trim().is_empty()) {
            shown.push_str(before);
        }
        follows_word = decoded.is_some();
        let (text, len) = decoded.unwrap_or_else(|| ("=?".to_owned(), 2));
        shown.push_str(&text);
        rest = &word[len..];
    }
    shown + rest
}

/// Decodes the word that the text begins with; returns it and its length in octets.
fn word_at(text: &str) -> Option<(String, usize)> {
    let text = &text[..text.floor_char_boundary(MAX_WORD)];
    let charset = 2 + text[2..].find('?')?;
    let data = charset + 1 + text[charset + 1..].find('?')? + 1;
    let len = data + text[data..].find("?=")? + 2;
    let decoded = MessageStream::new(&text.as_bytes()[1..len]).decode_rfc2047()?;
    Some((decoded, len))
}

/// Converts octets to text by a charset. UTF-8 is used when there is no charset or it is not known, with U+FFFD for
/// invalid octets.
pub(super) fn text(octets: &[u8], charset: Option<&str>) -> String {
    let decoder = charset.and_then(|charset| match charset {
        "utf-8" | "utf8" | "us-ascii" => None,
        other => charset_decoder(other.as_bytes()),
    });
    decoder.map_or_else(|| unicode(octets), |decode| decode(octets))
}

/// Most text is valid UTF-8, and checking that first is faster than decoding each octet.
fn unicode(octets: &[u8]) -> String {
    std::str::from_utf8(octets).map_or_else(|_| String::from_utf8_lossy(octets), Cow::Borrowed).into_owned()
}

/// The octet that two hexadecimal digits encode.
pub(super) fn hex(digits: &[u8]) -> Option<u8> {
    let digit = |octet: u8| char::from(octet).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match digits {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    }
}
