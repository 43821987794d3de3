//! The handle through which the rest of the program controls outbound while it runs: the verbs of `pintle queue` and
//! `pintle quarantine`, and a new configuration.
//!
//! Durable state is changed in the spool first; then the runner, which alone owns the queue, gets a command.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use pintle_mail::{EnhancedCode, NextHop, QueueId, Reply, UnixTime};
use pintle_queue::{ClockStep, Snapshot};
use pintle_record::{Record, Release};
use pintle_spool::{Filter, Guard, HoldReason, Listing, Page, Quarantine, SpoolError, Stored, Waiting};
use pintle_tls::ClientTls;
use tokio::sync::{mpsc, oneshot};

use crate::commands::{JobsByMessage, RunnerCommand};
use crate::job_status::QueuePresence;
use crate::parts::OutboundShared;
use crate::quarantine::{self, Deletion};
use crate::quota::{QuarantineFull, QuotaReservation};
use crate::recipient_result::{self, ReportPolicy, Resolution};
use crate::select::{CommandOutcome, CommandResult, CommandResults, Select};
use crate::settle::{self, SettleCause};
use crate::spool_reader::waiting_of;
use crate::{Config, quarantine_admission};

/// How often a message is read again if attempts settle its recipients while an operator bounces it.
const MAX_TRIES: u32 = 10;
/// The page size when an operation lists messages.
const PAGE: usize = 500;
/// The most messages that an operation reads and changes concurrently.
const MAX_ACTING: usize = 32;
/// The most messages that are held or released concurrently. Each is a single small write, and concurrent ones share a
/// sync.
const MAX_HOLDING: usize = 256;

/// A handle to a running [`Outbound`](crate::Outbound). All clones control the same one.
#[derive(Clone)]
pub struct Handle {
    pub(crate) shared: Arc<OutboundShared>,
    pub(crate) commands: mpsc::UnboundedSender<RunnerCommand>,
}

/// Why an operation could not be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OperateError {
    /// The spool failed with this error.
    Spool(SpoolError),
    /// Outbound is stopping or has stopped.
    Stopped,
}

impl fmt::Display for OperateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spool(error) => error.fmt(f),
            Self::Stopped => f.write_str("deliveries are stopping; try again after the restart"),
        }
    }
}

impl std::error::Error for OperateError {}

impl From<SpoolError> for OperateError {
    fn from(error: SpoolError) -> Self {
        Self::Spool(error)
    }
}

impl Handle {
    /// Lists messages in the spool, one page at a time.
    ///
    /// # Errors
    /// The spool cannot be read.
    pub async fn list(&self, filter: Filter, page: Page) -> Result<Listing, OperateError> {
        Ok(self.shared.spool.list(filter, page).await?)
    }

    /// One message with its header, and the status of each recipient.
    ///
    /// # Errors
    /// The spool cannot be read; [`SpoolError::Unknown`] if the message is gone.
    pub async fn show(&self, id: QueueId) -> Result<Stored, OperateError> {
        Ok(self.shared.spool.load(id).await?)
    }

    /// The jobs of messages in the queue: their next hops, and when they are tried again.
    ///
    /// # Errors
    /// Outbound has stopped.
    pub async fn jobs(&self, ids: Vec<QueueId>) -> Result<JobsByMessage, OperateError> {
        self.ask(|reply| RunnerCommand::FindJobs(ids, reply)).await
    }

    /// The next hop of mail for this recipient domain (A-labels, lower case) that arrives now.
    #[must_use]
    pub fn next_hop(&self, domain: &str) -> NextHop {
        self.shared.config.load().next_hop(domain)
    }

    /// Makes messages due now, regardless of their back-off and that of their next hops. A held message stays held.
    ///
    /// # Errors
    /// The spool cannot be listed, or outbound has stopped. Errors of single messages are in the result.
    pub async fn retry(&self, which: Select) -> Result<CommandResults, OperateError> {
        let ids = self.ids(which).await?;
        let named = ids.clone();
        let presences = self.ask(|reply| RunnerCommand::Retry(named, reply)).await?;
        let presences: HashMap<QueueId, QueuePresence> = ids.iter().copied().zip(presences).collect();
        let retried = |id: QueueId| {
            let presence = presences.get(&id).copied().unwrap_or(QueuePresence::Absent);
            async move { if presence == QueuePresence::Free { Ok(()) } else { Err(self.why_not(id).await) } }
        };
        Ok(self.each(ids, retried).await)
    }

