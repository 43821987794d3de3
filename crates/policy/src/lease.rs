//! Leases: what a judge has counted of the current session, transaction or delivery attempt, until it ends.
//!
//! A lease holds a guard whose `Drop` takes the count back. It lives in the part of the view that it is about and nowhere
//! else, so that every way in which that part can end (a refusal, RSET, a lost connection, a cancelled task) ends the
//! lease too. Leases are never stored with a message.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// A count of one judge under one key.
#[derive(Clone)]
pub struct Lease {
    /// The judge's own key.
    pub key: Arc<str>,
    /// Takes the count back when its last copy is dropped.
    pub guard: Arc<dyn Any + Send + Sync>,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({:?})", self.key)
    }
}

/// Two leases are equal if they are copies of one.
impl PartialEq for Lease {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.guard, &other.guard)
    }
}

/// What a lease is about, and with what it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseScope {
    /// The SMTP session.
    Session,
    /// The mail transaction.
    Transaction,
    /// The delivery attempt.
    Delivery,
}

/// The leases of all judges on one session, transaction or delivery attempt.
#[derive(Debug, Clone, Default)]
pub struct Leases(Vec<(Arc<str>, Lease)>);

impl Leases {
    /// Whether this judge has a lease under this key.
    #[must_use]
    pub fn holds(&self, judge: &str, key: &str) -> bool {
        self.of(judge).any(|lease| &*lease.key == key)
    }

    /// The number of leases of this judge.
    #[must_use]
    pub fn count(&self, judge: &str) -> usize {
        self.of(judge).count()
    }

    pub(crate) fn add(&mut self, judge: &Arc<str>, lease: Lease) {
        self.0.push((Arc::clone(judge), lease));
    }

    fn of(&self, judge: &str) -> impl Iterator<Item = &Lease> {
        self.0.iter().filter(move |(owner, _)| &**owner == judge).map(|(_, lease)| lease)
    }
}
