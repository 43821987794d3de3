//! DMARC (RFC 9989): does the domain in From stand behind this message, and what does it want done if not? The gateway
//! finds out; this plugin honours the owner's wish, or the operator's where he has another.
//!
//! What the gateway found of DKIM and ARC signatures is reported too. A message that fails since somebody on the way
//! changed it may yet be good: where everybody in an intact ARC chain is trusted, the failure is overlooked. Clients in
//! trusted networks and authenticated ones are not asked about.

use std::collections::BTreeMap;

use pintle_plugin_sdk::sender_auth::{self, ArcResult, DmarcPolicy, DmarcResult, Outcome};
use pintle_plugin_sdk::settings::Domain;
use pintle_plugin_sdk::{metrics, prelude::*};

/// What the operator may configure.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Dmarc {
    /// What a failure means, by what the owner wants.
    reject: Action,
    quarantine: Action,
    none: Action,
    /// What it means that nobody can tell the author.
    permerror: Action,
    temperror: Action,
    /// By author's domain, in place of the owner's wish.
    overrides: BTreeMap<String, Action>,
    /// Whose ARC seals are believed.
    trusted_sealers: Vec<Domain>,
}

impl Default for Dmarc {
    fn default() -> Self {
        Self {
            reject: Action::Word(Word::Reject),
            quarantine: Action::Word(Word::Quarantine),
            none: Action::Word(Word::PassOn),
            permerror: Action::Word(Word::Reject),
            temperror: Action::Word(Word::PassOn),
            overrides: BTreeMap::new(),
            trusted_sealers: Vec::new(),
        }
    }
}

/// What a result means for the mail.
#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize)]
#[serde(untagged)]
enum Action {
    /// So many points.
    Points(f64),
    Word(Word),
}

#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Word {
    PassOn,
    Defer,
    Quarantine,
    Reject,
}

impl Plugin for Dmarc {
    const ID: &'static str = "pintle.dmarc";
    const WANTS: &'static [&'static str] = &["sender-auth"];
    const CONFIG_SCHEMA: Option<&'static str> = Some(include_str!("../config.schema.json"));
}

impl Dmarc {
    fn on_message(&self) -> Result<Verdict, HostError> {
        let session = session::info();
        if session.trusted || session.identity.is_some() {
            return Ok(Verdict::Next);
        }
        let (result, arc) = (sender_auth::dmarc()?, sender_auth::arc()?);
        report(&result, &arc)?;
        let name = result.outcome.name();
        transaction::set_fact("dmarc", name)?;
        metrics::count("results", 1, &[("result", name)]);
        let domain = &result.from_domain;
        match self.action(&result, &arc) {
            Action::Word(Word::PassOn) => Ok(Verdict::Next),
            Action::Points(points) => {
                transaction::add_score(name, points)?;
                Ok(Verdict::Next)
            }
            Action::Word(word) => {
                info!(client = session.client, domain = domain, policy = policy(result.policy); "not let through: {name}");
                Ok(verdict(word, &result))
            }
        }
    }

    fn action(&self, result: &DmarcResult, arc: &ArcResult) -> Action {
        match result.outcome {
            Outcome::Fail if self.rescues(arc) => Action::Word(Word::PassOn),
            Outcome::Fail => {
                let wish = match result.policy {
                    DmarcPolicy::Reject => self.reject,
                    DmarcPolicy::Quarantine => self.quarantine,
                    DmarcPolicy::None => self.none,
                };
                self.overrides.get(&result.from_domain).copied().unwrap_or(wish)
            }
            Outcome::Permerror => self.permerror,
            Outcome::Temperror => self.temperror,
            _ => Action::Word(Word::PassOn),
        }
    }

    fn rescues(&self, arc: &ArcResult) -> bool {
        let is_trusted = |sealer: &String| self.trusted_sealers.iter().any(|domain| domain.matches(sealer));
        arc.outcome == Outcome::Pass && !arc.sealers.is_empty() && arc.sealers.iter().all(is_trusted)
    }
}

