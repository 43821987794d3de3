//! Connection limits: how many sessions there may be at once, in total, from one host, and from one site.
//!
//! A permit is taken before the greeting and released when it is dropped, so that every way out of a session releases
//! it. Untrusted clients are counted by host and by site, see [`crate::networks`], and cannot take the last sessions of
//! a listener that has trusted clients.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use parking_lot::Mutex;

use crate::networks::networks;

/// The connection limits of one listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits {
    /// The most sessions at once.
    pub total: usize,
    /// Whether `total` is a default, which may be lowered if the limit on open files is too low for it.
    pub total_fits: bool,
    /// How many of these are reserved for trusted clients.
    pub kept_for_trusted: usize,
    /// The most sessions at once from one address (one /64 of IPv6).
    pub per_address: usize,
    /// The most sessions at once from one /24 (one /48 of IPv6).
    pub per_network: usize,
    /// The most sessions at once from one address of a trusted network. Several Exchange servers behind one address
    /// open 20 each.
    pub per_trusted_address: usize,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            total: 10_000,
            total_fits: true,
            kept_for_trusted: 0,
            per_address: 40,
            per_network: 160,
            per_trusted_address: 400,
        }
    }
}

/// The limit that a client has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionLimit {
    /// All sessions of the listener that the client could get are in use.
    Total,
    /// All sessions of its address are in use.
    Address,
    /// All sessions of its network are in use.
    Network,
}

impl SessionLimit {
    /// Returns its name in metrics.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Address => "address",
            Self::Network => "network",
        }
    }
}

/// Counts sessions and issues permits.
#[derive(Debug, Clone, Default)]
pub(crate) struct Permits(Arc<Mutex<PermitCounts>>);

#[derive(Debug, Default)]
struct PermitCounts {
    total: usize,
    by_network: HashMap<Key, usize>,
}

/// Whether the client is trusted, and its network. Trusted and untrusted clients are counted separately.
type Key = (bool, IpNet);

/// Permission to hold one session; dropping it releases the session.
#[derive(Debug)]
pub(crate) struct Permit {
    permits: Permits,
    keys: Vec<Key>,
}

impl Permits {
    /// Takes a permit for a client at this address.
    ///
    /// # Errors
    /// Returns which limit is reached.
    pub(crate) fn take(
        &self,
        client: IpAddr,
        trusted: bool,
        limits: SessionLimits,
    ) -> Result<Permit, SessionLimit> {
        let [host, site] = networks(client);
        let bounds = if trusted {
            vec![(host, limits.per_trusted_address, SessionLimit::Address)]
        } else {
            vec![
                (host, limits.per_address, SessionLimit::Address),
                (site, limits.per_network, SessionLimit::Network),
            ]
        };
        let mut counts = self.0.lock();
        let kept = if trusted { 0 } else { limits.kept_for_trusted };
        if counts.total.saturating_add(kept) >= limits.total {
            return Err(SessionLimit::Total);
        }
        let in_use = |network| counts.by_network.get(&(trusted, network)).copied().unwrap_or(0);
        if let Some((.., crowded)) = bounds.iter().find(|(network, most, _)| in_use(*network) >= *most) {
            return Err(*crowded);
        }
        let keys: Vec<Key> = bounds.into_iter().map(|(network, ..)| (trusted, network)).collect();
        for key in &keys {
            *counts.by_network.entry(*key).or_insert(0) += 1;
        }
        counts.total += 1;
        Ok(Permit { permits: self.clone(), keys })
    }

    /// The number of sessions that hold a permit now.
    #[must_use]
    #[cfg(test)]
    fn in_use(&self) -> usize {
        self.0.lock().total
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.permits.0.lock();
        counts.total -= 1;
        for key in &self.keys {
            if let Some(count) = counts.by_network.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    counts.by_network.remove(key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: SessionLimits = SessionLimits {
        total: 5,
        total_fits: false,
        kept_for_trusted: 2,
        per_address: 1,
        per_network: 2,
        per_trusted_address: 4,
    };

    fn take(permits: &Permits, client: &str, trusted: bool) -> Result<Permit, SessionLimit> {
        permits.take(client.parse().unwrap(), trusted, LIMITS)
    }

    #[test]
    fn permits_come_back_when_dropped() {
        let permits = Permits::default();
        let first = take(&permits, "2001:db8::1", false).unwrap();
        assert_eq!(take(&permits, "2001:db8::2", false).unwrap_err(), SessionLimit::Address);
        drop(first);
        assert_eq!(permits.in_use(), 0);
        assert!(permits.0.lock().by_network.is_empty());
        assert!(take(&permits, "2001:db8::2", false).is_ok());
    }

    #[test]
    fn a_site_is_no_crowd_of_clients() {
        for neighbours in [
            ["2001:db8:1:1::1", "2001:db8:1:2::1", "2001:db8:1:3::1"],
            ["192.0.2.1", "192.0.2.2", "192.0.2.3"],
        ] {
            let permits = Permits::default();
            let _held = neighbours.map(|client| take(&permits, client, false).ok());
            assert_eq!(permits.in_use(), 2, "{neighbours:?}");
            assert_eq!(take(&permits, neighbours[2], false).unwrap_err(), SessionLimit::Network);
            assert!(take(&permits, "198.51.100.1", false).is_ok(), "another site");
        }
    }

    #[test]
    fn strangers_never_get_what_is_kept_for_trusted_clients() {
        let permits = Permits::default();
        let strangers = ["192.0.2.1", "198.51.100.1", "203.0.113.1", "203.0.113.2"];
        let held = strangers.map(|client| take(&permits, client, false));
        assert_eq!(held.iter().filter(|permit| permit.is_ok()).count(), 3);
        assert!(matches!(held[3], Err(SessionLimit::Total)));
        // A trusted client is counted separately from an untrusted one at the same address.
        let _trusted =
            [take(&permits, "192.0.2.1", true).unwrap(), take(&permits, "192.0.2.1", true).unwrap()];
        assert_eq!(take(&permits, "192.0.2.1", true).unwrap_err(), SessionLimit::Total);
    }
}
