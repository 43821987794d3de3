//! Normal form of local parts, as a next hop may compute it; the gateway's own check compares the same form.

use icu_normalizer::ComposingNormalizerBorrowed as Normalizer;
use icu_properties::CodePointSetData;
use icu_properties::props::DefaultIgnorableCodePoint;

/// Returns the text in compatibility form (NFKC), without invisible characters and surrounding blanks, and with
/// characters that code pages convert to routing separators replaced by these.
pub(crate) fn normal(text: &str) -> String {
    let shown = |text: &str| text.chars().filter(|c| !is_unseen(*c)).map(plain_sign).collect::<String>();
    // Filtered again, since decomposition can yield characters that were not there before.
    shown(&Normalizer::new_nfkc().normalize(&shown(text))).trim().to_owned()
}

fn is_unseen(c: char) -> bool {
    c.is_control() || CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c)
}

fn plain_sign(c: char) -> char {
    match c {
        '\u{1c3}' => '!',
        '\u{66a}' | '\u{2052}' => '%',
        '\u{2236}' | '\u{a789}' | '\u{5c3}' | '\u{2f8}' => ':',
        '\u{3002}' => '.',
        c => c,
    }
}