    /// Sends all pending recipients of messages by this next hop from now on, regardless of the routes; with none, by
    /// the routes again. An attempt under way is moved when it has finished. A message that moves is due at once.
    ///
    /// # Errors
    /// The spool cannot be listed, or outbound has stopped. Errors of single messages are in the result.
    pub async fn reroute(
        &self,
        which: Select,
        via: Option<&NextHop>,
    ) -> Result<CommandResults, OperateError> {
        let ids = self.ids(which).await?;
        let acts = self.each(ids, |id| self.choose(id, via)).await;
        // Each is read again, so that the queue gets its present state.
        let read =
            |id| async move { self.shared.spool.load(id).await.ok().map(|stored| waiting_of(&stored)) };
        let read = for_each(acts.ids_done(), MAX_ACTING, read).await;
        let messages: Vec<Waiting> = read.into_iter().flatten().collect();
        self.ask(|reply| RunnerCommand::Reroute(messages, reply)).await?;
        Ok(acts)
    }

    /// Holds messages: they are not delivered until they are released, expire, or an operator bounces them. A
    /// quarantined message is held already, and stays in its quarantine.
    ///
    /// # Errors
    /// The spool cannot be listed, or outbound has stopped. Errors of single messages are in the result.
    pub async fn hold(&self, which: Select, reason: &str) -> Result<CommandResults, OperateError> {
        let ids = self.ids(which).await?;
        let _in_order = self.shared.acting.lock().await;
        let hold = HoldReason::Operator(reason.to_owned());
        let held = for_each(ids.clone(), MAX_HOLDING, |id| self.shared.spool.hold(id, hold.clone())).await;
        let acts = ids.iter().zip(held).map(|(id, before)| CommandResult {
            id: *id,
            outcome: match before {
                Ok(Some(HoldReason::Quarantine(quarantine))) => CommandOutcome::Quarantined(quarantine.name),
                Ok(Some(HoldReason::Operator(_) | HoldReason::Other(_)) | None) => {
                    self.shared.record_hold(*id, &hold);
                    CommandOutcome::Done
                }
                Err(error) => CommandOutcome::of(error),
            },
        });
        let acts = CommandResults(acts.collect());
        let ids = acts.ids_done();
        self.ask(|reply| RunnerCommand::Hold(ids, reply)).await?;
        Ok(acts)
    }

    /// Releases held messages, those in quarantines too: they are due at once.
    ///
    /// # Errors
    /// As for [`hold`](Self::hold).
    pub async fn release(&self, which: Select, user: Option<&str>) -> Result<CommandResults, OperateError> {
        self.release_guarded(which, user, Guard::Any).await
    }

    /// Releases held messages, but leaves those in quarantines where they are.
    ///
    /// # Errors
    /// As for [`hold`](Self::hold).
    pub async fn release_held(
        &self,
        which: Select,
        user: Option<&str>,
    ) -> Result<CommandResults, OperateError> {
        self.release_guarded(which, user, Guard::Free).await
    }

    /// Releases messages from their quarantines, and no others: they are due at once, and their age counts from now.
    ///
    /// # Errors
    /// As for [`hold`](Self::hold).
    pub async fn release_quarantined(
        &self,
        which: Select,
        user: Option<&str>,
    ) -> Result<CommandResults, OperateError> {
        self.release_guarded(which, user, Guard::Quarantined).await
    }

    /// Deletes messages from their quarantines. No report is sent; the event log has a record of each.
    ///
    /// # Errors
    /// As for [`hold`](Self::hold).
    pub async fn delete_quarantined(
        &self,
        which: Select,
        user: Option<&str>,
    ) -> Result<CommandResults, OperateError> {
        let ids = self.ids(which).await?;
        let deletion = Deletion::ByOperator { user };
        let acts = self.each(ids, |id| quarantine::delete(&self.shared, id, &deletion)).await;
        self.forget(acts).await
    }

    /// Reserves room for one message of this size, in octets, in a quarantine. Keep it until the message is held there.
    ///
    /// # Errors
    /// There is no room: the message must be refused with 4xx.
    pub async fn quarantine_room(&self, name: &str, size: u64) -> Result<QuotaReservation, QuarantineFull> {
        quarantine_admission::admit(&self.shared, name, size).await
    }

    /// Fails all pending recipients of messages, and sends bounces to the senders. A quarantined message is left alone,
    /// since its sender is assumed to be forged.
    ///
    /// # Errors
    /// As for [`hold`](Self::hold).
    pub async fn bounce(&self, which: Select, reason: &str) -> Result<CommandResults, OperateError> {
        // RFC 3463 section 3.8: X.7.1, delivery not authorised.
        let reply = Reply::new(554, EnhancedCode(5, 7, 1), reason.to_owned());
        let ids = self.ids(which).await?;
        let acts = self.each(ids, |id| self.bounce_one(id, &reply)).await;
        self.forget(acts).await
    }

