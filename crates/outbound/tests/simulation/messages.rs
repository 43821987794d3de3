//! The messages that clients send in a run. Each address occurs once, so that a next hop can tell messages apart by it.

use bytes::Bytes;
use pintle_mail::{
    Address, Charset, EnhancedCode, Envelope, MailParams, Notify, QueueId, RcptParams, Recipient, Reply,
    Return, ReversePath, UnixTime,
};
use pintle_spool::{Entry, HoldReason, Quarantine};

use crate::ledger::{Moment, SimMessage};
use crate::random::Random;
use crate::world::DOMAINS;

/// A message of this number.
pub fn drawn(random: &mut Random, number: u32, id: QueueId, now: UnixTime) -> SimMessage {
    let sender = match random.below(6) {
        0 => ReversePath::Null,
        _ => ReversePath::Address(address(&format!("s{number}@home.example"))),
    };
    let recipients = (0..*random.pick(&[1, 1, 1, 2, 3, 5])).map(|at| recipient(random, number, at)).collect();
    let params = MailParams {
        ret: *random.pick(&[None, None, Some(Return::Headers), Some(Return::Full)]),
        ..MailParams::default()
    };
    let hold = match random.below(20) {
        0 | 1 => Some(HoldReason::Quarantine(Quarantine::new("doubtful", now))),
        2 => Some(HoldReason::Operator("from the start".to_owned())),
        _ => None,
    };
    let entry = Entry {
        envelope: Envelope { sender, params, recipients },
        received: now,
        parent: None,
        hold,
        released: None,
        has_8bit: false,
        needs_smtputf8: false,
        context: Bytes::new(),
    };
    SimMessage { id, text: text(random, number), entry, at: Moment::default() }
}

/// Where the header block ends.
pub fn head_of(text: &Bytes) -> usize {
    text.windows(4).position(|part| part == b"\r\n\r\n").map_or(text.len(), |at| at + 4)
}

fn recipient(random: &mut Random, number: u32, at: u32) -> Recipient {
    let domain = DOMAINS[random.weighted(&[35, 25, 20, 15, 5])];
    let notify = match random.below(10) {
        0 => Some(Notify::NEVER),
        1 => Some(Notify { success: true, failure: true, delay: true }),
        2 => Some(Notify { success: false, failure: true, delay: false }),
        _ => None,
    };
    // Every second message has two groups, and now and then plugins have refused a recipient.
    let group = number.is_multiple_of(2).then(|| ("tenants".to_owned(), (at % 2).to_string()));
    let refused = (number * 7 + at).is_multiple_of(23);
    Recipient {
        params: RcptParams { notify, ..RcptParams::default() },
        relay: true,
        groups: group.into_iter().collect(),
        refused: refused.then(|| Reply::new(550, EnhancedCode(5, 7, 1), "not for this recipient")),
        ..Recipient::new(at, address(&format!("r{number}-{at}@{domain}")))
    }
}

fn address(text: &str) -> Address {
    Address::parse(text, Charset::Ascii).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Lines of many lengths, some that begin with dots.
fn text(random: &mut Random, number: u32) -> Bytes {
    let mut text = format!("From: <s{number}@home.example>\r\nSubject: number {number}\r\n\r\n").into_bytes();
    let size = match random.below(10) {
        0 => 0,
        1..8 => random.between(1, 3_000),
        8 => random.between(3_000, 30_000),
        _ => random.between(30_000, 200_000),
    };
    let end = text.len() + usize::try_from(size).unwrap_or(0);
    while text.len() < end {
        let line = usize::try_from(random.below(90)).unwrap_or(0);
        if random.chance(100) {
            text.push(b'.');
        }
        let letter = b'a' + u8::try_from(random.below(26)).unwrap_or(0);
        text.extend(std::iter::repeat_n(letter, line));
        text.extend_from_slice(b"\r\n");
    }
    text.into()
}
