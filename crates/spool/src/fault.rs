//! Fault injection: the named points at which tests break the disk, and what happens there.
//!
//! In a build without the feature `crash-points` a [`Faults`] is empty and each of its checks compiles to nothing. So
//! it costs the product nothing, and the points can stand in the very lines that they are about.

use std::io;
use std::path::Path;

/// A point that a crash may hit, in the order in which a message passes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CrashPoint {
    /// A piece of a large body has been written to the draft's file.
    DraftSpilled,
    /// A large body's file is about to be synced.
    BodyFileSync,
    /// A large body's file and its folder are durable.
    BodyFileSynced,
    /// The transaction of the index is about to begin.
    Begin,
    /// A row has been inserted. The transaction is open, and nothing is in the log yet.
    Inserted,
    /// A settlement has been carried out in the open transaction.
    Settled,
    /// A new segment has been made.
    SegmentMade,
    /// A batch's records are about to be written.
    Append,
    /// The records are written, and not yet synced.
    Appended,
    /// The records are about to be synced.
    Sync,
    /// The records are durable.
    Synced,
    /// The transaction is about to be committed.
    Commit,
    /// An index that failed to store a batch is about to be brought up to the log.
    CatchUp,
    /// The index is about to be rebuilt.
    Rebuild,
    /// It has been rebuilt, and is about to be opened for readers.
    Reopen,
    /// The index has committed the batch, and no caller has been answered.
    Committed,
    /// A removed message's own file is about to be unlinked.
    Unlink,
    /// A record has been copied to the newest segment. Its row still points to the old one.
    Moved,
    /// A segment that is no longer needed is about to be unlinked.
    Reclaim,
}

impl CrashPoint {
    /// All crash points.
    pub const ALL: [Self; 19] = [
        Self::DraftSpilled,
        Self::BodyFileSync,
        Self::BodyFileSynced,
        Self::Begin,
        Self::Inserted,
        Self::Settled,
        Self::SegmentMade,
        Self::Append,
        Self::Appended,
        Self::Sync,
        Self::Synced,
        Self::Commit,
        Self::CatchUp,
        Self::Rebuild,
        Self::Reopen,
        Self::Committed,
        Self::Unlink,
        Self::Moved,
        Self::Reclaim,
    ];

    /// Whether the next step needs disk space that was not allocated before. Records go to preallocated segments.
    #[cfg(any(test, feature = "crash-points"))]
    fn needs_room(self) -> bool {
        matches!(self, Self::DraftSpilled | Self::SegmentMade | Self::Commit | Self::CatchUp | Self::Rebuild)
    }
}

/// What happens at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InjectedFault {
    /// The process is killed there: what was written stays, synced or not.
    Crash,
    /// The power fails there: what was not synced is gone.
    PowerLoss,
    /// The operation fails with an I/O error.
    Io,
    /// The operation fails for want of room.
    NoSpace,
}

#[cfg(not(any(test, feature = "crash-points")))]
mod seam {
    use super::{CrashPoint, Path, io};

    /// In this build no fault is injected.
    #[derive(Debug, Clone, Default)]
    pub struct Faults;

    #[allow(clippy::unused_self, clippy::unnecessary_wraps)]
    impl Faults {
        /// A disk without faults.
        #[must_use]
        pub fn none() -> Self {
            Self
        }

        #[inline(always)]
        pub(crate) fn check(&self, _: CrashPoint) -> io::Result<()> {
            Ok(())
        }

        #[inline(always)]
        pub(crate) fn wrote(&self, _: &Path, _: u64) {}

        #[inline(always)]
        pub(crate) fn synced(&self, _: &Path) {}

        #[inline(always)]
        pub(crate) fn crashed(&self) -> bool {
            false
        }

        #[inline(always)]
        pub(crate) fn room(&self) -> Option<u64> {
            None
        }
    }
}

#[cfg(any(test, feature = "crash-points"))]
mod seam {
    use std::collections::HashMap;
    use std::path::PathBuf;
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::{CrashPoint, InjectedFault, Path, io};

    /// The faults to inject at each point, shared with the engine under test.
    #[derive(Clone, Default)]
    pub struct Faults(Arc<Mutex<FaultPlan>>);

    #[derive(Default)]
    struct FaultPlan {
        armed: Vec<ArmedFault>,
        quota: Option<(PathBuf, u64)>,
        syncs: u64,
        crashed: Option<InjectedFault>,
        seen: Vec<CrashPoint>,
        /// Per file, the offset from which on its octets are not known to be durable.
        unsynced: HashMap<PathBuf, u64>,
        at_crash: Option<AtCrash>,
    }

    /// A fault that is still to happen this many times.
    #[derive(Debug)]
    struct ArmedFault {
        point: CrashPoint,
        fault: InjectedFault,
        times: u32,
    }

