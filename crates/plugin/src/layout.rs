//! The pool of instances: how much address space guests' memories reserve before they are used, and in which form.
//!
//! Reserved address space costs no memory, but there is not always as much of it: `ulimit -v` bounds it, and so do some
//! containers. So there are three forms, and the first that fits is used.

use std::fmt;

use wasmtime::{Config, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::PluginConfig;

/// What any one component may consist of; Python's, the largest known, has 38 core instances and 3 memories.
pub(crate) const CORE_INSTANCES: u32 = 96;
pub(crate) const MEMORIES: u32 = 4;
pub(crate) const TABLES: u32 = 64;
pub(crate) const TABLE_ELEMENTS: usize = 100_000;
/// Things that an instance may hold at once by a handle, its own and the host's: they are kept in the host's memory, which
/// its limit does not count. Language kits hold a few dozen.
pub(crate) const HANDLES: usize = 4_096;
/// A page of linear memory, in octets.
const WASM_PAGE: usize = 64 << 10;
/// Places for the instances of checks.
const SPARE_PLACES: u32 = 64;
/// How many plugins can be added by reloads, where address space allows.
const LATER_PLUGINS: u32 = 2;
/// A memory that reserves all that its addresses can name spares the guest's code every bounds check.
const WHOLE: u64 = 4 << 30;
/// The guard region behind such a memory, for offsets beyond its end; the engine's default.
const WHOLE_GUARD: u64 = 32 << 20;
/// The guard region behind a memory whose code checks bounds.
const GUARD: u64 = WASM_PAGE as u64;
/// What a memory that has no place kept reserves beyond what it uses, to grow into.
const GROWTH: u64 = 1 << 20;
/// The stack that each instance runs on; the engine's own choice.
const STACK: u64 = 2 << 20;
/// The most that is ever reserved: half of the address space that a process has on most machines.
const MOST: u64 = 64 << 40;

/// How the memories of instances are reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PoolForm {
    /// A place for each instance, each memory with all that its addresses can name.
    Whole,
    /// A place for each instance, memories as large as plugins may have them; the code checks bounds.
    Exact,
    /// No places: each instance takes what it needs when it is made. The code checks bounds.
    None,
}

/// What the pool of instances is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PoolLayout {
    pub(crate) form: PoolForm,
    /// How many instances there can be at once.
    pub(crate) places: u32,
    /// The largest memory, in octets.
    pub(crate) memory: usize,
}

impl PoolLayout {
    /// The forms that serve these plugins with so much address space, the best one first. While a plugin is replaced both
    /// versions have instances, so there are twice as many places as calls at once. Each form has room for plugins that are
    /// added later, with this many calls at once or as many as the busiest has now, before it does without.
    pub(crate) fn within(plugins: &[PluginConfig], usual: usize, space: u64) -> Vec<Self> {
        let busiest = plugins.iter().map(|plugin| plugin.limits.max_instances).fold(usual, usize::max);
        let later = places_of(busiest).saturating_mul(LATER_PLUGINS);
        let least = places(plugins).saturating_add(SPARE_PLACES);
        let memory = plugins.iter().map(|plugin| plugin.limits.memory).max().unwrap_or(0);
        // Memories grow by pages, and places are made of them.
        let memory = memory.max(crate::PluginLimits::default().memory).next_multiple_of(WASM_PAGE);
        let with_room = |form| Self { form, places: least.saturating_add(later), memory };
        let without = |form| Self { form, places: least, memory };
        let forms =
            [PoolForm::Whole, PoolForm::Exact].into_iter().flat_map(|form| [with_room(form), without(form)]);
        let forms = forms.chain([without(PoolForm::None)]);
        forms.filter(|layout| layout.reserves() <= space.min(MOST)).collect()
    }

    /// How much address space it takes from the start, in octets.
    pub(crate) fn reserves(&self) -> u64 {
        let memory = match self.form {
            PoolForm::Whole => WHOLE + WHOLE_GUARD,
            PoolForm::Exact => self.memory as u64 + GUARD,
            PoolForm::None => return 0,
        };
        let tables = u64::from(TABLES) * (TABLE_ELEMENTS * size_of::<usize>()) as u64;
        u64::from(self.places).saturating_mul(u64::from(MEMORIES) * memory + tables + STACK)
    }

    /// Whether these plugins can be served, too; the places that they need, and those that there are, where not.
    pub(crate) fn has_places_for(&self, plugins: &[PluginConfig]) -> Result<(), (u32, u32)> {
        let needs = places(plugins);
        if self.form == PoolForm::None || needs <= self.places { Ok(()) } else { Err((needs, self.places)) }
    }

    /// Whether an instance with this much memory has room.
    pub(crate) fn has_room_for(&self, memory: usize) -> bool {
        self.form == PoolForm::None || memory <= self.memory
    }

    /// Tells the engine.
    pub(crate) fn apply(&self, config: &mut Config) {
        match self.form {
            PoolForm::Whole => {}
            PoolForm::Exact => {
                config.memory_reservation(self.memory as u64).memory_guard_size(GUARD);
                config.guard_before_linear_memory(false);
            }
            PoolForm::None => {
                config.memory_reservation(0).memory_reservation_for_growth(GROWTH);
                config.memory_guard_size(GUARD).guard_before_linear_memory(false);
            }
        }
        config.allocation_strategy(match self.form {
            PoolForm::None => InstanceAllocationStrategy::OnDemand,
            PoolForm::Whole | PoolForm::Exact => InstanceAllocationStrategy::Pooling(self.pool()),
        });
    }

