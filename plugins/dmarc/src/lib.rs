//! DMARC (RFC 9989): applies the policy of the domain in From to mail that fails authentication, or the operator's
//! override of it. The gateway evaluates DMARC; this plugin acts on the result.
//!
//! The results of DKIM and ARC are reported too. A message may fail only because a forwarder changed it: if an intact
//! ARC chain shows that a trusted sealer saw it pass, the failure is ignored. Trusted and authenticated clients are not
//! checked.

use std::collections::BTreeMap;

use pintle_plugin_sdk::action::{Action, ActionReason};
use pintle_plugin_sdk::sender_auth::{self, ArcResult, DmarcPolicy, DmarcResult, Outcome};
use pintle_plugin_sdk::settings::Domain;
use pintle_plugin_sdk::{metrics, prelude::*};

/// The operator's configuration.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Dmarc {
    /// Actions for a failure, by the policy that the domain owner published.
    reject: Action,
    quarantine: Action,
    none: Action,
    /// The action when From names no author domain, or several.
    permerror: Action,
    temperror: Action,
    /// Actions by author's domain, which replace the owner's policy.
    overrides: BTreeMap<String, Action>,
    /// Domains whose ARC seals are trusted.
    trusted_sealers: Vec<Domain>,
}

impl Default for Dmarc {
    fn default() -> Self {
        Self {
            reject: Action::Reject,
            quarantine: Action::Quarantine,
            none: Action::PassOn,
            permerror: Action::Reject,
            temperror: Action::PassOn,
            overrides: BTreeMap::new(),
            trusted_sealers: Vec::new(),
        }
    }
}

impl Plugin for Dmarc {
    const ID: &'static str = "pintle.dmarc";
    const WANTS: &'static [&'static str] = &["sender-auth", "auth-results"];
    const CONFIG_SCHEMA: Option<&'static str> = Some(include_str!("../config.schema.json"));
}

impl Dmarc {
    fn on_message(&self) -> Result<Verdict, HostError> {
        let session = session::info();
        if !session.is_stranger() {
            return Ok(Verdict::Next);
        }
        let (result, arc) = (sender_auth::dmarc()?, sender_auth::arc()?);
        report(&result)?;
        let name = result.outcome.name();
        transaction::set_fact("dmarc", name)?;
        metrics::count("results", 1, &[("result", name)]);
        let DmarcJudgement { action, overridden } = self.judge(&result, &arc);
        sender_auth::report_disposition(disposition(action), overridden)?;
        if action.stops() {
            let (domain, policy) = (&result.from_domain, result.policy.name());
            info!(client = session.client, domain = domain, policy = policy; "not passed on: {name}");
        }
        // RFC 7372 section 3.3: no check authenticates the author.
        let authors = if result.outcome == Outcome::Permerror { from_fields()? } else { 1 };
        let text = explain(&result, authors);
        action.take(&ActionReason { rule: name, quarantine: "dmarc", code: "7.26", text: &text })
    }

    fn judge(&self, result: &DmarcResult, arc: &ArcResult) -> DmarcJudgement {
        let wish = |action| DmarcJudgement { action, overridden: None };
        match result.outcome {
            Outcome::Fail if self.rescues(&result.from_domain, arc) => {
                DmarcJudgement::instead(Action::PassOn, "trusted_forwarder")
            }
            Outcome::Fail => {
                let action = match result.policy {
                    DmarcPolicy::Reject => self.reject,
                    DmarcPolicy::Quarantine => self.quarantine,
                    DmarcPolicy::None => self.none,
                };
                let other = self.overrides.get(&result.from_domain).copied().unwrap_or(action);
                // The policy is reject and the action is weaker: reported to the owner as local policy.
                let less = disposition(other) != result.policy.name();
                if less { DmarcJudgement::instead(other, "local_policy") } else { wish(other) }
            }
            Outcome::Permerror => wish(self.permerror),
            Outcome::Temperror => wish(self.temperror),
            _ => wish(Action::PassOn),
        }
    }

    fn rescues(&self, author: &str, arc: &ArcResult) -> bool {
        let is_trusted = |sealer: &str| self.trusted_sealers.iter().any(|domain| domain.matches(sealer));
        arc.vouches(is_trusted, |domain| domain == author)
    }
}

/// The action taken, and the reason if it differs from the owner's policy (terms of RFC 9990).
#[derive(Debug, PartialEq)]
struct DmarcJudgement {
    action: Action,
    overridden: Option<&'static str>,
}

impl DmarcJudgement {
    fn instead(action: Action, why: &'static str) -> Self {
        Self { action, overridden: Some(why) }
    }
}

