//! Lookups between hosts and addresses: a host's addresses, an address's confirmed names, DNS lists.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr};

use futures_util::future::{join, join_all};

use crate::{DnsAnswer, DnsError, DnsRecord, DnsRecordKind, Resolver};

/// All addresses of `host`, IPv6 and IPv4 alternating, beginning with IPv6; never empty.
///
/// Since they alternate, a caller that tries only the first few has tried both families, so a host with five
/// unreachable IPv6 addresses still gets its mail. Within a family the server's order is kept (RFC 5321 section 5.1
/// requires that). For an address in text form, the result is that address.
///
/// One family is enough: there is an error only when neither has an address. It is then the temporary one of the two
/// errors, if there is one, since the host may have addresses after all.
pub async fn addresses(resolver: &dyn Resolver, host: &str) -> Result<Vec<IpAddr>, DnsError> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let (v6, v4) =
        join(resolver.lookup(host, DnsRecordKind::Aaaa), resolver.lookup(host, DnsRecordKind::A)).await;
    match (v6, v4) {
        (Err(v6), Err(v4)) => Err(if v6.is_temporary() { v6 } else { v4 }),
        (v6, v4) => Ok(in_turn(&families(v6), &families(v4))),
    }
}

/// The host names of an address, and whether they are confirmed (RFC 8601 section 2.7.3, "iprev").
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReverseNames {
    /// These names resolve back to the address; never empty.
    Confirmed(Vec<String>),
    /// The address has names, but none of them resolves back to it.
    Unconfirmed,
    /// The address has no name.
    Unnamed,
}

impl ReverseNames {
    /// The names that can be trusted: none unless they are confirmed.
    pub fn names(&self) -> &[String] {
        match self {
            Self::Confirmed(names) => names,
            Self::Unconfirmed | Self::Unnamed => &[],
        }
    }
}

/// The forward-confirmed names of `address`. Only the first `limit` of its PTR records are used.
///
/// All errors are temporary ("temperror" in RFC 8601): an address without a name is not an error. A name that cannot be
/// checked now does not hide another one that is confirmed.
pub async fn reverse_names(
    resolver: &dyn Resolver,
    address: IpAddr,
    limit: usize,
) -> Result<ReverseNames, DnsError> {
    let address = address.to_canonical();
    let names = match resolver.lookup(&reverse_zone_name(address), DnsRecordKind::Ptr).await {
        Ok(answer) => pointers(answer, limit),
        Err(error) if error.is_temporary() => return Err(error),
        Err(_) => return Ok(ReverseNames::Unnamed),
    };
    let checks = join_all(names.iter().map(|name| leads_to(resolver, name, address))).await;
    confirmed(names, &checks)
}

/// Queries each DNS list in `zones` for `address`; the results are in the same order (RFC 5782 section 2).
///
/// [`DnsError::NxDomain`] means not listed. Any answer is one of the list's 127.0.0.x codes, whose meaning the list
/// defines.
pub async fn query_lists(
    resolver: &dyn Resolver,
    address: IpAddr,
    zones: &[String],
) -> Vec<Result<DnsAnswer, DnsError>> {
    let prefix = reversed(address);
    let names: Vec<String> = zones.iter().map(|zone| format!("{prefix}.{zone}")).collect();
    join_all(names.iter().map(|name| resolver.lookup(name, DnsRecordKind::A))).await
}

/// The address in reverse order, as lists expect it: "2.0.0.192" for 192.0.2.0 (RFC 5782 section 2.1), single
/// hexadecimal digits for IPv6 (section 2.4). IPv4 mapped into IPv6 counts as IPv4.
pub fn reversed(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}")
        }
        IpAddr::V6(v6) => nibbles(v6),
    }
}

/// The name at which an address has its PTR records (RFC 1035 section 3.5, RFC 3596 section 2.5).
pub fn reverse_zone_name(address: IpAddr) -> String {
    let zone = if address.to_canonical().is_ipv4() { "in-addr.arpa" } else { "ip6.arpa" };
    format!("{}.{zone}", reversed(address))
}

