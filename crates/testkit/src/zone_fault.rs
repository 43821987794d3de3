//! The ways in which the zone server can fail: what it sends instead of the correct answer.

use std::net::Ipv4Addr;
use std::str::FromStr;

use hickory_proto::op::{Edns, Message, Metadata, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, MX, NS, PTR, SOA, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// A way to fail.
///
/// Faults of the exchange itself, rather than of an answer, are made over UDP only, and over TCP nothing is sent: a
/// resolver sends many queries over one TCP connection, and such a fault would break those of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneFault {
    /// Answers SERVFAIL.
    ServFail,
    /// Answers REFUSED.
    Refused,
    /// Answers that the name does not exist, whatever the zones contain.
    NxDomain,
    /// Answers that the name has no record of this kind.
    NoData,
    /// Answers like a server that neither knows the name nor resolves for others: only with the names of other servers.
    Referral,
    /// Answers queries with EDNS with FORMERR, and others as usual.
    NoEdns,
    /// Never answers.
    Silent,
    /// Over UDP, answers only when [`crate::ZoneServer::release`] is called; over TCP never.
    Held,
    /// Over UDP, answers only that the answer is truncated; over TCP answers as usual.
    Truncated,
    /// As [`ZoneFault::Truncated`], but never answers over TCP.
    TruncatedAlone,
    /// Answers with bytes that are not a DNS message.
    Garbage,
    /// Answers with the id of another message, as an attacker who guesses would.
    WrongId,
    /// Answers another question, about [`ELSEWHERE`], with [`LIE`].
    WrongQuestion,
    /// Answers only with records of [`ELSEWHERE`], which contain [`LIE`].
    WrongOwner,
    /// Answers as usual, and adds [`LIE`] about [`ELSEWHERE`] to each section.
    Poisoned,
    /// Answers that the name is an alias of another one, which is an alias of the name.
    AliasLoop,
    /// Answers with as many records of the kind as a message can hold, at most [`FLOOD`]. Over UDP the answer is
    /// truncated.
    Flood,
    /// Answers with one TXT record of [`HUGE`] octets, whatever was queried. Over UDP the answer is truncated.
    Huge,
    /// Answers as usual, with a record count that is far too high.
    Overcount,
}

/// The name that false answers are about.
pub const ELSEWHERE: &str = "elsewhere.example";
/// The address in false answers.
pub const LIE: Ipv4Addr = Ipv4Addr::new(127, 6, 6, 6);
/// The size of the record of [`ZoneFault::Huge`], in octets.
pub const HUGE: usize = 60_000;
/// The number of records of [`ZoneFault::Flood`]: as many address records as fill a message, which has at most 65,535
/// octets (RFC 1035 section 4.2.2).
pub const FLOOD: usize = 4_000;

/// The TTL of false answers in seconds: when a fault is removed, the correct answer must be visible at once.
const LIFE: u32 = 0;

impl ZoneFault {
    /// Whether nothing is sent back.
    pub(crate) fn is_silent(self, tcp: bool) -> bool {
        match self {
            Self::Silent | Self::Held => true,
            Self::TruncatedAlone | Self::Garbage | Self::WrongId | Self::WrongQuestion | Self::Overcount => {
                tcp
            }
            _ => false,
        }
    }

    /// The message that is sent instead of `truth`, the correct answer; none when it is not a message at all.
    pub(crate) fn distort(self, truth: Message, tcp: bool) -> Option<Message> {
        let mut lie = truth;
        match self {
            Self::Silent | Self::Held | Self::Garbage => return None,
            Self::Truncated | Self::TruncatedAlone if tcp => {}
            Self::Truncated | Self::TruncatedAlone => {
                lie = emptied(&lie);
                lie.metadata.truncation = true;
            }
            Self::ServFail => lie = failed(&lie, ResponseCode::ServFail),
            Self::Refused => lie = failed(&lie, ResponseCode::Refused),
            Self::NxDomain => lie = absent(&lie, ResponseCode::NXDomain),
            Self::NoData => lie = absent(&lie, ResponseCode::NoError),
            Self::Referral => lie = referral(&lie),
            Self::NoEdns if lie.edns.is_some() => {
                lie = failed(&lie, ResponseCode::FormErr);
                lie.edns = None;
            }
            Self::NoEdns => {}
            Self::WrongId => lie.metadata.id ^= 0x5555,
            Self::WrongQuestion => lie = elsewhere(&lie, true),
            Self::WrongOwner => lie = elsewhere(&lie, false),
            Self::Poisoned => poison(&mut lie),
            Self::AliasLoop => lie = alias_loop(&lie),
            // The records are added when the message is serialised: the library would not compress so many names.
            Self::Flood => {
                lie = emptied(&lie);
                lie.edns = None;
                lie.metadata.truncation = !tcp;
            }
            Self::Huge => lie = huge(&lie),
            // The count is set when the message is serialised.
            Self::Overcount => {}
        }
        Some(lie)
    }

    /// Changes the serialised message.
    pub(crate) fn deface(self, bytes: &mut Vec<u8>, tcp: bool) {
        match self {
            Self::Overcount => set_count(bytes, 10_000),
            Self::Flood if tcp => flood(bytes),
            _ => {}
        }
    }
}

/// An empty answer to `request`.
pub(crate) fn blank(request: &Message) -> Message {
    let mut response = Message::response(request.id, request.op_code);
    response.metadata = Metadata::response_from_request(&request.metadata);
    response.metadata.recursion_available = true;
    response.add_queries(request.queries.iter().cloned());
    if request.edns.is_some() {
        response.set_edns(Edns::new());
    }
    response
}

