//! Resource records, as far as mail needs them, and the kinds that can be queried.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The kinds of record that Pintle and its plugins query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DnsRecordKind {
    /// An IPv4 address (RFC 1035 section 3.4.1).
    A,
    /// An IPv6 address (RFC 3596 section 2.1).
    Aaaa,
    /// A mail exchanger (RFC 1035 section 3.3.9).
    Mx,
    /// Text strings (RFC 1035 section 3.3.14).
    Txt,
    /// The name of an address (RFC 1035 section 3.3.12).
    Ptr,
    /// A name server (RFC 1035 section 3.3.11).
    Ns,
    /// The alias itself, without following it (RFC 1035 section 3.3.1).
    Cname,
    /// A service's host and port (RFC 2782).
    Srv,
    /// A certificate pinned by DANE (RFC 6698).
    Tlsa,
}

impl fmt::Display for DnsRecordKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Mx => "MX",
            Self::Txt => "TXT",
            Self::Ptr => "PTR",
            Self::Ns => "NS",
            Self::Cname => "CNAME",
            Self::Srv => "SRV",
            Self::Tlsa => "TLSA",
        })
    }
}

/// The data of a record. Names are A-labels without the final dot; the root is ".".
///
/// `Display` writes the presentation form that the plugin contract defines: "10 mail.example" for MX, the joined
/// strings for TXT (bytes that are not UTF-8 become U+FFFD).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DnsRecord {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// A mail exchanger; the lowest preference comes first (RFC 5321 section 5.1).
    Mx {
        /// The preference; lower values are tried first.
        preference: u16,
        /// The host, or "." for a domain that takes no mail (RFC 7505).
        exchange: String,
    },
    /// The strings of one TXT record, joined without a space (RFC 7208 section 3.3, RFC 6376 section 3.6.2.2).
    Txt(Vec<u8>),
    /// The name of an address.
    Ptr(String),
    /// A name server.
    Ns(String),
    /// The target of an alias.
    Cname(String),
    /// A service (RFC 2782).
    Srv {
        /// The priority; lower values are tried first.
        priority: u16,
        /// The weight among records of one priority.
        weight: u16,
        /// The port that the service listens on.
        port: u16,
        /// The host, or "." where the service is not offered.
        target: String,
    },
    /// A DANE association (RFC 6698 section 2.1).
    Tlsa {
        /// The certificate usage, 0 to 3 and 255.
        usage: u8,
        /// What is matched: the whole certificate (0) or its public key (1).
        selector: u8,
        /// How it is matched: exactly (0), by SHA-256 (1) or by SHA-512 (2).
        matching: u8,
        /// The certificate association data.
        data: Vec<u8>,
    },
}

impl DnsRecord {
    /// The kind of this record.
    pub fn kind(&self) -> DnsRecordKind {
        match self {
            Self::A(_) => DnsRecordKind::A,
            Self::Aaaa(_) => DnsRecordKind::Aaaa,
            Self::Mx { .. } => DnsRecordKind::Mx,
            Self::Txt(_) => DnsRecordKind::Txt,
            Self::Ptr(_) => DnsRecordKind::Ptr,
            Self::Ns(_) => DnsRecordKind::Ns,
            Self::Cname(_) => DnsRecordKind::Cname,
            Self::Srv { .. } => DnsRecordKind::Srv,
            Self::Tlsa { .. } => DnsRecordKind::Tlsa,
        }
    }
}

impl fmt::Display for DnsRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::A(address) => address.fmt(f),
            Self::Aaaa(address) => address.fmt(f),
            Self::Mx { preference, exchange } => write!(f, "{preference} {exchange}"),
            Self::Txt(text) => f.write_str(&String::from_utf8_lossy(text)),
            Self::Ptr(name) | Self::Ns(name) | Self::Cname(name) => f.write_str(name),
            Self::Srv { priority, weight, port, target } => write!(f, "{priority} {weight} {port} {target}"),
            Self::Tlsa { usage, selector, matching, data } => {
                write!(f, "{usage} {selector} {matching} ")?;
                data.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presentation_forms_follow_the_plugin_contract() {
        let tlsa = DnsRecord::Tlsa { usage: 3, selector: 1, matching: 1, data: vec![0x0a, 0xff] };
        let srv = DnsRecord::Srv { priority: 0, weight: 5, port: 587, target: "mail.example".into() };
        let forms = [
            (DnsRecord::Mx { preference: 10, exchange: "mail.example".into() }, "10 mail.example"),
            (DnsRecord::Txt(b"v=spf1 -all".to_vec()), "v=spf1 -all"),
            (DnsRecord::Txt(vec![b'a', 0xff]), "a\u{fffd}"),
            (DnsRecord::Aaaa("2001:db8::1".parse().unwrap()), "2001:db8::1"),
            (srv, "0 5 587 mail.example"),
            (tlsa, "3 1 1 0aff"),
        ];
        for (record, form) in forms {
            assert_eq!(record.to_string(), form);
        }
    }
}
