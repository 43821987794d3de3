//! DNS resolver for guest calls, with a timeout per query.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use pintle_dns::{DnsRecordKind, Resolver};

use crate::meter::CallMeter;
use crate::state::HostServices;

/// Maximum number of PTR names of a client address that are verified.
pub(crate) const MAX_REVERSE_NAMES: usize = 10;

/// A resolver with a timeout per query, so that an unresponsive name server fails only its own queries, and not the
/// whole call or the answers of other servers.
pub(crate) struct TimeLimitedResolver {
    resolver: Arc<dyn Resolver>,
    limit: Duration,
}

impl TimeLimitedResolver {
    pub(crate) fn new(resolver: Arc<dyn Resolver>, limit: Duration) -> Self {
        Self { resolver, limit }
    }
}

impl Resolver for TimeLimitedResolver {
    fn lookup(
        &self,
        name: &str,
        kind: DnsRecordKind,
    ) -> BoxFuture<'_, Result<pintle_dns::DnsAnswer, pintle_dns::DnsError>> {
        let lookup = self.resolver.lookup(name, kind);
        Box::pin(async move {
            let answer = tokio::time::timeout(self.limit, lookup).await;
            answer.unwrap_or(Err(pintle_dns::DnsError::Timeout))
        })
    }
}

/// The resolver of a running call.
pub(crate) struct CallDns<'a> {
    pub(crate) resolver: &'a Arc<dyn Resolver>,
    pub(crate) meter: &'a CallMeter,
}

impl<'a> CallDns<'a> {
    pub(crate) fn of(services: &'a HostServices, meter: &'a CallMeter) -> Self {
        Self { resolver: &services.dns, meter }
    }

    /// Limits queries to half of the call's remaining time, so that a plugin can make follow-up queries based on the
    /// answers.
    pub(crate) fn in_time(&self) -> TimeLimitedResolver {
        TimeLimitedResolver::new(Arc::clone(self.resolver), self.meter.left(Instant::now()) / 2)
    }
}
