//! The ways in which the zone server can fail: what goes over the wire instead of the truth.

use std::net::Ipv4Addr;
use std::str::FromStr;

use hickory_proto::op::{Edns, Message, Metadata, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, MX, NS, PTR, SOA, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// A way to fail.
///
/// What spoils the exchange itself, rather than an answer, happens over UDP, and over TCP nothing comes at all: a resolver
/// asks many questions over one TCP connection, and what spoils that would fail those of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneFault {
    /// Answer SERVFAIL.
    ServFail,
    /// Answer REFUSED.
    Refused,
    /// Answer that the name does not exist, whatever the zones say.
    NxDomain,
    /// Answer that the name has nothing of the kind.
    NoData,
    /// Answer as a server that neither knows the name nor asks for others does: other servers' names, and nothing else.
    Referral,
    /// Answer questions with EDNS that they are malformed, and others as usual.
    NoEdns,
    /// Never answer.
    Silent,
    /// Over UDP, answer when [`crate::ZoneServer::release`] is called, and not before; over TCP never.
    Held,
    /// Over UDP say only that the answer does not fit; over TCP answer as usual.
    Truncated,
    /// As [`Fault::Truncated`], but over TCP never answer.
    TruncatedAlone,
    /// Answer with bytes that are no DNS message.
    Garbage,
    /// Answer under another message's id, as one who guesses would.
    WrongId,
    /// Answer another question, about [`ELSEWHERE`], with [`LIE`].
    WrongQuestion,
    /// Answer with records of [`ELSEWHERE`] alone, which hold [`LIE`].
    WrongOwner,
    /// Answer as usual, and add [`LIE`] about [`ELSEWHERE`] to each section.
    Poisoned,
    /// Answer that the name is an alias of another one, and that one of the name.
    AliasLoop,
    /// Answer with as many records of the kind as a message holds, [`FLOOD`] at most. Over UDP that is truncated.
    Flood,
    /// Answer with one TXT record of [`HUGE`] octets, whatever was asked for. Over UDP that is truncated.
    Huge,
    /// Answer as usual with a count of records that is far too high.
    Overcount,
}

/// Whom lies are about.
pub const ELSEWHERE: &str = "elsewhere.example";
/// The address in lies.
pub const LIE: Ipv4Addr = Ipv4Addr::new(127, 6, 6, 6);
/// The size of the one record of [`Fault::Huge`].
pub const HUGE: usize = 60_000;
/// The records of [`Fault::Flood`]: the address records that fill a message, which has 65,535 octets at most (RFC 1035
/// section 4.2.2).
pub const FLOOD: usize = 4_000;

/// In seconds, how long lies may be kept: a name that is healed is to be well at once.
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

    /// What is sent back instead of `truth`, the answer without a fault; none where it is not a message at all.
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
            // The records follow when the head is written: what writes messages would not compress so many names.
            Self::Flood => {
                lie = emptied(&lie);
                lie.edns = None;
                lie.metadata.truncation = !tcp;
            }
            Self::Huge => lie = huge(&lie),
            // The count is not a part of the message until it is written.
            Self::Overcount => {}
        }
        Some(lie)
    }

    /// The last touch, on the bytes.
    pub(crate) fn deface(self, bytes: &mut Vec<u8>, tcp: bool) {
        match self {
            Self::Overcount => set_count(bytes, 10_000),
            Self::Flood if tcp => flood(bytes),
            _ => {}
        }
    }
}

/// An answer to `request` that says nothing yet.
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

/// RFC 2308 section 3: the SOA record says how long the absence may be remembered.
pub(crate) fn negative(response: &mut Message, code: ResponseCode, aliases: Vec<Record>) {
    response.metadata.response_code = code;
    response.insert_answers(aliases);
    let soa = SOA::new(Name::root(), Name::root(), 1, 3_600, 600, 86_400, 300);
    response.add_authority(Record::from_rdata(Name::root(), 300, RData::SOA(soa)));
}

/// The head of an answer.
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

/// Fills a message that is a head and a question.
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

/// A record of the name in question: a pointer to it (RFC 1035 section 4.1.4), type, class, no life, and data.
fn compact(kind: [u8; 2], at: u16) -> Vec<u8> {
    let [high, low] = at.to_be_bytes();
    let data: &[u8] = match RecordType::from(u16::from_be_bytes(kind)) {
        // On loopback, and what a list that does not serve us would say.
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

/// A record that nobody should believe.
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
