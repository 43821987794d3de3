//! DNS lists: the queries to send, and the interpretation of the answers.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use pintle_plugin_sdk::dns::{self, DnsAnswer, DnsError, Query, RecordKind};
use pintle_plugin_sdk::{IpAddress, debug, metrics};
use serde::{Deserialize, Serialize};

/// Configuration of one list.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct List {
    pub(crate) zone: String,
    /// What is looked up in the list.
    #[serde(default = "client")]
    pub(crate) of: Vec<Of>,
    /// The score of a listing; negative for allow lists.
    #[serde(default = "one")]
    weight: f64,
    /// The replies that count as listings, with their meanings; if empty, all replies in 127.0.0.0/8.
    #[serde(default)]
    codes: BTreeMap<String, Code>,
    #[serde(default = "yes")]
    ipv4: bool,
    #[serde(default = "yes")]
    ipv6: bool,
    /// Reply text for the sender, instead of the list's own explanation.
    #[serde(default)]
    text: Option<String>,
    /// `codes` in parsed form.
    #[serde(skip)]
    ranges: Vec<(Ipv4Addr, Ipv4Addr, Code)>,
}

/// The meaning of a reply code.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Code {
    meaning: String,
    /// The score of this code; `None` uses that of the list.
    weight: Option<f64>,
}

/// What is looked up in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Of {
    Client,
    Hello,
    Sender,
    /// The names in links.
    Links,
    /// The addresses in links that contain an address instead of a name.
    LinkAddresses,
}

/// A query to one list.
#[derive(Debug)]
pub(crate) struct ListQuestion<'l> {
    list: &'l List,
    subject: String,
    /// The name to look up.
    name: String,
    /// A name in the same zone that is never listed; if it is listed, the list is broken.
    control: String,
}

/// A listing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Listing {
    pub(crate) zone: String,
    pub(crate) subject: String,
    pub(crate) points: f64,
    pub(crate) meaning: Option<String>,
    pub(crate) text: Option<String>,
}

/// Maximum number of queries per call: the host permits 256, and each listing needs two more.
pub(crate) const MAX_QUESTIONS: usize = 160;
const MAX_LISTINGS: usize = 40;
/// Maximum length of a zone. A reversed IPv6 address and the zone must fit into a name of 253 octets (RFC 1035 section
/// 2.3.4), with some margin.
const MAX_ZONE: usize = 100;
const MAX_TEXT: usize = 300;

impl List {
    #[cfg(test)]
    pub(crate) fn new(zone: &str) -> Self {
        Self {
            zone: zone.to_owned(),
            of: client(),
            weight: 1.0,
            codes: BTreeMap::new(),
            ipv4: true,
            ipv6: true,
            text: None,
            ranges: Vec::new(),
        }
    }

    /// Parses the reply codes; returns each mistake with its key.
    pub(crate) fn prepare(&mut self) -> Vec<(String, String)> {
        let mut mistakes = Vec::new();
        let is_label = |label: &str| {
            !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        };
        if self.zone.len() > MAX_ZONE || !self.zone.split('.').all(is_label) {
            mistakes.push(("zone".to_owned(), format!("{:?} is not a domain", self.zone)));
        }
        if self.of.is_empty() {
            mistakes.push(("of".to_owned(), "it is not asked about anything".to_owned()));
        }
        for (text, code) in &self.codes {
            match range(text) {
                Some((first, last)) => self.ranges.push((first, last, code.clone())),
                None => mistakes.push((
                    format!("codes/{text}"),
                    "write \"127.0.0.2\" or \"127.0.0.4-127.0.0.7\"".to_owned(),
                )),
            }
        }
        mistakes
    }

    pub(crate) fn is_about_links(&self) -> bool {
        self.of.iter().any(|of| matches!(of, Of::Links | Of::LinkAddresses))
    }

