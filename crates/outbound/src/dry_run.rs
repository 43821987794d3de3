//! A dry run of the Deliver stage (`pintle try`): what would go to which next hop, and how, without an attempt.

use std::time::Duration;

use pintle_mail::{Bytes, NextHop, Reply, UnixTime};
use pintle_policy::{Chain, Decision};
use pintle_record::RecordSink;
use pintle_spool::{Stored, Waiting};

use crate::stages::{DeliverDecision, DeliverStage, ProposedAttempt, StopAction, StoppedDelivery};
use crate::{Config, jobs};

/// One first attempt that would be made.
#[derive(Debug)]
pub struct PlannedDelivery {
    /// The next hop by the routes, which plugins are asked about.
    pub routed: NextHop,
    /// The next hop as plugins have left it.
    pub next_hop: NextHop,
    /// The decision of the plugins at the Deliver stage.
    pub decision: Decision,
    /// The reply with which it would be deferred or fail, by a plugin or since it cannot be signed; none if it would be
    /// sent.
    pub refused: Option<Reply>,
    /// The header block as it would be sent, signatures and the empty line included.
    pub head: Bytes,
}

/// Asks `chain` about each next hop of a message that was just stored, by the routes of `config`.
pub async fn deliveries(
    config: &Config,
    chain: &Chain,
    records: &dyn RecordSink,
    message: (&Waiting, &Stored),
    now: UnixTime,
) -> Vec<PlannedDelivery> {
    let (waiting, stored) = message;
    let stage = DeliverStage { chain, config, records, now, age: Duration::ZERO };
    let mut deliveries = Vec::new();
    for (routed, recipients) in jobs::by_next_hop(waiting, config) {
        let ids: Vec<u32> = recipients.iter().map(|recipient| recipient.id).collect();
        let proposed = ProposedAttempt { next_hop: &routed, recipients: &ids, number: 1 };
        let (decision, outcome) = stage.run(stored, &proposed).await;
        let (plan, refused) = match outcome {
            DeliverDecision::Send(plan) => (plan, None),
            DeliverDecision::Stop(StoppedDelivery { action, plan, .. }) => match action {
                StopAction::Fail(reply) | StopAction::Defer(reply) => (plan, Some(reply)),
                StopAction::Discard | StopAction::Quarantine(_) => (plan, None),
            },
        };
        let next_hop = plan.target.next_hop.clone();
        deliveries.push(PlannedDelivery { routed, next_hop, decision, refused, head: plan.head });
    }
    deliveries
}
