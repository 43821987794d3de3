//! What a store holds beside the guest: its limits, its pen, and the call that it serves.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use pintle_dns::Resolver;
use wasmtime::ResourceLimiter;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::bindings::pintle::plugin::types::{HostError, IpAddress};
use crate::call::CallState;
use crate::guest_log::{GuestLog, LogQuota};
use crate::habits::{Ahead, Habits, Need};
use crate::host::stdio::Printed;
use crate::kv;
use crate::meter::Meter;
use crate::plugin_metrics::PluginMetrics;
use crate::{Gateway, GrantKind, Grants};

/// What all instances and generations of one plugin share.
pub(crate) struct PluginShared {
    /// The operator's name for the plugin.
    pub(crate) name: Arc<str>,
    pub(crate) dns: Arc<dyn Resolver>,
    pub(crate) kv: kv::Store,
    pub(crate) gauges: PluginMetrics,
    pub(crate) habits: Habits,
    pub(crate) quota: Arc<LogQuota>,
    /// What plugins may know of the gateway; all plugins share it.
    pub(crate) gateway: Arc<ArcSwap<Gateway>>,
    /// The largest message that a plugin may make.
    pub(crate) max_message: u64,
}

/// The data of a store: all that host functions can reach.
pub(crate) struct StoreData {
    pub(crate) common: Arc<PluginShared>,
    pub(crate) grants: Arc<Grants>,
    pub(crate) live: CallState,
    pub(crate) ahead: Ahead,
    pub(crate) memory: Memory,
    pub(crate) meter: Arc<Meter>,
    pub(crate) scribe: Arc<GuestLog>,
    wasi: WasiCtx,
    table: ResourceTable,
}

impl StoreData {
    pub(crate) fn new(
        common: Arc<PluginShared>,
        grants: Arc<Grants>,
        memory: usize,
        meter: Arc<Meter>,
    ) -> Self {
        let scribe = Arc::new(GuestLog::new(Arc::clone(&common.name), Arc::clone(&common.quota)));
        let live = CallState::idle(Arc::clone(&common.name), common.max_message);
        Self {
            live,
            ahead: Ahead::default(),
            grants,
            memory: Memory::new(memory),
            meter,
            wasi: nothing(&scribe),
            scribe,
            common,
            table: table(),
        }
    }

    /// Writes down that this call asks for something, so that it lies ready for the next of its kind.
    pub(crate) fn asks(&mut self, need: Need) {
        if let Some(kind) = self.ahead.kind {
            self.ahead.asked.add(need);
            self.common.habits.asked(kind, need);
        }
    }

    /// Refuses what the operator did not grant.
    pub(crate) fn need(&self, grant: GrantKind) -> Result<(), HostError> {
        self.need_any(&[grant])
    }

    /// The same where one grant of several will do: named is the first, which allows the least.
    pub(crate) fn need_any(&self, grants: &[GrantKind]) -> Result<(), HostError> {
        if grants.iter().any(|grant| self.grants.contains(*grant)) {
            return Ok(());
        }
        Err(HostError::Denied(grants.first().map_or("", |grant| grant.name()).to_owned()))
    }
}

/// What the guest has of WASI's things, each of which takes memory of the host's.
fn table() -> ResourceTable {
    let mut table = ResourceTable::new();
    table.set_max_capacity(crate::engine::HANDLES);
    table
}

/// WASI with nothing behind it: no folders, no network, no environment, clocks and dice excepted. What the guest prints
/// goes to its log.
fn nothing(scribe: &Arc<GuestLog>) -> WasiCtx {
    WasiCtx::builder()
        .stdout(Printed::new(Arc::clone(scribe)))
        .stderr(Printed::new(Arc::clone(scribe)))
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

/// What an element of a table takes, in octets: a pointer.
const ELEMENT: usize = 8;

/// How much memory the instance has, over all of its linear memories and tables.
pub(crate) struct Memory {
    limit: usize,
    used: usize,
    /// It was refused more during this call.
    pub(crate) refused: bool,
}

impl Memory {
    fn new(limit: usize) -> Self {
        Self { limit, used: 0, refused: false }
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Whether so much more can be had; then it is.
    fn take(&mut self, octets: usize) -> bool {
        let after = self.used.saturating_add(octets);
        self.refused |= after > self.limit;
        if after <= self.limit {
            self.used = after;
        }
        after <= self.limit
    }
}

impl ResourceLimiter for Memory {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.take(desired.saturating_sub(current)))
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let fits =
            desired <= crate::engine::TABLE_ELEMENTS && maximum.is_none_or(|maximum| desired <= maximum);
        Ok(fits && self.take(desired.saturating_sub(current).saturating_mul(ELEMENT)))
    }

    fn instances(&self) -> usize {
        crate::engine::CORE_INSTANCES as usize
    }

    fn tables(&self) -> usize {
        crate::engine::TABLES as usize
    }

    fn memories(&self) -> usize {
        crate::engine::MEMORIES as usize
    }
}

/// An address in the contract's words.
pub(crate) fn ip(address: IpAddr) -> IpAddress {
    match address {
        IpAddr::V4(v4) => IpAddress { text: dotted(v4.octets()), octets: v4.octets().to_vec() },
        IpAddr::V6(v6) => IpAddress { text: v6.to_string(), octets: v6.octets().to_vec() },
    }
}

/// An IPv4 address as text. Nearly every call of a plugin asks for two, and `Display` takes ten times as long.
fn dotted(octets: [u8; 4]) -> String {
    let mut text = String::with_capacity("255.255.255.255".len());
    for (at, octet) in octets.into_iter().enumerate() {
        if at > 0 {
            text.push('.');
        }
        for (unit, shown) in [(100, octet >= 100), (10, octet >= 10), (1, true)] {
            if shown {
                text.push(char::from(b'0' + octet / unit % 10));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn tables_and_memories_share_one_limit() {
        let mut memory = Memory::new(4 << 20);
        assert!(memory.memory_growing(0, 1 << 20, None).unwrap());
        let tables = (0..64).filter(|_| memory.table_growing(0, 100_000, None).unwrap()).count();
        assert_eq!((tables, memory.refused), (3, true), "of 800,000 octets each");
        assert!(memory.table_growing(0, 10, None).unwrap(), "what was refused takes nothing");
        assert!(!memory.memory_growing(1 << 20, 2 << 20, None).unwrap());
        assert!(
            !memory.table_growing(0, 100_001, None).unwrap() && !memory.table_growing(0, 9, Some(8)).unwrap()
        );
    }

    #[test]
    fn addresses_read_as_the_library_writes_them() {
        for n in 0..=255 {
            let address = Ipv4Addr::new(n, 255 - n, n / 2, n / 7);
            assert_eq!(ip(address.into()).text, address.to_string());
        }
        assert_eq!(ip("2001:db8::1".parse().unwrap()).text, "2001:db8::1");
    }
}
