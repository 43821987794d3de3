//! Results computed once from a mail and shared by all judges.
//!
//! There is one slot for each type of result. The first caller creates it empty, and all callers get the same one. How
//! they wait for each other while one of them fills it is up to that type.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// A set of slots that all clones share.
#[derive(Clone, Default)]
pub struct Computed(Arc<Mutex<Slots>>);

type Slots = HashMap<TypeId, Arc<dyn Any + Send + Sync>>;

impl Computed {
    /// Returns the slot of this type, creating it with its default value if necessary.
    #[must_use]
    pub fn slot<T: Any + Send + Sync + Default>(&self) -> Arc<T> {
        // No code that could panic halfway runs under the lock.
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.entry(TypeId::of::<T>()).or_insert_with(|| Arc::new(T::default()));
        Arc::clone(slot).downcast().unwrap_or_default()
    }
}

impl fmt::Debug for Computed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Computed").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use super::*;

    #[test]
    fn copies_share_a_slot_of_each_type() {
        let one = Computed::default();
        let other = one.clone();
        one.slot::<OnceLock<u32>>().set(7).unwrap();
        assert_eq!(other.slot::<OnceLock<u32>>().get(), Some(&7));
        assert_eq!(other.slot::<OnceLock<u64>>().get(), None);
    }
}
