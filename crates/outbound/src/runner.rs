//! The one task that owns the queue: jobs in, attempts out, reports back.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use pintle_mail::{NextHop, QueueId, UnixTime};
use pintle_queue::{Again, Custody, Due, HopSign, Job, JobId, Next, Queue, Report, Selector, Timeline};
use pintle_spool::{Filter, Page, SpoolError, Summary, Waiting, WaitingRecipient};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::JoinSet;

use crate::attempt;
use crate::clock::{Ages, monotonic};
use crate::handle::{Command, Handle};
use crate::link::Link;
use crate::quota::Rooms;
use crate::reuse::Pool;
use crate::shared::{Parts, Shared};
use crate::{Config, Keep, bounce, quarantine};

/// Attempts for one next hop that may be under way for each of its sessions. More than one, since an attempt ends when it
/// is durably settled, and its session is free for the next one before that.
const ATTEMPTS_PER_SESSION: usize = 4;
/// Attempts for a next hop that has not worked yet.
const INITIAL: usize = 5;
/// Messages asked for at once when the spool is read at the start.
const PAGE: usize = 1_000;
/// Arrivals and results taken in one go before attempts are begun.
const BATCH: usize = 256;
/// Warnings and expiries at work at once: each may hold a message in memory to return it.
const REPORTING: usize = 64;
/// How often idle sessions are looked through and gauges are set.
const TICK: Duration = Duration::from_secs(1);
/// How long to wait before a spool that could not be read is asked again.
const RECOVER_AGAIN: Duration = Duration::from_secs(10);
/// The same where it is putting its index in order; the question itself waits until that is done.
const RECOVER_SOON: Duration = Duration::from_millis(100);
/// How long a polite end of idle sessions may take at the end.
const FAREWELL: Duration = Duration::from_secs(5);

/// What an attempt leaves behind.
pub(crate) struct Finished {
    pub(crate) job: JobId,
    pub(crate) message: QueueId,
    pub(crate) report: Report,
    /// A session that is not to be kept.
    pub(crate) retired: Option<Box<Link>>,
}

impl Finished {
    pub(crate) fn new(job: JobId, message: QueueId, report: Report) -> Self {
        Self { job, message, report, retired: None }
    }
}

