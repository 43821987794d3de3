//! How much one session of a stranger may take: time, transactions, octets.
//!
//! The protocol's timeouts (RFC 5321 section 4.5.3.2) bound each step and no session: a client that says something every
//! four minutes stays for ever, and so do as many of them as there are sessions. When it has had its share it hears 421 and
//! may come again; a transaction under way is finished first, within the time that one message may take. Clients that are
//! trusted or have authenticated are no strangers.

use std::time::{Duration, Instant};

use pintle_mail::{EnhancedCode, Reply};

/// What a stranger's session may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StrangerLimits {
    /// How long it may last.
    pub time: Duration,
    /// Transactions in it, accepted or not.
    pub transactions: u32,
    /// Octets of messages in it, accepted or not.
    pub octets: u64,
}

impl Default for StrangerLimits {
    fn default() -> Self {
        Self { time: Duration::from_secs(30 * 60), transactions: 1_000, octets: 1 << 30 }
    }
}

/// What a session has taken of messages.
#[derive(Debug, Default)]
pub(crate) struct MessagesTaken {
    transactions: u32,
    octets: u64,
}

impl MessagesTaken {
    /// Counts what came of a message.
    pub(crate) fn octets(&mut self, count: usize) {
        self.octets = self.octets.saturating_add(count as u64);
    }

    /// Counts another transaction; for strangers, gives the 421 when it is one too many.
    pub(crate) fn transaction(&mut self, limits: Option<&StrangerLimits>) -> Option<Reply> {
        self.transactions = self.transactions.saturating_add(1);
        let limits = limits?;
        if self.transactions > limits.transactions {
            return Some(enough("transactions", "Enough transactions for one session; go on in another"));
        }
        if self.octets >= limits.octets {
            return Some(enough("octets", "Enough mail for one session; go on in another"));
        }
        None
    }
}

/// When a stranger's session ends, whatever it does.
#[derive(Debug)]
pub(crate) struct Lifetime {
    /// From then on once no transaction is open.
    retire: Instant,
    /// Then in any case.
    dismiss: Instant,
    retired: bool,
}

/// What is to be done with a session.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SessionEnd {
    /// When no transaction is open.
    Soon(Reply),
    /// Now.
    Now(Reply),
}

impl Lifetime {
    /// Of a session that began now; one message may take so long.
    pub(crate) fn new(limits: &StrangerLimits, message: Duration, now: Instant) -> Self {
        // Nobody waits for what no clock can tell.
        let later = |time| now.checked_add(time).unwrap_or(now + Duration::from_secs(u32::MAX.into()));
        Self {
            retire: later(limits.time),
            dismiss: later(limits.time.saturating_add(message)),
            retired: false,
        }
    }

    /// When to look again.
    pub(crate) fn next(&self) -> Instant {
        if self.retired { self.dismiss } else { self.retire }
    }

    /// What is due.
    pub(crate) fn due(&mut self, now: Instant) -> Option<SessionEnd> {
        let text = "This session has lasted long enough; go on in another";
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
        assert!(taken.transaction(Some(&limits)).unwrap().text.contains("Enough mail"));
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
