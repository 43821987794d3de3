//! DNS through the host's resolver and cache. Grant: dns.

pub use crate::bindings::services::pintle::plugin::dns::{
    Answer, DnsError, Query, RecordType, query_lists, query_many,
};
use crate::{HostError, IpAddress};

/// Looks up one name. For several names use [`query_many`], which runs the queries concurrently.
///
/// # Errors
///
/// The name or the record does not exist, or no server answered.
pub fn query(name: &str, kind: RecordType) -> Result<Answer, DnsError> {
    let query = Query { name: name.to_owned(), kind };
    query_many(&[query]).pop().unwrap_or_else(|| Err(no_result()))
}

/// Returns those of the given zones that list the address (RFC 5782). A zone that does not answer counts as not listing
/// it, so that a broken list does not delay mail.
#[must_use]
pub fn listed<'z>(address: &IpAddress, zones: &'z [String]) -> Vec<&'z str> {
    let answers = query_lists(address, zones);
    zones.iter().zip(answers).filter(|(_, answer)| answer.is_ok()).map(|(zone, _)| zone.as_str()).collect()
}

/// The name under which a list in `zone` keeps this address: its octets (IPv4) or nibbles (IPv6) in reverse order, then
/// the zone (RFC 5782 sections 2.1 and 2.4). [`query_lists`] computes it for A records; use this function to query
/// other record types.
#[must_use]
pub fn list_name(address: &IpAddress, zone: &str) -> String {
    let reversed = address.octets.iter().rev();
    let labels: Vec<String> = if address.octets.len() == 4 {
        reversed.map(u8::to_string).collect()
    } else {
        reversed.map(|octet| format!("{:x}.{:x}", octet & 15, octet >> 4)).collect()
    };
    format!("{}.{zone}", labels.join("."))
}

fn no_result() -> DnsError {
    DnsError::Refused(HostError::Invalid("the host gave no result for the query".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_reversed_under_a_zone() {
        let v4 = IpAddress { text: "192.0.2.66".to_owned(), octets: vec![192, 0, 2, 66] };
        assert_eq!(list_name(&v4, "list.example"), "66.2.0.192.list.example");
        let mut octets = vec![0x20, 0x01, 0x0d, 0xb8];
        octets.resize(16, 0);
        let v6 = IpAddress { text: "2001:db8::".to_owned(), octets };
        let name = list_name(&v6, "list.example");
        assert!(name.ends_with(".0.8.b.d.0.1.0.0.2.list.example"), "{name}");
        assert_eq!(name.split('.').count(), 34);
    }
}
