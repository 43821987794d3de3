//! Types for values in a plugin's configuration, with the same syntax as in the gateway's own file: durations with a
//! unit, networks, domains, addresses. Each type is a single item, so that mistakes in lists are reported with their
//! index.
//!
//! Domains are compared in A-labels, the form that [`Address::domain`] holds.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

use crate::{Address, IpAddress};

/// Parses a duration such as `"30s"`, `"5m"` or `"1h30m"`, for `#[serde(deserialize_with = "settings::duration")]`.
///
/// # Errors
///
/// The text has no unit, or a unit other than ms, s, m, h or d.
pub fn duration<'de, D: Deserializer<'de>>(reader: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(reader)?;
    parse_duration(&text).ok_or_else(|| {
        de::Error::custom(format!(
            "{text:?} is no duration: write a number with its unit, like \"30s\", \"5m\", \"4h\" or \"36d\""
        ))
    })
}

/// A network in CIDR notation, or a single address.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Network {
    octets: Vec<u8>,
    prefix: usize,
}

impl Network {
    /// Whether the address is in the network.
    #[must_use]
    pub fn contains(&self, address: &IpAddress) -> bool {
        self.octets == masked(&address.octets, self.prefix)
    }

    /// Whether the network contains all addresses: its prefix length is 0.
    #[must_use]
    pub fn is_everybody(&self) -> bool {
        self.prefix == 0
    }
}

/// CIDR notation, also for a single address.
impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = ip_address(&self.octets).ok_or(fmt::Error)?;
        write!(f, "{address}/{}", self.prefix)
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no network: write it like \"192.0.2.0/24\" or \"2001:db8::/32\"");
        let (address, prefix) = text.split_once('/').unwrap_or((&text, ""));
        let octets = octets(address.parse().map_err(|_| wrong())?);
        let prefix = match prefix {
            "" if text.contains('/') => return Err(wrong()),
            "" => octets.len() * 8,
            digits => digits.parse().map_err(|_| wrong())?,
        };
        if prefix > octets.len() * 8 {
            return Err(wrong());
        }
        if masked(&octets, prefix) != octets {
            return Err(format!("{text:?} has bits beyond its prefix"));
        }
        Ok(Self { octets, prefix })
    }
}

/// The first bits of an address, as text: a key shared by all addresses of the network.
#[must_use]
pub fn network_of(address: &IpAddress, v4_prefix: u8, v6_prefix: u8) -> String {
    let prefix = if address.octets.len() == 4 { v4_prefix } else { v6_prefix };
    let octets = masked(&address.octets, prefix.into());
    ip_address(&octets).map_or_else(|| address.text.clone(), |network| format!("{network}/{prefix}"))
}

/// The address of 4 or 16 octets.
fn ip_address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

/// A domain, `example.org`, or with a leading dot all domains below it, `.example.org`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Domain(String);

impl Domain {
    /// Whether it matches this domain, which is in A-labels and lower case.
    #[must_use]
    pub fn matches(&self, domain: &str) -> bool {
        if self.0.starts_with('.') {
            domain.len() > self.0.len() && domain.ends_with(&self.0)
        } else {
            domain == self.0
        }
    }
}

impl Domain {
    /// The form used for comparison: lower case, with the leading dot if it has one.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Domain {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let labels = text.strip_prefix('.').unwrap_or(&text);
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        let is_label = |label: &str| !label.is_empty() && label.bytes().all(fits);
        if labels.split('.').all(is_label) {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(format!(
                "{text:?} is no domain: write \"example.org\", or \".example.org\" for all below it; \
                 other letters than ASCII as xn--…"
            ))
        }
    }
}

/// An address, `ann@example.org`, or a [`Domain`] that stands for all addresses in it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Mailbox {
    /// Local part in lower case; `None` matches all.
    local: Option<String>,
    domain: Domain,
}

impl Mailbox {
    /// Whether it matches this address. Local parts are compared case-insensitively, as nearly all servers do.
    #[must_use]
    pub fn matches(&self, address: &Address) -> bool {
        self.names(&address.local, &address.domain)
    }

