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
mod known;
mod shown;
mod vouched;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use pintle_plugin_sdk::message::Field;
use pintle_plugin_sdk::settings::{Domain, Mailbox, Network};
use pintle_plugin_sdk::{fields, gateway, metrics, prelude::*};
use serde::Deserialize;

use crate::check::{Actions, Check, SpoofFinding};
use crate::domain::ComparedDomain;
use crate::form::From;
use crate::known::{Known, Likeness, People};
use crate::vouched::{Standing, Vouched};

/// The header fields that are read.
const READ: [&str; 7] =
    ["From", "Reply-To", "Sender", "List-Id", "List-Post", "Resent-From", "Resent-Sender"];

/// The transaction's fact that lists all findings.
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

/// The domains to compare with, and the gateway's list that they were computed from, which a reload may change.
#[derive(Debug)]
struct PreparedDomains {
    local: Vec<String>,
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
        self.prepared_people = People::new(&self.people);
        let mut mistakes = Vec::new();
        for (name, addresses) in &self.people {
            let at = format!("/people/{}", name.replace('~', "~0").replace('/', "~1"));
            if known::words(name)[0].is_empty() {
                mistakes.push(mistake(&at, "this name has no letters"));
            }
            if addresses.is_empty() {
                mistakes.push(mistake(&at, "name the addresses or domains that this person writes from"));
            }
        }
        if self.distance > 1 {
            mistakes
                .push(mistake("/distance", "0 for none or 1: more letters make every name resemble another"));
        }
        if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
    }
}

impl SpoofGuard {
    fn on_headers(&self) -> Result<Verdict, HostError> {
        if self.is_exempt(&session::info()) {
            return Ok(Verdict::Next);
        }
        let from = From::read(&header()?);
        self.act(from.examine(&self.known()))
    }

    fn on_message(&self) -> Result<Verdict, HostError> {
        let session = session::info();
        let allowed = self.allow_networks.iter().any(|network| network.contains(&session.client));
        if allowed || !session.is_stranger() {
            return Ok(Verdict::Next);
        }
        let (known, header) = (self.known(), header()?);
        let from = From::read(&header);
        let poses = from.poses(&known, &self.prepared_people);
        let uses = self.uses(&known, &from, &header, &session)?;
        if poses.is_empty() && uses.is_empty() {
            return Ok(Verdict::Next);
        }
        let vouched = Vouched::ask()?;
        if vouched.is_by(&self.allow_senders, &self.trusted_sealers, |name| known.is_own(name)) {
            debug!("own domain used by an allowed sender");
            return Ok(Verdict::Next);
        }
        let relayed = is_relayed(&header) && vouched.is_by_somebody();
        let forged = uses.into_iter().filter_map(|(place, name)| {
            let standing = vouched.standing(&name, |name| known.is_own(name));
            self.forged(place, &name, standing, relayed)
        });
        self.act(poses.into_iter().chain(forged).collect())
    }

    fn is_exempt(&self, session: &session::Snapshot) -> bool {
        self.clients == CheckedClients::Strangers && !session.is_stranger()
    }

    fn known(&self) -> Rc<Known> {
        let local = gateway::local_domains();
        let mut prepared = self.prepared.borrow_mut();
        let fresh = prepared.take().filter(|prepared| prepared.local == local);
        let prepared = prepared.insert(fresh.unwrap_or_else(|| self.prepare(local)));
        Rc::clone(&prepared.known)
    }

    fn prepare(&self, local: Vec<String>) -> PreparedDomains {
        let own = local.iter().map(String::as_str).chain(self.own_domains.iter().map(Domain::as_str));
        let likeness =
            Likeness { cousins: self.cousins, typos_from: (self.distance > 0).then_some(self.distance_from) };
        let known = Known::new(own, self.protect.iter().map(Domain::as_str), likeness);
        PreparedDomains { known: Rc::new(known), local }
    }

    /// The places in which this message uses one of our domains.
    fn uses(
        &self,
        known: &Known,
        from: &From,
        header: &[Field],
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
        let client = session::info().client;
        for finding in &findings {
            let name = finding.check.name();
            metrics::count("found", 1, &[("check", name)]);
            info!(check = name, client = client; "found: {}", finding.text);
        }
        remember(&findings)?;
        for finding in &findings {
            let action = self.actions.of(finding);
            if !action.stops() {
                action.take(&finding.told())?;
            }
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

fn header() -> Result<Vec<Field>, HostError> {
    message::headers_named(&READ.map(str::to_owned))
}

fn domains_in(header: &[Field], name: &str) -> Vec<ComparedDomain> {
    let fields = header.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
    fields
        .flat_map(|field| fields::addresses(&field.value))
        .map(|found| ComparedDomain::new(&found.domain))
        .collect()
}

/// Whether the header marks the message as passed on by a list or a person: RFC 2919, RFC 2369 section 3.4, RFC 5322
/// section 3.6.6.
fn is_relayed(header: &[Field]) -> bool {
    let signs = &READ[3..];
    header.iter().any(|field| signs.iter().any(|sign| field.name.eq_ignore_ascii_case(sign)))
}

/// Adds the findings to the fact.
fn remember(findings: &[SpoofFinding]) -> Result<(), HostError> {
    let before = transaction::fact(FOUND);
    let mut names: Vec<&str> = before.iter().flat_map(|names| names.split(',')).collect();
    for finding in findings {
        let name = finding.check.name();
        if !names.contains(&name) {
            names.push(name);
        }
    }
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

    #[test]
    fn what_is_passed_on_says_so() {
        let field = |name: &str| Field { index: 0, name: name.to_owned(), value: String::new() };
        assert!(is_relayed(&[field("list-id")]) && !is_relayed(&[field("List-Unsubscribe")]));
    }
}