    /// Interprets the replies to one query. Several codes are several reasons; the one with the largest weight counts.
    fn reading(&self, records: &[String]) -> ListAnswer {
        let replies: Vec<Ipv4Addr> = records.iter().filter_map(|record| record.parse().ok()).collect();
        let is_answer = |reply: &&Ipv4Addr| match reply.octets() {
            // Replies by which lists refuse a client (for example an open resolver, or too many queries).
            [127, 255, 255, _] => false,
            // Other lists use 127.0.0.1 for the same purpose; RFC 5782 section 5 does not permit it as a listing. It
            // counts only if `codes` names it.
            [127, 0, 0, 1] => self.names(**reply),
            // Any other address is not a list's answer: for example a parked domain, or a resolver that rewrites
            // answers.
            [first, ..] => first == 127,
        };
        let answers: Vec<_> = replies.iter().filter(is_answer).collect();
        if answers.is_empty() {
            return ListAnswer::Refused(records.join(" "));
        }
        let codes = answers.iter().filter_map(|reply| self.code(**reply));
        let heaviest = codes.max_by(|a, b| a.0.abs().total_cmp(&b.0.abs()));
        match heaviest {
            Some((points, meaning)) => ListAnswer::Listed(points, meaning),
            None => ListAnswer::Nothing,
        }
    }

    fn names(&self, reply: Ipv4Addr) -> bool {
        self.ranges.iter().any(|(first, last, _)| (*first..=*last).contains(&reply))
    }

    fn code(&self, reply: Ipv4Addr) -> Option<(f64, Option<String>)> {
        if self.ranges.is_empty() {
            return Some((self.weight, None));
        }
        let (_, _, code) = self.ranges.iter().find(|(first, last, _)| (*first..=*last).contains(&reply))?;
        Some((code.weight.unwrap_or(self.weight), Some(code.meaning.clone())))
    }
}

/// The interpretation of a list's answer.
#[derive(Debug, PartialEq)]
enum ListAnswer {
    Listed(f64, Option<String>),
    /// Listed with a code that the operator's configuration does not count.
    Nothing,
    /// The list refuses to serve us; holds the reply.
    Refused(String),
}

impl ListQuestion<'_> {
    pub(crate) fn query(&self) -> Query {
        a(&self.name)
    }
}

impl Listing {
    /// Text for the sender: the listed subject, the list and the reason.
    pub(crate) fn explanation(&self) -> String {
        let meaning = self.meaning.as_ref().map_or_else(String::new, |meaning| format!(" ({meaning})"));
        let text = self.text.as_ref().map_or_else(String::new, |text| format!(": {text}"));
        format!("{} is listed by {}{meaning}{text}", self.subject, self.zone)
    }
}

/// The queries for addresses.
pub(crate) fn about_addresses<'l>(
    lists: &'l [List],
    of: Of,
    addresses: &[IpAddress],
) -> Vec<ListQuestion<'l>> {
    let question = |list: &'l List, address: &IpAddress| {
        let v4 = address.octets.len() == 4;
        let never = if v4 { loopback_v4(1) } else { mapped(loopback_v4(1)) };
        (if v4 { list.ipv4 } else { list.ipv6 }).then(|| ListQuestion {
            list,
            subject: address.text.clone(),
            name: dns::list_name(address, &list.zone),
            control: dns::list_name(&never, &list.zone),
        })
    };
    let lists = lists.iter().filter(|list| list.of.contains(&of));
    lists
        .flat_map(|list| addresses.iter().filter_map(move |address| question(list, address)))
        .take(MAX_QUESTIONS)
        .collect()
}

