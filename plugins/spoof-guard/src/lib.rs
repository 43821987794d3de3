//! Detects spoofed senders: our own domains from outside, display names that show a different address, our people's
//! names with foreign addresses, and domains that resemble ours or other protected ones.
//!
//! It checks twice. In on-headers it checks the form of From, which does not depend on the client ([`form`]). After the
//! body it checks claims to be one of us ([`vouched`]): a newsletter service or a mailing list may legitimately send in
//! our name, which only SPF, DKIM and ARC can show. Each finding becomes a fact, a counter and a log line; the operator
//! configures an action for each check ([`check`]). Trusted and authenticated clients are not checked unless the
//! operator configures it.

mod check;
mod domain;
mod form;
mod gateway_text;
mod known;
mod sender_fields;
mod shown;
mod vouched;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use pintle_plugin_sdk::settings::{Domain, Mailbox, Network};
use pintle_plugin_sdk::{gateway, metrics, prelude::*};
use serde::Deserialize;

use crate::check::{Actions, Check, SpoofFinding};
use crate::domain::ComparedDomain;
use crate::form::From;
use crate::known::{Known, Likeness, People};
use crate::sender_fields::SenderFields;
use crate::vouched::{Standing, Vouched};

/// The transaction's fact that lists all findings, and the note from which it is made.
const FOUND: &str = "found";

/// The operator's configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SpoofGuard {
    clients: CheckedClients,
    /// Our domains in addition to those that the gateway accepts mail for.
    own_domains: Vec<Domain>,
    /// Domains of others that are likely to be imitated.
    protect: Vec<Domain>,
    /// Our people by name, with the addresses that they send from.
    people: BTreeMap<String, Vec<Mailbox>>,
    /// The places in which strangers may not use our domains.
    places: Vec<CheckedPlace>,
    /// Whether a pass of SPF or DKIM for our domain makes its use legitimate.
    unless_authenticated: bool,
    /// Services that may send in our name: by client address; by domain, if SPF or DKIM authenticates it; by ARC seal.
    allow_networks: Vec<Network>,
    allow_senders: Vec<Domain>,
    trusted_sealers: Vec<Domain>,
    /// Whether names with added words count as similar.
    cousins: bool,
    /// Number of wrong letters that count as similar, and the minimum length of such names.
    distance: u8,
    distance_from: usize,
    actions: Actions,
    #[serde(skip)]
    prepared_people: People,
    #[serde(skip)]
    prepared: RefCell<Option<PreparedDomains>>,
}

/// Maximum number of findings of one kind that are logged and counted.
const MOST_OF_A_KIND: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum CheckedClients {
    Strangers,
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum CheckedPlace {
    From,
    Sender,
    ReplyTo,
    Envelope,
    Hello,
}

/// The domains to compare with, and the generation of the gateway's list that they were computed from, which a reload may
/// change.
#[derive(Debug)]
struct PreparedDomains {
    generation: u32,
    known: Rc<Known>,
}

impl Default for SpoofGuard {
    fn default() -> Self {
        Self {
            clients: CheckedClients::Strangers,
            own_domains: Vec::new(),
            protect: Vec::new(),
            people: BTreeMap::new(),
            places: vec![CheckedPlace::From],
            unless_authenticated: true,
            allow_networks: Vec::new(),
            allow_senders: Vec::new(),
            trusted_sealers: Vec::new(),
            cousins: false,
            distance: 0,
            distance_from: 6,
            actions: Actions::default(),
            prepared_people: People::default(),
            prepared: RefCell::new(None),
        }
    }
}

impl Plugin for SpoofGuard {
    const ID: &'static str = "pintle.spoof-guard";
    const WANTS: &'static [&'static str] = &["sender-auth"];
    const CONFIG_SCHEMA: Option<&'static str> = Some(include_str!("../config.schema.json"));

    fn check(&mut self) -> Result<(), Vec<ConfigError>> {
        let people = People::new(&self.people);
        self.prepared_people =
            people.map_err(|error| vec![mistake("/people", format!("too many: {error:?}"))])?;
        let mut mistakes = Vec::new();
        let at = |name: &str| format!("/people/{}", name.replace('~', "~0").replace('/', "~1"));
        for name in self.prepared_people.without_letters() {
            mistakes.push(mistake(at(name), "this name has no letters"));
        }
        for name in self.people.iter().filter(|(_, addresses)| addresses.is_empty()).map(|(name, _)| name) {
            mistakes.push(mistake(at(name), "name the addresses or domains that this person writes from"));
        }
        if self.distance > 1 {
            mistakes
                .push(mistake("/distance", "0 for none or 1: more letters make every name resemble another"));
        }
        if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
    }

    fn conditions(&self) -> Result<(), HostError> {
        if self.clients == CheckedClients::Strangers {
            calls::only_strangers(&["on-headers"])?;
        }
        calls::only_strangers(&["on-message"])?;
        calls::not_networks(&["on-message"], &self.allow_networks)
    }
}