    /// The numbers of jobs in the queue, in all and by next hop.
    ///
    /// # Errors
    /// Outbound has stopped.
    pub async fn queue_snapshot(&self) -> Result<Snapshot, OperateError> {
        self.ask(RunnerCommand::Snapshot).await
    }

    /// The last step of the wall clock, while expiries still wait because of it.
    #[must_use]
    pub fn clock_step(&self) -> Option<ClockStep> {
        self.shared.ages.unsteady()
    }

    /// The time of day at which a message expires whose age counts from this stored time.
    #[must_use]
    pub fn expires(&self, age_from: UnixTime) -> UnixTime {
        let max_age = self.shared.config.load().retry.max_age;
        let timeline = self.shared.ages.timeline();
        timeline.wall(timeline.place(age_from).plus(max_age).max(timeline.steady_at(max_age)))
    }

    /// The time of day at which the retention of a message in this quarantine is over.
    #[must_use]
    pub fn kept_until(&self, quarantine: &Quarantine) -> UnixTime {
        let timeline = self.shared.ages.timeline();
        timeline.wall(self.shared.config.load().quarantine.until(quarantine, &timeline))
    }

    /// The time of day of the next attempt, from the stored time, which a wrong clock may have written.
    #[must_use]
    pub fn next_attempt(&self, stored: UnixTime) -> UnixTime {
        let longest = self.shared.config.load().retry.longest_wait();
        let timeline = self.shared.ages.timeline();
        timeline.wall(timeline.place_ahead(stored, longest)).min(stored)
    }

    /// The time before which everything stored is older than `age` by both clocks.
    #[must_use]
    pub fn stored_before(&self, age: Duration) -> UnixTime {
        self.shared.ages.timeline().stored_before(age)
    }

    /// Takes a new configuration and TLS set-up. Attempts under way finish with the old ones; waiting mail uses the new
    /// routes, and so do the recipients that an attempt under way leaves pending.
    pub fn reload(&self, config: Config, tls: ClientTls) {
        // In this order, an attempt under the new configuration verifies against the new roots as well.
        self.shared.tls.store(Arc::new(tls));
        self.shared.config.store(Arc::new(config));
        // A runner that has stopped needs no configuration.
        let _ = self.send(RunnerCommand::Configure);
    }

    /// Runs an operation for each message, some concurrently, so that they share their syncs.
    async fn each<W: Future<Output = Result<(), CommandOutcome>>>(
        &self,
        ids: Vec<QueueId>,
        act: impl Fn(QueueId) -> W,
    ) -> CommandResults {
        let act = |id| {
            let acting = act(id);
            async move { CommandResult { id, outcome: acting.await.err().unwrap_or(CommandOutcome::Done) } }
        };
        CommandResults(for_each(ids, MAX_ACTING, act).await)
    }

    /// Releases the messages that satisfy the guard. The spool checks it, since a message may be quarantined at any
    /// moment.
    async fn release_guarded(
        &self,
        which: Select,
        user: Option<&str>,
        guard: Guard,
    ) -> Result<CommandResults, OperateError> {
        let ids = self.ids(which).await?;
        let _in_order = self.shared.acting.lock().await;
        let at = self.shared.clock.now();
        let release = |id| self.shared.spool.release(id, at, guard);
        let released = for_each(ids.clone(), MAX_HOLDING, release).await;
        let (mut since, mut acts) = (Vec::with_capacity(ids.len()), Vec::with_capacity(ids.len()));
        for (id, before) in ids.into_iter().zip(released) {
            let outcome = match before {
                Ok(Some(hold)) => {
                    since.push((id, hold.quarantine().map(|_| at)));
                    self.record_release(id, &hold, user);
                    CommandOutcome::Done
                }
                Ok(None) => {
                    since.push((id, None));
                    CommandOutcome::NotHeld
                }
                Err(SpoolError::HoldChanged(_)) => self.why_guarded(id).await,
                Err(error) => CommandOutcome::of(error),
            };
            acts.push(CommandResult { id, outcome });
        }
        // The spool announces the messages as well, but the runner ignores that for one whose attempt is under way.
        self.ask(|reply| RunnerCommand::Release(since, reply)).await?;
        Ok(CommandResults(acts))
    }

