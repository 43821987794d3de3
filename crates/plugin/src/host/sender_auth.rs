//! Host functions of `sender-auth`: SPF, DKIM, DMARC and ARC results and signing. Requires the grant `sender-auth`.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use pintle_mail::address::domain_to_ascii;
use pintle_mail::auth_results::ReportedResult;
use pintle_policy::{Edit, Hook, Message};
use pintle_sender_auth as checked;
use wasmtime::component::{HasData, Linker};

use super::checks::need;
use crate::bindings::pintle::plugin::sender_auth::{
    self, ArcResult, DkimResult, DmarcPolicy, DmarcResult, Host, Outcome, SigningKey, SpfResult,
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

/// The data that the interface accesses: the current call, its prefetched lookups, the gateway with its keys, and a
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
    fn of(HostParts { services, state, grants, call, ahead, meter, .. }: HostParts<'a>) -> Self {
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

    fn signing_keys(&mut self, domain: String) -> Result<Vec<SigningKey>, HostError> {
        need(self.grants, GrantKind::Sign)?;
        let domain = domain_to_ascii(&domain);
        let gateway = self.gateway.load();
        let key = |key: &crate::SigningKeyName| SigningKey {
            name: key.name.clone(),
            domain: domain.clone(),
            selector: key.selector.clone(),
        };
        Ok(gateway.keys.get(&domain).into_iter().flatten().map(key).collect())
    }

    fn dkim_sign(&mut self, key: String) -> Result<(), HostError> {
        self.may_sign(&key, &[Hook::Message, Hook::Deliver])?;
        self.call.record(Edit::Sign(key), 0)
    }

    async fn arc_seal(&mut self, key: String) -> Result<(), HostError> {
        self.may_sign(&key, &[Hook::Message])?;
        // The seal records the chain's validation status, so the ARC result must be computed first.
        self.arc().await?;
        self.call.record(Edit::Seal(key), 0)
    }
}

impl SenderAuthView<'_> {
    /// The checks of the mail, available from this hook until reception ends. Deliveries find the results in notes and
    /// facts.
    fn received(&mut self, from: Hook) -> Result<SenderAuthChecks, HostError> {
        need(self.grants, GrantKind::SenderAuth)?;
        let hooks: &[Hook] = match from {
            Hook::Message => &[Hook::Message],
            _ => &[Hook::Mail, Hook::Rcpt, Hook::Headers, Hook::Message],
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

    fn may_sign(&self, key: &str, hooks: &[Hook]) -> Result<(), HostError> {
        need(self.grants, GrantKind::Sign)?;
        self.call.hook.filter(|hook| hooks.contains(hook)).ok_or_else(|| unavailable("signing so"))?;
        if self.gateway.load().has_key(key) {
            return Ok(());
        }
        Err(HostError::Invalid(format!("there is no key {key:?} in the configuration ([dkim_keys.NAME])")))
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
    }
}

fn dkim(result: &checked::DkimResult) -> DkimResult {
    DkimResult {
        outcome: outcome(result.outcome),
        domain: result.domain.clone(),
        selector: result.selector.clone(),
        identity: result.identity.clone(),
        algorithm: result.algorithm.to_owned(),
        signature: result.signature.clone(),
        reason: result.reason.clone(),
    }
}

fn dmarc(result: &checked::DmarcResult) -> DmarcResult {
    DmarcResult {
        outcome: outcome(result.outcome),
        from_domain: result.from_domain.clone(),
        policy: match result.policy {
            checked::DmarcPolicy::None => DmarcPolicy::None,
            checked::DmarcPolicy::Quarantine => DmarcPolicy::Quarantine,
            checked::DmarcPolicy::Reject => DmarcPolicy::Reject,
        },
        spf_aligned: result.spf_aligned,
        dkim_aligned: result.dkim_aligned,
    }
}

fn arc(chain: &checked::ArcResult) -> ArcResult {
    let all = |results: &Vec<ReportedResult>| results.iter().map(reported).collect();
    ArcResult {
        outcome: outcome(chain.outcome),
        sealers: chain.sealers.clone(),
        results: chain.reported.iter().map(all).collect(),
    }
}

fn reported(result: &ReportedResult) -> AuthResult {
    AuthResult {
        method: result.method.clone(),
        outcome: result.outcome.clone(),
        reason: result.reason.clone(),
        properties: result.properties.clone(),
    }
}

fn outcome(outcome: checked::AuthOutcome) -> Outcome {
    use checked::AuthOutcome as Ours;
    match outcome {
        Ours::None => Outcome::None,
        Ours::Neutral => Outcome::Neutral,
        Ours::Pass => Outcome::Pass,
        Ours::Fail => Outcome::Fail,
        Ours::SoftFail => Outcome::Softfail,
        Ours::Policy => Outcome::Policy,
        Ours::TempError => Outcome::Temperror,
        Ours::PermError => Outcome::Permerror,
    }
}
