//! Makes jobs of the queue from a message in the spool: one for each next hop of its pending recipients. The limits of
//! the queue (throttle, retry policy) are taken from the configuration here as well.

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

/// One job for each next hop of a message's pending recipients.
pub(crate) fn jobs_of(waiting: &Waiting, hold: HoldState, config: &Config, timeline: &Timeline) -> Vec<Job> {
    let job = |(next_hop, recipients): (NextHop, Vec<&WaitingRecipient>)| Job {
        hold,
        ..job_of(waiting, next_hop, &recipients, config.retry.longest_wait(), timeline)
    };
    by_next_hop(waiting, config).into_iter().map(job).collect()
}

/// A message's pending recipients by the next hop that they go to, in the order in which they came.
pub(crate) fn by_next_hop<'w>(
    waiting: &'w Waiting,
    config: &Config,
) -> Vec<(NextHop, Vec<&'w WaitingRecipient>)> {
    let mut hops: Vec<(NextHop, Vec<_>)> = Vec::with_capacity(1);
    for recipient in &waiting.recipients {
        let next_hop = next_hop_of(recipient, config);
        match hops.iter_mut().find(|(other, _)| *other == next_hop) {
            Some((_, recipients)) => recipients.push(recipient),
            None => hops.push((next_hop, vec![recipient])),
        }
    }
    hops
}

/// The next hop of a recipient: the operator's choice, or that of the routes.
pub(crate) fn next_hop_of(recipient: &WaitingRecipient, config: &Config) -> NextHop {
    if let Some(route) = &recipient.route {
        return route.clone();
    }
    config.next_hop(&recipient.domain)
}

/// Stored times were written by a clock that may have been wrong: a job that was never tried is due now, and none is
/// due later than the longest back-off.
fn job_of(
    waiting: &Waiting,
    next_hop: NextHop,
    recipients: &[&WaitingRecipient],
    longest: Duration,
    timeline: &Timeline,
) -> Job {
    let ids: Vec<u32> = recipients.iter().map(|recipient| recipient.id).collect();
    let mut job = Job::new(waiting.id, next_hop, ids, timeline.place(waiting.age_from()));
    job.attempts = recipients.iter().map(|r| r.attempts).max().unwrap_or(0);
    let tried = recipients.iter().filter(|_| job.attempts > 0);
    job.due = tried
        .map(|recipient| timeline.place_ahead(recipient.next_attempt, longest))
        .min()
        .unwrap_or_else(|| timeline.now());
    job.warned = recipients.iter().all(|r| r.warned);
    job
}
