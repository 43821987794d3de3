//! The one task that owns the queue: jobs in, attempts out, reports back.

#![expect(clippy::vec_box, reason = "a session is moved from owner to owner as its box")]

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use pintle_mail::{QueueId, UnixTime};
use pintle_queue::{Again, AttemptReport, Due, HoldState, HopSign, JobId, Next, Queue};
use pintle_spool::Waiting;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::JoinSet;

use crate::aged::{self, Group};
use crate::attempt;
use crate::clock::{Ages, monotonic};
use crate::connection::ClientConnection;
use crate::handle::{Command, Handle};
use crate::jobs::{jobs_of, next_hop_of, queue_config};
use crate::quota::Rooms;
use crate::reading::{look_again, quarantined, recover};
use crate::session_pool::Pool;
use crate::shared::{OutboundShared, Parts};
use crate::whereabouts::{self, QueuePresence};
use crate::{Config, Retention, RouteTable, quarantine};

/// Arrivals and results taken in one go before attempts are begun.
const BATCH: usize = 256;
/// Warnings and expiries at work at once: each may hold a message in memory to return it.
const REPORTING: usize = 64;
/// How often idle sessions are looked through and gauges are set.
const TICK: Duration = Duration::from_secs(1);
/// How long a polite end of idle sessions may take at the end.
const FAREWELL: Duration = Duration::from_secs(5);

/// What an attempt leaves behind.
pub(crate) struct Finished {
    pub(crate) message: QueueId,
    /// What the queue is to hear of which job.
    pub(crate) jobs: Vec<(JobId, AttemptReport)>,
    /// Sessions that are not to be kept.
    pub(crate) retired: Vec<Box<ClientConnection>>,
}

impl Finished {
    pub(crate) fn new(job: JobId, message: QueueId, report: AttemptReport) -> Self {
        Self::all(message, vec![(job, report)])
    }

    /// Several jobs of one message.
    pub(crate) fn all(message: QueueId, jobs: Vec<(JobId, AttemptReport)>) -> Self {
        Self { message, jobs, retired: Vec::new() }
    }
}

