//! The layout of the instance pool: how much address space is reserved for guest memories, and in which form.
//!
//! Reserved address space uses no physical memory, but it can be limited, by `ulimit -v` or by a container. So there
//! are three forms, and the first that fits is used.

use std::fmt;

use wasmtime::{Config, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::PluginConfig;

/// Limits on the parts of one component; Python's, the largest known, has 38 core instances and 3 memories.
pub(crate) const CORE_INSTANCES: u32 = 96;
pub(crate) const MEMORIES: u32 = 4;
pub(crate) const TABLES: u32 = 64;
pub(crate) const TABLE_ELEMENTS: usize = 100_000;
/// Maximum number of handles that an instance may hold, its own and the host's. They are kept in host memory, which the
/// instance's memory limit does not cover. Language kits hold a few dozen.
pub(crate) const HANDLES: usize = 4_096;
/// Size of a page of linear memory, in octets.
const WASM_PAGE: usize = 64 << 10;
/// Pool slots for instances created by checks.
const SPARE_PLACES: u32 = 64;
/// Number of plugins that reloads can add, if address space permits.
const LATER_PLUGINS: u32 = 2;
/// Address space of a 32-bit memory. If all of it is reserved, the guest's code needs no bounds checks.
const WHOLE: u64 = 4 << 30;
/// Guard region after such a memory, for offsets beyond its end; the engine's default.
const WHOLE_GUARD: u64 = 32 << 20;
/// Guard region after a memory whose code checks bounds.
const GUARD: u64 = WASM_PAGE as u64;
/// Address space reserved for growth of a memory that has no pool slot.
const GROWTH: u64 = 1 << 20;
/// Stack size of each instance; the engine's default.
const STACK: u64 = 2 << 20;
/// Upper limit on the total reservation: half of a process's address space on most machines.
const MOST: u64 = 64 << 40;

/// How address space is reserved for the memories of instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PoolForm {
    /// A slot per instance; each memory reserves its whole 32-bit address space, so no bounds checks are needed.
    Whole,
    /// A slot per instance; each memory reserves the largest size that plugins may have. The code checks bounds.
    Exact,
    /// No slots: each instance allocates its memory when it is created. The code checks bounds.
    None,
}

/// Form and size of the instance pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PoolLayout {
    pub(crate) form: PoolForm,
    /// Number of slots: the maximum number of concurrent instances.
    pub(crate) places: u32,
    /// Maximum size of one memory, in octets.
    pub(crate) memory: usize,
}

impl PoolLayout {
    /// The layouts that can serve these plugins within this much address space, best first. During a reload both
    /// versions of a plugin have instances, so there are twice as many slots as concurrent calls. Each form is tried
    /// first with room for plugins that are added later (each with `usual` concurrent calls, or with the current
    /// maximum), then without.
    pub(crate) fn within(plugins: &[PluginConfig], usual: usize, space: u64) -> Vec<Self> {
        let busiest = plugins.iter().map(|plugin| plugin.limits.max_instances).fold(usual, usize::max);
        let later = places_of(busiest).saturating_mul(LATER_PLUGINS);
        let least = places(plugins).saturating_add(SPARE_PLACES);
        let memory = plugins.iter().map(|plugin| plugin.limits.memory).max().unwrap_or(0);
        // Memories grow by pages, so slot sizes are multiples of the page size.
        let memory = memory.max(crate::PluginLimits::default().memory).next_multiple_of(WASM_PAGE);
        let with_room = |form| Self { form, places: least.saturating_add(later), memory };
        let without = |form| Self { form, places: least, memory };
        let forms =
            [PoolForm::Whole, PoolForm::Exact].into_iter().flat_map(|form| [with_room(form), without(form)]);
        let forms = forms.chain([without(PoolForm::None)]);
        forms.filter(|layout| layout.reserves() <= space.min(MOST)).collect()
    }

    /// Address space reserved at the start, in octets.
    pub(crate) fn reserves(&self) -> u64 {
        let memory = match self.form {
            PoolForm::Whole => WHOLE + WHOLE_GUARD,
            PoolForm::Exact => self.memory as u64 + GUARD,
            PoolForm::None => return 0,
        };
        let tables = u64::from(TABLES) * (TABLE_ELEMENTS * size_of::<usize>()) as u64;
        u64::from(self.places).saturating_mul(u64::from(MEMORIES) * memory + tables + STACK)
    }

    /// Checks whether these plugins fit; the error holds the slots needed and the slots available.
    pub(crate) fn has_places_for(&self, plugins: &[PluginConfig]) -> Result<(), (u32, u32)> {
        let needs = places(plugins);
        if self.form == PoolForm::None || needs <= self.places { Ok(()) } else { Err((needs, self.places)) }
    }

    /// Whether an instance with this memory limit, in octets, fits into a slot.
    pub(crate) fn has_room_for(&self, memory: usize) -> bool {
        self.form == PoolForm::None || memory <= self.memory
    }

    /// Sets the engine's configuration accordingly.
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

/// Formats a size with a binary unit, rounded up.
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

/// The address space available to guests: the operator's limit, and at most half of what this process may still
/// allocate, since threads, code and mail need some too.
pub(crate) fn space(allowed: Option<u64>) -> u64 {
    allowed.unwrap_or(u64::MAX).min(free().map_or(u64::MAX, |free| free / 2))
}

/// Address space that the process limit (`RLIMIT_AS`) leaves; `None` if unlimited.
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

    /// Room for added plugins never costs the form: a faster form without that room is preferred to a slower one with
    /// it.
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
