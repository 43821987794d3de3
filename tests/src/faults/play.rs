//! How a row is played: mail comes, the fault happens, the gateway recovers, and the next round begins.

use std::time::Duration;

use pintle_testkit::ZoneServer;

use super::book::Progress;
use super::damage;
use super::hop::Mode;
use super::powercut::{Chance, Keep};
use super::rows::{Damage, Fault, Row};
use super::shim::{Act, Ops, Rule};
use super::stage::{PATIENCE, Setting, Stage};
use super::{Options, Outcome};

/// How long a clock stays wrong, and other things last that have no end of their own.
const WHILE: Duration = Duration::from_secs(4);
/// Octets of a dialogue with one small message, both ways, and some more.
const DIALOGUE: u64 = 1_100;
/// Where mail goes by MX: the exchanger's name is the next hop's address.
const ZONES: &str = "to.example MX 10 mx.to.example\nmx.to.example A 127.0.0.9\n\
                     from.example MX 10 mx.from.example\nmx.from.example A 127.0.0.9\n";

/// A row at play.
pub(super) struct Play<'a> {
    row: &'a Row,
    rounds: u32,
    options: &'a Options,
    chance: Chance,
    /// Calls that the shim hit.
    hits: u64,
}

impl<'a> Play<'a> {
    pub(super) fn new(row: &'a Row, options: &'a Options) -> Self {
        let rounds = options.rounds.map_or(row.rounds, |most| row.rounds.min(most)).max(1);
        Self { row, rounds, options, chance: Chance(options.seed), hits: 0 }
    }

    /// Plays it to its end.
    pub(super) async fn play(mut self) -> Result<Outcome, String> {
        let start = std::time::Instant::now();
        let zone = ZoneServer::start(ZONES).await;
        let mut stage = Stage::start(self.setting(&zone)?).await?;
        for round in 0..self.rounds {
            self.round(&mut stage, &zone, round).await;
        }
        stage.shim.disarm();
        stage.hop.become_(Mode::Well);
        zone.heal_all();
        if stage.has_ended() {
            stage.recover().await;
        }
        stage.drain().await;
        if matches!(self.row.fault, Fault::Disk(..)) && self.hits == 0 {
            stage.problems.push("no call of this kind was made, so none failed".to_owned());
        }
        let outcome = Outcome::of(self.row, self.rounds, &stage, start.elapsed());
        Ok(outcome)
    }