pub(crate) struct Runner {
    shared: Arc<OutboundShared>,
    queue: Queue,
    /// The queue's jobs by message: the spool may announce a message twice, and operators name messages.
    jobs: HashMap<QueueId, Vec<JobId>>,
    work: JoinSet<Option<Finished>>,
    /// Turns for what happens to messages that grow old.
    report_permits: Arc<Semaphore>,
    closing_sessions: JoinSet<()>,
    commands: UnboundedReceiver<Command>,
    arrivals: UnboundedReceiver<Waiting>,
    pending: mpsc::Receiver<Vec<Waiting>>,
    /// Where pages of what lies in the spool are sent to.
    pages: mpsc::Sender<Vec<Waiting>>,
    /// How long quarantines keep, as the queue has been told.
    keep: Retention,
    /// Which way mail goes, as the queue has been told, and who we are: mail for a bare postmaster goes by our name.
    routes: (RouteTable, String),
    /// Messages that were under way when their routes changed: what remains of them is looked at once more.
    stale: HashSet<QueueId>,
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
    let routes = (config.routes.clone(), config.hostname.clone());
    let shared = Arc::new(OutboundShared {
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
        report_permits: Arc::new(Semaphore::new(REPORTING)),
        closing_sessions: JoinSet::new(),
        commands: inbox,
        arrivals,
        pending,
        pages,
        keep,
        routes,
        stale: HashSet::new(),
        gauged: BTreeSet::new(),
        timer: None,
    };
    (Handle { shared, commands }, runner)
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
                    Some(command) => self.handle_command(command),
                    None => return self.drain(Duration::ZERO).await,
                },
                _ = tick.tick() => self.tick(),
                Some(done) = self.work.join_next() => self.take_finished(done),
                Some(()) = closed_session(&mut self.closing_sessions) => {}
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
        let (mut expiring, mut late) = (Vec::new(), Vec::new());
        while let Some(due) = self.queue.poll_due(now) {
            match due {
                Due::Attempt(attempt) => {
                    let lost = AttemptReport::deferred(attempt.recipients.clone());
                    let back = Finished::new(attempt.id, attempt.message, lost);
                    let shared = Arc::clone(&self.shared);
                    self.work.spawn(guarded(attempt::run(shared, attempt), Some(back)));
                }
                Due::Expire(aged) => expiring.push(aged),
                Due::Warn(aged) => late.push(aged),
            }
        }
        for group in Group::of(expiring) {
            let (shared, back) = (Arc::clone(&self.shared), group.back(AttemptReport::deferred));
            let expiry = limited(Arc::clone(&self.report_permits), || aged::expire(shared, group));
            self.work.spawn(guarded(expiry, Some(back)));
        }
        for group in Group::of(late) {
            let (shared, back) = (Arc::clone(&self.shared), group.back(AttemptReport::unchanged));
            let warning = limited(Arc::clone(&self.report_permits), || aged::warn(shared, group));
            self.work.spawn(guarded(warning, Some(back)));
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
            self.for_jobs(&[waiting.id], |queue, job| match custody {
                HoldState::Free => queue.release(job, released, timeline.now()),
                HoldState::Quarantined(until) => queue.keep_until(job, until),
                HoldState::Held => {}
            });
            self.reroute(waiting);
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

    /// Sends what is known of a message by the routes of now. Recipients that are not named stay where they are.
    fn reroute(&mut self, waiting: &Waiting) -> usize {
        let Some(jobs) = self.jobs.get_mut(&waiting.id) else { return 0 };
        let config = self.shared.config.load();
        let way = |id: u32| {
            let recipient = waiting.recipients.iter().find(|recipient| recipient.id == id)?;
            Some(next_hop_of(recipient, &config))
        };
        let done = self.queue.reroute(jobs, way, self.shared.ages.now());
        jobs.retain(|job| !done.gone.contains(job));
        jobs.extend(done.new);
        if done.busy {
            self.stale.insert(waiting.id);
        }
        if done.moved > 0 {
            tracing::info!(queue_id = %waiting.id, recipients = done.moved, "rerouted");
        }
        done.moved
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
        for link in finished.retired {
            self.closing_sessions.spawn(link.quit());
        }
        for (job, report) in finished.jobs {
            self.record(finished.message, job, report);
        }
        let message = finished.message;
        if self.stale.remove(&message) && self.jobs.contains_key(&message) {
            self.work.spawn(look_again(Arc::clone(&self.shared), self.pages.clone(), message));
        }
    }

    fn record(&mut self, message: QueueId, job: JobId, report: AttemptReport) {
        let custody = report.hold;
        let now = self.shared.ages.now();
        match self.queue.record(job, report, self.shared.roll(), now) {
            Next::Settled | Next::Removed | Next::Unknown => self.forget(job, message),
            // A hold is the whole message's, unless the queue has heard of its release since.
            Next::Held => self.hold_jobs(message, custody),
            Next::Again(_) | Next::Expiring => {}
        }
    }

    fn hold_jobs(&mut self, message: QueueId, custody: HoldState) {
        self.for_jobs(&[message], |queue, job| match custody {
            HoldState::Free => {}
            HoldState::Held => queue.hold(job),
            HoldState::Quarantined(until) => queue.quarantine(job, until),
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

    fn handle_command(&mut self, command: Command) {
        self.catch_up();
        let now = self.shared.ages.now();
        match command {
            // Whoever asked may have gone away, so nobody may be there to hear an answer.
            Command::Retry(ids, answer) => {
                let _ = answer.send(ids.iter().map(|id| self.retry(*id, now)).collect());
            }
            Command::Reroute(messages, answer) => {
                let _ = answer.send(messages.iter().map(|waiting| self.reroute(waiting)).sum());
            }
            Command::Find(ids, answer) => {
                let timeline = self.shared.ages.timeline();
                let jobs = |id: &QueueId| self.jobs.get(id).map(Vec::as_slice).unwrap_or_default();
                let found = ids.iter().map(|id| (*id, whereabouts::find(&self.queue, jobs(id), &timeline)));
                let _ = answer.send(found.collect());
            }
            Command::Hold(ids, answer) => {
                let _ = answer.send(self.for_jobs(&ids, Queue::hold));
            }
            Command::Release(released, answer) => {
                for (id, since) in released {
                    let since = since.map(|at| self.shared.ages.timeline().place(at));
                    self.for_jobs(&[id], |queue, job| queue.release(job, since, now));
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

    /// Makes a message due now, unless something holds it.
    fn retry(&mut self, id: QueueId, now: UnixTime) -> QueuePresence {
        let jobs = self.jobs.get(&id).map(Vec::as_slice).unwrap_or_default();
        let found = whereabouts::custody(&self.queue, jobs);
        if found == QueuePresence::Free {
            self.for_jobs(&[id], |queue, job| queue.retry_now(job, now));
        }
        found
    }

    /// Sessions that were opened under the old configuration carry nothing more, and what waits goes by the new routes.
    fn configure(&mut self) {
        let config = self.shared.config.load_full();
        self.queue.configure(queue_config(&config));
        if self.keep != config.quarantine {
            self.keep = config.quarantine.clone();
            self.work.spawn(quarantined(Arc::clone(&self.shared), self.pages.clone()));
        }
        let routes = (config.routes.clone(), config.hostname.clone());
        if self.routes != routes {
            self.routes = routes;
            // All that is pending is read again, and what is known is sent where it belongs now.
            self.work.spawn(recover(Arc::clone(&self.shared), self.pages.clone()));
        }
        for link in self.shared.pool.renew() {
            self.closing_sessions.spawn(link.quit());
        }
    }

    /// Does something with all jobs of these messages; gives how many of the messages have any.
    fn for_jobs(&mut self, messages: &[QueueId], mut act: impl FnMut(&mut Queue, JobId)) -> usize {
        let mut touched = 0;
        for jobs in messages.iter().filter_map(|id| self.jobs.get(id)) {
            touched += 1;
            for job in jobs {
                act(&mut self.queue, *job);
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
            self.closing_sessions.spawn(link.quit());
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
        let farewells = &mut self.closing_sessions;
        let finish = async {
            while let Some(done) = work.join_next().await {
                for link in done.into_iter().flatten().flat_map(|finished| finished.retired) {
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
            self.closing_sessions.spawn(link.quit());
        }
        let goodbye = async { while self.closing_sessions.join_next().await.is_some() {} };
        // A next hop that does not answer QUIT keeps nobody from stopping.
        let _ = tokio::time::timeout(FAREWELL, goodbye).await;
        self.closing_sessions.shutdown().await;
    }
}

/// Writes reports only so many at a time. After an outage of days, or a restart, a whole queue may reach its age in one
/// moment; what waits here is small, since the work is not begun before its turn.
async fn limited<W: Future>(turns: Arc<Semaphore>, work: impl FnOnce() -> W) -> W::Output {
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

async fn closed_session(farewells: &mut JoinSet<()>) -> Option<()> {
    farewells.join_next().await.map(|_| ())
}

/// What the queue is told when an attempt came to nothing for no fault of the next hop.
pub(crate) fn interrupted(recipients: Box<[u32]>) -> AttemptReport {
    AttemptReport { remaining: recipients, hop: HopSign::Silent, again: Again::AtOnce, hold: HoldState::Free }
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
        let mut first = Box::pin(limited(Arc::clone(&turns), || gone));
        let mut second = Box::pin(limited(turns, || {
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
