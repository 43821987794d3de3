//! Scenarios of the queue, with a clock that stands still until it is moved.

use std::time::Duration;

use pintle_mail::{NextHop, QueueId, UnixTime};
use pintle_queue::{
    Again, Aged, Attempt, AttemptReport, Config, Due, HoldState, HopSign, Job, JobId, JobPhase, Next, Queue,
    RetryPolicy,
};

const START: UnixTime = UnixTime::from_millis(1_800_000_000_000);

fn at(seconds: u64) -> UnixTime {
    START.plus(Duration::from_secs(seconds))
}

fn hop(name: &str) -> NextHop {
    NextHop::Mx(name.to_owned())
}

fn message(n: u128) -> QueueId {
    QueueId::new(START, n)
}

fn job(n: u128, name: &str) -> Job {
    Job::new(message(n), hop(name), vec![0, 1], START)
}

fn config() -> Config {
    let retry = RetryPolicy { jitter: 0, ..RetryPolicy::default() };
    // As if all next hops had worked before.
    Config { initial: usize::MAX, retry, ..Config::default() }
}

fn attempt(queue: &mut Queue, now: UnixTime) -> Attempt {
    match queue.poll_due(now) {
        Some(Due::Attempt(attempt)) => attempt,
        other => panic!("expected an attempt, got {other:?}"),
    }
}

fn attempts(queue: &mut Queue, now: UnixTime) -> Vec<Attempt> {
    std::iter::from_fn(|| queue.poll_due(now))
        .map(|due| match due {
            Due::Attempt(attempt) => attempt,
            other => panic!("expected an attempt, got {other:?}"),
        })
        .collect()
}

fn expiry(queue: &mut Queue, now: UnixTime) -> Aged {
    match queue.poll_due(now) {
        Some(Due::Expire(aged)) => aged,
        other => panic!("expected an expiry, got {other:?}"),
    }
}

fn defer(queue: &mut Queue, id: JobId, now: UnixTime) -> Next {
    queue.record(id, AttemptReport::deferred(vec![1]), 0, now)
}

fn fail_hop(queue: &mut Queue, id: JobId, now: UnixTime) -> Next {
    let report = AttemptReport { hop: HopSign::Trouble, ..AttemptReport::deferred(vec![0, 1]) };
    queue.record(id, report, 0, now)
}

#[test]
fn a_job_is_tried_at_once_and_gone_when_settled() {
    let mut queue = Queue::new(config());
    let id = queue.insert(job(1, "a.example"));
    assert!(queue.poll_timeout().is_some_and(|time| time <= START));
    let attempt = attempt(&mut queue, START);
    assert_eq!((attempt.id, attempt.message, &*attempt.recipients), (id, message(1), &[0, 1][..]));
    assert_eq!(queue.poll_due(START), None);
    assert_eq!(queue.record(id, AttemptReport::settled(), 0, at(1)), Next::Settled);
    assert!(queue.is_empty() && queue.snapshot().hops.is_empty());
    assert_eq!(queue.poll_timeout(), None);
    assert_eq!(queue.record(id, AttemptReport::settled(), 0, at(1)), Next::Unknown);
}

#[test]
fn a_deferred_job_waits_longer_each_time_and_keeps_only_what_remains() {
    let mut queue = Queue::new(config());
    queue.insert(job(1, "a.example"));
    let mut now = START;
    for (tries, minutes) in [1, 5, 15, 30].into_iter().enumerate() {
        let attempt = attempt(&mut queue, now);
        assert_eq!(attempt.attempts as usize, tries);
        let again = now.plus(Duration::from_secs(60 * minutes));
        assert_eq!(defer(&mut queue, attempt.id, now), Next::Again(again));
        assert_eq!(queue.poll_timeout(), Some(again));
        assert_eq!(queue.poll_due(UnixTime::from_millis(again.millis() - 1)), None);
        now = again;
    }
    assert_eq!(*attempt(&mut queue, now).recipients, [1]);
}

#[test]
fn an_overflow_goes_again_at_once_and_does_not_count() {
    let mut queue = Queue::new(config());
    let id = queue.insert(job(1, "a.example"));
    attempt(&mut queue, START);
    let report = AttemptReport { again: Again::AtOnce, ..AttemptReport::deferred(vec![1]) };
    assert_eq!(queue.record(id, report, 0, at(2)), Next::Again(at(2)));
    assert_eq!(attempt(&mut queue, at(2)).attempts, 0);
}

