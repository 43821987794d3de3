//! Recovery of the index at run time: an index that fails to store what the log has is brought up from the log, or
//! rebuilt, until it works again.
//!
//! Nothing is lost meanwhile, since the log is the truth. But a caller that was answered must find its message, so the
//! committer retries for a moment before it answers. Where that does not help, the spool stands still: durable
//! operations are answered, nothing more is written, so that the log does not grow, and nothing is read that the index
//! may lack. Retries go on with a back-off, for as long as it takes.

use std::io;
use std::time::{Duration, Instant};

use super::census::Census;
use super::committer::Committer;
use super::database::{Database, UnusableDatabase};
use super::index_lag::IndexLag;
use super::index_rebuild::fill_index;
use super::operation::Operation;
use super::replay::{ReplayError, ReplayOutcome, bring_up};
use super::scan::{self, Log};
use crate::SpoolError;
use crate::fault::CrashPoint;

/// The waits before the retries for which callers of the batch wait as well.
const FIRST_WAITS: [Duration; 4] = [
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
];
/// How long these may take together. Each reads the end of the log.
const FIRST_WAITS_TOTAL: Duration = Duration::from_secs(1);
impl Committer {
    /// The time of the next retry, where the spool stands still.
    pub(crate) fn tries_again(&self) -> Option<Instant> {
        self.index_lag.as_ref()?.retry_at
    }

    /// The log has a batch that the index failed to store.
    pub(crate) fn fall_behind(&mut self, error: &SpoolError) {
        tracing::warn!(%error, "the spool's database could not store a batch; it is brought up from the log");
        self.roll_back();
        self.index_lag.get_or_insert_with(|| IndexLag::new(None));
        let begun = Instant::now();
        let mut failed = self.catch_up();
        for pause in FIRST_WAITS {
            let over =
                self.inbox.is_closed() || self.shared.faults.crashed() || begun.elapsed() > FIRST_WAITS_TOTAL;
            if failed.is_ok() || over {
                break;
            }
            std::thread::sleep(pause);
            failed = self.catch_up();
        }
        if let Err(error) = failed {
            self.stand_still(error, Duration::ZERO);
        }
    }

    /// Brings the index up to the log, if it lacks something and the back-off is over.
    ///
    /// # Errors
    /// It still lacks something.
    pub(crate) fn keep_up(&mut self) -> Result<(), SpoolError> {
        let Some(lag) = &self.index_lag else { return Ok(()) };
        let (now, trouble) = (Instant::now(), self.shared.condition.behind());
        if let (Some(trouble), Some(again)) = (trouble, lag.retry_at)
            && now < again
        {
            return Err(trouble);
        }
        self.catch_up().map_err(|error| {
            let took = now.elapsed();
            self.stand_still(error, took)
        })
    }

    /// Stops reads and writes until the index has been brought up. The back-off is at least as long as the retry took.
    fn stand_still(&mut self, error: SpoolError, took: Duration) -> SpoolError {
        let trouble = match error {
            SpoolError::Full => SpoolError::Full,
            SpoolError::Store(what) | SpoolError::Unavailable(what) => unwritable(&what),
            error => unwritable(&error.to_string()),
        };
        if let Some(lag) = &mut self.index_lag {
            let wait = lag.back_off.max(took);
            lag.retry_at = Some(Instant::now() + wait);
            lag.back_off = (lag.back_off * 2).min(IndexLag::LONGEST_BACK_OFF);
        }
        self.shared.condition.fall_behind(trouble.clone());
        trouble
    }

    fn catch_up(&mut self) -> Result<(), SpoolError> {
        match self.try_to_catch_up() {
            // What makes room must not need room.
            Err(SpoolError::Full) if self.ballast.drop_it() => self.try_to_catch_up(),
            caught_up => caught_up,
        }
    }

