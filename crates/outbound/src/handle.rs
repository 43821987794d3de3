//! What the rest of the program can ask of outbound while it runs: the verbs of `pintle queue`, counts, a new
//! configuration.
//!
//! What is durable is changed in the spool first; then the runner, which alone owns the queue, is told.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use pintle_mail::{EnhancedCode, NextHop, QueueId, Reply, UnixTime};
use pintle_queue::{ClockStep, Snapshot};
use pintle_record::{Record, Release};
use pintle_spool::{
    Disposition, Filter, Guard, Hold, Listing, Page, Quarantine, SpoolError, Stored, Totals, Waiting,
};
use pintle_tls::ClientTls;
use tokio::sync::{mpsc, oneshot};

use crate::quarantine::Deletion;
use crate::quota::{self, Full, Room};
use crate::reading::waiting_of;
use crate::select::{Act, Acts, CommandOutcome, Select};
use crate::settle::{self, RecipientResult, SettleContext};
use crate::shared::OutboundShared;
use crate::whereabouts::{Leg, QueuePresence};
use crate::{Config, quarantine};

/// How often a message is looked at anew whose recipients come to their end while an operator settles it.
const AGAIN: u32 = 10;
/// How many messages an operation on many looks up at once.
const PAGE: usize = 500;
/// Messages that an operation on many has in memory at once.
const AT_ONCE: usize = 32;

/// Asks a running [`Outbound`](crate::Outbound). Clones ask the same one.
#[derive(Clone)]
pub struct Handle {
    pub(crate) shared: Arc<OutboundShared>,
    pub(crate) commands: mpsc::UnboundedSender<Command>,
}

/// Why an operation could not be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OperateError {
    /// The spool refused.
    Spool(SpoolError),
    /// Outbound is stopping or has stopped.
    Stopped,
}

impl fmt::Display for OperateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spool(error) => error.fmt(f),
            Self::Stopped => f.write_str("deliveries are being stopped; ask again after the restart"),
        }
    }
}

impl std::error::Error for OperateError {}

impl From<SpoolError> for OperateError {
    fn from(error: SpoolError) -> Self {
        Self::Spool(error)
    }
}

/// Numbers for `pintle queue`, health checks and metrics.
#[derive(Debug, Clone)]
pub struct Counts {
    /// What lies in the spool.
    pub spool: Totals,
    /// What the queue makes of it.
    pub queue: Snapshot,
    /// Sessions open to next hops and waiting for work.
    pub idle_sessions: usize,
}

/// Where messages are, by their ids. One that the queue does not have is not in it.
pub type Whereabouts = HashMap<QueueId, Vec<Leg>>;

/// What the runner is told.
pub(crate) enum Command {
    /// These are due now; the answer says how each was found.
    Retry(Vec<QueueId>, oneshot::Sender<Vec<QueuePresence>>),
    /// These go by the routes of now; the answer counts recipients that moved.
    Reroute(Vec<Waiting>, oneshot::Sender<usize>),
    /// Where these are.
    Find(Vec<QueueId>, oneshot::Sender<Whereabouts>),
    /// These stay where they are.
    Hold(Vec<QueueId>, oneshot::Sender<usize>),
    /// These may go again; their age counts from the time given, if one is.
    Release(Vec<(QueueId, Option<UnixTime>)>, oneshot::Sender<()>),
    /// These are settled.
    Forget(Vec<QueueId>, oneshot::Sender<usize>),
    /// The queue in numbers.
    Count(oneshot::Sender<Snapshot>),
    /// The configuration has changed.
    Configure,
    /// Finish what is under way within this time, begin nothing.
    Drain(Duration),
}

impl Handle {
    /// A page of what lies in the spool.
    ///
    /// # Errors
    /// The spool's.
    pub async fn list(&self, filter: Filter, page: Page) -> Result<Listing, OperateError> {
        Ok(self.shared.spool.list(filter, page).await?)
    }

    /// One message with its header, and how each recipient stands.
    ///
    /// # Errors
    /// The spool's; [`SpoolError::Unknown`] when it is gone.
    pub async fn show(&self, id: QueueId) -> Result<Stored, OperateError> {
        Ok(self.shared.spool.load(id).await?)
    }

