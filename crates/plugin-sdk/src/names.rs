//! Domain names and other names as people read them: registered domains (public suffix list), U-labels, and skeletons
//! (UTS 39), which are equal for texts that look alike.
//!
//! The functions return one result for each item, in order. There may be any number of items, of up to 1 MiB each.

use crate::HostError;
use crate::batches::in_batches;
use crate::bindings::services::pintle::plugin::names as host;

/// The registered domain of each domain, in A-labels: its public suffix and the label before it. `None` for a public
/// suffix, an IP address, and what is no domain. The domains may be in A-labels or U-labels.
///
/// # Errors
///
/// The work budget of the call is spent.
pub fn registered_domains(domains: &[String]) -> Result<Vec<Option<String>>, HostError> {
    in_batches(domains, host::registered_domains)
}

/// The domains in U-labels, for display; in lower case where they cannot be converted.
///
/// # Errors
///
/// The work budget of the call is spent.
pub fn to_unicode(domains: &[String]) -> Result<Vec<String>, HostError> {
    in_batches(domains, host::to_unicode)
}

/// The skeletons of the texts (UTS 39 section 4): equal for texts that look alike. Case counts.
///
/// # Errors
///
/// The work budget of the call is spent.
pub fn skeletons(texts: &[String]) -> Result<Vec<String>, HostError> {
    in_batches(texts, host::skeletons)
}
