//! Which lookups to prefetch for a call, learnt from what the plugin has asked for before.
//!
//! Strangers decide how long their own name servers take to answer. Lookups that a plugin is going to ask for are therefore
//! prefetched before its call takes a turn. The first call of its kind still waits inside;
//! from then on it is known, by hook and for clients that we know apart from strangers, since most plugins ask about
//! strangers alone. What some calls in a row have not asked for is not prefetched for the next.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pintle_dns::ReverseNames;
use pintle_policy::{Hook, Session};

/// After this many calls in a row without a lookup, it is no longer prefetched.
const LASTS: u32 = 64;
const BITS: u32 = 8;
const MASK: u32 = (1 << BITS) - 1;

/// A lookup that a plugin may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// The confirmed names of the client's address.
    Names,
    /// What SPF says.
    Spf,
    /// What DKIM and ARC say.
    Signatures,
    /// What DMARC says.
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

/// A kind of calls: of one hook, for known clients or for strangers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallKind {
    pub(crate) hook: Hook,
    /// The client is trusted, or has authenticated.
    known: bool,
}

impl CallKind {
    pub(crate) fn of(hook: Hook, session: &Session) -> Self {
        Self { hook, known: !session.is_stranger() }
    }
}

/// The habits of one plugin: for each kind of calls and each lookup, after how many more calls without it it is forgotten.
#[derive(Default)]
pub(crate) struct Habits([[AtomicU32; 2]; Hook::ALL.len()]);

impl Habits {
    /// What a call of this kind will ask for.
    pub(crate) fn of(&self, kind: CallKind) -> Lookups {
        let counts = self.counts(kind).load(Ordering::Relaxed);
        let mut needs = Lookups::default();
        if counts != 0 {
            let wanted = Lookup::ALL.into_iter().filter(|need| counts >> need.shift() & MASK != 0);
            wanted.for_each(|need| needs.add(need));
        }
        needs
    }

    /// A call of this kind has asked for it.
    pub(crate) fn asked(&self, kind: CallKind, need: Lookup) {
        let full = |counts: u32| counts & !(MASK << need.shift()) | LASTS << need.shift();
        self.change(kind, full);
    }

    /// A call of this kind has asked for no more than this.
    pub(crate) fn ended(&self, kind: CallKind, asked: Lookups) {
        self.change(kind, |counts| {
            let unasked = Lookup::ALL.into_iter().filter(|need| !asked.has(*need));
            let counted = unasked.filter(|need| counts >> need.shift() & MASK != 0);
            counted.fold(counts, |counts, need| counts - (1 << need.shift()))
        });
    }

    /// Most changes change nothing, and then nothing is written that other cores would have to fetch.
    fn change(&self, kind: CallKind, to: impl Fn(u32) -> u32) {
        let changed = |counts| Some(to(counts)).filter(|new| *new != counts);
        let _ = self.counts(kind).fetch_update(Ordering::Relaxed, Ordering::Relaxed, changed);
    }

    fn counts(&self, kind: CallKind) -> &AtomicU32 {
        &self.0[kind.hook as usize][usize::from(kind.known)]
    }
}

/// What was prefetched for a call, and what the call has asked for since.
#[derive(Default)]
pub(crate) struct Prefetched {
    /// The kind of the call; none of one without a session.
    pub(crate) kind: Option<CallKind>,
    /// The client's names, where they were looked up. Results of checks lie with the transaction.
    pub(crate) names: Option<Result<ReverseNames, pintle_dns::DnsError>>,
    /// How long that took.
    pub(crate) spent: Duration,
    /// What the call has asked for.
    pub(crate) asked: Lookups,
}

impl Prefetched {
    /// Records that this call asks for a lookup, so that it is prefetched for the next of its kind.
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
