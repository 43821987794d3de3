//! Runs a row: mail comes, the fault happens, the gateway recovers, and the next round begins.

use std::time::Duration;

use pintle_testkit::ZoneServer;

use super::damage;
use super::hop::HopMode;
use super::ledger::LoadProgress;
use super::powercut::{SeededRandom, UnsyncedFate};
use super::rows::{FileDamage, MatrixRow, RowFault};
use super::shim::{FileOps, ShimAction, ShimRule};
use super::test_bed::{BedConfig, PATIENCE, TestBed};
use super::{MatrixOptions, RowOutcome};

/// How long the clock stays wrong, and other faults last that do not end by themselves.
const WHILE: Duration = Duration::from_secs(4);
/// The octets of a dialogue with one small message, in both directions, and some more.
const DIALOGUE: u64 = 1_100;
/// The zone for mail by MX: the exchanger's name has the next hop's address.
const ZONES: &str = "to.example MX 10 mx.to.example\nmx.to.example A 127.0.0.9\n\
                     from.example MX 10 mx.from.example\nmx.from.example A 127.0.0.9\n";

/// A row being run.
pub(super) struct RowRun<'a> {
    row: &'a MatrixRow,
    rounds: u32,
    options: &'a MatrixOptions,
    chance: SeededRandom,
    /// The number of calls that the shim made fail.
    hits: u64,
}

impl<'a> RowRun<'a> {
    pub(super) fn new(row: &'a MatrixRow, options: &'a MatrixOptions) -> Self {
        let rounds = options.rounds.map_or(row.rounds, |most| row.rounds.min(most)).max(1);
        Self { row, rounds, options, chance: SeededRandom(options.seed), hits: 0 }
    }

    /// Runs it to its end.
    pub(super) async fn play(mut self) -> Result<RowOutcome, String> {
        let start = std::time::Instant::now();
        let zone = ZoneServer::start(ZONES).await;
        let mut stage = TestBed::start(self.setting(&zone)?).await?;
        for round in 0..self.rounds {
            self.round(&mut stage, &zone, round).await;
        }
        stage.shim.disarm();
        stage.hop.become_(HopMode::Well);
        zone.heal_all();
        if stage.has_ended() {
            stage.recover().await;
        }
        stage.drain().await;
        if matches!(self.row.fault, RowFault::Disk(..)) && self.hits == 0 {
            stage.problems.push("no call of this kind was made, so none failed".to_owned());
        }
        let outcome = RowOutcome::of(self.row, self.rounds, &stage, start.elapsed());
        Ok(outcome)
    }

    fn setting(&self, zone: &ZoneServer) -> Result<BedConfig, String> {
        let mut setting = BedConfig { mix: self.row.mix, ..BedConfig::default() };
        match self.row.fault {
            RowFault::PowerCut(..) => setting.journal = true,
            RowFault::Descriptors(most) => setting.limits = vec![('n', most)],
            RowFault::Dns(_) => {
                setting.by_mx = true;
                setting.more = format!(
                    "[dns]\nservers = [\"{}\"]\nhosts_file = false\nmax_negative_ttl = \"0s\"\n\
                     timeout = \"300ms\"\nattempts = 2\ndeadline = \"900ms\"\n",
                    zone.address()
                );
            }
            RowFault::Plugin(hook) => {
                setting.logins = hook == "auth";
                setting.more = self.plugin("", "")?;
            }
            _ => {}
        }
        Ok(setting)
    }

    fn plugin(&self, hook: &str, act: &str) -> Result<String, String> {
        let component =
            self.options.unruly.as_ref().ok_or("this row needs the plugin `unruly`: --unruly FILE")?;
        let config = if hook.is_empty() { String::new() } else { format!("{hook} = \"{act}\"") };
        Ok(format!(
            "[[plugin]]\nname = \"unruly\"\ncomponent = \"{}\"\ngrants = [\"kv\", \"dns\", \"auth\", \"sender-auth\"]\nconfig = {{ {config} }}\ntimer = \"200ms\"\n\
             [plugin.limits]\nwall = \"300ms\"\n",
            component.display()
        ))
    }

