//! What a local part becomes where the next hop normalises it: the same forms as the gateway's own check compares.

use icu_normalizer::ComposingNormalizerBorrowed as Normalizer;
use icu_properties::CodePointSetData;
use icu_properties::props::DefaultIgnorableCodePoint;

/// In compatibility form (NFKC), without characters that are not shown, without blanks around it, and with the signs of
/// routing in place of what code pages convert to them.
pub(crate) fn normal(text: &str) -> String {
    let shown = |text: &str| text.chars().filter(|c| !is_unseen(*c)).map(plain_sign).collect::<String>();
    // Letters can come out of a decomposition that were not there to be filtered before.
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
