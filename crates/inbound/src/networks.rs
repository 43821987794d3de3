//! The networks by which a client is counted for rate limits and connection limits. A client that can choose the last
//! part of its address must not count as thousands of clients.

use std::net::IpAddr;

use ipnet::IpNet;

/// Prefix lengths that stand for one host and for one site: an IPv6 host can choose from a whole /64; a site, which may
/// be a single machine, from a /48.
const V4: [u8; 2] = [32, 24];
const V6: [u8; 2] = [64, 48];

/// Returns the networks of a client: first the narrow one (a host), then the wide one (a site).
#[must_use]
pub(crate) fn networks(client: IpAddr) -> [IpNet; 2] {
    let client = client.to_canonical();
    let lengths = if client.is_ipv4() { V4 } else { V6 };
    // No prefix length exceeds that of its address.
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
