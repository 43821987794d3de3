//! Rate limit on failed logins, against password guessing: counts them for each client network, over all of its sessions,
//! and delays the replies to them (tarpit).
//!
//! A session ends after a few failures, but opening another one costs nothing, so the count must outlive the session.
//! Every login is charged when it begins, and the charge is cancelled if it succeeds: so concurrent logins are counted
//! before any of them has failed, and a client that disconnects early is charged too. Charges expire evenly,
//! `max_failures` of them in one `window` (a leaky bucket). The table is bounded: when it is full, the network with the
//! smallest debt is removed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use parking_lot::Mutex;

use crate::networks::networks;

/// How many networks are tracked. One entry takes less than 100 octets.
const MAX_NETWORKS: usize = 20_000;
/// A site of 256 hosts (or 65,536 networks of IPv6) gets this many times the failures of one of its hosts.
const SITE: u32 = 5;
/// The longest delay of the reply to a failed login: clients still wait that long.
const MAX_DELAY: Duration = Duration::from_secs(10);

/// The rate limit on failed logins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginLimits {
    /// Failed logins from one address (one /64 of IPv6) within the window, before further ones are refused without a
    /// check. Its /24 (/48) gets five times as many.
    pub max_failures: u32,
    /// The time in which that many failures expire.
    pub window: Duration,
    /// The reply to a failed login is delayed by this time, multiplied by the failures that are tracked for its
    /// network.
    pub delay: Duration,
    /// Networks whose failures are not counted, in addition to the trusted ones; for example an office behind one
    /// address.
    pub exempt: Vec<IpNet>,
}

impl Default for LoginLimits {
    fn default() -> Self {
        Self {
            max_failures: 10,
            window: Duration::from_secs(15 * 60),
            delay: Duration::from_secs(1),
            exempt: Vec::new(),
        }
    }
}

/// The charges of all networks: for each, when its debt will have expired.
#[derive(Debug, Clone, Default)]
pub(crate) struct Guesses(Arc<Mutex<HashMap<IpNet, Instant>>>);

/// A login in progress, charged as if it failed.
#[derive(Debug)]
pub(crate) struct Guess {
    guesses: Guesses,
    charges: [(IpNet, Duration); 2],
}

impl Guesses {
    /// Charges one login to the networks of this client.
    ///
    /// # Errors
    /// Returns how long the client must wait before another login is checked; nothing was charged then.
    pub(crate) fn begin(
        &self,
        client: IpAddr,
        limits: &LoginLimits,
        now: Instant,
    ) -> Result<Guess, Duration> {
        let [narrow, wide] = networks(client);
        let charge = |times: u32| limits.window / limits.max_failures.saturating_mul(times).max(1);
        let charges = [(narrow, charge(1)), (wide, charge(SITE))];
        let mut owed = self.0.lock();
        let over = |(network, charge): &(IpNet, Duration)| {
            (debt(&owed, *network, now) + *charge).checked_sub(limits.window).filter(|over| !over.is_zero())
        };
        // Rounding must not cost one of the failures that the operator allows.
        let over = charges.iter().filter_map(over).max().filter(|over| *over > Duration::from_millis(1));
        if let Some(wait) = over {
            return Err(wait);
        }
        for (network, charge) in charges {
            if owed.len() >= MAX_NETWORKS && !owed.contains_key(&network) {
                make_room(&mut owed, now);
            }
            let until = owed.entry(network).or_insert(now);
            *until = (*until).max(now) + charge;
        }
        Ok(Guess { guesses: self.clone(), charges })
    }

