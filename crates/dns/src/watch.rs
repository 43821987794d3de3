//! Notices that no name server answers at all, says so, and spares everybody the wait until one does.
//!
//! That a question has no answer says nothing about the servers asked: a domain's own may be dead. So whenever one goes
//! unanswered the servers are asked what each can tell from memory, past the cache. If that goes unanswered too
//! they are *silent*: questions that wait are let go, later ones get what the cache has and otherwise fail at once, for
//! now and never for good, and [`Watched::watch`] asks on until there is an answer.

use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, select_ok};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::{Config, ConfigError, DnsAnswer, DnsError, HickoryResolver, RecordKind, Resolver};

/// Between two looks at servers that are silent; and one look is good for as long.
const AGAIN: Duration = Duration::from_secs(2);
/// How long a look may take. Servers that know the answer by heart have had their time then, twice.
const LOOK: Duration = Duration::from_secs(1);
/// While servers are silent, what the cache knows is there within this time.
const PROMPT: Duration = Duration::from_millis(100);
/// The log tells of it no oftener than this.
const TELL_AGAIN: Duration = Duration::from_secs(60);
/// So many refusals in a row are no domain's affair.
const REFUSALS: u32 = 10;

/// A resolver whose servers are watched.
pub struct WatchedResolver {
    inner: Arc<dyn Resolver>,
    /// Asks the same servers without a cache, and with little patience.
    probe: Arc<dyn Resolver>,
    servers: String,
    /// How long a question may go unanswered until the servers are doubted.
    patience: Duration,
    silent: watch::Sender<bool>,
    state: Mutex<WatchState>,
    /// A question goes unanswered. Whoever asked has no time to look, and may give up any moment.
    doubted: Notify,
}

#[derive(Debug, Default)]
struct WatchState {
    /// When the servers were last looked at.
    looked: Option<Instant>,
    /// Since when they have been silent.
    since: Option<Instant>,
    /// Questions that were failed at once since then.
    spared: u64,
    /// Refusals without another answer between them.
    refusals: u32,
    /// When the log was last told that something is wrong.
    told: Option<Instant>,
}

