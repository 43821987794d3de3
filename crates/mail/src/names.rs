//! Domain names as people read them: the registered domain (public suffix list), U-labels, and the skeletons by which
//! texts that look alike are found (UTS 39).

use crate::address::{MAX_DOMAIN, domain_to_ascii};

/// Returns the registered domain of a domain, in A-labels and lower case: its public suffix and the label before it.
/// The public suffix list with its private section counts. Under a suffix that the list does not have, the registered
/// domain has two labels, by the list's default rule.
///
/// `None` for a public suffix, for an IP address, with brackets or without, and for what is not a domain. The domain may
/// be in A-labels or U-labels, and may end in a dot.
#[must_use]
pub fn registered_domain(domain: &str) -> Option<String> {
    let ascii = domain_to_ascii(domain.strip_suffix('.').unwrap_or(domain));
    let is_part = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
    let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(is_part);
    // A top-level domain is not a number (RFC 3696 section 2), so "192.0.2.1" is an address.
    let is_address =
        ascii.rsplit('.').next().is_some_and(|last| last.bytes().all(|octet| octet.is_ascii_digit()));
    if is_address || ascii.len() > MAX_DOMAIN || !ascii.split('.').all(is_label) {
        return None;
    }
    psl::domain_str(&ascii).map(str::to_owned)
}

/// Converts a domain to U-labels and lower case. What cannot be converted is only lower-cased, also where UTS 46 mapping
/// would produce characters that no domain has, such as `@`.
#[must_use]
pub fn domain_to_unicode(domain: &str) -> String {
    let is_part = |c: char| !c.is_ascii() || c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    match idna::domain_to_unicode(domain) {
        (unicode, Ok(())) if unicode.chars().all(is_part) => unicode,
        _ => domain.to_lowercase(),
    }
}

/// Returns the skeleton of a text (UTS 39 section 4): texts that look alike have the same one. Skeletons are for
/// comparison only. Case counts.
///
/// One character can become up to 18.
#[must_use]
pub fn skeleton(text: &str) -> String {
    unicode_security::skeleton(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registered_domain_is_one_label_below_a_public_suffix() {
        for (domain, registered) in [
            ("example.org", Some("example.org")),
            ("a.b.Example.ORG.", Some("example.org")),
            ("mail.example.co.uk", Some("example.co.uk")),
            ("a.user.github.io", Some("user.github.io")),
            ("www.ck", Some("www.ck")),
            ("a.b.c.ck", Some("b.c.ck")),
            ("mail.example.xn--55qx5d.cn", Some("example.xn--55qx5d.cn")),
            ("mail.example.\u{516c}\u{53f8}.cn", Some("example.xn--55qx5d.cn")),
            ("a.B\u{fc}cher.de", Some("xn--bcher-kva.de")),
            ("a.b.no-such-suffix", Some("b.no-such-suffix")),
            ("_dmarc.example.org", Some("example.org")),
            ("co.uk", None),
            ("org", None),
            ("github.io", None),
            ("localhost", None),
            ("192.0.2.1", None),
            ("[192.0.2.1]", None),
            ("[IPv6:2001:db8::1]", None),
            ("2001:db8::1", None),
            ("", None),
            (".", None),
            (".example.org", None),
            ("a..example.org", None),
            ("a b.example.org", None),
            ("evil.example\u{ff20}ours.example", None),
            ("evil.example@ours.example", None),
        ] {
            assert_eq!(registered_domain(domain).as_deref(), registered, "{domain}");
        }
        assert_eq!(registered_domain(&format!("{}.example.org", "a".repeat(64))), None);
        assert_eq!(registered_domain(&format!("{}example.org", "a.".repeat(126))), None);
    }

    #[test]
    fn a_domain_is_shown_in_unicode_only_if_it_is_one() {
        for (domain, unicode) in [
            ("Xn--Bcher-Kva.Example", "b\u{fc}cher.example"),
            ("BU\u{308}CHER.example", "b\u{fc}cher.example"),
            ("plain.example", "plain.example"),
            ("_dmarc.xn--bcher-kva.example", "_dmarc.b\u{fc}cher.example"),
            ("Xn--zzzzzzzzz\u{e9}.example", "xn--zzzzzzzzz\u{e9}.example"),
            ("xn--ours-.example", "xn--ours-.example"),
            ("Evil.example\u{ff20}ours", "evil.example\u{ff20}ours"),
            ("[IPv6:2001:DB8::1]", "[ipv6:2001:db8::1]"),
            ("", ""),
        ] {
            assert_eq!(domain_to_unicode(domain), unicode, "{domain}");
        }
    }

    #[test]
    fn texts_that_look_alike_have_one_skeleton() {
        for (a, b) in [
            ("paypal", "p\u{430}ypal"),
            ("rnodern", "modern"),
            ("paypa1", "paypal"),
            ("\u{ff4f}urs", "ours"),
            ("o\u{200b}urs", "ours"),
        ] {
            assert_eq!(skeleton(a), skeleton(b), "{a} {b}");
        }
        assert_ne!(skeleton("ours"), skeleton("hours"));
        assert_ne!(skeleton("Ours"), skeleton("ours"));
    }

    /// Each would take minutes if marks were sorted again and again, or labels compared pairwise.
    #[test]
    fn hostile_texts_take_linear_time() {
        let size = 1 << 20;
        let marks = "\u{301}\u{316}".repeat(size / 4);
        assert_eq!(skeleton(&marks).chars().count(), size / 2);
        assert!(skeleton(&"\u{fdfa}".repeat(size / 3)).len() < 16 * size);
        assert_eq!(registered_domain(&"a.".repeat(size)), None);
    }
}