    /// The number of networks that are tracked.
    #[must_use]
    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Whether no network is tracked.
    #[must_use]
    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Guess {
    /// Cancels the charge: the login succeeded, or could not be checked.
    pub(crate) fn give_back(self, now: Instant) {
        let mut owed = self.guesses.0.lock();
        for (network, charge) in self.charges {
            if let Some(until) = owed.get_mut(&network) {
                *until = until.checked_sub(charge).unwrap_or(now);
                if *until <= now {
                    owed.remove(&network);
                }
            }
        }
    }

    /// Returns how long to delay the reply to this failure.
    #[must_use]
    pub(crate) fn delay(&self, limits: &LoginLimits, now: Instant) -> Duration {
        let (network, charge) = self.charges[0];
        let debt = debt(&self.guesses.0.lock(), network, now);
        let failures = debt.as_secs_f64() / charge.as_secs_f64().max(f64::MIN_POSITIVE);
        limits.delay.mul_f64(failures.ceil().clamp(1.0, 1_000.0)).min(MAX_DELAY)
    }
}

fn debt(owed: &HashMap<IpNet, Instant>, network: IpNet, now: Instant) -> Duration {
    owed.get(&network).map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
}

/// Removes the networks whose debt has expired; if there is none, the one with the smallest debt.
fn make_room(owed: &mut HashMap<IpNet, Instant>, now: Instant) {
    owed.retain(|_, until| *until > now);
    if owed.len() >= MAX_NETWORKS
        && let Some((&least, _)) = owed.iter().min_by_key(|(_, until)| **until)
    {
        owed.remove(&least);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> LoginLimits {
        LoginLimits { max_failures: 3, window: Duration::from_secs(300), ..LoginLimits::default() }
    }

    fn client(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn failures_are_counted_over_sessions_and_wear_off() {
        let (guesses, limits, start) = (Guesses::default(), limits(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let begin = |seconds| guesses.begin(client("192.0.2.1"), &limits, at(seconds));
        for _ in 0..3 {
            begin(0).unwrap();
        }
        let wait = begin(0).unwrap_err();
        assert_eq!(wait, Duration::from_secs(100));
        assert!(begin(99).is_err());
        begin(100).unwrap();
        assert!(begin(101).is_err(), "one has worn off, not all");
        assert!(guesses.begin(client("192.0.2.2"), &limits, at(0)).is_ok(), "a neighbour");
    }

    #[test]
    fn logins_side_by_side_are_counted_before_they_fail() {
        let (guesses, limits, now) = (Guesses::default(), limits(), Instant::now());
        let running: Vec<_> =
            (0..38).filter_map(|_| guesses.begin(client("192.0.2.1"), &limits, now).ok()).collect();
        assert_eq!(running.len(), 3);
    }

    #[test]
    fn who_logs_in_owes_nothing() {
        let (guesses, limits, now) = (Guesses::default(), limits(), Instant::now());
        for _ in 0..100 {
            guesses.begin(client("192.0.2.1"), &limits, now).unwrap().give_back(now);
        }
        assert!(guesses.is_empty());
    }

    #[test]
    fn a_site_has_a_limit_whatever_addresses_it_uses() {
        let (guesses, limits, now) = (Guesses::default(), limits(), Instant::now());
        let ipv6 = |n: u16| IpAddr::from([0x2001, 0xdb8, 1, n, 0, 0, 0, n]);
        let taken = (0..1_000).filter(|n| guesses.begin(ipv6(*n), &limits, now).is_ok()).count();
        assert_eq!(taken, 15);
        let ipv4 = |n: u8| IpAddr::from([192, 0, 2, n]);
        let taken = (0..255).filter(|n| guesses.begin(ipv4(*n), &limits, now).is_ok()).count();
        assert_eq!(taken, 15);
    }

    #[test]
    fn the_table_is_bounded_and_forgets_the_least_guilty() {
        let (guesses, limits, now) = (Guesses::default(), limits(), Instant::now());
        for _ in 0..3 {
            guesses.begin(client("192.0.2.1"), &limits, now).unwrap();
        }
        for n in 0..12_000_u32 {
            let other = IpAddr::from((0x0a00_0000 + (n << 8)).to_be_bytes());
            let _ = guesses.begin(other, &limits, now + Duration::from_millis(u64::from(n)));
        }
        assert!(guesses.len() <= MAX_NETWORKS);
        assert!(guesses.begin(client("192.0.2.1"), &limits, now + Duration::from_secs(12)).is_err());
    }

    #[test]
    fn each_failure_makes_the_next_reply_later() {
        let (guesses, limits, now) = (Guesses::default(), LoginLimits::default(), Instant::now());
        let delay = || guesses.begin(client("192.0.2.1"), &limits, now).unwrap().delay(&limits, now);
        let delays: Vec<_> = (0..10).map(|_| delay().as_secs()).collect();
        assert_eq!(delays, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    }
}