/// The disposition as named in aggregate reports (RFC 9990).
fn disposition(action: Action) -> &'static str {
    match action {
        Action::PassOn | Action::Score(_) | Action::Defer => "none",
        Action::Quarantine => "quarantine",
        Action::Reject => "reject",
    }
}

/// Adds the result to the Authentication-Results field (RFC 8601 section 2.7.4, RFC 9989 section 9.1).
fn report(result: &DmarcResult) -> Result<(), HostError> {
    sender_auth::report_dkim()?;
    let mut properties = vec![("policy.dmarc".to_owned(), result.policy.name().to_owned())];
    if !result.from_domain.is_empty() {
        properties.insert(0, ("header.from".to_owned(), result.from_domain.clone()));
    }
    sender_auth::report("dmarc", result.outcome, None, &properties)?;
    sender_auth::report_arc()
}

/// Number of From fields.
fn from_fields() -> Result<usize, HostError> {
    Ok(message::headers_named(&["From".to_owned()])?.len())
}

fn explain(result: &DmarcResult, from_fields: usize) -> String {
    match (result.outcome, from_fields) {
        (Outcome::Permerror, 0) => "the message has no From field (RFC 5322 section 3.6)".to_owned(),
        (Outcome::Permerror, 1) => "the From field must name authors of one domain".to_owned(),
        (Outcome::Permerror, _) => "the message has several From fields (RFC 5322 section 3.6)".to_owned(),
        (Outcome::Temperror, _) => format!("DMARC of {}: DNS does not answer at present", result.from_domain),
        _ => format!("DMARC of {}: neither SPF nor DKIM vouches for this message", result.from_domain),
    }
}

pintle_plugin_sdk::export!(Dmarc: on_message);

#[cfg(test)]
mod tests {
    use pintle_plugin_sdk::transaction::AuthResult;

    use super::*;

    #[test]
    fn a_refusal_names_the_field_that_is_missing() {
        let result = result(Outcome::Permerror, DmarcPolicy::None);
        assert_eq!(explain(&result, 0), "the message has no From field (RFC 5322 section 3.6)");
        assert!(explain(&result, 1).contains("authors of one domain"));
        assert!(explain(&result, 2).contains("several From fields"));
    }

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
        let passed = AuthResult {
            method: "dmarc".to_owned(),
            outcome: "pass".to_owned(),
            reason: None,
            properties: vec![("header.from".to_owned(), "a.example".to_owned())],
        };
        ArcResult {
            outcome,
            sealers: sealers.iter().map(|&sealer| sealer.to_owned()).collect(),
            results: vec![vec![passed]; sealers.len()],
        }
    }

    #[test]
    fn the_owners_wish_is_honoured_where_the_operator_has_no_other() {
        let none = arc(Outcome::None, &[]);
        let mut dmarc = Dmarc::default();
        for (outcome, policy, action) in [
            (Outcome::Fail, DmarcPolicy::Reject, Action::Reject),
            (Outcome::Fail, DmarcPolicy::Quarantine, Action::Quarantine),
            (Outcome::Fail, DmarcPolicy::None, Action::PassOn),
            (Outcome::Pass, DmarcPolicy::Reject, Action::PassOn),
            (Outcome::None, DmarcPolicy::None, Action::PassOn),
            (Outcome::Permerror, DmarcPolicy::None, Action::Reject),
            (Outcome::Temperror, DmarcPolicy::Reject, Action::PassOn),
        ] {
            let judged = dmarc.judge(&result(outcome, policy), &none);
            assert_eq!(judged, DmarcJudgement { action, overridden: None }, "{outcome:?} {policy:?}");
        }
        dmarc.overrides.insert("a.example".to_owned(), Action::Score(2.0));
        let failed = result(Outcome::Fail, DmarcPolicy::Reject);
        assert_eq!(dmarc.judge(&failed, &none), DmarcJudgement::instead(Action::Score(2.0), "local_policy"));
        dmarc.trusted_sealers = serde_json_domains();
        let sealed = arc(Outcome::Pass, &["list.example"]);
        assert_eq!(
            dmarc.judge(&failed, &sealed),
            DmarcJudgement::instead(Action::PassOn, "trusted_forwarder")
        );
    }

    #[test]
    fn trusted_sealers_rescue_the_author_whom_they_saw_pass() {
        let dmarc = Dmarc { trusted_sealers: serde_json_domains(), ..Dmarc::default() };
        let rescues = |author, chain| dmarc.rescues(author, &chain);
        assert!(rescues("a.example", arc(Outcome::Pass, &["list.example"])));
        assert!(!rescues("b.example", arc(Outcome::Pass, &["list.example"])));
        assert!(!rescues("a.example", arc(Outcome::Pass, &["list.example", "evil.example"])));
        assert!(!rescues("a.example", arc(Outcome::Fail, &["list.example"])));
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
