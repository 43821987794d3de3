//! Detects that no name server answers at all, reports it, and fails lookups at once until one answers again.
//!
//! A query without an answer says nothing about the queried servers: a domain's own servers may be down. So when one
//! gets no answer, the servers are probed for names that each can answer from memory, bypassing the cache. If the probe
//! gets no answer either, the servers are *silent*: waiting queries are released, later ones are answered from the
//! cache or fail at once with a temporary error, and [`WatchedResolver::watch`] probes on until there is an answer.

use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, select_ok};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::{Config, ConfigError, DnsAnswer, DnsError, DnsRecordKind, HickoryResolver, Resolver};

/// The interval between probes of silent servers; a result is valid for as long.
const AGAIN: Duration = Duration::from_secs(2);
/// The time limit of a probe: twice what servers need for an answer from memory.
const LOOK: Duration = Duration::from_secs(1);
/// While servers are silent: the time within which a cached answer is available.
const PROMPT: Duration = Duration::from_millis(100);
/// The shortest time between two log lines about it.
const TELL_AGAIN: Duration = Duration::from_secs(60);
/// This many refusals in a row are not caused by single domains.
const REFUSALS: u32 = 10;

/// A resolver that watches whether its servers answer.
pub struct WatchedResolver {
    inner: Arc<dyn Resolver>,
    /// Queries the same servers without a cache, and with a short timeout.
    probe: Arc<dyn Resolver>,
    servers: String,
    /// How long a query may wait before the servers are probed.
    patience: Duration,
    silent: watch::Sender<bool>,
    state: Mutex<WatchState>,
    /// Notified when a query is waiting too long. Its caller has no time to probe, and may give up at any moment.
    doubted: Notify,
}

#[derive(Debug, Default)]
struct WatchState {
    /// When the servers were last probed.
    looked: Option<Instant>,
    /// Since when the servers have been silent; none while they answer.
    since: Option<Instant>,
    /// Queries that failed at once since then.
    spared: u64,
    /// Consecutive refusals.
    refusals: u32,
    /// When the last warning was logged.
    told: Option<Instant>,
}

impl WatchedResolver {
    /// As [`HickoryResolver::new`]. The caller must run [`WatchedResolver::watch`].
    ///
    /// # Errors
    /// There is no server to query.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        let inner = HickoryResolver::new(config)?;
        let servers = inner.servers().join(", ");
        let look =
            Config { cache_entries: 0, timeout: LOOK, attempts: 2, deadline: LOOK * 2, ..config.clone() };
        let probe = HickoryResolver::new(&look)?;
        Ok(Self::over(Arc::new(inner), Arc::new(probe), servers, config.timeout))
    }

    /// Watches `inner`; `probe` must query the same servers without a cache.
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

    /// Probes the servers when queries are waiting too long, and silent ones until they answer; never returns. Without
    /// it, silent servers are not detected.
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

    /// What is wrong with the servers, and the remedy, as text; none when no problem is known.
    #[must_use]
    pub fn ailment(&self) -> Option<String> {
        let state = self.state();
        if let Some(since) = state.since {
            let seconds = since.elapsed().as_secs();
            return Some(format!("{} ({}), for {seconds} s: {REMEDY}", SILENT, self.servers));
        }
        (state.refusals >= REFUSALS).then(|| format!("{REFUSING} ({}): {ACCESS}", self.servers))
    }

    async fn ask(&self, name: &str, kind: DnsRecordKind) -> Result<DnsAnswer, DnsError> {
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

    /// Requests a probe when a query has been waiting too long.
    async fn doubt(&self) -> Infallible {
        loop {
            sleep(self.patience.max(PROMPT)).await;
            self.doubted.notify_one();
        }
    }

    /// Whether the last probe is recent enough to count.
    fn looked_lately(&self) -> bool {
        self.state().looked.is_some_and(|looked| looked.elapsed() < AGAIN)
    }

    /// Queries the servers for the NS records of the root zone and of the largest zone below it, which every resolver
    /// knows. Any answer to either of them counts, even a refusal. Filters against floods drop all queries about the
    /// root.
    async fn look(&self) {
        let answers = [".", "com"].map(|zone| {
            let asked = timeout(LOOK * 2, self.probe.lookup(zone, DnsRecordKind::Ns));
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

    /// Counts the result of a query, and logs what is wrong.
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
const REMEDY: &str = "DNS checks give no result and mail by MX waits; check `servers` of [dns], the network \
                      and the firewall";
const REFUSING: &str = "the name servers refuse our queries";
const ACCESS: &str = "DNS checks give no result and mail by MX waits; let them serve this machine, or set \
                      others in `servers` of [dns]";

impl Resolver for WatchedResolver {
    fn lookup(&self, name: &str, kind: DnsRecordKind) -> BoxFuture<'_, Result<DnsAnswer, DnsError>> {
        let name = name.to_owned();
        async move { self.ask(&name, kind).await }.boxed()
    }
}

impl fmt::Debug for WatchedResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("servers", &self.servers).finish_non_exhaustive()
    }
}

/// Whether no server has answered. SERVFAIL is an answer.
fn is_unanswered(result: &Result<DnsAnswer, DnsError>) -> bool {
    matches!(result, Err(DnsError::Timeout | DnsError::Unreachable))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use super::*;

    /// Fake servers that answer or not; `slow.example` is a domain whose own servers are down, and the cache knows one
    /// name.
    #[derive(Default)]
    struct FakeServers {
        silent: AtomicBool,
        refuse: AtomicBool,
        /// Queries about the root are dropped.
        rootless: AtomicBool,
        looks: AtomicU32,
    }

    /// Access to the fake servers, with the cache or without it.
    struct FakeResolver(Arc<FakeServers>, bool);

    impl Resolver for FakeResolver {
        fn lookup(&self, name: &str, _: DnsRecordKind) -> BoxFuture<'_, Result<DnsAnswer, DnsError>> {
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
        let result = watched.lookup(name, DnsRecordKind::A).await;
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
        // Two at once: one probe serves both.
        let both = tokio::join!(asked(&watched, "a.example"), asked(&watched, "b.example"));
        assert_eq!((both.0.0, both.1.0), (Err(DnsError::Unreachable), Err(DnsError::Unreachable)));
        assert_eq!(servers.looks.load(Ordering::Relaxed), 1);
        servers.silent.store(false, Ordering::Relaxed);
        let mut silent = watched.silent.subscribe();
        silent.wait_for(|silent| !silent).await.unwrap();
        assert_eq!(asked(&watched, "a.example").await, (Err(DnsError::NoData), Duration::ZERO));
        assert_eq!(watched.ailment(), None);
    }

    /// As plugins query, whose calls have a time limit.
    #[tokio::test(start_paused = true)]
    async fn silent_servers_are_noticed_though_nobody_waits_for_an_answer() {
        let (servers, watched) = watched();
        servers.silent.store(true, Ordering::Relaxed);
        let mut silent = watched.silent.subscribe();
        let asking = async {
            while timeout(Duration::from_secs(4), watched.lookup("a.example", DnsRecordKind::A))
                .await
                .is_err()
            {}
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

    /// Otherwise the owner of such a domain could make all other lookups fail, for as long as the process runs.
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