#[test]
fn next_hops_take_turns_whatever_their_size() {
    let mut queue = Queue::new(Config { total: 9, ..config() });
    for n in 0..1_000 {
        queue.insert(job(n, "huge.example"));
    }
    queue.insert(job(2_001, "small.example"));
    queue.insert(job(2_002, "other.example"));
    let order: Vec<String> = attempts(&mut queue, START).iter().map(|a| a.next_hop.to_string()).collect();
    assert_eq!(order.len(), 9);
    for name in ["mx:small.example", "mx:other.example"] {
        assert!(order.iter().position(|hop| hop == name).unwrap() < 3, "{order:?}");
    }
}

#[test]
fn limits_hold_per_hop_and_in_total_and_an_override_counts() {
    let mut queue =
        Queue::new(Config { total: 25, overrides: [(hop("narrow.example"), 2)].into(), ..config() });
    for n in 0..40 {
        queue.insert(job(n, "wide.example"));
        queue.insert(job(n, "narrow.example"));
        queue.insert(job(n, "third.example"));
    }
    let under_way = attempts(&mut queue, START);
    let count = |name| under_way.iter().filter(|a| a.next_hop == hop(name)).count();
    assert_eq!(count("narrow.example"), 2);
    assert!(count("wide.example") <= 15 && count("third.example") <= 15);
    assert_eq!(under_way.len(), 25);
    assert_eq!(queue.poll_due(START), None);
}

#[test]
fn a_next_hop_begins_with_few_attempts_and_earns_more() {
    let mut queue = Queue::new(Config { initial: 5, per_hop: 8, ..config() });
    for n in 0..40 {
        queue.insert(job(n, "silent.example"));
        queue.insert(Job::new(QueueId::new(START, 100 + n), NextHop::Discard, vec![0], START));
    }
    let begun = attempts(&mut queue, START);
    let (sent, dropped): (Vec<_>, Vec<_>) = begun.iter().partition(|a| a.next_hop == hop("silent.example"));
    assert_eq!((sent.len(), dropped.len()), (5, 8), "where nothing is sent nothing is proven");
    // An attempt that was cut off, or stopped by a plugin, proves nothing.
    queue.record(sent[0].id, AttemptReport { hop: HopSign::Silent, ..AttemptReport::settled() }, 0, at(1));
    assert_eq!(attempts(&mut queue, at(1)).len(), 1);
    for attempt in &sent[1..] {
        queue.record(attempt.id, AttemptReport::settled(), 0, at(1));
    }
    assert_eq!(attempts(&mut queue, at(1)).len(), 7, "its limit is 8");
}

#[test]
fn a_next_hop_in_trouble_gets_one_probe_at_a_time() {
    let mut queue = Queue::new(config());
    for n in 0..30 {
        queue.insert(job(n, "down.example"));
    }
    queue.insert(job(99, "up.example"));
    let under_way = attempts(&mut queue, START);
    assert_eq!(under_way.len(), 16);
    for attempt in under_way.iter().filter(|a| a.next_hop == hop("down.example")) {
        assert_eq!(fail_hop(&mut queue, attempt.id, at(1)), Next::Again(at(61)), "fifteen failures are one");
    }
    assert_eq!(queue.poll_due(at(60)), None);
    let probe = attempt(&mut queue, at(61));
    assert_eq!(queue.poll_due(at(61)), None, "a second probe");
    assert_eq!(fail_hop(&mut queue, probe.id, at(62)), Next::Again(at(62 + 120)));
    let probe = attempt(&mut queue, at(182));
    assert_eq!(queue.snapshot().hops[0].failures, 2);
    queue.record(probe.id, AttemptReport::settled(), 0, at(183));
    assert_eq!(attempts(&mut queue, at(183)).len(), 15, "a success lifts it");
}

#[test]
fn the_probe_is_not_always_the_same_job() {
    let mut queue = Queue::new(config());
    for n in 0..3 {
        queue.insert(job(n, "down.example"));
    }
    let first = attempt(&mut queue, START);
    fail_hop(&mut queue, first.id, START);
    let second = attempt(&mut queue, at(60));
    assert_ne!(first.id, second.id);
}

