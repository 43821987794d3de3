//! Tags of the scheme `prvs` (draft-levine-smtp-batv-01 section 4): `prvs=KDDDSSSSSS=local@domain`, where K is the key
//! number, DDD the day on which the tag expires (days since 1970, modulo 1000), and SSSSSS the first three octets of an
//! HMAC-SHA1 over K, DDD and the address.
//!
//! The address is hashed in lower case, with its domain in A-labels. The hexadecimal digits and the word `prvs` are
//! read without regard to case: some servers change the case of an address, and no bounce should be lost because of
//! that. It does not help a forger. This module reads no clock: the day is a parameter.

use pintle_plugin_sdk::{Address, HostError};
use serde::Deserialize;

/// Number of a day: days since 1970-01-01, UTC.
pub(crate) type Day = u64;

/// Makes the HMAC-SHA1 of a text with the key of this name. The host does; tests have keys of their own.
pub(crate) type MakeCode = fn(&str, &[u8]) -> Result<Vec<u8>, HostError>;

/// A key and its number, which is part of each tag made with it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TagKey {
    pub(crate) number: u8,
    /// Name of the key in the gateway's configuration.
    pub(crate) secret: String,
}

/// A tagged local part, parsed but not verified.
#[derive(Debug, PartialEq)]
pub(crate) struct Tagged<'a> {
    number: u8,
    expires: u16,
    hash: [u8; HASH],
    /// The local part without the tag.
    pub(crate) local: &'a str,
}

/// Result of verifying a tag.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Worth {
    /// Signed with one of our keys, and not expired.
    Valid,
    /// Signed with one of our keys, but outside its validity period.
    Expired,
    /// No key has the tag's key number.
    UnknownKey,
    /// Not signed with one of our keys, or signed for a different address.
    Forged,
}

/// Signature length in octets, as in the draft: a forger has to guess one of 16 million values, and each wrong guess is
/// refused.
const HASH: usize = 3;
/// Days are counted modulo this number.
const ROUND: u64 = 1000;
/// RFC 5321 section 4.5.3.1.3: maximum length of a path without its brackets, in octets as sent.
const MAX_ADDRESS: usize = 254;

/// Tolerance in days, since two servers of one site may disagree on when a day begins.
const LEEWAY: u64 = 1;

/// The address with a tag that expires on this day; `None` if it would exceed the length limit.
pub(crate) fn sign(
    key: &TagKey,
    address: &Address,
    expires: Day,
    make: MakeCode,
) -> Result<Option<Address>, HostError> {
    let day = u16::try_from(expires % ROUND).unwrap_or(0);
    let code = code(key, day, &address.local, &address.domain, make)?;
    let hex: String = code.iter().map(|octet| format!("{octet:02x}")).collect();
    let local = format!("prvs={}{day:03}{hex}={}", key.number, address.local);
    let signed = address.with_local(&local);
    Ok(fits(&signed).then_some(signed))
}

/// Whether the address with a tag stays within the length limit.
pub(crate) fn is_taggable(address: &Address) -> bool {
    fits(&address.with_local(&format!("prvs=0000000000={}", address.local)))
}

fn fits(address: &Address) -> bool {
    address.text.len() <= MAX_ADDRESS
}

/// Whether the local part already has a tag: ours, another `prvs`, or Barracuda's `btv1`.
pub(crate) fn is_tagged(local: &str) -> bool {
    let begins = |with: &str| local.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with));
    begins("prvs=") || begins("btv1==")
}

/// Parses the tag of a local part; `None` if it has no `prvs` tag.
pub(crate) fn read(local: &str) -> Option<Tagged<'_>> {
    let rest = local.get(..5).filter(|word| word.eq_ignore_ascii_case("prvs=")).and(local.get(5..))?;
    let (tag, local) = rest.split_once('=')?;
    if tag.len() != 4 + 2 * HASH || !tag.bytes().all(|b| b.is_ascii_hexdigit()) || local.is_empty() {
        return None;
    }
    let octet = |at: usize| u8::from_str_radix(&tag[at..at + 2], 16).ok();
    Some(Tagged {
        number: tag[..1].parse().ok()?,
        expires: tag[1..4].parse().ok()?,
        hash: [octet(4)?, octet(6)?, octet(8)?],
        local,
    })
}

