//! The hooks around an attempt, on-deliver and on-delivery-result: the input of plugins, the meaning of their verdicts,
//! and the effect of their edits on the attempt.
//!
//! A plugin sees session and transaction as they were frozen at the commit, the message as it is in the spool, and the
//! attempt. Edits in on-deliver apply to this attempt only. The message in the spool never changes, and the next attempt
//! begins with it. Notes, facts, scores and authentication results that plugins set in on-delivery-result are stored
//! (`context_changes.rs`), so the next attempt sees them in the transaction.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use pintle_mail::{
    BodyType, Bytes, EnhancedCode, Envelope, HeaderBlock, NextHop, QueueId, Recipient, Reply, SessionId,
    TlsPolicy, UnixTime,
};
use pintle_policy::{
    Call, Chain, Decision, Delivery, DeliveryOutcome, Fate, Frozen, Hook, JudgeStep, Leases, Message,
    RequestedFate, Session, Verdict, View,
};
use pintle_queue::Attempt;
use pintle_record::{PluginStep, RecordSink};
use pintle_sender_auth::sign::SigningRequest;
use pintle_spool::Stored;

use crate::Config;
use crate::context_changes::ContextChanges;
use crate::parts::OutboundShared;
use crate::plan::{DeliveryPlan, HopTarget};

/// The decision of the Deliver stage.
pub(crate) enum DeliverDecision {
    /// Deliver by this plan.
    Send(Box<DeliveryPlan>),
    /// Do not deliver now.
    Stop(StoppedDelivery),
}

/// A delivery that a plugin or an error has stopped.
pub(crate) struct StoppedDelivery {
    pub(crate) action: StopAction,
    /// The plugin that decided; none after an error of ours.
    pub(crate) by: Option<Arc<str>>,
    /// How the message would have been delivered.
    pub(crate) plan: Box<DeliveryPlan>,
}

impl StoppedDelivery {
    /// A delivery that an error of ours has stopped.
    fn deferred(reply: Reply, plan: Box<DeliveryPlan>) -> Self {
        Self { action: StopAction::Defer(reply), by: None, plan }
    }
}

/// The action in place of a delivery.
pub(crate) enum StopAction {
    /// The recipients fail with this reply.
    Fail(Reply),
    /// The recipients are deferred with this reply.
    Defer(Reply),
}

/// The input of the Deliver stage, in an attempt and in a dry run.
pub(crate) struct DeliverStage<'a> {
    pub(crate) chain: &'a Chain,
    pub(crate) config: &'a Config,
    pub(crate) records: &'a dyn RecordSink,
    pub(crate) now: UnixTime,
    /// How long ago the message was accepted.
    pub(crate) age: Duration,
}

/// An attempt, real or in a dry run, before any plugin was asked.
pub(crate) struct ProposedAttempt<'a> {
    pub(crate) next_hop: &'a NextHop,
    pub(crate) recipients: &'a [u32],
    /// The number of the attempt, from 1.
    pub(crate) number: u32,
}

/// Asks the plugins before an attempt.
pub(crate) async fn deliver(
    shared: &OutboundShared,
    config: &Config,
    stored: &Stored,
    attempt: &Attempt,
) -> DeliverDecision {
    let stage = DeliverStage {
        chain: &shared.chain.load_full(),
        config,
        records: &*shared.records,
        now: shared.clock.now(),
        age: shared.ages.since(stored.entry.received),
    };
    let proposed = ProposedAttempt {
        next_hop: &attempt.next_hop,
        recipients: &attempt.recipients,
        number: attempt.attempts.saturating_add(1),
    };
    stage.run(stored, &proposed).await.1
}