/// Parses an address literal as it is used in place of a domain, as in `user@[192.0.2.1]` or `user@[IPv6:2001:db8::1]`
/// (RFC 5321 section 4.1.3). None for anything else, including other tags. Mail to such a domain goes to the address
/// itself without DNS.
pub fn address_literal(domain: &str) -> Option<IpAddr> {
    let inner = domain.strip_prefix('[')?.strip_suffix(']')?;
    match inner.split_at_checked(5) {
        Some((tag, rest)) if tag.eq_ignore_ascii_case("IPv6:") => rest.parse().ok().map(IpAddr::V6),
        _ => inner.parse().ok().map(IpAddr::V4),
    }
}

fn families(answer: Result<DnsAnswer, DnsError>) -> Vec<IpAddr> {
    let records = answer.map(|answer| answer.records).unwrap_or_default();
    records.into_iter().filter_map(|record| ip(&record)).collect()
}

fn ip(record: &DnsRecord) -> Option<IpAddr> {
    match record {
        DnsRecord::A(v4) => Some(IpAddr::V4(*v4)),
        DnsRecord::Aaaa(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

fn in_turn(first: &[IpAddr], second: &[IpAddr]) -> Vec<IpAddr> {
    let rounds = first.len().max(second.len());
    (0..rounds).flat_map(|i| [first.get(i), second.get(i)]).flatten().copied().collect()
}

fn pointers(answer: DnsAnswer, limit: usize) -> Vec<String> {
    let name = |record| match record {
        DnsRecord::Ptr(name) => Some(name),
        _ => None,
    };
    answer.records.into_iter().filter_map(name).take(limit).collect()
}

/// Whether `name` resolves to `address`; only the address's family is queried.
async fn leads_to(resolver: &dyn Resolver, name: &str, address: IpAddr) -> Result<bool, DnsError> {
    let kind = if address.is_ipv4() { DnsRecordKind::A } else { DnsRecordKind::Aaaa };
    match resolver.lookup(name, kind).await {
        Ok(answer) => Ok(answer.records.iter().any(|record| ip(record) == Some(address))),
        Err(error) if error.is_temporary() => Err(error),
        Err(_) => Ok(false),
    }
}

fn confirmed(names: Vec<String>, checks: &[Result<bool, DnsError>]) -> Result<ReverseNames, DnsError> {
    let good: Vec<String> = names
        .into_iter()
        .zip(checks)
        .filter(|(_, check)| **check == Ok(true))
        .map(|(name, _)| name)
        .collect();
    if !good.is_empty() {
        return Ok(ReverseNames::Confirmed(good));
    }
    match checks.iter().find_map(|check| check.err()) {
        Some(error) => Err(error),
        None => Ok(ReverseNames::Unconfirmed),
    }
}

fn nibbles(address: Ipv6Addr) -> String {
    let mut text = String::with_capacity(63);
    for byte in address.octets().iter().rev() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{:x}.{:x}.", byte & 0x0f, byte >> 4);
    }
    text.pop();
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_turned_round_for_lists_and_for_pointers() {
        let v4: IpAddr = "192.0.2.99".parse().unwrap();
        assert_eq!(reversed(v4), "99.2.0.192");
        assert_eq!(reversed("::ffff:192.0.2.99".parse().unwrap()), "99.2.0.192");
        assert_eq!(reverse_zone_name(v4), "99.2.0.192.in-addr.arpa");
        let v6: IpAddr = "2001:db8:1:2:3:4:567:89ab".parse().unwrap();
        let digits = "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2";
        assert_eq!(reversed(v6), digits);
        assert_eq!(reverse_zone_name(v6), format!("{digits}.ip6.arpa"));
    }

    #[test]
    fn address_literals_are_told_from_names() {
        assert_eq!(address_literal("[192.0.2.1]"), "192.0.2.1".parse().ok());
        assert_eq!(address_literal("[ipv6:2001:db8::1]"), "2001:db8::1".parse().ok());
        for other in
            ["192.0.2.1", "[2001:db8::1]", "[X:y]", "[IPv6:192.0.2.1]", "[]", "mail.example", "[é:é:]"]
        {
            assert_eq!(address_literal(other), None, "{other}");
        }
    }
}
