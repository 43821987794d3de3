//! The turns in which password hashes are computed.
//!
//! A hash takes tens of milliseconds and megabytes on purpose. Without a bound, whoever guesses in forty sessions at once
//! has forty of them computed side by side, on the threads that also write mail to the disk. So few run at once, some
//! wait, and the rest is told to come back.

use std::sync::Arc;
use std::thread::available_parallelism;

use tokio::sync::Semaphore;

/// Hashes at once at most, whatever the machine has: they share the memory's bandwidth.
const MOST: usize = 4;
/// Logins that may wait for a turn. At 50 ms each and two turns this is about 2 seconds.
const WAITING: usize = 64;
/// Of these, so many are left to clients that are trusted.
const KEPT: usize = 16;

/// Hands out turns.
#[derive(Debug, Clone)]
pub(crate) struct Hashing {
    turns: Arc<Semaphore>,
    /// Who has a place, waits or has a turn.
    places: Arc<Semaphore>,
}

/// All places are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Busy;

impl Default for Hashing {
    /// Half of the machine's cores, since the other half has mail to carry.
    fn default() -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        let turns = (cores / 2).clamp(1, MOST);
        Self::new(turns, WAITING)
    }
}

impl Hashing {
    fn new(turns: usize, waiting: usize) -> Self {
        Self { turns: Arc::new(Semaphore::new(turns)), places: Arc::new(Semaphore::new(turns + waiting)) }
    }

    /// Runs this on a thread of its own, when its turn has come; none when it panicked.
    ///
    /// # Errors
    /// Too many wait already.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        trusted: bool,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Option<T>, Busy> {
        if !trusted && self.places.available_permits() <= KEPT {
            return Err(Busy);
        }
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Busy)?;
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| Busy)?;
        // The turn goes with the work: a session that ends does not end it.
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop((turn, place));
            done
        });
        Ok(done.await.ok())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use futures_util::future::join_all;
    use parking_lot::Mutex;

    use super::*;

    #[tokio::test]
    async fn few_run_at_once_some_wait_and_the_rest_is_told_so() {
        let hashing = Hashing::new(2, KEPT + 8);
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let refused = Arc::new(AtomicUsize::new(0));
        let (release, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let login = |trusted| {
            let (running, most, gate) = (Arc::clone(&running), Arc::clone(&most), Arc::clone(&gate));
            let (hashing, refused) = (hashing.clone(), Arc::clone(&refused));
            let work = move || {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let _ = gate.lock().recv();
                running.fetch_sub(1, Ordering::SeqCst);
            };
            tokio::spawn(async move {
                let ended = hashing.run(trusted, work).await;
                refused.fetch_add(usize::from(ended.is_err()), Ordering::SeqCst);
                ended
            })
        };
        // The gate is shut, so that none of those with a place can end: two turns, and eight places to wait.
        let strangers: Vec<_> = (0..38).map(|_| login(false)).collect();
        while refused.load(Ordering::SeqCst) < 28 {
            tokio::task::yield_now().await;
        }
        let colleague = login(true);
        while hashing.places.available_permits() == KEPT {
            tokio::task::yield_now().await;
        }
        drop(release);
        assert_eq!(colleague.await.unwrap(), Ok(Some(())), "a place is kept for who is trusted");
        let ended = join_all(strangers).await;
        assert_eq!(ended.iter().filter(|ended| matches!(ended, Ok(Ok(Some(()))))).count(), 10);
        assert!((1..=2).contains(&most.load(Ordering::SeqCst)));
    }

    #[tokio::test]
    async fn a_hash_that_panics_gives_its_turn_back() {
        let hashing = Hashing::new(1, KEPT + 1);
        for _ in 0..100 {
            assert_eq!(hashing.run(false, || panic!("as told")).await, Ok(None::<()>));
        }
        assert_eq!(hashing.run(false, || 7).await, Ok(Some(7)));
    }
}