impl DeliverStage<'_> {
    /// Asks the plugins and signs the message. Returns the decision of the chain, and its consequence for the attempt.
    pub(crate) async fn run(
        &self,
        stored: &Stored,
        proposed: &ProposedAttempt<'_>,
    ) -> (Decision, DeliverDecision) {
        let plan = first_plan(self.config, stored, proposed);
        if !self.chain.wants(Hook::Deliver) && !self.chain.wants(Hook::DeliveryResult) {
            return (Decision::none(), DeliverDecision::Send(Box::new(plan)));
        }
        let mut view = match self.view_of(stored, proposed, &plan) {
            Ok(view) => view,
            Err(reply) => {
                let stopped = StoppedDelivery::deferred(reply, Box::new(plan));
                return (Decision::none(), DeliverDecision::Stop(stopped));
            }
        };
        let decision = self.chain.judge(&Call::Deliver, &mut view).await;
        record_steps(self.records, self.now, stored, Hook::Deliver, &decision.steps);
        let plan = Box::new(apply_edits(plan, view, self.config));
        let mut plan = match decide(decision.clone(), plan) {
            DeliverDecision::Send(ready) => ready,
            stopped @ DeliverDecision::Stop(_) => return (decision, stopped),
        };
        drop_discarded(&mut plan);
        let signed = match sign(&mut plan, self.config, self.now).await {
            Ok(()) => DeliverDecision::Send(plan),
            Err(reply) => DeliverDecision::Stop(StoppedDelivery::deferred(reply, plan)),
        };
        (decision, signed)
    }

    fn view_of(
        &self,
        stored: &Stored,
        proposed: &ProposedAttempt<'_>,
        plan: &DeliveryPlan,
    ) -> Result<View, Reply> {
        let mut view = frozen_view(stored)?;
        if let Some(transaction) = &mut view.transaction {
            // What the next hop will be told, by which the host encodes new fields, and not what the client said.
            Arc::make_mut(transaction).envelope.params.smtputf8 = plan.envelope.params.smtputf8;
        }
        let mut message =
            Message::new(HeaderBlock::parse(without_empty_line(&plan.head)), Some(Arc::clone(&plan.body)));
        message.has_8bit = stored.entry.has_8bit;
        view.message = Some(Arc::new(message));
        view.delivery = Some(Arc::new(Delivery {
            attempt: proposed.number,
            age: self.age,
            recipients: plan.envelope.recipients.clone(),
            next_hop: plan.target.next_hop.clone(),
            unlisted: false,
            tls: plan.target.tls,
            tls_asked: None,
            source: None,
            credentials: None,
            retry_after: None,
            no_bounce: Vec::new(),
            leases: Leases::default(),
        }));
        Ok(view)
    }
}

/// Puts the signatures that plugins have asked for above the message as they have left it.
///
/// # Errors
/// The reply that defers a message that cannot be signed now.
async fn sign(plan: &mut DeliveryPlan, config: &Config, now: UnixTime) -> Result<(), Reply> {
    let wanted = plan.view.as_ref().and_then(|view| view.message.as_ref()).map(|message| &message.sign);
    let Some(names) = wanted.filter(|names| !names.is_empty()) else {
        return Ok(());
    };
    let header = HeaderBlock::parse(without_empty_line(&plan.head));
    let request = SigningRequest { id: plan.id, names, header: &header, body: &*plan.body, now };
    let fields = request
        .sign(&config.keys)
        .await
        .map_err(|_| Reply::new(451, EnhancedCode(4, 3, 0), "the message cannot be signed now"))?;
    if !fields.is_empty() {
        plan.head = [&fields, plan.head.as_ref()].concat().into();
    }
    Ok(())
}

/// Tells the plugins how the attempt ended. Afterwards the plan contains their choices about retries and reports.
/// Returns what they want stored with the message, if anything.
pub(crate) async fn result(
    shared: &OutboundShared,
    stored: &Stored,
    plan: &mut DeliveryPlan,
    outcomes: Vec<DeliveryOutcome>,
) -> Option<ContextChanges> {
    let chain = shared.chain.load_full();
    if !chain.wants(Hook::DeliveryResult) {
        return None;
    }
    let mut view = plan.view.take()?;
    let outcomes: Arc<[DeliveryOutcome]> = outcomes.into();
    let (steps, lasting) = chain.delivery_result(&outcomes, &mut view).await;
    record_steps(&*shared.records, shared.clock.now(), stored, Hook::DeliveryResult, &steps);
    if let Some(delivery) = view.delivery {
        plan.retry_after = delivery.retry_after;
        plan.no_bounce = delivery.no_bounce.iter().copied().collect();
    }
    ContextChanges::of(lasting)
}

