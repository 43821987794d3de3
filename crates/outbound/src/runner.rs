//! The runner: the one task that owns the queue. It puts messages into it as jobs, begins attempts, expiries and delay
//! warnings when they are due, and records what they report. The queue decides how long a job waits (back-off), and how
//! many attempts a next hop gets at once (throttle).

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use pintle_mail::{QueueId, UnixTime};
use pintle_queue::{AttemptReport, Due, HoldState, JobId, Next, Queue};
use pintle_spool::Waiting;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::JoinSet;

use crate::clock::monotonic;
use crate::commands::RunnerCommand;
use crate::expiry::{self, AgedJobs};
use crate::finished::Finished;
use crate::handle::Handle;
use crate::job_status::{self, QueuePresence};
use crate::jobs::{jobs_of, next_hop_of, queue_config};
use crate::parts::{OutboundParts, OutboundShared};
use crate::spool_reader::{read_again, read_pending, read_quarantined};
use crate::{Config, Retention, RouteTable, attempt, quarantine};

/// The most arrivals and results that are processed before attempts are started.
const BATCH: usize = 256;
/// The most concurrent warnings and expiries: each may hold a message in memory to return it.
const MAX_REPORTING: usize = 64;
/// How often idle sessions are checked and gauges are set.
const TICK: Duration = Duration::from_secs(1);
/// The time limit for QUIT at shutdown.
const QUIT_TIMEOUT: Duration = Duration::from_secs(5);

