//! Concurrency limits and retry intervals, with their defaults.

use std::collections::HashMap;
use std::time::Duration;

use pintle_mail::NextHop;

/// Concurrency limits of attempts, and the retry policy.
#[derive(Debug, Clone)]
pub struct Config {
    /// The concurrency limit per next hop. The default is 15, below the 20 connections that Exchange accepts from one
    /// source.
    pub per_hop: usize,
    /// Other limits for some next hops.
    pub overrides: HashMap<NextHop, usize>,
    /// The limit with which a next hop begins that has not worked yet. Each attempt that works allows one more, up to
    /// the limit, and a failure of the next hop starts again from here. So a next hop that accepts sessions and never
    /// answers occupies few of the places in total. The default is 5.
    pub initial: usize,
    /// The concurrency limit in total. The default is 500.
    pub total: usize,
    /// When to retry, to warn and to give up.
    pub retry: RetryPolicy,
}

impl Default for Config {
    fn default() -> Self {
        Self { per_hop: 15, overrides: HashMap::new(), initial: 5, total: 500, retry: RetryPolicy::default() }
    }
}

impl Config {
    /// Discarding needs no next hop that works, so it has no initial limit.
    pub(crate) fn initial_of(&self, next_hop: &NextHop) -> usize {
        if *next_hop == NextHop::Discard { usize::MAX } else { self.initial.max(1) }
    }

    pub(crate) fn limit_of(&self, next_hop: &NextHop) -> usize {
        self.overrides.get(next_hop).copied().unwrap_or(self.per_hop)
    }
}

/// When to retry, to warn and to give up.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// The back-off of a job: the wait after its first, second, … deferral. The last one repeats. An empty list means
    /// the default.
    ///
    /// RFC 5321 section 4.5.4.1 wants at least 30 minutes between attempts as a rule, and allows better strategies:
    /// three early retries catch greylisting and short outages, after them the rule holds.
    pub intervals: Vec<Duration>,
    /// The back-off of a next hop: the wait after it has failed as a whole once, twice, … The last one repeats. An
    /// empty list means the default.
    pub hop_intervals: Vec<Duration>,
    /// The jitter: by how many percent, at most, a wait is lengthened at random, so that jobs that failed together do
    /// not return together. It never shortens a wait: the intervals are promises to the next hop.
    pub jitter: u8,
    /// The age at which a job expires. RFC 5321 section 4.5.4.1 says 4 to 5 days. The default is 5.
    pub max_age: Duration,
    /// The age at which the sender is warned once. None means never. The default is 4 hours.
    pub warn_after: Option<Duration>,
}

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const INTERVALS: [u64; 7] = [MINUTE, 5 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 3 * HOUR];
const HOP_INTERVALS: [u64; 5] = [MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 15 * MINUTE];

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            intervals: INTERVALS.map(Duration::from_secs).to_vec(),
            hop_intervals: HOP_INTERVALS.map(Duration::from_secs).to_vec(),
            jitter: 20,
            max_age: Duration::from_secs(5 * 24 * HOUR),
            warn_after: Some(Duration::from_secs(4 * HOUR)),
        }
    }
}

impl RetryPolicy {
    /// The wait after deferral number `count` (from 1), lengthened by `dice`.
    #[must_use]
    pub fn wait(&self, count: u32, dice: u64) -> Duration {
        self.lengthen(step(&self.intervals, &INTERVALS, count), dice)
    }

    /// The longest wait that [`wait`](Self::wait) gives.
    #[must_use]
    pub fn longest_wait(&self) -> Duration {
        let default = || Duration::from_secs(INTERVALS[INTERVALS.len() - 1]);
        self.lengthen(self.intervals.iter().max().copied().unwrap_or_else(default), u64::MAX)
    }

    /// The back-off after failure number `count` (from 1) of a next hop, lengthened by `dice`.
    pub(crate) fn hop_wait(&self, count: u32, dice: u64) -> Duration {
        self.lengthen(step(&self.hop_intervals, &HOP_INTERVALS, count), dice)
    }

    fn lengthen(&self, wait: Duration, dice: u64) -> Duration {
        let share = u128::from(self.jitter) * u128::from(dice >> 32);
        let extra = (wait.as_millis() * share / 100) >> 32;
        wait.saturating_add(Duration::from_millis(u64::try_from(extra).unwrap_or(u64::MAX)))
    }
}

fn step(configured: &[Duration], default: &[u64], count: u32) -> Duration {
    let at = (count.max(1) - 1) as usize;
    match configured {
        [] => Duration::from_secs(default[at.min(default.len() - 1)]),
        steps => steps[at.min(steps.len() - 1)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_the_last_repeats() {
        let policy = RetryPolicy::default();
        let minutes: Vec<u64> = (1..=9).map(|n| policy.wait(n, 0).as_secs() / MINUTE).collect();
        assert_eq!(minutes, [1, 5, 15, 30, 60, 120, 180, 180, 180]);
    }

    #[test]
    fn chance_lengthens_by_at_most_the_jitter() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.wait(4, 0), Duration::from_secs(30 * MINUTE));
        let longest = policy.wait(4, u64::MAX);
        assert!(longest > Duration::from_secs(35 * MINUTE) && longest <= Duration::from_secs(36 * MINUTE));
    }

    #[test]
    fn an_empty_list_means_the_default() {
        let policy = RetryPolicy { intervals: Vec::new(), ..RetryPolicy::default() };
        assert_eq!(policy.wait(2, 0), Duration::from_secs(5 * MINUTE));
    }
}
