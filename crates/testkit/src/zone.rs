//! Zones from plain text, and the answers that an authoritative server would give from them.

use std::collections::{BTreeMap, BTreeSet};

use hickory_proto::rr::rdata::{A, AAAA, CNAME, MX, NULL, PTR, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_proto::serialize::txt::Parser;
use pintle_dns::{DnsRecord as Plain, DnsRecordKind};

/// Records by name and type, over as many domains as the text has.
#[derive(Debug)]
pub(crate) struct ZoneData {
    records: BTreeMap<(Name, RecordType), Vec<Record>>,
    /// Every existing name, including those above a record (RFC 8020).
    names: BTreeSet<Name>,
}

/// The result of looking up a name.
#[derive(Debug, PartialEq)]
pub(crate) enum ZoneLookup {
    /// The records, preceded by the aliases on the way.
    Records(Vec<Record>),
    /// The name exists, but has no such record. With the aliases on the way.
    NoData(Vec<Record>),
    /// The name does not exist. With the aliases on the way.
    NxDomain(Vec<Record>),
}

impl ZoneData {
    /// Parses master-file lines; names are fully qualified with or without their final dot, and lines may be indented.
    /// A line `name TYPE65280 \# 2 0A0B` has the octets of a record of any type, valid or not (RFC 3597 section 5).
    ///
    /// # Panics
    /// When a line cannot be parsed.
    pub(crate) fn parse(text: &str) -> Self {
        let (generic, lines): (Vec<&str>, Vec<&str>) =
            text.lines().map(str::trim).partition(|line| line.contains(r" \# "));
        let lines: String = lines.into_iter().map(|line| format!("{line}\n")).collect();
        let parser = Parser::new(format!("$TTL 300\n{lines}"), None, Some(Name::root()));
        let (_, sets) =
            parser.parse().unwrap_or_else(|error| panic!("the test's zone is wrong: {error}\n{lines}"));
        let mut zone = Self { records: BTreeMap::new(), names: BTreeSet::new() };
        for set in sets.into_values() {
            for record in set.records_without_rrsigs() {
                zone.add(record.clone());
            }
        }
        generic.into_iter().for_each(|line| zone.add(generic_record(line)));
        zone
    }

    /// A zone of these records, whose names may contain any characters.
    ///
    /// # Panics
    /// When a name is too long, or for a kind of record that is not supported here.
    pub(crate) fn of(records: &[(String, Plain)]) -> Self {
        let mut zone = Self { records: BTreeMap::new(), names: BTreeSet::new() };
        for (owner, record) in records {
            zone.add(Record::from_rdata(plain_name(owner), 300, plain_data(record)));
        }
        zone
    }

    pub(crate) fn add(&mut self, record: Record) {
        let owner = record.name.to_lowercase();
        let mut name = owner.clone();
        while !name.is_root() {
            self.names.insert(name.clone());
            name = name.base_name();
        }
        self.records.entry((owner, record.record_type())).or_default().push(record);
    }

    /// Looks up `name`, following aliases as far as they stay in these zones.
    pub(crate) fn find(&self, name: &Name, kind: RecordType) -> ZoneLookup {
        let mut owner = name.to_lowercase();
        let mut path: Vec<Record> = Vec::new();
        for _ in 0..8 {
            if let Some(records) = self.records.get(&(owner.clone(), kind)) {
                path.extend(records.iter().cloned());
                return ZoneLookup::Records(path);
            }
            match self.alias(&owner) {
                Some((record, target)) => {
                    path.push(record);
                    owner = target;
                }
                None if self.names.contains(&owner) => return ZoneLookup::NoData(path),
                None => return ZoneLookup::NxDomain(path),
            }
        }
        ZoneLookup::Records(path)
    }

    fn alias(&self, owner: &Name) -> Option<(Record, Name)> {
        let record = self.records.get(&(owner.clone(), RecordType::CNAME))?.first()?;
        match &record.data {
            RData::CNAME(target) => Some((record.clone(), target.0.to_lowercase())),
            _ => None,
        }
    }
}

/// The record of a line in the generic form.
fn generic_record(line: &str) -> Record {
    let mut words = line.split_whitespace();
    let [Some(owner), Some(kind), Some(r"\#"), Some(length)] = std::array::from_fn(|_| words.next()) else {
        panic!(r"not `name type \# length octets`: {line}");
    };
    let kind: DnsRecordKind = kind.parse().unwrap_or_else(|error| panic!("{error}: {line}"));
    let code = RecordType::from(kind.number());
    let octets = octets(&words.collect::<String>());
    assert_eq!(length.parse(), Ok(octets.len()), "the length of {line}");
    let data = match octets.is_empty() {
        true => RData::Update0(code),
        false => RData::Unknown { code, rdata: NULL::with(octets) },
    };
    Record::from_rdata(plain_name(owner), 300, data)
}

fn octets(hex: &str) -> Vec<u8> {
    let pair = |at| u8::from_str_radix(hex.get(at..at + 2).expect("pairs of digits"), 16);
    (0..hex.len()).step_by(2).map(|at| pair(at).expect("hexadecimal digits")).collect()
}

/// A name of octets between dots; there are no escapes.
fn plain_name(text: &str) -> Name {
    let labels = text.trim_end_matches('.').split('.').filter(|label| !label.is_empty());
    let name = Name::from_labels(labels.map(str::as_bytes));
    name.unwrap_or_else(|error| panic!("{text} is no name: {error}"))
}

fn plain_data(record: &Plain) -> RData {
    match record {
        Plain::A(address) => RData::A(A(*address)),
        Plain::Aaaa(address) => RData::AAAA(AAAA(*address)),
        Plain::Mx { preference, exchange } => RData::MX(MX::new(*preference, plain_name(exchange))),
        // RFC 1035 section 3.3.14: one or more strings.
        Plain::Txt(text) if text.is_empty() => RData::TXT(TXT::from_bytes(vec![b""])),
        Plain::Txt(text) => RData::TXT(TXT::from_bytes(text.chunks(255).collect())),
        Plain::Ptr(name) => RData::PTR(PTR(plain_name(name))),
        Plain::Cname(name) => RData::CNAME(CNAME(plain_name(name))),
        other => panic!("no zone has had to hold {other:?} yet"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        let mut name = Name::from_ascii(text).unwrap();
        name.set_fqdn(true);
        name
    }

    #[test]
    fn a_name_above_a_record_exists_and_others_do_not() {
        let zone = ZoneData::parse("mail.deep.example. A 192.0.2.1");
        assert!(
            matches!(zone.find(&name("MAIL.deep.example"), RecordType::A), ZoneLookup::Records(r) if r.len() == 1)
        );
        assert_eq!(zone.find(&name("mail.deep.example"), RecordType::MX), ZoneLookup::NoData(vec![]));
        assert_eq!(zone.find(&name("deep.example"), RecordType::A), ZoneLookup::NoData(vec![]));
        assert_eq!(zone.find(&name("other.example"), RecordType::A), ZoneLookup::NxDomain(vec![]));
    }

    #[test]
    fn aliases_lead_the_answer() {
        let zone = ZoneData::parse("a.example. CNAME b.example.\nb.example. A 192.0.2.1");
        assert!(
            matches!(zone.find(&name("a.example"), RecordType::A), ZoneLookup::Records(r) if r.len() == 2)
        );
        assert!(
            matches!(zone.find(&name("a.example"), RecordType::MX), ZoneLookup::NoData(r) if r.len() == 1)
        );
    }
}