    /// As [`Mailbox::matches`], for an address given as local part and domain.
    #[must_use]
    pub fn names(&self, local: &str, domain: &str) -> bool {
        let same = |mine: &String| *mine == local.to_lowercase();
        self.domain.matches(domain) && self.local.as_ref().is_none_or(same)
    }
}

impl TryFrom<String> for Mailbox {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (local, domain) = match text.rsplit_once('@') {
            Some(("", _)) => {
                return Err(format!("{text:?} has nothing before its @: leave the @ out for a domain"));
            }
            Some((local, domain)) => (Some(local.to_lowercase()), domain),
            None => (None, text.as_str()),
        };
        let domain = Domain::try_from(domain.to_owned())?;
        Ok(Self { local, domain })
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.local {
            Some(local) => write!(f, "{local}@{}", self.domain.0),
            None => f.write_str(&self.domain.0),
        }
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn masked(octets: &[u8], prefix: usize) -> Vec<u8> {
    let kept = |(at, octet): (usize, &u8)| {
        let bits = prefix.saturating_sub(at * 8).min(8);
        octet & (0xff00_u16 >> bits).to_be_bytes()[1]
    };
    octets.iter().enumerate().map(kept).collect()
}

fn parse_duration(text: &str) -> Option<Duration> {
    let (mut rest, mut sum) = (text, Duration::ZERO);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let after = &rest[digits..];
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let millis = match &after[..unit] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        sum = sum.checked_add(Duration::from_millis(number.checked_mul(millis)?))?;
        rest = &after[unit..];
    }
    (!text.is_empty()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddress {
        IpAddress { text: text.to_owned(), octets: octets(text.parse().unwrap()) }
    }

    fn network(text: &str) -> Result<Network, String> {
        Network::try_from(text.to_owned())
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("1h30m"), Some(Duration::from_secs(5_400)));
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("36d"), Some(Duration::from_secs(36 * 86_400)));
        for wrong in ["", "5", "m", "5 m", "5x", "-5m", "99999999999999999999s", "18446744073709551615d"] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_network_contains_its_own_kind_of_address_alone() {
        assert!(network("192.0.2.0/25").unwrap().contains(&address("192.0.2.127")));
        assert!(!network("192.0.2.0/25").unwrap().contains(&address("192.0.2.128")));
        assert!(network("2001:db8::/33").unwrap().contains(&address("2001:db8:7fff::1")));
        assert!(!network("2001:db8::/33").unwrap().contains(&address("2001:db8:8000::1")));
        assert!(!network("0.0.0.0/0").unwrap().contains(&address("2001:db8::1")));
        assert!(network("192.0.2.1").unwrap().contains(&address("192.0.2.1")));
        assert!(network("::/0").unwrap().is_everybody());
        for wrong in ["192.0.2.1/24", "192.0.2.0/33", "192.0.2.0/", "example.org", "192.0.2/24"] {
            assert!(network(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_network_has_a_name() {
        assert_eq!(network_of(&address("192.0.2.77"), 24, 64), "192.0.2.0/24");
        assert_eq!(network_of(&address("2001:db8::1:2:3:4"), 24, 64), "2001:db8::/64");
        for (text, shown) in [("192.0.2.0/25", "192.0.2.0/25"), ("2001:db8::1", "2001:db8::1/128")] {
            assert_eq!(network(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn domains_and_mailboxes_name_what_they_say_and_nothing_beside() {
        let mailbox = |text: &str| Mailbox::try_from(text.to_owned()).unwrap();
        assert!(mailbox("Ann@Example.org").names("aNN", "example.org"));
        assert!(!mailbox("ann@example.org").names("anna", "example.org"));
        assert!(mailbox("example.org").names("anybody", "example.org"));
        assert!(!mailbox("example.org").names("anybody", "sub.example.org"));
        assert!(mailbox(".example.org").names("anybody", "sub.example.org"));
        assert!(!mailbox(".example.org").names("anybody", "example.org"));
        assert!(!mailbox(".example.org").names("anybody", "badexample.org"));
        assert!(!mailbox("example.org").names("", ""), "the null reverse-path");
        for wrong in ["", "@example.org", "ann@", "exam ple.org", "a..b", ".", "müller.example"] {
            assert!(Mailbox::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }
}
