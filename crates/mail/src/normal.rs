//! What a text becomes where somebody normalises it: an address that we judge as it stands may be another one to the
//! next hop.
//!
//! RFC 6531 servers may normalise, directories fold full-width letters, and programs convert to code pages that have only
//! the sign that looks alike. [`normal`] gives the text after all of that at once: rather one change too many, since what
//! it is compared with is the text as received, and only what is equal in both forms is beyond doubt.

use std::borrow::Cow;

use icu_normalizer::ComposingNormalizerBorrowed as Normalizer;
use icu_properties::CodePointSetData;
use icu_properties::props::DefaultIgnorableCodePoint;

/// In compatibility form (NFKC), without characters that are not shown, without blanks around it, and with the signs of
/// routing in place of what code pages convert to them.
#[must_use]
pub fn normal(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text.trim_matches(|c: char| c.is_ascii_whitespace() || c.is_ascii_control()));
    }
    let shown: String = text.chars().filter(|c| !is_unseen(*c)).map(plain_sign).collect();
    let normal = Normalizer::new_nfkc().normalize(&shown);
    // Letters can come out of a decomposition that were not there to be filtered before.
    let shown: String = normal.chars().filter(|c| !is_unseen(*c)).map(plain_sign).collect();
    Cow::Owned(shown.trim().to_owned())
}

/// Whether normalising makes another text of it. A text that is only composed otherwise (`e` and an accent for `é`) is
/// the same one: Unicode calls both canonically equivalent, and keyboards differ.
#[must_use]
pub fn is_normal(text: &str) -> bool {
    *normal(text) == *Normalizer::new_nfc().normalize(text)
}

/// Characters that programs drop: Unicode's ignorable ones (zero width, joiners, soft hyphen, tags) and controls.
fn is_unseen(c: char) -> bool {
    c.is_control() || CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c)
}

/// The signs of routing for what is none under NFKC and is converted to one by code pages, or looks like one.
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
