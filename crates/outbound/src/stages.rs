//! The hooks around an attempt: what judges see, what their verdicts mean here, and what becomes of their edits.
//!
//! A judge sees session and transaction as they were frozen at the commit, the message as it lies in the spool, and the
//! attempt. Its edits hold for this attempt alone: the spool's copy never changes, and the next attempt begins afresh.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pintle_mail::{
    BodyType, Bytes, EnhancedCode, Envelope, HeaderBlock, NextHop, QueueId, Recipient, Reply, SessionId,
    TlsPolicy, UnixTime,
};
use pintle_policy::{
    Call, Chain, Decision, Delivery, DeliveryOutcome, Frozen, Hook, JudgeStep, Message, Notes, Session,
    Verdict, View,
};
use pintle_queue::Attempt;
use pintle_record::{PluginStep, RecordSink};
use pintle_sender_auth::sign::{self, SignError};
use pintle_spool::Stored;

use crate::Config;
use crate::plan::{Plan, Target};
use crate::shared::OutboundShared;

/// What the Deliver stage came to.
pub(crate) enum Staged {
    /// Deliver so.
    Go(Box<Plan>),
    /// Somebody decided otherwise.
    Decided(Ruled),
}

/// What was decided in place of a delivery.
pub(crate) struct Ruled {
    pub(crate) ruling: Ruling,
    /// Who decided.
    pub(crate) by: Option<String>,
    /// Where the message would have gone.
    pub(crate) plan: Box<Plan>,
}

/// A verdict as it reads here.
pub(crate) enum Ruling {
    /// The recipients fail.
    Fail(Reply),
    /// Not now.
    Defer(Reply),
    /// The copies of these recipients are dropped.
    Discard,
    /// The message goes into the quarantine of this name.
    Quarantine(String),
}

/// What the Deliver stage works with, in an attempt and in a dry run alike.
pub(crate) struct Surroundings<'a> {
    pub(crate) chain: &'a Chain,
    pub(crate) config: &'a Config,
    pub(crate) records: &'a dyn RecordSink,
    pub(crate) now: UnixTime,
    /// How old the message is.
    pub(crate) age: Duration,
}

/// What an attempt is for.
pub(crate) struct Leg<'a> {
    pub(crate) next_hop: &'a NextHop,
    pub(crate) recipients: &'a [u32],
    /// Counted from 1.
    pub(crate) attempt: u32,
}

/// Asks the judges before an attempt.
pub(crate) async fn deliver(
    shared: &OutboundShared,
    config: &Config,
    stored: &Stored,
    attempt: &Attempt,
) -> Staged {
    let surroundings = Surroundings {
        chain: &shared.chain.load_full(),
        config,
        records: &*shared.records,
        now: shared.clock.now(),
        age: shared.ages.since(stored.entry.received),
    };
    let leg = Leg {
        next_hop: &attempt.next_hop,
        recipients: &attempt.recipients,
        attempt: attempt.attempts.saturating_add(1),
    };
    surroundings.stage(stored, &leg).await.1
}

impl Surroundings<'_> {
    /// Asks the judges; gives what they decided, and what that means here.
    pub(crate) async fn stage(&self, stored: &Stored, leg: &Leg<'_>) -> (Decision, Staged) {
        let plan = first_plan(self.config, stored, leg);
        if !self.chain.wants(Hook::Deliver) && !self.chain.wants(Hook::DeliveryResult) {
            return (Decision::none(), Staged::Go(Box::new(plan)));
        }
        let mut view = match self.view_of(stored, leg, &plan) {
            Ok(view) => view,
            Err(reply) => {
                let ruling = Ruling::Defer(reply);
                let decided = Staged::Decided(Ruled { ruling, by: None, plan: Box::new(plan) });
                return (Decision::none(), decided);
            }
        };
        let decision = self.chain.judge(&Call::Deliver, &mut view).await;
        tell_steps(self.records, self.now, stored, Hook::Deliver, &decision.steps);
        let plan = Box::new(edited(plan, view, self.config));
        let mut plan = match ruled(decision.clone(), plan) {
            Staged::Go(ready) => ready,
            decided @ Staged::Decided(_) => return (decision, decided),
        };
        let staged = match sign(&mut plan, self.config, self.now).await {
            Ok(()) => Staged::Go(plan),
            Err(reply) => Staged::Decided(Ruled { ruling: Ruling::Defer(reply), by: None, plan }),
        };
        (decision, staged)
    }

    fn view_of(&self, stored: &Stored, leg: &Leg<'_>, plan: &Plan) -> Result<View, Reply> {
        let mut view = known(stored)?;
        let mut message =
            Message::new(HeaderBlock::parse(without_empty_line(&plan.head)), Some(Arc::clone(&plan.body)));
        message.has_8bit = stored.entry.has_8bit;
        view.message = Some(Arc::new(message));
        view.delivery = Some(Arc::new(Delivery {
            attempt: leg.attempt,
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
        }));
        Ok(view)
    }
}

