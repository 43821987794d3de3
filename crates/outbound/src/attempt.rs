//! One delivery attempt, from the queue's word to the durable outcome.

#![expect(clippy::vec_box, reason = "a session is moved from owner to owner as its box")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use pintle_mail::{NextHop, UnixTime};
use pintle_queue::{Again, Attempt, AttemptReport, HoldState, HopSign};
use pintle_smtp::client::ReplyOutcome;
use pintle_spool::{Hold, Quarantine, SpoolError, Stored};

use crate::clock::monotonic;
use crate::connect::ConnectFailure;
use crate::connection::ClientConnection;
use crate::exchange::{self, Exchange, ExchangeReplies, Word};
use crate::plan::Plan;
use crate::runner::{Finished, interrupted};
use crate::settle::{self, RecipientResult, ReportPolicy, Resolution, SettleContext};
use crate::shared::OutboundShared;
use crate::stages::{self, Ruled, Ruling, Staged};
use crate::{Config, Full, Room, quarantine, quota};

/// Makes the attempt. Whatever happens, the job comes back.
pub(crate) async fn run(shared: Arc<OutboundShared>, attempt: Attempt) -> Option<Finished> {
    let config = shared.config.load_full();
    let stored = match shared.spool.load(attempt.message).await {
        Ok(stored) => stored,
        Err(error) => return Some(unreadable(&attempt, &error)),
    };
    let trying =
        Trying { shared: &shared, config: &config, stored: &stored, attempt: &attempt, started: monotonic() };
    Some(trying.run().await)
}

