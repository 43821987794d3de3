//! Rate limit for log lines, so that a plugin that logs too much or fails at every call cannot fill the log.

use std::time::Instant;

use parking_lot::Mutex;

use crate::kv::bucket::TokenBucket;

/// Lines per second, and the burst size in lines.
const RATE: f64 = 100.0;
const BURST: u32 = 500;
/// The remaining quota, and the number of suppressed lines.
pub(crate) struct LogQuota(Mutex<QuotaState>);

struct QuotaState {
    bucket: TokenBucket,
    suppressed: u64,
}

impl LogQuota {
    pub(crate) fn new(now: Instant) -> Self {
        Self(Mutex::new(QuotaState { bucket: TokenBucket::full(BURST, now), suppressed: 0 }))
    }

    /// Takes one line from the quota; returns how many lines were suppressed since the last one, or `None` if this one
    /// must be suppressed too.
    pub(crate) fn take(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock();
        if state.bucket.take(1, BURST, RATE, now).is_ok() {
            return Some(std::mem::take(&mut state.suppressed));
        }
        state.suppressed += 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_flood_is_cut_and_the_cut_is_counted() {
        let now = Instant::now();
        let quota = LogQuota::new(now);
        let written = (0..BURST + 50).filter(|_| quota.take(now).is_some()).count();
        assert_eq!(written, BURST as usize);
        assert_eq!(quota.take(now + Duration::from_secs(1)), Some(50));
    }
}
