//! One run: the gateway's lives one after the other, each with mail, operators and faults, and a last one without faults, in
//! which every message must be settled.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use pintle_mail::{NextHop, QueueId};
use pintle_outbound::{Clock, Protocol};
use pintle_outbound::{
    Config, Endpoint, Handle, Outbound, OutboundParts, Relay, Retention, RetryPolicy, Route, RouteTable,
    Select, Timeouts,
};
use pintle_policy::Chain;
use pintle_record::NoRecords;
use pintle_spool::fault::{CrashPoint, Faults, InjectedFault};
use pintle_spool::{
    Content, DraftLimits, Embedded, EmbeddedConfig, Health, HoldReason, NewMessage, Spool, SpoolError,
};
use pintle_testkit::TempDir;
use pintle_tls::ClientTls;
use tokio::runtime::Builder;

use crate::hop::Mood;
use crate::laws::{self, AGES};
use crate::ledger::{Counts, SimMessage};
use crate::messages;
use crate::outside::{Names, Wires};
use crate::random::Random;
use crate::store::{Store, block, copy};
use crate::world::{Sabotage, World, address};

thread_local! {
    /// Panics in tasks of this thread: they are caught, but none may happen.
    pub static PANICS: Cell<u32> = const { Cell::new(0) };
}

/// What came of a run.
pub struct Outcome {
    /// The laws that were broken.
    pub broken: Vec<String>,
    pub trace: String,
    pub counts: Counts,
}

/// Waits for the crash of this life. Several who notice one tell of it, so that some news may be of the life before.
async fn crash_of(world: &World, faults: &Faults) {
    loop {
        world.crash.notified().await;
        if faults.crashed() {
            return;
        }
    }
}

/// How a life ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Deliveries are drained, the spool is closed.
    Drain(Duration),
    /// The process is killed between two operations.
    Kill,
    /// The disk has ended it.
    Crash,
}

/// The points of the spool at which a run lets the disk fail.
const POINTS: &[CrashPoint] = &[
    CrashPoint::DraftSpilled,
    CrashPoint::BodyFileSync,
    CrashPoint::BodyFileSynced,
    CrashPoint::SegmentMade,
    CrashPoint::Append,
    CrashPoint::Appended,
    CrashPoint::Sync,
    CrashPoint::Synced,
    CrashPoint::Inserted,
    CrashPoint::Settled,
    CrashPoint::Commit,
    CrashPoint::Committed,
    CrashPoint::Unlink,
    CrashPoint::Moved,
    CrashPoint::Reclaim,
];
const FAULTS: &[InjectedFault] =
    &[InjectedFault::Crash, InjectedFault::PowerLoss, InjectedFault::Io, InjectedFault::NoSpace];

struct Run {
    world: Arc<World>,
    random: Random,
    tls: ClientTls,
    root: TempDir,
    folders: u32,
    spool: EmbeddedConfig,
    config: Config,
    letters: u32,
}

/// A gateway that lives.
struct Life {
    store: Arc<Store>,
    outbound: Outbound,
    handle: Handle,
    faults: Faults,
}

/// Runs the seed.
pub fn run(seed: u64, sabotage: Option<Sabotage>, tls: &ClientTls) -> Outcome {
    PANICS.set(0);
    let world = World::new(seed, sabotage);
    let mut random = Random::of(seed, "run");
    let root = folder();
    let lives = random.between(1, 4);
    let mut run = Run {
        spool: spool_config(&mut random, root.path().join("0")),
        config: config(&mut random),
        world,
        random,
        tls: tls.clone(),
        root,
        folders: 0,
        letters: 0,
    };
    for last in (0..=lives).map(|life| life == lives) {
        run.life(last);
        run.no_panics();
        if run.is_broken() {
            break;
        }
    }
    let (broken, counts) = run.world.ledger(|ledger| (ledger.broken.clone(), ledger.counts));
    Outcome { broken, trace: run.world.trace(), counts }
}

/// In memory where the system has such a folder: nothing here outlives the run.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
    made.unwrap_or_else(|error| panic!("no temporary folder: {error}"))
}