pub(crate) struct Runner {
    shared: Arc<Shared>,
    queue: Queue,
    /// The queue's jobs by message: the spool may announce a message twice, and operators name messages.
    jobs: HashMap<QueueId, Vec<JobId>>,
    work: JoinSet<Option<Finished>>,
    /// Turns for what happens to messages that grow old.
    turns: Arc<Semaphore>,
    farewells: JoinSet<()>,
    commands: UnboundedReceiver<Command>,
    arrivals: UnboundedReceiver<Waiting>,
    pending: mpsc::Receiver<Vec<Waiting>>,
    /// Where pages of what lies in the spool are sent to.
    pages: mpsc::Sender<Vec<Waiting>>,
    /// How long quarantines keep, as the queue has been told.
    keep: Keep,
    /// Quarantines that have a gauge.
    gauged: BTreeSet<String>,
    timer: Option<(UnixTime, BoxFuture<'static, ()>)>,
}

/// Builds the runner and the handle to it.
pub(crate) fn prepare(config: Config, parts: Parts) -> (Handle, Runner) {
    let (commands, inbox) = mpsc::unbounded_channel();
    // Asked for before the spool is read, so that nothing falls between; the runner knows what it has got twice.
    let arrivals = parts.spool.arrivals().unwrap_or_else(|| {
        tracing::error!("somebody else hears of new mail; it will be delivered after a restart only");
        mpsc::unbounded_channel().1
    });
    let ages = Ages::start(Arc::clone(&parts.clock));
    let mut queue = Queue::new(queue_config(&config));
    // A start is as good as a step: who knows what the clock was before.
    queue.clock_stepped(Duration::ZERO, ages.now());
    let keep = config.quarantine.clone();
    let shared = Arc::new(Shared {
        config: ArcSwap::from_pointee(config),
        tls: ArcSwap::from_pointee(parts.tls),
        spool: parts.spool,
        resolver: parts.resolver,
        chain: parts.chain,
        records: parts.records,
        capture: parts.capture,
        network: parts.network,
        clock: parts.clock,
        ages,
        dice: parts.dice,
        pool: Pool::default(),
        rooms: Rooms::default(),
        commands: commands.downgrade(),
        acting: tokio::sync::Mutex::default(),
    });
    let (pages, pending) = mpsc::channel(2);
    let mut work = JoinSet::new();
    work.spawn(recover(Arc::clone(&shared), pages.clone()));
    let runner = Runner {
        shared: Arc::clone(&shared),
        queue,
        jobs: HashMap::new(),
        work,
        turns: Arc::new(Semaphore::new(REPORTING)),
        farewells: JoinSet::new(),
        commands: inbox,
        arrivals,
        pending,
        pages,
        keep,
        gauged: BTreeSet::new(),
        timer: None,
    };
    (Handle { shared, commands }, runner)
}

/// Reads what is pending, page by page, while deliveries have begun already. A spool that cannot be read is asked again:
/// what lies in it was promised.
async fn recover(shared: Arc<Shared>, pages: mpsc::Sender<Vec<Waiting>>) -> Option<Finished> {
    let (mut after, mut soon) = (None, RECOVER_SOON);
    loop {
        match shared.spool.claim(after, PAGE).await {
            Ok(page) if page.is_empty() => return None,
            Ok(page) => {
                after = page.last().map(|waiting| waiting.id);
                // An error means that the runner has ended.
                pages.send(page).await.ok()?;
            }
            Err(SpoolError::Closed) => return None,
            Err(SpoolError::Index(what)) => {
                tracing::warn!(%what, "the spool's index is being made anew; what is pending is asked for again");
                shared.clock.sleep(soon).await;
                // It may not be in order the next time either.
                soon = (soon * 2).min(RECOVER_AGAIN);
            }
            Err(error) => {
                tracing::error!(%error, "cannot read what is pending in the spool; trying again");
                shared.clock.sleep(RECOVER_AGAIN).await;
            }
        }
    }
}

/// Reads what lies in quarantines, so that each message's time is reckoned anew. What cannot be read now is looked at
/// when its old time has come.
async fn quarantined(shared: Arc<Shared>, pages: mpsc::Sender<Vec<Waiting>>) -> Option<Finished> {
    let filter = Filter { quarantined: Some(true), ..Filter::default() };
    let mut page = Page { after: None, limit: PAGE };
    loop {
        let listing = match shared.spool.list(filter.clone(), page).await {
            Ok(listing) => listing,
            Err(error) => {
                tracing::warn!(%error, "cannot read what lies in quarantines");
                return None;
            }
        };
        // Their jobs are known, so nobody asks for recipients.
        pages.send(listing.messages.iter().map(Summary::waiting).collect()).await.ok()?;
        page.after = Some(listing.next?);
    }
}

impl Runner {
    pub(crate) async fn run(mut self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.dispatch();
            self.arm();
            // In this order, so that a run can be repeated. None starves those after it: operators and the tick are
            // rare, what has finished ends when nothing is taken in, and a ring only wakes, since every round dispatches.
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(Command::Drain(grace)) => return self.drain(grace).await,
                    Some(command) => self.obey(command),
                    None => return self.drain(Duration::ZERO).await,
                },
                _ = tick.tick() => self.tick(),
                Some(done) = self.work.join_next() => self.take_finished(done),
                Some(()) = farewell(&mut self.farewells) => {}
                Some(page) = self.pending.recv() => page.iter().for_each(|waiting| self.insert(waiting)),
                Some(waiting) = self.arrivals.recv() => self.take_arrivals(&waiting),
                () = ring(&mut self.timer) => self.timer = None,
            }
        }
    }

    /// Begins everything that may begin now.
    fn dispatch(&mut self) {
        let now = self.shared.ages.now();
        self.hear_of_steps(now);
        while let Some(due) = self.queue.poll_due(now) {
            let shared = Arc::clone(&self.shared);
            match due {
                Due::Attempt(attempt) => {
                    let lost = Report::deferred(attempt.recipients.clone());
                    let back = Finished::new(attempt.id, attempt.message, lost);
                    self.work.spawn(guarded(attempt::run(shared, attempt), Some(back)));
                }
                Due::Expire(aged) => {
                    let lost = Report::deferred(aged.recipients.clone());
                    let back = Finished::new(aged.id, aged.message, lost);
                    let expiry = in_turn(Arc::clone(&self.turns), || bounce::expire(shared, aged));
                    self.work.spawn(guarded(expiry, Some(back)));
                }
                Due::Warn(aged) => {
                    let back = Report::unchanged(aged.recipients.clone());
                    let back = Finished::new(aged.id, aged.message, back);
                    let warning = in_turn(Arc::clone(&self.turns), || bounce::warn(shared, aged));
                    self.work.spawn(guarded(warning, Some(back)));
                }
            }
        }
    }

    /// What was reckoned by a clock that has been set since is reckoned anew before anything comes of it.
    fn hear_of_steps(&mut self, now: UnixTime) {
        for step in self.shared.ages.take_news() {
            self.queue.clock_stepped(step.younger, now);
            if !step.younger.is_zero() {
                self.work.spawn(quarantined(Arc::clone(&self.shared), self.pages.clone()));
            }
        }
    }

    /// Sets the timer, unless one is set that rings no later: an early ring costs less than a new timer for each message.
    fn arm(&mut self) {
        let Some(at) = self.queue.poll_timeout() else {
            return;
        };
        if self.timer.as_ref().is_none_or(|(set, _)| *set > at) {
            let wait = at.since(self.shared.ages.now());
            self.timer = Some((at, self.shared.clock.sleep(wait)));
        }
    }

    fn take_arrivals(&mut self, first: &Waiting) {
        self.insert(first);
        for _ in 1..BATCH {
            match self.arrivals.try_recv() {
                Ok(waiting) => self.insert(&waiting),
                Err(_) => return,
            }
        }
    }

    fn insert(&mut self, waiting: &Waiting) {
        let timeline = self.shared.ages.timeline();
        let custody = self.keep.custody(waiting.hold.as_ref(), &timeline);
        if self.jobs.contains_key(&waiting.id) {
            // Known already: it was read at the start as well, or it has been released. What is older than the last
            // release must not hold it again, so a hold says no more here than until when.
            let released = waiting.released.map(|at| timeline.place(at));
            self.for_jobs(&[waiting.id], |queue, which| match custody {
                Custody::Free => queue.release(which, released, timeline.now()),
                Custody::Quarantined(until) => queue.keep_until(which, until),
                Custody::Held => 0,
            });
            return;
        }
        let config = self.shared.config.load();
        let mut ids = Vec::with_capacity(1);
        for job in jobs_of(waiting, custody, &config, &timeline) {
            ids.push(self.queue.insert(job));
        }
        if !ids.is_empty() {
            self.jobs.insert(waiting.id, ids);
        }
    }

    /// Takes what was announced before this moment, so that whoever asks is answered with it in mind.
    fn catch_up(&mut self) {
        for _ in 0..self.arrivals.len() {
            if let Ok(waiting) = self.arrivals.try_recv() {
                self.insert(&waiting);
            }
        }
    }

    fn take_finished(&mut self, first: Result<Option<Finished>, tokio::task::JoinError>) {
        let mut next = Some(first);
        for _ in 0..BATCH {
            match next {
                Some(Ok(Some(finished))) => self.finish(finished),
                Some(Ok(None)) => {}
                // Attempts catch their own panics; what reads the spool does not, and mail would lie there unseen.
                Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Some(Err(error)) => tracing::error!(%error, "a delivery task ended badly"),
                None => return,
            }
            next = self.work.try_join_next();
        }
        if let Some(Ok(Some(finished))) = next {
            self.finish(finished);
        }
    }

    fn finish(&mut self, finished: Finished) {
        let Finished { job, message, report, retired } = finished;
        let custody = report.custody;
        if let Some(link) = retired {
            self.farewells.spawn(link.quit());
        }
        let now = self.shared.ages.now();
        match self.queue.record(job, report, self.shared.roll(), now) {
            Next::Settled | Next::Removed | Next::Unknown => self.forget(job, message),
            // A hold is the whole message's, unless the queue has heard of its release since.
            Next::Held => self.keep(message, custody),
            Next::Again(_) | Next::Expiring => {}
        }
    }

    fn keep(&mut self, message: QueueId, custody: Custody) {
        self.for_jobs(&[message], |queue, which| match custody {
            Custody::Free => 0,
            Custody::Held => queue.hold(which),
            Custody::Quarantined(until) => queue.quarantine(which, until),
        });
    }

    fn forget(&mut self, job: JobId, message: QueueId) {
        if let Entry::Occupied(mut jobs) = self.jobs.entry(message) {
            jobs.get_mut().retain(|id| *id != job);
            if jobs.get().is_empty() {
                jobs.remove();
            }
        }
    }

    fn obey(&mut self, command: Command) {
        self.catch_up();
        let now = self.shared.ages.now();
        match command {
            // Whoever asked may have gone away, so nobody may be there to hear an answer.
            Command::Retry(ids, answer) => {
                let _ = answer.send(self.for_jobs(&ids, |queue, which| queue.retry_now(which, now)));
            }
            Command::Hold(ids, answer) => {
                let _ = answer.send(self.for_jobs(&ids, Queue::hold));
            }
            Command::Release(released, answer) => {
                for (id, since) in released {
                    let since = since.map(|at| self.shared.ages.timeline().place(at));
                    self.for_jobs(&[id], |queue, which| queue.release(which, since, now));
                }
                let _ = answer.send(());
            }
            Command::Forget(ids, answer) => {
                let _ = answer.send(self.for_jobs(&ids, Queue::remove));
                // Those under way are known by their job alone from now on.
                for id in ids {
                    self.jobs.remove(&id);
                }
            }
            Command::Count(answer) => {
                let _ = answer.send(self.queue.snapshot());
            }
            Command::Configure => self.configure(),
            Command::Drain(_) => {}
        }
    }

    /// Sessions that were opened under the old configuration carry nothing more.
    fn configure(&mut self) {
        let config = self.shared.config.load_full();
        self.queue.configure(queue_config(&config));
        if self.keep != config.quarantine {
            self.keep = config.quarantine.clone();
            self.work.spawn(quarantined(Arc::clone(&self.shared), self.pages.clone()));
        }
        for link in self.shared.pool.renew() {
            self.farewells.spawn(link.quit());
        }
    }

    /// Does something with all jobs of these messages; gives how many of the messages have any.
    fn for_jobs(
        &mut self,
        messages: &[QueueId],
        mut act: impl FnMut(&mut Queue, &Selector) -> usize,
    ) -> usize {
        let mut touched = 0;
        for jobs in messages.iter().filter_map(|id| self.jobs.get(id)) {
            touched += 1;
            for job in jobs {
                act(&mut self.queue, &Selector::Job(*job));
            }
        }
        touched
    }

    fn tick(&mut self) {
        // An engine that does not know at once is asked again with the next tick.
        if let Some(Ok(totals)) = self.shared.spool.totals().now_or_never() {
            quarantine::gauge(&totals.quarantines, &mut self.gauged);
            let config = self.shared.config.load();
            self.shared.rooms.watch(&totals, self.shared.spool.free(), &config, &self.gauged);
        }
        let keep = self.shared.config.load().sessions.idle;
        for link in self.shared.pool.expired(monotonic(), keep) {
            self.farewells.spawn(link.quit());
        }
        // Counts stay far below 2^52, where a float counts exactly.
        #[allow(clippy::cast_precision_loss)]
        {
            metrics::gauge!("pintle_clock_unsteady")
                .set(f64::from(u8::from(self.shared.ages.unsteady().is_some())));
            metrics::gauge!("pintle_queue_jobs").set(self.queue.len() as f64);
            metrics::gauge!("pintle_outbound_idle_sessions").set(self.shared.pool.idle() as f64);
            metrics::gauge!("pintle_outbound_attempts_running").set(self.work.len() as f64);
        }
    }

    /// Attempts that wait for a session are sent away at once; those that speak to a next hop get the grace.
    async fn drain(mut self, grace: Duration) {
        tracing::info!(attempts = self.work.len(), "deliveries are being drained");
        self.shared.pool.close();
        self.pending.close();
        let work = &mut self.work;
        let farewells = &mut self.farewells;
        let finish = async {
            while let Some(done) = work.join_next().await {
                if let Ok(Some(Finished { retired: Some(link), .. })) = done {
                    farewells.spawn(link.quit());
                }
            }
        };
        if tokio::time::timeout(grace, finish).await.is_err() {
            tracing::warn!(
                attempts = self.work.len(),
                "cutting off deliveries; they are made again after the next start"
            );
        }
        self.work.shutdown().await;
        for link in self.shared.pool.renew() {
            self.farewells.spawn(link.quit());
        }
        let goodbye = async { while self.farewells.join_next().await.is_some() {} };
        // A next hop that does not answer QUIT keeps nobody from stopping.
        let _ = tokio::time::timeout(FAREWELL, goodbye).await;
        self.farewells.shutdown().await;
    }
}

