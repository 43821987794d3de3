//! DMARC (RFC 9989): applies the policy of the domain in From to mail that fails authentication, or the operator's
//! override of it. The gateway evaluates DMARC; this plugin acts on the result.
//!
//! The results of DKIM and ARC are reported too. A message may fail only because a forwarder changed it: if an intact
//! ARC chain shows that a trusted sealer saw it pass, the failure is ignored. Trusted and authenticated clients are not
//! checked.

use std::collections::BTreeMap;

use pintle_plugin_sdk::action::{Action, ActionReason};
use pintle_plugin_sdk::sender_auth::{self, ArcResult, AuthOutcome, DmarcPolicy, DmarcResult};
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

    fn conditions(&self) -> Result<(), HostError> {
        calls::only_strangers(&["on-message"])
    }
}

impl Dmarc {
    fn on_message(&self) -> Result<Verdict, HostError> {
        let session = session::info()?;
        if session.known {
            return Ok(Verdict::Next);
        }
        let (result, arc) = (sender_auth::dmarc()?, sender_auth::arc()?);
        sender_auth::report(&["dkim", "dmarc"])?;
        if arc.outcome() != AuthOutcome::None {
            sender_auth::report(&["arc"])?;
        }
        let name = &result.outcome;
        transaction::set_fact("result", name)?;
        metrics::count("results", 1, &[("result", name)]);
        let DmarcJudgement { action, overridden } = self.judge(&result, &arc);
        sender_auth::report_disposition(disposition(action), overridden)?;
        if action.stops() {
            let (domain, policy) = (&result.from_domain, &result.policy);
            info!(client = session.client, domain = domain, policy = policy; "not passed on: {name}");
        }
        // RFC 7372 section 3.3: no check authenticates the author.
        let authors = if result.outcome() == AuthOutcome::Permerror { from_fields()? } else { 1 };
        let text = explain(&result, authors);
        action.take(&ActionReason { rule: name, quarantine: "dmarc", code: "7.26", text: &text })
    }

    fn judge(&self, result: &DmarcResult, arc: &ArcResult) -> DmarcJudgement {
        let wish = |action| DmarcJudgement { action, overridden: None };
        match result.outcome() {
            AuthOutcome::Fail if self.rescues(&result.from_domain, arc) => {
                DmarcJudgement::instead(Action::PassOn, "trusted_forwarder")
            }
            AuthOutcome::Fail => {
                let action = match result.policy() {
                    DmarcPolicy::Reject => self.reject,
                    DmarcPolicy::Quarantine => self.quarantine,
                    DmarcPolicy::None => self.none,
                };
                let other = self.overrides.get(&result.from_domain).copied().unwrap_or(action);
                // The policy is reject and the action is weaker: reported to the owner as local policy.
                let less = disposition(other) != result.policy();
                if less { DmarcJudgement::instead(other, "local_policy") } else { wish(other) }
            }
            AuthOutcome::Permerror => wish(self.permerror),
            AuthOutcome::Temperror => wish(self.temperror),
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

/// The disposition for aggregate reports (RFC 9990).
fn disposition(action: Action) -> DmarcPolicy {
    match action {
        Action::PassOn | Action::Score(_) | Action::Defer => DmarcPolicy::None,
        Action::Quarantine => DmarcPolicy::Quarantine,
        Action::Reject => DmarcPolicy::Reject,
    }
}

/// Number of From fields.
fn from_fields() -> Result<usize, HostError> {
    Ok(message::headers_named(&["From".to_owned()])?.len())
}

fn explain(result: &DmarcResult, from_fields: usize) -> String {
    match (result.outcome(), from_fields) {
        (AuthOutcome::Permerror, 0) => "the message has no From field (RFC 5322 section 3.6)".to_owned(),
        (AuthOutcome::Permerror, 1) => "the From field must name authors of one domain".to_owned(),
        (AuthOutcome::Permerror, _) => {
            "the message has several From fields (RFC 5322 section 3.6)".to_owned()
        }
        (AuthOutcome::Temperror, _) => {
            format!("DMARC of {}: DNS does not answer at present", result.from_domain)
        }
        _ => format!("DMARC of {}: neither SPF nor DKIM vouches for this message", result.from_domain),
    }
}

pintle_plugin_sdk::export!(Dmarc: on_message);

#[cfg(test)]
mod tests {
    use pintle_plugin_sdk::sender_auth::ArcSet;
    use pintle_plugin_sdk::transaction::AuthResult;

    use super::*;

    #[test]
    fn a_refusal_names_the_field_that_is_missing() {
        let result = result("permerror", "none");
        assert_eq!(explain(&result, 0), "the message has no From field (RFC 5322 section 3.6)");
        assert!(explain(&result, 1).contains("authors of one domain"));
        assert!(explain(&result, 2).contains("several From fields"));
    }

    fn result(outcome: &str, policy: &str) -> DmarcResult {
        DmarcResult {
            outcome: outcome.to_owned(),
            from_domain: "a.example".to_owned(),
            policy: policy.to_owned(),
            spf_aligned: false,
            dkim_aligned: false,
            details: Vec::new(),
        }
    }

    fn arc(outcome: &str, sealers: &[&str]) -> ArcResult {
        let passed = AuthResult {
            method: "dmarc".to_owned(),
            outcome: "pass".to_owned(),
            reason: None,
            properties: vec![("header.from".to_owned(), "a.example".to_owned())],
        };
        let set = |sealer: &&str| ArcSet { sealer: (*sealer).to_owned(), results: vec![passed.clone()] };
        ArcResult {
            outcome: outcome.to_owned(),
            sets: sealers.iter().map(set).collect(),
            details: Vec::new(),
        }
    }

    #[test]
    fn the_owners_wish_is_honoured_where_the_operator_has_no_other() {
        let none = arc("none", &[]);
        let mut dmarc = Dmarc::default();
        for (outcome, policy, action) in [
            ("fail", "reject", Action::Reject),
            ("fail", "quarantine", Action::Quarantine),
            ("fail", "none", Action::PassOn),
            ("pass", "reject", Action::PassOn),
            ("none", "none", Action::PassOn),
            ("permerror", "none", Action::Reject),
            ("temperror", "reject", Action::PassOn),
            ("fail", "unheard-of", Action::PassOn),
            ("unheard-of", "reject", Action::PassOn),
        ] {
            let judged = dmarc.judge(&result(outcome, policy), &none);
            assert_eq!(judged, DmarcJudgement { action, overridden: None }, "{outcome} {policy}");
        }
        dmarc.overrides.insert("a.example".to_owned(), Action::Score(2.0));
        let failed = result("fail", "reject");
        assert_eq!(dmarc.judge(&failed, &none), DmarcJudgement::instead(Action::Score(2.0), "local_policy"));
        dmarc.trusted_sealers = serde_json_domains();
        let sealed = arc("pass", &["list.example"]);
        assert_eq!(
            dmarc.judge(&failed, &sealed),
            DmarcJudgement::instead(Action::PassOn, "trusted_forwarder")
        );
    }

    #[test]
    fn trusted_sealers_rescue_the_author_whom_they_saw_pass() {
        let dmarc = Dmarc { trusted_sealers: serde_json_domains(), ..Dmarc::default() };
        let rescues = |author, chain| dmarc.rescues(author, &chain);
        assert!(rescues("a.example", arc("pass", &["list.example"])));
        assert!(!rescues("b.example", arc("pass", &["list.example"])));
        assert!(!rescues("a.example", arc("pass", &["list.example", "evil.example"])));
        assert!(!rescues("a.example", arc("fail", &["list.example"])));
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
