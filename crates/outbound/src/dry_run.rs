//! A dry run of the Deliver stage: what would go to which next hop, and how, without an attempt.

use std::time::Duration;

use pintle_mail::{Bytes, NextHop, Reply, UnixTime};
use pintle_policy::{Chain, Decision};
use pintle_record::RecordSink;
use pintle_spool::{Stored, Waiting};

use crate::stages::{Leg, Ruled, Ruling, Staged, Surroundings};
use crate::{Config, jobs};

/// One first attempt that would be made.
#[derive(Debug)]
pub struct Delivery {
    /// Where the routes send it; plugins are asked about this one.
    pub routed: NextHop,
    /// Where it would go, as plugins have left it.
    pub next_hop: NextHop,
    /// What the chain decided.
    pub decision: Decision,
    /// Why it would not go now, or not at all: plugins, or a signature that cannot be made.
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
) -> Vec<Delivery> {
    let (waiting, stored) = message;
    let surroundings = Surroundings { chain, config, records, now, age: Duration::ZERO };
    let mut deliveries = Vec::new();
    for (routed, recipients) in jobs::by_next_hop(waiting, config) {
        let ids: Vec<u32> = recipients.iter().map(|recipient| recipient.id).collect();
        let leg = Leg { next_hop: &routed, recipients: &ids, attempt: 1 };
        let (decision, staged) = surroundings.stage(stored, &leg).await;
        let (plan, refused) = match staged {
            Staged::Go(plan) => (plan, None),
            Staged::Decided(Ruled { ruling, plan, .. }) => match ruling {
                Ruling::Fail(reply) | Ruling::Defer(reply) => (plan, Some(reply)),
                Ruling::Discard | Ruling::Quarantine(_) => (plan, None),
            },
        };
        let next_hop = plan.target.next_hop.clone();
        deliveries.push(Delivery { routed, next_hop, decision, refused, head: plan.head });
    }
    deliveries
}