#[test]
fn silence_about_the_hop_leaves_it_as_it_was() {
    let mut queue = Queue::new(config());
    for n in 0..3 {
        queue.insert(job(n, "a.example"));
    }
    let first = attempt(&mut queue, START);
    fail_hop(&mut queue, first.id, START);
    let probe = attempt(&mut queue, at(60));
    let report = AttemptReport {
        hop: HopSign::Silent,
        again: Again::After(Duration::from_secs(7)),
        ..AttemptReport::deferred(vec![0])
    };
    assert_eq!(queue.record(probe.id, report, 0, at(61)), Next::Again(at(68)));
    assert_eq!(queue.snapshot().hops[0].failures, 1);
}

#[test]
fn the_sender_is_warned_once() {
    let mut queue = Queue::new(config());
    let id = tried(&mut queue, job(1, "a.example"), 9 * 3600);
    assert_eq!(queue.poll_timeout(), Some(at(4 * 3600)));
    assert_eq!(queue.poll_due(at(4 * 3600 - 1)), None);
    assert_eq!(warning(&mut queue, at(4 * 3600)), id);
    assert_eq!(queue.poll_due(at(10 * 3600)), None, "nobody tries it while its sender is told");
    let next = queue.record(id, AttemptReport::unchanged([0, 1]), 0, at(4 * 3600 + 1));
    assert_eq!(next, Next::Again(at(9 * 3600)), "a warning changes nothing");
    assert_eq!(queue.poll_due(at(4 * 3600 + 1)), None);
    assert_eq!(attempt(&mut queue, at(9 * 3600)).id, id);
}

fn warning(queue: &mut Queue, now: UnixTime) -> JobId {
    match queue.poll_due(now) {
        Some(Due::Warn(aged)) => {
            assert_eq!(&*aged.recipients, &[0, 1]);
            aged.id
        }
        other => panic!("expected a warning, got {other:?}"),
    }
}

#[test]
fn wishes_for_a_job_whose_sender_is_being_told_are_kept() {
    let told = |request: fn(&mut Queue, JobId)| {
        let mut queue = Queue::new(config());
        let id = queue.insert(job(1, "a.example"));
        attempt(&mut queue, at(1));
        queue.record(id, later(20_000), 0, at(1));
        assert_eq!(warning(&mut queue, at(4 * 3600)), id);
        request(&mut queue, id);
        let next = queue.record(id, AttemptReport::unchanged([0, 1]), 0, at(4 * 3600));
        (queue, next)
    };
    let at_once = Next::Again(at(4 * 3600));
    assert_eq!(told(|queue, job| queue.retry_now(job, at(4 * 3600))).1, at_once);
    assert_eq!(told(|queue, job| queue.remove(job)).1, Next::Removed);
    let (mut queue, next) = told(|queue, job| queue.hold(job));
    assert_eq!((next, queue.poll_due(at(30_000))), (Next::Held, None));
    let (mut queue, next) = told(|queue, job| queue.quarantine(job, at(40_000)));
    assert_eq!((next, queue.poll_due(at(30_000))), (Next::Held, None));
    expiry(&mut queue, at(40_000));
    let quarantined_and_released = |queue: &mut Queue, job: JobId| {
        queue.quarantine(job, at(40_000));
        queue.release(job, None, at(4 * 3600));
    };
    assert_eq!(told(quarantined_and_released).1, at_once);
}

/// Deferred for this long by a next hop that works.
fn later(seconds: u64) -> AttemptReport {
    AttemptReport { again: Again::After(Duration::from_secs(seconds)), ..AttemptReport::deferred([0, 1]) }
}

/// A job that was tried once, as nearly every job is when it grows old.
fn tried(queue: &mut Queue, job: Job, next: u64) -> JobId {
    let id = queue.insert(job);
    assert_eq!(attempt(queue, START).id, id);
    queue.record(id, later(next), 0, START);
    id
}

const FIVE_DAYS: u64 = 5 * 24 * 3600;

fn warned(n: u128, name: &str) -> Job {
    Job { warned: true, ..job(n, name) }
}

