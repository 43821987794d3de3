//! The ledger of what was sent, acknowledged and delivered: each message has a number, each copy a recipient.
//!
//! A message is made from its number alone, so that a copy that arrives can be compared octet by octet. Its sender
//! contains the number too, to recognise bounces.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

/// The domain of the senders, to which bounces are sent.
const SENDERS: &str = "from.example";
/// The domain of the recipients.
const RECIPIENTS: &str = "to.example";

/// The kinds of messages; each number means "one of every N messages", and 0 means none.
#[derive(Clone, Copy, Debug, Default)]
pub struct MailMix {
    /// Messages with a body of some 45 KiB.
    pub medium: u64,
    /// Messages with a body of more than 64 KiB, which is in a file of its own.
    pub large: u64,
    /// Messages for five recipients.
    pub many: u64,
    /// Messages for a recipient that the next hop defers at first.
    pub late: u64,
    /// Messages for a recipient that the next hop refuses permanently.
    pub never: u64,
}

/// The next hop's answer to a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HopAnswer {
    Plain,
    Late,
    Never,
}

/// The reply that a client got.
#[derive(Clone, Debug, PartialEq, Eq)]
enum ClientReply {
    /// No reply, or none yet: the message may arrive or not.
    Open,
    /// 250, with the queue id.
    Promised(String),
    /// Another code.
    Refused(u16),
}

#[derive(Clone, Copy, Debug, Default)]
struct LedgerCopy {
    arrived: u32,
    reported: bool,
}

#[derive(Debug)]
struct LedgerMessage {
    fate: ClientReply,
    copies: Vec<LedgerCopy>,
}

/// Counters that change while a row runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadProgress {
    /// Messages that got their 250.
    pub promised: u64,
    /// Messages that got another reply.
    pub refused: u64,
    /// Messages whose session broke, and sessions that broke before a message.
    pub broken: u64,
    /// Copies that reached the next hop.
    pub arrived: u64,
    /// Attempts at delivery that the next hop cut off, refused or left without an answer.
    pub failed: u64,
}

impl LoadProgress {
    /// The number of messages and sessions with a known outcome.
    #[must_use]
    pub fn outcomes(&self) -> u64 {
        self.promised + self.refused + self.broken
    }
}

/// The totals at the end of a row, in copies.
#[derive(Clone, Debug, Default)]
pub struct CopyAccount {
    /// Copies of messages that got their 250.
    pub promised: u64,
    /// Copies that arrived, or whose failure was reported to the sender.
    pub accounted: u64,
    /// Copies whose failure was reported to the sender.
    pub reported: u64,
    /// Arrivals beyond the first.
    pub twice: u64,
    /// Copies of messages that were refused or got no reply, and arrived all the same.
    pub unasked: u64,
    /// Copies that arrived, but not as they were sent.
    pub changed: u64,
    /// Messages that were refused.
    pub refused: u64,
    /// Sessions that broke.
    pub broken: u64,
}

/// The ledger.
#[derive(Debug)]
pub struct MailLedger {
    mix: MailMix,
    next: AtomicU64,
    messages: Mutex<BTreeMap<u64, LedgerMessage>>,
    changed: AtomicU64,
    progress: watch::Sender<LoadProgress>,
}

impl MailLedger {
    pub(super) fn new(mix: MailMix) -> Self {
        Self {
            mix,
            next: AtomicU64::new(1),
            messages: Mutex::default(),
            changed: AtomicU64::new(0),
            progress: watch::Sender::new(LoadProgress::default()),
        }
    }

