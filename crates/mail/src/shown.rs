//! Untrusted text for display in one line: decoded, bounded, and without characters that a terminal or a log would act
//! on.

use crate::encoded_words;

/// The octets of a field that are read for each character shown; an encoded word takes up to 12 for one.
const OCTETS_EACH: usize = 32;

/// The value of a field as its readers see it (RFC 2047), in one line of at most `most` characters. A text that is cut
/// ends in an ellipsis. Controls, line ends and characters that change the direction of text become U+FFFD.
#[must_use]
pub fn shown(value: &str, most: usize) -> String {
    let end = value.floor_char_boundary(most.saturating_mul(OCTETS_EACH));
    let decoded = encoded_words::decoded(value[..end].trim());
    let mut letters =
        decoded.trim().chars().map(|c| if acts_on_terminal(c) { char::REPLACEMENT_CHARACTER } else { c });
    let mut text: String = letters.by_ref().take(most).collect();
    if letters.next().is_some() || end < value.len() {
        text.pop();
        text.push('…');
    }
    text
}

/// Whether a terminal or a line-based reader takes this character for more than a letter: controls, line ends, and
/// characters that change the direction of text (Unicode TR 36, section 2.7).
#[must_use]
pub fn acts_on_terminal(c: char) -> bool {
    let turns =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let ends = matches!(c, '\u{2028}' | '\u{2029}');
    turns || ends || (c.is_control() && c != '\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_shown_decoded_in_one_harmless_line() {
        for (value, line) in [
            ("hello", "hello"),
            (" =?utf-8?Q?Zo=C3=AB?= =?UTF-8?B?TGVl?= ", "ZoëLee"),
            ("=?utf-8?Q?a=0D=0AERROR_b=1B[2J?=", "a\u{fffd}\u{fffd}ERROR b\u{fffd}[2J"),
            ("=?utf-8?B?4oCuZXhl?=", "\u{fffd}exe"),
            ("a\u{2028}b\u{9b}c", "a\u{fffd}b\u{fffd}c"),
        ] {
            assert_eq!(shown(value, 200), line, "{value}");
        }
    }

    #[test]
    fn what_is_shown_is_bounded_whatever_its_form() {
        assert_eq!(shown("12345", 5), "12345");
        assert_eq!(shown("123456", 5), "1234…");
        let long = "=?utf-8?Q?=C3=AB?= ".repeat(100_000);
        assert!(shown(&long, 20).chars().count() <= 20);
        assert!(shown(&"x".repeat(1 << 20), 200).ends_with('…'));
    }
}
