//! Routes that change while jobs wait: each recipient is moved once, and none is lost.

use std::time::Duration;

use pintle_mail::{NextHop, QueueId, UnixTime};
use pintle_queue::{
    Again, AttemptReport, Config, Due, HoldState, HopSign, Job, JobId, JobPhase, Queue, Rerouted,
};
use proptest::prelude::*;

const START: UnixTime = UnixTime::from_millis(1_800_000_000_000);

fn at(seconds: u64) -> UnixTime {
    START.plus(Duration::from_secs(seconds))
}

fn relay(name: &str) -> NextHop {
    NextHop::Relay(name.to_owned())
}

fn job(next_hop: &str, recipients: &[u32]) -> Job {
    Job::new(QueueId::new(START, 1), relay(next_hop), recipients, START)
}

/// Even recipients go to one relay, odd ones to another, and the ninth stays where it is.
fn by_parity(recipient: u32) -> Option<NextHop> {
    (recipient != 9).then(|| relay(if recipient.is_multiple_of(2) { "even" } else { "odd" }))
}

/// Next hop and recipients of each job.
fn all(queue: &Queue, jobs: &[JobId]) -> Vec<(String, Vec<u32>)> {
    assert_eq!(queue.len(), jobs.len());
    let views = jobs.iter().filter_map(|id| queue.job(*id));
    let mut all: Vec<_> = views.map(|view| (view.next_hop.to_string(), view.recipients.to_vec())).collect();
    all.sort();
    all
}

fn attempt(queue: &mut Queue, now: UnixTime) -> Option<JobId> {
    match queue.poll_due(now) {
        Some(Due::Attempt(attempt)) => Some(attempt.id),
        None => None,
        other => panic!("expected an attempt, got {other:?}"),
    }
}

#[test]
fn each_recipient_goes_the_new_way_at_once_in_as_few_jobs_as_can_be() {
    let mut queue = Queue::new(Config::default());
    let jobs = [queue.insert(job("old", &[0, 1, 9])), queue.insert(job("older", &[2, 3]))];
    for _ in &jobs {
        let id = attempt(&mut queue, START).expect("it was due");
        let remaining = if id == jobs[0] { vec![0, 1, 9] } else { vec![2, 3] };
        let failed = AttemptReport { hop: HopSign::Trouble, ..AttemptReport::deferred(remaining) };
        queue.record(id, failed, 0, START);
    }
    assert_eq!(attempt(&mut queue, at(1)), None, "both wait");
    let done = queue.reroute(&jobs, by_parity, at(1));
    assert_eq!((done.moved, done.new.len(), &done.gone[..], done.busy), (4, 2, &jobs[1..], false));
    let expected = [
        ("relay:even".to_owned(), vec![0, 2]),
        ("relay:odd".to_owned(), vec![1, 3]),
        ("relay:old".to_owned(), vec![9]),
    ];
    let now: Vec<JobId> = [jobs[0], done.new[0], done.new[1]].into();
    assert_eq!(all(&queue, &now), expected);
    let tried = [attempt(&mut queue, at(1)), attempt(&mut queue, at(1)), attempt(&mut queue, at(1))];
    assert_eq!(tried.iter().flatten().count(), 2, "the new ways are tried, the old one still waits");
    assert_eq!(queue.reroute(&now, by_parity, at(2)), Rerouted::default(), "nothing is left to move");
}

#[test]
fn what_is_held_stays_held_on_its_new_way() {
    let mut queue = Queue::new(Config::default());
    let held = Job { hold: HoldState::Held, ..job("old", &[0]) };
    let aside = Job { hold: HoldState::Quarantined(at(500)), ..job("old", &[2]) };
    let jobs = [queue.insert(held), queue.insert(aside)];
    let done = queue.reroute(&jobs, by_parity, at(1));
    assert_eq!(done.new.len(), 2, "each kind of hold for itself");
    let phases: Vec<_> = done.new.iter().filter_map(|id| queue.job(*id)).map(|view| view.phase).collect();
    assert_eq!(phases, [JobPhase::Held, JobPhase::Quarantined(at(500))]);
    assert_eq!(
        (attempt(&mut queue, at(2)), queue.snapshot().held, queue.snapshot().hops.len()),
        (None, 2, 1)
    );
}

/// A job whose recipients are in this group of one plugin.
fn in_group(next_hop: &str, group: &str, recipients: &[u32]) -> Job {
    let groups = [("tenants".to_owned(), group.to_owned())].into();
    Job { groups, ..job(next_hop, recipients) }
}

