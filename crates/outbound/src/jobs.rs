//! Makes jobs of the queue from a message in the spool: one for each next hop of its pending recipients, and for each
//! combination of groups that plugins have put them into. The limits of the queue (throttle, retry policy) are taken from
//! the configuration here as well.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use pintle_mail::NextHop;
use pintle_queue::{HoldState, Job, Timeline};
use pintle_spool::{Waiting, WaitingRecipient};

use crate::Config;

/// Attempts for one next hop that may be under way for each of its sessions. More than one, since a session is free for
/// the next attempt before the last one is durably settled.
const ATTEMPTS_PER_SESSION: usize = 4;
/// The most concurrent attempts for a next hop that has not accepted mail yet.
const INITIAL_ATTEMPTS: usize = 5;
static NO_GROUPS: BTreeMap<String, String> = BTreeMap::new();

/// The queue's part of the configuration.
pub(crate) fn queue_config(config: &Config) -> pintle_queue::Config {
    let attempts = |sessions: usize| sessions.max(1) * ATTEMPTS_PER_SESSION;
    let relay_limit = |(name, relay): (&String, &crate::Relay)| {
        let limit = attempts(relay.sessions?);
        Some([(NextHop::Relay(name.clone()), limit), (NextHop::Lmtp(name.clone()), limit)])
    };
    pintle_queue::Config {
        per_hop: attempts(config.sessions.per_hop),
        overrides: config.relays.iter().filter_map(relay_limit).flatten().collect(),
        initial: INITIAL_ATTEMPTS,
        total: config.sessions.total,
        retry: config.retry.clone(),
    }
}

/// Pending recipients of one message that are delivered together.
pub(crate) struct DeliveryGroup<'w> {
    pub(crate) next_hop: NextHop,
    /// The groups that these recipients have in common, by the name of the plugin; empty for refused ones.
    pub(crate) groups: &'w BTreeMap<String, String>,
    pub(crate) recipients: Vec<&'w WaitingRecipient>,
}

/// One job for each delivery of a message's pending recipients.
pub(crate) fn jobs_of(waiting: &Waiting, hold: HoldState, config: &Config, timeline: &Timeline) -> Vec<Job> {
    let longest = config.retry.longest_wait();
    let job = |group: DeliveryGroup<'_>| Job { hold, ..job_of(waiting, group, longest, timeline) };
    delivery_groups(waiting, config).into_iter().map(job).collect()
}

/// A message's pending recipients by next hop and groups, in the order in which they came. Refused recipients are together
/// whatever their groups, so that the sender gets one report: no plugin is asked about them.
pub(crate) fn delivery_groups<'w>(waiting: &'w Waiting, config: &Config) -> Vec<DeliveryGroup<'w>> {
    let mut deliveries: Vec<DeliveryGroup<'w>> = Vec::with_capacity(1);
    let mut places: HashMap<(NextHop, &BTreeMap<String, String>), usize> = HashMap::with_capacity(1);
    for recipient in &waiting.recipients {
        let next_hop = next_hop_of(recipient, config);
        let groups = if recipient.refused { &NO_GROUPS } else { &recipient.groups };
        let place = *places.entry((next_hop.clone(), groups)).or_insert(deliveries.len());
        match deliveries.get_mut(place) {
            Some(delivery) => delivery.recipients.push(recipient),
            None => deliveries.push(DeliveryGroup { next_hop, groups, recipients: vec![recipient] }),
        }
    }
    deliveries
}

/// The next hop of a recipient: the operator's choice, or that of the routes. One that plugins have refused goes to no
/// host, so that its report does not wait for one.
pub(crate) fn next_hop_of(recipient: &WaitingRecipient, config: &Config) -> NextHop {
    match &recipient.route {
        _ if recipient.refused => NextHop::Discard,
        Some(route) => route.clone(),
        None => config.next_hop(&recipient.domain),
    }
}

/// Stored times were written by a clock that may have been wrong: a job that was never tried is due now, and none is
/// due later than the longest back-off.
fn job_of(waiting: &Waiting, delivery: DeliveryGroup<'_>, longest: Duration, timeline: &Timeline) -> Job {
    let DeliveryGroup { next_hop, groups, recipients } = delivery;
    let ids: Vec<u32> = recipients.iter().map(|recipient| recipient.id).collect();
    let mut job = Job::new(waiting.id, next_hop, ids, timeline.place(waiting.age_from()));
    job.groups.clone_from(groups);
    job.attempts = recipients.iter().map(|r| r.attempts).max().unwrap_or(0);
    let tried = recipients.iter().filter(|_| job.attempts > 0);
    job.due = tried
        .map(|recipient| timeline.place_ahead(recipient.next_attempt, longest))
        .min()
        .unwrap_or_else(|| timeline.now());
    job.warned = recipients.iter().all(|r| r.warned);
    job
}
