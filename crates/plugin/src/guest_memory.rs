//! The memory limit of one instance, over all of its linear memories and tables.

use wasmtime::ResourceLimiter;

use crate::layout;

/// Size of a table element in octets: one pointer.
const ELEMENT: usize = 8;

/// Memory use and limit of one instance, over all of its linear memories and tables.
pub(crate) struct GuestMemory {
    limit: usize,
    used: usize,
    /// Set when the guest was refused more memory during this call.
    pub(crate) refused: bool,
}

impl GuestMemory {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, used: 0, refused: false }
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Reserves this many more octets if the limit permits; returns whether it did.
    fn take(&mut self, octets: usize) -> bool {
        let after = self.used.saturating_add(octets);
        self.refused |= after > self.limit;
        if after <= self.limit {
            self.used = after;
        }
        after <= self.limit
    }
}

impl ResourceLimiter for GuestMemory {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.take(desired.saturating_sub(current)))
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let fits = desired <= layout::TABLE_ELEMENTS && maximum.is_none_or(|maximum| desired <= maximum);
        Ok(fits && self.take(desired.saturating_sub(current).saturating_mul(ELEMENT)))
    }

    fn instances(&self) -> usize {
        layout::CORE_INSTANCES as usize
    }

    fn tables(&self) -> usize {
        layout::TABLES as usize
    }

    fn memories(&self) -> usize {
        layout::MEMORIES as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_and_memories_share_one_limit() {
        let mut memory = GuestMemory::new(4 << 20);
        assert!(memory.memory_growing(0, 1 << 20, None).unwrap());
        let tables = (0..64).filter(|_| memory.table_growing(0, 100_000, None).unwrap()).count();
        assert_eq!((tables, memory.refused), (3, true), "of 800,000 octets each");
        assert!(memory.table_growing(0, 10, None).unwrap(), "what was refused takes nothing");
        assert!(!memory.memory_growing(1 << 20, 2 << 20, None).unwrap());
        assert!(
            !memory.table_growing(0, 100_001, None).unwrap() && !memory.table_growing(0, 9, Some(8)).unwrap()
        );
    }
}
