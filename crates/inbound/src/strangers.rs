//! Limits on one session of an untrusted client: time, transactions, octets.
//!
//! The protocol's timeouts (RFC 5321 section 4.5.3.2) bound each step but not the session: a client that sends
//! something every four minutes stays connected forever, and could do so in every session that is available. When a
//! session has reached its limits, it is closed with 421, and the client may reconnect. An open transaction is finished
//! first, within the time that one message may take. Clients that are trusted or authenticated are not limited.

use std::time::{Duration, Instant};

use pintle_mail::{EnhancedCode, Reply};

/// The limits of one session of an untrusted client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StrangerLimits {
    /// How long the session may last.
    pub time: Duration,
    /// The most transactions in it, accepted or not.
    pub transactions: u32,
    /// The most octets of messages in it, accepted or not.
    pub octets: u64,
}

impl Default for StrangerLimits {
    fn default() -> Self {
        Self { time: Duration::from_secs(30 * 60), transactions: 1_000, octets: 1 << 30 }
    }
}

/// What a session has used so far.
#[derive(Debug, Default)]
pub(crate) struct MessagesTaken {
    transactions: u32,
    octets: u64,
}

impl MessagesTaken {
    /// Adds the octets of a piece of a message.
    pub(crate) fn octets(&mut self, count: usize) {
        self.octets = self.octets.saturating_add(count as u64);
    }

    /// Counts another transaction. If `limits` apply and are exceeded, returns the 421 reply.
    pub(crate) fn transaction(&mut self, limits: Option<&StrangerLimits>) -> Option<Reply> {
        self.transactions = self.transactions.saturating_add(1);
        let limits = limits?;
        if self.transactions > limits.transactions {
            return Some(enough(
                "transactions",
                "Too many transactions in one session; reconnect to send more",
            ));
        }
        if self.octets >= limits.octets {
            return Some(enough("octets", "Too much mail in one session; reconnect to send more"));
        }
        None
    }
}

/// When the session of an untrusted client ends.
#[derive(Debug)]
pub(crate) struct Lifetime {
    /// From this time on, the session ends once no transaction is open.
    retire: Instant,
    /// At this time, the session ends in any case.
    dismiss: Instant,
    retired: bool,
}

/// How to end a session.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SessionEnd {
    /// When no transaction is open, with this reply.
    Soon(Reply),
    /// Immediately, with this reply.
    Now(Reply),
}

impl Lifetime {
    /// Starts with a session that begins at `now`; `message` is the time that one message may take.
    pub(crate) fn new(limits: &StrangerLimits, message: Duration, now: Instant) -> Self {
        // A time that the clock cannot represent is as good as never.
        let later = |time| now.checked_add(time).unwrap_or(now + Duration::from_secs(u32::MAX.into()));
        Self {
            retire: later(limits.time),
            dismiss: later(limits.time.saturating_add(message)),
            retired: false,
        }
    }

    /// Returns when to call [`Self::due`] again.
    pub(crate) fn next(&self) -> Instant {
        if self.retired { self.dismiss } else { self.retire }
    }

    /// Returns what is due at this time.
    pub(crate) fn due(&mut self, now: Instant) -> Option<SessionEnd> {
        let text = "Session time limit reached; reconnect to send more";
        if now >= self.dismiss {
            return Some(SessionEnd::Now(enough("time", text)));
        }
        let due = now >= self.retire && !std::mem::replace(&mut self.retired, now >= self.retire);
        due.then(|| SessionEnd::Soon(enough("time", text)))
    }
}

fn enough(limit: &'static str, text: &'static str) -> Reply {
    metrics::counter!("pintle_sessions_ended_total", "limit" => limit).increment(1);
    Reply::new(421, EnhancedCode(4, 7, 0), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_gets_so_many_transactions_and_octets_and_others_get_all() {
        let limits = StrangerLimits { transactions: 2, octets: 100, ..StrangerLimits::default() };
        let mut taken = MessagesTaken::default();
        assert_eq!(taken.transaction(Some(&limits)), None);
        assert_eq!(taken.transaction(Some(&limits)), None);
        assert_eq!(taken.transaction(Some(&limits)).unwrap().code, 421);
        assert_eq!(taken.transaction(None), None);
        let mut taken = MessagesTaken::default();
        taken.octets(99);
        assert_eq!(taken.transaction(Some(&limits)), None);
        taken.octets(1);
        assert!(taken.transaction(Some(&limits)).unwrap().text.contains("Too much mail"));
    }

    #[test]
    fn a_session_ends_when_it_may_and_at_last_when_it_must() {
        let limits = StrangerLimits { time: Duration::from_secs(60), ..StrangerLimits::default() };
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut lifetime = Lifetime::new(&limits, Duration::from_secs(30), start);
        assert_eq!((lifetime.next(), lifetime.due(at(59))), (at(60), None));
        assert!(matches!(lifetime.due(at(60)), Some(SessionEnd::Soon(reply)) if reply.code == 421));
        assert_eq!((lifetime.next(), lifetime.due(at(61))), (at(90), None));
        assert!(matches!(lifetime.due(at(90)), Some(SessionEnd::Now(reply)) if reply.code == 421));
        let endless = StrangerLimits { time: Duration::MAX, ..limits };
        assert!(Lifetime::new(&endless, Duration::MAX, start).next() > at(1_000_000));
    }
}
