//! The types of values about the network: IP addresses, networks, domain names and mail addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv6Net};
use pintle_mail::address::{check_domain, domain_to_ascii};
use pintle_mail::{Address, Charset};
use pintle_outbound::Endpoint;

use crate::reader::{ReadValue, Spot, Value, parsed};
use crate::value_kind::ValueKind;

/// The address of a name server. The default port is 53.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NameServer(pub(crate) SocketAddr);

/// The prefix of a NAT64 translator (RFC 6052 section 2.2).
pub(crate) struct Nat64(pub(crate) Ipv6Net);

/// A domain name, in A-labels and lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Domain(pub(crate) String);

/// A domain, `example.org`, or all its subdomains, `.example.org`; in A-labels and lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DomainPattern(pub(crate) String);

impl ReadValue for SocketAddr {
    fn kind() -> ValueKind {
        ValueKind::SocketAddress
    }

    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
        parsed::<Self, _, _>(value, spot, |text| {
            let no_port = text.parse::<IpAddr>().map(|_| format!("{text:?} lacks a port"));
            text.parse()
                .map_err(|_| no_port.unwrap_or_else(|_| format!("{text:?} is not an address with a port")))
        })
    }
}

impl ReadValue for NameServer {
    fn kind() -> ValueKind {
        ValueKind::NameServer
    }

    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
        parsed::<Self, _, _>(value, spot, |text| {
            let bare = text.parse().map(|ip: IpAddr| SocketAddr::new(ip, 53));
            bare.or_else(|_| text.parse()).map(Self).map_err(|_| format!("{text:?} is not an address"))
        })
    }
}

macro_rules! ip_addresses {
    ($($address:ty: $kind:ident, $name:literal);+) => {$(
        impl ReadValue for $address {
            fn kind() -> ValueKind {
                ValueKind::$kind
            }

            fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
                parsed::<Self, _, _>(value, spot, |text| {
                    text.parse().map_err(|_| format!("{text:?} is not an {} address", $name))
                })
            }
        }
    )+};
}

ip_addresses!(IpAddr: IpAddress, "IP"; Ipv4Addr: Ipv4Address, "IPv4"; Ipv6Addr: Ipv6Address, "IPv6");

impl ReadValue for IpNet {
    fn kind() -> ValueKind {
        ValueKind::Network
    }

    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
        parsed::<Self, _, _>(value, spot, |text| {
            let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(Self::from));
            let network: Self = network.map_err(|_| format!("{text:?} is not a network"))?;
            // 192.0.2.1/24 is as likely a mistyped /32 as a sloppy /24, and the two trust different hosts.
            if network == network.trunc() {
                Ok(network)
            } else {
                Err(format!("{text} has bits set beyond its prefix; the network is {}", network.trunc()))
            }
        })
    }
}

impl ReadValue for Nat64 {
    fn kind() -> ValueKind {
        ValueKind::Nat64
    }

    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
        parsed::<Self, _, _>(value, spot, |text| match text.parse::<Ipv6Net>() {
            // RFC 6052 section 2.2 defines no other lengths. At any other, the embedded IPv4 address is unknown.
            Ok(prefix)
                if matches!(prefix.prefix_len(), 32 | 40 | 48 | 56 | 64 | 96) && prefix == prefix.trunc() =>
            {
                Ok(Self(prefix))
            }
            _ => Err(format!(
                "{text:?} is not a prefix of 32, 40, 48, 56, 64 or 96 bits without bits set beyond it"
            )),
        })
    }
}

impl ReadValue for Domain {
    fn kind() -> ValueKind {
        ValueKind::Domain
    }

    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
        parsed::<Self, _, _>(value, spot, |text| domain(text).map(Self))
    }
}

impl ReadValue for DomainPattern {
    fn kind() -> ValueKind {
        ValueKind::DomainPattern
    }

    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
        parsed::<Self, _, _>(value, spot, |text| match text.strip_prefix('.') {
            Some(parent) => domain(parent).map(|parent| Self(format!(".{parent}"))),
            None => domain(text).map(Self),
        })
    }
}

impl ReadValue for Address {
    fn kind() -> ValueKind {
        ValueKind::Mailbox
    }

    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
        parsed::<Self, _, _>(value, spot, |text| {
            let address = Self::parse(text, Charset::Ascii).map_err(|error| format!("{text:?}: {error}"))?;
            if address.is_bare_postmaster() { Err("the domain is missing".to_owned()) } else { Ok(address) }
        })
    }
}

pub(crate) fn domain(text: &str) -> Result<String, String> {
    let ascii = domain_to_ascii(text.strip_suffix('.').unwrap_or(text));
    match check_domain(&ascii) {
        Ok(()) if !ascii.starts_with('[') && ascii.len() <= 253 => Ok(ascii),
        _ => Err(format!("{text:?} is not a domain name")),
    }
}

/// A host of a relay, as written; the port may be missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RelayHost(pub(crate) String);

/// The domains of a route: `example.org`, `.example.org` for its subdomains, or `*` for all others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RoutePattern(pub(crate) String);

impl RoutePattern {
    pub(crate) fn text(&self) -> &str {
        &self.0
    }
}

impl ReadValue for RelayHost {
    fn kind() -> ValueKind {
        ValueKind::Host
    }

    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
        parsed::<Self, _, _>(value, spot, |text| {
            let endpoint = Endpoint::parse(text, 25);
            endpoint.map(|_| Self(text.to_owned())).map_err(|error| error.to_string())
        })
    }
}

impl ReadValue for RoutePattern {
    fn kind() -> ValueKind {
        ValueKind::RoutePattern
    }

    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
        parsed::<Self, _, _>(value, spot, |text| match (text, text.strip_prefix('.')) {
            ("*", _) => Ok(Self(text.to_owned())),
            (_, Some(parent)) => domain(parent).map(|parent| Self(format!(".{parent}"))),
            (_, None) => domain(text).map(Self),
        })
    }
}
