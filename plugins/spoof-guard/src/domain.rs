//! Domain names as readers see them: U-labels, compared by their skeletons (UTS 39 section 4).

use std::fmt;

use pintle_plugin_sdk::HostError;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;
use unicode_security::{MixedScript, RestrictionLevel, RestrictionLevelDetection};

use crate::gateway_text::{registered_domains, skeletons};

/// A domain in U-labels, normal form and lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ComparedDomain(String);

impl ComparedDomain {
    /// Parses any text from a message, even if it is not a valid DNS name.
    pub(crate) fn new(text: &str) -> Self {
        let lower: String = text.nfkc().flat_map(char::to_lowercase).filter(|c| !is_ignored(*c)).collect();
        // RFC 3490 section 3.1: this full stop separates labels too. NFKC has converted the fullwidth and halfwidth
        // forms.
        let dotted = lower.replace('\u{3002}', ".");
        let labels: Vec<String> = dotted.trim().trim_end_matches('.').split('.').map(u_label).collect();
        Self(labels.join("."))
    }

    /// Parses a shape into labels, as for a name.
    pub(crate) fn of_shape(shape: String) -> Self {
        Self(shape)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The domain in A-labels, as used in DNS and in the results of checks.
    pub(crate) fn ascii(&self) -> String {
        let labels: Vec<String> = self.labels().map(a_label).collect();
        labels.join(".")
    }

    /// Whether it can be a registered domain: at least two labels, the last not a number.
    pub(crate) fn is_qualified(&self) -> bool {
        let last = self.labels().next_back().unwrap_or_default();
        self.0.contains('.')
            && self.labels().all(|label| !label.is_empty())
            && last.chars().any(char::is_alphabetic)
            && !self.0.starts_with('[')
    }

    /// Whether it is `parent` or a subdomain of it.
    pub(crate) fn is_within(&self, parent: &Self) -> bool {
        let above = self.0.strip_suffix(&parent.0);
        above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
    }

    /// The name formed by its last `count` labels.
    pub(crate) fn last(&self, count: usize) -> Option<Self> {
        let skipped = self.labels().count().checked_sub(count)?;
        Some(Self(self.labels().skip(skipped).collect::<Vec<_>>().join(".")))
    }

    pub(crate) fn labels(&self) -> std::str::Split<'_, char> {
        self.0.split('.')
    }

    /// The first label that mixes scripts unusually (UTS 39 section 5.2, above Highly Restrictive).
    pub(crate) fn mixed_label(&self) -> Option<&str> {
        self.labels().find(|label| {
            // Digits, hyphens and emoji belong to no script.
            let letters: String = label.chars().filter(|c| c.is_alphabetic()).collect();
            let level = letters.as_str().detect_restriction_level();
            level > RestrictionLevel::HighlyRestrictive && !letters.as_str().is_single_script()
        })
    }
}

impl fmt::Display for ComparedDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.ascii())
    }
}

/// A domain with its registered domain, by which its owner is known.
#[derive(Clone, Debug)]
pub(crate) struct OwnedDomain {
    pub(crate) name: ComparedDomain,
    /// `None` for a public suffix, an IP address, and what is not a domain.
    registered: Option<String>,
}

impl OwnedDomain {
    pub(crate) fn all(names: Vec<ComparedDomain>) -> Result<Vec<Self>, HostError> {
        let ascii: Vec<String> = names.iter().map(ComparedDomain::ascii).collect();
        let registered = registered_domains(ascii.iter().map(String::as_str))?;
        let pairs = names.into_iter().zip(registered);
        Ok(pairs.map(|(name, registered)| Self { name, registered }).collect())
    }

    /// Whether both belong to one owner: one is a subdomain of the other, or both are in one registered domain.
    pub(crate) fn is_related(&self, other: &Self) -> bool {
        let has_same = self.registered.is_some() && self.registered == other.registered;
        has_same || self.name.is_within(&other.name) || other.name.is_within(&self.name)
    }
}

fn u_label(label: &str) -> String {
    let decoded = label.strip_prefix("xn--").and_then(idna::punycode::decode_to_string);
    // A label that encodes only ASCII, or nothing, is not a valid A-label (RFC 5890 section 2.3.2.1).
    decoded.filter(|decoded| !decoded.is_ascii()).unwrap_or_else(|| label.to_owned())
}

