//! One delivery attempt: the plugins' say, the exchange with the next hop, and the durable outcome.

#![expect(clippy::vec_box, reason = "a session is moved from owner to owner as its box")]

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pintle_mail::{NextHop, UnixTime};
use pintle_policy::DeliveryOutcome;
use pintle_queue::{Again, Attempt, AttemptReport, HoldState, HopSign};
use pintle_record::PeerMembers;
use pintle_smtp::client::ReplyOutcome;
use pintle_spool::{HoldReason, SpoolError, Stored};

use crate::Config;
use crate::clock::monotonic;
use crate::connect_failure::ConnectFailure;
use crate::connection::ClientConnection;
use crate::exchange::{self, ExchangeResult};
use crate::finished::{Finished, interrupted};
use crate::parts::OutboundShared;
use crate::plan::DeliveryPlan;
use crate::recipient_result::{DiscardStage, RecipientResult, ReportPolicy, Resolution};
use crate::refusal;
use crate::replies::{ExchangeReplies, RecipientReply};
use crate::settle::{self, SettleCause};
use crate::stages::{self, DeliverDecision, StopAction, StoppedDelivery};

/// Makes the attempt. The job always comes back in the result, even after an error.
pub(crate) async fn run(shared: Arc<OutboundShared>, attempt: Attempt) -> Option<Finished> {
    let config = shared.config.load_full();
    let stored = match shared.spool.load(attempt.message).await {
        Ok(stored) => stored,
        Err(error) => return Some(unreadable(&attempt, &error)),
    };
    let running = RunningAttempt {
        shared: &shared,
        config: &config,
        stored: &stored,
        attempt: &attempt,
        started: monotonic(),
    };
    Some(running.run().await)
}

/// The result for a message that cannot be read: one that is gone or damaged is not tried again, anything else is.
fn unreadable(attempt: &Attempt, error: &SpoolError) -> Finished {
    let gone = matches!(error, SpoolError::Unknown(_) | SpoolError::Damaged(..));
    if *error != SpoolError::Unknown(attempt.message) {
        tracing::error!(queue_id = %attempt.message, %error, "a message cannot be read, and is not delivered now");
    }
    let report = AttemptReport {
        remaining: if gone { Box::default() } else { attempt.recipients.clone() },
        hop: HopSign::Silent,
        again: Again::BackOff,
        hold: HoldState::Free,
    };
    Finished::new(attempt.id, attempt.message, report)
}

/// An attempt under way.
struct RunningAttempt<'a> {
    shared: &'a OutboundShared,
    config: &'a Arc<Config>,
    stored: &'a Stored,
    attempt: &'a Attempt,
    started: Instant,
}

/// The reply about each recipient, from a next hop or made by us in its place, and what the replies say about the next
/// hop.
struct AttemptReplies {
    replies: Vec<RecipientReply>,
    hop: HopSign,
    /// The next hop takes fewer recipients at once than there are.
    overflow: bool,
    /// The plugin that decided; none if the next hop replied.
    by: Option<Arc<str>>,
    retired: Vec<Box<ClientConnection>>,
}

impl AttemptReplies {
    /// Makes the same reply for all recipients of the plan.
    fn all(plan: &DeliveryPlan, reply: impl Fn(u32) -> RecipientReply) -> Self {
        let recipients = plan.envelope.recipients.iter();
        Self {
            replies: recipients.map(|recipient| reply(recipient.id)).collect(),
            hop: HopSign::Silent,
            overflow: false,
            by: None,
            retired: Vec::new(),
        }
    }

    fn exchanged(exchange: ExchangeReplies) -> Self {
        let replies = &exchange.replies;
        Self {
            hop: if replies.iter().any(RecipientReply::is_hop_trouble) {
                HopSign::Trouble
            } else if replies.iter().any(RecipientReply::is_from_next_hop) {
                HopSign::Working
            } else {
                // A session that broke under one message says little about the next hop and may say much about the
                // message.
                HopSign::Silent
            },
            overflow: exchange.overflow,
            by: None,
            retired: exchange.retired,
            replies: exchange.replies,
        }
    }

    fn no_session(plan: &DeliveryPlan, failure: &ConnectFailure) -> Self {
        let hop = if failure.is_hop_trouble { HopSign::Trouble } else { HopSign::Silent };
        Self { hop, ..Self::all(plan, |id| RecipientReply::no_session(id, failure)) }
    }
}