impl Tagged<'_> {
    /// Verifies the tag for an address of this domain; `days` is the lifetime of tags in days.
    pub(crate) fn worth(
        &self,
        keys: &[TagKey],
        domain: &str,
        today: Day,
        days: u16,
        make: MakeCode,
    ) -> Result<Worth, HostError> {
        let Some(key) = keys.iter().find(|key| key.number == self.number) else {
            return Ok(Worth::UnknownKey);
        };
        if !equal(code(key, self.expires, self.local, domain, make)?, self.hash) {
            return Ok(Worth::Forged);
        }
        let left = (u64::from(self.expires) + ROUND - today % ROUND) % ROUND;
        Ok(if left <= u64::from(days) + LEEWAY { Worth::Valid } else { Worth::Expired })
    }
}

/// The first octets of the HMAC of a tag.
fn code(key: &TagKey, day: u16, local: &str, domain: &str, make: MakeCode) -> Result<[u8; HASH], HostError> {
    let text = format!("{}{day:03}{}@{domain}", key.number, local.to_lowercase());
    let whole = make(&key.secret, text.as_bytes())?;
    let first = whole.first_chunk().copied();
    first.ok_or_else(|| HostError::Other("a code that is shorter than a tag's".to_owned()))
}

/// Compares in constant time, so that a forger cannot guess octet by octet from the response time.
fn equal(one: [u8; HASH], other: [u8; HASH]) -> bool {
    let differences = one.iter().zip(other).fold(0, |found, (one, other)| found | (one ^ other));
    std::hint::black_box(differences) == 0
}

/// Parses a date such as `2026-12-31`; `None` if it is invalid.
pub(crate) fn day(text: &str) -> Option<Day> {
    let mut parts = text.split('-').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let february = if leap(year) { 29 } else { 28 };
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let length = *months.get(usize::try_from(month).ok()?.checked_sub(1)?)?;
    if parts.next().is_some()
        || text.len() != 10
        || !(1970..=9999).contains(&year)
        || !(1..=length).contains(&day)
    {
        return None;
    }
    let years: u64 = (1970..year).map(|year| if leap(year) { 366 } else { 365 }).sum();
    let before: u64 = months.iter().take(usize::try_from(month).ok()? - 1).sum();
    Some(years + before + day - 1)
}

#[cfg(test)]
pub(crate) mod tests {
    use hmac::{Hmac, KeyInit, Mac};
    use sha1::Sha1;

    use super::*;

