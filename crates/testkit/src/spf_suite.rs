//! SPF cases in the format of the public test suite for RFC 7208: scenarios, each with a zone and with checks against it.
//!
//! The format's rules are followed: a record of the old type SPF also stands for TXT, unless its name has TXT records
//! or `TXT: NONE`; and `TIMEOUT` applies to the kinds of which the name has no record.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use pintle_dns::{DnsRecord, DnsRecordKind};
use serde_json::Value;

/// A zone, and checks against it.
#[derive(Clone, Debug)]
pub struct SpfScenario {
    /// The scenario's title.
    pub description: String,
    /// The checks, in the order of their names.
    pub cases: Vec<SpfCase>,
    /// The DNS records; their names may contain any characters.
    pub records: Vec<(String, DnsRecord)>,
    /// The queries that are never answered.
    pub silent: Vec<(String, DnsRecordKind)>,
}

/// One check.
#[derive(Clone, Debug)]
pub struct SpfCase {
    /// The name of the case, unique within its scenario.
    pub name: String,
    /// The HELO argument.
    pub helo: String,
    /// The client's address.
    pub host: IpAddr,
    /// The reverse-path, without brackets; empty for the null one.
    pub sender: String,
    /// The acceptable results, in the terms of RFC 8601.
    pub results: Vec<String>,
    /// The explanation that the suite expects, if it says: `Some(None)` means that there must be none.
    pub explanation: Option<Option<String>>,
}

/// The kinds of record that a check may query.
const KINDS: [DnsRecordKind; 5] =
    [DnsRecordKind::A, DnsRecordKind::Aaaa, DnsRecordKind::Mx, DnsRecordKind::Ptr, DnsRecordKind::Txt];

impl SpfScenario {
    /// Reads a file of the repository's `tests/data/spf`.
    ///
    /// # Panics
    /// When the file is missing or malformed.
    pub fn read(file: &str) -> Vec<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/spf");
        let text = std::fs::read_to_string(folder.join(file));
        let text = text.unwrap_or_else(|error| panic!("{file} cannot be read: {error}"));
        let value: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file} is not JSON: {error}"));
        value.as_array().expect("a list of scenarios").iter().map(scenario).collect()
    }
}

fn scenario(document: &Value) -> SpfScenario {
    let mut scenario = SpfScenario {
        description: string(&document["description"]),
        cases: entries(&document["tests"]).map(|(name, case)| self::case(name, case)).collect(),
        records: Vec::new(),
        silent: Vec::new(),
    };
    for (name, values) in entries(&document["zonedata"]) {
        scenario.add(name, values.as_array().expect("a list of records"));
    }
    scenario
}

impl SpfScenario {
    fn add(&mut self, name: &str, values: &[Value]) {
        // By kind of record, in the order of the file.
        let mut found: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
        for (kind, value) in values.iter().filter(|value| value.is_object()).flat_map(entries) {
            found.entry(kind.clone()).or_default().push(value);
        }
        if let Some(texts) = found.remove("SPF") {
            found.entry("TXT".to_owned()).or_insert(texts);
        }
        let said: Vec<DnsRecordKind> = found
            .iter()
            .flat_map(|(kind, values)| values.iter().filter_map(|value| record(kind, value)))
            .map(|record| {
                let kind = record.kind();
                self.records.push((name.to_owned(), record));
                kind
            })
            .collect();
        if values.iter().any(|value| value.as_str() == Some("TIMEOUT")) {
            let unsaid = KINDS.iter().filter(|kind| !said.contains(kind));
            self.silent.extend(unsaid.map(|kind| (name.to_owned(), *kind)));
        }
    }
}

fn case(name: &str, case: &Value) -> SpfCase {
    let one_or_many = |value: &Value| match value.as_array() {
        Some(values) => values.iter().map(string).collect(),
        None => vec![string(value)],
    };
    let explanation = case["explanation"].as_str();
    SpfCase {
        name: name.to_owned(),
        helo: string(&case["helo"]),
        host: string(&case["host"]).parse().expect("an address"),
        sender: string(&case["mailfrom"]),
        results: one_or_many(&case["result"]),
        explanation: explanation.map(|text| (text != "DEFAULT").then(|| text.to_owned())),
    }
}

/// Parses a record; none for the word `NONE`.
fn record(kind: &str, value: &Value) -> Option<DnsRecord> {
    if value.as_str() == Some("NONE") {
        return None;
    }
    Some(match kind {
        "A" => DnsRecord::A(string(value).parse().expect("an IPv4 address")),
        "AAAA" => DnsRecord::Aaaa(string(value).parse().expect("an IPv6 address")),
        "MX" => DnsRecord::Mx {
            preference: value[0].as_i64().and_then(|value| value.try_into().ok()).expect("a preference"),
            exchange: string(&value[1]),
        },
        "PTR" => DnsRecord::Ptr(string(value)),
        "CNAME" => DnsRecord::Cname(string(value)),
        "TXT" => DnsRecord::Txt(match value.as_array() {
            Some(strings) => strings.iter().flat_map(|piece| octets(&string(piece))).collect(),
            None => octets(&string(value)),
        }),
        other => panic!("no records of kind {other}"),
    })
}

/// The format encodes an octet as the character with its number.
fn octets(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(c).expect("a character that stands for an octet")).collect()
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value:?} is no text")).to_owned()
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().unwrap_or_else(|| panic!("{value:?} is no mapping")).iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_understood() {
        let scenarios = SpfScenario::read("rfc7208-tests.json");
        let lookup = scenarios.iter().find(|scenario| scenario.description == "Record lookup").unwrap();
        let names = |wanted: &str| lookup.records.iter().filter(|(name, _)| name == wanted).count();
        assert_eq!(names("both.example.net"), 1, "TXT stands for itself");
        assert_eq!(names("spfonly.example.net"), 0, "no TXT is said to be there");
        let silent = |name: &str| lookup.silent.iter().filter(|(silent, _)| silent == name).count();
        assert_eq!(silent("spftimeout.example.net"), 4, "its TXT answers");
        assert_eq!(silent("alltimeout.example.net"), 5);
    }

    #[test]
    fn octets_are_octets() {
        let scenarios = SpfScenario::read("rfc7208-tests.json");
        let texts = scenarios[0].records.iter().filter_map(|(name, record)| match record {
            DnsRecord::Txt(text) if name == "hosed.example.com" => Some(text.clone()),
            _ => None,
        });
        assert_eq!(texts.collect::<Vec<_>>(), [b"v=spf1 a:\xef\xbb\xbfgarbage.example.net -all"]);
    }
}
