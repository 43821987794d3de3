//! A resolver that answers from a map: for tests of code that uses answers, not of resolving.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use pintle_dns::{DnsAnswer, DnsError, DnsRecord, DnsRecordKind, Resolver};

/// Answers with the records that it was given, `NxDomain` for unknown names, `NoData` for other kinds of known names.
/// Clones share everything, so a test can keep one and change it while another is in use.
#[derive(Clone, Debug, Default)]
pub struct StaticResolver {
    state: Arc<Mutex<StaticState>>,
}

#[derive(Debug, Default)]
struct StaticState {
    records: HashMap<String, Vec<DnsRecord>>,
    faults: HashMap<(String, DnsRecordKind), DnsError>,
    asked: Vec<(String, DnsRecordKind)>,
}

impl StaticResolver {
    /// A resolver without any name.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a record; a CNAME is followed, as a real resolver would.
    #[must_use]
    pub fn with(self, name: &str, record: DnsRecord) -> Self {
        self.add(name, record);
        self
    }

    /// Adds an MX record.
    #[must_use]
    pub fn with_mx(self, name: &str, preference: u16, exchange: &str) -> Self {
        self.with(name, DnsRecord::Mx { preference, exchange: exchange.to_owned() })
    }

    /// Adds an A or AAAA record.
    ///
    /// # Panics
    /// When `address` is not an IP address.
    #[must_use]
    pub fn with_address(self, name: &str, address: &str) -> Self {
        let record = match address.parse().expect("an IP address") {
            std::net::IpAddr::V4(v4) => DnsRecord::A(v4),
            std::net::IpAddr::V6(v6) => DnsRecord::Aaaa(v6),
        };
        self.with(name, record)
    }

    /// Makes every query of this name and kind fail; the name then counts as known.
    #[must_use]
    pub fn with_fault(self, name: &str, kind: DnsRecordKind, fault: DnsError) -> Self {
        self.fail(name, kind, fault);
        self
    }

    /// As [`StaticResolver::with`], on a resolver in use.
    pub fn add(&self, name: &str, record: DnsRecord) {
        self.state().records.entry(key(name)).or_default().push(record);
    }

    /// As [`StaticResolver::with_fault`], on a resolver in use.
    pub fn fail(&self, name: &str, kind: DnsRecordKind, fault: DnsError) {
        self.state().faults.insert((key(name), kind), fault);
    }

    /// Removes a fault.
    pub fn heal(&self, name: &str, kind: DnsRecordKind) {
        self.state().faults.remove(&(key(name), kind));
    }

    /// All queries so far, in order.
    pub fn asked(&self) -> Vec<(String, DnsRecordKind)> {
        self.state().asked.clone()
    }

    fn state(&self) -> MutexGuard<'_, StaticState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resolver for StaticResolver {
    fn lookup(&self, name: &str, kind: DnsRecordKind) -> BoxFuture<'_, Result<DnsAnswer, DnsError>> {
        let mut state = self.state();
        state.asked.push((key(name), kind));
        let result = state.answer(&key(name), kind);
        futures_util::future::ready(result).boxed()
    }
}

impl StaticState {
    fn answer(&self, name: &str, kind: DnsRecordKind) -> Result<DnsAnswer, DnsError> {
        let mut owner = name.to_owned();
        for _ in 0..8 {
            if let Some(fault) = self.faults.get(&(owner.clone(), kind)) {
                return Err(*fault);
            }
            match self.step(&owner, kind)? {
                LookupStep::Found(records) => {
                    return Ok(DnsAnswer { records, ttl: Duration::from_secs(300) });
                }
                LookupStep::Alias(target) => owner = target,
            }
        }
        Err(DnsError::ServFail)
    }

    fn step(&self, owner: &str, kind: DnsRecordKind) -> Result<LookupStep, DnsError> {
        let records = self.records.get(owner).ok_or(DnsError::NxDomain)?;
        let found: Vec<DnsRecord> = records.iter().filter(|record| record.kind() == kind).cloned().collect();
        if !found.is_empty() {
            return Ok(LookupStep::Found(found));
        }
        let alias = records.iter().find_map(|record| match record {
            DnsRecord::Cname(target) => Some(LookupStep::Alias(key(target))),
            _ => None,
        });
        alias.ok_or(DnsError::NoData)
    }
}

enum LookupStep {
    Found(Vec<DnsRecord>),
    Alias(String),
}

fn key(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}
