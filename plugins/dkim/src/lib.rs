//! DKIM (RFC 6376) and ARC sealing (RFC 8617): reports the signatures of strangers' mail and applies the operator's
//! actions to the results; signs our own mail with every key of its author's domain.
//!
//! The gateway verifies and signs; this plugin never sees the private keys. Our own mail is mail from authenticated
//! clients and trusted networks. It is signed once, on reception, for all deliveries. Messages that the gateway
//! generates (its reports to senders) are never received, so they are signed at delivery.

use pintle_plugin_sdk::action::{Action, ActionReason};
use pintle_plugin_sdk::sender_auth::{self, AuthOutcome, DkimResult};
use pintle_plugin_sdk::settings::Domain;
use pintle_plugin_sdk::{mailboxes, metrics, prelude::*, signing};

/// The note that marks a message as already signed.
const SIGNED: &str = "signed";

/// The operator's configuration.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Dkim {
    /// Actions when a stranger's message has no signature, no valid one, or one that cannot be checked.
    none: Action,
    fail: Action,
    temperror: Action,
    /// Authors' domains that sign all of their mail: a message without a valid signature of that domain gets `missing`.
    required: Vec<Domain>,
    missing: Action,
    /// Whether mail of trusted and authenticated clients is signed.
    sign: bool,
    /// Whether a key of a parent domain signs if the author's own domain has none.
    parents: bool,
    /// Name of the key that seals strangers' mail with ARC; `None` seals nothing.
    seal: Option<String>,
}

impl Default for Dkim {
    fn default() -> Self {
        Self {
            none: Action::PassOn,
            fail: Action::PassOn,
            temperror: Action::PassOn,
            required: Vec::new(),
            missing: Action::Reject,
            sign: true,
            parents: true,
            seal: None,
        }
    }
}

impl Plugin for Dkim {
    const ID: &'static str = "pintle.dkim";
    const WANTS: &'static [&'static str] = &["sender-auth", "auth-results", "sign"];
    const CONFIG_SCHEMA: Option<&'static str> = Some(include_str!("../config.schema.json"));

    fn conditions(&self) -> Result<(), HostError> {
        if !self.sign {
            calls::only_strangers(&["on-message"])?;
        }
        calls::only_known(&["on-deliver"])
    }
}

impl Dkim {
    fn on_message(&self) -> Result<Verdict, HostError> {
        if session::info()?.known {
            self.sign()?;
            return Ok(Verdict::Next);
        }
        let verdict = self.verify()?;
        self.seal()?;
        Ok(verdict)
    }

    fn seal(&self) -> Result<(), HostError> {
        let Some(key) = &self.seal else { return Ok(()) };
        match signing::arc_seal(key) {
            // An operator's mistake, handled as in `sign`: logged, without stopping the mail.
            Err(HostError::Invalid(why)) => error!("nothing is sealed: {why}"),
            Err(HostError::Denied(grant)) => {
                error!("nothing is sealed: the plugin lacks the grant `{grant}`")
            }
            sealed => sealed?,
        }
        Ok(())
    }

    /// Signs at delivery what was not received, or was received before the key existed.
    fn on_deliver(&self) -> Result<Verdict, HostError> {
        if session::info()?.known && transaction::note(SIGNED)?.is_none() {
            self.sign()?;
        }
        Ok(Verdict::Next)
    }

    fn verify(&self) -> Result<Verdict, HostError> {
        let signatures = sender_auth::dkim()?;
        sender_auth::report(&["dkim"])?;
        let (best, is_missing) = (best(&signatures), self.lacks_its_own(&signatures)?);
        let name = best.map_or("none", |signature| &signature.outcome);
        transaction::set_fact("result", name)?;
        metrics::count("results", 1, &[("result", name)]);
        let action = match best.map_or(AuthOutcome::None, DkimResult::outcome) {
            AuthOutcome::Temperror => self.temperror,
            _ if is_missing => self.missing,
            AuthOutcome::Pass => Action::PassOn,
            AuthOutcome::None => self.none,
            _ => self.fail,
        };
        let text = explain(best);
        if action.stops() {
            info!(client = session::info()?.client; "not passed on: {text}");
        }
        // RFC 7372 section 3.1: no signature of the author's domain passes, or no signature at all.
        action.take(&ActionReason {
            rule: "dkim",
            quarantine: "dkim",
            code: if is_missing { "7.22" } else { "7.20" },
            text: &text,
        })
    }

    /// Whether the author's domain is in `required` and the message has no valid signature of it. True too if there are
    /// too many authors to say.
    fn lacks_its_own(&self, signatures: &[DkimResult]) -> Result<bool, HostError> {
        if self.required.is_empty() {
            return Ok(false);
        }
        let good = |domain: &String| {
            let own = |signature: &DkimResult| is_within(domain, &signature.domain);
            signatures.iter().any(|signature| signature.outcome() == AuthOutcome::Pass && own(signature))
        };
        let is_required = |domain: &String| self.required.iter().any(|required| required.matches(domain));
        let lacks = |authors: Vec<String>| authors.iter().any(|domain| is_required(domain) && !good(domain));
        Ok(authors()?.is_none_or(lacks))
    }

