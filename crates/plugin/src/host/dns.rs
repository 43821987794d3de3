//! Host functions of `dns`: batches of DNS queries. Requires the grant `dns`.

use std::net::IpAddr;

use pintle_dns::{DnsRecordKind, lookup_many};
use wasmtime::component::{HasData, Linker};

use super::checks::need;
use crate::bindings::pintle::plugin::dns::{self, Answer, DnsError, Host, Query};
use crate::bindings::pintle::plugin::types::{HostError, IpAddress};
use crate::call::CallState;
use crate::call_dns::CallDns;
use crate::store_data::{HostParts, StoreData};
use crate::{GrantKind, Grants};

/// Maximum number of queries per guest call, over all calls of `dns` functions.
const MAX_QUESTIONS: usize = 256;
/// Budget charge for a query with its answer, in octets.
const QUESTION_COST: u64 = 1_024;

/// Adds the interface to the linker.
pub(crate) fn link(linker: &mut Linker<StoreData>) -> wasmtime::Result<()> {
    dns::add_to_linker::<_, DnsInterface>(linker, |data| DnsView::of(data.parts()))
}

struct DnsInterface;

impl HasData for DnsInterface {
    type Data<'a> = DnsView<'a>;
}

/// The data that the interface accesses: a resolver, and the current call.
pub(crate) struct DnsView<'a> {
    dns: CallDns<'a>,
    grants: &'a Grants,
    call: &'a mut CallState,
}

impl<'a> DnsView<'a> {
    pub(super) fn of(HostParts { services, grants, call, meter, .. }: HostParts<'a>) -> Self {
        Self { dns: CallDns::of(services, meter), grants, call }
    }
}

impl Host for DnsView<'_> {
    async fn query_many(&mut self, queries: Vec<Query>) -> Vec<Result<Answer, DnsError>> {
        if let Err(error) = self.may_ask(queries.len()) {
            return refused_all(queries.len(), &error);
        }
        let parsed: Vec<_> = queries.into_iter().map(question).collect();
        let questions: Vec<_> = parsed.iter().filter_map(|parsed| parsed.as_ref().ok()).cloned().collect();
        let answers = lookup_many(&self.dns.in_time(), &questions).await;
        let mut answers = self.charged(answers).into_iter();
        let mut next = || answers.next().unwrap_or(Err(DnsError::Timeout));
        parsed.into_iter().map(|parsed| parsed.map_err(DnsError::Refused).and_then(|_| next())).collect()
    }

    async fn query_lists(&mut self, address: IpAddress, zones: Vec<String>) -> Vec<Result<Answer, DnsError>> {
        let address = self.may_ask(zones.len()).and_then(|()| parsed(&address));
        match address {
            Err(error) => refused_all(zones.len(), &error),
            Ok(address) => {
                let answers = pintle_dns::query_lists(&self.dns.in_time(), address, &zones).await;
                self.charged(answers)
            }
        }
    }
}

impl DnsView<'_> {
    fn may_ask(&mut self, questions: usize) -> Result<(), HostError> {
        need(self.grants, GrantKind::Dns)?;
        if self.call.hook.is_none() {
            return Err(HostError::Unavailable("DNS is not available in `configure`".into()));
        }
        self.call.budget.charge(QUESTION_COST * questions as u64)?;
        let asked = self.call.questions.saturating_add(questions);
        if asked > MAX_QUESTIONS {
            return Err(HostError::Limit(format!("a call asks at most {MAX_QUESTIONS} questions")));
        }
        self.call.questions = asked;
        Ok(())
    }
}

impl DnsView<'_> {
    /// Converts answers, and charges for their text: an answer can be much larger than its query.
    fn charged(
        &mut self,
        answers: Vec<Result<pintle_dns::DnsAnswer, pintle_dns::DnsError>>,
    ) -> Vec<Result<Answer, DnsError>> {
        let charge = |found: Result<Answer, DnsError>| {
            let found = found?;
            let octets: usize = found.records.iter().map(String::len).sum();
            self.call.budget.charge(octets as u64).map_err(DnsError::Refused)?;
            Ok(found)
        };
        answers.into_iter().map(answer).map(charge).collect()
    }
}

/// Uses the octets of the address; the text form is informational.
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

/// Parses the record type of a query.
fn question(query: Query) -> Result<(String, DnsRecordKind), HostError> {
    let kind: Result<DnsRecordKind, _> = query.kind.parse();
    let kind = kind.map_err(|error| HostError::Invalid(error.to_string()))?;
    Ok((query.name, kind))
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
        // DNSSEC is not validated, so no answer is reported as secure.
        secure: false,
    })
}