#[test]
fn age_ends_a_job_in_every_phase() {
    let mut queue = Queue::new(config());
    let held = queue.insert(Job { hold: HoldState::Held, ..warned(1, "a.example") });
    let waiting = tried(&mut queue, warned(2, "b.example"), FIVE_DAYS + 99);
    let trying = queue.insert(warned(3, "c.example"));
    assert_eq!(attempt(&mut queue, at(1)).id, trying);
    assert_eq!(queue.poll_due(at(FIVE_DAYS - 1)), None);
    let now = at(FIVE_DAYS);
    assert_eq!(expiry(&mut queue, now).id, held);
    assert_eq!(expiry(&mut queue, now).id, waiting);
    assert_eq!(queue.poll_due(now), None, "an attempt under way is let finish");
    assert_eq!(defer(&mut queue, trying, now), Next::Expiring);
    assert_eq!(expiry(&mut queue, now).id, trying);
    for id in [held, waiting, trying] {
        assert_eq!(queue.record(id, AttemptReport::settled(), 0, now), Next::Settled);
    }
    assert!(queue.is_empty());
}

#[test]
fn a_put_off_hop_does_not_keep_a_job_from_expiring() {
    let mut queue = Queue::new(config());
    queue.insert(warned(1, "a.example"));
    let attempt = attempt(&mut queue, at(FIVE_DAYS - 30));
    fail_hop(&mut queue, attempt.id, at(FIVE_DAYS - 30));
    assert_eq!(expiry(&mut queue, at(FIVE_DAYS)).id, attempt.id);
}

#[test]
fn an_expiry_that_could_not_be_settled_comes_again_later() {
    let mut queue = Queue::new(config());
    let id = tried(&mut queue, warned(1, "a.example"), 60);
    let now = at(FIVE_DAYS);
    expiry(&mut queue, now);
    assert_eq!(defer(&mut queue, id, now), Next::Again(now.plus(Duration::from_secs(300))));
    assert_eq!(queue.poll_due(now), None);
    assert_eq!(expiry(&mut queue, at(FIVE_DAYS + 300)).id, id);
}

#[test]
fn nothing_ends_that_was_never_tried_since_the_start() {
    let mut queue = Queue::new(config());
    let old = Job { due: at(FIVE_DAYS + 9_000), attempts: 40, ..job(1, "a.example") };
    let id = queue.insert(old);
    let now = at(FIVE_DAYS + 1);
    assert_eq!(attempt(&mut queue, now).id, id, "neither warned of nor expired, but tried");
    assert_eq!(queue.record(id, AttemptReport::deferred([0, 1]), 0, now), Next::Expiring);
    assert_eq!(expiry(&mut queue, now).id, id);
}

#[test]
fn an_attempt_that_was_cut_off_is_none() {
    let mut queue = Queue::new(config());
    let id = queue.insert(warned(1, "a.example"));
    let now = at(FIVE_DAYS);
    let cut_off =
        AttemptReport { hop: HopSign::Silent, again: Again::AtOnce, ..AttemptReport::deferred([1]) };
    for _ in 0..3 {
        assert_eq!(attempt(&mut queue, now).id, id);
        queue.record(id, cut_off.clone(), 0, now);
    }
    attempt(&mut queue, now);
}

#[test]
fn a_probe_of_a_next_hop_that_is_down_is_an_attempt_for_all_who_wait_for_it() {
    let mut queue = Queue::new(Config { initial: 1, ..config() });
    for n in 0..50 {
        queue.insert(warned(n, "down.example"));
    }
    let now = at(FIVE_DAYS + 5);
    let probe = attempt(&mut queue, now);
    fail_hop(&mut queue, probe.id, now);
    let expired = std::iter::from_fn(|| queue.poll_due(at(FIVE_DAYS + 120)));
    assert_eq!(expired.filter(|due| matches!(due, Due::Expire(_))).count(), 50);
}

#[test]
fn after_the_start_and_after_a_step_of_the_clock_no_age_counts_for_a_while() {
    let mut queue = Queue::new(config());
    queue.clock_stepped(Duration::ZERO, at(FIVE_DAYS - 60));
    let id = tried(&mut queue, job(1, "a.example"), 2 * FIVE_DAYS);
    let hold = 6 * 3600;
    assert_eq!(queue.poll_due(at(FIVE_DAYS + 1)), None);
    assert_eq!(warning(&mut queue, at(FIVE_DAYS - 60 + 12 * 60)), id, "a warning waits less");
    queue.record(id, AttemptReport::unchanged([0, 1]), 0, at(FIVE_DAYS + 700));
    assert_eq!(queue.poll_due(at(FIVE_DAYS - 61 + hold)), None);
    queue.clock_stepped(Duration::ZERO, at(FIVE_DAYS - 60 + hold - 1));
    assert_eq!(queue.poll_due(at(FIVE_DAYS - 60 + hold + 9)), None);
    assert_eq!(expiry(&mut queue, at(FIVE_DAYS - 61 + 2 * hold)).id, id);
}

