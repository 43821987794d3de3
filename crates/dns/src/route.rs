//! Mail routing by MX records: RFC 5321 section 5.1, with the null MX of RFC 7505.
//!
//! This gives only host names, in the order in which to try them. Their addresses are looked up by [`crate::addresses`]
//! when their turn comes, since most deliveries never get past the first.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use crate::{DnsError, DnsRecord, DnsRecordKind, Resolver};

/// Where a domain receives its mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MailRoute {
    /// Hosts in the order in which to try them; never empty.
    Exchangers(Vec<Exchanger>),
    /// The domain declares that it accepts no mail (RFC 7505): fail at once, with 556 and 5.1.10.
    NullMx,
}

/// One host that receives mail for a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchanger {
    /// The preference; lower ones are tried first.
    pub preference: u16,
    /// The host name without its final dot.
    pub host: String,
    /// Whether the domain has no MX record and is its own exchanger. If it has no address either ([`DnsError::NoData`]
    /// from [`crate::addresses`]), the domain receives no mail.
    pub implicit: bool,
}

/// The exchangers of `domain`, by preference; those of equal preference are shuffled by `seed`.
///
/// `domain` is a domain name, not an address literal. Errors are those of the lookup: a temporary one must defer the
/// mail and must not lead to the implicit MX; [`DnsError::NxDomain`] and [`DnsError::InvalidName`] must fail it.
pub async fn mail_exchangers(
    resolver: &dyn Resolver,
    domain: &str,
    seed: u64,
) -> Result<MailRoute, DnsError> {
    match resolver.lookup(domain, DnsRecordKind::Mx).await {
        Ok(answer) => Ok(route_by_records(answer.records, seed)),
        // RFC 5321 section 5.1: a name that exists without MX records is its own exchanger, of preference 0.
        Err(DnsError::NoData) => Ok(MailRoute::Exchangers(vec![implicit(domain)])),
        Err(error) => Err(error),
    }
}

/// The exchangers that are preferred to ourselves; empty when we are the best one.
///
/// RFC 5321 section 5.1: a relay that finds itself in the list drops every exchanger that is not strictly preferred to
/// itself; otherwise mail could loop. An empty result means that the domain's MX points to us although our
/// configuration does not know the domain: fail the mail with 5.4.6.
pub fn before_ours(exchangers: Vec<Exchanger>, is_ours: impl Fn(&str) -> bool) -> Vec<Exchanger> {
    let ours = exchangers.iter().filter(|e| is_ours(&e.host)).map(|e| e.preference).min();
    match ours {
        Some(limit) => exchangers.into_iter().filter(|e| e.preference < limit).collect(),
        None => exchangers,
    }
}

/// A seed for [`mail_exchangers`], different in each call. It distributes load and is not a secret, so the standard
/// library's randomly keyed hasher is good enough.
pub fn random_seed() -> u64 {
    RandomState::new().hash_one(0u8)
}

fn implicit(domain: &str) -> Exchanger {
    let host = domain.strip_suffix('.').unwrap_or(domain).to_owned();
    Exchanger { preference: 0, host, implicit: true }
}

fn route_by_records(records: Vec<DnsRecord>, seed: u64) -> MailRoute {
    let mut exchangers: Vec<Exchanger> = records.into_iter().filter_map(exchanger).collect();
    if exchangers.is_empty() {
        return MailRoute::NullMx;
    }
    order(&mut exchangers, seed);
    // A host that is listed twice must not be tried twice; its better preference counts.
    let mut seen = HashSet::new();
    exchangers.retain(|e| seen.insert(e.host.clone()));
    MailRoute::Exchangers(exchangers)
}

/// None for a null MX. RFC 7505 section 3 allows it only as the single record; next to real exchangers it is a mistake
/// of the domain and the real ones are used, since mail that can be delivered should be.
fn exchanger(record: DnsRecord) -> Option<Exchanger> {
    match record {
        DnsRecord::Mx { preference, exchange } if exchange != "." => {
            let host = exchange.to_ascii_lowercase();
            Some(Exchanger { preference, host, implicit: false })
        }
        _ => None,
    }
}

/// RFC 5321 section 5.1: among equal preferences the order is random, which distributes the load. The sort is stable,
/// so the shuffle among equals is kept.
fn order(exchangers: &mut [Exchanger], seed: u64) {
    let mut state = seed;
    for last in (1..exchangers.len()).rev() {
        let other = next_random(&mut state) % (last as u64 + 1);
        exchangers.swap(last, usize::try_from(other).unwrap_or(last));
    }
    exchangers.sort_by_key(|e| e.preference);
}

/// The splitmix64 generator: shuffling a few names needs no crate.
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mx(preference: u16, exchange: &str) -> DnsRecord {
        DnsRecord::Mx { preference, exchange: exchange.into() }
    }

    fn hosts(records: &[DnsRecord], seed: u64) -> Vec<String> {
        match route_by_records(records.to_vec(), seed) {
            MailRoute::Exchangers(list) => list.into_iter().map(|e| e.host).collect(),
            MailRoute::NullMx => vec!["(null)".into()],
        }
    }

    #[test]
    fn lower_preferences_come_first_whatever_the_seed() {
        let records = [mx(30, "c.example"), mx(10, "a.example"), mx(20, "b.example")];
        for seed in 0..50 {
            assert_eq!(hosts(&records, seed), ["a.example", "b.example", "c.example"]);
        }
    }

    #[test]
    fn equal_preferences_share_the_first_place() {
        let records = [mx(5, "a.example"), mx(5, "b.example"), mx(5, "c.example"), mx(9, "z.example")];
        let mut first = [0; 3];
        for seed in 0..3_000 {
            let order = hosts(&records, seed);
            assert_eq!(order[3], "z.example");
            first[usize::from(order[0].as_bytes()[0] - b'a')] += 1;
        }
        assert!(first.iter().all(|n| (800..1_200).contains(n)), "uneven: {first:?}");
        assert_eq!(hosts(&records, 7), hosts(&records, 7), "a seed decides the order");
    }

    #[test]
    fn the_null_mx_counts_only_alone() {
        assert_eq!(route_by_records(vec![mx(0, ".")], 1), MailRoute::NullMx);
        assert_eq!(hosts(&[mx(0, "."), mx(10, "a.example")], 1), ["a.example"]);
    }

    #[test]
    fn a_host_listed_twice_is_tried_once_at_its_better_place() {
        let records = [mx(20, "A.example"), mx(15, "b.example"), mx(10, "a.example")];
        assert_eq!(hosts(&records, 3), ["a.example", "b.example"]);
    }

    #[test]
    fn exchangers_at_or_after_our_own_place_are_dropped() {
        let list = |pairs: &[(u16, &str)]| -> Vec<Exchanger> {
            let one = |&(preference, host): &(u16, &str)| Exchanger {
                preference,
                host: host.into(),
                implicit: false,
            };
            pairs.iter().map(one).collect()
        };
        let ours = |host: &str| host == "us.example";
        let all = list(&[(5, "a.example"), (10, "us.example"), (10, "b.example"), (20, "c.example")]);
        assert_eq!(before_ours(all, ours), list(&[(5, "a.example")]));
        assert_eq!(before_ours(list(&[(5, "us.example"), (9, "a.example")]), ours), []);
        assert_eq!(before_ours(list(&[(5, "a.example")]), ours), list(&[(5, "a.example")]));
    }
}
