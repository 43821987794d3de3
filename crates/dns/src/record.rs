//! Resource records, as far as mail needs them, and the kinds that can be queried.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The kinds of record that Pintle and its plugins query.
///
/// `FromStr` reads the words of the plugin contract in any case: "MX", "CAA", or "TYPE65" for any type by number (RFC
/// 3597 section 5). `Display` writes that word, and the number where there is none: "TYPE65280".
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
    /// Any other type, by its number. Made by `TryFrom<u16>` or `FromStr`, it never has the number of a kind above: a
    /// query for such a one fails.
    Other(u16),
}

/// The kinds that have a word, with their numbers (the registry of RFC 6895 section 3.1).
const WORDS: [(DnsRecordKind, u16, &str); 13] = [
    (DnsRecordKind::A, 1, "A"),
    (DnsRecordKind::Aaaa, 28, "AAAA"),
    (DnsRecordKind::Mx, 15, "MX"),
    (DnsRecordKind::Txt, 16, "TXT"),
    (DnsRecordKind::Ptr, 12, "PTR"),
    (DnsRecordKind::Ns, 2, "NS"),
    (DnsRecordKind::Cname, 5, "CNAME"),
    (DnsRecordKind::Other(6), 6, "SOA"),
    (DnsRecordKind::Srv, 33, "SRV"),
    (DnsRecordKind::Tlsa, 52, "TLSA"),
    (DnsRecordKind::Other(257), 257, "CAA"),
    (DnsRecordKind::Other(64), 64, "SVCB"),
    (DnsRecordKind::Other(65), 65, "HTTPS"),
];

impl DnsRecordKind {
    /// The type's number on the wire (RFC 1035 section 3.2.2).
    #[must_use]
    pub fn number(self) -> u16 {
        match self {
            Self::Other(number) => number,
            named => WORDS.iter().find(|(kind, ..)| *kind == named).map_or(0, |(_, number, _)| *number),
        }
    }
}

impl TryFrom<u16> for DnsRecordKind {
    type Error = DnsRecordKindError;

    /// The kind with this number. Types that only queries, transfers and the protocol itself use are refused: 0, OPT
    /// (41), and all of 128 to 255 (RFC 6895 section 3.1), such as TSIG, AXFR and ANY.
    fn try_from(number: u16) -> Result<Self, DnsRecordKindError> {
        match number {
            0 | 41 | 128..=255 => Err(DnsRecordKindError::Meta(number)),
            _ => Ok(WORDS
                .iter()
                .find(|(_, at, _)| *at == number)
                .map_or(Self::Other(number), |(kind, ..)| *kind)),
        }
    }
}

impl FromStr for DnsRecordKind {
    type Err = DnsRecordKindError;

    fn from_str(word: &str) -> Result<Self, DnsRecordKindError> {
        match WORDS.iter().find(|(.., known)| known.eq_ignore_ascii_case(word)) {
            Some((kind, ..)) => Ok(*kind),
            None => type_number(word).ok_or(DnsRecordKindError::Unknown)?.try_into(),
        }
    }
}

/// The number of "TYPE65".
fn type_number(word: &str) -> Option<u16> {
    let (prefix, digits) = word.split_at_checked(4)?;
    // A number may not have a sign, which `parse` accepts.
    let is_number = prefix.eq_ignore_ascii_case("TYPE") && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().ok()).flatten()
}

impl fmt::Display for DnsRecordKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match WORDS.iter().find(|(kind, ..)| kind == self) {
            Some((.., word)) => f.write_str(word),
            None => write!(f, "TYPE{}", self.number()),
        }
    }
}

/// Why a word or a number is not a kind of record that can be queried. The text does not repeat the word, which may be
/// of any length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsRecordKindError {
    /// The word is not known, and not "TYPE" with a number of at most 65535.
    Unknown,
    /// The number of a type that no stored record has: it is used only in queries, transfers or the protocol itself
    /// (RFC 6895 section 3.1).
    Meta(u16),
}

impl fmt::Display for DnsRecordKindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => {
                f.write_str("unknown record type; known are ")?;
                WORDS.iter().try_for_each(|(.., word)| write!(f, "{word}, "))?;
                f.write_str("and all others by number, such as TYPE61")
            }
            Self::Meta(number) => write!(f, "TYPE{number} cannot be queried: no stored record has this type"),
        }
    }
}

impl std::error::Error for DnsRecordKindError {}

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
    /// A record of any other type.
    Other {
        /// The type's number.
        kind: u16,
        /// The presentation form, such as `0 issue "ca.example"`; for types without a form of their own, the generic
        /// one: `\# 4 0a000001` (RFC 3597 section 5). It has no control characters.
        text: String,
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
            Self::Other { kind, .. } => DnsRecordKind::Other(*kind),
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
            Self::Other { text, .. } => f.write_str(text),
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

    #[test]
    fn kinds_are_read_from_words_and_numbers() {
        let cases = [
            ("A", DnsRecordKind::A, "A"),
            ("aaaa", DnsRecordKind::Aaaa, "AAAA"),
            ("Mx", DnsRecordKind::Mx, "MX"),
            ("txt", DnsRecordKind::Txt, "TXT"),
            ("PTR", DnsRecordKind::Ptr, "PTR"),
            ("ns", DnsRecordKind::Ns, "NS"),
            ("CNAME", DnsRecordKind::Cname, "CNAME"),
            ("soa", DnsRecordKind::Other(6), "SOA"),
            ("SRV", DnsRecordKind::Srv, "SRV"),
            ("tlsa", DnsRecordKind::Tlsa, "TLSA"),
            ("CAA", DnsRecordKind::Other(257), "CAA"),
            ("svcb", DnsRecordKind::Other(64), "SVCB"),
            ("HTTPS", DnsRecordKind::Other(65), "HTTPS"),
            ("TYPE1", DnsRecordKind::A, "A"),
            ("type28", DnsRecordKind::Aaaa, "AAAA"),
            ("TYPE52", DnsRecordKind::Tlsa, "TLSA"),
            ("Type65", DnsRecordKind::Other(65), "HTTPS"),
            ("TYPE61", DnsRecordKind::Other(61), "TYPE61"),
            ("TYPE127", DnsRecordKind::Other(127), "TYPE127"),
            ("TYPE256", DnsRecordKind::Other(256), "TYPE256"),
            ("TYPE65280", DnsRecordKind::Other(65_280), "TYPE65280"),
        ];
        for (word, kind, written) in cases {
            assert_eq!(word.parse(), Ok(kind), "{word}");
            assert_eq!(kind.to_string(), written);
            assert_eq!(DnsRecordKind::try_from(kind.number()), Ok(kind));
        }
    }

    #[test]
    fn what_no_record_has_is_no_kind() {
        let words = [
            "",
            "AX",
            "TYPE",
            "TYPE-1",
            "TYPE+1",
            "TYPE 1",
            " A",
            "A ",
            "TYPE65536",
            "TYPE1x",
            "TYP1",
            "ANY",
            "*",
            "TYPÉ1",
            "é",
            "１",
        ];
        for word in words {
            assert_eq!(word.parse::<DnsRecordKind>(), Err(DnsRecordKindError::Unknown), "{word}");
        }
        for number in [0, 41, 128, 249, 250, 251, 252, 253, 254, 255] {
            let word = format!("TYPE{number}");
            assert_eq!(word.parse::<DnsRecordKind>(), Err(DnsRecordKindError::Meta(number)), "{word}");
        }
        let told = DnsRecordKindError::Unknown.to_string();
        assert!(told.contains("SOA, SRV, TLSA, CAA, SVCB, HTTPS, and"), "{told}");
    }
}
