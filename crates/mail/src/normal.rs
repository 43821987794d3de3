//! The normalised form of a text: an address that we check as received may become another one at a next hop that
//! normalises it.
//!
//! RFC 6531 servers may normalise, directories fold full-width letters, and programs convert to code pages that have
//! only a similar character. [`normal`] applies all of these at once. One change too many does no harm: the result is
//! compared with the text as received, and only a text that is the same in both forms is beyond doubt.

use std::borrow::Cow;

use icu_normalizer::ComposingNormalizerBorrowed as Normalizer;
use icu_properties::CodePointSetData;
use icu_properties::props::DefaultIgnorableCodePoint;

/// Returns the text in compatibility form (NFKC), without invisible characters and surrounding blanks, and with the
/// routing characters (`!`, `%`, `:`, `.`) in place of those that code pages convert to them.
#[must_use]
pub fn normal(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text.trim_matches(|c: char| c.is_ascii_whitespace() || c.is_ascii_control()));
    }
    let shown: String = text.chars().filter(|c| !is_unseen(*c)).map(plain_sign).collect();
    let normal = Normalizer::new_nfkc().normalize(&shown);
    // Decomposition can produce letters that were not there to be filtered before.
    let shown: String = normal.chars().filter(|c| !is_unseen(*c)).map(plain_sign).collect();
    Cow::Owned(shown.trim().to_owned())
}

/// Whether normalising leaves the text as it is. A text that differs only in composition (`e` and an accent for `é`)
/// counts as the same: Unicode calls both canonically equivalent, and keyboards differ.
#[must_use]
pub fn is_normal(text: &str) -> bool {
    *normal(text) == *Normalizer::new_nfc().normalize(text)
}

/// Characters that programs drop: Unicode's ignorable ones (zero width, joiners, soft hyphen, tags) and controls.
fn is_unseen(c: char) -> bool {
    c.is_control() || CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c)
}

/// Replaces a character that code pages convert to a routing character, or that looks like one, and that NFKC does not
/// change. Other characters stay.
fn plain_sign(c: char) -> char {
    match c {
        '\u{1c3}' => '!',
        '\u{66a}' | '\u{2052}' => '%',
        '\u{2236}' | '\u{a789}' | '\u{5c3}' | '\u{2f8}' => ':',
        '\u{3002}' => '.',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_make_of_a_text_is_seen() {
        for (text, becomes) in [
            ("ann", "ann"),
            (" ann\t", "ann"),
            ("b\u{ff20}x", "b@x"),
            ("b\u{fe6b}x", "b@x"),
            ("x\u{ff1a}\u{ff1a}b", "x::b"),
            ("x\u{2236}\u{2236}b", "x::b"),
            ("x\u{2a74}b", "x::=b"),
            ("b\u{203c}x", "b!!x"),
            ("b\u{66a}x", "b%x"),
            ("a\u{200b}n\u{ad}n\u{feff}", "ann"),
            ("\u{3000}\u{a0}ann\u{2003}", "ann"),
            ("\u{ff21}\u{fb01}", "Afi"),
            ("zoe\u{308}", "zo\u{eb}"),
        ] {
            assert_eq!(normal(text), becomes, "{text:?}");
        }
    }

    #[test]
    fn what_is_only_composed_otherwise_is_no_other_text() {
        for same in ["ann", "zoë", "zoe\u{308}", "\u{7528}\u{6237}", "\u{645}\u{62b}\u{627}\u{644}"] {
            assert!(is_normal(same), "{same:?}");
        }
        for other in [" ann", "an\u{200b}n", "\u{ff41}nn", "\u{fb01}nance", "a\u{ff0e}b", "ann\u{1f}"] {
            assert!(!is_normal(other), "{other:?}");
        }
    }
}