    /// Where messages are in the queue, and when they are tried again.
    ///
    /// # Errors
    /// Outbound has stopped.
    pub async fn whereabouts(&self, ids: Vec<QueueId>) -> Result<Whereabouts, OperateError> {
        self.ask(|answer| Command::Find(ids, answer)).await
    }

    /// Where mail for this recipient's domain (A-labels, lower case) goes that comes now.
    #[must_use]
    pub fn next_hop(&self, domain: &str) -> NextHop {
        self.shared.config.load().next_hop(domain)
    }

    /// Makes messages due now, whatever puts them or their next hops off. What is held stays held.
    ///
    /// # Errors
    /// The spool's while it looks for messages, or that outbound has stopped.
    pub async fn retry(&self, which: Select) -> Result<Acts, OperateError> {
        let ids = self.ids(which).await?;
        let named = ids.clone();
        let found = self.ask(|answer| Command::Retry(named, answer)).await?;
        let found: HashMap<QueueId, QueuePresence> = ids.iter().copied().zip(found).collect();
        let retried = |id: QueueId| {
            let found = found.get(&id).copied().unwrap_or(QueuePresence::Absent);
            async move { if found == QueuePresence::Free { Ok(()) } else { Err(self.why_not(id).await) } }
        };
        Ok(self.each(ids, retried).await)
    }

    /// Sends all pending recipients of messages by this next hop from now on, whatever routes say; by the routes, where none
    /// is given. What is under way is moved when it comes back. A message that moves is due at once.
    ///
    /// # Errors
    /// The spool's while it looks for messages, or that outbound has stopped.
    pub async fn reroute(&self, which: Select, via: Option<&NextHop>) -> Result<Acts, OperateError> {
        let ids = self.ids(which).await?;
        let acts = self.each(ids, |id| self.choose(id, via)).await;
        // Each is read anew, so that the queue hears what has become of it meanwhile.
        let read =
            |id| async move { self.shared.spool.load(id).await.ok().map(|stored| waiting_of(&stored)) };
        let read = futures_util::stream::iter(acts.ids_done()).map(read).buffered(AT_ONCE);
        let messages: Vec<Waiting> = read.filter_map(std::future::ready).collect().await;
        self.ask(|answer| Command::Reroute(messages, answer)).await?;
        Ok(acts)
    }

    /// Keeps messages from delivery until they are released, expire, or are settled by hand. What lies in a quarantine
    /// is kept already, and stays there.
    ///
    /// # Errors
    /// The spool's while it looks for messages, or that outbound has stopped.
    pub async fn hold(&self, which: Select, reason: &str) -> Result<Acts, OperateError> {
        let ids = self.ids(which).await?;
        let _in_order = self.shared.acting.lock().await;
        let hold = Hold::Operator(reason.to_owned());
        let held = ids.iter().map(|id| self.shared.spool.hold(*id, hold.clone()));
        let held = join_all(held).await;
        let acts = ids.iter().zip(held).map(|(id, before)| Act {
            id: *id,
            outcome: match before {
                Ok(Some(Hold::Quarantine(quarantine))) => CommandOutcome::Quarantined(quarantine.name),
                Ok(Some(Hold::Operator(_) | Hold::Other(_)) | None) => {
                    self.shared.tell_hold(*id, &hold, None);
                    CommandOutcome::Done
                }
                Err(error) => CommandOutcome::of(error),
            },
        });
        let acts = Acts(acts.collect());
        let ids = acts.ids_done();
        self.ask(|answer| Command::Hold(ids, answer)).await?;
        Ok(acts)
    }

    /// Lets held messages go, those in quarantines too: they are due at once.
    ///
    /// # Errors
    /// As for [`hold`](Self::hold).
    pub async fn release(&self, which: Select, user: Option<&str>) -> Result<Acts, OperateError> {
        self.let_go(which, user, Guard::Any).await
    }

    /// Lets held messages go, but leaves those in quarantines where they are.
    ///
    /// # Errors
    /// As for [`hold`](Self::hold).
    pub async fn release_held(&self, which: Select, user: Option<&str>) -> Result<Acts, OperateError> {
        self.let_go(which, user, Guard::Free).await
    }

    /// Lets messages out of their quarantines, and no others go: they are due at once, and their age counts from now.
    ///
    /// # Errors
    /// As for [`hold`](Self::hold).
    pub async fn release_quarantined(&self, which: Select, user: Option<&str>) -> Result<Acts, OperateError> {
        self.let_go(which, user, Guard::Quarantined).await
    }