impl RunningAttempt<'_> {
    async fn run(&self) -> Finished {
        if self.stored.entry.hold.is_some() {
            // It was held after the queue had begun the attempt.
            return self.held(self.stored.entry.hold.as_ref());
        }
        if let Some(finished) = refusal::fail_refused(self.shared, self.stored, self.attempt).await {
            return finished;
        }
        let plan = match stages::deliver(self.shared, self.config, self.stored, self.attempt).await {
            DeliverDecision::Send(plan) => plan,
            DeliverDecision::Stop(stopped) => return self.carry_out(stopped).await,
        };
        if plan.target.next_hop == NextHop::Discard || plan.envelope.recipients.is_empty() {
            return self.discard(&plan).await;
        }
        self.send(plan).await
    }

    /// Carries out a decision that replaces the delivery.
    async fn carry_out(&self, stopped: StoppedDelivery) -> Finished {
        let StoppedDelivery { action, by, plan } = stopped;
        let outcome = match action {
            StopAction::Fail(reply) => ReplyOutcome::Failed(reply),
            StopAction::Defer(reply) => ReplyOutcome::Deferred(reply),
        };
        let all = AttemptReplies::all(&plan, |id| RecipientReply::ours(id, outcome.clone()));
        self.settle(&plan, AttemptReplies { by, ..all }).await
    }

    async fn send(&self, mut plan: Box<DeliveryPlan>) -> Finished {
        let mut replies = match exchange::deliver(self.shared, self.config, &plan).await {
            ExchangeResult::Answered(replies) => AttemptReplies::exchanged(replies),
            ExchangeResult::ConnectFailure(failure) => AttemptReplies::no_session(&plan, &failure),
            ExchangeResult::Interrupted => {
                return self.finished(interrupted(self.attempt.recipients.clone()));
            }
        };
        if replies.hop == HopSign::Trouble && plan.target.next_hop != self.attempt.next_hop {
            // A plugin has chosen another next hop: the trouble is not that of the job's, which others wait for.
            replies.hop = HopSign::Silent;
        }
        if plan.view.is_some() {
            self.tell_plugins(&mut plan, &replies.replies).await;
        }
        self.settle(&plan, replies).await
    }

    /// Tells the plugins how the attempt ended. What they change in the transaction is stored before the outcome is, so
    /// that no later attempt begins without it; if no recipient is left, there is none.
    async fn tell_plugins(&self, plan: &mut DeliveryPlan, replies: &[RecipientReply]) {
        let outcomes = self.delivery_outcomes(replies);
        let changes = stages::result(self.shared, self.stored, plan, outcomes).await;
        let deferred = replies.iter().any(RecipientReply::is_deferred);
        if let Some(changes) = changes.filter(|_| deferred || self.others_wait()) {
            changes.store(self.shared, self.stored.id).await;
        }
    }

    /// Whether recipients outside this attempt were pending when the message was read.
    fn others_wait(&self) -> bool {
        let mine: HashSet<u32> = self.attempt.recipients.iter().copied().collect();
        let mut states = self.stored.recipients.iter();
        states.any(|state| state.status.pending().is_some() && !mine.contains(&state.id))
    }

    /// Settles each recipient by its reply. A deferred one waits for the back-off of the retry policy, or as long as a
    /// plugin said.
    async fn settle(&self, plan: &DeliveryPlan, replies: AttemptReplies) -> Finished {
        let wait = plan.retry_after.unwrap_or_else(|| {
            let count = self.attempt.attempts.saturating_add(1);
            self.config.retry.wait(count, self.shared.random())
        });
        let now = self.shared.clock.now();
        let mut results: Vec<RecipientResult> = plan.discarded.iter().map(dropped).collect();
        let mut remaining = Vec::new();
        for reply in &replies.replies {
            let deferred = reply.is_deferred();
            if deferred {
                remaining.push(reply.outcome.id);
            }
            // A recipient that only waits for the next transaction of the same attempt has not been deferred.
            if !(deferred && replies.overflow) {
                results.push(result_of(reply, plan, now, wait));
            }
        }
        let report = AttemptReport {
            remaining: remaining.into(),
            hop: replies.hop,
            again: if replies.overflow { Again::AtOnce } else { Again::After(wait) },
            hold: HoldState::Free,
        };
        let mut finished = self.durably(&self.cause(plan, replies.by), &results, report).await;
        finished.retired = replies.retired;
        finished
    }

    /// Drops the copies of this attempt's recipients: those that plugins have discarded, and all others of a route that
    /// leads nowhere.
    async fn discard(&self, plan: &DeliveryPlan) -> Finished {
        let route = Resolution::Discarded(DiscardStage::Route);
        let rest = plan.envelope.recipients.iter();
        let rest = rest.map(|recipient| RecipientResult::without_reply(recipient.id, route));
        let results: Vec<RecipientResult> = plan.discarded.iter().map(dropped).chain(rest).collect();
        let report = AttemptReport { hop: HopSign::Silent, ..AttemptReport::settled() };
        self.durably(&self.cause(plan, None), &results, report).await
    }

    /// The result for a message that is held. An operator may have released it since: the queue knows which came later.
    fn held(&self, hold: Option<&HoldReason>) -> Finished {
        let custody = self.config.quarantine.custody(hold, &self.shared.ages.timeline());
        self.finished(AttemptReport { hold: custody, ..interrupted(self.attempt.recipients.clone()) })
    }

    async fn durably(
        &self,
        cause: &SettleCause,
        results: &[RecipientResult],
        report: AttemptReport,
    ) -> Finished {
        match settle::durably(self.shared, self.stored, cause, results).await {
            Ok(()) => {}
            // An operator settled it while the attempt was under way.
            Err(SpoolError::Unknown(_)) => return self.finished(AttemptReport::settled()),
            Err(error) => {
                tracing::error!(queue_id = %self.stored.id, %error, "the outcome of a delivery cannot be stored; it will be made again");
            }
        }
        self.finished(report)
    }

    fn cause(&self, plan: &DeliveryPlan, by: Option<Arc<str>>) -> SettleCause {
        SettleCause::Attempt {
            next_hop: plan.target.next_hop.clone(),
            number: self.attempt.attempts.saturating_add(1),
            took: monotonic().saturating_duration_since(self.started),
            by,
        }
    }

    /// The outcomes in the form in which plugins get them.
    fn delivery_outcomes(&self, replies: &[RecipientReply]) -> Vec<DeliveryOutcome> {
        let took = monotonic().saturating_duration_since(self.started);
        let outcome = |reply: &RecipientReply| DeliveryOutcome {
            recipient: reply.outcome.id,
            next_hop: reply.peer.host.clone(),
            reply: Some(reply.outcome.outcome.reply().clone()),
            status: match reply.outcome.outcome {
                ReplyOutcome::Delivered(_) => pintle_policy::AttemptStatus::Delivered,
                ReplyOutcome::Deferred(_) => pintle_policy::AttemptStatus::Deferred,
                ReplyOutcome::Failed(_) => pintle_policy::AttemptStatus::Failed,
            },
            details: details(&reply.peer, took),
        };
        replies.iter().map(outcome).collect()
    }

    fn finished(&self, report: AttemptReport) -> Finished {
        Finished::new(self.attempt.id, self.attempt.message, report)
    }
}