    /// Signs with every key of the author's domain. Mail without a single author's domain stays unsigned: a signature
    /// would vouch for an author that readers may not see.
    fn sign(&self) -> Result<(), HostError> {
        let authors = authors()?.unwrap_or_default();
        let (true, Some(author)) = (self.sign, one(&authors)) else {
            return Ok(());
        };
        let keys = match signing::keys(author, self.parents) {
            // An operator's mistake must not stop the mail; it is logged with each message.
            Err(HostError::Denied(grant)) => {
                error!("nothing is signed: the plugin lacks the grant `{grant}`");
                return Ok(());
            }
            keys => keys?,
        };
        for key in &keys {
            signing::dkim_sign(&key.name)?;
        }
        metrics::count("signed", 1, &[("signed", if keys.is_empty() { "no-key" } else { "yes" })]);
        if keys.is_empty() {
            debug!(domain = author; "there is no key for this domain");
            return Ok(());
        }
        transaction::set_note(SIGNED, Some(b"1"))
    }
}

/// The domains of all addresses in all From fields, in A-labels, as used for keys, signatures and configuration. `None`
/// if there are more than the gateway returns: the sender decides how many, and must not be able to make the plugin fail.
fn authors() -> Result<Option<Vec<String>>, HostError> {
    match mailboxes::addresses_in_headers(&["From"]) {
        Ok(authors) => Ok(Some(authors.into_iter().map(|author| author.domain).collect())),
        Err(HostError::Limit(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The domain shared by all authors; `None` if they differ or there are none.
fn one(authors: &[String]) -> Option<&str> {
    let first = authors.first()?;
    authors.iter().all(|domain| domain == first).then_some(first)
}

fn is_within(domain: &str, parent: &str) -> bool {
    domain == parent
        || domain.strip_suffix(parent).is_some_and(|rest| !parent.is_empty() && rest.ends_with('.'))
}

/// The best signature (RFC 6376 section 6.1): one valid signature is enough, and invalid ones do no harm. `None` if
/// there is no signature.
fn best(signatures: &[DkimResult]) -> Option<&DkimResult> {
    let with = |outcome| signatures.iter().find(|signature| signature.outcome() == outcome);
    let order = [AuthOutcome::Pass, AuthOutcome::Temperror, AuthOutcome::Fail];
    order.into_iter().find_map(with).or(signatures.first())
}

fn explain(best: Option<&DkimResult>) -> String {
    match best {
        None => "DKIM: the message is not signed".to_owned(),
        Some(signature) if signature.outcome() == AuthOutcome::Pass => {
            "DKIM: the author's domain signs all its mail, but not this message".to_owned()
        }
        Some(DkimResult { domain, outcome, reason, .. }) => {
            let why = reason.as_deref().unwrap_or("it does not verify");
            format!("DKIM signature of {domain}: {outcome}: {why}")
        }
    }
}

pintle_plugin_sdk::export!(Dkim: on_message, on_deliver);

#[cfg(test)]
mod tests {
    use super::*;

    fn signature(outcome: &str) -> DkimResult {
        DkimResult {
            outcome: outcome.to_owned(),
            domain: "a.example".to_owned(),
            selector: "s".to_owned(),
            identity: None,
            reason: None,
            details: Vec::new(),
        }
    }

    #[test]
    fn one_good_signature_is_enough() {
        let of = |outcomes: &[&str]| {
            let signatures: Vec<_> = outcomes.iter().map(|outcome| signature(outcome)).collect();
            best(&signatures).map(|signature| signature.outcome.clone())
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&["fail", "pass"]).as_deref(), Some("pass"));
        assert_eq!(of(&["fail", "temperror"]).as_deref(), Some("temperror"));
        assert_eq!(of(&["permerror", "fail"]).as_deref(), Some("fail"));
        assert_eq!(of(&["policy"]).as_deref(), Some("policy"));
        assert_eq!(of(&["unheard-of"]).as_deref(), Some("unheard-of"));
    }

    #[test]
    fn the_best_signature_explains_the_refusal() {
        assert!(explain(None).contains("not signed"));
        assert!(explain(Some(&signature("pass"))).contains("not this message"));
        let text = explain(Some(&signature("fail")));
        assert_eq!(text, "DKIM signature of a.example: fail: it does not verify");
    }

    #[test]
    fn only_one_author_is_signed_for() {
        let of = |domains: &[&str]| {
            let domains: Vec<_> = domains.iter().map(|&domain| domain.to_owned()).collect();
            one(&domains).map(str::to_owned)
        };
        assert_eq!(of(&["a.example", "a.example"]).as_deref(), Some("a.example"));
        assert_eq!(of(&["a.example", "b.example"]), None);
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn a_signer_vouches_for_its_own_domain_and_those_below() {
        assert!(is_within("a.example", "a.example"));
        assert!(is_within("news.a.example", "a.example"));
        assert!(!is_within("bada.example", "a.example"));
        assert!(!is_within("a.example", "news.a.example"));
        assert!(!is_within("a.example", ""));
    }
}