/// Puts the signatures that judges have asked for above the message as they have left it. One that cannot be made defers
/// the delivery; a message without an author cannot be signed, and goes as it is.
async fn sign(plan: &mut Plan, config: &Config, now: UnixTime) -> Result<(), Reply> {
    let wanted = plan.view.as_ref().and_then(|view| view.message.as_ref()).map(|message| &message.sign);
    let Some(names) = wanted.filter(|names| !names.is_empty()) else {
        return Ok(());
    };
    let failed = |error: &dyn std::fmt::Display| {
        tracing::error!(queue_id = %plan.id, %error, "a message could not be signed");
        Reply::new(451, EnhancedCode(4, 3, 0), "the message cannot be signed now")
    };
    let keys =
        config.keys.named(names).map_err(|name| failed(&format!("there is no key {name} any more")))?;
    let header = HeaderBlock::parse(without_empty_line(&plan.head));
    match sign::sign(&keys, &header, &*plan.body, now).await {
        Ok(fields) => {
            plan.head = [&fields, plan.head.as_ref()].concat().into();
            metrics::counter!("pintle_signatures_total", "kind" => "dkim", "result" => "made").increment(1);
        }
        Err(error @ SignError::NoFrom) => tracing::warn!(queue_id = %plan.id, %error, "not signed"),
        Err(error) => return Err(failed(&error)),
    }
    Ok(())
}

/// Tells the judges how the attempt ended; what they change of retry and reports is in the plan afterwards.
pub(crate) async fn result(
    shared: &OutboundShared,
    stored: &Stored,
    plan: &mut Plan,
    outcomes: Vec<DeliveryOutcome>,
) {
    let chain = shared.chain.load_full();
    if !chain.wants(Hook::DeliveryResult) {
        return;
    }
    let Some(mut view) = plan.view.take() else {
        return;
    };
    let outcomes: Arc<[DeliveryOutcome]> = outcomes.into();
    let steps = chain.delivery_result(&outcomes, &mut view).await;
    tell_steps(&*shared.records, shared.clock.now(), stored, Hook::DeliveryResult, &steps);
    if let Some(delivery) = view.delivery {
        plan.retry_after = delivery.retry_after;
        plan.no_bounce.clone_from(&delivery.no_bounce);
    }
}

fn first_plan(config: &Config, stored: &Stored, leg: &Leg<'_>) -> Plan {
    let entry = &stored.entry;
    let mut target = Target::of(leg.next_hop, config);
    if entry.envelope.params.require_tls {
        // RFC 8689 section 4.2.1: every hop is authenticated; REQUIRETLS itself the session asks for.
        target.tls = TlsPolicy::Verified;
    }
    Plan {
        id: stored.id,
        envelope: envelope_for(stored, leg.recipients),
        head: stored.head.clone(),
        body: Arc::clone(&stored.body),
        has_8bit: entry.has_8bit,
        target,
        retry_after: None,
        no_bounce: Vec::new(),
        view: None,
    }
}

/// The envelope of those recipients of the attempt that are still pending, with the parameters that the content needs
/// rather than those that the client gave.
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

/// Session and transaction as they were at the commit. A stranger's message must never pass for one of ours, which is
/// trusted and signed in our name: what was known of it can be read, or it waits, and the stored octets with it.
fn known(stored: &Stored) -> Result<View, Reply> {
    let (entry, envelope) = (&stored.entry, stored.entry.envelope.clone());
    if entry.context.is_empty() && entry.parent.is_some() {
        let mut view = View::of(own_session(stored));
        view.transaction = Some(Arc::new(pintle_policy::Transaction::new(stored.id, envelope)));
        return Ok(view);
    }
    let frozen = Frozen::from_bytes(&entry.context).map_err(|error| {
        metrics::counter!("pintle_unreadable_contexts_total").increment(1);
        tracing::error!(
            queue_id = %stored.id, %error,
            "what was known of the session cannot be read, perhaps since a later version wrote it: plugins cannot be \
             asked, and the message waits; go back to that version, or `pintle queue bounce` it"
        );
        // RFC 3463 section 3.4: X.3.0, the system.
        let text = "what was known of this message's session cannot be read; it waits for the operator";
        Reply::new(451, EnhancedCode(4, 3, 0), text)
    })?;
    Ok(frozen.thaw(stored.id, envelope))
}