/// RFC 2308 section 3: the SOA record sets how long the denial may be cached.
pub(crate) fn negative(response: &mut Message, code: ResponseCode, aliases: Vec<Record>) {
    response.metadata.response_code = code;
    response.insert_answers(aliases);
    let soa = SOA::new(Name::root(), Name::root(), 1, 3_600, 600, 86_400, 300);
    response.add_authority(Record::from_rdata(Name::root(), 300, RData::SOA(soa)));
}

/// The header and question of an answer.
fn emptied(truth: &Message) -> Message {
    let mut empty = Message::response(truth.id, truth.op_code);
    empty.metadata = truth.metadata;
    empty.metadata.response_code = ResponseCode::NoError;
    empty.add_queries(truth.queries.iter().cloned());
    if truth.edns.is_some() {
        empty.set_edns(Edns::new());
    }
    empty
}

fn failed(truth: &Message, code: ResponseCode) -> Message {
    let mut lie = emptied(truth);
    lie.metadata.response_code = code;
    lie
}

fn absent(truth: &Message, code: ResponseCode) -> Message {
    let mut lie = emptied(truth);
    negative(&mut lie, code, vec![]);
    lie
}

fn referral(truth: &Message) -> Message {
    let mut lie = emptied(truth);
    lie.metadata.recursion_available = false;
    lie.add_authority(Record::from_rdata(Name::root(), LIFE, RData::NS(NS(name(ELSEWHERE)))));
    lie
}

fn elsewhere(truth: &Message, question_too: bool) -> Message {
    let mut lie = emptied(truth);
    let kind = asked(truth).1;
    if question_too {
        lie.queries = vec![Query::query(name(ELSEWHERE), kind)];
    }
    lie.add_answer(bait(name(ELSEWHERE), kind));
    lie
}

fn poison(truth: &mut Message) {
    for kind in [RecordType::A, RecordType::TXT, RecordType::MX] {
        truth.add_answer(bait(name(ELSEWHERE), kind));
        truth.add_authority(bait(name(ELSEWHERE), kind));
        truth.add_additional(bait(name(ELSEWHERE), kind));
    }
}

fn alias_loop(truth: &Message) -> Message {
    let (owner, _) = asked(truth);
    let other = owner.prepend_label("loop").expect("a test's name has room");
    let alias =
        |from: &Name, to: &Name| Record::from_rdata(from.clone(), 300, RData::CNAME(CNAME(to.clone())));
    let mut lie = emptied(truth);
    lie.add_answer(alias(&owner, &other));
    lie.add_answer(alias(&other, &owner));
    lie
}

/// Fills a message that has only a header and a question.
fn flood(bytes: &mut Vec<u8>) {
    // RFC 1035 section 4.1.2: the question ends in its type and class.
    let end = bytes.len();
    let kind = [bytes[end - 4], bytes[end - 3]];
    let room = (usize::from(u16::MAX) - end).min(FLOOD * 16);
    let mut count = 0;
    loop {
        let record = compact(kind, count);
        if bytes.len() + record.len() > end + room {
            break;
        }
        bytes.extend_from_slice(&record);
        count += 1;
    }
    set_count(bytes, count);
}

/// A record of the queried name: a pointer to it (RFC 1035 section 4.1.4), type, class, TTL 0, and data.
fn compact(kind: [u8; 2], at: u16) -> Vec<u8> {
    let [high, low] = at.to_be_bytes();
    let data: &[u8] = match RecordType::from(u16::from_be_bytes(kind)) {
        // A loopback address, as DNS lists return it to refused clients.
        RecordType::A => &[127, 255, 255, low],
        RecordType::MX => &[high, low, 0xc0, 12],
        RecordType::PTR => &[0xc0, 12],
        _ => b"\x0bv=spf1 +all",
    };
    let length = u8::try_from(data.len()).expect("a few octets");
    [&[0xc0, 12, kind[0], kind[1], 0, 1, 0, 0, 0, 0, 0, length], data].concat()
}

/// RFC 1035 section 4.1.1: ANCOUNT.
fn set_count(bytes: &mut [u8], count: u16) {
    bytes[6..8].copy_from_slice(&count.to_be_bytes());
}

fn huge(truth: &Message) -> Message {
    let (owner, _) = asked(truth);
    let text = format!("v=spf1 {}", "a:h.example ".repeat(HUGE / 12 + 1));
    let strings =
        text.as_bytes()[..HUGE].chunks(255).map(|chunk| String::from_utf8_lossy(chunk).into_owned());
    let mut lie = emptied(truth);
    lie.add_answer(Record::from_rdata(owner, LIFE, RData::TXT(TXT::new(strings.collect()))));
    lie
}

/// A record that no resolver should believe.
fn bait(owner: Name, kind: RecordType) -> Record {
    let data = match kind {
        RecordType::MX => RData::MX(MX::new(0, owner.clone())),
        RecordType::TXT => RData::TXT(TXT::new(vec!["v=spf1 +all".to_owned()])),
        RecordType::PTR => RData::PTR(PTR(owner.clone())),
        _ => RData::A(A(LIE)),
    };
    Record::from_rdata(owner, LIFE, data)
}

fn asked(truth: &Message) -> (Name, RecordType) {
    let query = truth.queries.first().expect("an answer repeats its question");
    (query.name().clone(), query.query_type())
}

fn name(text: &str) -> Name {
    let mut name = Name::from_str(text).expect("a name");
    name.set_fqdn(true);
    name
}
