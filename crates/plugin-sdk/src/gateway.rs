//! The gateway that runs the plugin: its name, and the domains that are ours.

pub use crate::bindings::services::pintle::plugin::gateway::{
    Snapshot, info, is_local, local_domains, to_ascii,
};

/// A domain as keys, signatures, DNS and the operator name it: in A-labels, without the dot of the root.
#[must_use]
pub fn ascii(domain: &str) -> String {
    // Most domains are in ASCII, and need not be asked about.
    let domain = if domain.is_ascii() { domain.to_owned() } else { to_ascii(domain) };
    domain.strip_suffix('.').map(str::to_owned).unwrap_or(domain)
}