/// The queries for domains. Values that are not domains, such as address literals or bare host names, are skipped.
pub(crate) fn about_domains<'l>(lists: &'l [List], of: Of, domains: &[String]) -> Vec<ListQuestion<'l>> {
    let is_domain = |name: &&String| {
        name.contains('.')
            && name.len() <= 200
            && name.split('.').all(|label| {
                !label.is_empty()
                    && label.len() <= 63
                    && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
            })
            && name.bytes().any(|b| b.is_ascii_alphabetic())
    };
    let question = |list: &'l List, domain: &String| ListQuestion {
        list,
        subject: domain.clone(),
        name: format!("{domain}.{}", list.zone),
        control: format!("invalid.{}", list.zone),
    };
    let lists = lists.iter().filter(|list| list.of.contains(&of));
    lists
        .flat_map(|list| domains.iter().filter(is_domain).map(move |domain| question(list, domain)))
        .take(MAX_QUESTIONS)
        .collect()
}

/// The listings in the answers, each verified by the list's control name and with its explanation.
pub(crate) fn findings(
    questions: &[ListQuestion<'_>],
    answers: Vec<Result<DnsAnswer, DnsError>>,
) -> Vec<Listing> {
    let listed = questions.iter().zip(answers).filter_map(|(question, answer)| read(question, answer));
    let listed: Vec<_> = listed.take(MAX_LISTINGS).collect();
    let again = |(question, _, _): &(&ListQuestion<'_>, _, _)| {
        [a(&question.control), Query::new(&question.name, RecordKind::Txt)]
    };
    let mut answers = if listed.is_empty() {
        Vec::new().into_iter()
    } else {
        dns::query_many(&listed.iter().flat_map(again).collect::<Vec<_>>()).into_iter()
    };
    let mut found = Vec::new();
    for (question, points, meaning) in listed {
        let (control, text) = (answers.next(), answers.next());
        if matches!(control, Some(Ok(_))) {
            report(question.list, "lists_everything", &question.control);
            continue;
        }
        let own = text.and_then(Result::ok).and_then(|answer| answer.records.into_iter().next());
        found.push(Listing {
            zone: question.list.zone.clone(),
            subject: question.subject.clone(),
            points,
            meaning,
            text: question.list.text.clone().or(own).map(|text| text.chars().take(MAX_TEXT).collect()),
        });
    }
    found
}

fn read<'q, 'l>(
    question: &'q ListQuestion<'l>,
    answer: Result<DnsAnswer, DnsError>,
) -> Option<(&'q ListQuestion<'l>, f64, Option<String>)> {
    match answer {
        Ok(answer) => match question.list.reading(&answer.records) {
            ListAnswer::Listed(points, meaning) => return Some((question, points, meaning)),
            ListAnswer::Nothing => {}
            ListAnswer::Refused(reply) => report(question.list, "refuses", &reply),
        },
        Err(DnsError::Nxdomain | DnsError::NoData) => {}
        Err(error) => report(question.list, "dead", &format!("{error:?}")),
    }
    None
}

/// Counts a list fault. The log has it at debug level only, since a dead list fails at every connection, and a list
/// that refuses us does so at every message and in every instance; the tests warn once a round.
fn report(list: &List, what: &'static str, detail: &str) {
    metrics::count("list_faults", 1, &[("list", &list.zone), ("fault", what)]);
    debug!(list = list.zone; "{what}; the answer is ignored: {detail}");
}

/// Tests the lists by their test entries (RFC 5782 section 5); returns the failed lists with the reason.
pub(crate) fn test(lists: &[List]) -> Vec<(String, String)> {
    let tests = lists.iter().flat_map(|list| test_names(list).into_iter().map(move |names| (list, names)));
    let tests: Vec<_> = tests.take(MAX_QUESTIONS / 2).collect();
    let queries: Vec<_> = tests.iter().flat_map(|(_, (always, never))| [a(always), a(never)]).collect();
    let mut answers = dns::query_many(&queries).into_iter();
    let mut wrong = Vec::new();
    for (list, (always, never)) in tests {
        let (listed, unlisted) = (answers.next(), answers.next());
        let listed = listed.and_then(Result::ok).map(|answer| list.reading(&answer.records));
        let lists_all = matches!(unlisted, Some(Ok(_)));
        let text = failure(listed, lists_all, &always, &never);
        wrong.extend(text.map(|text| (list.zone.clone(), format!("{text}: it is ignored"))));
    }
    wrong
}

/// Why a list fails the test: from its answer to the entry that must be listed, and from whether it lists the entry
/// that must not be.
fn failure(listed: Option<ListAnswer>, lists_all: bool, always: &str, never: &str) -> Option<String> {
    match listed {
        None => Some(format!("its test entry {always} is not listed: it is dead or does not serve us")),
        Some(ListAnswer::Refused(reply)) => {
            Some(format!("it answers {reply} to its test entry {always} and does not serve us"))
        }
        Some(_) if lists_all => {
            Some(format!("it lists {never}, which no list may contain, so it probably lists everything"))
        }
        Some(_) => None,
    }
}

/// Pairs of an entry that a list must contain and one that it must not, for each kind of lookup.
fn test_names(list: &List) -> Vec<(String, String)> {
    let name = |v4: bool, last: u8| {
        let address = if v4 { loopback_v4(last) } else { mapped(loopback_v4(last)) };
        dns::list_name(&address, &list.zone)
    };
    let mut names = Vec::new();
    if list.of.iter().any(|of| matches!(of, Of::Client | Of::LinkAddresses)) {
        // A list of both address families need not contain the IPv6 test entry; many do not.
        names.push((name(list.ipv4, 2), name(list.ipv4, 1)));
    }
    if list.of.iter().any(|of| matches!(of, Of::Hello | Of::Sender | Of::Links)) {
        names.push((format!("test.{}", list.zone), format!("invalid.{}", list.zone)));
    }
    names
}

fn a(name: &str) -> Query {
    Query::new(name, RecordKind::A)
}

fn loopback_v4(last: u8) -> IpAddress {
    let octets = [127, 0, 0, last];
    IpAddress { text: Ipv4Addr::from(octets).to_string(), octets: octets.to_vec() }
}

/// RFC 5782 section 5: the test entries of IPv6 lists are ::FFFF:7F00:1 and ::FFFF:7F00:2.
fn mapped(v4: IpAddress) -> IpAddress {
    let mut octets = vec![0; 10];
    octets.extend([0xff, 0xff]);
    octets.extend(v4.octets);
    IpAddress { text: format!("::ffff:{}", v4.text), octets }
}

fn range(text: &str) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
}

