//! The domains that we accept mail for from any client.

use std::collections::BTreeSet;

use crate::address::domain_to_ascii;

/// A set of domains. A pattern with a leading dot covers all subdomains of a domain, but not the domain itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Domains {
    exact: BTreeSet<String>,
    /// The parent domains whose subdomains are in the set, without the leading dot.
    parents: BTreeSet<String>,
}

impl Domains {
    /// Parses `example.org` (the domain alone) and `.example.org` (every domain below it), in A-labels or U-labels.
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Self {
        let mut domains = Self::default();
        for pattern in patterns {
            let pattern = domain_to_ascii(pattern);
            match pattern.strip_prefix('.') {
                Some(parent) => domains.parents.insert(parent.to_owned()),
                None => domains.exact.insert(pattern),
            };
        }
        domains
    }

    /// Whether this domain (A-labels, lower case) is in the set.
    #[must_use]
    pub fn contains(&self, domain: &str) -> bool {
        // A text that is not a name in A-labels may end like one of ours and yet be another address to software that
        // normalises it.
        if !domain.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')) {
            return false;
        }
        if self.exact.contains(domain) {
            return true;
        }
        let mut rest = domain;
        while let Some((_, parent)) = rest.split_once('.') {
            if self.parents.contains(parent) {
                return true;
            }
            rest = parent;
        }
        false
    }

    /// The patterns that the set was made from, in A-labels.
    pub fn patterns(&self) -> impl Iterator<Item = String> {
        self.exact.iter().cloned().chain(self.parents.iter().map(|parent| format!(".{parent}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_has_its_subdomains_and_not_itself() {
        let domains = Domains::new(["Ours.example", ".below.example", "bücher.example"]);
        for (domain, ours) in [
            ("ours.example", true),
            ("sub.ours.example", false),
            ("notours.example", false),
            ("below.example", false),
            ("a.below.example", true),
            ("a.b.below.example", true),
            ("xn--bcher-kva.example", true),
            ("", false),
            ("evil.example\u{ff20}a.below.example", false),
            ("evil.example@a.below.example", false),
        ] {
            assert_eq!(domains.contains(domain), ours, "{domain}");
        }
        let patterns: Vec<_> = domains.patterns().collect();
        assert_eq!(patterns, ["ours.example", "xn--bcher-kva.example", ".below.example"]);
    }
}