impl WatchedResolver {
    /// As [`HickoryResolver::new`]. Somebody has to run [`Watched::watch`].
    ///
    /// # Errors
    /// There is no server to ask.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        let inner = HickoryResolver::new(config)?;
        let servers = inner.servers().join(", ");
        let look =
            Config { cache_entries: 0, timeout: LOOK, attempts: 2, deadline: LOOK * 2, ..config.clone() };
        let probe = HickoryResolver::new(&look)?;
        Ok(Self::over(Arc::new(inner), Arc::new(probe), servers, config.timeout))
    }

    /// Watches `inner`; `probe` asks the same servers past its cache.
    pub fn over(
        inner: Arc<dyn Resolver>,
        probe: Arc<dyn Resolver>,
        servers: impl Into<String>,
        patience: Duration,
    ) -> Self {
        metrics::gauge!("pintle_dns_silent").set(0.0);
        Self {
            inner,
            probe,
            servers: servers.into(),
            patience,
            silent: watch::Sender::new(false),
            state: Mutex::default(),
            doubted: Notify::new(),
        }
    }

    /// Looks at servers that are doubted, and at silent ones until they answer, for ever. Without it nothing is noticed.
    pub async fn watch(self: Arc<Self>) {
        loop {
            if *self.silent.borrow() {
                sleep(AGAIN).await;
            } else {
                self.doubted.notified().await;
            }
            if !self.looked_lately() {
                self.look().await;
            }
        }
    }

    /// What ails the servers, and what to do, in words; none where nothing is known.
    #[must_use]
    pub fn ailment(&self) -> Option<String> {
        let state = self.state();
        if let Some(since) = state.since {
            let seconds = since.elapsed().as_secs();
            return Some(format!("{} ({}), for {seconds} s: {REMEDY}", SILENT, self.servers));
        }
        (state.refusals >= REFUSALS).then(|| format!("{REFUSING} ({}): {ACCESS}", self.servers))
    }

    async fn ask(&self, name: &str, kind: RecordKind) -> Result<DnsAnswer, DnsError> {
        let mut silent = self.silent.subscribe();
        let result = if *silent.borrow() {
            let prompt = timeout(PROMPT, self.inner.lookup(name, kind)).await;
            prompt.unwrap_or(Err(DnsError::Unreachable))
        } else {
            tokio::select! {
                biased;
                result = self.inner.lookup(name, kind) => result,
                never = self.doubt() => match never {},
                _ = silent.wait_for(|silent| *silent) => Err(DnsError::Unreachable),
            }
        };
        self.note(&result);
        if is_unanswered(&result) {
            self.doubted.notify_one();
        }
        result
    }

    /// Has the servers looked at when a question has been waiting for long.
    async fn doubt(&self) -> Infallible {
        loop {
            sleep(self.patience.max(PROMPT)).await;
            self.doubted.notify_one();
        }
    }

    /// Whether another look would tell the same.
    fn looked_lately(&self) -> bool {
        self.state().looked.is_some_and(|looked| looked.elapsed() < AGAIN)
    }

    /// Asks the servers who has the root zone and the largest one below it, which every resolver knows; any answer to
    /// either will do, a refusal too. Filters that hold floods back drop questions about the root, of whoever asks.
    async fn look(&self) {
        let answers = [".", "com"].map(|zone| {
            let asked = timeout(LOOK * 2, self.probe.lookup(zone, RecordKind::Ns));
            asked
                .map(|answer| if answer.as_ref().map_or(true, is_unanswered) { Err(()) } else { Ok(()) })
                .boxed()
        });
        let is_silent = select_ok(answers).await.is_err();
        let mut state = self.state();
        state.looked = Some(Instant::now());
        match (state.since, is_silent) {
            (None, true) => {
                *state = WatchState { since: state.looked, ..*state };
                self.warn(&mut state, SILENT, REMEDY);
            }
            (Some(since), false) => {
                let (seconds, spared) = (since.elapsed().as_secs(), state.spared);
                tracing::info!(servers = self.servers, seconds, spared, "name servers answer again");
                *state = WatchState { since: None, spared: 0, ..*state };
            }
            _ => {}
        }
        drop(state);
        metrics::gauge!("pintle_dns_silent").set(if is_silent { 1.0 } else { 0.0 });
        self.silent.send_if_modified(|silent| std::mem::replace(silent, is_silent) != is_silent);
    }

    /// Counts what came of a question, and tells what is wrong.
    fn note(&self, result: &Result<DnsAnswer, DnsError>) {
        let name = result.as_ref().map_or_else(|error| error.name(), |_| "answered");
        metrics::counter!("pintle_dns_lookups_total", "result" => name).increment(1);
        let mut state = self.state();
        match result {
            Err(DnsError::Refused) => {
                state.refusals = state.refusals.saturating_add(1);
                if state.refusals >= REFUSALS {
                    self.warn(&mut state, REFUSING, ACCESS);
                }
            }
            Err(DnsError::Timeout | DnsError::Unreachable) if state.since.is_some() => {
                state.spared += 1;
                self.warn(&mut state, SILENT, REMEDY);
            }
            Err(DnsError::Timeout | DnsError::Unreachable | DnsError::InvalidName) => {}
            _ => state.refusals = 0,
        }
    }

    fn warn(&self, state: &mut WatchState, what: &str, remedy: &str) {
        if state.told.is_some_and(|told| told.elapsed() < TELL_AGAIN) {
            return;
        }
        state.told = Some(Instant::now());
        let seconds = state.since.map(|since| since.elapsed().as_secs());
        let spared = (state.spared > 0).then_some(state.spared);
        tracing::warn!(servers = self.servers, seconds, spared, "{what}: {remedy}");
    }

    fn state(&self) -> MutexGuard<'_, WatchState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const SILENT: &str = "no name server answers";
const REMEDY: &str = "checks by DNS come to no result and mail by MX waits; look at `servers` of [dns], the network \
                      and the firewall";
const REFUSING: &str = "the name servers refuse our questions";
const ACCESS: &str = "checks by DNS come to no result and mail by MX waits; have them serve this machine, or name \
                      others in `servers` of [dns]";

impl Resolver for WatchedResolver {
    fn lookup(&self, name: &str, kind: RecordKind) -> BoxFuture<'_, Result<DnsAnswer, DnsError>> {
        let name = name.to_owned();
        async move { self.ask(&name, kind).await }.boxed()
    }
}

impl fmt::Debug for WatchedResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("servers", &self.servers).finish_non_exhaustive()
    }
}

