//! Prediction of lookups to prefetch for a call, from the lookups of earlier calls.
//!
//! Remote senders control the latency of their own name servers. Lookups that a plugin is expected to request are
//! therefore prefetched before its call takes a turn. The first call of a kind waits within its turn; its lookups are
//! then remembered, by hook and separately for known clients and strangers, since most plugins examine only strangers.
//! A lookup that a number of consecutive calls did not request is no longer prefetched.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pintle_dns::ReverseNames;
use pintle_policy::{Hook, Session};

/// Number of consecutive calls without a lookup after which it is no longer prefetched.
const LASTS: u32 = 64;
const BITS: u32 = 8;
const MASK: u32 = (1 << BITS) - 1;

/// A lookup that a plugin may request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// The forward-confirmed reverse DNS names of the client's address.
    Names,
    /// The SPF result.
    Spf,
    /// The DKIM and ARC results.
    Signatures,
    /// The DMARC result.
    Dmarc,
}

impl Lookup {
    const ALL: [Self; 4] = [Self::Names, Self::Spf, Self::Signatures, Self::Dmarc];

    fn shift(self) -> u32 {
        self as u32 * BITS
    }
}

/// A set of lookups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lookups(u8);

impl Lookups {
    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn has(self, need: Lookup) -> bool {
        self.0 & 1 << need as u8 != 0
    }

    pub(crate) fn add(&mut self, need: Lookup) {
        self.0 |= 1 << need as u8;
    }
}

/// A kind of calls: its hook, and whether the client is known or a stranger.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallKind {
    pub(crate) hook: Hook,
    /// The client is trusted or authenticated.
    known: bool,
}

impl CallKind {
    pub(crate) fn of(hook: Hook, session: &Session) -> Self {
        Self { hook, known: !session.is_stranger() }
    }
}

/// The remembered lookups of one plugin: for each kind of calls and each lookup, the number of further calls without it
/// until it is forgotten.
#[derive(Default)]
pub(crate) struct Habits([[AtomicU32; 2]; Hook::ALL.len()]);

impl Habits {
    /// The lookups that a call of this kind is expected to request.
    pub(crate) fn of(&self, kind: CallKind) -> Lookups {
        let counts = self.counts(kind).load(Ordering::Relaxed);
        let mut needs = Lookups::default();
        if counts != 0 {
            let wanted = Lookup::ALL.into_iter().filter(|need| counts >> need.shift() & MASK != 0);
            wanted.for_each(|need| needs.add(need));
        }
        needs
    }

    /// Records that a call of this kind requested the lookup.
    pub(crate) fn asked(&self, kind: CallKind, need: Lookup) {
        let full = |counts: u32| counts & !(MASK << need.shift()) | LASTS << need.shift();
        self.change(kind, full);
    }

    /// Records that a call of this kind has ended and which lookups it requested.
    pub(crate) fn ended(&self, kind: CallKind, asked: Lookups) {
        self.change(kind, |counts| {
            let unasked = Lookup::ALL.into_iter().filter(|need| !asked.has(*need));
            let counted = unasked.filter(|need| counts >> need.shift() & MASK != 0);
            counted.fold(counts, |counts, need| counts - (1 << need.shift()))
        });
    }

    /// Most updates change nothing; those skip the write, to avoid invalidating the cache lines of other cores.
    fn change(&self, kind: CallKind, to: impl Fn(u32) -> u32) {
        let changed = |counts| Some(to(counts)).filter(|new| *new != counts);
        let _ = self.counts(kind).fetch_update(Ordering::Relaxed, Ordering::Relaxed, changed);
    }

    fn counts(&self, kind: CallKind) -> &AtomicU32 {
        &self.0[kind.hook as usize][usize::from(kind.known)]
    }
}

/// The lookups prefetched for a call, and the lookups that the call has requested so far.
#[derive(Default)]
pub(crate) struct Prefetched {
    /// The kind of the call; `None` for a call without a session.
    pub(crate) kind: Option<CallKind>,
    /// The client's names, if prefetched. Results of sender authentication are stored with the transaction.
    pub(crate) names: Option<Result<ReverseNames, pintle_dns::DnsError>>,
    /// Time spent on prefetching.
    pub(crate) spent: Duration,
    /// The lookups that the call has requested.
    pub(crate) asked: Lookups,
}

impl Prefetched {
    /// Records that this call requests a lookup, so that it is prefetched for the next call of its kind.
    pub(crate) fn asks(&mut self, habits: &Habits, need: Lookup) {
        if let Some(kind) = self.kind {
            self.asked.add(need);
            habits.asked(kind, need);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_is_expected_until_many_calls_do_without() {
        let habits = Habits::default();
        let strangers = CallKind { hook: Hook::Mail, known: false };
        let others =
            [CallKind { hook: Hook::Mail, known: true }, CallKind { hook: Hook::Message, known: false }];
        assert!(habits.of(strangers).is_empty());
        habits.asked(strangers, Lookup::Spf);
        habits.asked(strangers, Lookup::Names);
        let mut names = Lookups::default();
        names.add(Lookup::Names);
        for _ in 1..LASTS {
            habits.ended(strangers, names);
            assert!(habits.of(strangers).has(Lookup::Spf));
        }
        habits.ended(strangers, names);
        assert_eq!(habits.of(strangers), names, "names were asked for each time");
        for other in others {
            assert!(habits.of(other).is_empty());
        }
    }
}
