//! The data of a Wasmtime store: the guest's grants and limits, and the state of the current call.

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

/// The data that host functions access. Each interface borrows only the parts that it needs.
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

    /// The services that all plugins share.
    pub(crate) fn services(&self) -> &HostServices {
        &self.services
    }

    /// The parts for a host function; charges the fixed cost of the call.
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

/// The guest's table of WASI resources. Entries use host memory, so their number is limited.
fn table() -> ResourceTable {
    let mut table = ResourceTable::new();
    table.set_max_capacity(layout::HANDLES);
    table
}

/// A WASI context with clocks and random numbers only: no file system, network or environment. Printed output goes to
/// the guest log.
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