    async fn round(&mut self, stage: &mut TestBed, zone: &ZoneServer, round: u32) {
        match self.row.fault {
            RowFault::Kill => self.kill(stage).await,
            RowFault::KillAt(ops, path) => self.die_at(stage, ops, path, None, round).await,
            RowFault::PowerCut(ops, path, keep) => self.die_at(stage, ops, path, Some(keep), round).await,
            RowFault::Disk(rule, times) => self.disk(stage, rule, times).await,
            RowFault::Clock { seconds, returns, restart } => clock(stage, seconds, returns, restart).await,
            RowFault::Drift(parts) => drift(stage, parts).await,
            RowFault::Descriptors(_) => descriptors(stage).await,
            RowFault::Memory(more) => memory(stage, more * (u64::from(round) + 1)).await,
            RowFault::Damage(damage) => self.damage(stage, damage).await,
            RowFault::Away(folder) => away(stage, folder).await,
            RowFault::Deleted(file) => self.deleted(stage, file).await,
            RowFault::Hop(mode) => self.hop(stage, mode).await,
            RowFault::Dns(fault) => dns(stage, zone, fault).await,
            RowFault::Plugin(hook) => self.plugin_faults(stage, hook, round).await,
            RowFault::Two => two(stage).await,
        }
    }

    async fn kill(&mut self, stage: &mut TestBed) {
        let from = stage.book.progress();
        stage.send(60);
        stage.outcomes(from, self.chance.below(60)).await;
        stage.kill();
        stage.again();
    }

    /// The process dies at one call, or is killed when it has made too few.
    async fn die_at(
        &mut self,
        stage: &mut TestBed,
        ops: FileOps,
        path: &'static str,
        cut: Option<UnsyncedFate>,
        round: u32,
    ) {
        let act = if round.is_multiple_of(2) { ShimAction::DieBefore } else { ShimAction::DieAfter };
        let from = stage.book.progress();
        stage.send(10);
        stage.outcomes(from, 10).await;
        stage.shim.arm(ShimRule { ops, path, act }, self.chance.below(90), 1);
        if !stage.send_until_ended().await {
            stage.problems.push("the process did not reach the call at which it should die".to_owned());
        }
        stage.shim.disarm();
        let Some(keep) = cut else {
            stage.kill();
            return stage.again();
        };
        match stage.cut_power(keep, self.chance.next()) {
            Ok(_) => stage.again(),
            Err(why) => stage.problems.push(why),
        }
    }

    /// Calls fail while mail is received and delivered; then they succeed again.
    async fn disk(&mut self, stage: &mut TestBed, rule: ShimRule, times: u64) {
        let from = stage.book.progress();
        stage.send(40);
        stage.outcomes(from, 20 + self.chance.below(20)).await;
        stage.shim.arm(rule, self.chance.below(2), times);
        let from = stage.book.progress();
        stage.send(80);
        stage.outcomes(from, 80).await;
        if stage.shim.hits() == 0 {
            // Work in the background, such as a removal, may come a little later.
            stage.drain().await;
        }
        if stage.shim.hits() == 0 {
            // And rare work, such as a sync of an index, is done at the end.
            stage.stop().await;
            stage.kill();
            stage.again();
        }
        self.hits += stage.shim.hits();
        stage.shim.disarm();
        stage.recover().await;
    }

    /// Mail waits, the gateway stops, files are damaged, and it starts again.
    async fn damage(&mut self, stage: &mut TestBed, damage: FileDamage) {
        stage.hop.become_(HopMode::Away);
        wait_in_queue(stage, 50).await;
        if damage == FileDamage::OldDatabase {
            stage.kill();
            stage.problems.extend(damage::keep_copy(&stage.spool()).err());
            stage.again();
            wait_in_queue(stage, 50).await;
        }
        if damage::is_in_the_database(damage) {
            // A write-ahead log would hide the contents of the pages.
            stage.stop().await;
        }
        stage.kill();
        stage.problems.extend(damage::apply(damage, &stage.spool(), &mut self.chance).err());
        stage.again();
        stage.hop.become_(HopMode::Well);
    }

