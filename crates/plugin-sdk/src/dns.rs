//! DNS through the host's resolver and cache. Grant: dns.

use std::fmt;

pub use crate::bindings::services::pintle::plugin::dns::{
    Answer as DnsAnswer, DnsError, Query, query_lists, query_many,
};
use crate::{HostError, IpAddress};

/// The type of a DNS record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Mail exchangers, as "10 mail.example".
    Mx,
    /// Texts; the strings of a record are joined.
    Txt,
    /// Names of an address.
    Ptr,
    /// Name servers.
    Ns,
    /// The name that this name is an alias of.
    Cname,
    /// Start of authority.
    Soa,
    /// Services (RFC 2782).
    Srv,
    /// Certificates of a service (RFC 6698).
    Tlsa,
    /// Certification authorities that may issue for the name (RFC 8659).
    Caa,
    /// Service bindings (RFC 9460).
    Svcb,
    /// Service bindings for HTTP (RFC 9460).
    Https,
    /// Any type by its number; its records are in the form of RFC 3597.
    Number(u16),
}

/// The word of the contract.
impl fmt::Display for RecordKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Mx => "MX",
            Self::Txt => "TXT",
            Self::Ptr => "PTR",
            Self::Ns => "NS",
            Self::Cname => "CNAME",
            Self::Soa => "SOA",
            Self::Srv => "SRV",
            Self::Tlsa => "TLSA",
            Self::Caa => "CAA",
            Self::Svcb => "SVCB",
            Self::Https => "HTTPS",
            Self::Number(number) => return write!(f, "TYPE{number}"),
        })
    }
}

impl Query {
    /// A query for the records of this kind at a name.
    #[must_use]
    pub fn new(name: impl Into<String>, kind: RecordKind) -> Self {
        Self { name: name.into(), kind: kind.to_string() }
    }
}

/// Looks up one name. For several names use [`query_many`], which runs the queries concurrently.
///
/// # Errors
///
/// The name or the record does not exist, or no server answered.
pub fn query(name: &str, kind: RecordKind) -> Result<DnsAnswer, DnsError> {
    query_many(&[Query::new(name, kind)]).pop().unwrap_or_else(|| Err(no_result()))
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

    #[test]
    fn a_kind_is_written_as_the_contract_lists_it() {
        assert_eq!(Query::new("x.example", RecordKind::Aaaa).kind, "AAAA");
        assert_eq!(RecordKind::Number(65_280).to_string(), "TYPE65280");
    }
}