    fn setting(&self, zone: &ZoneServer) -> Result<Setting, String> {
        let mut setting = Setting { mix: self.row.mix, ..Setting::default() };
        match self.row.fault {
            Fault::PowerCut(..) => setting.journal = true,
            Fault::Descriptors(most) => setting.limits = vec![('n', most)],
            Fault::Dns(_) => {
                setting.by_mx = true;
                setting.more = format!(
                    "[dns]\nservers = [\"{}\"]\nhosts_file = false\nmax_negative_ttl = \"0s\"\n\
                     timeout = \"300ms\"\nattempts = 2\ndeadline = \"900ms\"\n",
                    zone.address()
                );
            }
            Fault::Plugin(hook) => {
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

    async fn round(&mut self, stage: &mut Stage, zone: &ZoneServer, round: u32) {
        match self.row.fault {
            Fault::Kill => self.kill(stage).await,
            Fault::KillAt(ops, path) => self.die_at(stage, ops, path, None, round).await,
            Fault::PowerCut(ops, path, keep) => self.die_at(stage, ops, path, Some(keep), round).await,
            Fault::Disk(rule, times) => self.disk(stage, rule, times).await,
            Fault::Clock { seconds, returns, restart } => clock(stage, seconds, returns, restart).await,
            Fault::Drift(parts) => drift(stage, parts).await,
            Fault::Descriptors(_) => descriptors(stage).await,
            Fault::Memory(more) => memory(stage, more * (u64::from(round) + 1)).await,
            Fault::Damage(damage) => self.damage(stage, damage).await,
            Fault::Away(folder) => away(stage, folder).await,
            Fault::Deleted(file) => self.deleted(stage, file).await,
            Fault::Hop(mode) => self.hop(stage, mode).await,
            Fault::Dns(fault) => dns(stage, zone, fault).await,
            Fault::Plugin(hook) => self.plugin_faults(stage, hook, round).await,
            Fault::Two => two(stage).await,
        }
    }

    async fn kill(&mut self, stage: &mut Stage) {
        let from = stage.book.progress();
        stage.send(60);
        stage.outcomes(from, self.chance.below(60)).await;
        stage.kill();
        stage.again();
    }

    /// The process dies at one call, or else is killed when it has made too few.
    async fn die_at(
        &mut self,
        stage: &mut Stage,
        ops: Ops,
        path: &'static str,
        cut: Option<Keep>,
        round: u32,
    ) {
        let act = if round.is_multiple_of(2) { Act::DieBefore } else { Act::DieAfter };
        let from = stage.book.progress();
        stage.send(10);
        stage.outcomes(from, 10).await;
        stage.shim.arm(Rule { ops, path, act }, self.chance.below(90), 1);
        if !stage.send_until_ended().await {
            stage.problems.push("the process did not come to the call at which it was to die".to_owned());
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

    /// Calls fail while mail comes in and goes out; then they succeed again.
    async fn disk(&mut self, stage: &mut Stage, rule: Rule, times: u64) {
        let from = stage.book.progress();
        stage.send(40);
        stage.outcomes(from, 20 + self.chance.below(20)).await;
        stage.shim.arm(rule, self.chance.below(2), times);
        let from = stage.book.progress();
        stage.send(80);
        stage.outcomes(from, 80).await;
        if stage.shim.hits() == 0 {
            // What is done behind the back of the clients, such as a removal, may come a little later.
            stage.drain().await;
        }
        if stage.shim.hits() == 0 {
            // And what is done seldom, such as a sync of an index, is done at the end.
            stage.stop().await;
            stage.kill();
            stage.again();
        }
        self.hits += stage.shim.hits();
        stage.shim.disarm();
        stage.recover().await;
    }

    /// Mail waits, the gateway goes down, files are damaged, and it starts again.
    async fn damage(&mut self, stage: &mut Stage, damage: Damage) {
        stage.hop.become_(Mode::Away);
        wait_in_queue(stage, 50).await;
        if damage == Damage::OldDatabase {
            stage.kill();
            stage.problems.extend(damage::keep_copy(&stage.spool()).err());
            stage.again();
            wait_in_queue(stage, 50).await;
        }
        if damage::is_in_the_database(damage) {
            // A write-ahead log would hide what stands in the pages.
            stage.stop().await;
        }
        stage.kill();
        stage.problems.extend(damage::apply(damage, &stage.spool(), &mut self.chance).err());
        stage.again();
        stage.hop.become_(Mode::Well);
    }

    async fn deleted(&mut self, stage: &mut Stage, file: &str) {
        stage.hop.become_(Mode::Away);
        let from = stage.book.progress();
        stage.send(100);
        stage.outcomes(from, 30 + self.chance.below(40)).await;
        for name in [file.to_owned(), format!("{file}-wal"), format!("{file}-shm")] {
            let _ = std::fs::remove_file(stage.spool().join(name));
        }
        stage.outcomes(from, 100).await;
        stage.kill();
        stage.again();
        stage.hop.become_(Mode::Well);
        stage.drain().await;
    }

    async fn hop(&mut self, stage: &mut Stage, mode: Mode) {
        let mode = match (mode, self.options.rounds) {
            // A short run takes larger steps.
            (Mode::Cut(_), Some(_)) => Mode::Cut(23),
            (mode, _) => mode,
        };
        let from = stage.book.progress();
        stage.hop.become_(mode);
        stage.send(60);
        stage.outcomes(from, 60).await;
        match mode {
            Mode::Cut(_) => self.cut_each(stage).await,
            Mode::Slow => drop(stage.book.wait(PATIENCE, |now| now.arrived >= from.arrived + 5).await),
            _ => drop(stage.book.wait(PATIENCE, |now| now.failed >= from.failed + 4).await),
        }
        stage.hop.become_(Mode::Well);
    }

    /// Mail keeps coming until a session has died at each octet of a dialogue.
    async fn cut_each(&mut self, stage: &mut Stage) {
        while stage.hop.octets() < DIALOGUE {
            let from = stage.book.progress();
            stage.load.send(2);
            if !stage.book.wait(PATIENCE, |now| now.failed > from.failed).await {
                return stage.problems.push("the next hop is asked no more".to_owned());
            }
        }
    }

    /// The plugin is good, then bad, then good again.
    async fn plugin_faults(&mut self, stage: &mut Stage, hook: &str, round: u32) {
        let act = ["trap", "spin", "eat", "sleep"][round as usize % 4];
        let from = stage.book.progress();
        stage.send(20);
        stage.outcomes(from, 20).await;
        let bad = self.plugin(hook, act).unwrap_or_default();
        stage.reconfigure(&bad);
        // Sessions that are open have passed the first hooks.
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

/// Mail is taken that cannot be delivered yet.
async fn wait_in_queue(stage: &mut Stage, messages: u64) {
    let from = stage.book.progress();
    stage.send(usize::try_from(messages).unwrap_or(usize::MAX));
    stage.outcomes(from, messages).await;
}

/// Waits until so many attempts at delivery have failed; a queue that makes none is given up after a while.
async fn attempts(stage: &Stage, more: u64) {
    let from = stage.book.progress();
    stage.book.wait(WHILE, |now| now.failed >= from.failed + more).await;
}

async fn clock(stage: &mut Stage, seconds: i64, returns: bool, restart: bool) {
    stage.hop.become_(Mode::Away);
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
    // What waits is tried with the clock as it is now, which may give it up.
    attempts(stage, 12).await;
    stage.hop.become_(Mode::Well);
    stage.drain().await;
}

async fn drift(stage: &mut Stage, parts: i64) {
    stage.shim.drift(parts);
    stage.hop.become_(Mode::Away);
    wait_in_queue(stage, 60).await;
    attempts(stage, 30).await;
    stage.hop.become_(Mode::Well);
    wait_in_queue(stage, 60).await;
    stage.drain().await;
}

/// Connections that say nothing.
async fn idle(stage: &Stage, count: usize) -> Vec<tokio::net::TcpStream> {
    let mut idle = Vec::new();
    if let Some(gateway) = &stage.gateway {
        for _ in 0..count {
            idle.extend(tokio::net::TcpStream::connect(gateway.address("inside")).await.ok());
        }
    }
    idle
}

/// Connections that say nothing take all descriptors while others send.
async fn descriptors(stage: &mut Stage) {
    let from = stage.book.progress();
    stage.send(60);
    let idle = idle(stage, 100).await;
    stage.outcomes(from, 20).await;
    tokio::time::sleep(WHILE).await;
    drop(idle);
    stage.outcomes(from, 60).await;
    stage.recover().await;
}

async fn memory(stage: &mut Stage, more: u64) {
    stage.problems.extend(stage.limit_memory(more).err());
    let from = stage.book.progress();
    let idle = idle(stage, 300).await;
    stage.send(120);
    stage.outcomes(from, 60).await;
    stage.recover().await;
    drop(idle);
}

async fn dns(stage: &mut Stage, zone: &ZoneServer, fault: pintle_testkit::ZoneFault) {
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

/// A folder of the spool is not there at the start, as when a disk is not mounted yet: the gateway must not begin without it.
async fn away(stage: &mut Stage, folder: &str) {
    stage.hop.become_(Mode::Away);
    wait_in_queue(stage, 50).await;
    stage.kill();
    let (there, kept) = (stage.spool().join(folder), stage.spool().with_extension(folder));
    stage.problems.extend(std::fs::rename(&there, &kept).err().map(|error| error.to_string()));
    stage.second_is_refused("has no segments, though this spool has been in use");
    let _ = std::fs::remove_dir(&there);
    stage.problems.extend(std::fs::rename(&kept, &there).err().map(|error| error.to_string()));
    stage.again();
    stage.hop.become_(Mode::Well);
}

/// A second process is refused: as it is, and when the lock's file has been deleted by hand.
async fn two(stage: &mut Stage) {
    wait_in_queue(stage, 30).await;
    stage.second_is_refused("is in use by another process");
    for name in ["lock", "spool.lock", "pintle.lock"] {
        let _ = std::fs::remove_file(stage.spool().join(name));
    }
    stage.second_is_refused("is in use by another process");
    let before: Progress = stage.book.progress();
    stage.send(30);
    stage.outcomes(before, 30).await;
}
