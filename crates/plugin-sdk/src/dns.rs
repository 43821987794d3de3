//! DNS through the host's resolver and cache. Grant: dns.

pub use crate::bindings::services::pintle::plugin::dns::{
    Answer, DnsError, Query, RecordType, query_lists, query_many,
};
use crate::{HostError, IpAddress};

/// Looks up one name. For several at once, which costs the time of the slowest only, see [`query_many`].
///
/// # Errors
///
/// There is no such name, no such record, or no answer.
pub fn query(name: &str, kind: RecordType) -> Result<Answer, DnsError> {
    let query = Query {
        name: name.to_owned(),
        kind,
    };
    query_many(&[query]).pop().unwrap_or_else(|| Err(no_result()))
}

/// The zones, of those given, that list the address (RFC 5782). A zone that does not answer lists nothing: one
/// broken list is no reason to hold up mail.
#[must_use]
pub fn listed<'z>(address: &IpAddress, zones: &'z [String]) -> Vec<&'z str> {
    let answers = query_lists(address, zones);
    zones
        .iter()
        .zip(answers)
        .filter(|(_, answer)| answer.is_ok())
        .map(|(zone, _)| zone.as_str())
        .collect()
}

fn no_result() -> DnsError {
    DnsError::Refused(HostError::Invalid(
        "the host gave no result for the query".to_owned(),
    ))
}
