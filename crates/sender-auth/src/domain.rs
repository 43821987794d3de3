//! Relations between domain names, in A-labels and lower case.

/// Whether `name` is `parent` or lies below it, label by label.
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

/// Whether two spellings mean one name.
pub(crate) fn same(a: &str, b: &str) -> bool {
    bare(a).eq_ignore_ascii_case(bare(b))
}

/// Without the last dot.
pub(crate) fn bare(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// Whether this can be asked for: labels of 1 to 63 octets, 253 in all, and more than one of them.
pub(crate) fn is_qualified(name: &str) -> bool {
    let name = bare(name);
    name.len() <= 253 && name.contains('.') && name.split('.').all(|label| (1..=63).contains(&label.len()))
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
}
