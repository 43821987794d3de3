//! What the rest of the program can ask of outbound while it runs: the verbs of `pintle queue`, counts, a new
//! configuration.
//!
//! What is durable is changed in the spool first; then the runner, which alone owns the queue, is told.

use std::fmt;
use std::sync::Arc;

use pintle_mail::{EnhancedCode, QueueId, Reply};
use pintle_queue::Snapshot;
use pintle_record::{Record, Release};
use pintle_spool::{Disposition, Filter, Hold, Listing, Page, SpoolError, Stored, Totals};
use pintle_tls::ClientTls;
use tokio::sync::{mpsc, oneshot};

use crate::Config;
use crate::settle::{self, Fate};
use crate::shared::Shared;

/// How many messages an operation on many looks up at once.
const PAGE: usize = 500;

/// Asks a running [`Outbound`](crate::Outbound). Clones ask the same one.
#[derive(Clone)]
pub struct Handle {
    pub(crate) shared: Arc<Shared>,
    pub(crate) commands: mpsc::UnboundedSender<Command>,
}

/// Which messages an operator means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Select {
    /// These.
    Ids(Vec<QueueId>),
    /// Those that the filter lets through; the empty filter means all.
    Matching(Filter),
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

/// What the runner is told.
pub(crate) enum Command {
    /// These are due now.
    Retry(Vec<QueueId>, oneshot::Sender<usize>),
    /// These stay where they are.
    Hold(Vec<QueueId>, oneshot::Sender<usize>),
    /// These may go again.
    Release(Vec<QueueId>, oneshot::Sender<usize>),
    /// These are settled.
    Forget(Vec<QueueId>, oneshot::Sender<usize>),
    /// The queue in numbers.
    Count(oneshot::Sender<Snapshot>),
    /// The configuration has changed.
    Configure,
    /// Finish what is under way within this time, begin nothing.
    Drain(std::time::Duration),
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

    /// Makes messages due now, whatever puts them or their next hops off. Gives how many have a delivery ahead.
    ///
    /// # Errors
    /// The spool's, or that outbound has stopped.
    pub async fn retry(&self, which: Select) -> Result<usize, OperateError> {
        let ids = self.ids(which).await?;
        self.ask(|answer| Command::Retry(ids, answer)).await
    }

    /// Keeps messages from delivery until they are released, expire, or are settled by hand. Gives how many.
    ///
    /// # Errors
    /// The spool's, or that outbound has stopped.
    pub async fn hold(&self, which: Select, reason: &str) -> Result<usize, OperateError> {
        let ids = self.ids(which).await?;
        for id in &ids {
            let hold = Hold::Operator(reason.to_owned());
            self.shared.spool.hold(*id, hold.clone()).await?;
            self.shared.tell_hold(*id, &hold, None);
        }
        let count = ids.len();
        self.ask(|answer| Command::Hold(ids, answer)).await?;
        Ok(count)
    }

    /// Lets held messages go. Gives how many were meant, held or not.
    ///
    /// # Errors
    /// The spool's, or that outbound has stopped.
    pub async fn release(&self, which: Select) -> Result<usize, OperateError> {
        let ids = self.ids(which).await?;
        for &id in &ids {
            self.shared.spool.release(id).await?;
            tracing::info!(queue_id = %id, "released");
            let time = self.shared.clock.now();
            self.shared.records.record(Record::Release(Release { time, id }));
        }
        let count = ids.len();
        // The runner is told as well, lest an announcement that met an attempt under way be lost on it.
        self.ask(|answer| Command::Release(ids, answer)).await?;
        Ok(count)
    }

    /// Fails all recipients of messages that are not done, and reports it to the senders. Gives how many messages.
    ///
    /// # Errors
    /// The spool's, or that outbound has stopped.
    pub async fn bounce(&self, which: Select, reason: &str) -> Result<usize, OperateError> {
        // RFC 3463 section 3.8: X.7.1, delivery not authorised.
        let reply = Reply::new(554, EnhancedCode(5, 7, 1), reason.to_owned());
        self.finish(which, Disposition::Failed, reply).await
    }

    /// Drops messages without telling anybody but the log. Gives how many.
    ///
    /// # Errors
    /// The spool's, or that outbound has stopped.
    pub async fn discard(&self, which: Select) -> Result<usize, OperateError> {
        let reply = Reply::plain(250, "Dropped by the operator");
        self.finish(which, Disposition::Discarded, reply).await
    }

    /// Numbers of the moment.
    ///
    /// # Errors
    /// The spool's, or that outbound has stopped.
    pub async fn counts(&self) -> Result<Counts, OperateError> {
        let queue = self.ask(Command::Count).await?;
        Ok(Counts { spool: self.shared.spool.totals().await?, queue, idle_sessions: self.shared.pool.idle() })
    }

    /// Takes a new configuration and TLS set-up. Attempts under way finish on the old ones; what is queued already keeps
    /// the next hop that the old routes gave it, whose settings are those of the new configuration.
    pub fn reload(&self, config: Config, tls: ClientTls) {
        self.shared.config.store(Arc::new(config));
        self.shared.tls.store(Arc::new(tls));
        // A runner that has stopped needs no configuration.
        let _ = self.tell(Command::Configure);
    }

    async fn finish(&self, which: Select, fate: Disposition, reply: Reply) -> Result<usize, OperateError> {
        let ids = self.ids(which).await?;
        let mut done = 0;
        for &id in &ids {
            let stored = match self.shared.spool.load(id).await {
                // It was settled while we looked.
                Err(SpoolError::Unknown(_)) => continue,
                stored => stored?,
            };
            let fates = settle::all_pending(&stored, &Fate::by_operator(fate, reply.clone()));
            settle::once(&self.shared, &stored, &fates).await?;
            done += 1;
        }
        self.ask(|answer| Command::Forget(ids, answer)).await?;
        Ok(done)
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
