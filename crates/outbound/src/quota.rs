//! How much may lie in quarantines. Strangers fill them and nobody empties them for a month, so without a bound they would
//! fill the disk, and all mail would be refused with them.
//!
//! A message asks for room before it is held, and keeps its place until it is stored, so that a burst of them stays within
//! the bounds as one would. What is full refuses what is new, or drops what is oldest, as the operator has said. All held
//! mail together leaves a share of the disk alone, and there nothing is dropped: what fills the disk may be something else.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use futures_util::StreamExt;
use parking_lot::Mutex;
use pintle_mail::{EnhancedCode, QueueId, Reply};
use pintle_spool::{Amount, Filter, Page, SpoolError, Totals};

use crate::handle::Command;
use crate::shared::OutboundShared;
use crate::{Config, quarantine};

/// Different quarantines that may be in use at once. Plugins name them, and each has a quota of its own.
const NAMES: usize = 100;
/// The part of a full quarantine, one in so many, that is made free at once: its messages are counted one by one for that.
const PART: u64 = 16;
/// Messages looked up at once.
const PAGE: usize = 500;
/// Messages dropped at once; they share their syncs.
const AT_ONCE: usize = 32;
/// How full it must be, in percent, for the operator to hear of it, and how far it must fall before he hears again.
const WARN: u64 = 80;
const CALM: u64 = 70;

/// How much quarantines hold, and what happens then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// In any of them.
    pub default: Amount,
    /// Octets in some, by name.
    pub bytes: BTreeMap<String, u64>,
    /// Messages in some, by name.
    pub messages: BTreeMap<String, u64>,
    /// What happens to what comes when one is full.
    pub when_full: WhenFull,
    /// How much all held mail may take, in percent of what it takes and what is free on the disk.
    pub disk_percent: u8,
}

/// What happens when a quarantine is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenFull {
    /// What is new is refused for now; its sender will try again.
    #[default]
    Refuse,
    /// What is oldest is dropped.
    DropOldest,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            default: Amount { messages: 10_000, bytes: 1 << 30 },
            bytes: BTreeMap::new(),
            messages: BTreeMap::new(),
            when_full: WhenFull::default(),
            disk_percent: 50,
        }
    }
}

impl Quota {
    /// How much the quarantine of this name holds.
    #[must_use]
    pub fn of(&self, name: &str) -> Amount {
        Amount {
            messages: *self.messages.get(name).unwrap_or(&self.default.messages),
            bytes: *self.bytes.get(name).unwrap_or(&self.default.bytes),
        }
    }
}

/// A place in a quarantine, until the message lies there and is counted.
#[derive(Debug)]
pub struct Room {
    taken: Arc<Mutex<BTreeMap<String, Amount>>>,
    name: String,
    bytes: u64,
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut taken = self.taken.lock();
        if let Some(amount) = taken.get_mut(&self.name) {
            *amount = less(*amount, Amount { messages: 1, bytes: self.bytes });
            if amount.messages == 0 {
                taken.remove(&self.name);
            }
        }
    }
}

/// Why a message cannot be held. Whoever sent it may try again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Full {
    /// The quarantine of this name holds this much, and no more.
    Quota(String, Amount),
    /// Held mail takes as much of the disk as it may.
    Disk,
    /// So many quarantines are in use that there cannot be another one.
    Names(String),
    /// What lies there cannot be found out.
    Spool(SpoolError),
}