    /// Why the guard kept this message from being released.
    async fn why_guarded(&self, id: QueueId) -> CommandOutcome {
        match self.shared.spool.load(id).await {
            Err(error) => CommandOutcome::of(error),
            Ok(stored) => match stored.entry.hold {
                Some(HoldReason::Quarantine(quarantine)) => CommandOutcome::Quarantined(quarantine.name),
                _ => CommandOutcome::NotQuarantined,
            },
        }
    }

    fn record_release(&self, id: QueueId, hold: &HoldReason, user: Option<&str>) {
        if hold.quarantine().is_some() {
            quarantine::count("released");
        }
        self.shared.records.record(&Record::Release(Release {
            time: self.shared.clock.now(),
            id,
            quarantine: hold.quarantine().map(|quarantine| quarantine.name.clone()),
            by: Some("operator".to_owned()),
            user: user.map(str::to_owned),
        }));
    }

    /// Stores the operator's choice for the recipients that do not have it already.
    async fn choose(&self, id: QueueId, via: Option<&NextHop>) -> Result<(), CommandOutcome> {
        let stored = self.shared.spool.load(id).await.map_err(CommandOutcome::of)?;
        let pending = stored.recipients.iter().filter(|state| state.status.pending().is_some());
        let ids: Vec<u32> =
            pending.filter(|state| state.route.as_ref() != via).map(|state| state.id).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let chosen = self.shared.spool.reroute(id, ids, via.cloned()).await;
        chosen.map_err(CommandOutcome::of)
    }

    /// Why a message that the queue does not try is not tried.
    async fn why_not(&self, id: QueueId) -> CommandOutcome {
        match self.shared.spool.load(id).await {
            Err(error) => CommandOutcome::of(error),
            Ok(stored) => match stored.entry.hold {
                Some(HoldReason::Quarantine(quarantine)) => CommandOutcome::Quarantined(quarantine.name),
                Some(hold) => CommandOutcome::Held(hold.to_string()),
                None => CommandOutcome::NotNow,
            },
        }
    }

    async fn bounce_one(&self, id: QueueId, reply: &Reply) -> Result<(), CommandOutcome> {
        let mut tries = 0;
        loop {
            tries += 1;
            let stored = self.shared.spool.load(id).await.map_err(CommandOutcome::of)?;
            if let Some(quarantine) = stored.entry.hold.as_ref().and_then(HoldReason::quarantine) {
                return Err(CommandOutcome::Quarantined(quarantine.name.clone()));
            }
            let end = Resolution::Failed(ReportPolicy::Due);
            let results = recipient_result::for_all_pending(&stored, end, reply);
            match settle::once(&self.shared, &stored, &SettleCause::OperatorBounce, &results).await {
                // An attempt has settled some of them meanwhile, and each recipient is settled once.
                Err(SpoolError::RecipientsChanged(_)) if tries < MAX_TRIES => {}
                settled => return settled.map(drop).map_err(CommandOutcome::of),
            }
        }
    }

    /// Has the runner drop the jobs of messages that are settled.
    async fn forget(&self, acts: CommandResults) -> Result<CommandResults, OperateError> {
        let ids = acts.ids_done();
        self.ask(|reply| RunnerCommand::Forget(ids, reply)).await?;
        Ok(acts)
    }

    async fn ids(&self, which: Select) -> Result<Vec<QueueId>, OperateError> {
        let filter = match which {
            Select::Ids(ids) => return Ok(ids),
            Select::Matching(filter) => filter,
        };
        let (mut ids, mut after) = (Vec::new(), None);
        loop {
            let page = Page { after, limit: PAGE };
            let listing = self.shared.spool.list(filter.clone(), page).await?;
            ids.extend(listing.messages.iter().map(|message| message.id));
            match listing.next {
                Some(next) => after = Some(next),
                None => return Ok(ids),
            }
        }
    }

    /// Sends a command and waits until the runner has carried it out.
    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> RunnerCommand,
    ) -> Result<T, OperateError> {
        let (reply, given) = oneshot::channel();
        self.send(command(reply))?;
        given.await.map_err(|_| OperateError::Stopped)
    }

    fn send(&self, command: RunnerCommand) -> Result<(), OperateError> {
        self.commands.send(command).map_err(|_| OperateError::Stopped)
    }
}

/// Runs an operation for each message, at most `limit` concurrently, and returns the results in the order of the
/// messages.
async fn for_each<W: Future>(ids: Vec<QueueId>, limit: usize, act: impl Fn(QueueId) -> W) -> Vec<W::Output> {
    futures_util::stream::iter(ids).map(act).buffered(limit).collect().await
}