    /// Drops messages that lie in quarantines, and tells nobody but the log.
    ///
    /// # Errors
    /// As for [`hold`](Self::hold).
    pub async fn delete_quarantined(&self, which: Select, user: Option<&str>) -> Result<Acts, OperateError> {
        let ids = self.ids(which).await?;
        let deletion = Deletion::by_operator(user);
        let acts = self.each(ids, |id| quarantine::delete(&self.shared, id, &deletion)).await;
        self.forget(acts).await
    }

    /// Asks for room for one message of this size in a quarantine. Keep it until the message is held there.
    ///
    /// # Errors
    /// There is none: the message must be refused for now.
    pub async fn quarantine_room(&self, name: &str, size: u64) -> Result<Room, Full> {
        quota::admit(&self.shared, name, size).await
    }

    /// Fails all recipients of messages that are not done, and reports it to the senders; but not of those in
    /// quarantine, whose senders are taken for forged.
    ///
    /// # Errors
    /// As for [`hold`](Self::hold).
    pub async fn bounce(&self, which: Select, reason: &str) -> Result<Acts, OperateError> {
        // RFC 3463 section 3.8: X.7.1, delivery not authorised.
        let reply = Reply::new(554, EnhancedCode(5, 7, 1), reason.to_owned());
        let result = RecipientResult::by_operator(Disposition::Failed, reply);
        let ids = self.ids(which).await?;
        let acts = self.each(ids, |id| self.settle(id, Guard::Free, &result)).await;
        self.forget(acts).await
    }

    /// Drops messages, wherever they lie, without telling anybody but the log.
    ///
    /// # Errors
    /// As for [`hold`](Self::hold).
    pub async fn discard(&self, which: Select) -> Result<Acts, OperateError> {
        let reply = Reply::plain(250, "Dropped by the operator");
        let result = RecipientResult::by_operator(Disposition::Discarded, reply);
        let ids = self.ids(which).await?;
        let acts = self.each(ids, |id| self.settle(id, Guard::Any, &result)).await;
        self.forget(acts).await
    }

    /// Numbers of the moment.
    ///
    /// # Errors
    /// The spool's, or that outbound has stopped.
    pub async fn counts(&self) -> Result<Counts, OperateError> {
        let queue = self.ask(Command::Count).await?;
        Ok(Counts { spool: self.shared.spool.totals().await?, queue, idle_sessions: self.shared.pool.idle() })
    }

    /// The last time that the clock was set, while something is still held for it.
    #[must_use]
    pub fn clock_step(&self) -> Option<ClockStep> {
        self.shared.ages.unsteady()
    }

    /// When a message expires whose age counts from this stored time, in the time of day.
    #[must_use]
    pub fn expires(&self, age_from: UnixTime) -> UnixTime {
        let max_age = self.shared.config.load().retry.max_age;
        let timeline = self.shared.ages.timeline();
        timeline.wall(timeline.place(age_from).plus(max_age).max(timeline.steady_at(max_age)))
    }

    /// When the time of a message in this quarantine is over, in the time of day.
    #[must_use]
    pub fn kept_until(&self, quarantine: &Quarantine) -> UnixTime {
        let timeline = self.shared.ages.timeline();
        timeline.wall(self.shared.config.load().quarantine.until(quarantine, &timeline))
    }

    /// When a stored next attempt is really made, in the time of day.
    #[must_use]
    pub fn next_attempt(&self, stored: UnixTime) -> UnixTime {
        let longest = self.shared.config.load().retry.longest_wait();
        let timeline = self.shared.ages.timeline();
        timeline.wall(timeline.place_ahead(stored, longest)).min(stored)
    }

    /// What was stored before this time is older than `age` by either clock.
    #[must_use]
    pub fn stored_before(&self, age: Duration) -> UnixTime {
        self.shared.ages.timeline().stored_before(age)
    }

    /// Takes a new configuration and TLS set-up. Attempts under way finish on the old ones; what waits goes by the new routes,
    /// and what remains of an attempt under way does so when it comes back.
    pub fn reload(&self, config: Config, tls: ClientTls) {
        // In this order, an attempt that goes by the new configuration verifies against the new roots, too.
        self.shared.tls.store(Arc::new(tls));
        self.shared.config.store(Arc::new(config));
        // A runner that has stopped needs no configuration.
        let _ = self.tell(Command::Configure);
    }