fn first_plan(config: &Config, stored: &Stored, proposed: &ProposedAttempt<'_>) -> DeliveryPlan {
    let entry = &stored.entry;
    let mut target = HopTarget::of(proposed.next_hop, config);
    if entry.envelope.params.require_tls {
        // RFC 8689 section 4.2.1: every hop is authenticated. The session itself asks for REQUIRETLS.
        target.tls = TlsPolicy::Verified;
    }
    DeliveryPlan {
        id: stored.id,
        envelope: envelope_for(stored, proposed.recipients),
        head: stored.head.clone(),
        body: Arc::clone(&stored.body),
        has_8bit: entry.has_8bit,
        target,
        discarded: Vec::new(),
        retry_after: None,
        no_bounce: HashSet::new(),
        view: None,
    }
}

/// The envelope of the attempt's recipients that are still pending, with the parameters that the content needs in place
/// of those that the client gave.
fn envelope_for(stored: &Stored, ids: &[u32]) -> Envelope {
    let whole = &stored.entry.envelope;
    let mut params = whole.params.clone();
    params.smtputf8 = stored.entry.needs_smtputf8;
    if stored.entry.has_8bit && params.body == BodyType::SevenBit {
        params.body = BodyType::EightBitMime;
    }
    let pending = |id: u32| {
        let mut states = stored.recipients.iter();
        states.any(|state| state.id == id && state.status.pending().is_some())
    };
    let chosen = |recipient: &&Recipient| ids.contains(&recipient.id) && pending(recipient.id);
    Envelope {
        sender: whole.sender.clone(),
        params,
        recipients: whole.recipients.iter().filter(chosen).cloned().collect(),
    }
}

/// Session and transaction as they were at the commit, and as the results of later attempts have left them.
fn frozen_view(stored: &Stored) -> Result<View, Reply> {
    let frozen = frozen_of(stored).map_err(|error| {
        metrics::counter!("pintle_unreadable_contexts_total").increment(1);
        tracing::error!(
            queue_id = %stored.id, %error,
            "the stored context of the session cannot be read, perhaps since a later version wrote it: plugins cannot be \
             asked, and the message waits; go back to that version, or `pintle queue bounce` it"
        );
        // RFC 3463 section 3.4: X.3.0, the system.
        let text = "the stored context of this message cannot be read; it waits for the operator";
        Reply::new(451, EnhancedCode(4, 3, 0), text)
    })?;
    Ok(frozen.thaw(stored.id, stored.entry.envelope.clone()))
}

/// The stored context. A message from a client must never be treated as one of ours, which is trusted and signed in our
/// name: if its context cannot be read, the message waits and the context is kept.
///
/// # Errors
/// The context cannot be read.
pub(crate) fn frozen_of(stored: &Stored) -> Result<Frozen, String> {
    let entry = &stored.entry;
    if entry.context.is_empty() && entry.parent.is_some() {
        let transaction = pintle_policy::Transaction::new(stored.id, entry.envelope.clone());
        return Ok(Frozen::of(&own_session(stored), &transaction));
    }
    Frozen::from_bytes(&entry.context).map_err(|error| error.to_string())
}

/// The session that plugins see for a message that we wrote ourselves, which came in none: one with ourselves.
fn own_session(stored: &Stored) -> Session {
    let nowhere = std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, 0));
    let id = SessionId::from_bytes(stored.id.to_bytes());
    let session = Session::new(id, "local".to_owned(), nowhere, nowhere, stored.entry.received);
    Session { esmtp: true, trusted: true, ..session }
}

