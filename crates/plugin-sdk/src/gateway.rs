//! Information about the gateway: its hostname, local domains, and the normal form of domains.

pub use crate::bindings::services::pintle::plugin::gateway::{
    Snapshot, are_local, generation, info, local_domains, to_ascii as to_ascii_many,
};

/// Whether the gateway accepts mail for this domain from anyone. For several domains use [`are_local`].
#[must_use]
pub fn is_local(domain: &str) -> bool {
    are_local(&[domain.to_owned()]).first().copied().unwrap_or_default()
}

/// Converts a domain to the form used by keys, signatures, DNS and configuration: A-labels in lower case, without a
/// trailing dot. For several domains use [`to_ascii_many`], which keeps the dot.
#[must_use]
pub fn to_ascii(domain: &str) -> String {
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    // Most domains are ASCII and need no call of the host.
    if domain.is_ascii() {
        return domain.to_ascii_lowercase();
    }
    to_ascii_many(&[domain.to_owned()]).pop().unwrap_or_else(|| domain.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ascii_domain_needs_no_host() {
        assert_eq!(to_ascii("Mail.Example.ORG."), "mail.example.org");
        assert_eq!(to_ascii(""), "");
    }
}