fn a_label(label: &str) -> String {
    let encoded = if label.is_ascii() { None } else { idna::punycode::encode_str(label) };
    encoded.map_or_else(|| label.to_owned(), |encoded| format!("xn--{encoded}"))
}

/// Characters that UTS 46 removes from names.
fn is_ignored(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}' | '\u{fe00}'..='\u{fe0f}')
}

/// The shapes of texts: texts that look alike have the same shape. It is coarser than the skeleton of UTS 39: it ignores
/// case and diacritics, and equates vv with w.
pub(crate) fn shapes<'t>(texts: impl Iterator<Item = &'t str>) -> Result<Vec<String>, HostError> {
    Ok(skeletons(texts)?.iter().map(|skeleton| coarser(skeleton)).collect())
}

/// Skeletons are in normal form D, so diacritics are characters of their own.
fn coarser(skeleton: &str) -> String {
    let plain = skeleton.chars().filter(|c| !is_combining_mark(*c)).flat_map(char::to_lowercase);
    plain.collect::<String>().replace("vv", "w")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ComparedDomain {
        ComparedDomain::new(text)
    }

    #[test]
    fn one_domain_has_one_name() {
        for text in [
            "xn--bcher-kva.example",
            "BÜCHER.example.",
            "bu\u{308}cher\u{3002}example",
            "bü\u{200b}cher.example",
        ] {
            assert_eq!(name(text).as_str(), "bücher.example", "{text}");
        }
        assert_eq!(name("bücher.example").ascii(), "xn--bcher-kva.example");
        for fake in ["xn--.x", "xn--ours-.example"] {
            assert_eq!(name(fake).as_str(), fake);
        }
        for bad in ["", "localhost", "[192.0.2.1]", "192.0.2.1", "a..example", "a."] {
            assert!(!name(bad).is_qualified(), "{bad}");
        }
    }

    #[test]
    fn owners_are_told_apart_by_registered_domains() {
        let related = |a: &str, b: &str| {
            let both = OwnedDomain::all(vec![name(a), name(b)]).unwrap();
            both[0].is_related(&both[1])
        };
        assert!(related("shop.example", "mail.shop.example") && related("a.shop.example", "b.shop.example"));
        assert!(!related("shop.example", "pop.example") && !related("badshop.example", "shop.example"));
        assert!(!related("one.co.uk", "two.co.uk") && related("a.one.co.uk", "b.one.co.uk"));
        assert!(related("a.ibm.com", "b.ibm.com"), "a short name is not a suffix");
        assert!(!related("ann.github.io", "eve.github.io"), "customers of a provider");
        assert!(related("a.b\u{fc}cher.example", "b.xn--bcher-kva.example"));
        assert!(!related("[192.0.2.1]", "[192.0.2.2]"));
    }

    #[test]
    fn scripts_that_nobody_writes_together_are_seen() {
        for mixed in ["p\u{430}ypal.example", "\u{3b1}pple.example", "xn--pypal-4ve.example"] {
            assert!(name(mixed).mixed_label().is_some(), "{mixed}");
        }
        for plain in [
            "bücher.example",
            "пример.example",
            "日本語.example",
            "東京tower.example",
            "i❤you.example",
            "ünï-1.example",
        ] {
            assert_eq!(name(plain).mixed_label(), None, "{plain}");
        }
    }

    #[test]
    fn what_looks_alike_has_one_shape() {
        for (a, b) in [
            ("paypa1", "paypal"),
            ("g00gle", "google"),
            ("p\u{430}ypal", "paypal"),
            ("rnodern", "modern"),
            ("exämple", "example"),
            ("ọurs", "ours"),
            ("vvest", "west"),
            ("PayPaI", "paypal"),
        ] {
            let both = shapes([a, b].into_iter()).unwrap();
            assert_eq!(both[0], both[1], "{a} {b}");
        }
        let other = shapes(["ours", "hours"].into_iter()).unwrap();
        assert_ne!(other[0], other[1]);
    }
}