fn without_empty_line(head: &Bytes) -> Bytes {
    let end = match head.as_ref() {
        b"\r\n" => 0,
        head if head.ends_with(b"\r\n\r\n") => head.len() - 2,
        head => head.len(),
    };
    head.slice(..end)
}

/// The plan as the plugins' edits leave it.
fn apply_edits(mut plan: DeliveryPlan, view: View, config: &Config) -> DeliveryPlan {
    if let Some(transaction) = &view.transaction {
        plan.envelope.sender = transaction.envelope.sender.clone();
    }
    if let Some(message) = &view.message {
        if message.header_edited() {
            plan.head = [message.header.as_bytes().as_ref(), b"\r\n"].concat().into();
        }
        if let Some(body) = &message.body {
            plan.body = Arc::clone(body);
        }
        plan.has_8bit |= message.has_8bit;
        if plan.has_8bit && plan.envelope.params.body == BodyType::SevenBit {
            plan.envelope.params.body = BodyType::EightBitMime;
        }
    }
    if let Some(delivery) = &view.delivery {
        plan.target = HopTarget {
            tls: tls_policy(delivery, config, plan.id),
            next_hop: delivery.next_hop.clone(),
            unlisted: delivery.unlisted,
            source: delivery.source,
            credentials: delivery.credentials.clone(),
        };
        plan.retry_after = delivery.retry_after;
        plan.no_bounce = delivery.no_bounce.iter().copied().collect();
    }
    if plan.envelope.params.require_tls {
        // No plugin can take back what the sender demanded.
        plan.target.tls = TlsPolicy::Verified;
    }
    plan.view = Some(view);
    plan
}

/// The TLS policy for the next hop: what the configuration demands, or more where plugins have asked for more.
fn tls_policy(delivery: &Delivery, config: &Config, id: QueueId) -> TlsPolicy {
    let floor = config.tls_for(&delivery.next_hop);
    let asked = delivery.tls_asked.unwrap_or(floor);
    if asked < floor {
        tracing::warn!(queue_id = %id, next_hop = %delivery.next_hop, ?asked, demanded = ?floor,
            "a plugin asks for less TLS than the configuration demands of the next hop; the configuration counts");
    }
    floor.max(asked)
}

fn decide(decision: Decision, plan: Box<DeliveryPlan>) -> DeliverDecision {
    // RFC 3463 section 3.8: X.7.1, delivery not authorised.
    let refused =
        |code, class| Reply::new(code, EnhancedCode(class, 7, 1), "refused by the policy of this gateway");
    let action = match decision.verdict {
        Verdict::Next | Verdict::Accept => return DeliverDecision::Send(plan),
        Verdict::Reject(reply) => StopAction::Fail(reply.unwrap_or_else(|| refused(554, 5))),
        Verdict::Defer(reply) => StopAction::Defer(reply.unwrap_or_else(|| refused(451, 4))),
    };
    DeliverDecision::Stop(StoppedDelivery { action, by: decision.by, plan })
}

/// Takes the recipients out of the plan whose copies plugins drop. Requests about recipients of other deliveries have no
/// effect, and no other fate can be requested at this stage.
fn drop_discarded(plan: &mut DeliveryPlan) {
    let Some(transaction) = plan.view.as_ref().and_then(|view| view.transaction.as_ref()) else { return };
    let fates = &transaction.fates;
    plan.envelope.recipients.retain(|recipient| match fates.of(recipient.id) {
        Some(RequestedFate { fate: Fate::Discard, by, .. }) => {
            plan.discarded.push((recipient.id, Arc::clone(by)));
            false
        }
        Some(_) | None => true,
    });
}

fn record_steps(records: &dyn RecordSink, now: UnixTime, stored: &Stored, hook: Hook, steps: &[JudgeStep]) {
    for step in steps {
        let step = PluginStep {
            plugin: &step.judge,
            hook: hook.name(),
            verdict: step.verdict,
            overruled: step.overruled,
            fault: step.fault.as_ref().map(|fault| (fault.kind.name(), fault.text.as_str())),
            session: None,
            id: Some(stored.id),
        };
        step.record(records, now);
    }
}