/// Whether nobody has answered. That the servers could not find out is an answer.
fn is_unanswered(result: &Result<DnsAnswer, DnsError>) -> bool {
    matches!(result, Err(DnsError::Timeout | DnsError::Unreachable))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use super::*;

    /// Servers that answer or not; `slow.example` is a domain whose own servers are dead, and the cache knows one name.
    #[derive(Default)]
    struct FakeServers {
        silent: AtomicBool,
        refuse: AtomicBool,
        /// Questions about the root are dropped.
        rootless: AtomicBool,
        looks: AtomicU32,
    }

    /// The way to the servers with a cache, or past it.
    struct FakeResolver(Arc<FakeServers>, bool);

    impl Resolver for FakeResolver {
        fn lookup(&self, name: &str, _: RecordKind) -> BoxFuture<'_, Result<DnsAnswer, DnsError>> {
            let (name, cached) = (name.to_owned(), self.1 && name == "cached.example");
            async move {
                if name == "." {
                    self.0.looks.fetch_add(1, Ordering::Relaxed);
                }
                if cached {
                    return Err(DnsError::NxDomain);
                }
                let dropped = name == "." && self.0.rootless.load(Ordering::Relaxed);
                if name == "slow.example" || dropped || self.0.silent.load(Ordering::Relaxed) {
                    sleep(Duration::from_secs(20)).await;
                    return Err(DnsError::Timeout);
                }
                Err(if self.0.refuse.load(Ordering::Relaxed) { DnsError::Refused } else { DnsError::NoData })
            }
            .boxed()
        }
    }

    fn watched() -> (Arc<FakeServers>, Arc<WatchedResolver>) {
        let servers = Arc::new(FakeServers::default());
        let way = |cached| Arc::new(FakeResolver(Arc::clone(&servers), cached));
        let watched = WatchedResolver::over(way(true), way(false), "192.0.2.53:53", Duration::from_secs(3));
        let watched = Arc::new(watched);
        tokio::spawn(Arc::clone(&watched).watch());
        (servers, watched)
    }

    async fn asked(watched: &WatchedResolver, name: &str) -> (Result<DnsAnswer, DnsError>, Duration) {
        let start = Instant::now();
        let result = watched.lookup(name, RecordKind::A).await;
        (result, start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn silent_servers_are_noticed_within_seconds_and_nobody_waits_any_more() {
        let (servers, watched) = watched();
        servers.silent.store(true, Ordering::Relaxed);
        let (result, took) = asked(&watched, "a.example").await;
        assert_eq!(result, Err(DnsError::Unreachable));
        assert!(result.unwrap_err().is_temporary(), "nothing is said about the name");
        assert!(took <= Duration::from_secs(6), "{took:?}");
        let ailment = watched.ailment().unwrap();
        assert!(ailment.contains("192.0.2.53:53") && ailment.contains("[dns]"), "{ailment}");
        for _ in 0..30 {
            let (result, took) = asked(&watched, "b.example").await;
            assert_eq!(result, Err(DnsError::Unreachable));
            assert!(took <= PROMPT, "{took:?}");
        }
        assert_eq!(asked(&watched, "cached.example").await, (Err(DnsError::NxDomain), Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn servers_that_answer_again_are_asked_again() {
        let (servers, watched) = watched();
        servers.silent.store(true, Ordering::Relaxed);
        // Two at once: one look serves both.
        let both = tokio::join!(asked(&watched, "a.example"), asked(&watched, "b.example"));
        assert_eq!((both.0.0, both.1.0), (Err(DnsError::Unreachable), Err(DnsError::Unreachable)));
        assert_eq!(servers.looks.load(Ordering::Relaxed), 1);
        servers.silent.store(false, Ordering::Relaxed);
        let mut silent = watched.silent.subscribe();
        silent.wait_for(|silent| !silent).await.unwrap();
        assert_eq!(asked(&watched, "a.example").await, (Err(DnsError::NoData), Duration::ZERO));
        assert_eq!(watched.ailment(), None);
    }

    /// As plugins do, whose calls have a limit.
    #[tokio::test(start_paused = true)]
    async fn silent_servers_are_noticed_though_nobody_waits_for_an_answer() {
        let (servers, watched) = watched();
        servers.silent.store(true, Ordering::Relaxed);
        let mut silent = watched.silent.subscribe();
        let asking = async {
            while timeout(Duration::from_secs(4), watched.lookup("a.example", RecordKind::A)).await.is_err() {
            }
        };
        tokio::join!(asking, async { silent.wait_for(|silent| *silent).await.map(drop).unwrap() });
        assert!(watched.ailment().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_domain_whose_own_servers_are_dead_accuses_nobody_else() {
        let (servers, watched) = watched();
        let (result, took) = asked(&watched, "slow.example").await;
        assert_eq!((result, took.as_secs()), (Err(DnsError::Timeout), 20), "it has all its time");
        assert!(servers.looks.load(Ordering::Relaxed) > 0);
        assert_eq!(watched.ailment(), None);
        assert_eq!(asked(&watched, "a.example").await.0, Err(DnsError::NoData));
    }

    /// Or else whoever has such a domain could have all others fail, for as long as the process lives.
    #[tokio::test(start_paused = true)]
    async fn servers_that_answer_nothing_about_the_root_are_not_silent() {
        let (servers, watched) = watched();
        servers.rootless.store(true, Ordering::Relaxed);
        assert_eq!(asked(&watched, "slow.example").await.0, Err(DnsError::Timeout));
        assert!(servers.looks.load(Ordering::Relaxed) > 0);
        assert_eq!(asked(&watched, "a.example").await, (Err(DnsError::NoData), Duration::ZERO));
        assert_eq!(watched.ailment(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn servers_that_refuse_everything_are_told_of() {
        let (servers, watched) = watched();
        servers.refuse.store(true, Ordering::Relaxed);
        for _ in 0..REFUSALS {
            assert_eq!(watched.ailment(), None);
            assert_eq!(asked(&watched, "a.example").await.0, Err(DnsError::Refused));
        }
        assert!(watched.ailment().unwrap().contains("refuse"));
        servers.refuse.store(false, Ordering::Relaxed);
        assert_eq!(asked(&watched, "a.example").await.0, Err(DnsError::NoData));
        assert_eq!(watched.ailment(), None);
    }
}
