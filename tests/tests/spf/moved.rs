//! Converts test cases with public client addresses to addresses that a test can connect from.
//!
//! Every address of a case is changed by the same mask, so that addresses that had their first bits in common with the
//! client still do; the same is done for addresses in records, in names made from them, and in expected results.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pintle_testkit::{DnsRecord, DnsRecordKind};

/// The conversion for one client, and everything that belongs to it.
pub(super) struct Moved {
    from: IpAddr,
    to: IpAddr,
}

impl Moved {
    /// 127.B.C.D for A.B.C.D; for IPv6 `::1`, the only loopback address.
    pub(super) fn to_loopback(from: IpAddr) -> Self {
        let to = match from {
            IpAddr::V4(v4) => {
                let [_, b, c, d] = v4.octets();
                Ipv4Addr::new(127, b, c, d).into()
            }
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        Self { from, to }
    }

    /// The address that the client connects from.
    pub(super) fn client(&self) -> IpAddr {
        self.to
    }

    /// Converts the records.
    pub(super) fn records(&self, records: &[(String, DnsRecord)]) -> Vec<(String, DnsRecord)> {
        records.iter().map(|(name, record)| (self.text(name), self.record(record))).collect()
    }

    /// Converts the queries that are never answered.
    pub(super) fn silent(&self, silent: &[(String, DnsRecordKind)]) -> Vec<(String, DnsRecordKind)> {
        silent.iter().map(|(name, kind)| (self.text(name), *kind)).collect()
    }

    /// Converts a text or name that contains addresses.
    pub(super) fn text(&self, text: &str) -> String {
        match (self.from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => quads(text, from, to),
            (IpAddr::V6(from), IpAddr::V6(to)) => self.six(text, from, to),
            _ => text.to_owned(),
        }
    }

    fn record(&self, record: &DnsRecord) -> DnsRecord {
        match record {
            DnsRecord::A(address) => match self.address((*address).into()) {
                IpAddr::V4(v4) => DnsRecord::A(v4),
                IpAddr::V6(_) => record.clone(),
            },
            DnsRecord::Aaaa(address) => match self.address((*address).into()) {
                IpAddr::V6(v6) => DnsRecord::Aaaa(v6),
                IpAddr::V4(_) => record.clone(),
            },
            DnsRecord::Txt(octets) => {
                // One character stands for each octet, in both directions.
                let text: String = octets.iter().copied().map(char::from).collect();
                DnsRecord::Txt(self.text(&text).chars().map(|c| u8::try_from(c).unwrap()).collect())
            }
            other => other.clone(),
        }
    }

    fn address(&self, address: IpAddr) -> IpAddr {
        match (self.from, self.to, address) {
            (IpAddr::V4(from), IpAddr::V4(to), IpAddr::V4(it)) => {
                Ipv4Addr::from_bits(it.to_bits() ^ from.to_bits() ^ to.to_bits()).into()
            }
            (IpAddr::V6(from), IpAddr::V6(to), IpAddr::V6(it)) => {
                Ipv6Addr::from_bits(it.to_bits() ^ from.to_bits() ^ to.to_bits()).into()
            }
            _ => address,
        }
    }

    /// Converts the client's name in reverse zones, the client, and the networks of `ip6`.
    fn six(&self, text: &str, from: Ipv6Addr, to: Ipv6Addr) -> String {
        let text = replaced(text, &nibbles(from), &nibbles(to));
        let text = replaced(&text, &from.to_string(), &to.to_string());
        let mut pieces = text.split("ip6:");
        let mut out = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            let end = piece.find(['/', ' ']).unwrap_or(piece.len());
            let (literal, rest) = piece.split_at(end);
            let address = literal.parse::<Ipv6Addr>().map(|it| self.address(it.into()).to_string());
            // A text that is not an address was already converted by the first step, or is wrong and stays so.
            let moved = if literal == to.to_string() { Ok(literal.to_owned()) } else { address };
            out.push_str(&format!("ip6:{}{rest}", moved.unwrap_or_else(|_| literal.to_owned())));
        }
        out
    }
}

/// Converts every dotted quad; one that is the client's reversed address is replaced by the reversed new address.
fn quads(text: &str, from: Ipv4Addr, to: Ipv4Addr) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, digits) = rest.split_at(at);
        out.push_str(before);
        let end = digits.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(digits.len());
        let end = digits[..end].trim_end_matches('.').len();
        let (run, behind) = digits.split_at(end);
        out.push_str(&quad(run, from, to));
        rest = behind;
    }
    out + rest
}

fn quad(run: &str, from: Ipv4Addr, to: Ipv4Addr) -> String {
    let Ok(it) = run.parse::<Ipv4Addr>() else {
        return run.to_owned();
    };
    let reversed = |address: Ipv4Addr| {
        let [a, b, c, d] = address.octets();
        Ipv4Addr::new(d, c, b, a)
    };
    if it == reversed(from) {
        return reversed(to).to_string();
    }
    Ipv4Addr::from_bits(it.to_bits() ^ from.to_bits() ^ to.to_bits()).to_string()
}

/// In any case of the letters.
fn replaced(text: &str, old: &str, new: &str) -> String {
    match text.to_ascii_lowercase().find(&old.to_ascii_lowercase()) {
        Some(at) => format!("{}{new}{}", &text[..at], &text[at + old.len()..]),
        None => text.to_owned(),
    }
}

fn nibbles(address: Ipv6Addr) -> String {
    let digits = format!("{:032x}", address.to_bits());
    let reversed: Vec<String> = digits.chars().rev().map(String::from).collect();
    reversed.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_alike_is_alike_afterwards() {
        let four = Moved::to_loopback([192, 168, 218, 40].into());
        assert_eq!(four.text("40.218.168.192.in-addr.arpa"), "40.218.168.127.in-addr.arpa");
        assert_eq!(
            four.text("v=spf1 ip4:192.168.218.0/24 ip4:1.2.3:80"),
            "v=spf1 ip4:127.168.218.0/24 ip4:1.2.3:80"
        );
        let six = Moved::to_loopback("cafe:babe::1".parse().unwrap());
        assert_eq!(six.text("v=spf1 ip6:Cafe:Babe::/33 -all"), "v=spf1 ip6:::/33 -all");
        assert_eq!(six.text("cafe:babe::1 is the client"), "::1 is the client");
        assert_eq!(six.text(&nibbles("cafe:babe::1".parse().unwrap())), nibbles(Ipv6Addr::LOCALHOST));
    }
}
