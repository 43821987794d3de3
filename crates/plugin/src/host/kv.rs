//! Host functions of `kv`: stored values that outlive the call. Requires the grant `kv`.

use std::time::{Duration, Instant};

use wasmtime::component::{HasData, Linker};

use super::checks::need;
use crate::bindings::pintle::plugin::kv::{self, Bucket, Entry, Host, Taken};
use crate::bindings::pintle::plugin::types::HostError;
use crate::call::CallState;
use crate::kv::{KvError, KvStore};
use crate::store_data::{HostParts, StoreData};
use crate::{GrantKind, Grants};

const MAX_KEYS: usize = 1_000;
/// Limit on the total size of the values in one reply, in octets.
const MAX_ANSWER: usize = 4 << 20;
const KEY_COST: u64 = 512;

/// Adds the interface to the linker.
pub(crate) fn link(linker: &mut Linker<StoreData>) -> wasmtime::Result<()> {
    kv::add_to_linker::<_, KvInterface>(linker, |data| KvView::of(data.parts()))
}

struct KvInterface;

impl HasData for KvInterface {
    type Data<'a> = KvView<'a>;
}

/// The data that the interface accesses: the generation's stored values, and the current call.
pub(crate) struct KvView<'a> {
    stored: &'a KvStore,
    grants: &'a Grants,
    call: &'a mut CallState,
}

impl<'a> KvView<'a> {
    pub(super) fn of(HostParts { state, grants, call, .. }: HostParts<'a>) -> Self {
        Self { stored: &state.kv, grants, call }
    }
}

impl Host for KvView<'_> {
    fn get_many(&mut self, keys: Vec<String>) -> Result<Vec<Option<Entry>>, HostError> {
        if keys.len() > MAX_KEYS {
            return Err(HostError::Limit(format!("one call reads at most {MAX_KEYS} keys")));
        }
        self.store()?;
        // Keys longer than this limit are never found.
        self.call.budget.charge(keys.len() as u64 * KEY_COST)?;
        let found = self.store()?.get_many(&keys, MAX_ANSWER, Instant::now()).map_err(refused)?;
        let octets: usize = found.iter().flatten().map(|(value, _)| value.len()).sum();
        self.call.budget.charge(octets as u64)?;
        let entry = |(value, version)| Entry { value, version };
        Ok(found.into_iter().map(|found| found.map(entry)).collect())
    }

    fn set(&mut self, key: String, value: Vec<u8>, ttl_s: Option<u32>) -> Result<(), HostError> {
        self.store()?;
        self.call.budget.charge(KEY_COST + value.len() as u64)?;
        let store = self.store()?;
        store.set(key, value, ttl_s, Instant::now()).map_err(refused)
    }

    fn swap(
        &mut self,
        key: String,
        value: Vec<u8>,
        ttl_s: Option<u32>,
        expected: u64,
    ) -> Result<bool, HostError> {
        self.store()?;
        self.call.budget.charge(KEY_COST + value.len() as u64)?;
        let store = self.store()?;
        store.swap(key, value, ttl_s, expected, Instant::now()).map_err(refused)
    }

    fn remove(&mut self, key: String) -> Result<(), HostError> {
        self.charge(&key)?;
        self.store()?.remove(&key);
        Ok(())
    }

    fn increment(&mut self, key: String, by: i32, ttl_s: Option<u32>) -> Result<i64, HostError> {
        self.charge(&key)?;
        let store = self.store()?;
        store.increment(key, by.into(), ttl_s, Instant::now()).map_err(refused)
    }

    fn count_many(&mut self, keys: Vec<String>) -> Result<Vec<i64>, HostError> {
        if keys.len() > MAX_KEYS {
            return Err(HostError::Limit(format!("one call reads at most {MAX_KEYS} keys")));
        }
        self.store()?;
        self.call.budget.charge(keys.len() as u64 * KEY_COST)?;
        Ok(self.store()?.count_many(&keys, Instant::now()))
    }

    fn take(&mut self, key: String, tokens: u32, bucket: Bucket) -> Result<Taken, HostError> {
        if !bucket.refill_per_minute.is_finite() || bucket.refill_per_minute < 0.0 {
            return Err(HostError::Invalid("a bucket refills at a rate of 0 or more".into()));
        }
        self.charge(&key)?;
        let rate = bucket.refill_per_minute / 60.0;
        let taken = self.store()?.take(key, tokens, bucket.capacity, rate, Instant::now());
        Ok(match taken.map_err(refused)? {
            Ok(remaining) => Taken { allowed: true, remaining, retry_after_ms: 0 },
            Err(refused) => Taken {
                allowed: false,
                remaining: refused.left,
                retry_after_ms: refused.wait.map_or(u32::MAX, millis),
            },
        })
    }
}

impl KvView<'_> {
    fn charge(&mut self, key: &str) -> Result<(), HostError> {
        self.store()?;
        self.call.budget.charge(KEY_COST + key.len() as u64)
    }

    fn store(&self) -> Result<&KvStore, HostError> {
        need(self.grants, GrantKind::Kv)?;
        if self.call.hook.is_none() {
            return Err(HostError::Unavailable("stored values are not available in `configure`".into()));
        }
        Ok(self.stored)
    }
}

fn refused(error: KvError) -> HostError {
    match error {
        KvError::Key => HostError::Invalid(error.text()),
        KvError::Value | KvError::Full | KvError::Answer(_) => HostError::Limit(error.text()),
    }
}

/// Rounded up, so that a retry after this wait succeeds.
fn millis(wait: Duration) -> u32 {
    u32::try_from(wait.as_micros().div_ceil(1_000)).unwrap_or(u32::MAX)
}