/// For the Authentication-Results field (RFC 8601 sections 2.7.1 and 2.7.4, RFC 9989 section 9.1, RFC 8617 section 10.1).
fn report(result: &DmarcResult, arc: &ArcResult) -> Result<(), HostError> {
    for signature in sender_auth::dkim()? {
        let properties =
            [("header.d".to_owned(), signature.domain), ("header.s".to_owned(), signature.selector)];
        let known: Vec<_> = properties.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        transaction::add_auth_result("dkim", signature.outcome.name(), signature.reason.as_deref(), &known)?;
    }
    let mut properties = vec![("policy.dmarc".to_owned(), policy(result.policy).to_owned())];
    if !result.from_domain.is_empty() {
        properties.insert(0, ("header.from".to_owned(), result.from_domain.clone()));
    }
    transaction::add_auth_result("dmarc", result.outcome.name(), None, &properties)?;
    if arc.outcome != Outcome::None {
        transaction::add_auth_result("arc", arc.outcome.name(), None, &[])?;
    }
    Ok(())
}

fn policy(policy: DmarcPolicy) -> &'static str {
    match policy {
        DmarcPolicy::None => "none",
        DmarcPolicy::Quarantine => "quarantine",
        DmarcPolicy::Reject => "reject",
    }
}

/// The enhanced code is that of RFC 7372 section 3.3: no check vouches for the author.
fn verdict(word: Word, result: &DmarcResult) -> Verdict {
    let text = match result.outcome {
        Outcome::Permerror => "From must name one author's domain".to_owned(),
        _ => format!("DMARC of {}: neither SPF nor DKIM vouches for this message", result.from_domain),
    };
    match word {
        Word::Quarantine => Verdict::Quarantine("dmarc".to_owned()),
        Word::Reject => reject("5.7.26", text),
        Word::PassOn | Word::Defer => defer("4.7.26", text),
    }
}

pintle_plugin_sdk::export!(Dmarc: on_message);

#[cfg(test)]
mod tests {
    use super::*;

    fn result(outcome: Outcome, policy: DmarcPolicy) -> DmarcResult {
        DmarcResult {
            outcome,
            from_domain: "a.example".to_owned(),
            policy,
            spf_aligned: false,
            dkim_aligned: false,
        }
    }

    fn arc(outcome: Outcome, sealers: &[&str]) -> ArcResult {
        ArcResult { outcome, sealers: sealers.iter().map(|&sealer| sealer.to_owned()).collect() }
    }

    #[test]
    fn the_owners_wish_is_honoured_where_the_operator_has_no_other() {
        let none = arc(Outcome::None, &[]);
        let mut dmarc = Dmarc::default();
        for (outcome, policy, word) in [
            (Outcome::Fail, DmarcPolicy::Reject, Word::Reject),
            (Outcome::Fail, DmarcPolicy::Quarantine, Word::Quarantine),
            (Outcome::Fail, DmarcPolicy::None, Word::PassOn),
            (Outcome::Pass, DmarcPolicy::Reject, Word::PassOn),
            (Outcome::None, DmarcPolicy::None, Word::PassOn),
            (Outcome::Permerror, DmarcPolicy::None, Word::Reject),
            (Outcome::Temperror, DmarcPolicy::Reject, Word::PassOn),
        ] {
            assert_eq!(
                dmarc.action(&result(outcome, policy), &none),
                Action::Word(word),
                "{outcome:?} {policy:?}"
            );
        }
        dmarc.overrides.insert("a.example".to_owned(), Action::Points(2.0));
        let failed = result(Outcome::Fail, DmarcPolicy::Reject);
        assert_eq!(dmarc.action(&failed, &none), Action::Points(2.0));
    }

    #[test]
    fn trusted_sealers_rescue_and_one_stranger_among_them_does_not() {
        let dmarc = Dmarc { trusted_sealers: serde_json_domains(), ..Dmarc::default() };
        assert!(dmarc.rescues(&arc(Outcome::Pass, &["list.example"])));
        assert!(!dmarc.rescues(&arc(Outcome::Pass, &["evil.example", "list.example"])));
        assert!(!dmarc.rescues(&arc(Outcome::Fail, &["list.example"])));
        assert!(!dmarc.rescues(&arc(Outcome::Pass, &[])));
    }

    fn serde_json_domains() -> Vec<Domain> {
        use serde::Deserialize;
        use serde::de::IntoDeserializer;
        use serde::de::value::{Error, SeqDeserializer};
        let names = SeqDeserializer::<_, Error>::new(
            ["list.example"].into_iter().map(IntoDeserializer::into_deserializer),
        );
        Vec::<Domain>::deserialize(names).unwrap()
    }
}