#[test]
fn recipients_in_different_groups_never_share_a_job() {
    let mut queue = Queue::new(Config::default());
    let jobs = [
        queue.insert(in_group("old", "a", &[0, 1])),
        queue.insert(in_group("old", "b", &[2, 3])),
        queue.insert(job("old", &[4])),
        queue.insert(in_group("older", "a", &[6])),
    ];
    let done = queue.reroute(&jobs, by_parity, at(1));
    assert_eq!((done.moved, done.gone.len(), done.new.len()), (6, 4, 5));
    let expected = [
        ("relay:even".to_owned(), vec![0, 6]),
        ("relay:even".to_owned(), vec![2]),
        ("relay:even".to_owned(), vec![4]),
        ("relay:odd".to_owned(), vec![1]),
        ("relay:odd".to_owned(), vec![3]),
    ];
    assert_eq!(all(&queue, &done.new), expected);
    let back = queue.reroute(&done.new, |_| Some(relay("one")), at(2));
    let expected = [
        ("relay:one".to_owned(), vec![0, 6, 1]),
        ("relay:one".to_owned(), vec![2, 3]),
        ("relay:one".to_owned(), vec![4]),
    ];
    assert_eq!(all(&queue, &back.new), expected, "the groups stay with the jobs");
}

#[test]
fn many_groups_of_one_message_are_moved_in_linear_time() {
    let mut queue = Queue::new(Config::default());
    let jobs: Vec<JobId> = (0..10_000).map(|n| queue.insert(in_group("old", &n.to_string(), &[n]))).collect();
    let begun = std::time::Instant::now();
    let done = queue.reroute(&jobs, |_| Some(relay("new")), at(1));
    assert_eq!((done.moved, done.new.len(), queue.len()), (10_000, 10_000, 10_000));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[test]
fn a_job_under_way_is_moved_when_it_has_come_back() {
    let mut queue = Queue::new(Config::default());
    let id = queue.insert(job("old", &[0, 1]));
    assert_eq!(attempt(&mut queue, START), Some(id));
    assert_eq!(queue.reroute(&[id], by_parity, at(1)), Rerouted { busy: true, ..Rerouted::default() });
    assert_eq!(all(&queue, &[id]), [("relay:old".to_owned(), vec![0, 1])]);
    queue.record(id, AttemptReport::deferred(vec![1]), 0, at(2));
    let done = queue.reroute(&[id], by_parity, at(2));
    assert_eq!(done.moved, 1);
    assert_eq!(all(&queue, &done.new), [("relay:odd".to_owned(), vec![1])]);
}

#[test]
fn who_moves_keeps_the_age_and_the_attempts_of_before() {
    let mut queue = Queue::new(Config::default());
    let id = queue.insert(Job { attempts: 4, warned: true, ..job("old", &[1]) });
    let moved = queue.reroute(&[id], by_parity, at(60)).new[0];
    assert_eq!(queue.job(moved).map(|view| view.phase), Some(JobPhase::Waiting(at(60))));
    let Some(Due::Attempt(attempt)) = queue.poll_due(at(60)) else { panic!("it was due") };
    assert_eq!((attempt.id, attempt.attempts), (moved, 4));
    let five_days = 5 * 24 * 3600;
    let again = Again::After(Duration::from_secs(five_days));
    queue.record(moved, AttemptReport { again, ..AttemptReport::deferred(vec![1]) }, 0, at(60));
    assert_eq!(queue.poll_due(at(five_days - 1)), None);
    match queue.poll_due(at(five_days)) {
        Some(Due::Expire(aged)) => assert_eq!((aged.id, aged.accepted), (moved, START)),
        other => panic!("expected an expiry, got {other:?}"),
    }
}

proptest! {
    /// Jobs of one message, three recipients each, in random groups; each round sends each recipient to one of three
    /// relays or leaves it where it is.
    #[test]
    fn no_reroute_loses_a_recipient_or_mixes_groups(
        groups in prop::collection::vec(0..3_usize, 1..6),
        rounds in prop::collection::vec(prop::collection::vec(0..4_usize, 18), 1..5),
    ) {
        let mut queue = Queue::new(Config::default());
        let of = |n: usize| u32::try_from(n).expect("few");
        let group_of = |recipient: u32| groups[recipient as usize / 3];
        let mut jobs: Vec<JobId> = (0..groups.len())
            .map(|n| {
                let recipients = [3 * n, 3 * n + 1, 3 * n + 2].map(of);
                queue.insert(in_group("old", ["a", "b", "c"][groups[n]], &recipients))
            })
            .collect();
        for round in rounds {
            let way = |id: u32| ["x", "y", "z"].get(round[id as usize]).map(|name| relay(name));
            let done = queue.reroute(&jobs, way, at(1));
            jobs.retain(|job| !done.gone.contains(job));
            jobs.extend(done.new);
            prop_assert_eq!(queue.len(), jobs.len());
            let mut seen: Vec<u32> = Vec::new();
            for view in jobs.iter().filter_map(|id| queue.job(*id)) {
                let first = group_of(view.recipients[0]);
                prop_assert!(view.recipients.iter().all(|id| group_of(*id) == first));
                prop_assert!(view.recipients.iter().all(|id| way(*id).is_none_or(|hop| hop == *view.next_hop)));
                seen.extend(view.recipients);
            }
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..of(3 * groups.len())).collect::<Vec<_>>());
        }
    }
}