/// A message that is gone or set aside needs no attempt; anything else may pass.
fn unreadable(attempt: &Attempt, error: &SpoolError) -> Finished {
    let gone = matches!(error, SpoolError::Unknown(_) | SpoolError::Damaged(..));
    if *error != SpoolError::Unknown(attempt.message) {
        tracing::error!(queue_id = %attempt.message, %error, "a message cannot be delivered");
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
struct Trying<'a> {
    shared: &'a OutboundShared,
    config: &'a Arc<Config>,
    stored: &'a Stored,
    attempt: &'a Attempt,
    started: Instant,
}

/// What was said about each recipient, by a next hop or in its place.
struct Heard {
    words: Vec<Word>,
    hop: HopSign,
    /// The next hop took only so many recipients at once.
    overflow: bool,
    /// The plugin that decided, if one did.
    by: Option<String>,
    retired: Vec<Box<ClientConnection>>,
}

impl Heard {
    /// The same word for everybody.
    fn all(plan: &Plan, word: impl Fn(u32) -> Word) -> Self {
        let recipients = plan.envelope.recipients.iter();
        Self {
            words: recipients.map(|recipient| word(recipient.id)).collect(),
            hop: HopSign::Silent,
            overflow: false,
            by: None,
            retired: Vec::new(),
        }
    }

    fn answer(answer: ExchangeReplies) -> Self {
        let words = &answer.words;
        Self {
            hop: if words.iter().any(Word::is_hop_trouble) {
                HopSign::Trouble
            } else if words.iter().any(Word::is_heard) {
                HopSign::Working
            } else {
                // A session that broke under one message says little about the next hop and may say much about the
                // message.
                HopSign::Silent
            },
            overflow: answer.overflow,
            by: None,
            retired: answer.retired,
            words: answer.words,
        }
    }

    fn trouble(plan: &Plan, trouble: &ConnectFailure) -> Self {
        let hop = if trouble.hop { HopSign::Trouble } else { HopSign::Silent };
        Self { hop, ..Self::all(plan, |id| Word::trouble(id, trouble)) }
    }
}

impl Trying<'_> {
    async fn run(&self) -> Finished {
        if self.stored.entry.hold.is_some() {
            // It was held after the queue had let it go.
            return self.held(self.stored.entry.hold.as_ref());
        }
        let plan = match stages::deliver(self.shared, self.config, self.stored, self.attempt).await {
            Staged::Go(plan) => plan,
            Staged::Decided(ruled) => return self.obey(ruled).await,
        };
        if plan.target.next_hop == NextHop::Discard || plan.envelope.recipients.is_empty() {
            return self.discard(&plan, "route", None).await;
        }
        self.send(plan).await
    }

    /// Does what a verdict says in place of a delivery.
    async fn obey(&self, ruled: Ruled) -> Finished {
        let Ruled { ruling, by, plan } = ruled;
        let outcome = match ruling {
            Ruling::Quarantine(name) => match self.room(&name).await {
                Ok(_room) => return self.quarantine(name, by).await,
                // It waits in the queue, where its age is counted.
                Err(full) => ReplyOutcome::Deferred(full.reply()),
            },
            Ruling::Discard => return self.discard(&plan, "deliver", by).await,
            Ruling::Fail(reply) => ReplyOutcome::Failed(reply),
            Ruling::Defer(reply) => ReplyOutcome::Deferred(reply),
        };
        let heard = Heard { by, ..Heard::all(&plan, |id| Word::ours(id, outcome.clone())) };
        self.settle(&plan, heard).await
    }

    async fn send(&self, mut plan: Box<Plan>) -> Finished {
        let heard = match exchange::deliver(self.shared, self.config, &plan).await {
            Exchange::Answered(answer) => Heard::answer(answer),
            Exchange::ConnectFailure(trouble) => Heard::trouble(&plan, &trouble),
            Exchange::Interrupted => return self.finished(interrupted(self.attempt.recipients.clone())),
        };
        if plan.view.is_some() {
            stages::result(self.shared, self.stored, &mut plan, told(&heard)).await;
        }
        self.settle(&plan, heard).await
    }

    async fn settle(&self, plan: &Plan, heard: Heard) -> Finished {
        let wait = plan.retry_after.unwrap_or_else(|| {
            let count = self.attempt.attempts.saturating_add(1);
            self.config.retry.wait(count, self.shared.roll())
        });
        let now = self.shared.clock.now();
        let mut results = self.dropped(plan);
        let mut remaining = Vec::new();
        for word in &heard.words {
            let deferred = word.is_deferred();
            if deferred {
                remaining.push(word.outcome.id);
            }
            // Who is only waiting for the next transaction of the same attempt has not been deferred.
            if !(deferred && heard.overflow) {
                results.push(fate_of(word, plan, now, wait));
            }
        }
        let report = AttemptReport {
            remaining: remaining.into(),
            hop: heard.hop,
            again: if heard.overflow { Again::AtOnce } else { Again::After(wait) },
            hold: HoldState::Free,
        };
        let context = self.context(plan, heard.by, "deliver");
        let mut finished = self.durably(&context, &results, report).await;
        finished.retired = heard.retired;
        finished
    }

    /// Drops the copies of this attempt's recipients.
    async fn discard(&self, plan: &Plan, stage: &'static str, by: Option<String>) -> Finished {
        let mut results = self.dropped(plan);
        results.extend(plan.envelope.recipients.iter().map(|recipient| discarded(recipient.id)));
        let context = self.context(plan, by, stage);
        let report = AttemptReport { hop: HopSign::Silent, ..AttemptReport::settled() };
        self.durably(&context, &results, report).await
    }

    async fn room(&self, name: &str) -> Result<Room, Full> {
        let size = self.stored.head.len() as u64 + self.stored.body.size();
        quota::admit(self.shared, name, size).await
    }

    /// Holds the whole message: a verdict speaks about its content, which all recipients share.
    async fn quarantine(&self, name: String, by: Option<String>) -> Finished {
        let stage = Some("deliver".to_owned());
        let since = self.shared.clock.now();
        let hold = Hold::Quarantine(Quarantine { name, since, by: by.clone(), stage });
        match self.shared.spool.hold(self.stored.id, hold.clone()).await {
            Ok(_) => {
                quarantine::count("quarantined");
                self.shared.tell_hold(self.stored.id, &hold, by.as_deref());
                self.held(Some(&hold))
            }
            Err(SpoolError::Unknown(_)) => self.finished(AttemptReport::settled()),
            Err(error) => {
                tracing::error!(queue_id = %self.stored.id, %error, "a message cannot be held now");
                let again = Again::BackOff;
                self.finished(AttemptReport { again, ..interrupted(self.attempt.recipients.clone()) })
            }
        }
    }

    /// What the attempt has found. An operator may have let go of it since: the queue knows which came later.
    fn held(&self, hold: Option<&Hold>) -> Finished {
        let custody = self.config.quarantine.custody(hold, &self.shared.ages.timeline());
        self.finished(AttemptReport { hold: custody, ..interrupted(self.attempt.recipients.clone()) })
    }

    async fn durably(
        &self,
        context: &SettleContext,
        results: &[RecipientResult],
        report: AttemptReport,
    ) -> Finished {
        match settle::durably(self.shared, self.stored, context, results).await {
            Ok(()) => {}
            // An operator settled it while the attempt was under way.
            Err(SpoolError::Unknown(_)) => return self.finished(AttemptReport::settled()),
            Err(error) => {
                tracing::error!(queue_id = %self.stored.id, %error, "an attempt's outcome cannot be stored");
            }
        }
        self.finished(report)
    }

    fn context(&self, plan: &Plan, by: Option<String>, stage: &'static str) -> SettleContext {
        SettleContext {
            attempt: self.attempt.attempts.saturating_add(1),
            took: monotonic().saturating_duration_since(self.started),
            by,
            stage,
            ..SettleContext::none(plan.target.next_hop.clone())
        }
    }

    /// Pending recipients of this attempt whom a plugin took out of it: their copies are dropped, since nobody would ever
    /// come back for them.
    fn dropped(&self, plan: &Plan) -> Vec<RecipientResult> {
        let kept = |id: u32| plan.envelope.recipients.iter().any(|recipient| recipient.id == id);
        let ids = self.attempt.recipients.iter().copied();
        ids.filter(|id| settle::pending(self.stored, *id).is_some() && !kept(*id)).map(discarded).collect()
    }

    fn finished(&self, report: AttemptReport) -> Finished {
        Finished::new(self.attempt.id, self.attempt.message, report)
    }
}

