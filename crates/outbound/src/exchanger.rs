//! Which addresses of mail exchangers may be connected to. Anyone can publish MX records, so without this check the
//! owner of a domain could make us connect to our own machine, to the network behind it (as in SSRF), or to ourselves
//! in a mail loop.
//!
//! Relays are not checked: the operator has named their hosts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::Ipv6Net;

use crate::config::Config;
use crate::network::Network;

/// The reachability of an address on the Internet (RFC 6890).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AddressScope {
    /// A public address, which is reachable from anywhere.
    Public,
    /// A private address, which is another host in each network; an operator may have exchangers there.
    Local(&'static str),
    /// Not the address of a host.
    NoHost(&'static str),
}

/// Why an exchanger at this address is not connected to; none if it may be.
pub(crate) fn objection(address: IpAddr, config: &Config) -> Option<&'static str> {
    let (address, behind) = (address.to_canonical(), behind(address, &config.mx.nat64));
    match scope(behind) {
        AddressScope::Public => None,
        AddressScope::Local(what) => {
            let listed = config.mx.networks.iter();
            let mut listed = listed.filter(|network| network.contains(&address) || network.contains(&behind));
            listed.next().is_none().then_some(what)
        }
        AddressScope::NoHost(what) => Some(what),
    }
}

/// RFC 5321 section 5.1: an exchanger at one of our addresses is this gateway, under any name. A listener on a wildcard
/// address is at every address of this machine.
pub(crate) fn is_us(address: SocketAddr, config: &Config, network: &dyn Network) -> bool {
    let behind = SocketAddr::new(behind(address.ip(), &config.mx.nat64), address.port());
    config.own_addresses.contains(&behind.ip()) || is_listener(behind, &config.listeners, network)
}

/// Whether one of these listeners would answer at this address.
#[must_use]
pub fn is_listener(address: SocketAddr, listeners: &[SocketAddr], network: &dyn Network) -> bool {
    let ip = behind(address.ip(), &[]);
    let listens = |listener: &SocketAddr| {
        let everywhere = listener.ip().is_unspecified() && listener.is_ipv4() == ip.is_ipv4();
        listener.port() == address.port() && (listener.ip() == ip || (everywhere && network.is_here(ip)))
    };
    listeners.iter().any(listens)
}

/// The IPv4 address that an IPv6 address embeds; if it is refused, so is the IPv6 address.
fn behind(address: IpAddr, nat64: &[Ipv6Net]) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let translated = nat64.iter().find(|prefix| prefix.contains(&v6));
    let hidden = translated.map(|prefix| translated_to(v6, prefix.prefix_len())).or_else(|| embedded(v6));
    hidden.map_or(address, IpAddr::V4)
}

/// RFC 6052 section 2.2: the IPv4 address follows the prefix, without the ninth octet, which is reserved.
fn translated_to(address: Ipv6Addr, prefix: u8) -> Ipv4Addr {
    let octets = address.octets();
    let mut after = (usize::from(prefix / 8)..octets.len()).filter(|at| *at != 8).map(|at| octets[at]);
    Ipv4Addr::from(std::array::from_fn::<u8, 4, _>(|_| after.next().unwrap_or_default()))
}

fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let of = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match address.segments() {
        // RFC 4291 section 2.5: the unspecified and the loopback address are themselves.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        // Mapped and compatible (RFC 4291 section 2.5.5), translated (RFC 2765 section 2.1), NAT64 (RFC 6052 section
        // 2.1).
        [0, 0, 0, 0, 0, 0xffff | 0, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(of(high, low)),
        // 6to4 (RFC 3056 section 2).
        [0x2002, high, low, ..] => Some(of(high, low)),
        _ => None,
    }
}

fn scope(address: IpAddr) -> AddressScope {
    match address {
        IpAddr::V4(v4) => scope_v4(v4),
        IpAddr::V6(v6) => scope_v6(v6),
    }
}