fn spool_config(random: &mut Random, folder: PathBuf) -> EmbeddedConfig {
    EmbeddedConfig {
        drafts: DraftLimits { in_memory: 10_000, budget: 50_000, ..DraftLimits::default() },
        segment_size: *random.pick(&[16 * 1024, 64 * 1024, 512 * 1024]),
        reserve: 0,
        warm: *random.pick(&[0, 0, 20_000, 1_000_000]),
        ..EmbeddedConfig::new(folder)
    }
}

/// Everything goes faster than in life, so that days of mail pass in minutes of a run.
fn config(random: &mut Random) -> Config {
    let seconds = |all: &[u64]| all.iter().map(|s| Duration::from_secs(*s)).collect::<Vec<_>>();
    let mut config = Config::new("gate.example");
    config.routes = RouteTable::default()
        .with("one.example", Route::Relay("one".into()))
        .with("store.example", Route::Lmtp("store".into()))
        .with("home.example", Route::Relay("home".into()))
        .with(crate::world::NOWHERE, Route::Discard);
    let hosts = |net: u8, hosts: &[u8]| {
        let endpoint = |host: &u8| Endpoint::Tcp { host: address(net, *host).to_string(), port: 25 };
        Relay::new(hosts.iter().map(endpoint).collect())
    };
    config.relays.insert("one".into(), hosts(1, &[1, 2]));
    config.relays.insert("store".into(), Relay { protocol: Protocol::Lmtp, ..hosts(2, &[1]) });
    config.relays.insert("home".into(), hosts(5, &[1]));
    config.relays.insert("other".into(), hosts(6, &[1]));
    config.retry = RetryPolicy {
        intervals: seconds(&[5, 20, 60, 120, 240]),
        hop_intervals: seconds(&[5, 15, 30, 60]),
        jitter: 20,
        max_age: AGES.message,
        warn_after: Some(Duration::from_secs(240)),
    };
    config.quarantine = Retention { default: AGES.quarantine, ..Retention::default() };
    config.timeouts = Timeouts {
        greeting: Duration::from_secs(15),
        command: Duration::from_secs(15),
        mail: Duration::from_secs(15),
        rcpt: Duration::from_secs(15),
        data: Duration::from_secs(10),
        block: Duration::from_secs(10),
        end: Duration::from_secs(20),
        quit: Duration::from_secs(2),
    };
    config.sessions.connect = Duration::from_secs(10);
    config.sessions.per_hop = *random.pick(&[1, 2, 15]);
    config.sessions.total = *random.pick(&[2, 10, 100]);
    config.sessions.messages = *random.pick(&[1, 3, 1000]);
    config.sessions.idle = *random.pick(&[Duration::from_secs(1), Duration::from_secs(10)]);
    config
}

impl Run {
    fn is_broken(&self) -> bool {
        self.world.ledger(|ledger| !ledger.broken.is_empty())
    }

    fn no_panics(&self) {
        let panics = PANICS.get();
        if panics > 0 {
            self.world.ledger(|ledger| ledger.breach(format!("{panics} tasks panicked")));
        }
    }

