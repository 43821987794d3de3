//! Relations between domain names, in A-labels and lower case.

/// Whether `name` is `parent` or a subdomain of it, compared label by label.
pub(crate) fn is_within(name: &str, parent: &str) -> bool {
    let (name, parent) = (bare(name), bare(parent));
    let Some(at) = name.len().checked_sub(parent.len()) else {
        return false;
    };
    match name.split_at_checked(at) {
        Some((above, tail)) => {
            tail.eq_ignore_ascii_case(parent) && (above.is_empty() || above.ends_with('.'))
        }
        None => false,
    }
}

/// Whether two spellings are the same name.
pub(crate) fn same(a: &str, b: &str) -> bool {
    bare(a).eq_ignore_ascii_case(bare(b))
}

/// The name without its final dot.
pub(crate) fn bare(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// Whether this can be queried in DNS: labels of 1 to 63 octets, 253 octets in all, and more than one label.
pub(crate) fn is_qualified(name: &str) -> bool {
    let name = bare(name);
    name.len() <= 253 && name.contains('.') && name.split('.').all(|label| (1..=63).contains(&label.len()))
}

/// Whether this is a domain name as mail allows it (RFC 5321 section 4.1.2): [`is_qualified`], made of letters, digits,
/// hyphens and the underscores that some use, and not an IP address. Other names that DNS would accept could be used to
/// inject text into replies, logs and header fields, and no real domain has them.
pub(crate) fn is_name(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let top = bare(name).rsplit('.').next().unwrap_or_default();
    is_qualified(name) && name.bytes().all(fits) && !top.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_compared_whole() {
        assert!(is_within("mail.Example.com", "example.com."));
        assert!(is_within("example.com", "example.com"));
        assert!(!is_within("badexample.com", "example.com"));
        assert!(!is_within("com", "example.com"));
        assert!(!is_within("é.com", "\u{e9}x.com"));
    }

    #[test]
    fn what_cannot_be_asked_for_is_known() {
        assert!(is_qualified("a.example"));
        for bad in ["", "localhost", "a..example", ".example", &format!("{}.example", "a".repeat(64))] {
            assert!(!is_qualified(bad), "{bad}");
        }
    }

    #[test]
    fn names_have_letters_and_are_no_addresses() {
        assert!(is_name("mail_1.a-b.example."));
        for bad in
            ["[192.0.2.1]", "192.0.2.1", "a\u{1}.example", "a b.example", "b\u{fc}cher.example", "example"]
        {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