fn scope_v4(address: Ipv4Addr) -> AddressScope {
    match address.octets() {
        [0, 0, 0, 0] => AddressScope::NoHost("the unspecified address"),
        [255, 255, 255, 255] => AddressScope::NoHost("the broadcast address"),
        [224..=239, ..] => AddressScope::NoHost("a multicast address"),
        [127, ..] => AddressScope::Local("a loopback address"),
        [169, 254, ..] => AddressScope::Local("a link-local address"),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => AddressScope::Local("a private address (RFC 1918)"),
        [100, 64..=127, ..] => AddressScope::Local("a shared address (RFC 6598)"),
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => {
            AddressScope::Local("an address for documentation (RFC 5737)")
        }
        [198, 18 | 19, ..] => AddressScope::Local("an address for benchmarks (RFC 2544)"),
        // 192.88.99.1 was the anycast address of 6to4 relays (RFC 7526): any network may answer there.
        [0, ..] | [192, 0, 0, _] | [192, 88, 99, _] | [240..=255, ..] => {
            AddressScope::Local("a reserved address")
        }
        _ => AddressScope::Public,
    }
}

fn scope_v6(address: Ipv6Addr) -> AddressScope {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => AddressScope::NoHost("the unspecified address"),
        [0xff00..=0xffff, ..] => AddressScope::NoHost("a multicast address"),
        [0, 0, 0, 0, 0, 0, 0, 1] => AddressScope::Local("a loopback address"),
        [0xfe80..=0xfebf, ..] => AddressScope::Local("a link-local address"),
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => AddressScope::Local("a private address (RFC 4193)"),
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => {
            AddressScope::Local("an address for documentation (RFC 3849)")
        }
        [0x2001, 2, 0, ..] => AddressScope::Local("an address for benchmarks (RFC 5180)"),
        // ORCHID (RFC 4843, RFC 7343) is no location, Teredo (RFC 4380) embeds another address, and 2001:1::/32 is
        // anycast (RFC 7723, RFC 8155).
        [0x2001, 0 | 1 | 0x10..=0x2f, ..] => AddressScope::Local("a reserved address"),
        // What IANA has assigned as global unicast so far; the rest is reserved.
        [0x2000..=0x3fff, ..] => AddressScope::Public,
        _ => AddressScope::Local("a reserved address"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::BoxFuture;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn objected(text: &str, networks: &[&str]) -> bool {
        let mut config = Config::new("gate.example");
        config.mx.networks = networks.iter().map(|text| text.parse().unwrap()).collect();
        objection(ip(text), &config).is_some()
    }

    #[test]
    fn exchangers_are_public() {
        for public in [
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "192.0.1.1",
            "2a00:1450::1",
            "2002:808:808::1",
            "64:ff9b::8.8.8.8",
            "::ffff:8.8.8.8",
            "2001:4860::1",
        ] {
            assert!(!objected(public, &[]), "{public}");
        }
    }

    #[test]
    fn what_is_not_public_is_refused_in_every_disguise() {
        for inside in [
            "0.0.0.0",
            "0.1.2.3",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
        ] {
            assert!(objected(inside, &[]), "{inside}");
            let IpAddr::V4(v4) = ip(inside) else { unreachable!() };
            let [a, b, c, d] = v4.octets();
            for disguise in [
                format!("::ffff:{v4}"),
                format!("::ffff:0:{v4}"),
                format!("::{v4}"),
                format!("64:ff9b::{v4}"),
                format!("2002:{a:02x}{b:02x}:{c:02x}{d:02x}::1"),
            ] {
                assert!(objected(&disguise, &[]), "{disguise}");
            }
        }
        for inside in [
            "::",
            "::1",
            "fe80::1",
            "fec0::1",
            "fc00::1",
            "fd12:3456::1",
            "ff02::1",
            "2001:db8::1",
            "3fff::1",
            "100::1",
            "2001::1",
            "2001:1::1",
            "2001:10::1",
            "64:ff9b:1::10.0.0.1",
            "4000::1",
            "::2:0:0:1",
        ] {
            assert!(objected(inside, &[]), "{inside}");
        }
    }

    #[test]
    fn the_operator_s_networks_are_let_through_and_nobody_s_address_is_not() {
        assert!(!objected("10.1.2.3", &["192.168.0.0/16", "10.0.0.0/8"]));
        assert!(!objected("::ffff:10.1.2.3", &["10.0.0.0/8"]));
        assert!(!objected("fd00::5", &["fd00::/8"]));
        assert!(objected("10.1.2.3", &["10.2.0.0/16"]));
        for nobody in ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "64:ff9b::255.255.255.255"]
        {
            assert!(objected(nobody, &["0.0.0.0/0", "::/0"]), "{nobody}");
        }
    }

    /// The examples of RFC 6052 section 2.4, and what they must not lead to.
    #[test]
    fn what_the_operator_s_translator_leads_to_is_known() {
        let mut config = Config::new("gate.example");
        for prefix in [
            "2001:db8::/32",
            "2001:db8:100::/40",
            "2001:db8:122::/48",
            "2001:db8:122:300::/56",
            "2001:db8:122:344::/64",
            "2001:db8:122:344::/96",
        ] {
            config.mx.nat64 = vec![prefix.parse().unwrap()];
            let prefix: Ipv6Net = prefix.parse().unwrap();
            for (v4, inside) in [([192, 0, 2, 33], true), ([10, 1, 2, 3], true), ([8, 8, 8, 8], false)] {
                let mut octets = prefix.addr().octets();
                let places = (usize::from(prefix.prefix_len() / 8)..16).filter(|at| *at != 8);
                places.zip(v4).for_each(|(at, octet)| octets[at] = octet);
                let address = IpAddr::from(octets);
                assert_eq!(behind(address, &config.mx.nat64), IpAddr::from(v4), "{address}");
                assert_eq!(objection(address, &config).is_some(), inside, "{address}");
            }
        }
        let given: [(&str, &str); 3] = [
            ("2001:db8::/32", "2001:db8:c000:221::"),
            ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
        ];
        for (prefix, address) in given {
            let nat64 = [prefix.parse().unwrap()];
            assert_eq!(behind(ip(address), &nat64), ip("192.0.2.33"), "{prefix}");
        }
        assert!(objected("fd00:64::8.8.8.8", &[]), "what nobody named is taken as it looks");
    }

    /// A machine with the addresses 192.0.2.7 and 2001:db8::7.
    struct Machine;

    impl Network for Machine {
        fn connect(
            &self,
            _: &crate::HostAddress,
            _: Option<IpAddr>,
        ) -> BoxFuture<'static, std::io::Result<Box<dyn crate::Stream>>> {
            unreachable!("nobody connects here")
        }

        fn is_here(&self, address: IpAddr) -> bool {
            address.is_loopback()
                || address.is_unspecified()
                || ["192.0.2.7", "2001:db8::7"].map(ip).contains(&address)
        }
    }

    #[test]
    fn a_listener_on_a_wildcard_address_is_at_every_address_of_the_machine() {
        let mut config = Config::new("gate.example");
        config.own_addresses = vec![ip("198.51.100.1")];
        config.listeners = ["0.0.0.0:25", "[2001:db8::9]:26"].map(|text| text.parse().unwrap()).into();
        for (address, ours) in [
            ("127.0.0.1:25", true),
            ("0.0.0.0:25", true),
            ("192.0.2.7:25", true),
            ("[::ffff:192.0.2.7]:25", true),
            ("192.0.2.8:25", false),
            ("192.0.2.7:26", false),
            ("[2001:db8::7]:25", false),
            ("[2001:db8::9]:26", true),
            ("198.51.100.1:2525", true),
            ("[2002:c633:6401::1]:25", true),
        ] {
            assert_eq!(is_us(address.parse().unwrap(), &config, &Machine), ours, "{address}");
        }
    }
}