impl SpoofGuard {
    fn on_headers(&self) -> Result<Verdict, HostError> {
        if self.is_exempt(&session::info()?) {
            return Ok(Verdict::Next);
        }
        let Some(header) = SenderFields::of_message()? else {
            return self.act(vec![too_many_mailboxes()]);
        };
        self.act(From::read(&header)?.examine(&*self.known()?)?)
    }

    fn on_message(&self) -> Result<Verdict, HostError> {
        let session = session::info()?;
        let allowed = self.allow_networks.iter().any(|network| network.contains(&session.client));
        if allowed || session.known {
            return Ok(Verdict::Next);
        }
        let Some(header) = SenderFields::of_message()? else {
            return self.act(vec![too_many_mailboxes()]);
        };
        let known = self.known()?;
        let from = From::read(&header)?;
        let poses = from.poses(&known, &self.prepared_people)?;
        let uses = self.uses(&known, &from, &header, &session)?;
        if poses.is_empty() && uses.is_empty() {
            return Ok(Verdict::Next);
        }
        let vouched = Vouched::ask()?;
        if vouched.is_by(&self.allow_senders, &self.trusted_sealers, |name| known.is_own(name)) {
            debug!("own domain used by an allowed sender");
            return Ok(Verdict::Next);
        }
        let relayed = header.is_relayed() && vouched.is_by_somebody();
        let forged = uses.into_iter().filter_map(|(place, name)| {
            let standing = vouched.standing(&name, |name| known.is_own(name));
            self.forged(place, &name, standing, relayed)
        });
        self.act(poses.into_iter().chain(forged).collect())
    }

    fn is_exempt(&self, session: &session::Snapshot) -> bool {
        self.clients == CheckedClients::Strangers && session.known
    }

    fn known(&self) -> Result<Rc<Known>, HostError> {
        let generation = gateway::generation();
        let mut prepared = self.prepared.borrow_mut();
        if let Some(fresh) = prepared.as_ref().filter(|prepared| prepared.generation == generation) {
            return Ok(Rc::clone(&fresh.known));
        }
        let known = Rc::new(self.prepare(&gateway::local_domains())?);
        *prepared = Some(PreparedDomains { generation, known: Rc::clone(&known) });
        Ok(known)
    }

    fn prepare(&self, local: &[String]) -> Result<Known, HostError> {
        let own = local.iter().map(String::as_str).chain(self.own_domains.iter().map(Domain::as_str));
        let likeness =
            Likeness { cousins: self.cousins, typos_from: (self.distance > 0).then_some(self.distance_from) };
        Known::new(own, self.protect.iter().map(Domain::as_str), likeness)
    }

    /// The places in which this message uses one of our domains.
    fn uses(
        &self,
        known: &Known,
        from: &From,
        header: &SenderFields,
        session: &session::Snapshot,
    ) -> Result<Vec<(CheckedPlace, ComparedDomain)>, HostError> {
        let mut uses = Vec::new();
        for &place in &self.places {
            let names: Vec<ComparedDomain> = match place {
                CheckedPlace::From => from.domains().cloned().collect(),
                CheckedPlace::Sender => domains_in(header, "Sender"),
                CheckedPlace::ReplyTo => domains_in(header, "Reply-To"),
                CheckedPlace::Envelope => vec![ComparedDomain::new(&transaction::info()?.sender.domain)],
                CheckedPlace::Hello => session.hello.iter().map(|name| ComparedDomain::new(name)).collect(),
            };
            uses.extend(names.into_iter().filter(|name| known.is_own(name)).map(|name| (place, name)));
        }
        uses.dedup();
        Ok(uses)
    }

    /// The finding for a stranger's use of one of our domains.
    fn forged(
        &self,
        place: CheckedPlace,
        name: &ComparedDomain,
        standing: Standing,
        relayed: bool,
    ) -> Option<SpoofFinding> {
        if self.unless_authenticated && standing == Standing::Vouched {
            return None;
        }
        let (check, how) =
            if relayed { (Check::OwnDomainRelayed, " and was passed on") } else { (Check::OwnDomain, "") };
        let text = format!(
            "{name} in {} is ours{how}, and neither SPF nor DKIM of {name} vouches for this message: \
             send it through our own servers, or sign it",
            place.name()
        );
        let undecided = self.unless_authenticated && standing == Standing::Unknown;
        Some(SpoofFinding { check, text, undecided })
    }