    /// One operation after the other is asked for, some at a time, so that they share their syncs.
    async fn each<W: Future<Output = Result<(), CommandOutcome>>>(
        &self,
        ids: Vec<QueueId>,
        act: impl Fn(QueueId) -> W,
    ) -> Acts {
        let acts = futures_util::stream::iter(ids).map(|id| {
            let acting = act(id);
            async move { Act { id, outcome: acting.await.err().unwrap_or(CommandOutcome::Done) } }
        });
        Acts(acts.buffered(AT_ONCE).collect().await)
    }

    /// Lets those go that the guard means. It is the spool that looks: a message may be quarantined at any moment.
    async fn let_go(&self, which: Select, user: Option<&str>, guard: Guard) -> Result<Acts, OperateError> {
        let ids = self.ids(which).await?;
        let _in_order = self.shared.acting.lock().await;
        let at = self.shared.clock.now();
        let released = join_all(ids.iter().map(|id| self.shared.spool.release(*id, at, guard))).await;
        let (mut since, mut acts) = (Vec::with_capacity(ids.len()), Vec::with_capacity(ids.len()));
        for (id, before) in ids.into_iter().zip(released) {
            let outcome = match before {
                Ok(Some(hold)) => {
                    since.push((id, hold.quarantine().map(|_| at)));
                    self.tell_release(id, &hold, user);
                    CommandOutcome::Done
                }
                Ok(None) => {
                    since.push((id, None));
                    CommandOutcome::NotHeld
                }
                Err(SpoolError::HoldChanged(_)) => self.not_meant(id).await,
                Err(error) => CommandOutcome::of(error),
            };
            acts.push(Act { id, outcome });
        }
        // The runner is told as well, lest an announcement that met an attempt under way be lost on it.
        self.ask(|answer| Command::Release(since, answer)).await?;
        Ok(Acts(acts))
    }

    /// Why the guard of a release spared this message.
    async fn not_meant(&self, id: QueueId) -> CommandOutcome {
        match self.shared.spool.load(id).await {
            Err(error) => CommandOutcome::of(error),
            Ok(stored) => match stored.entry.hold {
                Some(Hold::Quarantine(quarantine)) => CommandOutcome::Quarantined(quarantine.name),
                _ => CommandOutcome::NotQuarantined,
            },
        }
    }

    fn tell_release(&self, id: QueueId, hold: &Hold, user: Option<&str>) {
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

    /// Stores the operator's choice, where it is another than before.
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
                Some(Hold::Quarantine(quarantine)) => CommandOutcome::Quarantined(quarantine.name),
                Some(hold) => CommandOutcome::Held(hold.to_string()),
                None => CommandOutcome::NotNow,
            },
        }
    }

    async fn settle(
        &self,
        id: QueueId,
        guard: Guard,
        result: &RecipientResult,
    ) -> Result<(), CommandOutcome> {
        let context = SettleContext { guard, ..SettleContext::by_operator() };
        let mut tries = 0;
        loop {
            tries += 1;
            let stored = self.shared.spool.load(id).await.map_err(CommandOutcome::of)?;
            let quarantine = stored.entry.hold.as_ref().and_then(Hold::quarantine);
            if let (Guard::Free, Some(quarantine)) = (guard, quarantine) {
                return Err(CommandOutcome::Quarantined(quarantine.name.clone()));
            }
            let results = settle::all_pending(&stored, result);
            match settle::once(&self.shared, &stored, &context, &results).await {
                // An attempt came to its end meanwhile, and each recipient does so once.
                Err(SpoolError::RecipientsChanged(_)) if tries < AGAIN => {}
                settled => return settled.map(drop).map_err(CommandOutcome::of),
            }
        }
    }

    /// Tells the runner what is settled.
    async fn forget(&self, acts: Acts) -> Result<Acts, OperateError> {
        let ids = acts.ids_done();
        self.ask(|answer| Command::Forget(ids, answer)).await?;
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

    /// Waits until the runner has obeyed, so that whoever asked can rely on it.
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, OperateError> {
        let (answer, given) = oneshot::channel();
        self.tell(command(answer))?;
        given.await.map_err(|_| OperateError::Stopped)
    }

    fn tell(&self, command: Command) -> Result<(), OperateError> {
        self.commands.send(command).map_err(|_| OperateError::Stopped)
    }
}
