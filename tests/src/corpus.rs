//! The corpus of ordinary mail in `corpus/`: its messages, the envelope of each, and the DNS of its honest senders.
//!
//! All messages are for people at `ours.example`. Sent through a gateway, each of them should arrive unchanged.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The envelope of a message.
#[derive(Clone, Copy, Debug)]
pub struct CorpusEnvelope<'a> {
    /// The last octet of the client's address, 127.0.0.n.
    pub client: u8,
    /// The reverse-path; empty for the null one.
    pub sender: &'a str,
}

/// The folder of the corpus.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// Reads the list of envelopes, for [`envelopes`] to parse.
///
/// # Panics
/// When it cannot be read.
#[must_use]
pub fn list() -> String {
    std::fs::read_to_string(folder().join("envelopes")).expect("the corpus has a list of envelopes")
}

/// Parses the envelopes, by the names of the messages' files.
///
/// # Panics
/// When a line is not an envelope, or a message in the folder is not listed and would not be sent.
#[must_use]
pub fn envelopes(list: &str) -> BTreeMap<&str, CorpusEnvelope<'_>> {
    let lines = list.lines().filter(|line| !line.starts_with('#'));
    let envelopes: BTreeMap<_, _> = lines.map(envelope).collect();
    let listed: BTreeSet<&str> = envelopes.keys().copied().collect();
    assert_eq!(listed, files().iter().map(String::as_str).collect(), "what is there is listed");
    envelopes
}

fn envelope(line: &str) -> (&str, CorpusEnvelope<'_>) {
    let parts: Vec<&str> = line.split(' ').collect();
    let [name, client, sender] = parts[..] else { panic!("{line} is no envelope") };
    let client = client.parse().expect("the last octet of an address");
    (name, CorpusEnvelope { client, sender: sender.trim_matches(['<', '>']) })
}

fn files() -> Vec<String> {
    let entries = std::fs::read_dir(folder()).expect("the corpus is there");
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.ends_with(".eml")).collect()
}

/// Reads a message as it is to be sent.
///
/// # Panics
/// When it cannot be read.
#[must_use]
pub fn message(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(name)).expect("a message of the corpus can be read")
}

/// SPF records for the domains of all outside senders: 127.0.0.80 may send for them; `others` is the term for the rest,
/// such as `?all`.
#[must_use]
pub fn honest_zones(envelopes: &BTreeMap<&str, CorpusEnvelope<'_>>, others: &str) -> String {
    let senders = envelopes.values().filter_map(|envelope| envelope.sender.split_once('@'));
    let domains: BTreeSet<&str> = senders.map(|(_, domain)| domain).collect();
    let outside = domains.into_iter().filter(|domain| !domain.ends_with("ours.example"));
    outside.map(|domain| format!("{domain} TXT \"v=spf1 ip4:127.0.0.80 {others}\"\n")).collect()
}

/// Whether a message has arrived as it was sent, with only fields that begin with one of `ours` above it.
#[must_use]
pub fn is_intact(sent: &[u8], arrived: &[u8], ours: &[&str]) -> bool {
    let above = arrived.strip_suffix(sent).map(String::from_utf8_lossy);
    above.is_some_and(|fields| {
        let is_ours =
            |line: &str| line.starts_with([' ', '\t']) || ours.iter().any(|start| line.starts_with(start));
        fields.lines().next().is_some_and(|line| !line.starts_with([' ', '\t']))
            && fields.lines().all(is_ours)
    })
}
