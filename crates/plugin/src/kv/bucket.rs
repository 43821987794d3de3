//! Token bucket: used by plugins for rate limits, and by the host for rate limits of plugins.

use std::time::{Duration, Instant};

/// The state of a bucket. Capacity and rate are parameters of each call, since they are configuration and may change.
pub(crate) struct TokenBucket {
    tokens: f64,
    seen: Instant,
    /// When the bucket will be full again.
    full: Instant,
}

/// Snapshot of a bucket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BucketSnapshot {
    pub(crate) tokens: f64,
    pub(crate) seen: Instant,
    pub(crate) full: Instant,
}

/// Error: the bucket holds too few tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TokensRefused {
    /// Number of tokens available.
    pub(crate) left: f64,
    /// Time until enough tokens are available; `None` if that never happens.
    pub(crate) wait: Option<Duration>,
}

/// Waits longer than this, in seconds, are reported as never.
const NEVER: f64 = 365.0 * 86_400.0;

impl TokenBucket {
    pub(crate) fn full(capacity: u32, now: Instant) -> Self {
        Self { tokens: capacity.into(), seen: now, full: now }
    }

    pub(crate) fn of(still: BucketSnapshot) -> Self {
        let BucketSnapshot { tokens, seen, full } = still;
        Self { tokens, seen, full }
    }

    pub(crate) fn still(&self) -> BucketSnapshot {
        BucketSnapshot { tokens: self.tokens, seen: self.seen, full: self.full }
    }

    /// Takes all requested tokens or none; returns the number left.
    pub(crate) fn take(
        &mut self,
        tokens: u32,
        capacity: u32,
        per_second: f64,
        now: Instant,
    ) -> Result<f64, TokensRefused> {
        let (wanted, capacity) = (f64::from(tokens), f64::from(capacity));
        let rate = if per_second.is_finite() { per_second.max(0.0) } else { 0.0 };
        let elapsed = now.saturating_duration_since(self.seen).as_secs_f64();
        self.tokens = (self.tokens + elapsed * rate).min(capacity);
        self.seen = self.seen.max(now);
        let taken = self.tokens >= wanted;
        if taken {
            self.tokens -= wanted;
        }
        self.full = now + wait(capacity - self.tokens, rate).unwrap_or(Duration::from_secs(86_400));
        if taken {
            return Ok(self.tokens);
        }
        let possible = wanted <= capacity;
        Err(TokensRefused {
            left: self.tokens,
            wait: possible.then(|| wait(wanted - self.tokens, rate)).flatten(),
        })
    }

    /// Whether the bucket is full. A full bucket is equivalent to none and can be dropped.
    pub(crate) fn is_idle(&self, now: Instant) -> bool {
        now >= self.full
    }
}

fn wait(tokens: f64, rate: f64) -> Option<Duration> {
    let seconds = tokens / rate;
    (0.0..NEVER).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}
