//! Quotas: size limits of quarantines. Any sender can cause mail to be quarantined, and quarantines keep mail for a
//! month, so without a limit they would fill the disk, and all mail would be refused.
//!
//! Room for a message is reserved before it is held, and the reservation ends when it is stored, so that concurrent
//! messages stay within the limits too. A full quarantine refuses new messages or drops the oldest, as the operator has
//! chosen. All held mail together is limited to a share of the disk, and at that limit nothing is dropped, since
//! something else may fill the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use pintle_mail::{EnhancedCode, Reply};
use pintle_spool::{Amount, SpoolError, Totals};

/// The most quarantines in use at once. Plugins choose their names, and each has a quota of its own.
pub(crate) const MAX_QUARANTINES: usize = 100;
/// How full a quarantine is, in percent, when the operator is warned.
const WARN: u64 = 80;
/// How far it must fall, in percent, before the operator is warned again.
const REARM: u64 = 70;

/// The limits of quarantines, and what happens when one is full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// The limits of every quarantine that the maps below do not list.
    pub default: Amount,
    /// The limits of single quarantines in octets, by name.
    pub bytes: BTreeMap<String, u64>,
    /// The limits of single quarantines in messages, by name.
    pub messages: BTreeMap<String, u64>,
    /// What happens to a new message when its quarantine is full.
    pub when_full: WhenFull,
    /// The share of the disk for all held mail together, in percent of the space that it takes plus the free space.
    pub disk_percent: u8,
}

/// What happens when a quarantine is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenFull {
    /// A new message is refused with 4xx; its sender tries again.
    #[default]
    Refuse,
    /// The oldest messages are dropped.
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
    /// The limits of the quarantine of this name.
    #[must_use]
    pub fn of(&self, name: &str) -> Amount {
        Amount {
            messages: *self.messages.get(name).unwrap_or(&self.default.messages),
            bytes: *self.bytes.get(name).unwrap_or(&self.default.bytes),
        }
    }
}

/// Room for one message in a quarantine, reserved until this value is dropped: keep it until the message is stored
/// there and counted.
#[derive(Debug)]
pub struct QuotaReservation {
    reserved: Arc<Mutex<BTreeMap<String, Amount>>>,
    name: String,
    bytes: u64,
}

impl Drop for QuotaReservation {
    fn drop(&mut self) {
        let mut reserved = self.reserved.lock();
        if let Some(amount) = reserved.get_mut(&self.name) {
            *amount = less(*amount, Amount { messages: 1, bytes: self.bytes });
            if amount.messages == 0 {
                reserved.remove(&self.name);
            }
        }
    }
}

/// Why a message cannot be held. Its client may try again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuarantineFull {
    /// The quarantine of this name is at its limits, which are these.
    Quota(String, Amount),
    /// Held mail takes its whole share of the disk.
    Disk,
    /// As many quarantines as there may be are in use, and this is another one.
    Names(String),
    /// The spool cannot count the messages there.
    Spool(SpoolError),
}

impl QuarantineFull {
    /// The reply to the client, which does not say that its mail would have been held.
    #[must_use]
    pub fn reply(&self) -> Reply {
        match self {
            Self::Spool(error) => error.reply(),
            // RFC 5321 section 4.2.2: 452, insufficient system storage. RFC 3463 section 3.4: X.3.1, system full.
            _ => Reply::new(452, EnhancedCode(4, 3, 1), "No room for this message now; try again later"),
        }
    }
}

