//! The rows of the fault matrix: a table in which each row has a fault and the expected result.
//!
//! Every row expects that each copy of an acknowledged message arrives unchanged, or its sender gets a report, or,
//! where the row destroys the octets themselves, the operator can see which message it was. [`RowAllowance`] says what
//! a row may cost in addition.

use pintle_testkit::ZoneFault as Dns;

use super::hop::HopMode;
use super::ledger::MailMix;
use super::powercut::UnsyncedFate;
use super::shim::{Errno, FileOps, ShimAction, ShimRule};

/// A row of the matrix.
#[derive(Clone, Copy, Debug)]
pub struct MatrixRow {
    /// The name on the command line.
    pub name: &'static str,
    /// The fault, as text.
    pub about: &'static str,
    /// The fault.
    pub fault: RowFault,
    /// The kinds of mail that are sent.
    pub mix: MailMix,
    /// The number of rounds in a full run.
    pub rounds: u32,
    /// What the row may cost.
    pub allow: RowAllowance,
}

/// What a row may cost.
#[derive(Clone, Copy, Debug)]
pub struct RowAllowance {
    /// The duplicate arrivals in each round.
    pub twice: u64,
    /// Whether the gateway may need a restart, as a service manager would do it.
    pub restart: bool,
    /// Whether senders may get failure reports.
    pub reports: bool,
    /// The messages in each round that may be set aside, visible to the operator, because their octets are destroyed.
    pub set_aside: u64,
}

