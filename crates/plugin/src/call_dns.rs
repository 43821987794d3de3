//! The resolver that a call asks, with a limit on the time of each question.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use pintle_dns::{DnsRecordKind, Resolver};

use crate::meter::CallMeter;
use crate::state::HostServices;

/// How many names of a client's address are looked at.
pub(crate) const MAX_REVERSE_NAMES: usize = 10;

/// A resolver with a time limit for each question, so that one dead name server costs its own answers, and not the call or the
/// answers of other servers.
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

/// The resolver of a call that has begun.
pub(crate) struct CallDns<'a> {
    pub(crate) resolver: &'a Arc<dyn Resolver>,
    pub(crate) meter: &'a CallMeter,
}

impl<'a> CallDns<'a> {
    pub(crate) fn of(services: &'a HostServices, meter: &'a CallMeter) -> Self {
        Self { resolver: &services.dns, meter }
    }

    /// With half of what is left of the call: a plugin that asks again, about what it has learnt, still has time for that.
    pub(crate) fn in_time(&self) -> TimeLimitedResolver {
        TimeLimitedResolver::new(Arc::clone(self.resolver), self.meter.left(Instant::now()) / 2)
    }
}
