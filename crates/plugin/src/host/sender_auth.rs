//! Host functions of `sender-auth`: SPF, DKIM, DMARC and ARC results. Requires the grant `sender-auth`.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use pintle_mail::auth_results::ReportedResult;
use pintle_policy::{DmarcDisposition, Edit, Hook, Message};
use pintle_sender_auth as checked;
use wasmtime::component::{HasData, Linker};

use super::auth_results as results;
use super::checks::{self, need};
use crate::bindings::pintle::plugin::sender_auth::{
    self, ArcResult, ArcSet, DkimResult, DmarcResult, Host, SpfResult,
};
use crate::bindings::pintle::plugin::transaction::AuthResult;
use crate::bindings::pintle::plugin::types::HostError;
use crate::call::CallState;
use crate::call::unavailable;
use crate::call_dns::CallDns;
use crate::habits::{Habits, Lookup, Prefetched};
use crate::sender_auth_checks::{self, SenderAuthChecks};
use crate::store_data::{HostParts, StoreData};
use crate::{Gateway, GrantKind, Grants};

/// The hooks of a transaction before it is committed.
const RECEPTION: [Hook; 5] = [Hook::Mail, Hook::Rcpt, Hook::Data, Hook::Headers, Hook::Message];
/// Budget charge for returning one result, in octets.
const RESULT_COST: u64 = 1_024;

/// Adds the interface to the linker.
pub(crate) fn link(linker: &mut Linker<StoreData>) -> wasmtime::Result<()> {
    sender_auth::add_to_linker::<_, SenderAuthInterface>(linker, |data| SenderAuthView::of(data.parts()))
}

struct SenderAuthInterface;

impl HasData for SenderAuthInterface {
    type Data<'a> = SenderAuthView<'a>;
}

/// The data that the interface accesses: the current call, its prefetched lookups, the gateway's name, and a
/// resolver.
pub(crate) struct SenderAuthView<'a> {
    call: &'a mut CallState,
    grants: &'a Grants,
    gateway: &'a ArcSwap<Gateway>,
    ahead: &'a mut Prefetched,
    habits: &'a Habits,
    dns: CallDns<'a>,
}

impl<'a> SenderAuthView<'a> {
    pub(super) fn of(HostParts { services, state, grants, call, ahead, meter, .. }: HostParts<'a>) -> Self {
        Self {
            dns: CallDns::of(services, meter),
            call,
            grants,
            gateway: &services.gateway,
            ahead,
            habits: &state.habits,
        }
    }
}

impl Host for SenderAuthView<'_> {
    async fn spf(&mut self) -> Result<Vec<SpfResult>, HostError> {
        let received = self.received(Hook::Mail)?;
        self.call.budget.charge(RESULT_COST)?;
        self.ahead.asks(self.habits, Lookup::Spf);
        let results = received.spf().await;
        Ok(results.iter().map(spf).collect())
    }

    async fn dkim(&mut self) -> Result<Vec<DkimResult>, HostError> {
        let (received, message) = self.received_message()?;
        self.ahead.asks(self.habits, Lookup::Signatures);
        let results = received.signatures(&message).await.map_err(|error| unreadable(&error))?;
        self.call.budget.charge(RESULT_COST * results.dkim.len() as u64)?;
        Ok(results.dkim.iter().map(dkim).collect())
    }

    async fn dmarc(&mut self) -> Result<DmarcResult, HostError> {
        let (received, message) = self.received_message()?;
        self.call.budget.charge(RESULT_COST)?;
        self.ahead.asks(self.habits, Lookup::Dmarc);
        let result = received.dmarc(&message).await.map_err(|error| unreadable(&error))?;
        Ok(dmarc(&result))
    }

    async fn arc(&mut self) -> Result<ArcResult, HostError> {
        let (received, message) = self.received_message()?;
        self.ahead.asks(self.habits, Lookup::Signatures);
        let results = received.signatures(&message).await.map_err(|error| unreadable(&error))?;
        let reported: usize = results.arc.reported.iter().map(Vec::len).sum();
        self.call.budget.charge(RESULT_COST * (reported + results.arc.sealers.len()) as u64)?;
        Ok(arc(&results.arc))
    }

    async fn results(&mut self, methods: Vec<String>) -> Result<Vec<AuthResult>, HostError> {
        let asks = |method: &str| methods.iter().any(|asked| asked == method);
        let mut results = Vec::new();
        if asks("spf") {
            results.extend(self.spf().await?.into_iter().map(results::of_spf));
        }
        if asks("dkim") {
            results.extend(self.dkim().await?.into_iter().map(results::of_dkim));
        }
        if asks("dmarc") {
            results.push(results::of_dmarc(self.dmarc().await?));
        }
        if asks("arc") {
            results.extend(results::of_arc(self.arc().await?));
        }
        Ok(results)
    }

    fn report_disposition(
        &mut self,
        disposition: String,
        override_reason: Option<String>,
    ) -> Result<(), HostError> {
        need(self.grants, GrantKind::AuthResults)?;
        let hook = self.call.hook.filter(|hook| RECEPTION.contains(hook));
        hook.ok_or_else(|| unavailable("the report to the domain's owner"))?;
        self.call.transaction()?;
        if !["none", "quarantine", "reject"].contains(&disposition.as_str()) {
            return Err(HostError::Invalid(format!(
                "{disposition:?} is no disposition: there are \"none\", \"quarantine\" and \"reject\""
            )));
        }
        if let Some(reason) = &override_reason {
            checks::name("the reason", reason)?;
        }
        self.call.record(Edit::Dmarc(DmarcDisposition { disposition, override_reason }), checks::MAX_NAME)
    }
}