/// Writes reports only so many at a time. After an outage of days, or a restart, a whole queue may reach its age in one
/// moment; what waits here is small, since the work is not begun before its turn.
async fn in_turn<W: Future>(turns: Arc<Semaphore>, work: impl FnOnce() -> W) -> W::Output {
    // The semaphore is never closed; were it, the work would still have to be done.
    let _turn = turns.acquire().await.ok();
    Box::pin(work()).await
}

/// A panic is our own fault and must not lose the job: it comes back as deferred.
async fn guarded<F>(work: F, back: Option<Finished>) -> Option<Finished>
where
    F: Future<Output = Option<Finished>>,
{
    match std::panic::AssertUnwindSafe(work).catch_unwind().await {
        Ok(finished) => finished,
        Err(_) => {
            if let Some(back) = &back {
                tracing::error!(queue_id = %back.message, "a delivery panicked; it will be tried again");
            }
            back
        }
    }
}

async fn ring(timer: &mut Option<(UnixTime, BoxFuture<'static, ()>)>) {
    match timer {
        Some((_, sleep)) => sleep.await,
        None => std::future::pending().await,
    }
}

async fn farewell(farewells: &mut JoinSet<()>) -> Option<()> {
    farewells.join_next().await.map(|_| ())
}

fn queue_config(config: &Config) -> pintle_queue::Config {
    let attempts = |sessions: usize| sessions.max(1) * ATTEMPTS_PER_SESSION;
    let relay_limit = |(name, relay): (&String, &crate::Relay)| {
        let limit = attempts(relay.sessions?);
        Some([(NextHop::Relay(name.clone()), limit), (NextHop::Lmtp(name.clone()), limit)])
    };
    pintle_queue::Config {
        per_hop: attempts(config.sessions.per_hop),
        overrides: config.relays.iter().filter_map(relay_limit).flatten().collect(),
        // One a session, until it is known that sessions come to something.
        initial: INITIAL,
        total: config.sessions.total,
        retry: config.retry.clone(),
    }
}

/// One job for each next hop of a message's pending recipients.
fn jobs_of(waiting: &Waiting, custody: Custody, config: &Config, timeline: &Timeline) -> Vec<Job> {
    let mut jobs: Vec<(NextHop, Vec<&WaitingRecipient>)> = Vec::with_capacity(1);
    for recipient in &waiting.recipients {
        let next_hop = next_hop_of(recipient, config);
        match jobs.iter_mut().find(|(other, _)| *other == next_hop) {
            Some((_, recipients)) => recipients.push(recipient),
            None => jobs.push((next_hop, vec![recipient])),
        }
    }
    let job = |(next_hop, recipients): (NextHop, Vec<&WaitingRecipient>)| Job {
        custody,
        ..job_of(waiting, next_hop, &recipients, config.retry.longest_wait(), timeline)
    };
    jobs.into_iter().map(job).collect()
}

fn next_hop_of(recipient: &WaitingRecipient, config: &Config) -> NextHop {
    if let Some(route) = &recipient.route {
        return route.clone();
    }
    config.next_hop(&recipient.domain)
}

/// What is stored was written by a clock that may have been wrong: what was never tried is due now, and nothing is due
/// later than a next attempt can be.
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

/// What the queue is told when an attempt came to nothing for no fault of the next hop.
pub(crate) fn interrupted(recipients: Box<[u32]>) -> Report {
    Report { remaining: recipients, hop: HopSign::Silent, again: Again::AtOnce, custody: Custody::Free }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn work_on_what_has_grown_old_is_not_begun_before_its_turn() {
        let turns = Arc::new(Semaphore::new(1));
        let (go, gone) = oneshot::channel::<()>();
        let begun = std::cell::Cell::new(false);
        let mut first = Box::pin(in_turn(Arc::clone(&turns), || gone));
        let mut second = Box::pin(in_turn(turns, || {
            begun.set(true);
            std::future::ready(())
        }));
        assert!((&mut first).now_or_never().is_none());
        assert!((&mut second).now_or_never().is_none() && !begun.get());
        go.send(()).unwrap();
        first.await.unwrap();
        second.await;
        assert!(begun.get());
    }
}
