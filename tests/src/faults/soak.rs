//! The soak test: mixed mail and faults for a long time, while the gateway's resource use is sampled, to see that
//! nothing grows.
//!
//! The first quarter is a warm-up, in which the gateway is killed and restarted; after that one process runs to the
//! end. The next hop fails for half of each minute, and accepts the waiting mail in the other half, at whose end the
//! samples are taken. So the comparison between the two halves of the time is about what the queue leaves behind, not
//! about its length.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::hop::HopMode;
use super::ledger::{CopyAccount, MailLedger, MailMix};
use super::load::{GatewayAddress, LoadWire};
use super::powercut::SeededRandom;
use super::test_bed::{BedConfig, TestBed};

/// Messages per second from fast clients.
const RATE: u64 = 40;
/// The number of slow clients, and of clients that disconnect in the middle of a message.
const SLOW: usize = 6;
const MIX: MailMix = MailMix { medium: 9, large: 60, many: 7, late: 13, never: 31 };
const PLUGINS: &str = "[[plugin]]\nname = \"example\"\ncomponent = \"stock:example\"\ngrants = [\"edit-headers\"]\n\
                       config = { header = \"X-Seen\" }\n";

/// The resources that a process uses.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResourceSample {
    /// Resident memory in KiB.
    pub memory: u64,
    /// The number of open descriptors.
    pub descriptors: u64,
    /// The number of threads.
    pub threads: u64,
    /// The size of the spool's files on disk, in KiB.
    pub spool: u64,
}

/// The result of the soak test.
#[derive(Clone, Debug)]
pub struct SoakReport {
    /// The account of all copies.
    pub account: CopyAccount,
    /// Messages that were acknowledged and did not arrive.
    pub lost: u64,
    /// How often the gateway was killed.
    pub kills: u64,
    /// Medians of the two halves after the warm-up.
    pub halves: [ResourceSample; 2],
    /// Problems; empty if there are none.
    pub problems: Vec<String>,
}

/// Sends mail for `length`, and calls `tell` with the progress now and then.
///
/// # Errors
/// The test bed could not be set up.
pub async fn soak(length: Duration, seed: u64, tell: impl Fn(String)) -> Result<SoakReport, String> {
    let setting = BedConfig { mix: MIX, more: PLUGINS.to_owned(), ..BedConfig::default() };
    let mut soak = SoakRun {
        stage: TestBed::start(setting).await?,
        chance: SeededRandom(seed),
        kills: 0,
        samples: Vec::new(),
    };
    let start = Instant::now();
    let _others = others(&soak.stage.book, &soak.stage.address());
    let mut second = 0;
    while start.elapsed() < length {
        let warm = start.elapsed() > length / 4;
        soak.second(second, warm).await;
        second += 1;
        if second % 30 == 0 {
            tell(soak.progress(start.elapsed()));
        }
    }
    Ok(soak.end().await)
}

struct SoakRun {
    stage: TestBed,
    chance: SeededRandom,
    kills: u64,
    /// Samples, one per second at the end of each minute, after the warm-up.
    samples: Vec<ResourceSample>,
}

impl SoakRun {
    async fn second(&mut self, second: u64, warm: bool) {
        self.stage.load.send(usize::try_from(RATE).unwrap_or_default());
        tokio::time::sleep(Duration::from_secs(1)).await;
        if second.is_multiple_of(5) {
            let mode = self.mode(second % 60);
            self.stage.hop.become_(mode);
        }
        if second.is_multiple_of(7) {
            self.stage.reload();
        }
        if !warm && second % 15 == 14 {
            self.kills += 1;
            self.stage.kill();
            self.stage.again();
        }
        if self.stage.has_ended() {
            self.stage.problems.push("the gateway has ended by itself".to_owned());
            self.stage.kill();
            self.stage.again();
        }
        if warm && second % 60 >= 50 {
            self.samples.extend(self.sample());
        }
    }

    fn mode(&mut self, second: u64) -> HopMode {
        match self.chance.below(5) {
            _ if second >= 30 => HopMode::Well,
            0 => HopMode::Away,
            1 => HopMode::Slow,
            2 => HopMode::Busy,
            3 => HopMode::Silent,
            _ => HopMode::Deaf,
        }
    }

