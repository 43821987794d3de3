//! A dry run of the Deliver stage (`pintle try`): what would go to which next hop, and how, without an attempt.

use std::collections::BTreeMap;
use std::time::Duration;

use pintle_mail::{Bytes, NextHop, Recipient, Reply, UnixTime};
use pintle_policy::{Chain, Decision};
use pintle_record::RecordSink;
use pintle_spool::{Stored, Waiting};

use crate::jobs::DeliveryGroup;
use crate::stages::{DeliverDecision, DeliverStage, ProposedAttempt, StopAction, StoppedDelivery};
use crate::{Config, jobs, recipient_result, refusal};

/// One first attempt that would be made.
#[derive(Debug)]
pub struct PlannedDelivery {
    /// The next hop by the routes, which plugins are asked about.
    pub routed: NextHop,
    /// The next hop as plugins have left it.
    pub next_hop: NextHop,
    /// The recipients of the delivery, those included whose copies plugins drop.
    pub recipients: Vec<Recipient>,
    /// The groups that these recipients have in common, by the name of the plugin.
    pub groups: BTreeMap<String, String>,
    /// The ids of the recipients whose copies plugins drop, each with the plugin's name.
    pub discarded: Vec<(u32, String)>,
    /// The decision of the plugins at the Deliver stage.
    pub decision: Decision,
    /// The reply with which it would be deferred or fail, by a plugin or since it cannot be signed, or with which plugins
    /// refused its recipient at the end of the data; none if it would be sent.
    pub refused: Option<Reply>,
    /// The header block as it would be sent, signatures and the empty line included.
    pub head: Bytes,
}

/// Asks `chain` about each delivery of a message that was just stored, by the routes of `config`. A recipient that plugins
/// have refused is a delivery of its own, about which no plugin is asked.
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
    for group in jobs::delivery_groups(waiting, config) {
        let ids = group.recipients.iter().map(|recipient| recipient.id);
        let (refused, ids): (Vec<u32>, Vec<u32>) =
            ids.partition(|id| refusal::refused(stored, *id).is_some());
        deliveries.extend(refused.into_iter().filter_map(|id| refused_delivery(stored, id, config)));
        if !ids.is_empty() {
            deliveries.push(planned(&stage, stored, &group, &ids).await);
        }
    }
    deliveries
}

async fn planned(
    stage: &DeliverStage<'_>,
    stored: &Stored,
    group: &DeliveryGroup<'_>,
    ids: &[u32],
) -> PlannedDelivery {
    let proposed = ProposedAttempt { next_hop: &group.next_hop, recipients: ids, number: 1 };
    let (decision, outcome) = stage.run(stored, &proposed).await;
    let (plan, refused) = match outcome {
        DeliverDecision::Send(plan) => (plan, None),
        DeliverDecision::Stop(StoppedDelivery { action, plan, .. }) => match action {
            StopAction::Fail(reply) | StopAction::Defer(reply) => (plan, Some(reply)),
        },
    };
    PlannedDelivery {
        routed: group.next_hop.clone(),
        next_hop: plan.target.next_hop.clone(),
        recipients: ids.iter().filter_map(|id| recipient_result::recipient(stored, *id)).cloned().collect(),
        groups: group.groups.clone(),
        discarded: plan.discarded.iter().map(|(id, by)| (*id, by.to_string())).collect(),
        decision,
        refused,
        head: plan.head,
    }
}

fn refused_delivery(stored: &Stored, id: u32, config: &Config) -> Option<PlannedDelivery> {
    let recipient = recipient_result::recipient(stored, id)?.clone();
    let next_hop = config.next_hop(&recipient.address.domain_ascii());
    Some(PlannedDelivery {
        routed: next_hop.clone(),
        next_hop,
        groups: recipient.groups.clone(),
        discarded: Vec::new(),
        decision: Decision::none(),
        refused: recipient.refused.clone(),
        head: stored.head.clone(),
        recipients: vec![recipient],
    })
}