    /// Adds the next message, and returns its number.
    pub(super) fn open(&self) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let copies = vec![LedgerCopy::default(); self.recipients(number).len()];
        self.messages.lock().insert(number, LedgerMessage { fate: ClientReply::Open, copies });
        number
    }

    pub(super) fn promise(&self, number: u64, id: &str) {
        self.decide(number, ClientReply::Promised(id.to_owned()));
        self.progress.send_modify(|progress| progress.promised += 1);
    }

    pub(super) fn refuse(&self, number: u64, code: u16) {
        self.decide(number, ClientReply::Refused(code));
        self.progress.send_modify(|progress| progress.refused += 1);
    }

    pub(super) fn broken(&self) {
        self.progress.send_modify(|progress| progress.broken += 1);
    }

    pub(super) fn failed(&self) {
        self.progress.send_modify(|progress| progress.failed += 1);
    }

    fn decide(&self, number: u64, fate: ClientReply) {
        if let Some(message) = self.messages.lock().get_mut(&number) {
            message.fate = fate;
        }
    }

    /// Records a message that the next hop has accepted, for these recipients.
    pub(super) fn arrive(&self, sender: &str, recipients: &[String], content: &[u8]) {
        if sender.is_empty() {
            for recipient in recipients {
                self.report(recipient, content);
            }
            return;
        }
        for recipient in recipients {
            self.take_copy(recipient, content);
        }
    }

    fn take_copy(&self, recipient: &str, content: &[u8]) {
        let Some((number, at)) = identity(recipient) else { return };
        if !is_copy(&self.content(number), content) {
            self.changed.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(copy) =
            self.messages.lock().get_mut(&number).and_then(|message| message.copies.get_mut(at))
        {
            copy.arrived += 1;
        }
        self.progress.send_modify(|progress| progress.arrived += 1);
    }

    /// Records a bounce to a sender: all recipients that it lists as failed.
    fn report(&self, sender: &str, content: &[u8]) {
        let Some((number, _)) = identity(sender) else { return };
        let text = String::from_utf8_lossy(content);
        let failed = text.contains("Action: failed");
        let named: Vec<usize> = text
            .lines()
            .filter_map(|line| line.strip_prefix("Final-Recipient: rfc822;"))
            .filter_map(|address| Some(identity(address.trim())?.1))
            .collect();
        let mut messages = self.messages.lock();
        let Some(message) = messages.get_mut(&number).filter(|_| failed) else { return };
        named.iter().for_each(|at| {
            if let Some(copy) = message.copies.get_mut(*at) {
                copy.reported = true;
            }
        });
        drop(messages);
        self.progress.send_modify(|progress| progress.arrived += 1);
    }

    /// The counters so far.
    pub fn progress(&self) -> LoadProgress {
        *self.progress.borrow()
    }

    /// Waits until the counters satisfy `enough`; false when `patience` has passed before.
    pub(super) async fn wait(&self, patience: Duration, enough: impl FnMut(&LoadProgress) -> bool) -> bool {
        let mut changes = self.progress.subscribe();
        tokio::time::timeout(patience, changes.wait_for(enough)).await.is_ok()
    }

    /// Queue ids of acknowledged messages that have a copy which has neither arrived nor been reported.
    pub fn missing(&self) -> BTreeSet<String> {
        let messages = self.messages.lock();
        let missing = |message: &LedgerMessage| match &message.fate {
            ClientReply::Promised(id) if message.copies.iter().any(LedgerCopy::is_missing) => {
                Some(id.clone())
            }
            _ => None,
        };
        messages.values().filter_map(missing).collect()
    }

    /// The totals so far.
    pub fn account(&self) -> CopyAccount {
        let progress = self.progress();
        let mut account = CopyAccount {
            changed: self.changed.load(Ordering::Relaxed),
            refused: progress.refused,
            broken: progress.broken,
            ..CopyAccount::default()
        };
        for message in self.messages.lock().values() {
            account.add(message);
        }
        account
    }

    pub(super) fn sender(number: u64) -> String {
        format!("m{number}.0@{SENDERS}")
    }

    pub(super) fn recipients(&self, number: u64) -> Vec<String> {
        let count = if every(number, self.mix.many) { 5 } else { 1 };
        let wish = |at: u64| match at {
            0 if every(number, self.mix.late) => ".late",
            0 if every(number, self.mix.never) => ".never",
            _ => "",
        };
        (0..count).map(|at| format!("m{number}.{at}{}@{RECIPIENTS}", wish(at))).collect()
    }

    /// The content that a client sends, without dot-stuffing: no line of it begins with a dot.
    pub(super) fn content(&self, number: u64) -> Vec<u8> {
        let lines = match number {
            _ if every(number, self.mix.large) => 3_000,
            _ if every(number, self.mix.medium) => 1_000,
            _ => number % 7 * 11,
        };
        let mut text = format!("X-Number: {number}\r\nSubject: message {number}\r\n\r\n");
        (0..lines).for_each(|line| text.push_str(&format!("{number} {line} {:x}\r\n", mixed(number, line))));
        text.into_bytes()
    }
}

impl LedgerCopy {
    fn is_missing(&self) -> bool {
        self.arrived == 0 && !self.reported
    }
}

