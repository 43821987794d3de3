//! The seam at which tests break the disk: named points, and what happens there.
//!
//! In a build without the feature `crash-points` a [`Faults`] is empty and each of its checks compiles to nothing, so the
//! seam costs the product nothing and the points can stand in the very lines that they are about.

use std::io;
use std::path::Path;

/// A line that a crash may hit, in the order in which a message passes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CrashPoint {
    /// A piece of a large body has been written to the draft's file.
    DraftSpilled,
    /// A large body's file is about to be synced.
    BodyFileSync,
    /// A large body's file and its folder are durable.
    BodyFileSynced,
    /// A row has been put in; the transaction is open, and nothing is in the log yet.
    Inserted,
    /// A settlement has been carried out in the open transaction.
    Settled,
    /// A new segment has been made.
    SegmentMade,
    /// A batch's records are about to be written.
    Append,
    /// They are written, and not yet synced.
    Appended,
    /// They are about to be synced.
    Sync,
    /// They are durable.
    Synced,
    /// The transaction is about to be committed.
    Commit,
    /// The index has it; nobody has been told.
    Committed,
    /// A removed message's own file is about to be unlinked.
    Unlink,
    /// A straggler has been copied to the newest segment; its row still points to the old one.
    Moved,
    /// An empty segment is about to be unlinked or reused.
    Reclaim,
}

/// What happens at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
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

    /// Nothing ever fails on purpose in this build.
    #[derive(Debug, Clone, Default)]
    pub struct Faults;

    #[allow(clippy::unused_self, clippy::unnecessary_wraps)]
    impl Faults {
        /// A disk that does what it is told.
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
    }
}

#[cfg(any(test, feature = "crash-points"))]
mod seam {
    use std::collections::HashMap;
    use std::path::PathBuf;
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::{CrashPoint, Fault, Path, io};

    /// What is to happen at which point, shared with the engine under test.
    #[derive(Clone, Default)]
    pub struct Faults(Arc<Mutex<Plan>>);

    #[derive(Default)]
    struct Plan {
        armed: Option<(CrashPoint, Fault)>,
        crashed: Option<Fault>,
        seen: Vec<CrashPoint>,
        /// Per file, from which offset on its bytes are not known to be durable.
        unsynced: HashMap<PathBuf, u64>,
        at_crash: Option<AtCrash>,
    }

    type AtCrash = Box<dyn FnOnce(&HashMap<PathBuf, u64>) + Send>;

    impl std::fmt::Debug for Faults {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "Faults({:?})", self.0.lock().armed)
        }
    }

    impl Faults {
        /// A disk that does what it is told, until a fault is armed.
        #[must_use]
        pub fn none() -> Self {
            Self::default()
        }

        /// Lets `fault` happen the next time that `point` is passed.
        pub fn arm(&self, point: CrashPoint, fault: Fault) {
            self.0.lock().armed = Some((point, fault));
        }

        /// What to do at the moment of a crash, with the engine standing still: it gets, per file, the offset from
        /// which its bytes are not durable (none for a kill, which loses nothing that was written).
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
            match plan.armed {
                _ if plan.crashed.is_some() => Err(io::Error::other("crashed")),
                Some((armed, fault)) if armed == point => {
                    plan.armed = None;
                    plan.strike(fault)
                }
                _ => Ok(()),
            }
        }

        pub(crate) fn wrote(&self, path: &Path, from: u64) {
            let mut plan = self.0.lock();
            let start = plan.unsynced.entry(path.to_owned()).or_insert(from);
            *start = (*start).min(from);
        }

        pub(crate) fn synced(&self, path: &Path) {
            self.0.lock().unsynced.remove(path);
        }
    }

    impl Plan {
        fn strike(&mut self, fault: Fault) -> io::Result<()> {
            match fault {
                Fault::Io => return Err(io::Error::other("an I/O error, made for a test")),
                Fault::NoSpace => return Err(io::ErrorKind::StorageFull.into()),
                Fault::Crash => self.unsynced.clear(),
                Fault::PowerLoss => {}
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
