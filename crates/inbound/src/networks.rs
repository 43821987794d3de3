//! By which networks a client is counted: whoever may choose the last part of an address must not be a thousand clients.

use std::net::IpAddr;

use ipnet::IpNet;

/// Lengths of the prefixes that stand for one host and for one site: an IPv6 host has a whole /64 to choose from, and a
/// site, which may be one machine, a /48.
const V4: [u8; 2] = [32, 24];
const V6: [u8; 2] = [64, 48];

/// The networks of a client, the narrow one (one host) first and the wide one (one site) second.
#[must_use]
pub(crate) fn networks(client: IpAddr) -> [IpNet; 2] {
    let client = client.to_canonical();
    let lengths = if client.is_ipv4() { V4 } else { V6 };
    // No length is longer than its address.
    lengths.map(|length| IpNet::new(client, length).map_or_else(|_| client.into(), |net| net.trunc()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_counts_by_its_host_and_its_site() {
        for (client, [narrow, wide]) in [
            ("192.0.2.77", ["192.0.2.77/32", "192.0.2.0/24"]),
            ("::ffff:192.0.2.77", ["192.0.2.77/32", "192.0.2.0/24"]),
            ("2001:db8:1:2:3::4", ["2001:db8:1:2::/64", "2001:db8:1::/48"]),
        ] {
            let counted = networks(client.parse().unwrap()).map(|network| network.to_string());
            assert_eq!(counted, [narrow, wide], "{client}");
        }
    }
}