#[test]
fn a_clock_that_was_ahead_at_the_start_and_is_set_right_makes_everything_younger() {
    let mut queue = Queue::new(config());
    let day = 24 * 3600;
    // The clock is six days ahead.
    let id = tried(&mut queue, warned(1, "a.example"), 3 * FIVE_DAYS);
    queue.clock_stepped(Duration::from_secs(6 * day), at(7 * day));
    assert_eq!(queue.poll_due(at(6 * day + FIVE_DAYS - 1)), None, "accepted on the sixth day");
    assert_eq!(expiry(&mut queue, at(6 * day + FIVE_DAYS)).id, id);
}

#[test]
fn held_jobs_wait_for_their_release() {
    let mut queue = Queue::new(config());
    let id = queue.insert(job(1, "a.example"));
    queue.insert(job(2, "b.example"));
    queue.hold(id);
    assert_eq!(attempts(&mut queue, at(1)).len(), 1);
    assert_eq!(queue.snapshot().held, 1);
    queue.release(id, None, at(2));
    assert_eq!(attempt(&mut queue, at(2)).id, id);
}

/// The host comes back with a job that it has found, or put, on hold.
fn held(queue: &mut Queue, id: JobId, hold: HoldState, now: UnixTime) -> Next {
    let report = AttemptReport { again: Again::AtOnce, hold, ..AttemptReport::deferred(vec![1]) };
    queue.record(id, report, 0, now)
}

#[test]
fn a_release_that_meets_a_job_under_way_outlives_the_hold_it_comes_back_with() {
    let mut queue = Queue::new(config());
    let id = queue.insert(warned(1, "a.example"));
    for (start, hold) in [(0, HoldState::Held), (10, HoldState::Quarantined(at(900)))] {
        attempt(&mut queue, at(start));
        queue.release(id, None, at(start + 1));
        assert_eq!(held(&mut queue, id, hold, at(start + 2)), Next::Again(at(start + 2)));
        // The host finds it held again; without a release in between that counts.
        attempt(&mut queue, at(start + 2));
        assert_eq!(held(&mut queue, id, hold, at(start + 3)), Next::Held);
        assert_eq!(queue.poll_due(at(start + 4)), None);
        queue.release(id, None, at(start + 5));
    }
    // The other way round the hold is later and takes precedence.
    attempt(&mut queue, at(20));
    queue.release(id, None, at(21));
    queue.hold(id);
    assert_eq!(defer(&mut queue, id, at(22)), Next::Held);
}

#[test]
fn a_release_of_a_job_that_nobody_holds_changes_nothing() {
    let mut queue = Queue::new(config());
    let id = queue.insert(warned(1, "a.example"));
    attempt(&mut queue, at(1));
    queue.release(id, None, at(2));
    assert_eq!(defer(&mut queue, id, at(2)), Next::Again(at(62)));
}

#[test]
fn a_quarantine_ends_at_its_own_time_and_warns_nobody() {
    let keep = 30 * 24 * 3600;
    let mut queue = Queue::new(config());
    let hold = HoldState::Quarantined(at(keep));
    let id = queue.insert(Job { hold, ..job(1, "a.example") });
    let short = queue.insert(job(2, "b.example"));
    queue.quarantine(short, at(600));
    assert_eq!(queue.snapshot().held, 2);
    queue.hold(short);
    assert_eq!(expiry(&mut queue, at(600)).id, short);
    assert_eq!(queue.record(short, AttemptReport::settled(), 0, at(600)), Next::Settled);
    assert_eq!(queue.poll_due(at(2 * FIVE_DAYS)), None);
    assert_eq!(queue.poll_timeout(), Some(at(keep)));
    assert_eq!(expiry(&mut queue, at(keep)).id, id);
    // The operator has lengthened the time, so the host does not expire it yet.
    let until = at(keep + 500);
    assert_eq!(held(&mut queue, id, HoldState::Quarantined(until), at(keep)), Next::Held);
    assert_eq!(queue.poll_timeout(), Some(until));
    queue.keep_until(id, at(keep + 200));
    assert_eq!(expiry(&mut queue, at(keep + 200)).id, id);
    // It could not be done: it is handed out again, but not at once.
    assert_eq!(held(&mut queue, id, HoldState::Quarantined(at(keep + 200)), at(keep + 200)), Next::Held);
    assert!(queue.poll_timeout() > Some(at(keep + 200)));
}