    async fn deleted(&mut self, stage: &mut TestBed, file: &str) {
        stage.hop.become_(HopMode::Away);
        let from = stage.book.progress();
        stage.send(100);
        stage.outcomes(from, 30 + self.chance.below(40)).await;
        for name in [file.to_owned(), format!("{file}-wal"), format!("{file}-shm")] {
            let _ = std::fs::remove_file(stage.spool().join(name));
        }
        stage.outcomes(from, 100).await;
        stage.kill();
        stage.again();
        stage.hop.become_(HopMode::Well);
        stage.drain().await;
    }

    async fn hop(&mut self, stage: &mut TestBed, mode: HopMode) {
        let mode = match (mode, self.options.rounds) {
            // A short run takes larger steps.
            (HopMode::Cut(_), Some(_)) => HopMode::Cut(23),
            (mode, _) => mode,
        };
        let from = stage.book.progress();
        stage.hop.become_(mode);
        stage.send(60);
        stage.outcomes(from, 60).await;
        match mode {
            HopMode::Cut(_) => self.cut_each(stage).await,
            HopMode::Slow => drop(stage.book.wait(PATIENCE, |now| now.arrived >= from.arrived + 5).await),
            _ => drop(stage.book.wait(PATIENCE, |now| now.failed >= from.failed + 4).await),
        }
        stage.hop.become_(HopMode::Well);
    }

    /// Mail is sent until a session has ended at each octet of a dialogue.
    async fn cut_each(&mut self, stage: &mut TestBed) {
        while stage.hop.octets() < DIALOGUE {
            let from = stage.book.progress();
            stage.load.send(2);
            if !stage.book.wait(PATIENCE, |now| now.failed > from.failed).await {
                return stage.problems.push("the next hop is asked no more".to_owned());
            }
        }
    }

