//! `dns`: questions to the resolver, many at once. Needs the grant of this name.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use pintle_dns::{RecordKind, Resolver, lookup_many};

use crate::Grant;
use crate::bindings::pintle::plugin::dns::{Answer, DnsError, Host, Query, RecordType};
use crate::bindings::pintle::plugin::types::{HostError, IpAddress};
use crate::store_data::StoreData;

/// The most questions of one call of a hook, over all of its calls of `dns`.
const MAX_QUESTIONS: usize = 256;
/// What a question with its answer costs.
const QUESTION_COST: u64 = 1_024;

impl Host for StoreData {
    async fn query_many(&mut self, queries: Vec<Query>) -> Vec<Result<Answer, DnsError>> {
        if let Err(error) = self.may_ask(queries.len()) {
            return refused_all(queries.len(), &error);
        }
        let questions: Vec<_> =
            queries.into_iter().map(|query| (query.name, record_kind(query.kind))).collect();
        let answers = lookup_many(&self.dns_in_time(), &questions).await;
        answers.into_iter().map(answer).collect()
    }

    async fn query_lists(&mut self, address: IpAddress, zones: Vec<String>) -> Vec<Result<Answer, DnsError>> {
        let address = self.may_ask(zones.len()).and_then(|()| parsed(&address));
        match address {
            Err(error) => refused_all(zones.len(), &error),
            Ok(address) => {
                let answers = pintle_dns::query_lists(&self.dns_in_time(), address, &zones).await;
                answers.into_iter().map(answer).collect()
            }
        }
    }
}

/// A resolver that gives up on each question after a while, so that one dead name server costs its own answers, and not
/// the call that asked it and the answers of all the others.
pub(crate) struct InTime {
    resolver: Arc<dyn Resolver>,
    limit: Duration,
}

impl InTime {
    pub(crate) fn new(resolver: Arc<dyn Resolver>, limit: Duration) -> Self {
        Self { resolver, limit }
    }
}

impl Resolver for InTime {
    fn lookup(
        &self,
        name: &str,
        kind: RecordKind,
    ) -> BoxFuture<'_, Result<pintle_dns::DnsAnswer, pintle_dns::DnsError>> {
        let lookup = self.resolver.lookup(name, kind);
        Box::pin(async move {
            let answer = tokio::time::timeout(self.limit, lookup).await;
            answer.unwrap_or(Err(pintle_dns::DnsError::Timeout))
        })
    }
}

impl StoreData {
    /// Half of what is left of the call: a plugin that asks again, about what it has learnt, still has time for that.
    pub(super) fn dns_in_time(&self) -> InTime {
        InTime::new(Arc::clone(&self.common.dns), self.meter.left(Instant::now()) / 2)
    }

    fn may_ask(&mut self, questions: usize) -> Result<(), HostError> {
        self.need(Grant::Dns)?;
        if self.live.hook.is_none() {
            return Err(HostError::Unavailable("DNS is not available in `configure`".into()));
        }
        self.live.budget.charge(QUESTION_COST * questions as u64)?;
        self.live.questions = self.live.questions.saturating_add(questions);
        if self.live.questions > MAX_QUESTIONS {
            return Err(HostError::Limit(format!("a call asks at most {MAX_QUESTIONS} questions")));
        }
        Ok(())
    }
}

/// The octets decide; the text is for reading.
fn parsed(address: &IpAddress) -> Result<IpAddr, HostError> {
    let octets = address.octets.as_slice();
    <[u8; 4]>::try_from(octets)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from))
        .map_err(|_| HostError::Invalid("an address has 4 or 16 octets".into()))
}

fn refused_all(count: usize, error: &HostError) -> Vec<Result<Answer, DnsError>> {
    (0..count).map(|_| Err(DnsError::Refused(error.clone()))).collect()
}

fn record_kind(kind: RecordType) -> RecordKind {
    match kind {
        RecordType::A => RecordKind::A,
        RecordType::Aaaa => RecordKind::Aaaa,
        RecordType::Mx => RecordKind::Mx,
        RecordType::Txt => RecordKind::Txt,
        RecordType::Ptr => RecordKind::Ptr,
        RecordType::Ns => RecordKind::Ns,
        RecordType::Cname => RecordKind::Cname,
        RecordType::Srv => RecordKind::Srv,
        RecordType::Tlsa => RecordKind::Tlsa,
    }
}

fn answer(answer: Result<pintle_dns::DnsAnswer, pintle_dns::DnsError>) -> Result<Answer, DnsError> {
    use pintle_dns::DnsError as Ours;
    let answer = answer.map_err(|error| match error {
        Ours::NxDomain => DnsError::Nxdomain,
        Ours::NoData => DnsError::NoData,
        Ours::ServFail => DnsError::Servfail,
        Ours::Bogus => DnsError::Bogus,
        Ours::Timeout => DnsError::Timeout,
        Ours::Refused | Ours::Unreachable => DnsError::Refused(HostError::Temporary(error.to_string())),
        Ours::InvalidName => DnsError::Refused(HostError::Invalid(error.to_string())),
    })?;
    Ok(Answer {
        records: answer.records.iter().map(ToString::to_string).collect(),
        ttl_s: u32::try_from(answer.ttl.as_secs()).unwrap_or(u32::MAX),
        // DNSSEC is not validated, so no answer may pass for secure.
        secure: false,
    })
}