    fn act(&self, findings: Vec<SpoofFinding>) -> Result<Verdict, HostError> {
        let findings = some_of_each_kind(findings);
        if findings.is_empty() {
            return Ok(Verdict::Next);
        }
        let client = session::info()?.client;
        for finding in &findings {
            let name = finding.check.name();
            metrics::count("found", 1, &[("check", name)]);
            info!(check = name, client = client; "found: {}", finding.text);
        }
        remember(&findings)?;
        for (check, points) in self.actions.scores(&findings) {
            transaction::set_score(check.name(), points)?;
        }
        let decisive = self.actions.decisive(&findings);
        decisive.map_or(Ok(Verdict::Next), |finding| self.actions.of(finding).take(&finding.told()))
    }
}

/// Limits the number of findings of each kind: a field may name thousands of authors, and a transaction holds a
/// thousand scores.
fn some_of_each_kind(mut findings: Vec<SpoofFinding>) -> Vec<SpoofFinding> {
    let mut seen: BTreeMap<(Check, bool), usize> = BTreeMap::new();
    findings.retain(|finding| {
        let count = seen.entry((finding.check, finding.undecided)).or_default();
        *count += 1;
        *count <= MOST_OF_A_KIND
    });
    findings
}

impl CheckedPlace {
    fn name(self) -> &'static str {
        match self {
            Self::From => "From",
            Self::Sender => "Sender",
            Self::ReplyTo => "Reply-To",
            Self::Envelope => "MAIL FROM",
            Self::Hello => "EHLO",
        }
    }
}

fn domains_in(header: &SenderFields, name: &str) -> Vec<ComparedDomain> {
    header.addresses(name).map(|address| ComparedDomain::new(&address.domain_shown)).collect()
}

/// The finding about a message that cannot be checked, since no mail program writes so many senders.
fn too_many_mailboxes() -> SpoofFinding {
    SpoofFinding::new(Check::SeveralFrom, "From, Sender and Reply-To name more addresses than can be checked")
}

/// Adds the findings to the fact. Those of the header are in a note, since a plugin does not know the name under which
/// the operator runs it, and so not the full name of its fact.
fn remember(findings: &[SpoofFinding]) -> Result<(), HostError> {
    let mut names: Vec<String> = transaction::note_as(FOUND)?.unwrap_or_default();
    for finding in findings {
        let name = finding.check.name();
        if !names.iter().any(|found| found == name) {
            names.push(name.to_owned());
        }
    }
    transaction::set_note_as(FOUND, &names)?;
    transaction::set_fact(FOUND, &names.join(","))
}

pintle_plugin_sdk::export!(SpoofGuard: on_headers, on_message);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_of_a_kind_are_few() {
        let many = (0..5_000).map(|n| SpoofFinding::new(Check::OwnDomain, n.to_string()));
        let left = some_of_each_kind(many.chain([SpoofFinding::new(Check::NullFrom, "x")]).collect());
        assert_eq!((left.len(), left.last().unwrap().check), (MOST_OF_A_KIND + 1, Check::NullFrom));
    }

    #[test]
    fn mistakes_are_told_by_place() {
        let people = BTreeMap::from([("--".to_owned(), vec![]), ("Ann/Lee".to_owned(), vec![])]);
        let mut guard = SpoofGuard { people, distance: 2, ..SpoofGuard::default() };
        let mistakes = guard.check().unwrap_err();
        let places: Vec<&str> = mistakes.iter().map(|mistake| mistake.at.as_str()).collect();
        assert_eq!(places, ["/people/--", "/people/--", "/people/Ann~1Lee", "/distance"]);
    }

    #[test]
    fn our_domain_is_forged_unless_somebody_vouches() {
        let (guard, name) = (SpoofGuard::default(), ComparedDomain::new("ours.example"));
        let found = |standing, relayed| guard.forged(CheckedPlace::From, &name, standing, relayed);
        assert_eq!(found(Standing::Vouched, false), None);
        assert_eq!(found(Standing::Not, false).unwrap().check, Check::OwnDomain);
        assert_eq!(found(Standing::Not, true).unwrap().check, Check::OwnDomainRelayed);
        assert!(found(Standing::Unknown, false).unwrap().undecided);
        let strict = SpoofGuard { unless_authenticated: false, ..SpoofGuard::default() };
        assert!(!strict.forged(CheckedPlace::From, &name, Standing::Vouched, false).unwrap().undecided);
    }
}
