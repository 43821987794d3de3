//! The WebAssembly engine of the process: compilation settings, the size of the instance pool, and the epoch ticker
//! that interrupts guests.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use wasmtime::component::Linker;
use wasmtime::{Config, Engine, Strategy};

use crate::interfaces;
use crate::layout::{self, MEMORIES, PoolLayout, TABLE_ELEMENTS, TABLES};
use crate::store_data::StoreData;
use crate::{LoadError, PluginConfig, PluginsError};

/// Interval at which a computing guest is interrupted, to check its time limits and to let other tasks run.
const TICK: Duration = Duration::from_millis(4);

/// Size of a page of linear memory, in octets.
const WASM_PAGE: u64 = 64 << 10;

/// The engine, the linker with the host functions, and the epoch ticker thread.
pub(crate) struct GuestEngine {
    pub(crate) engine: Engine,
    pub(crate) linker: Linker<StoreData>,
    layout: PoolLayout,
    _ticker: EpochTicker,
}

impl GuestEngine {
    /// Starts an engine with room for these plugins and for some added later, within the configured address space
    /// limit.
    pub(crate) fn start(config: &crate::Config) -> Result<Self, String> {
        let space = layout::space(config.address_space);
        let (engine, layout) = engine(&PoolLayout::within(&config.plugins, config.usual_instances, space))?;
        tracing::info!(target: "pintle::plugin", "plugins have {layout}");
        let linker = interfaces::linker(&engine).map_err(|error| format!("{error:#}"))?;
        let ticker = EpochTicker::start(engine.clone()).map_err(|error| error.to_string())?;
        Ok(Self { engine, linker, layout, _ticker: ticker })
    }

    /// Checks whether a running engine can serve these plugins, which may differ from those it was started for.
    pub(crate) fn has_room_for(&self, plugins: &[PluginConfig]) -> Result<(), PluginsError> {
        let room = self.layout.has_places_for(plugins);
        let too_many = |(needs, has): (u32, u32)| PluginsError::NoRoom {
            what: "instances in all",
            needs: needs.into(),
            limit: has.into(),
        };
        room.map_err(too_many)?;
        let biggest = plugins.iter().map(|plugin| plugin.limits.memory).max().unwrap_or(0);
        if self.layout.has_room_for(biggest) {
            return Ok(());
        }
        let has = self.layout.memory as u64;
        Err(PluginsError::NoRoom { what: "octets of memory", needs: biggest as u64, limit: has })
    }

    /// Checks whether an instance of this component fits into a slot of the pool.
    pub(crate) fn fits(&self, component: &wasmtime::component::Component, memory: usize) -> Vec<LoadError> {
        let Some(needs) = component.resources_required() else {
            return vec![LoadError::NotAComponent(
                "it imports or creates core modules in a way whose resources cannot be determined".into(),
            )];
        };
        let octets = needs.max_initial_memory_size.unwrap_or(0) * WASM_PAGE;
        [
            ("linear memories", u64::from(needs.num_memories), u64::from(MEMORIES)),
            ("tables", u64::from(needs.num_tables), u64::from(TABLES)),
            ("table elements", needs.max_initial_table_size.unwrap_or(0), TABLE_ELEMENTS as u64),
            ("octets of memory from the start", octets, memory as u64),
        ]
        .into_iter()
        .filter(|(_, needs, limit)| needs > limit)
        .map(|(what, needs, limit)| too_big(what, needs, limit))
        .collect()
    }
}

fn too_big(what: &'static str, needs: impl Into<u64>, limit: impl Into<u64>) -> LoadError {
    LoadError::TooBig { what, needs: needs.into(), limit: limit.into() }
}

/// Starts an engine with the first of these layouts that the machine supports.
fn engine(layouts: &[PoolLayout]) -> Result<(Engine, PoolLayout), String> {
    let mut last = None;
    for layout in layouts {
        match Engine::new(&settings(layout)) {
            Ok(engine) => return Ok((engine, *layout)),
            Err(error) => {
                tracing::info!(target: "pintle::plugin", error = format!("{error:#}"), "plugins cannot have {layout}");
                last = Some(format!("{layout}: {error:#}"));
            }
        }
    }
    let free = layout::free().map_or_else(|| "unlimited".to_owned(), layout::octets);
    Err(format!(
        "{}; the address space left to this process is {free}: raise the limit (`ulimit -v`, LimitAS), or \
         lower `address_space` of [plugins] or the plugins' `max_instances`",
        last.unwrap_or_default()
    ))
}

fn settings(layout: &PoolLayout) -> Config {
    let mut config = Config::new();
    config.strategy(Strategy::Cranelift);
    config.epoch_interruption(true);
    // Component-model concurrency doubles the cost of every call in this release of the engine, and no language kit
    // needs it for functions that are synchronous in the contract.
    config.concurrency_support(false);
    config.wasm_threads(false);
    config.wasm_backtrace_max_frames(NonZeroUsize::new(8));
    layout.apply(&mut config);
    config
}

/// The thread that advances the engine's epoch. It is an OS thread and not a task, because computing guests, which it
/// has to interrupt, starve tasks.
struct EpochTicker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl EpochTicker {
    fn start(engine: Engine) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("plugin-tick".into()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                std::thread::park_timeout(TICK);
                engine.increment_epoch();
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for EpochTicker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}