    /// One life of the gateway, and the pause after it.
    fn life(&mut self, last: bool) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.unwrap_or_else(|error| panic!("no runtime: {error}"));
        let world = Arc::clone(&self.world);
        runtime.block_on(async {
            world.time.begin();
            if last {
                world.heal();
                world.time.set_ahead(0);
            }
            world.ledger(|ledger| ledger.begin_life(world.time.ahead()));
            if last { self.last_life().await } else { self.hard_life().await }
        });
        let pause = self.random.millis(0, 600_000);
        // The true time is read from the runtime's clock.
        runtime.block_on(async { world.time.end(pause) });
        drop(runtime);
        self.world.tell(|| format!("the gateway is down for {pause:?}"));
    }

    /// Where the next gateway finds what this one leaves.
    fn next_folder(&mut self) -> PathBuf {
        self.folders += 1;
        self.root.path().join(self.folders.to_string())
    }

    /// Starts the gateway. None if the disk ends it at once, as it may where it is set to fail.
    fn open(&mut self, faults: Faults, may_fail: bool) -> Option<Life> {
        let next = self.next_folder();
        let (from, to) = (self.spool.folder.clone(), next.clone());
        let world = Arc::clone(&self.world);
        faults.at_crash(move |unsynced| {
            if let Err(error) = copy(&from, &to, unsynced) {
                world.ledger(|ledger| {
                    ledger.breach(format!("the run cannot copy {}: {error}", from.display()))
                });
            }
        });
        let opened = Embedded::open_inline(&self.spool, &faults);
        if faults.crashed() {
            drop(opened);
            self.move_on(next);
            return None;
        }
        let spool = match opened {
            Ok(spool) => spool,
            Err(error) => {
                self.world.tell(|| format!("the gateway does not start: {error}"));
                if !may_fail {
                    self.world.ledger(|ledger| ledger.breach("the spool cannot be opened on a sound disk"));
                }
                return None;
            }
        };
        let store = Store::start(spool, faults.clone(), Arc::clone(&self.world));
        if self.world.sabotage == Some(Sabotage::LosesMessages) {
            store.lose_one();
        }
        let found = store.found();
        self.world.tell(|| format!("the gateway starts and finds {:?}", found.keys()));
        self.world.ledger(|ledger| ledger.compare(&found));
        let outbound = Outbound::start(self.config.clone(), self.parts(&store));
        Some(Life { handle: outbound.handle(), store, outbound, faults })
    }

    fn parts(&self, store: &Arc<Store>) -> OutboundParts {
        let dice = parking_lot::Mutex::new(Random::of(self.random.clone().next(), "dice"));
        OutboundParts {
            spool: Arc::clone(store) as Arc<dyn Spool>,
            resolver: Arc::new(Names(Arc::clone(&self.world))),
            tls: self.tls.clone(),
            chain: Arc::new(ArcSwap::from_pointee(Chain::default())),
            records: Arc::new(NoRecords),
            capture: None,
            network: Arc::new(Wires(Arc::clone(&self.world))),
            clock: Arc::new(self.world.time.clone()),
            random: Arc::new(move || {
                let mut dice = dice.lock();
                u128::from(dice.next()) << 64 | u128::from(dice.next())
            }),
        }
    }

    /// A life with faults.
    async fn hard_life(&mut self) {
        let faults = Faults::none();
        let armed = self.random.chance(100);
        if armed {
            self.arm(&faults);
        }
        let Some(life) = self.open(faults, armed) else { return };
        let acts = self.random.between(4, 22);
        let mut end = None;
        for _ in 0..acts {
            let wait = self.wait();
            let crash = crash_of(&self.world, &life.faults);
            if tokio::time::timeout(wait, crash).await.is_ok() {
                end = Some(End::Crash);
                break;
            }
            if matches!(life.store.health(), Health::Broken(_)) || self.is_broken() {
                break;
            }
            self.act(&life);
        }
        let end = end.unwrap_or_else(|| match self.random.below(2) {
            0 => End::Kill,
            _ => End::Drain(self.random.millis(0, 60_000)),
        });
        self.end(life, end).await;
    }

    fn wait(&mut self) -> Duration {
        match self.random.weighted(&[40, 40, 20]) {
            0 => self.random.millis(0, 200),
            1 => self.random.millis(200, 30_000),
            _ => self.random.millis(30_000, 300_000),
        }
    }

    async fn end(&mut self, life: Life, end: End) {
        self.world.tell(|| format!("the gateway's life ends: {end:?}"));
        let Life { store, outbound, faults, .. } = life;
        match end {
            End::Drain(grace) => {
                let crash = crash_of(&self.world, &faults);
                let drained = async {
                    outbound.drain(grace).await;
                    store.close().await
                };
                tokio::select! {
                    biased;
                    () = crash => {}
                    _ = drained => {}
                }
                if faults.crashed() {
                    let next = self.root.path().join(self.folders.to_string());
                    self.move_on(next);
                }
            }
            End::Kill => {
                let next = self.root.path().join(self.folders.to_string());
                if let Err(error) = copy(&self.spool.folder, &next, &std::collections::HashMap::new()) {
                    self.world.ledger(|ledger| ledger.breach(format!("the run cannot copy: {error}")));
                }
                self.move_on(next);
            }
            End::Crash => {
                let next = self.root.path().join(self.folders.to_string());
                self.move_on(next);
            }
        }
    }

    /// The next gateway works in this folder.
    fn move_on(&mut self, next: PathBuf) {
        self.world.ledger(|ledger| ledger.counts.crashes += 1);
        self.spool.folder = next;
    }

    fn arm(&mut self, faults: &Faults) {
        let (point, fault) = (*self.random.pick(POINTS), *self.random.pick(FAULTS));
        self.world.tell(|| format!("at {point:?} the disk will fail: {fault:?}"));
        faults.arm(point, fault);
    }

    fn act(&mut self, life: &Life) {
        match self.random.weighted(&[45, 8, 20, 6, 4, 2]) {
            0 => self.send(life),
            1 => self.arm(&life.faults),
            2 => self.operate(life),
            3 => self.change_mood(),
            4 => self.step_clock(),
            _ => self.reload(life),
        }
    }

    /// Routes change while mail waits for them.
    fn reload(&mut self, life: &Life) {
        let via = *self.random.pick(&["one", "other"]);
        self.world.tell(|| format!("one.example goes by {via} from now on"));
        self.config.routes.add("one.example", Route::Relay(via.into()));
        life.handle.reload(self.config.clone(), self.tls.clone());
    }

    /// A client sends a message.
    fn send(&mut self, life: &Life) {
        self.letters += 1;
        let now = self.world.time.now();
        let id = QueueId::new(now, u128::from(self.random.next()));
        let letter = messages::drawn(&mut self.random, self.letters, id, now);
        self.world
            .tell(|| format!("a client sends {id}, number {}, hold {:?}", self.letters, letter.entry.hold));
        let (store, world, faults) = (Arc::clone(&life.store), Arc::clone(&self.world), life.faults.clone());
        tokio::spawn(async move {
            let brought = bring(&store, letter).await;
            world.tell(|| format!("the client of {id} is told {brought:?}"));
            if faults.crashed() {
                world.crash.notify_one();
            }
        });
    }

    fn some(&mut self) -> Vec<QueueId> {
        let known = self.world.ledger(|ledger| ledger.known.keys().copied().collect::<Vec<_>>());
        let count = if known.is_empty() { 0 } else { self.random.between(1, 4) };
        (0..count).map(|_| *self.random.pick(&known)).collect()
    }

    /// An operator does something.
    fn operate(&mut self, life: &Life) {
        let (ids, handle, world) = (self.some(), life.handle.clone(), Arc::clone(&self.world));
        let what = self.random.weighted(&[20, 20, 20, 10, 15, 8, 7]);
        let names = ["retry", "hold", "release", "release quarantined", "delete", "bounce", "reroute"];
        self.world.tell(|| format!("an operator wants to {} {ids:?}", names[what]));
        self.world.ledger(|ledger| {
            for id in &ids {
                if let Some(known) = ledger.known.get_mut(id) {
                    known.may_bounce |= what == 5;
                    known.may_vanish |= what == 4;
                }
            }
        });
        let store = Arc::clone(&life.store);
        tokio::spawn(async move {
            let these = Select::Ids(ids.clone());
            let said = match what {
                0 => format!("{:?}", handle.retry(these).await),
                1 => format!("{:?}", handle.hold(these, "to be looked at").await),
                2 => format!("{:?}", handle.release(these, Some("olga")).await),
                3 => format!("{:?}", handle.release_quarantined(these, None).await),
                4 => format!("{:?}", handle.delete_quarantined(these, None).await),
                5 => format!("{:?}", handle.bounce(these, "no longer wanted").await),
                _ => format!("{:?}", reroute(&store, &ids).await),
            };
            world.tell(|| format!("the operator is told {said}"));
        });
    }

    fn change_mood(&mut self) {
        let moods = [Mood::Up, Mood::Up, Mood::Refuses, Mood::Silent, Mood::Busy, Mood::Hostile, Mood::Flaky];
        let hops: Vec<_> = self.world.hops.values().cloned().collect();
        let (hop, mood) = (self.random.pick(&hops), *self.random.pick(&moods));
        self.world.tell(|| format!("{} is {mood:?} from now on", hop.name));
        hop.set_mood(mood);
    }

    fn step_clock(&mut self) {
        const MINUTE: i64 = 60_000;
        const DAY: i64 = 1_440 * MINUTE;
        let steps = [
            0,
            0,
            3_000,
            -3_000,
            MINUTE,
            -MINUTE,
            30 * MINUTE,
            -30 * MINUTE,
            6 * DAY,
            -3 * DAY,
            1_460 * DAY,
            -7_300 * DAY,
        ];
        let ahead = *self.random.pick(&steps);
        self.world.tell(|| format!("the gateway's clock is {ahead} ms ahead from now on"));
        self.world.time.set_ahead(ahead);
        self.world.ledger(|ledger| ledger.clock.set(ahead, ledger.now));
    }

    /// A life without faults, until all mail is settled.
    async fn last_life(&mut self) {
        let Some(life) = self.open(Faults::none(), false) else { return };
        let patience = AGES.quarantine + AGES.message;
        let deadline = self.world.time.passed() + patience;
        let thorough = self.random.chance(850);
        while self.world.time.passed() < deadline && !self.is_broken() {
            self.release_all(&life, thorough).await;
            tokio::time::sleep(Duration::from_secs(30)).await;
            let left = life.store.totals().await.map_or(1, |totals| totals.messages);
            if left == 0 && self.world.ledger(|ledger| ledger.disk.is_empty()) {
                break;
            }
        }
        if self.is_broken() {
            return;
        }
        self.world.ledger(laws::all_done);
        self.end(life, End::Drain(Duration::from_secs(60))).await;
        self.leaves_nothing();
    }

    /// Nothing stays held for ever: an operator looks through it all, or leaves quarantines to themselves.
    async fn release_all(&mut self, life: &Life, thorough: bool) {
        let held = self.world.ledger(|ledger| {
            let release = |hold: &HoldReason| thorough || hold.quarantine().is_none();
            let held = ledger.disk.iter().filter(|(_, state)| state.hold.as_ref().is_some_and(release));
            held.map(|(id, _)| *id).collect::<Vec<_>>()
        });
        if !held.is_empty() {
            let said = life.handle.release(Select::Ids(held), None).await;
            self.world.tell(|| format!("the operator releases what is held: {said:?}"));
        }
    }

    /// Where nothing is spooled, no file has a body in it.
    fn leaves_nothing(&self) {
        let bodies = std::fs::read_dir(self.spool.folder.join("bodies"));
        let left = bodies.map_or(0, Iterator::count);
        if left > 0 {
            self.world
                .ledger(|ledger| ledger.breach(format!("{left} files of bodies are left in an empty spool")));
        }
    }
}

/// What receiving does with a message.
async fn bring(store: &Store, letter: SimMessage) -> Result<(), SpoolError> {
    let mut draft = store.begin()?;
    let head = messages::head_of(&letter.text);
    for piece in letter.text[head..].chunks(7_000) {
        block(draft.append(bytes::Bytes::copy_from_slice(piece)))?;
        tokio::task::yield_now().await;
    }
    let content: Content = block(draft.finish())?;
    let message = NewMessage { id: letter.id, head: letter.text.slice(..head), content, entry: letter.entry };
    store.commit(message).await.map(drop)
}

/// Sends messages by another way.
async fn reroute(store: &Store, ids: &[QueueId]) -> Result<(), SpoolError> {
    for id in ids {
        store.reroute(*id, Vec::new(), Some(NextHop::Relay("other".into()))).await?;
    }
    Ok(())
}