impl CopyAccount {
    fn add(&mut self, message: &LedgerMessage) {
        let promised = matches!(message.fate, ClientReply::Promised(_));
        for copy in &message.copies {
            self.twice += u64::from(copy.arrived.saturating_sub(1));
            if promised {
                self.promised += 1;
                self.accounted += u64::from(!copy.is_missing());
                self.reported += u64::from(copy.reported);
            } else {
                self.unasked += u64::from(copy.arrived > 0);
            }
        }
    }
}

/// Whether this is the message that was sent: the gateway may add fields to its header, and must change nothing.
fn is_copy(sent: &[u8], arrived: &[u8]) -> bool {
    let (Some((header, body)), Some((found, rest))) = (parts(sent), parts(arrived)) else { return false };
    let mut fields = found.split(|octet| *octet == b'\n');
    body == rest && header.split(|octet| *octet == b'\n').all(|field| fields.any(|found| found == field))
}

/// Header and body, split at the first empty line; the header keeps the end of its last line.
fn parts(message: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memmem::find(message, b"\r\n\r\n")?;
    Some((&message[..at + 1], &message[at + 4..]))
}

fn every(number: u64, so_many: u64) -> bool {
    so_many > 0 && number.is_multiple_of(so_many)
}

/// A value that depends on both numbers, so that no line is equal to another.
fn mixed(number: u64, line: u64) -> u128 {
    let word = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ line.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (u128::from(word) << 64) | u128::from(word.rotate_left(31).wrapping_mul(0x94d0_49bb_1331_11eb))
}

/// The numbers of the message and of the recipient, from an address of ours.
fn identity(address: &str) -> Option<(u64, usize)> {
    let (number, rest) = address.strip_prefix('m')?.split_once('.')?;
    let at = rest.split(['.', '@']).next()?;
    Some((number.parse().ok()?, at.parse().ok()?))
}

/// The intended answer of the next hop for this address.
pub(super) fn wish(address: &str) -> HopAnswer {
    let local = address.split('@').next().unwrap_or_default();
    if local.ends_with(".late") {
        HopAnswer::Late
    } else if local.ends_with(".never") {
        HopAnswer::Never
    } else {
        HopAnswer::Plain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book() -> MailLedger {
        MailLedger::new(MailMix { many: 2, never: 3, ..MailMix::default() })
    }

    #[test]
    fn a_promise_is_missing_until_each_copy_is_accounted_for() {
        let book = book();
        let (one, two) = (book.open(), book.open());
        book.promise(one, "ONE");
        book.promise(two, "TWO");
        assert_eq!(book.missing().len(), 2);
        let all = book.recipients(two);
        book.arrive("a@x", &book.recipients(one), &book.content(one));
        book.arrive("a@x", &all[1..], &book.content(two));
        assert_eq!(book.missing().into_iter().collect::<Vec<_>>(), ["TWO"]);
        book.arrive("a@x", &all, &book.content(two));
        let account = book.account();
        assert_eq!((account.promised, account.accounted, account.twice), (6, 6, 4));
        assert_eq!((account.changed, book.missing().len()), (0, 0));
    }

    #[test]
    fn a_copy_with_one_other_octet_is_changed() {
        let book = book();
        let number = book.open();
        let mut content = [b"Received: x\r\n".to_vec(), book.content(number)].concat();
        book.arrive("a@x", &book.recipients(number), &content);
        assert_eq!(book.account().changed, 0);
        *content.last_mut().unwrap() ^= 1;
        book.arrive("a@x", &book.recipients(number), &content);
        assert_eq!((book.account().changed, book.account().unasked), (1, 1));
    }

    #[test]
    fn a_bounce_accounts_for_the_recipients_that_it_names() {
        let book = book();
        for _ in 0..3 {
            let number = book.open();
            book.promise(number, &number.to_string());
        }
        let text = "Final-Recipient: rfc822;m3.0.never@to.example\r\nAction: failed\r\n";
        book.arrive("", &[MailLedger::sender(3)], text.as_bytes());
        assert!(!book.missing().contains("3"));
        assert_eq!(book.account().reported, 1);
        assert_eq!(
            (wish("m3.0.never@to.example"), wish("m3.1@to.example")),
            (HopAnswer::Never, HopAnswer::Plain)
        );
    }
}