fn dropped((recipient, by): &(u32, Arc<str>)) -> RecipientResult {
    let end = Resolution::Discarded(DiscardStage::Deliver);
    RecipientResult { dropped_by: Some(Arc::clone(by)), ..RecipientResult::without_reply(*recipient, end) }
}

fn result_of(reply: &RecipientReply, plan: &DeliveryPlan, now: UnixTime, wait: Duration) -> RecipientResult {
    let outcome = &reply.outcome;
    let suppressed = plan.no_bounce.contains(&outcome.id);
    let policy = if suppressed { ReportPolicy::Suppressed } else { ReportPolicy::Due };
    RecipientResult {
        recipient: outcome.id,
        end: match &outcome.outcome {
            ReplyOutcome::Delivered(_) => Resolution::Delivered(reply.success),
            ReplyOutcome::Deferred(_) => Resolution::Deferred(now.plus(wait)),
            ReplyOutcome::Failed(_) => Resolution::Failed(policy),
        },
        reply: Some(outcome.outcome.reply().clone()),
        speaker: outcome.speaker,
        peer: Arc::clone(&reply.peer),
        last_attempt: Some(now),
        dropped_by: None,
    }
}

/// What is known of the session, in the words of the contract (`on-delivery-result`).
fn details(peer: &PeerMembers, took: Duration) -> Vec<(String, String)> {
    let tls = peer.tls.as_ref();
    let details = [
        ("tls.version", tls.map(|tls| tls.version.clone())),
        ("tls.cipher", tls.map(|tls| tls.cipher.clone())),
        ("address", peer.address.map(|address| address.ip().to_canonical().to_string())),
        ("duration-ms", Some(took.as_millis().to_string())),
    ];
    details.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}