#[test]
fn the_age_of_what_leaves_a_quarantine_counts_from_its_release() {
    let mut queue = Queue::new(config());
    let hold = HoldState::Quarantined(at(20 * FIVE_DAYS));
    let id = queue.insert(Job { hold, ..warned(1, "a.example") });
    let released = at(2 * FIVE_DAYS);
    queue.keep_until(id, at(30 * FIVE_DAYS));
    queue.release(id, Some(released), released);
    assert_eq!(attempt(&mut queue, released).id, id);
    defer(&mut queue, id, released);
    let end = at(3 * FIVE_DAYS);
    queue.hold(id);
    assert_eq!(queue.poll_due(at(3 * FIVE_DAYS - 1)), None);
    assert_eq!(expiry(&mut queue, end).id, id);
}

#[test]
fn a_release_during_an_expiry_that_came_to_nothing_is_obeyed() {
    let mut queue = Queue::new(config());
    let id = queue.insert(Job { hold: HoldState::Quarantined(at(600)), ..warned(1, "a.example") });
    expiry(&mut queue, at(600));
    queue.release(id, Some(at(601)), at(601));
    assert_eq!(defer(&mut queue, id, at(602)), Next::Again(at(602)));
    assert_eq!(attempt(&mut queue, at(602)).id, id);
}

#[test]
fn a_hold_of_any_job_of_a_message_that_is_under_way_is_a_wish() {
    let mut queue = Queue::new(config());
    let id = queue.insert(warned(1, "a.example"));
    attempt(&mut queue, at(1));
    queue.quarantine(id, at(700));
    queue.hold(id);
    assert_eq!(defer(&mut queue, id, at(2)), Next::Held);
    assert_eq!(expiry(&mut queue, at(700)).id, id);
}

#[test]
fn wishes_for_a_job_under_way_are_kept() {
    let mut queue = Queue::new(config());
    let ids: Vec<JobId> = (0..3).map(|n| queue.insert(job(n, "a.example"))).collect();
    attempts(&mut queue, START);
    queue.hold(ids[0]);
    queue.remove(ids[1]);
    queue.retry_now(ids[2], at(1));
    assert_eq!(defer(&mut queue, ids[0], at(2)), Next::Held);
    assert_eq!(defer(&mut queue, ids[1], at(2)), Next::Removed);
    assert_eq!(defer(&mut queue, ids[2], at(2)), Next::Again(at(2)));
    assert_eq!(queue.len(), 2);
    let phases = ids.iter().map(|id| queue.job(*id).map(|view| view.phase));
    assert!(phases.eq([Some(JobPhase::Held), None, Some(JobPhase::Waiting(at(2)))]));
}

#[test]
fn retry_now_lifts_what_puts_off_the_hop() {
    let mut queue = Queue::new(config());
    queue.insert(job(1, "a.example"));
    let first = attempt(&mut queue, START);
    fail_hop(&mut queue, first.id, START);
    assert_eq!(queue.poll_due(at(1)), None);
    queue.retry_now(first.id, at(1));
    assert_eq!(attempt(&mut queue, at(1)).id, first.id);
}

#[test]
fn a_new_configuration_moves_limits_and_ages() {
    let mut queue = Queue::new(config());
    let ids: Vec<JobId> = (0..20).map(|n| queue.insert(warned(n, "a.example"))).collect();
    assert_eq!(attempts(&mut queue, START).len(), 15);
    queue.configure(Config {
        per_hop: 18,
        retry: RetryPolicy { max_age: Duration::from_secs(10), ..config().retry },
        ..config()
    });
    assert_eq!(attempts(&mut queue, START).len(), 3);
    ids.into_iter().for_each(|id| queue.hold(id));
    expiry(&mut queue, at(10));
    expiry(&mut queue, at(10));
    assert_eq!(queue.poll_due(at(10)), None);
}