impl SenderAuthView<'_> {
    /// The checks of the mail, available from this hook until reception ends. Deliveries find the results in notes and
    /// facts.
    fn received(&mut self, from: Hook) -> Result<SenderAuthChecks, HostError> {
        need(self.grants, GrantKind::SenderAuth)?;
        let hooks: &[Hook] = match from {
            Hook::Message => &[Hook::Message],
            _ => &RECEPTION,
        };
        let hook = self.call.hook.filter(|hook| hooks.contains(hook));
        hook.ok_or_else(|| unavailable("this check of the sender"))?;
        let (session, transaction) = self.call.mail()?;
        let hostname = self.gateway.load().hostname.clone();
        let patience = sender_auth_checks::patience(self.dns.meter.left(Instant::now()));
        Ok(SenderAuthChecks::new(session, transaction, Arc::clone(self.dns.resolver), hostname, patience))
    }

    fn received_message(&mut self) -> Result<(SenderAuthChecks, Arc<Message>), HostError> {
        let received = self.received(Hook::Message)?;
        let message = Arc::clone(self.call.message()?);
        Ok((received, message))
    }
}

fn unreadable(error: &pintle_mail::BodyError) -> HostError {
    HostError::Temporary(error.to_string())
}

fn spf(result: &checked::SpfResult) -> SpfResult {
    SpfResult {
        outcome: outcome(result.outcome),
        domain: result.domain.clone(),
        mail_from: result.identity == checked::SpfIdentity::MailFrom,
        explanation: result.explanation.clone(),
        mechanism: result.mechanism.clone(),
        problem: result.reason.clone(),
        details: Vec::new(),
    }
}

fn dkim(result: &checked::DkimResult) -> DkimResult {
    DkimResult {
        outcome: outcome(result.outcome),
        domain: result.domain.clone(),
        selector: result.selector.clone(),
        identity: result.identity.clone(),
        reason: result.reason.clone(),
        details: properties(&[("header.a", result.algorithm), ("header.b", &result.signature)]),
    }
}

fn dmarc(result: &checked::DmarcResult) -> DmarcResult {
    DmarcResult {
        outcome: outcome(result.outcome),
        from_domain: result.from_domain.clone(),
        policy: match result.policy {
            checked::DmarcPolicy::None => "none",
            checked::DmarcPolicy::Quarantine => "quarantine",
            checked::DmarcPolicy::Reject => "reject",
        }
        .to_owned(),
        spf_aligned: result.spf_aligned,
        dkim_aligned: result.dkim_aligned,
        details: Vec::new(),
    }
}

fn arc(chain: &checked::ArcResult) -> ArcResult {
    let set = |(sealer, results): (&String, &Vec<ReportedResult>)| ArcSet {
        sealer: sealer.clone(),
        results: results.iter().map(reported).collect(),
    };
    ArcResult {
        outcome: outcome(chain.outcome),
        sets: chain.sealers.iter().zip(&chain.reported).map(set).collect(),
        details: Vec::new(),
    }
}

/// Properties that have a value.
fn properties(given: &[(&str, &str)]) -> Vec<(String, String)> {
    let known = given.iter().filter(|(_, value)| !value.is_empty());
    known.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn reported(result: &ReportedResult) -> AuthResult {
    AuthResult {
        method: result.method.clone(),
        outcome: result.outcome.clone(),
        reason: result.reason.clone(),
        properties: result.properties.clone(),
    }
}

fn outcome(outcome: checked::AuthOutcome) -> String {
    outcome.name().to_owned()
}