    fn try_to_catch_up(&mut self) -> Result<(), SpoolError> {
        if let Some(why) = self.index_lag.as_ref().and_then(|lag| lag.rebuild.clone()) {
            return self.rebuild(&why);
        }
        let log = self.log().map_err(|error| SpoolError::from_io(&error))?;
        let faults = &self.shared.faults;
        let brought_up = faults
            .check(CrashPoint::CatchUp)
            .map_err(|error| ReplayError::Store(SpoolError::from_index(&error)))
            .and_then(|()| bring_up(&self.database, &log, Some(&self.folders.lost_found)));
        match brought_up {
            Ok(ReplayOutcome::Current { unread, .. }) => {
                self.database.unread.extend(unread);
                self.caught_up();
                Ok(())
            }
            _ if self.shared.faults.crashed() => Err(SpoolError::Closed),
            Ok(ReplayOutcome::Apart(why)) => self.rebuild(why),
            Ok(ReplayOutcome::Ahead) => self.rebuild("the log has lost records that it knows"),
            Err(ReplayError::Store(SpoolError::Full)) => {
                self.roll_back();
                Err(SpoolError::Full)
            }
            // The log cannot be read, which says nothing about the index.
            Err(ReplayError::Io(error)) => {
                self.roll_back();
                Err(SpoolError::from_io(&error))
            }
            Err(error) => {
                self.roll_back();
                self.rebuild(&error.into_spool().to_string())
            }
        }
    }

    fn caught_up(&mut self) {
        self.index_lag = None;
        self.shared.condition.catch_up();
    }

    /// Rebuilds the index of this generation, which a reader or the committer could not use.
    pub(crate) fn rebuild_if(&mut self, generation: u64, what: &str) {
        if generation != self.shared.generation() || self.tries_again().is_some() {
            return;
        }
        if let Err(error) = self.rebuild(what) {
            self.stand_still(error, Duration::ZERO);
        }
    }

    /// The index fails although it was rebuilt, or it could not be rebuilt.
    pub(crate) fn give_up_index(&mut self, what: &str, took: Duration) -> SpoolError {
        self.index_lag.get_or_insert_with(|| IndexLag::new(None)).rebuild = Some(what.to_owned());
        self.stand_still(SpoolError::Unavailable(what.into()), took)
    }

    /// Puts the index away and rebuilds it from the log, while readers wait. Once that has begun, it goes on until it
    /// succeeds: the open index may be the one that was put away.
    fn rebuild(&mut self, what: &str) -> Result<(), SpoolError> {
        self.index_lag.get_or_insert_with(|| IndexLag::new(None)).rebuild = Some(what.to_owned());
        let log = self.log().map_err(|error| SpoolError::from_io(&error))?;
        let shared = self.shared.clone();
        let mut reading = shared.reading.lock();
        let identity = *self.segments.identity();
        let check = |point| shared.faults.check(point).map_err(|error| SpoolError::from_index(&error));
        check(CrashPoint::Rebuild)?;
        let why = self.tries_again().is_none().then_some(what);
        let database = fill_index(&self.folders, &identity, &log, why).map_err(ReplayError::into_spool)?;
        check(CrashPoint::Reopen)?;
        *reading = Some(Database::open(&self.folders.database).map_err(UnusableDatabase::into_spool)?);
        self.database = database;
        shared.next_generation();
        self.uncounted = true;
        self.caught_up();
        Ok(())
    }

    /// Counts the live messages of each segment by a rebuilt index. That index has all batches that were in the log by
    /// then, so their effects must be applied before: counted twice, they would free a segment that is needed.
    pub(crate) fn take_stock(&mut self) -> Result<(), SpoolError> {
        let log = self.log().map_err(|error| SpoolError::from_io(&error))?;
        let census = Census::take(&self.database, &log, &self.folders)?;
        let edges = self.database.edges()?;
        self.segments.recount(census.usage);
        self.segments.adopt_edges(edges);
        *self.shared.totals.lock() = census.totals;
        for (id, what) in census.broken {
            self.inbox.submit(Operation::SetAside(id, what));
        }
        self.uncounted = false;
        Ok(())
    }

    pub(crate) fn roll_back(&self) {
        // SQLite may have rolled back a failed transaction already.
        let _ = self.database.execute("ROLLBACK");
    }

    fn log(&self) -> io::Result<Log> {
        let segments = scan::find(&self.folders.segments)?;
        Ok(Log::new(self.segments.identity().seed(), segments))
    }
}

fn unwritable(what: &str) -> SpoolError {
    SpoolError::Store(format!("its database cannot be written: {what}; trying again").into())
}
