//! One message over one session: take one that rests or open one, send, let it rest again.

use std::sync::Arc;

use pintle_record::Peer;
use pintle_smtp::client::{Closed, Delivery, Outcome, Protocol, RecipientOutcome, Speaker, Step};

use crate::connect::{self, Trouble};
use crate::link::{Link, Sent};
use crate::plan::Plan;
use crate::reuse::{Slot, Turn};
use crate::shared::Shared;
use crate::{Captured, Config, resolve};

/// What an exchange came to.
pub(crate) enum Exchange {
    /// The next hop, or the capture, has answered for each recipient.
    Answered(Answer),
    /// Nobody was there to answer.
    Trouble(Trouble),
    /// We are stopping.
    Interrupted,
}

/// What the next hop answered.
pub(crate) struct Answer {
    pub(crate) delivery: Delivery,
    pub(crate) peer: Peer,
    /// Whoever took the message is its last stop as far as mail transport goes, so that nobody further on reports.
    pub(crate) last_stop: bool,
    /// A session that has carried enough.
    pub(crate) retired: Option<Box<Link>>,
}

/// Delivers what the plan says.
pub(crate) async fn deliver(shared: &Shared, config: &Arc<Config>, plan: &Plan) -> Exchange {
    if let Some(capture) = &shared.capture {
        return capture_it(capture.as_ref(), config, plan).await;
    }
    loop {
        match shared.pool.turn(&plan.target, config).await {
            Turn::Reuse(slot, link) => {
                // A session that had ended while it rested has been sent nothing of this message.
                if let Ok(answer) = send(config, plan, slot, link, Age::Used).await {
                    return Exchange::Answered(answer);
                }
            }
            Turn::Open(slot) => return open_and_send(shared, config, plan, slot).await,
            Turn::Failed(trouble) => return Exchange::Trouble(trouble),
            Turn::Closed => return Exchange::Interrupted,
        }
    }
}

/// Whether a session has carried messages before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Age {
    New,
    Used,
}

async fn open_and_send(shared: &Shared, config: &Config, plan: &Plan, slot: Slot) -> Exchange {
    // Boxed, since sessions are seldom opened and every attempt would carry the room for it.
    let link = match Box::pin(connect::open(shared, config, plan)).await {
        Ok(link) => link,
        Err(trouble) => {
            slot.fail(&trouble);
            return Exchange::Trouble(trouble);
        }
    };
    match send(config, plan, slot, link, Age::New).await {
        Ok(answer) => Exchange::Answered(answer),
        Err(trouble) => Exchange::Trouble(trouble),
    }
}

/// Sends the message. The trouble means that the session was over before it took anything.
async fn send(
    config: &Config,
    plan: &Plan,
    slot: Slot,
    mut link: Box<Link>,
    age: Age,
) -> Result<Answer, Trouble> {
    let sent = link.send(plan).await;
    let peer = link.peer();
    let delivery = match sent {
        Sent::Done(delivery) if age == Age::Used && is_stale(&delivery) => {
            return Err(Trouble::closed(&Closed::Lost(Step::Idle), peer));
        }
        Sent::Done(delivery) => delivery,
        Sent::Closed(why) => return Err(Trouble::closed(&why, peer)),
    };
    let enough = link.used() >= config.sessions.messages.max(1);
    let retired = match link.rest().await {
        Some(link) if !enough => slot.give_back(link),
        over => over,
    };
    Ok(Answer {
        delivery,
        peer,
        last_stop: resolve::speaks(&plan.target.next_hop, config) == Protocol::Lmtp,
        retired,
    })
}

/// A session that was closed while it rested shows it at the first command: by its end, or by 421. The message has not
/// been sent then, so a new session may have it at once.
fn is_stale(delivery: &Delivery) -> bool {
    let stale = |recipient: &RecipientOutcome| {
        let early = matches!(recipient.step, Step::Idle | Step::Mail | Step::Probe);
        let gone = recipient.speaker == Speaker::Us || recipient.outcome.reply().code == 421;
        early && gone && matches!(recipient.outcome, Outcome::Deferred(_))
    };
    delivery.recipients.iter().all(stale)
}

async fn capture_it(capture: &dyn crate::Capture, config: &Config, plan: &Plan) -> Exchange {
    let captured = Captured {
        id: plan.id,
        envelope: plan.envelope.clone(),
        next_hop: plan.target.next_hop.clone(),
        head: plan.head.clone(),
        body: Arc::clone(&plan.body),
    };
    let reply = capture.capture(captured).await;
    let outcome = match reply.severity() {
        pintle_mail::Severity::Positive => Outcome::Delivered(reply),
        pintle_mail::Severity::Permanent => Outcome::Failed(reply),
        _ => Outcome::Deferred(reply),
    };
    let recipients = plan.envelope.recipients.iter().map(|recipient| RecipientOutcome {
        id: recipient.id,
        outcome: outcome.clone(),
        speaker: Speaker::Us,
        step: Step::End,
        cut: false,
    });
    Exchange::Answered(Answer {
        delivery: Delivery {
            recipients: recipients.collect(),
            dsn: pintle_smtp::client::DsnRelay::NotOffered,
            transfer: config.transfer,
            ended: None,
        },
        peer: Peer::default(),
        last_stop: true,
        retired: None,
    })
}