fn discarded(recipient: u32) -> RecipientResult {
    RecipientResult { end: Resolution::Discarded, ..RecipientResult::nothing(recipient) }
}

fn fate_of(word: &Word, plan: &Plan, now: UnixTime, wait: Duration) -> RecipientResult {
    let heard = &word.outcome;
    let telling =
        if plan.no_bounce.contains(&heard.id) { ReportPolicy::Suppressed } else { ReportPolicy::Due };
    RecipientResult {
        recipient: heard.id,
        end: match &heard.outcome {
            ReplyOutcome::Delivered(_) => Resolution::Delivered(word.success),
            ReplyOutcome::Deferred(_) => Resolution::Deferred(now.plus(wait)),
            ReplyOutcome::Failed(_) => Resolution::Failed(telling),
        },
        reply: Some(heard.outcome.reply().clone()),
        speaker: heard.speaker,
        peer: Arc::clone(&word.peer),
        last_attempt: Some(now),
    }
}

/// The outcomes as the judges hear of them.
fn told(heard: &Heard) -> Vec<pintle_policy::DeliveryOutcome> {
    let tell = |word: &Word| pintle_policy::DeliveryOutcome {
        recipient: word.outcome.id,
        next_hop: word.peer.host.clone(),
        reply: Some(word.outcome.outcome.reply().clone()),
        delivered: matches!(word.outcome.outcome, ReplyOutcome::Delivered(_)),
        retry: word.is_deferred(),
    };
    heard.words.iter().map(tell).collect()
}