fn client() -> Vec<Of> {
    vec![Of::Client]
}

fn one() -> f64 {
    1.0
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_codes() -> List {
        let code = |meaning: &str, weight| Code { meaning: meaning.to_owned(), weight };
        let mut list = List::new("list.example");
        list.codes.insert("127.0.0.2".to_owned(), code("spam", Some(0.5)));
        list.codes.insert("127.0.0.4-127.0.0.7".to_owned(), code("infected", None));
        assert_eq!(list.prepare(), []);
        list
    }

    fn reading(list: &List, replies: &[&str]) -> ListAnswer {
        list.reading(&replies.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn replies_mean_what_the_operator_says_and_the_weightiest_counts() {
        let mut list = with_codes();
        assert_eq!(reading(&list, &["127.0.0.2"]), ListAnswer::Listed(0.5, Some("spam".to_owned())));
        assert_eq!(
            reading(&list, &["127.0.0.2", "127.0.0.6"]),
            ListAnswer::Listed(1.0, Some("infected".to_owned()))
        );
        assert_eq!(reading(&list, &["127.0.0.8"]), ListAnswer::Nothing);
        assert_eq!(reading(&list, &["127.0.0.1"]), ListAnswer::Refused("127.0.0.1".to_owned()));
        assert_eq!(reading(&List::new("l"), &["127.0.0.1"]), ListAnswer::Refused("127.0.0.1".to_owned()));
        list.codes.insert("127.0.0.1".to_owned(), Code { meaning: "odd".to_owned(), weight: None });
        list.ranges.clear();
        assert!(list.prepare().is_empty());
        assert_eq!(reading(&list, &["127.0.0.1"]), ListAnswer::Listed(1.0, Some("odd".to_owned())));
        assert_eq!(reading(&List::new("l"), &["127.0.0.8"]), ListAnswer::Listed(1.0, None));
    }

    #[test]
    fn a_test_says_what_is_wrong_with_a_list() {
        let says = |listed, lists_all| failure(listed, lists_all, "always", "never").unwrap_or_default();
        assert!(says(None, true).contains("always is not listed"));
        assert!(says(Some(ListAnswer::Refused("127.0.0.1".to_owned())), true).contains("answers 127.0.0.1"));
        assert!(says(Some(ListAnswer::Nothing), true).contains("lists never"));
        assert_eq!(says(Some(ListAnswer::Listed(1.0, None)), false), "");
    }

    #[test]
    fn what_is_no_lists_answer_lists_nobody() {
        for reply in ["127.255.255.254", "127.0.0.1", "192.0.2.80", "nonsense"] {
            assert!(matches!(reading(&List::new("l"), &[reply]), ListAnswer::Refused(_)), "{reply}");
        }
    }

    #[test]
    fn lists_are_asked_about_what_they_list() {
        let mut domains = List::new("dbl.example");
        domains.of = vec![Of::Hello, Of::Sender];
        let mut v6 = List::new("v6.example");
        v6.ipv4 = false;
        let lists = [List::new("ip.example"), domains, v6];
        let asked: Vec<_> = about_addresses(&lists, Of::Client, &[loopback_v4(9)])
            .into_iter()
            .map(|q| (q.name, q.control))
            .collect();
        assert_eq!(asked, [("9.0.0.127.ip.example".to_owned(), "1.0.0.127.ip.example".to_owned())]);
        assert_eq!(about_addresses(&lists, Of::Client, &[mapped(loopback_v4(9))]).len(), 2);
        assert!(about_addresses(&lists, Of::LinkAddresses, &[loopback_v4(9)]).is_empty());
        let names = ["bad.example", "[192.0.2.1]", "localhost", "192.0.2.1", "a..b"].map(str::to_owned);
        let asked: Vec<_> = about_domains(&lists, Of::Hello, &names).into_iter().map(|q| q.name).collect();
        assert_eq!(asked, ["bad.example.dbl.example"]);
        assert!(about_domains(&lists, Of::Links, &names).is_empty());
    }

    #[test]
    fn each_kind_of_thing_has_its_test_entries() {
        let mut list = List::new("l.example");
        assert_eq!(test_names(&list), [("2.0.0.127.l.example".to_owned(), "1.0.0.127.l.example".to_owned())]);
        list.of = vec![Of::Links, Of::LinkAddresses];
        assert_eq!(test_names(&list)[1], ("test.l.example".to_owned(), "invalid.l.example".to_owned()));
        list.of = vec![Of::Client];
        list.ipv4 = false;
        let (always, never) = test_names(&list).remove(0);
        assert!(
            always.starts_with("2.0.0.0.0.0.f.7.f.f.f.f.0.") && never.starts_with("1.0.0.0.0.0.f.7."),
            "{always} {never}"
        );
    }

    #[test]
    fn an_explanation_names_subject_list_and_reason() {
        let finding = Listing {
            zone: "list.example".to_owned(),
            subject: "192.0.2.66".to_owned(),
            points: 1.0,
            meaning: Some("spam".to_owned()),
            text: Some("see https://list.example/66".to_owned()),
        };
        assert_eq!(
            finding.explanation(),
            "192.0.2.66 is listed by list.example (spam): see https://list.example/66"
        );
    }

    #[test]
    fn codes_that_are_none_are_mistakes() {
        let mut list = List::new("list.example");
        list.codes.insert("2".to_owned(), Code { meaning: String::new(), weight: None });
        list.of.clear();
        let keys: Vec<_> = list.prepare().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["of", "codes/2"]);
    }
}