    fn sample(&self) -> Option<ResourceSample> {
        let pid = self.stage.gateway.as_ref()?.pid();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_whitespace().next()?.parse().ok()
        };
        Some(ResourceSample {
            memory: number("VmRSS:")?,
            threads: number("Threads:")?,
            descriptors: fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64,
            spool: room(&self.stage.spool()) / 1_024,
        })
    }

    fn progress(&self, elapsed: Duration) -> String {
        let progress = self.stage.book.progress();
        let sample = self.sample().unwrap_or_default();
        format!(
            "{:>5} s: {} acknowledged, {} arrived, {} refused, {} broken; {} MiB, {} descriptors, {} threads, spool {} MiB",
            elapsed.as_secs(),
            progress.promised,
            progress.arrived,
            progress.refused,
            progress.broken,
            sample.memory / 1_024,
            sample.descriptors,
            sample.threads,
            sample.spool / 1_024
        )
    }

    /// Ends the mail. What remains is delivered, also by a new process that did not receive it.
    async fn end(mut self) -> SoakReport {
        self.stage.hop.become_(HopMode::Well);
        self.kills += 1;
        self.stage.kill();
        self.stage.again();
        self.stage.drain().await;
        let mut problems = std::mem::take(&mut self.stage.problems);
        if let Some(left) = self.stage.queue_left().await {
            problems.push(format!("the queue is not empty at the end:\n{left}"));
        }
        if self.samples.len() < 10 {
            problems.push("too short a time to see whether it grows: two minutes are the least".to_owned());
        }
        let (first, second) = self.samples.split_at(self.samples.len() / 2);
        let halves = [median(first), median(second)];
        problems.extend(growth(&halves));
        let account = self.stage.book.account();
        let lost = self.stage.book.missing().len() as u64;
        let bad = [(lost, "messages lost"), (account.changed, "copies changed on the way")];
        problems.extend(
            bad.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")),
        );
        SoakReport { account, lost, kills: self.kills, halves, problems }
    }
}

/// The resources of which the second half uses more than the first, beyond random variation.
fn growth(halves: &[ResourceSample; 2]) -> Vec<String> {
    let [first, second] = halves;
    let compared = [
        ("KiB of memory", first.memory, second.memory, first.memory / 8 + 8_192),
        ("descriptors", first.descriptors, second.descriptors, first.descriptors / 4 + 10),
        ("threads", first.threads, second.threads, 4),
        ("KiB of spool", first.spool, second.spool, first.spool / 2 + 16_384),
    ];
    let grown = compared.iter().filter(|(_, before, after, may)| *after > before + may);
    grown.map(|(what, before, after, _)| format!("it grows: {before} {what}, later {after}")).collect()
}

fn median(samples: &[ResourceSample]) -> ResourceSample {
    let middle = |of: fn(&ResourceSample) -> u64| {
        let mut all: Vec<u64> = samples.iter().map(of).collect();
        all.sort_unstable();
        all.get(all.len() / 2).copied().unwrap_or_default()
    };
    ResourceSample {
        memory: middle(|sample| sample.memory),
        descriptors: middle(|sample| sample.descriptors),
        threads: middle(|sample| sample.threads),
        spool: middle(|sample| sample.spool),
    }
}

/// The size on disk of the files below a folder.
fn room(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(file) if file.is_dir() => room(&entry.path()),
        Ok(file) => file.blocks() * 512,
        Err(_) => 0,
    });
    sizes.sum()
}

/// Clients that send their messages slowly, and clients that disconnect in the middle of one.
fn others(book: &Arc<MailLedger>, address: &GatewayAddress) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    for at in 0..SLOW * 2 {
        clients.spawn(other(Arc::clone(book), address.clone(), at % 2 == 0));
    }
    clients
}

async fn other(book: Arc<MailLedger>, mut address: GatewayAddress, slow: bool) {
    while let Ok(there) = address.wait_for(Option::is_some).await.map(|there| *there) {
        let Some(there) = there else { continue };
        let session = async {
            let mut wire = LoadWire::connect(there).await?;
            if slow {
                wire.send_by(&book, Duration::from_millis(50), 40).await.map(drop)
            } else {
                wire.abort(&book).await
            }
        };
        let ended = session.await;
        if ended.is_err() && slow {
            book.broken();
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_is_named_and_what_wavers_is_not() {
        let sample = ResourceSample { memory: 100_000, descriptors: 60, threads: 12, spool: 20_000 };
        assert_eq!(growth(&[sample, ResourceSample { memory: 105_000, threads: 13, ..sample }]), [""; 0]);
        let leaks = ResourceSample { memory: 130_000, descriptors: 300, threads: 40, spool: 90_000 };
        assert_eq!(growth(&[sample, leaks]).len(), 4);
        assert_eq!(median(&[leaks, sample, sample]).threads, 12);
    }
}
