//! DNS lists (RFC 5782): looks up the client in lists of addresses, and its HELO name, the sender and the links of the
//! message in lists of domains. Listings add to the score; from `reject_at` on, mail is refused with the list's own
//! explanation.
//!
//! The client is looked up when it connects and refused at RCPT, so that the log has the recipient, and postmaster
//! stays reachable. All lists are queried concurrently, through the host's resolver and its cache. A list that does not
//! answer is ignored; so is a list that lists everything, which is tested before a listing counts.

mod links;
mod lists;

use std::collections::BTreeMap;

use pintle_plugin_sdk::settings::Network;
use pintle_plugin_sdk::{Address, dns, metrics, prelude::*};

use crate::lists::{List, ListQuestion, Listing, Of};

/// The operator's configuration.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Dnsbl {
    lists: Vec<List>,
    /// The score from which mail is refused; `false` only scores.
    #[serde(default)]
    reject_at: Threshold,
    /// Clients that are not looked up.
    #[serde(default)]
    exempt_networks: Vec<Network>,
    /// Local parts that always accept mail.
    #[serde(default = "role_addresses")]
    exempt_recipients: Vec<String>,
    /// Maximum number of hosts in a message's links that are looked up.
    #[serde(default = "twenty")]
    max_links: usize,
}

#[derive(Clone, Copy, serde::Deserialize)]
#[serde(untagged)]
enum Threshold {
    Points(f64),
    Never(bool),
}

impl Default for Threshold {
    fn default() -> Self {
        Self::Points(1.0)
    }
}

impl Plugin for Dnsbl {
    const ID: &'static str = "pintle.dnsbl";
    const WANTS: &'static [&'static str] = &["dns"];
    const CONFIG_SCHEMA: Option<&'static str> = Some(include_str!("../config.schema.json"));

    fn check(&mut self) -> Result<(), Vec<ConfigError>> {
        let mut mistakes = Vec::new();
        for (at, list) in self.lists.iter_mut().enumerate() {
            let wrong = list.prepare();
            mistakes.extend(wrong.into_iter().map(|(key, text)| mistake(format!("/lists/{at}/{key}"), text)));
        }
        if matches!(self.reject_at, Threshold::Never(true)) {
            mistakes.push(mistake("/reject_at", "a number of points, or false"));
        }
        if self.max_links > 40 {
            mistakes.push(mistake("/max_links", "at most 40"));
        }
        if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
    }

    fn conditions(&self) -> Result<(), HostError> {
        let hooks = ["on-connect", "on-hello", "on-mail", "on-rcpt", "on-message"];
        calls::only_strangers(&hooks)?;
        calls::not_networks(&hooks, &self.exempt_networks)
    }
}

impl Dnsbl {
    fn on_connect(&self) -> Result<Verdict, HostError> {
        let session = session::info()?;
        if self.is_exempt(&session) {
            return Ok(Verdict::Next);
        }
        let questions =
            lists::about_addresses(&self.lists, Of::Client, std::slice::from_ref(&session.client));
        session::set_note_as("client", &self.ask(&questions))?;
        Ok(Verdict::Next)
    }

    fn on_hello(&self, name: &str) -> Result<Verdict, HostError> {
        if !self.is_exempt(&session::info()?) {
            let questions = lists::about_domains(&self.lists, Of::Hello, &links::name_and_domain(name)?);
            session::set_note_as("hello", &self.ask(&questions))?;
        }
        Ok(Verdict::Next)
    }

    fn on_mail(&self) -> Result<Verdict, HostError> {
        if self.is_exempt(&session::info()?) {
            return Ok(Verdict::Next);
        }
        let names = links::name_and_domain(&transaction::info()?.sender.domain)?;
        let questions = lists::about_domains(&self.lists, Of::Sender, &names);
        transaction::set_note_as("sender", &self.ask(&questions))?;
        let known = known()?;
        tell(&known)?;
        Ok(Verdict::Next)
    }

    fn on_rcpt(&self, rcpt: &Recipient) -> Result<Verdict, HostError> {
        if self.is_exempt(&session::info()?) || self.takes_anything(&rcpt.address) {
            return Ok(Verdict::Next);
        }
        Ok(self.judge(&known()?))
    }

    fn on_message(&self) -> Result<Verdict, HostError> {
        let wanted = self.lists.iter().any(List::is_about_links);
        let roles_alone = transaction::recipients()?.iter().all(|rcpt| self.takes_anything(&rcpt.address));
        if !wanted || roles_alone || self.is_exempt(&session::info()?) {
            return Ok(Verdict::Next);
        }
        let hosts = links::hosts_in_message(self.max_links)?;
        let mut questions = lists::about_domains(&self.lists, Of::Links, &links::domains(&hosts)?);
        let addresses = links::addresses(&hosts);
        questions.extend(lists::about_addresses(&self.lists, Of::LinkAddresses, &addresses));
        questions.truncate(lists::MAX_QUESTIONS);
        let found = self.ask(&questions);
        if found.is_empty() {
            return Ok(Verdict::Next);
        }
        let mut all = known()?;
        all.extend(found);
        tell(&all)?;
        Ok(self.judge(&all))
    }