    /// As the host, with the name itself as the key.
    pub(crate) fn make(secret: &str, text: &[u8]) -> Result<Vec<u8>, HostError> {
        let mut hmac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).unwrap();
        hmac.update(text);
        Ok(hmac.finalize().into_bytes().to_vec())
    }

    fn signed(key: &TagKey, address: &Address, expires: Day) -> Option<Address> {
        sign(key, address, expires, make).unwrap()
    }

    fn key(number: u8, secret: &str) -> TagKey {
        TagKey { number, secret: secret.to_owned() }
    }

    fn address(local: &str) -> Address {
        Address::new(local, "ours.example")
    }

    fn worth(local: &str, today: Day) -> Worth {
        let keys = [key(3, "a key of some length"), key(1, "another, older key")];
        read(local).unwrap().worth(&keys, "ours.example", today, 7, make).unwrap()
    }

    /// The expected signature was computed with Python's hmac module.
    #[test]
    fn a_tag_is_made_as_the_draft_says() {
        let tagged = signed(&key(3, "a key of some length"), &address("Ann.Lee"), 20_607).unwrap();
        assert_eq!(tagged.to_string(), "prvs=3607563e7e=Ann.Lee@ours.example");
    }

    #[test]
    fn a_tag_is_valid_until_its_day_whatever_case_it_comes_back_in() {
        let tagged = signed(&key(1, "another, older key"), &address("Ann"), 1_003).unwrap().local;
        assert_eq!(worth(&tagged, 996), Worth::Valid);
        assert_eq!(worth(&tagged, 1_003), Worth::Valid);
        assert_eq!(worth(&tagged.to_uppercase(), 1_000), Worth::Valid);
        assert_eq!(worth(&tagged.to_lowercase(), 1_000), Worth::Valid);
        assert_eq!(worth(&tagged, 995), Worth::Valid, "made by a server whose day has begun");
        assert_eq!(worth(&tagged, 994), Worth::Expired);
        assert_eq!(worth(&tagged, 1_004), Worth::Expired);
        assert_eq!(worth(&tagged, 1_500), Worth::Expired);
    }

    #[test]
    fn a_tag_is_of_one_address_and_one_key() {
        let tagged = signed(&key(3, "a key of some length"), &address("ann"), 1_003).unwrap().local;
        assert_eq!(worth(&tagged.replace("ann", "bob"), 1_000), Worth::Forged);
        assert_eq!(worth(&tagged.replace("prvs=3003", "prvs=3004"), 1_000), Worth::Forged);
        assert_eq!(worth(&tagged.replace("prvs=3", "prvs=1"), 1_000), Worth::Forged);
        assert_eq!(worth(&tagged.replace("prvs=3", "prvs=2"), 1_000), Worth::UnknownKey);
        let keys = [key(3, "a key of some length")];
        let elsewhere = read(&tagged).unwrap().worth(&keys, "theirs.example", 1_000, 7, make);
        assert_eq!(elsewhere, Ok(Worth::Forged));
        let broken =
            read(&tagged).unwrap().worth(&keys, "ours.example", 1_000, 7, |_, _| Err(HostError::Timeout));
        assert_eq!(broken, Err(HostError::Timeout), "no tag is judged without its code");
    }

    #[test]
    fn what_is_no_tag_is_not_read_as_one() {
        for local in [
            "ann",
            "prvs=ann",
            "prvs=123456789=ann",
            "prvs=0123abcdeg=ann",
            "prvs=0123abcdef=",
            "prvs=0123abcdef",
            "prvs=a123abcdef=ann",
            "prvs=0+23abcdef=ann",
            "prvs",
            "prvé=0123abcdef=ann",
            "",
        ] {
            assert_eq!(read(local), None, "{local}");
        }
        assert_eq!(read("PRVS=0123ABCDEF=a=b").map(|tagged| tagged.local), Some("a=b"));
        assert!(is_tagged("Prvs=x") && is_tagged("btv1==x") && !is_tagged("prvs"));
    }

    #[test]
    fn no_address_becomes_longer_than_may_be_sent() {
        // 254 octets: 16 of the tag, 13 of "@ours.example".
        assert!(is_taggable(&address(&"a".repeat(225))) && !is_taggable(&address(&"a".repeat(226))));
        assert!(signed(&key(0, "k"), &address(&"a".repeat(226)), 1).is_none());
        let quoted = signed(&key(0, "k"), &address("a b"), 1).unwrap().to_string();
        assert!(quoted.starts_with("\"prvs=0001") && quoted.ends_with("=a b\"@ours.example"), "{quoted}");
        assert!(!is_taggable(&address(&format!("{} b", "a".repeat(222)))), "its quotes count");
    }

    #[test]
    fn days_have_numbers() {
        assert_eq!(day("1970-01-01"), Some(0));
        assert_eq!(day("2000-02-29"), Some(11_016));
        assert_eq!(day("2026-11-22"), Some(20_779));
        for wrong in
            ["", "2026-02-29", "2026-13-01", "2026-00-01", "2026-1-1", "2026-01-01-", "1969-12-31", "heute"]
        {
            assert_eq!(day(wrong), None, "{wrong}");
        }
    }
}