    fn pool(&self) -> PoolingAllocationConfig {
        let places = self.places;
        let mut pool = PoolingAllocationConfig::new();
        pool.total_component_instances(places)
            .max_component_instance_size(4 << 20)
            .max_core_instances_per_component(CORE_INSTANCES)
            .total_core_instances(places.saturating_mul(CORE_INSTANCES))
            .max_core_instance_size(4 << 20)
            .max_memories_per_component(MEMORIES)
            .total_memories(places.saturating_mul(MEMORIES))
            .max_memory_size(self.memory)
            .max_tables_per_component(TABLES)
            .total_tables(places.saturating_mul(TABLES))
            .table_elements(TABLE_ELEMENTS)
            .total_stacks(places);
        pool
    }
}

impl fmt::Display for PoolLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reserved = octets(self.reserves());
        match self.form {
            PoolForm::Whole => {
                write!(f, "{reserved} of address space for {} instances, no bounds checks", self.places)
            }
            PoolForm::Exact => {
                write!(f, "{reserved} of address space for {} instances, with bounds checks", self.places)
            }
            PoolForm::None => {
                f.write_str("no address space reserved: each instance takes its own, with bounds checks")
            }
        }
    }
}

/// A size as people write it, rounded up.
pub(crate) fn octets(size: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB")];
    let unit = units.into_iter().find(|(bits, _)| size >= 10 << bits).unwrap_or((20, "MiB"));
    format!("{} {}", size.div_ceil(1 << unit.0), unit.1)
}

fn places(plugins: &[PluginConfig]) -> u32 {
    let each = plugins.iter().map(|plugin| places_of(plugin.limits.max_instances));
    each.fold(0, u32::saturating_add)
}

fn places_of(instances: usize) -> u32 {
    u32::try_from(instances).unwrap_or(u32::MAX).saturating_mul(2).saturating_add(2)
}

/// The address space that guests may have: what the operator allows, and half of what this process may still take, since
/// threads, code and mail need some as well.
pub(crate) fn space(allowed: Option<u64>) -> u64 {
    allowed.unwrap_or(u64::MAX).min(free().map_or(u64::MAX, |free| free / 2))
}

/// What a limit leaves this process; none where there is no limit.
#[cfg(unix)]
pub(crate) fn free() -> Option<u64> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::As).current?;
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = status.split(' ').next().and_then(|pages| pages.parse().ok()).unwrap_or(0);
    Some(limit.saturating_sub(pages * rustix::param::page_size() as u64))
}

#[cfg(not(unix))]
pub(crate) fn free() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ComponentSource;

    fn plugins(count: usize) -> Vec<PluginConfig> {
        let source = ComponentSource::Bytes { name: "x".into(), bytes: bytes::Bytes::new() };
        (0..count).map(|number| PluginConfig::new(number.to_string(), source.clone())).collect()
    }

    fn forms(plugins: &[PluginConfig], space: u64) -> Vec<PoolForm> {
        PoolLayout::within(plugins, 16, space).iter().map(|layout| layout.form).collect()
    }

    #[test]
    fn what_is_reserved_fits_what_there_is() {
        let ten = plugins(10);
        assert_eq!(
            forms(&ten, u64::MAX),
            [PoolForm::Whole, PoolForm::Whole, PoolForm::Exact, PoolForm::Exact, PoolForm::None]
        );
        assert_eq!(forms(&ten, 1 << 40), [PoolForm::Exact, PoolForm::Exact, PoolForm::None]);
        assert_eq!(forms(&ten, 1 << 30), [PoolForm::None]);
        assert_eq!(forms(&ten, 0), [PoolForm::None], "there is always a way to serve them");
        for layout in PoolLayout::within(&ten, 16, u64::MAX) {
            assert!(layout.reserves() <= MOST);
            assert!(layout.to_string().contains("bounds checks"), "{layout}");
        }
        let whole = PoolLayout::within(&ten, 16, u64::MAX)[0].to_string();
        assert!(whole.contains(" of address space for 472 instances"), "{whole}");
    }

    /// Room for them costs no other plugin its form: what is slower comes after what has none.
    #[test]
    fn a_reload_can_add_plugins_with_as_many_calls_as_are_usual() {
        let busy = |count| {
            let mut plugins = plugins(count);
            plugins.iter_mut().for_each(|plugin| plugin.limits.max_instances = 128);
            plugins
        };
        for before in [0, 1, 10] {
            let layout = PoolLayout::within(&busy(before), 128, u64::MAX)[0];
            assert_eq!((layout.form, layout.has_places_for(&busy(before + 2))), (PoolForm::Whole, Ok(())));
        }
        assert_eq!(PoolLayout::within(&busy(15), 128, u64::MAX)[0].form, PoolForm::Whole, "without room");
    }

    #[test]
    fn the_engine_takes_every_form() {
        for layout in PoolLayout::within(&plugins(1), 16, u64::MAX) {
            let mut config = Config::new();
            layout.apply(&mut config);
            wasmtime::Engine::new(&config).unwrap_or_else(|error| panic!("{layout}: {error:#}"));
        }
    }

    #[test]
    fn sizes_are_told_in_words() {
        assert_eq!(octets(0), "0 MiB");
        assert_eq!(octets(100 << 20), "100 MiB");
        assert_eq!(octets((100 << 30) + 1), "101 GiB");
        assert_eq!(octets(11 << 40), "11 TiB");
    }
}