    /// The plugin works, then fails, then works again.
    async fn plugin_faults(&mut self, stage: &mut TestBed, hook: &str, round: u32) {
        let act = ["trap", "spin", "eat", "sleep"][round as usize % 4];
        let from = stage.book.progress();
        stage.send(20);
        stage.outcomes(from, 20).await;
        let bad = self.plugin(hook, act).unwrap_or_default();
        stage.reconfigure(&bad);
        // Open sessions have already passed the first hooks.
        stage.renew_sessions();
        let from = stage.book.progress();
        stage.load.send(20);
        stage.outcomes(from, 20).await;
        let good = self.plugin("", "").unwrap_or_default();
        let told = format!("\"hook\":\"{}\"", hook.replace('_', "-"));
        let waits = std::time::Instant::now();
        while !stage.log().contains(&told) && waits.elapsed() < WHILE {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if !stage.log().contains(&told) {
            stage.problems.push("the plugin did not fail at this hook".to_owned());
        }
        stage.reconfigure(&good);
        stage.renew_sessions();
        stage.recover().await;
        stage.drain().await;
    }
}

/// Accepts mail that cannot be delivered yet.
async fn wait_in_queue(stage: &mut TestBed, messages: u64) {
    let from = stage.book.progress();
    stage.send(usize::try_from(messages).unwrap_or(usize::MAX));
    stage.outcomes(from, messages).await;
}

/// Waits until this many attempts at delivery have failed; stops waiting after a while if the queue makes none.
async fn attempts(stage: &TestBed, more: u64) {
    let from = stage.book.progress();
    stage.book.wait(WHILE, |now| now.failed >= from.failed + more).await;
}

async fn clock(stage: &mut TestBed, seconds: i64, returns: bool, restart: bool) {
    stage.hop.become_(HopMode::Away);
    wait_in_queue(stage, 30).await;
    stage.shim.step(seconds);
    wait_in_queue(stage, 30).await;
    attempts(stage, 12).await;
    if !stage.log().contains("the clock was set") {
        stage.problems.push("the gateway did not notice that the clock was set".to_owned());
    }
    if returns {
        stage.shim.step(0);
    }
    if restart {
        stage.kill();
        stage.again();
    }
    wait_in_queue(stage, 10).await;
    // Waiting mail is tried with the clock as it is now, which may make it expire.
    attempts(stage, 12).await;
    stage.hop.become_(HopMode::Well);
    stage.drain().await;
}

async fn drift(stage: &mut TestBed, parts: i64) {
    stage.shim.drift(parts);
    stage.hop.become_(HopMode::Away);
    wait_in_queue(stage, 60).await;
    attempts(stage, 30).await;
    stage.hop.become_(HopMode::Well);
    wait_in_queue(stage, 60).await;
    stage.drain().await;
}

/// Opens connections that send nothing.
async fn idle(stage: &TestBed, count: usize) -> Vec<tokio::net::TcpStream> {
    let mut idle = Vec::new();
    if let Some(gateway) = &stage.gateway {
        for _ in 0..count {
            idle.extend(tokio::net::TcpStream::connect(gateway.address("inside")).await.ok());
        }
    }
    idle
}

/// Connections that send nothing take all descriptors while others send.
async fn descriptors(stage: &mut TestBed) {
    let from = stage.book.progress();
    stage.send(60);
    let idle = idle(stage, 100).await;
    stage.outcomes(from, 20).await;
    tokio::time::sleep(WHILE).await;
    drop(idle);
    stage.outcomes(from, 60).await;
    stage.recover().await;
}

async fn memory(stage: &mut TestBed, more: u64) {
    stage.problems.extend(stage.limit_memory(more).err());
    let from = stage.book.progress();
    let idle = idle(stage, 300).await;
    stage.send(120);
    stage.outcomes(from, 60).await;
    stage.recover().await;
    drop(idle);
}

async fn dns(stage: &mut TestBed, zone: &ZoneServer, fault: pintle_testkit::ZoneFault) {
    for name in ["to.example", "mx.to.example"] {
        zone.fail(name, fault);
    }
    let asked = zone.asked().len();
    wait_in_queue(stage, 40).await;
    let start = std::time::Instant::now();
    while zone.asked().len() < asked + 6 && start.elapsed() < WHILE {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(WHILE).await;
    zone.heal_all();
    stage.drain().await;
}

/// A folder of the spool is missing at the start, as when a disk is not mounted yet: the gateway must not start without
/// it.
async fn away(stage: &mut TestBed, folder: &str) {
    stage.hop.become_(HopMode::Away);
    wait_in_queue(stage, 50).await;
    stage.kill();
    let (there, kept) = (stage.spool().join(folder), stage.spool().with_extension(folder));
    stage.problems.extend(std::fs::rename(&there, &kept).err().map(|error| error.to_string()));
    stage.second_is_refused("has no segments, though this spool has been in use");
    let _ = std::fs::remove_dir(&there);
    stage.problems.extend(std::fs::rename(&kept, &there).err().map(|error| error.to_string()));
    stage.again();
    stage.hop.become_(HopMode::Well);
}

/// A second process is refused: normally, and when the lock file has been deleted by hand.
async fn two(stage: &mut TestBed) {
    wait_in_queue(stage, 30).await;
    stage.second_is_refused("is in use by another process");
    for name in ["lock", "spool.lock", "pintle.lock"] {
        let _ = std::fs::remove_file(stage.spool().join(name));
    }
    stage.second_is_refused("is in use by another process");
    let before: LoadProgress = stage.book.progress();
    stage.send(30);
    stage.outcomes(before, 30).await;
}
