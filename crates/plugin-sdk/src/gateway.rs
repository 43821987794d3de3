//! Information about the gateway: its hostname, local domains, and the normal form of domains.

pub use crate::bindings::services::pintle::plugin::gateway::{
    Snapshot, info, is_local, local_domains, to_ascii,
};

/// Converts a domain to the form used by keys, signatures, DNS and configuration: A-labels, without a trailing dot.
#[must_use]
pub fn ascii(domain: &str) -> String {
    // Most domains are ASCII and need no call of the host.
    let domain = if domain.is_ascii() { domain.to_owned() } else { to_ascii(domain) };
    domain.strip_suffix('.').map(str::to_owned).unwrap_or(domain)
}