/// A kind of fault.
#[derive(Clone, Copy, Debug)]
pub enum RowFault {
    /// The process is killed after some messages.
    Kill,
    /// The process dies at one of these calls, alternately before and after it.
    KillAt(FileOps, &'static str),
    /// As [`RowFault::KillAt`], and data that was not synced is lost.
    PowerCut(FileOps, &'static str, UnsyncedFate),
    /// This many calls fail.
    Disk(ShimRule, u64),
    /// The clock jumps by this many seconds while mail waits, and jumps back or not.
    Clock { seconds: i64, returns: bool, restart: bool },
    /// The clock runs fast or slow, by parts in a million.
    Drift(i64),
    /// The process may open only this many files, and clients take all of them.
    Descriptors(u64),
    /// The process may use only this many KiB of memory more than before, in each round as many more; clients send
    /// large messages.
    Memory(u64),
    /// The spool is damaged while the gateway is down.
    Damage(FileDamage),
    /// A folder of the spool is missing at a start, and is back at the next one.
    Away(&'static str),
    /// A file of the spool is deleted while mail comes in.
    Deleted(&'static str),
    /// The next hop fails.
    Hop(HopMode),
    /// DNS fails in this way, for mail that goes by MX.
    Dns(Dns),
    /// A plugin traps, spins, exhausts memory and sleeps at this hook, one of them in each round.
    Plugin(&'static str),
    /// Another process is started on the same spool.
    Two,
}

/// Damage to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileDamage {
    /// The file is missing.
    Missing(&'static str),
    /// The file is empty.
    Empty(&'static str),
    /// The database is a copy from some messages ago.
    OldDatabase,
    /// Two hundred octets in the middle of the file are overwritten.
    Overwritten(&'static str),
    /// One octet in each of twenty places of the file is changed.
    Flipped(&'static str),
    /// The second half of the file is missing.
    Halved(&'static str),
}

const NOTHING: RowAllowance = RowAllowance { twice: 0, restart: false, reports: false, set_aside: 0 };
/// The mark of a message that was delivered may be lost when the process dies: that many messages are in progress at
/// most.
const DIES: RowAllowance = RowAllowance { twice: 60, restart: true, ..NOTHING };
/// A failed write or sync of data needs a restart; a mark that was not written causes a duplicate.
const BREAKS: RowAllowance = DIES;
const fn destroys(set_aside: u64) -> RowAllowance {
    RowAllowance { set_aside, ..DIES }
}
/// When a session breaks as the next hop changes its mode, its message may have been delivered.
const CUTS: RowAllowance = RowAllowance { twice: 60, ..NOTHING };
const REPORTS: RowAllowance = RowAllowance { reports: true, ..NOTHING };

const SMALL: MailMix = MailMix { medium: 0, large: 0, many: 7, late: 0, never: 0 };
const MIXED: MailMix = MailMix { medium: 5, large: 11, many: 7, late: 13, never: 0 };
const LARGE: MailMix = MailMix { medium: 0, large: 2, many: 7, late: 0, never: 0 };
/// Mail that fills segments, so that new ones are needed.
const FULL: MailMix = MailMix { medium: 1, large: 0, many: 0, late: 0, never: 0 };

/// Calls that change the spool.
const CHANGES: FileOps = FileOps::WRITE
    .or(FileOps::SYNC)
    .or(FileOps::CREATE)
    .or(FileOps::TRUNCATE)
    .or(FileOps::UNLINK)
    .or(FileOps::FOLDER_SYNC);
const SYNCS: FileOps = FileOps::SYNC.or(FileOps::FOLDER_SYNC);

const DAY: i64 = 86_400;
const YEAR: i64 = 365 * DAY;
const LOG: &str = "segments/";
const DATABASE: &str = "envelopes.db";
const BODIES: &str = "bodies/";

const fn fails(ops: FileOps, path: &'static str, error: Errno) -> ShimRule {
    ShimRule { ops, path, act: ShimAction::Fail(error) }
}

macro_rules! rows {
    ($($name:literal, $about:literal, $fault:expr, $mix:expr, $rounds:literal, $allow:expr;)*) => {
        &[$(MatrixRow { name: $name, about: $about, fault: $fault, mix: $mix, rounds: $rounds, allow: $allow }),*]
    };
}

use FileDamage::{Empty, Flipped, Halved, Missing, OldDatabase, Overwritten};
use RowFault::{
    Away, Clock, Damage as Spoil, Deleted, Descriptors, Disk, Dns as Names, Drift, Hop, Kill, KillAt, Memory,
    Plugin, PowerCut, Two,
};

/// The matrix.
#[rustfmt::skip]
pub const ROWS: &[MatrixRow] = rows! {
    "kill", "kill -9 at any moment under load", Kill, MIXED, 100, DIES;
    "kill-at-call", "kill -9 right before or after a write, sync, creation or removal in the spool",
        KillAt(CHANGES, ""), MIXED, 40, DIES;
    "power-cut", "power cut at such a call; nothing that was not synced is left",
        PowerCut(CHANGES, "", UnsyncedFate::Nothing), MIXED, 40, DIES;
    "power-cut-torn", "power cut at such a call; any sectors of what was not synced are left, others are not",
        PowerCut(CHANGES, "", UnsyncedFate::Some), MIXED, 40, DIES;
    "power-cut-sync", "power cut right before or after a sync", PowerCut(SYNCS, "", UnsyncedFate::Nothing), MIXED, 30, DIES;

    "log-write-eio", "I/O error when a segment is written", Disk(fails(FileOps::WRITE, LOG, Errno::Io), 3), SMALL, 4, BREAKS;
    "log-write-full", "disk full when a segment is written", Disk(fails(FileOps::WRITE, LOG, Errno::Full), 20), SMALL, 4, NOTHING;
    "log-write-short", "segments are written by halves", Disk(ShimRule { ops: FileOps::WRITE, path: LOG, act: ShimAction::Short }, 20),
        SMALL, 4, NOTHING;
    "log-sync-eio", "I/O error when a segment is synced", Disk(fails(FileOps::SYNC, LOG, Errno::Io), 1), SMALL, 4, BREAKS;
    "log-create-eio", "I/O error when a segment is made", Disk(fails(FileOps::CREATE, LOG, Errno::Io), 5), FULL, 3, NOTHING;
    "log-create-full", "disk full when a segment is made", Disk(fails(FileOps::CREATE, LOG, Errno::Full), 5), FULL, 3, NOTHING;
    "log-create-emfile", "no descriptor free when a segment is made",
        Disk(fails(FileOps::CREATE, LOG, Errno::Descriptors), 5), FULL, 3, NOTHING;
    "log-allocate-full", "disk full when a segment's room is allocated",
        Disk(fails(FileOps::ALLOCATE, LOG, Errno::Full), 5), FULL, 3, NOTHING;
    "database-write-eio", "I/O error when the database is written",
        Disk(fails(FileOps::WRITE, DATABASE, Errno::Io), 3), SMALL, 4, NOTHING;
    "database-write-full", "disk full when the database is written",
        Disk(fails(FileOps::WRITE, DATABASE, Errno::Full), 20), SMALL, 4, NOTHING;
    "database-sync-eio", "I/O error when the database is synced",
        Disk(fails(FileOps::SYNC, DATABASE, Errno::Io), 1), SMALL, 4, NOTHING;
    "body-create-emfile", "no descriptor free when a large body gets a file",
        Disk(fails(FileOps::CREATE, BODIES, Errno::Descriptors), 5), LARGE, 3, NOTHING;
    "body-write-eio", "I/O error when a large body is written",
        Disk(fails(FileOps::WRITE, BODIES, Errno::Io), 5), LARGE, 3, NOTHING;
    "body-write-full", "disk full when a large body is written",
        Disk(fails(FileOps::WRITE, BODIES, Errno::Full), 5), LARGE, 3, NOTHING;
    "body-sync-eio", "I/O error when a large body is synced",
        Disk(fails(FileOps::SYNC, BODIES, Errno::Io), 5), LARGE, 3, BREAKS;
    "folder-sync-eio", "I/O error when a folder is synced",
        Disk(fails(FileOps::FOLDER_SYNC, "", Errno::Io), 2), LARGE, 3, BREAKS;
    "remove-eio", "I/O error when a file is removed", Disk(fails(FileOps::UNLINK, "", Errno::Io), 20), LARGE, 3, NOTHING;
    "all-full", "nothing can be written, made or allocated for want of room, while mail waits to be settled",
        Disk(fails(FileOps::WRITE.or(FileOps::CREATE).or(FileOps::ALLOCATE), "", Errno::Full), 500), MIXED, 3, BREAKS;
    "all-read-only", "the file system becomes read-only",
        Disk(fails(CHANGES.or(FileOps::ALLOCATE).or(FileOps::RENAME), "", Errno::ReadOnly), 100), MIXED, 3, BREAKS;

    "descriptors", "80 descriptors, and clients that take all of them", Descriptors(80), LARGE, 3, NOTHING;
    "memory", "no more than two MiB (four, six) can be had beyond what is in use, and large messages come over many sessions",
        Memory(2_048), LARGE, 3, DIES;

    "clock-hours", "the clock is five hours ahead for seconds", Clock { seconds: 5 * 3_600, returns: true, restart: false },
        SMALL, 1, NOTHING;
    "clock-days", "the clock is six days ahead for seconds", Clock { seconds: 6 * DAY, returns: true, restart: false },
        SMALL, 1, NOTHING;
    "clock-years", "the clock is four years ahead for seconds, then a restart with the right time",
        Clock { seconds: 4 * YEAR, returns: true, restart: true }, SMALL, 1, NOTHING;
    "clock-ahead-start", "the clock jumps six days ahead, stays there, and the gateway starts with it",
        Clock { seconds: 6 * DAY, returns: false, restart: true }, SMALL, 1, NOTHING;
    "clock-back-hours", "the clock goes back by five hours and stays there",
        Clock { seconds: -5 * 3_600, returns: false, restart: false }, SMALL, 1, NOTHING;
    "clock-back-days", "the clock goes back by six days for seconds",
        Clock { seconds: -6 * DAY, returns: true, restart: false }, SMALL, 1, NOTHING;
    "clock-back-years", "the clock goes back by ten years, stays there, and the gateway starts with it",
        Clock { seconds: -10 * YEAR, returns: false, restart: true }, SMALL, 1, NOTHING;
    "clock-fast", "the clock runs fast by a twentieth", Drift(50_000), MIXED, 1, NOTHING;
    "clock-slow", "the clock runs slow by a twentieth", Drift(-50_000), MIXED, 1, NOTHING;

    "database-missing", "the database is missing at the start", Spoil(Missing(DATABASE)), MIXED, 1, DIES;
    "database-empty", "the database is of length zero at the start", Spoil(Empty(DATABASE)), MIXED, 1, DIES;
    "database-without-wal", "the database's write-ahead log is missing at the start",
        Spoil(Missing("envelopes.db-wal")), MIXED, 1, DIES;
    "database-old", "the database is an old copy", Spoil(OldDatabase), MIXED, 1, DIES;
    "database-page", "a page of the database is overwritten", Spoil(Overwritten(DATABASE)), MIXED, 1, DIES;
    "database-flipped", "octets of the database are flipped", Spoil(Flipped(DATABASE)), MIXED, 1, DIES;
    "database-wal-flipped", "octets of the database's write-ahead log are flipped", Spoil(Flipped("envelopes.db-wal")), MIXED, 1,
        DIES;
    "database-halved", "the database is cut in half", Spoil(Halved(DATABASE)), MIXED, 1, DIES;
    "database-deleted", "the database is deleted under load", Deleted(DATABASE), MIXED, 2, DIES;
    "segment-flipped", "octets of a segment are flipped", Spoil(Flipped(LOG)), MIXED, 1, destroys(20);
    "segment-overwritten", "a part of a segment is overwritten", Spoil(Overwritten(LOG)), MIXED, 1, destroys(3);
    "segment-halved", "a segment is cut in half", Spoil(Halved(LOG)), MIXED, 1, destroys(35);
    "segment-missing", "the first of several segments is missing", Spoil(Missing(LOG)), FULL, 1, destroys(50);
    "segments-away", "the folder of segments is away at a start, which is refused, and back at the next", Away("segments"),
        MIXED, 2, DIES;
    "body-missing", "the file of a large body is missing", Spoil(Missing(BODIES)), LARGE, 1, destroys(1);
    "body-halved", "the file of a large body is cut in half", Spoil(Halved(BODIES)), LARGE, 1, destroys(1);
    "two", "another process on the same spool, also after the lock's file was deleted", Two, SMALL, 1, NOTHING;

    "hop-cut", "the next hop dies at each octet of a dialogue", Hop(HopMode::Cut(1)), SMALL, 1, CUTS;
    "hop-away", "the next hop closes each connection", Hop(HopMode::Away), SMALL, 1, NOTHING;
    "hop-busy", "the next hop says 421", Hop(HopMode::Busy), SMALL, 1, NOTHING;
    "hop-silent", "the next hop never says a word", Hop(HopMode::Silent), SMALL, 1, NOTHING;
    "hop-deaf", "the next hop reads no message", Hop(HopMode::Deaf), SMALL, 1, NOTHING;
    "hop-slow", "the next hop takes 300 ms for each reply", Hop(HopMode::Slow), SMALL, 1, CUTS;

    "dns-silent", "DNS does not answer", Names(Dns::Silent), SMALL, 1, NOTHING;
    "dns-servfail", "DNS answers SERVFAIL", Names(Dns::ServFail), SMALL, 1, NOTHING;
    "dns-refused", "DNS refuses, as a lame server does", Names(Dns::Refused), SMALL, 1, NOTHING;
    "dns-truncated", "DNS answers are truncated, and TCP has the whole", Names(Dns::Truncated), SMALL, 1, NOTHING;
    "dns-truncated-alone", "DNS answers are truncated, and TCP has no more", Names(Dns::TruncatedAlone), SMALL, 1, NOTHING;
    "dns-garbage", "DNS answers nonsense", Names(Dns::Garbage), SMALL, 1, NOTHING;
    "dns-wrong-id", "DNS answers other questions", Names(Dns::WrongId), SMALL, 1, NOTHING;
    "dns-alias-loop", "DNS answers with aliases in a circle", Names(Dns::AliasLoop), SMALL, 1, NOTHING;
    "dns-nxdomain", "DNS says that the domain does not exist, which is not true", Names(Dns::NxDomain), SMALL, 1, REPORTS;
    "dns-no-data", "DNS says that the domain has no records, which is not true", Names(Dns::NoData), SMALL, 1, REPORTS;

    "plugin-connect", "a plugin traps, spins, eats memory, sleeps on connect", Plugin("connect"), SMALL, 4, NOTHING;
    "plugin-hello", "the same on hello", Plugin("hello"), SMALL, 4, NOTHING;
    "plugin-auth", "the same on auth", Plugin("auth"), SMALL, 4, NOTHING;
    "plugin-mail", "the same on mail", Plugin("mail"), SMALL, 4, NOTHING;
    "plugin-rcpt", "the same on rcpt", Plugin("rcpt"), SMALL, 4, NOTHING;
    "plugin-headers", "the same on headers", Plugin("headers"), SMALL, 4, NOTHING;
    "plugin-message", "the same on message", Plugin("message"), SMALL, 4, NOTHING;
    "plugin-deliver", "the same on deliver", Plugin("deliver"), SMALL, 4, NOTHING;
    "plugin-result", "the same on delivery-result", Plugin("delivery_result"), SMALL, 4, NOTHING;
    "plugin-disconnect", "the same on disconnect", Plugin("disconnect"), SMALL, 4, NOTHING;
    "plugin-timer", "the same on timer", Plugin("timer"), SMALL, 4, NOTHING;
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = ROWS.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), ROWS.len());
    }
}