    /// Queries each list for its test entries (RFC 5782 section 5), and reports lists that fail.
    fn on_timer(&self) {
        for (list, text) in lists::test(&self.lists) {
            metrics::count("tests_failed", 1, &[("list", &list)]);
            warn!(list = list; "{text}");
        }
    }

    /// Queries the lists; if anything is listed, queries the explanations in a second batch.
    fn ask(&self, questions: &[ListQuestion<'_>]) -> Vec<Listing> {
        if questions.is_empty() {
            return Vec::new();
        }
        let queries: Vec<_> = questions.iter().map(ListQuestion::query).collect();
        let found = lists::findings(questions, dns::query_many(&queries));
        for finding in &found {
            metrics::count("listed", 1, &[("list", &finding.zone)]);
            info!(list = finding.zone, subject = finding.subject, points = finding.points; "listed");
        }
        found
    }

    /// Trusted and authenticated clients are judged by their identity, not by their address.
    fn is_exempt(&self, session: &session::Snapshot) -> bool {
        session.known || self.exempt_networks.iter().any(|network| network.contains(&session.client))
    }

    fn takes_anything(&self, address: &Address) -> bool {
        self.exempt_recipients.iter().any(|local| local.eq_ignore_ascii_case(&address.local))
    }

    fn judge(&self, found: &[Listing]) -> Verdict {
        let points: f64 = found.iter().map(|finding| finding.points).sum();
        let Threshold::Points(limit) = self.reject_at else {
            return Verdict::Next;
        };
        let worst = found.iter().max_by(|a, b| a.points.total_cmp(&b.points));
        match worst {
            Some(worst) if points >= limit && worst.points > 0.0 => {
                metrics::count("rejected", 1, &[("list", &worst.zone)]);
                reject("5.7.1", worst.explanation())
            }
            _ => Verdict::Next,
        }
    }
}

/// The listings found before the message: of the client, its HELO name and the sender.
fn known() -> Result<Vec<Listing>, HostError> {
    let mut all: Vec<Listing> = session::note_as("client")?.unwrap_or_default();
    all.extend(session::note_as::<Vec<Listing>>("hello")?.unwrap_or_default());
    all.extend(transaction::note_as::<Vec<Listing>>("sender")?.unwrap_or_default());
    Ok(all)
}

/// Sets the score of each list, and publishes the names of the lists in a fact, for later plugins.
fn tell(found: &[Listing]) -> Result<(), HostError> {
    if found.is_empty() {
        return Ok(());
    }
    for (zone, points) in points_by_zone(found) {
        transaction::set_score(zone, points)?;
    }
    let zones: Vec<&str> = found.iter().map(|finding| finding.zone.as_str()).collect();
    transaction::set_fact("listed", &zones.join(" "))
}

/// The points of all listings of each list, since the score of a rule is one value.
fn points_by_zone(found: &[Listing]) -> BTreeMap<&str, f64> {
    let mut sums = BTreeMap::new();
    for finding in found {
        *sums.entry(finding.zone.as_str()).or_default() += finding.points;
    }
    sums
}

/// RFC 5321 section 4.5.1 and RFC 2142: role addresses must be reachable by senders with delivery problems.
fn role_addresses() -> Vec<String> {
    vec!["postmaster".to_owned(), "abuse".to_owned()]
}

fn twenty() -> usize {
    20
}

pintle_plugin_sdk::export!(Dnsbl: on_connect, on_hello, on_mail, on_rcpt, on_message, on_timer);

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(zone: &str, points: f64) -> Listing {
        Listing { zone: zone.to_owned(), subject: "192.0.2.66".to_owned(), points, meaning: None, text: None }
    }

    fn plugin(reject_at: Threshold) -> Dnsbl {
        Dnsbl {
            lists: Vec::new(),
            reject_at,
            exempt_networks: Vec::new(),
            exempt_recipients: role_addresses(),
            max_links: 20,
        }
    }

    #[test]
    fn a_plugin_that_only_scores_refuses_nothing() {
        assert!(matches!(plugin(Threshold::Never(false)).judge(&[finding("a", 9.0)]), Verdict::Next));
        assert!(matches!(plugin(Threshold::default()).judge(&[]), Verdict::Next));
        assert!(matches!(plugin(Threshold::default()).judge(&[finding("a", 0.5)]), Verdict::Next));
    }

    #[test]
    fn the_score_of_a_list_is_the_sum_of_its_listings() {
        let found = [finding("a", 1.5), finding("b", -1.0), finding("a", 2.0)];
        assert_eq!(points_by_zone(&found), BTreeMap::from([("a", 3.5), ("b", -1.0)]));
    }

    #[test]
    fn role_addresses_are_known_in_any_case() {
        let address = |local: &str| Address::new(local, "example.org");
        assert!(plugin(Threshold::default()).takes_anything(&address("Postmaster")));
        assert!(!plugin(Threshold::default()).takes_anything(&address("ann")));
    }

    #[test]
    fn mistakes_are_named_with_their_places() {
        let mut plugin = plugin(Threshold::Never(true));
        plugin.lists = vec![List::new("list.example"), List::new("no list")];
        let places: Vec<_> = plugin.check().unwrap_err().into_iter().map(|mistake| mistake.at).collect();
        assert_eq!(places, ["/lists/1/zone", "/reject_at"]);
    }
}
