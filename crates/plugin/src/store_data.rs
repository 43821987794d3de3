//! What a store holds beside the guest: its grants and limits, and the call that it serves.

use std::sync::Arc;

use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::call::CallState;
use crate::guest_log::GuestLog;
use crate::guest_memory::GuestMemory;
use crate::habits::Prefetched;
use crate::meter::CallMeter;
use crate::state::{GenerationState, HostServices};
use crate::stdio::GuestOutput;
use crate::{Grants, layout};

/// The data of a store.
pub(crate) struct StoreData {
    services: Arc<HostServices>,
    state: Arc<GenerationState>,
    grants: Arc<Grants>,
    pub(crate) call: CallState,
    pub(crate) ahead: Prefetched,
    pub(crate) memory: GuestMemory,
    pub(crate) meter: Arc<CallMeter>,
    pub(crate) log: Arc<GuestLog>,
    wasi: WasiCtx,
    table: ResourceTable,
}

/// What a host function can reach. Each interface takes from it what it needs, and no more.
pub(crate) struct HostParts<'a> {
    pub(crate) services: &'a HostServices,
    pub(crate) state: &'a GenerationState,
    pub(crate) grants: &'a Grants,
    pub(crate) call: &'a mut CallState,
    pub(crate) ahead: &'a mut Prefetched,
    pub(crate) meter: &'a CallMeter,
    pub(crate) log: &'a GuestLog,
}

impl StoreData {
    pub(crate) fn new(
        services: Arc<HostServices>,
        state: Arc<GenerationState>,
        grants: Arc<Grants>,
        memory: usize,
        meter: Arc<CallMeter>,
    ) -> Self {
        let log = Arc::new(GuestLog::new(Arc::clone(&state)));
        Self {
            call: CallState::idle(Arc::clone(&state.plugin), services.max_message),
            services,
            state,
            ahead: Prefetched::default(),
            grants,
            memory: GuestMemory::new(memory),
            meter,
            wasi: nothing(&log),
            log,
            table: table(),
        }
    }

    /// The way to every host function, which counts its calls.
    pub(crate) fn parts(&mut self) -> HostParts<'_> {
        self.call.budget.step();
        HostParts {
            services: &self.services,
            state: &self.state,
            grants: &self.grants,
            call: &mut self.call,
            ahead: &mut self.ahead,
            meter: &self.meter,
            log: &self.log,
        }
    }
}

/// The table of WASI resources of the guest. Each takes memory of the host, so their number is bounded.
fn table() -> ResourceTable {
    let mut table = ResourceTable::new();
    table.set_max_capacity(layout::HANDLES);
    table
}

/// WASI with clocks and random numbers only: no folders, no network, no environment. What the guest prints goes to its log.
fn nothing(log: &Arc<GuestLog>) -> WasiCtx {
    WasiCtx::builder()
        .stdout(GuestOutput::new(Arc::clone(log)))
        .stderr(GuestOutput::new(Arc::clone(log)))
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .max_random_size(64 << 10)
        .build()
}

impl WasiView for StoreData {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}