/// Messages that we wrote ourselves came in no session; their judges see one with ourselves.
fn own_session(stored: &Stored) -> Session {
    let nowhere = std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, 0));
    Session {
        id: SessionId::from_bytes(stored.id.to_bytes()),
        listener: "local".to_owned(),
        client: nowhere,
        local: nowhere,
        started: stored.entry.received,
        hello: None,
        esmtp: true,
        tls: None,
        identity: None,
        trusted: true,
        extensions: Vec::new(),
        notes: Notes::default(),
        facts: BTreeMap::new(),
    }
}

fn without_empty_line(head: &Bytes) -> Bytes {
    let end = match head.as_ref() {
        b"\r\n" => 0,
        head if head.ends_with(b"\r\n\r\n") => head.len() - 2,
        head => head.len(),
    };
    head.slice(..end)
}

/// The plan as the edits leave it.
fn edited(mut plan: Plan, view: View, config: &Config) -> Plan {
    if let Some(transaction) = &view.transaction {
        plan.envelope.sender = transaction.envelope.sender.clone();
        let now = |recipient: Recipient| transaction.recipient(recipient.id).cloned();
        plan.envelope.recipients =
            std::mem::take(&mut plan.envelope.recipients).into_iter().filter_map(now).collect();
    }
    if let Some(message) = &view.message {
        let (header, before) = (message.header.as_bytes(), without_empty_line(&plan.head));
        if header.as_ptr() != before.as_ptr() || header.len() != before.len() {
            plan.head = [header.as_ref(), b"\r\n"].concat().into();
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
        plan.target = Target {
            tls: demanded(delivery, config, plan.id),
            next_hop: delivery.next_hop.clone(),
            unlisted: delivery.unlisted,
            source: delivery.source,
            credentials: delivery.credentials.clone(),
        };
        plan.retry_after = delivery.retry_after;
        plan.no_bounce.clone_from(&delivery.no_bounce);
    }
    if plan.envelope.params.require_tls {
        // What the sender demanded no judge can take back.
        plan.target.tls = TlsPolicy::Verified;
    }
    plan.view = Some(view);
    plan
}

/// How much TLS the next hop must take: what the configuration says of it, or more where judges have asked for more.
fn demanded(delivery: &Delivery, config: &Config, id: QueueId) -> TlsPolicy {
    let floor = config.tls_for(&delivery.next_hop);
    let asked = delivery.tls_asked.unwrap_or(floor);
    if asked < floor {
        tracing::warn!(queue_id = %id, next_hop = %delivery.next_hop, ?asked, demanded = ?floor,
            "a plugin asks for less TLS than the configuration demands of the next hop; it gets no less");
    }
    floor.max(asked)
}

fn ruled(decision: Decision, plan: Box<Plan>) -> Staged {
    // RFC 3463 section 3.8: X.7.1, delivery not authorised.
    let refused =
        |code, class| Reply::new(code, EnhancedCode(class, 7, 1), "refused by the policy of this gateway");
    let ruling = match decision.verdict {
        Verdict::Next | Verdict::Accept => return Staged::Go(plan),
        Verdict::Reject(reply) => Ruling::Fail(reply.unwrap_or_else(|| refused(554, 5))),
        // There is no session to close here: what is left of that verdict is "not now".
        Verdict::Defer(reply) | Verdict::Close(reply) => {
            Ruling::Defer(reply.unwrap_or_else(|| refused(451, 4)))
        }
        Verdict::Discard => Ruling::Discard,
        Verdict::Quarantine(name) => Ruling::Quarantine(name),
    };
    Staged::Decided(Ruled { ruling, by: decision.by.map(|by| by.to_string()), plan })
}

fn tell_steps(records: &dyn RecordSink, now: UnixTime, stored: &Stored, hook: Hook, steps: &[JudgeStep]) {
    for step in steps {
        let told = PluginStep {
            plugin: &step.judge,
            hook: hook.name(),
            verdict: step.verdict,
            fault: step.fault.as_ref().map(|fault| (fault.kind.name(), fault.text.as_str())),
            session: None,
            id: Some(stored.id),
        };
        told.record(records, now);
    }
}
