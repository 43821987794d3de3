//! Limits how many password hashes are computed at once.
//!
//! A hash deliberately takes tens of milliseconds and megabytes of memory. Without a limit, an attacker that guesses
//! passwords in forty sessions has forty hashes computed concurrently, on the threads that also write mail to the disk.
//! So a few run at once, some wait, and all further logins get a temporary failure.

use std::sync::Arc;
use std::thread::available_parallelism;

use tokio::sync::Semaphore;

/// The most hashes to compute at once, however many cores there are: they share the memory bandwidth.
const MOST: usize = 4;
/// How many logins may wait. At 50 ms each and two at a time, this is about 2 seconds.
const WAITING: usize = 64;
/// How many of these places are reserved for trusted clients.
const KEPT: usize = 16;

/// Admits password hashes to a bounded number of places.
#[derive(Debug, Clone)]
pub(crate) struct Hashing {
    turns: Arc<Semaphore>,
    /// The logins that wait or are being computed.
    places: Arc<Semaphore>,
}

/// No place is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Busy;

impl Default for Hashing {
    /// Uses half of the machine's cores, because mail delivery needs the others.
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

    /// Runs `work` on a blocking thread once it is admitted. Returns `None` if it panicked.
    ///
    /// # Errors
    /// Too many logins are waiting already.
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
        // The permit moves with the work: if the session ends, the hash is still being computed.
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
        // The gate is shut, so no login that was admitted can end: two are running, and eight may wait.
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
            assert_eq!(hashing.run(false, || panic!("on purpose")).await, Ok(None::<()>));
        }
        assert_eq!(hashing.run(false, || 7).await, Ok(Some(7)));
    }
}