impl Full {
    /// What a client is told. That its mail would have been held is nothing for it to know.
    #[must_use]
    pub fn reply(&self) -> Reply {
        match self {
            Self::Spool(error) => error.reply(),
            // RFC 5321 section 4.2.2: 452, insufficient system storage. RFC 3463 section 3.4: X.3.1, system full.
            _ => Reply::new(452, EnhancedCode(4, 3, 1), "No room for this message now; try again later"),
        }
    }
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quota(name, limit) => write!(
                f,
                "quarantine {name} holds {} messages and {} octets at most: look through it (`pintle quarantine list`), \
                 or raise max_messages and max_size",
                limit.messages, limit.bytes
            ),
            Self::Disk => f.write_str(
                "held mail takes as much of the disk as it may: look through the quarantines, make room, or raise \
                 max_disk_percent",
            ),
            Self::Names(name) => {
                write!(f, "there are {NAMES} quarantines already, so that there is none for {name}")
            }
            Self::Spool(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Full {}

/// Who has asked for room, and what the operator has heard.
#[derive(Default)]
pub(crate) struct Rooms {
    /// One message is judged at a time.
    turn: tokio::sync::Mutex<()>,
    taken: Arc<Mutex<BTreeMap<String, Amount>>>,
    /// Quarantines of which it was said that they are nearly full, or that they are.
    nearly: Mutex<BTreeSet<String>>,
    refusing: Mutex<BTreeSet<String>>,
}

/// What stands under the quarantines' names for all held mail together; no quarantine has an empty name.
const ALL: &str = "";

/// Asks for room for one message of this size.
pub(crate) async fn admit(shared: &OutboundShared, name: &str, bytes: u64) -> Result<Room, Full> {
    let rooms = &shared.rooms;
    let _turn = rooms.turn.lock().await;
    let admitted = judge(shared, name, bytes).await;
    match admitted {
        Ok(()) => Ok(rooms.take(name, bytes)),
        Err(full) => {
            quarantine::count("refused");
            rooms.tell(name, &full);
            Err(full)
        }
    }
}

async fn judge(shared: &OutboundShared, name: &str, bytes: u64) -> Result<(), Full> {
    let config = shared.config.load_full();
    // Those on their way are read first: one that is stored between the two counts twice, and never not at all.
    let on_the_way = shared.rooms.taken.lock().clone();
    let totals = shared.spool.totals().await.map_err(Full::Spool)?;
    let known = totals.quarantines.contains_key(name) || on_the_way.contains_key(name);
    if !known && names(&totals, &on_the_way) >= NAMES {
        return Err(Full::Names(name.to_owned()));
    }
    let coming: u64 = on_the_way.values().map(|amount| amount.bytes).sum();
    let then = totals.held_bytes.saturating_add(coming).saturating_add(bytes);
    if !share_left(then, totals.held_bytes, shared.spool.free(), config.quota.disk_percent) {
        return Err(Full::Disk);
    }
    let limit = config.quota.of(name);
    let new = Amount { messages: 1, bytes };
    let coming = more(on_the_way.get(name).copied().unwrap_or_default(), new);
    let lying = totals.quarantines.get(name).copied().unwrap_or_default();
    if within(more(lying, coming), limit) {
        return Ok(());
    }
    // One that would not fit if nothing lay there drives nothing out.
    if config.quota.when_full == WhenFull::Refuse || !within(coming, limit) {
        return Err(Full::Quota(name.to_owned(), limit));
    }
    drop_oldest(shared, name, coming, limit).await
}

/// Whether held mail of this size leaves its share of the disk alone, where it takes so much now and so much is free.
fn share_left(then: u64, now: u64, free: Option<u64>, percent: u8) -> bool {
    let Some(free) = free else { return true };
    let room = u128::from(now) + u128::from(free);
    u128::from(then) * 100 <= room * u128::from(percent)
}

/// Drops the oldest messages of a full quarantine until what is coming fits. It counts them first, one by one: what cannot
/// be undone must not hang on a total that was kept along the way.
async fn drop_oldest(shared: &OutboundShared, name: &str, coming: Amount, limit: Amount) -> Result<(), Full> {
    let lying = listed(shared, name).await.map_err(Full::Spool)?;
    let mut left =
        lying.iter().fold(coming, |sum, (_, bytes)| more(sum, Amount { messages: 1, bytes: *bytes }));
    if within(left, limit) {
        tracing::error!(
            quarantine = name,
            messages = left.messages,
            octets = left.bytes,
            "a quarantine was counted as full and is not; nothing is dropped"
        );
        return Ok(());
    }
    let aim =
        Amount { messages: limit.messages - limit.messages / PART, bytes: limit.bytes - limit.bytes / PART };
    let mut oldest = Vec::new();
    for (id, bytes) in lying {
        if within(left, aim) {
            break;
        }
        left = less(left, Amount { messages: 1, bytes });
        oldest.push((id, bytes));
    }
    let dropped = delete(shared, name, oldest).await;
    tracing::warn!(
        quarantine = name,
        dropped,
        "a quarantine was full: its oldest messages have been dropped"
    );
    // What somebody has released meanwhile does not lie there either, so only a spool that refuses leaves it full.
    let lying = listed(shared, name).await.map_err(Full::Spool)?;
    let left = lying.iter().fold(coming, |sum, (_, bytes)| more(sum, Amount { messages: 1, bytes: *bytes }));
    if within(left, limit) { Ok(()) } else { Err(Full::Quota(name.to_owned(), limit)) }
}

/// What lies in a quarantine, oldest first, with sizes.
async fn listed(shared: &OutboundShared, name: &str) -> Result<Vec<(QueueId, u64)>, SpoolError> {
    let filter = Filter { quarantine: Some(name.to_owned()), ..Filter::default() };
    let mut page = Page { after: None, limit: PAGE };
    let mut found = Vec::new();
    loop {
        let listing = shared.spool.list(filter.clone(), page).await?;
        found.extend(listing.messages.iter().map(|message| (message.id, message.size)));
        match listing.next {
            Some(next) => page.after = Some(next),
            None => return Ok(found),
        }
    }
}

/// Gives how many were dropped. One that has been released, or that the spool keeps, stays.
async fn delete(shared: &OutboundShared, name: &str, oldest: Vec<(QueueId, u64)>) -> usize {
    let drop =
        async |id| quarantine::delete(shared, id, &quarantine::Deletion::by_quota(name)).await.map(|()| id);
    let dropping = futures_util::stream::iter(oldest).map(|(id, _)| drop(id)).buffered(AT_ONCE);
    let dropped: Vec<QueueId> =
        dropping.filter_map(|dropped| std::future::ready(dropped.ok())).collect().await;
    let count = dropped.len();
    // A runner that has ended has no jobs to forget.
    if let Some(commands) = shared.commands.upgrade() {
        let _ = commands.send(Command::Forget(dropped, tokio::sync::oneshot::channel().0));
    }
    count
}

impl Rooms {
    fn take(&self, name: &str, bytes: u64) -> Room {
        let mut taken = self.taken.lock();
        let amount = taken.entry(name.to_owned()).or_default();
        *amount = more(*amount, Amount { messages: 1, bytes });
        Room { taken: Arc::clone(&self.taken), name: name.to_owned(), bytes }
    }

    /// Once, until there is room again.
    fn tell(&self, name: &str, full: &Full) {
        let about = match full {
            Full::Quota(..) => name,
            // Whatever the name was: plugins can think of any number.
            Full::Disk | Full::Names(_) | Full::Spool(_) => ALL,
        };
        if self.refusing.lock().insert(about.to_owned()) {
            tracing::error!(quarantine = name, %full, "a message was to be held and is refused, as will be others");
        }
    }

    /// Shows how full the quarantines are that have gauges, and warns before they are full.
    pub(crate) fn watch(
        &self,
        totals: &Totals,
        free: Option<u64>,
        config: &Config,
        gauged: &BTreeSet<String>,
    ) {
        let quota = &config.quota;
        let mut full: BTreeMap<&str, u64> = gauged.iter().map(|name| (name.as_str(), 0)).collect();
        full.extend(
            totals.quarantines.iter().map(|(name, amount)| (name.as_str(), percent(*amount, quota.of(name)))),
        );
        let all = free.map_or(0, |free| of_share(totals.held_bytes, free, quota.disk_percent));
        for (name, percent) in full.iter().filter(|(name, _)| gauged.contains(**name)) {
            gauge("pintle_quarantine_full_ratio", *percent, Some(name));
        }
        gauge("pintle_held_full_ratio", all, None);
        full.insert(ALL, all);
        self.warn(&full);
    }

    fn warn(&self, full: &BTreeMap<&str, u64>) {
        let percent = |name: &String| full.get(name.as_str()).copied().unwrap_or(0);
        let mut nearly = self.nearly.lock();
        nearly.retain(|name| percent(name) >= CALM);
        self.refusing.lock().retain(|name| percent(name) >= CALM);
        for (name, percent) in full.iter().filter(|(_, percent)| **percent >= WARN) {
            if !nearly.insert((*name).to_owned()) {
                continue;
            }
            if *name == ALL {
                tracing::warn!(
                    percent,
                    "held mail takes nearly as much of the disk as it may ([quarantine] max_disk_percent)"
                );
            } else {
                tracing::warn!(
                    quarantine = name,
                    percent,
                    "a quarantine is nearly full ([quarantine] max_size, max_messages)"
                );
            }
        }
    }
}

// Percentages are far below 2^52, where a float counts exactly.
#[allow(clippy::cast_precision_loss)]
fn gauge(name: &'static str, percent: u64, quarantine: Option<&str>) {
    let ratio = percent as f64 / 100.0;
    match quarantine {
        Some(quarantine) => metrics::gauge!(name, "quarantine" => quarantine.to_owned()).set(ratio),
        None => metrics::gauge!(name).set(ratio),
    }
}

fn names(totals: &Totals, on_the_way: &BTreeMap<String, Amount>) -> usize {
    let new = on_the_way.keys().filter(|name| !totals.quarantines.contains_key(*name));
    totals.quarantines.len() + new.count()
}

/// How much of what it may take it takes, in percent, by whichever is nearer to its limit.
fn percent(amount: Amount, limit: Amount) -> u64 {
    let of = |part: u64, whole: u64| part.saturating_mul(100) / whole.max(1);
    of(amount.messages, limit.messages).max(of(amount.bytes, limit.bytes))
}

/// The same for the share of the disk.
fn of_share(held: u64, free: u64, percent: u8) -> u64 {
    let may = (u128::from(held) + u128::from(free)) * u128::from(percent) / 100;
    u64::try_from(u128::from(held) * 100 / may.max(1)).unwrap_or(u64::MAX)
}

fn within(amount: Amount, limit: Amount) -> bool {
    amount.messages <= limit.messages && amount.bytes <= limit.bytes
}

fn more(a: Amount, b: Amount) -> Amount {
    Amount { messages: a.messages.saturating_add(b.messages), bytes: a.bytes.saturating_add(b.bytes) }
}

fn less(a: Amount, b: Amount) -> Amount {
    Amount { messages: a.messages.saturating_sub(b.messages), bytes: a.bytes.saturating_sub(b.bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_mail_leaves_its_share_of_the_disk_alone() {
        assert!(share_left(50, 40, Some(60), 50) && !share_left(51, 40, Some(60), 50));
        assert!(share_left(u64::MAX, 0, None, 1), "no disk, no share");
        assert!(!share_left(1, 0, Some(0), 100) && share_left(1, 0, Some(1), 100));
        assert!(!share_left(1, 0, Some(1_000), 0));
        assert_eq!((of_share(40, 60, 50), of_share(50, 50, 50), of_share(0, 0, 50)), (80, 100, 0));
    }

    #[test]
    fn a_place_is_given_back_once() {
        let rooms = Rooms::default();
        let (one, two) = (rooms.take("a", 10), rooms.take("a", 5));
        assert_eq!(rooms.taken.lock()["a"], Amount { messages: 2, bytes: 15 });
        drop(one);
        assert_eq!(rooms.taken.lock()["a"], Amount { messages: 1, bytes: 5 });
        drop(two);
        assert!(rooms.taken.lock().is_empty());
    }

    #[test]
    fn the_operator_hears_once_before_it_is_full() {
        let (rooms, mut config) = (Rooms::default(), Config::new("gate.example"));
        config.quota.default = Amount { messages: 10, bytes: 1_000 };
        let lying = |messages, bytes| Totals {
            quarantines: [("a".to_owned(), Amount { messages, bytes })].into(),
            ..Totals::default()
        };
        let told = |totals: &Totals| {
            rooms.watch(totals, None, &config, &BTreeSet::new());
            rooms.nearly.lock().contains("a")
        };
        assert!(!told(&lying(7, 700)));
        assert!(told(&lying(8, 10)), "by number");
        assert!(told(&lying(7, 10)), "it is not calm yet");
        assert!(!told(&lying(6, 10)));
        assert!(told(&lying(1, 800)), "by size");
        assert!(!told(&Totals::default()));
    }
}
