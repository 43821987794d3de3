//! Encoded words (RFC 2047), which write text outside ASCII in header fields: reading and writing them; and charsets.

mod write;

use std::borrow::Cow;

use mail_parser::decoders::charsets::map::charset_decoder;
use mail_parser::parsers::MessageStream;

pub(crate) use write::{TextWord, WordWriter};

/// The longest encoded word that is read, in octets; RFC 2047 section 2 allows 75. Without a limit, a text in which a
/// word may begin at every third octet would be searched to its end each time.
const MAX_WORD: usize = 1_000;

/// What every encoded word begins with.
pub(crate) const WORD_START: &str = "=?";
const WORD_END: &str = "?=";

/// Decodes the encoded words in an unfolded field value, or in any other text.
///
/// Words are decoded where mail programs decode them: within longer words and quoted strings too, where RFC 2047 section
/// 5 does not permit them. A word that cannot be decoded stays as it is; one with an unknown charset is decoded as
/// UTF-8. Decoded line ends, NUL and other controls are kept.
///
/// The work grows linearly with the text. The result has at most three times as many octets.
#[must_use]
pub fn decoded(text: &str) -> String {
    let mut shown = String::new();
    let mut ends = WordEnds { text, next: 0 };
    let (mut at, mut follows_word) = (0, false);
    while let Some(start) = text[at..].find(WORD_START).map(|start| at + start) {
        let before = &text[at..start];
        let word = ends.candidate(start).and_then(|end| Some((word(&text[start..end])?, end)));
        // RFC 2047 section 6.2: white space between two encoded words is not part of the text.
        if !(follows_word && word.is_some() && before.chars().all(is_linear_white)) {
            shown.push_str(before);
        }
        follows_word = word.is_some();
        let (text, end) = word
            .map_or((Cow::Borrowed(WORD_START), start + WORD_START.len()), |(text, end)| {
                (Cow::Owned(text), end)
            });
        shown.push_str(&text);
        at = end;
    }
    shown.push_str(&text[at..]);
    shown
}

/// The ends of encoded words in a text. The offset of the next one is kept, so that no octet is searched for it twice.
struct WordEnds<'a> {
    text: &'a str,
    /// The offset after the last [`WORD_END`] that was found; `usize::MAX` if there are no more.
    next: usize,
}

impl WordEnds<'_> {
    /// The end of the encoded word that may begin at `start`. Later calls are for later starts.
    fn candidate(&mut self, start: usize) -> Option<usize> {
        let mark = |from: usize| self.text[from..].find('?').map(|at| from + at + 1);
        let limit = self.text.floor_char_boundary(start + MAX_WORD);
        let charset = mark(start + WORD_START.len())?;
        let data = mark(charset).filter(|data| *data < limit)?;
        if self.next < data + WORD_END.len() {
            let end = self.text[data..].find(WORD_END);
            self.next = end.map_or(usize::MAX, |at| data + at + WORD_END.len());
        }
        (self.next <= limit).then_some(self.next)
    }
}

/// Whether the whole text is one encoded word, which can be decoded.
pub(crate) fn is_encoded_word(text: &str) -> bool {
    let end = text.starts_with(WORD_START).then(|| WordEnds { text, next: 0 }.candidate(0)).flatten();
    end == Some(text.len()) && word(text).is_some()
}

/// Decodes one encoded word.
fn word(text: &str) -> Option<String> {
    MessageStream::new(&text.as_bytes()[1..]).decode_rfc2047()
}

/// Linear white space (RFC 2047 section 1.2), with the line ends of folding.
fn is_linear_white(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// Converts octets to text by a charset. UTF-8 is used when there is no charset or it is not known, with U+FFFD for
/// invalid octets.
pub(crate) fn text(octets: &[u8], charset: Option<&str>) -> String {
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
pub(crate) fn hex(digits: &[u8]) -> Option<u8> {
    let digit = |octet: u8| char::from(octet).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match digits {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_what_readers_see() {
        for (text, shown) in [
            ("=?utf-8?Q?Zo=C3=AB?= Lee", "Zoë Lee"),
            ("=?UTF-8?B?Wm/Dqw==?= =?utf-8?q?_Lee?=", "Zoë Lee"),
            ("=?utf-8?q?a?=\r\n\t=?utf-8?q?b?=  c", "ab  c"),
            ("=?utf-8?q?a?= \u{3000} =?utf-8?q?b?=", "a \u{3000} b"),
            ("a =?iso-8859-1?Q?=E9?= b", "a é b"),
            ("=?koi8-r?B?8NLJ18XU?=", "Привет"),
            ("=?iso-2022-jp?B?GyRCRnxLXBsoQg==?=", "日本"),
            ("=?no-such?Q?=C3=A9?=", "é"),
            ("=?utf-8*en?Q?a?=", "a"),
            ("=?utf-8?Q?bob=40good.example?=", "bob@good.example"),
            ("=?utf-8?Q?a=00b?=", "a\0b"),
            ("(=?utf-8?q?a?=)(=?utf-8?q?b?=)", "(a)(b)"),
            ("=?nonsense", "=?nonsense"),
            ("1 =? 2 ?= 3", "1 =? 2 ?= 3"),
            ("=?utf-8?X?abc?= =?utf-8?q?a?=", "=?utf-8?X?abc?= a"),
            ("=?utf-8?q?=zz?= =?utf-8?q?a?=", "=?utf-8?q?=zz?= a"),
            ("=?=?utf-8?q?a?=", "=?a"),
            ("é =?", "é =?"),
            ("=?a?q?", "=?a?q?"),
            ("", ""),
        ] {
            assert_eq!(decoded(text), shown, "{text}");
        }
    }

    #[test]
    fn a_word_may_be_longer_than_the_standard_has_it() {
        let word = |len: usize| format!("=?utf-8?q?{}?=", "a".repeat(len - 12));
        assert_eq!(decoded(&word(MAX_WORD)), "a".repeat(MAX_WORD - 12));
        assert_eq!(decoded(&word(MAX_WORD + 1)), word(MAX_WORD + 1));
    }

    /// Each would take minutes if it were searched again and again.
    #[test]
    fn hostile_values_are_read_in_time_and_bounded() {
        let size = 1 << 20;
        let many = |text: &str| text.repeat(size / text.len());
        for value in [
            many("=?"),
            many("=?a"),
            many("=?aa?q?"),
            many("=?aa?q?_"),
            many("=?aa?q?x "),
            many("?="),
            many("=?koi8-r?q?\u{fffd}\u{fffd}?="),
            "=?iso-8859-1?q?=80=80=80=80?= ".repeat(10_000),
            format!("=?iso-8859-1?q?{}?=", "é".repeat(450)).repeat(1_000),
            format!("{}=zz?=", "=?aa?q?_".repeat(120)).repeat(1_000),
            format!("=?utf-8?q?{}", many("a")),
        ] {
            assert!(decoded(&value).len() <= 3 * value.len(), "{}", &value[..12]);
        }
        assert_eq!(decoded(&"=?utf-8?q?x?= ".repeat(10_000)), format!("{} ", "x".repeat(10_000)));
    }
}