    type AtCrash = Box<dyn FnOnce(&HashMap<PathBuf, u64>) + Send>;

    impl std::fmt::Debug for Faults {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "Faults({:?})", self.0.lock().armed)
        }
    }

    impl Faults {
        /// A disk without faults, until one is armed.
        #[must_use]
        pub fn none() -> Self {
            Self::default()
        }

        /// Makes `fault` happen the next time that `point` is passed. Faults that were armed before are dropped.
        pub fn arm(&self, point: CrashPoint, fault: InjectedFault) {
            self.disarm();
            self.arm_times(point, fault, 1);
        }

        /// Makes `fault` happen the next `times` times that `point` is passed, besides faults that were armed before.
        pub fn arm_times(&self, point: CrashPoint, fault: InjectedFault, times: u32) {
            self.0.lock().armed.push(ArmedFault { point, fault, times });
        }

        /// Drops all armed faults.
        pub fn disarm(&self) {
            self.0.lock().armed.clear();
        }

        /// How many faults are still to happen.
        #[must_use]
        pub fn left(&self) -> u32 {
            self.0.lock().armed.iter().map(|armed| armed.times).sum()
        }

        /// Limits the files of this folder to this many octets. While they have more, what needs room finds none.
        /// Unlinking files makes room.
        pub fn quota(&self, folder: PathBuf, octets: u64) {
            self.0.lock().quota = Some((folder, octets));
        }

        /// How many times files have been synced.
        #[must_use]
        pub fn syncs(&self) -> u64 {
            self.0.lock().syncs
        }

        /// Octets left of the quota, if there is one.
        pub(crate) fn room(&self) -> Option<u64> {
            let (folder, octets) = self.0.lock().quota.clone()?;
            Some(octets.saturating_sub(taken(&folder)))
        }

        /// Sets what to do at the moment of a crash, while the engine is stopped. The argument is, per file, the
        /// offset from which its octets are not durable; it is empty for a kill, which loses nothing that was written.
        pub fn at_crash(&self, act: impl FnOnce(&HashMap<PathBuf, u64>) + Send + 'static) {
            self.0.lock().at_crash = Some(Box::new(act));
        }

        /// Whether a crash has happened.
        #[must_use]
        pub fn crashed(&self) -> bool {
            self.0.lock().crashed.is_some()
        }

        /// The points passed so far, each once.
        #[must_use]
        pub fn seen(&self) -> Vec<CrashPoint> {
            self.0.lock().seen.clone()
        }

        pub(crate) fn check(&self, point: CrashPoint) -> io::Result<()> {
            let mut plan = self.0.lock();
            if !plan.seen.contains(&point) {
                plan.seen.push(point);
            }
            if plan.crashed.is_some() {
                return Err(io::Error::other("crashed"));
            }
            if let Some(at) = plan.armed.iter().position(|armed| armed.point == point) {
                let fault = plan.armed[at].fault;
                plan.armed[at].times -= 1;
                plan.armed.retain(|armed| armed.times > 0);
                return plan.strike(fault);
            }
            let is_over = |(folder, octets): &(PathBuf, u64)| point.needs_room() && taken(folder) > *octets;
            if plan.quota.as_ref().is_some_and(is_over) {
                Err(io::ErrorKind::StorageFull.into())
            } else {
                Ok(())
            }
        }

        pub(crate) fn wrote(&self, path: &Path, from: u64) {
            let mut plan = self.0.lock();
            let start = plan.unsynced.entry(path.to_owned()).or_insert(from);
            *start = (*start).min(from);
        }

        pub(crate) fn synced(&self, path: &Path) {
            let mut plan = self.0.lock();
            plan.syncs += 1;
            plan.unsynced.remove(path);
        }
    }

    /// Octets of the files in a folder and below it. Files that vanish meanwhile do not count.
    fn taken(folder: &Path) -> u64 {
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let octets = files.map(|file| match file.metadata() {
            Ok(about) if about.is_dir() => taken(&file.path()),
            about => about.map_or(0, |about| about.len()),
        });
        octets.sum()
    }

    impl FaultPlan {
        fn strike(&mut self, fault: InjectedFault) -> io::Result<()> {
            match fault {
                InjectedFault::Io => return Err(io::Error::other("an I/O error, made for a test")),
                InjectedFault::NoSpace => return Err(io::ErrorKind::StorageFull.into()),
                InjectedFault::Crash => self.unsynced.clear(),
                InjectedFault::PowerLoss => {}
            }
            self.crashed = Some(fault);
            if let Some(act) = self.at_crash.take() {
                act(&self.unsynced);
            }
            Err(io::Error::other("crashed"))
        }
    }
}

pub use seam::Faults;