/// The runner, before and while it runs.
pub(crate) struct Runner {
    shared: Arc<OutboundShared>,
    queue: Queue,
    /// The queue's jobs by message: the spool may announce a message twice, and operators name messages.
    jobs: HashMap<QueueId, Vec<JobId>>,
    /// Attempts, expiries, warnings and reads of the spool under way.
    work: JoinSet<Option<Finished>>,
    /// Limits the expiries and warnings at work.
    report_permits: Arc<Semaphore>,
    closing_sessions: JoinSet<()>,
    commands: UnboundedReceiver<RunnerCommand>,
    arrivals: UnboundedReceiver<Waiting>,
    /// Pages of messages that were read from the spool.
    pages: mpsc::Receiver<Vec<Waiting>>,
    /// The other end of `pages`, for the tasks that read.
    page_sender: mpsc::Sender<Vec<Waiting>>,
    /// The retention of quarantines that the queue uses.
    retention: Retention,
    /// The routes that the queue uses, and our hostname, which is the domain of a bare postmaster.
    routes: (RouteTable, String),
    /// Messages that were under way when their routes changed: what remains of them is read again.
    stale: HashSet<QueueId>,
    /// Quarantines that have a gauge.
    gauged: BTreeSet<String>,
    timer: Option<(UnixTime, BoxFuture<'static, ()>)>,
}

/// Builds the runner and the handle to it.
pub(crate) fn prepare(config: Config, parts: OutboundParts) -> (Handle, Runner) {
    let (commands, inbox) = mpsc::unbounded_channel();
    // Subscribed to before the spool is read, so that no message is missed; one that comes twice is recognised.
    let arrivals = parts.spool.arrivals().unwrap_or_else(|| {
        tracing::error!("new mail is announced to another task; it will be delivered after a restart only");
        mpsc::unbounded_channel().1
    });
    let mut queue = Queue::new(queue_config(&config));
    let (retention, routes) = (config.quarantine.clone(), (config.routes.clone(), config.hostname.clone()));
    let shared = Arc::new(OutboundShared::new(config, parts, commands.downgrade()));
    // A start counts as a step of the clock, since the clock may have been set while no process watched it.
    queue.clock_stepped(Duration::ZERO, shared.ages.now());
    let (page_sender, pages) = mpsc::channel(2);
    let mut work = JoinSet::new();
    work.spawn(read_pending(Arc::clone(&shared), page_sender.clone()));
    let runner = Runner {
        shared: Arc::clone(&shared),
        queue,
        jobs: HashMap::new(),
        work,
        report_permits: Arc::new(Semaphore::new(MAX_REPORTING)),
        closing_sessions: JoinSet::new(),
        commands: inbox,
        arrivals,
        pages,
        page_sender,
        retention,
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
            self.set_timer();
            // In a fixed order, so that simulations are deterministic. No branch starves those after it: commands and
            // ticks are rare, finished tasks are limited by those that were started, and the timer only wakes, since
            // every round dispatches.
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(RunnerCommand::Drain(grace)) => return self.drain(grace).await,
                    Some(command) => self.handle_command(command),
                    None => return self.drain(Duration::ZERO).await,
                },
                _ = tick.tick() => self.tick(),
                Some(done) = self.work.join_next() => self.take_finished(done),
                Some(()) = closed_session(&mut self.closing_sessions) => {}
                Some(page) = self.pages.recv() => page.iter().for_each(|waiting| self.insert(waiting)),
                Some(waiting) = self.arrivals.recv() => self.take_arrivals(&waiting),
                () = timer_elapsed(&mut self.timer) => self.timer = None,
            }
        }
    }

    /// Starts everything that is due now.
    fn dispatch(&mut self) {
        let now = self.shared.ages.now();
        self.apply_clock_steps(now);
        let (mut expiring, mut late) = (Vec::new(), Vec::new());
        while let Some(due) = self.queue.poll_due(now) {
            match due {
                Due::Attempt(attempt) => {
                    let lost = AttemptReport::deferred(attempt.recipients.clone());
                    let after_panic = Finished::new(attempt.id, attempt.message, lost);
                    let shared = Arc::clone(&self.shared);
                    self.work.spawn(guarded(attempt::run(shared, attempt), Some(after_panic)));
                }
                Due::Expire(aged) => expiring.push(aged),
                Due::Warn(aged) => late.push(aged),
            }
        }
        for aged in AgedJobs::group(expiring) {
            let (shared, after_panic) = (Arc::clone(&self.shared), aged.finished(AttemptReport::deferred));
            let expiry = limited(Arc::clone(&self.report_permits), || expiry::expire(shared, aged));
            self.work.spawn(guarded(expiry, Some(after_panic)));
        }
        for aged in AgedJobs::group(late) {
            let (shared, after_panic) = (Arc::clone(&self.shared), aged.finished(AttemptReport::unchanged));
            let warning = limited(Arc::clone(&self.report_permits), || expiry::warn(shared, aged));
            self.work.spawn(guarded(warning, Some(after_panic)));
        }
    }

    /// After a step of the clock, times that were computed before it are computed again before they are used.
    fn apply_clock_steps(&mut self, now: UnixTime) {
        for step in self.shared.ages.take_steps() {
            self.queue.clock_stepped(step.younger, now);
            if !step.younger.is_zero() {
                self.work.spawn(read_quarantined(Arc::clone(&self.shared), self.page_sender.clone()));
            }
        }
    }

    /// Sets the timer, unless one is set that elapses no later: waking early costs less than a new timer for each
    /// message.
    fn set_timer(&mut self) {
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
        let custody = self.retention.custody(waiting.hold.as_ref(), &timeline);
        if self.jobs.contains_key(&waiting.id) {
            // Known already: it was read at the start as well, or it has been released. News from before the last
            // release must not hold it again, so a quarantine only changes until when it is held.
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

    /// Sends the jobs of a message by the present routes. Returns how many recipients moved; those that are not named
    /// stay.
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

    /// Takes the arrivals that were announced before this moment, so that a command finds them.
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
                // Attempts catch their own panics. A task that reads the spool does not: its mail would stay unread.
                Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Some(Err(error)) => tracing::error!(%error, "a delivery task was cancelled"),
                None => return,
            }
            next = self.work.try_join_next();
        }
        if let Some(Ok(Some(finished))) = next {
            self.finish(finished);
        }
    }

    fn finish(&mut self, finished: Finished) {
        for connection in finished.retired {
            self.closing_sessions.spawn(connection.quit());
        }
        for (job, report) in finished.jobs {
            self.record(finished.message, job, report);
        }
        let message = finished.message;
        if self.stale.remove(&message) && self.jobs.contains_key(&message) {
            self.work.spawn(read_again(Arc::clone(&self.shared), self.page_sender.clone(), message));
        }
    }

    fn record(&mut self, message: QueueId, job: JobId, report: AttemptReport) {
        let hold = report.hold;
        let now = self.shared.ages.now();
        match self.queue.record(job, report, self.shared.random(), now) {
            Next::Settled | Next::Removed | Next::Unknown => self.forget(job, message),
            // A hold is the whole message's, unless the queue has recorded its release since.
            Next::Held => self.hold_jobs(message, hold),
            Next::Again(_) | Next::Expiring => {}
        }
    }

    fn hold_jobs(&mut self, message: QueueId, hold: HoldState) {
        self.for_jobs(&[message], |queue, job| match hold {
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

    fn handle_command(&mut self, command: RunnerCommand) {
        self.catch_up();
        // The sender of a command may have gone away, so the replies may have no receiver.
        match command {
            RunnerCommand::Retry(ids, reply) => {
                let now = self.shared.ages.now();
                let _ = reply.send(ids.iter().map(|id| self.retry(*id, now)).collect());
            }
            RunnerCommand::Reroute(messages, reply) => {
                let _ = reply.send(messages.iter().map(|waiting| self.reroute(waiting)).sum());
            }
            RunnerCommand::FindJobs(ids, reply) => {
                let timeline = self.shared.ages.timeline();
                let jobs = |id: &QueueId| self.jobs.get(id).map(Vec::as_slice).unwrap_or_default();
                let status = |id| (id, job_status::statuses(&self.queue, jobs(&id), &timeline));
                let _ = reply.send(ids.into_iter().map(status).collect());
            }
            RunnerCommand::Hold(ids, reply) => {
                let _ = reply.send(self.for_jobs(&ids, Queue::hold));
            }
            RunnerCommand::Release(released, reply) => {
                self.release(released);
                let _ = reply.send(());
            }
            RunnerCommand::Forget(ids, reply) => {
                let _ = reply.send(self.for_jobs(&ids, Queue::remove));
                // Those under way are known by their job alone from now on.
                for id in ids {
                    self.jobs.remove(&id);
                }
            }
            RunnerCommand::Snapshot(reply) => {
                let _ = reply.send(self.queue.snapshot());
            }
            RunnerCommand::Configure => self.configure(),
            // `run` has taken it.
            RunnerCommand::Drain(_) => {}
        }
    }

    fn release(&mut self, released: Vec<(QueueId, Option<UnixTime>)>) {
        let now = self.shared.ages.now();
        for (id, since) in released {
            let since = since.map(|at| self.shared.ages.timeline().place(at));
            self.for_jobs(&[id], |queue, job| queue.release(job, since, now));
        }
    }

    /// Makes a message due now, unless something holds it.
    fn retry(&mut self, id: QueueId, now: UnixTime) -> QueuePresence {
        let jobs = self.jobs.get(&id).map(Vec::as_slice).unwrap_or_default();
        let presence = job_status::presence(&self.queue, jobs);
        if presence == QueuePresence::Free {
            self.for_jobs(&[id], |queue, job| queue.retry_now(job, now));
        }
        presence
    }

    /// Applies a new configuration: sessions that were opened under the old one are closed, and waiting mail uses the
    /// new routes.
    fn configure(&mut self) {
        let config = self.shared.config.load_full();
        self.queue.configure(queue_config(&config));
        if self.retention != config.quarantine {
            self.retention = config.quarantine.clone();
            self.work.spawn(read_quarantined(Arc::clone(&self.shared), self.page_sender.clone()));
        }
        let routes = (config.routes.clone(), config.hostname.clone());
        if self.routes != routes {
            self.routes = routes;
            // Everything pending is read again, and known jobs move to their new next hop.
            self.work.spawn(read_pending(Arc::clone(&self.shared), self.page_sender.clone()));
        }
        for connection in self.shared.pool.take_all() {
            self.closing_sessions.spawn(connection.quit());
        }
    }

    /// Runs an operation on all jobs of these messages. Returns how many of the messages have jobs.
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
        // An engine that does not answer at once is asked again with the next tick.
        if let Some(Ok(totals)) = self.shared.spool.totals().now_or_never() {
            quarantine::gauge(&totals.quarantines, &mut self.gauged);
            let config = self.shared.config.load();
            self.shared.reservations.watch(&totals, self.shared.spool.free(), &config.quota, &self.gauged);
        }
        let (now, limit) = (monotonic(), self.shared.config.load().sessions.idle);
        for connection in self.shared.pool.take_expired(now, limit) {
            self.closing_sessions.spawn(connection.quit());
        }
        self.shared.host_defects.forget_expired(now);
        // Counts stay far below 2^52, up to job a float is exact.
        #[allow(clippy::cast_precision_loss)]
        {
            metrics::gauge!("pintle_clock_unsteady")
                .set(f64::from(u8::from(self.shared.ages.unsteady().is_some())));
            metrics::gauge!("pintle_queue_jobs").set(self.queue.len() as f64);
            metrics::gauge!("pintle_outbound_idle_sessions").set(self.shared.pool.idle_count() as f64);
            metrics::gauge!("pintle_outbound_attempts_running").set(self.work.len() as f64);
        }
    }

    /// Drains: attempts that wait for a session end at once, those in a session with a next hop within `grace`.
    async fn drain(mut self, grace: Duration) {
        tracing::info!(attempts = self.work.len(), "draining deliveries");
        self.shared.pool.close();
        self.pages.close();
        let work = &mut self.work;
        let closing = &mut self.closing_sessions;
        let finish = async {
            while let Some(done) = work.join_next().await {
                for connection in done.into_iter().flatten().flat_map(|finished| finished.retired) {
                    closing.spawn(connection.quit());
                }
            }
        };
        if tokio::time::timeout(grace, finish).await.is_err() {
            tracing::warn!(
                attempts = self.work.len(),
                "breaking off deliveries; they are made again after the next start"
            );
        }
        self.work.shutdown().await;
        for connection in self.shared.pool.take_all() {
            self.closing_sessions.spawn(connection.quit());
        }
        let closed = async { while self.closing_sessions.join_next().await.is_some() {} };
        // A next hop that does not answer QUIT must not delay the shutdown.
        let _ = tokio::time::timeout(QUIT_TIMEOUT, closed).await;
        self.closing_sessions.shutdown().await;
    }
}

/// Limits how many reports are written at once. After an outage of days, or a restart, a whole queue may reach its
/// maximum age in one moment; a task that waits here is small, since its work is not begun before it has a permit.
async fn limited<W: Future>(permits: Arc<Semaphore>, work: impl FnOnce() -> W) -> W::Output {
    // The semaphore is never closed; were it, the work would still have to be done.
    let _permit = permits.acquire().await.ok();
    Box::pin(work()).await
}

/// Runs a task. A panic is a bug of ours and must not lose the job: the queue then gets `after_panic`.
async fn guarded<F>(work: F, after_panic: Option<Finished>) -> Option<Finished>
where
    F: Future<Output = Option<Finished>>,
{
    match std::panic::AssertUnwindSafe(work).catch_unwind().await {
        Ok(finished) => finished,
        Err(_) => {
            if let Some(finished) = &after_panic {
                tracing::error!(queue_id = %finished.message, "a delivery panicked; it will be tried again");
            }
            after_panic
        }
    }
}

async fn timer_elapsed(timer: &mut Option<(UnixTime, BoxFuture<'static, ()>)>) {
    match timer {
        Some((_, sleep)) => sleep.await,
        None => std::future::pending().await,
    }
}

async fn closed_session(closing: &mut JoinSet<()>) -> Option<()> {
    closing.join_next().await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn a_report_is_not_begun_before_it_has_a_permit() {
        let permits = Arc::new(Semaphore::new(1));
        let (go, gone) = oneshot::channel::<()>();
        let begun = std::cell::Cell::new(false);
        let mut first = Box::pin(limited(Arc::clone(&permits), || gone));
        let mut second = Box::pin(limited(permits, || {
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
