//! Work budget: limits the octets and host function calls per guest call and per mail.
//!
//! The meter limits time, which depends on the machine; the budget limits work, which does not. Every host function
//! charges the octets that it reads, copies, compares and returns, and each call of a host function has a fixed cost.
//! When the budget is spent, every further host function is refused and the guest call ends as a fault. All guest calls
//! for one mail share a second budget, so that many cheap calls cannot evade the limit.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pintle_policy::View;

use crate::bindings::pintle::plugin::types::HostError;

/// Fixed cost of each call of a host function, in octets, in addition to the octets it handles.
const STEP: u64 = 64;
/// Budget of one guest call: this many octets plus a multiple of the message size.
const CALL: u64 = 64 << 20;
const CALL_BY_SIZE: u64 = 16;
/// Budget of all guest calls for one mail: this many octets, plus a multiple of the message size, plus an amount per
/// recipient.
const MAIL: u64 = 1 << 30;
const MAIL_BY_SIZE: u64 = 64;
const MAIL_BY_RECIPIENT: u64 = 1 << 20;

/// Octets charged so far by all guest calls for one mail.
#[derive(Debug, Default)]
struct MailSpending(AtomicU64);

/// The budget of one guest call, and the shared budget of its mail.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    spent: u64,
    limit: u64,
    mail: Option<(Arc<MailSpending>, u64)>,
    over: Option<Overspent>,
}

/// Which budget is exhausted, and its limit in octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overspent {
    /// The budget of the guest call.
    Call(u64),
    /// The budget shared by all guest calls for the mail.
    Mail(u64),
}

impl fmt::Display for Overspent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(limit) => {
                write!(f, "it made the host process more than {limit} octets in one call")
            }
            Self::Mail(limit) => {
                write!(f, "plugins made the host process more than {limit} octets for one mail")
            }
        }
    }
}

impl std::error::Error for Overspent {}

impl Budget {
    /// The budget for a new guest call.
    pub(crate) fn of(view: Option<&View>) -> Self {
        let size = view.and_then(|view| view.message.as_ref()).map_or(0, |message| {
            message.header.as_bytes().len() as u64 + message.body.as_ref().map_or(0, |body| body.size())
        });
        let mail = view.and_then(|view| view.transaction.as_ref()).map(|transaction| {
            let recipients = transaction.envelope.recipients.len() as u64;
            let limit = MAIL.saturating_add(MAIL_BY_SIZE.saturating_mul(size));
            let limit = limit.saturating_add(MAIL_BY_RECIPIENT.saturating_mul(recipients));
            (transaction.computed.slot::<MailSpending>(), limit)
        });
        let limit = CALL.saturating_add(CALL_BY_SIZE.saturating_mul(size));
        Self { spent: 0, limit, mail, over: None }
    }

    /// Charges the fixed cost of a host function call.
    pub(crate) fn step(&mut self) {
        self.spend(STEP);
    }

    /// Charges host work on this many octets; call it before the work is done.
    pub(crate) fn charge(&mut self, octets: u64) -> Result<(), HostError> {
        self.spend(octets);
        self.check().map_err(|over| HostError::Limit(over.to_string()))
    }

    /// Charges a value of this size that is passed to the guest; `None` when the budget is exhausted.
    pub(crate) fn charged<T>(&mut self, value: Option<T>, octets: impl Fn(&T) -> usize) -> Option<T> {
        let octets = value.as_ref().map_or(0, octets);
        value.filter(|_| self.charge(octets as u64).is_ok())
    }

    /// Charges a text and its name-value pairs; returns whether the budget sufficed.
    pub(crate) fn pays_for(&mut self, text: &str, pairs: &[(String, String)]) -> bool {
        let octets: usize = pairs.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.charge((text.len() + octets) as u64).is_ok()
    }

    /// Returns an error if one of the budgets is exhausted.
    pub(crate) fn check(&self) -> Result<(), Overspent> {
        self.over.map_or(Ok(()), Err)
    }

    fn spend(&mut self, octets: u64) {
        self.spent = self.spent.saturating_add(octets);
        if self.spent > self.limit {
            self.over.get_or_insert(Overspent::Call(self.limit));
        }
        let Some((spent, limit)) = &self.mail else { return };
        let before = spent.0.fetch_add(octets, Ordering::Relaxed);
        if before.saturating_add(octets) > *limit {
            self.over.get_or_insert(Overspent::Mail(*limit));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_once_spent_stays_spent() {
        let mut budget = Budget::of(None);
        assert!(budget.charge(CALL).is_ok());
        budget.step();
        assert_eq!(budget.check(), Err(Overspent::Call(CALL)));
        assert!(matches!(budget.charge(0), Err(HostError::Limit(text)) if text.contains(&CALL.to_string())));
        assert!(Budget::of(None).charge(1).is_ok(), "another call has its own");
    }

    #[test]
    fn calls_for_one_mail_share_a_budget() {
        let shared = Arc::new(MailSpending::default());
        let call =
            || Budget { limit: CALL, mail: Some((Arc::clone(&shared), 2 * CALL)), ..Budget::default() };
        assert!(call().charge(CALL).is_ok());
        assert!(call().charge(CALL).is_ok());
        let mut third = call();
        assert!(third.charge(1).is_err());
        assert_eq!(third.check(), Err(Overspent::Mail(2 * CALL)));
    }
}