impl fmt::Display for QuarantineFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quota(name, limit) => write!(
                f,
                "quarantine {name} holds {} messages and {} octets at most: look through it (`pintle quarantine list`), \
                 or raise max_messages and max_size",
                limit.messages, limit.bytes
            ),
            Self::Disk => f.write_str(
                "held mail takes its whole share of the disk: look through the quarantines, free disk space, or raise \
                 max_disk_percent",
            ),
            Self::Names(name) => {
                write!(f, "there are {MAX_QUARANTINES} quarantines already, and {name} would be another one")
            }
            Self::Spool(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for QuarantineFull {}

/// The reservations in all quarantines, and the warnings that the operator has had.
#[derive(Default)]
pub(crate) struct QuotaReservations {
    /// Locked while a message is admitted: one at a time.
    pub(crate) admitting: tokio::sync::Mutex<()>,
    reserved: Arc<Mutex<BTreeMap<String, Amount>>>,
    /// Quarantines that the operator was warned of as nearly full.
    nearly_full: Mutex<BTreeSet<String>>,
    /// Quarantines for which a refusal has been logged.
    refusing: Mutex<BTreeSet<String>>,
}

/// The entry for all held mail together; no quarantine has an empty name.
const ALL: &str = "";

impl QuotaReservations {
    /// Reserves room for one message of this size.
    pub(crate) fn reserve(&self, name: &str, bytes: u64) -> QuotaReservation {
        let mut reserved = self.reserved.lock();
        let amount = reserved.entry(name.to_owned()).or_default();
        *amount = more(*amount, Amount { messages: 1, bytes });
        QuotaReservation { reserved: Arc::clone(&self.reserved), name: name.to_owned(), bytes }
    }

    /// The reserved messages and octets, by quarantine.
    pub(crate) fn reserved(&self) -> BTreeMap<String, Amount> {
        self.reserved.lock().clone()
    }

    /// Logs that a message was refused; once for a quarantine, until there is room again.
    pub(crate) fn log_refusal(&self, name: &str, full: &QuarantineFull) {
        let about = match full {
            QuarantineFull::Quota(..) => name,
            // One entry for all, since plugins can invent any number of names.
            QuarantineFull::Disk | QuarantineFull::Names(_) | QuarantineFull::Spool(_) => ALL,
        };
        if self.refusing.lock().insert(about.to_owned()) {
            tracing::error!(quarantine = name, %full, "a message that was to be held is refused, and others will be until there is room");
        }
    }

    /// Sets the gauges of how full quarantines are, and warns of those that are nearly full.
    pub(crate) fn watch(&self, totals: &Totals, free: Option<u64>, quota: &Quota, gauged: &BTreeSet<String>) {
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
        let mut nearly = self.nearly_full.lock();
        nearly.retain(|name| percent(name) >= REARM);
        self.refusing.lock().retain(|name| percent(name) >= REARM);
        for (name, percent) in full.iter().filter(|(_, percent)| **percent >= WARN) {
            if !nearly.insert((*name).to_owned()) {
                continue;
            }
            if *name == ALL {
                tracing::warn!(
                    percent,
                    "held mail takes nearly its whole share of the disk ([quarantine] max_disk_percent)"
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

// Percentages are far below 2^52, up to which a float is exact.
#[allow(clippy::cast_precision_loss)]
fn gauge(name: &'static str, percent: u64, quarantine: Option<&str>) {
    let ratio = percent as f64 / 100.0;
    match quarantine {
        Some(quarantine) => metrics::gauge!(name, "quarantine" => quarantine.to_owned()).set(ratio),
        None => metrics::gauge!(name).set(ratio),
    }
}

/// How many quarantines are in use, those with reservations included.
pub(crate) fn names(totals: &Totals, reserved: &BTreeMap<String, Amount>) -> usize {
    let new = reserved.keys().filter(|name| !totals.quarantines.contains_key(*name));
    totals.quarantines.len() + new.count()
}

/// How full a quarantine is, in percent, by messages or octets, whichever is nearer to its limit.
fn percent(amount: Amount, limit: Amount) -> u64 {
    let of = |part: u64, whole: u64| part.saturating_mul(100) / whole.max(1);
    of(amount.messages, limit.messages).max(of(amount.bytes, limit.bytes))
}

/// Whether held mail stays within its share of the disk when it takes `then` octets, where it takes `now` octets and
/// `free` are free.
pub(crate) fn share_left(then: u64, now: u64, free: Option<u64>, percent: u8) -> bool {
    let Some(free) = free else { return true };
    let room = u128::from(now) + u128::from(free);
    u128::from(then) * 100 <= room * u128::from(percent)
}

/// How much of its share of the disk held mail takes, in percent.
fn of_share(held: u64, free: u64, percent: u8) -> u64 {
    let may = (u128::from(held) + u128::from(free)) * u128::from(percent) / 100;
    u64::try_from(u128::from(held) * 100 / may.max(1)).unwrap_or(u64::MAX)
}

pub(crate) fn within(amount: Amount, limit: Amount) -> bool {
    amount.messages <= limit.messages && amount.bytes <= limit.bytes
}

pub(crate) fn more(a: Amount, b: Amount) -> Amount {
    Amount { messages: a.messages.saturating_add(b.messages), bytes: a.bytes.saturating_add(b.bytes) }
}

pub(crate) fn less(a: Amount, b: Amount) -> Amount {
    Amount { messages: a.messages.saturating_sub(b.messages), bytes: a.bytes.saturating_sub(b.bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_mail_stays_within_its_share_of_the_disk() {
        assert!(share_left(50, 40, Some(60), 50) && !share_left(51, 40, Some(60), 50));
        assert!(share_left(u64::MAX, 0, None, 1), "no disk, no share");
        assert!(!share_left(1, 0, Some(0), 100) && share_left(1, 0, Some(1), 100));
        assert!(!share_left(1, 0, Some(1_000), 0));
        assert_eq!((of_share(40, 60, 50), of_share(50, 50, 50), of_share(0, 0, 50)), (80, 100, 0));
    }

    #[test]
    fn a_reservation_ends_once() {
        let reservations = QuotaReservations::default();
        let (one, two) = (reservations.reserve("a", 10), reservations.reserve("a", 5));
        assert_eq!(reservations.reserved.lock()["a"], Amount { messages: 2, bytes: 15 });
        drop(one);
        assert_eq!(reservations.reserved.lock()["a"], Amount { messages: 1, bytes: 5 });
        drop(two);
        assert!(reservations.reserved.lock().is_empty());
    }

    #[test]
    fn the_operator_is_warned_once_before_it_is_full() {
        let reservations = QuotaReservations::default();
        let quota = Quota { default: Amount { messages: 10, bytes: 1_000 }, ..Quota::default() };
        let lying = |messages, bytes| Totals {
            quarantines: [("a".to_owned(), Amount { messages, bytes })].into(),
            ..Totals::default()
        };
        let warned = |totals: &Totals| {
            reservations.watch(totals, None, &quota, &BTreeSet::new());
            reservations.nearly_full.lock().contains("a")
        };
        assert!(!warned(&lying(7, 700)));
        assert!(warned(&lying(8, 10)), "by number");
        assert!(warned(&lying(7, 10)), "it has not fallen far enough");
        assert!(!warned(&lying(6, 10)));
        assert!(warned(&lying(1, 800)), "by size");
        assert!(!warned(&Totals::default()));
    }
}
