//! The corpus of ordinary mail in `corpus/`: its messages, how each of them comes, and the DNS of its honest senders.
//!
//! All of it is for people at `ours.example`. Whoever sends it through a gateway should see it arrive as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// How a message comes.
#[derive(Clone, Copy, Debug)]
pub struct CorpusEnvelope<'a> {
    /// The client is 127.0.0.n.
    pub client: u8,
    /// Empty for the null reverse-path.
    pub sender: &'a str,
}

/// The folder.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// The list of envelopes, for [`envelopes`] to read.
///
/// # Panics
/// It cannot be read.
#[must_use]
pub fn list() -> String {
    std::fs::read_to_string(folder().join("envelopes")).expect("the corpus has a list of envelopes")
}

/// The envelopes by the names of the messages' files.
///
/// # Panics
/// A line is no envelope, or a message in the folder is not listed and would not be sent.
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

/// A message as it is sent.
///
/// # Panics
/// It cannot be read.
#[must_use]
pub fn message(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(name)).expect("a message of the corpus can be read")
}

/// An SPF record for the domain of every sender outside: 127.0.0.80 may send for it; `others` is what holds for the
/// rest, such as `?all`.
#[must_use]
pub fn honest_zones(envelopes: &BTreeMap<&str, CorpusEnvelope<'_>>, others: &str) -> String {
    let senders = envelopes.values().filter_map(|envelope| envelope.sender.split_once('@'));
    let domains: BTreeSet<&str> = senders.map(|(_, domain)| domain).collect();
    let outside = domains.into_iter().filter(|domain| !domain.ends_with("ours.example"));
    outside.map(|domain| format!("{domain} TXT \"v=spf1 ip4:127.0.0.80 {others}\"\n")).collect()
}

/// Whether a message has arrived as it was sent, with nothing but fields of one of these beginnings above it.
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
