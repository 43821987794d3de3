//! SPF, DKIM, DMARC and ARC results, computed once per message by the host. Grant: sender-auth.
//!
//! The results name their outcome by a word, which the method `outcome` of each parses.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::bindings::services::pintle::plugin::sender_auth as host;
pub use crate::bindings::services::pintle::plugin::sender_auth::{
    ArcResult, ArcSet, DkimResult, DmarcResult, SpfResult, arc, dkim, dmarc, results, spf,
};
use crate::transaction::AuthResult;
use crate::{HostError, error, transaction};

/// The outcome of a method (RFC 8601 section 2.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthOutcome {
    /// There is nothing to check: no record, or no signature.
    None,
    /// The domain owner says nothing about it.
    Neutral,
    /// The message is authenticated.
    Pass,
    /// It is not.
    Fail,
    /// It probably is not (SPF only).
    Softfail,
    /// Not acceptable to the gateway, such as a signature with a short key.
    Policy,
    /// It cannot be decided now, usually because DNS does not answer.
    Temperror,
    /// It cannot be decided, because a record or the message is invalid.
    Permerror,
    /// An outcome of a later version of the contract; it is not a pass.
    Other,
}

impl From<&str> for AuthOutcome {
    fn from(word: &str) -> Self {
        match word {
            "none" => Self::None,
            "neutral" => Self::Neutral,
            "pass" => Self::Pass,
            "fail" => Self::Fail,
            "softfail" => Self::Softfail,
            "policy" => Self::Policy,
            "temperror" => Self::Temperror,
            "permerror" => Self::Permerror,
            _ => Self::Other,
        }
    }
}

/// A domain owner's DMARC policy; also what was done because of it ([`report_disposition`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DmarcPolicy {
    /// Nothing is to be done.
    None,
    /// Accept the mail and hold it.
    Quarantine,
    /// Refuse the mail.
    Reject,
}

impl DmarcPolicy {
    /// The word of the contract, which is also the one of event records and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Quarantine => "quarantine",
            Self::Reject => "reject",
        }
    }
}

/// An unknown word is "none", as the contract says.
impl From<&str> for DmarcPolicy {
    fn from(word: &str) -> Self {
        match word {
            "quarantine" => Self::Quarantine,
            "reject" => Self::Reject,
            _ => Self::None,
        }
    }
}

impl SpfResult {
    /// The field `outcome`, parsed.
    #[must_use]
    pub fn outcome(&self) -> AuthOutcome {
        self.outcome.as_str().into()
    }
}

impl DkimResult {
    /// The field `outcome`, parsed.
    #[must_use]
    pub fn outcome(&self) -> AuthOutcome {
        self.outcome.as_str().into()
    }
}

impl DmarcResult {
    /// The field `outcome`, parsed.
    #[must_use]
    pub fn outcome(&self) -> AuthOutcome {
        self.outcome.as_str().into()
    }

    /// The field `policy`, parsed.
    #[must_use]
    pub fn policy(&self) -> DmarcPolicy {
        self.policy.as_str().into()
    }
}

/// Adds the results of these methods ("spf", "dkim", "dmarc", "arc") to the Authentication-Results field for the
/// message's recipients. Several plugins may report the same: the field has it once. If the plugin lacks the grant
/// `auth-results`, the call succeeds without effect, and the log says so once.
///
/// # Errors
///
/// As [`results`] and [`transaction::add_auth_result`], except for a missing grant.
pub fn report(methods: &[&str]) -> Result<(), HostError> {
    let methods: Vec<String> = methods.iter().map(ToString::to_string).collect();
    results(&methods)?.iter().try_for_each(|found| spared(transaction::add_auth_result(found)))
}

/// Records for the gateway's event records and reports what was done with the message because of its author's DMARC
/// policy, and why that differs from the policy (terms of RFC 9990, such as "local_policy"). A missing grant is handled
/// as by [`report`].
///
/// # Errors
///
/// There is no transaction at this stage.
pub fn report_disposition(disposition: DmarcPolicy, overridden: Option<&str>) -> Result<(), HostError> {
    spared(host::report_disposition(disposition.name(), overridden))
}

/// Ignores a missing grant to report in the gateway's name: that is no reason to stop mail.
fn spared(reported: Result<(), HostError>) -> Result<(), HostError> {
    static TOLD: AtomicBool = AtomicBool::new(false);
    match reported {
        Err(HostError::Denied(grant)) => {
            if !TOLD.swap(true, Ordering::Relaxed) {
                error!("nothing is reported in the gateway's name: the plugin lacks the grant `{grant}`");
            }
            Ok(())
        }
        reported => reported,
    }
}

impl ArcResult {
    /// The field `outcome`, parsed.
    #[must_use]
    pub fn outcome(&self) -> AuthOutcome {
        self.outcome.as_str().into()
    }

    /// Whether a trusted sealer saw the message when it was still authenticated for its author's domain: the chain
    /// passes, and one of the newest sealers reports that; it and all newer ones must be trusted. Older sealers do not
    /// matter, since that sealer has checked what they left.
    ///
    /// A seal of a trusted list is no proof of the author, since a list forwards whatever it receives. What counts is
    /// `dmarc=pass` for the author's domain or, if the sealer reports no DMARC result, a DKIM signature or an SPF
    /// result of exactly that domain (RFC 8617 section 7.2.1).
    pub fn vouches(&self, is_trusted: impl Fn(&str) -> bool, is_author: impl Fn(&str) -> bool) -> bool {
        let newest_first = self.sets.iter().rev();
        self.outcome() == AuthOutcome::Pass
            && newest_first
                .take_while(|set| is_trusted(&set.sealer))
                .any(|set| stood_behind(&set.results, &is_author))
    }
}

fn stood_behind(results: &[AuthResult], is_author: &impl Fn(&str) -> bool) -> bool {
    let passed = |result: &AuthResult, property: &str| {
        // A result that names several domains, or none, does not count for any.
        let mut named = result.properties.iter().filter(|(name, _)| name == property);
        let domain = match (named.next(), named.next()) {
            (Some((_, value)), None) => value.rsplit('@').next().unwrap_or_default().to_ascii_lowercase(),
            _ => return false,
        };
        result.outcome == "pass" && is_author(&domain)
    };
    let mut dmarc = results.iter().filter(|result| result.method == "dmarc").peekable();
    if dmarc.peek().is_some() {
        return dmarc.all(|result| passed(result, "header.from"));
    }
    results.iter().any(|result| match result.method.as_str() {
        // RFC 8601 section 2.7.1 permits either property.
        "dkim" => passed(result, "header.d") || passed(result, "header.i"),
        "spf" => passed(result, "smtp.mailfrom"),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(method: &str, outcome: &str, properties: &[(&str, &str)]) -> AuthResult {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        AuthResult {
            method: method.to_owned(),
            outcome: outcome.to_owned(),
            reason: None,
            properties: properties.iter().map(owned).collect(),
        }
    }

    fn vouches(outcome: &str, sets: &[(&str, &[AuthResult])]) -> bool {
        let set = |(sealer, results): &(&str, &[AuthResult])| ArcSet {
            sealer: (*sealer).to_owned(),
            results: results.to_vec(),
        };
        let chain = ArcResult {
            outcome: outcome.to_owned(),
            sets: sets.iter().map(set).collect(),
            details: Vec::new(),
        };
        chain.vouches(|sealer| sealer == "list.example", |domain| domain == "a.example")
    }

    #[test]
    fn a_sealer_vouches_for_what_it_saw_pass() {
        let of = |results: &[AuthResult]| vouches("pass", &[("list.example", results)]);
        let from = [("header.from", "A.example")];
        assert!(of(&[result("dmarc", "pass", &from)]));
        assert!(of(&[result("spf", "pass", &[("smtp.mailfrom", "x@a.example")])]));
        assert!(of(&[result("dkim", "fail", &[]), result("dkim", "pass", &[("header.d", "a.example")])]));
        let signed = result("dkim", "pass", &[("header.d", "a.example")]);
        for (why, results) in [
            ("it says nothing", &[][..]),
            ("it saw a forgery", &[result("dmarc", "fail", &from), signed]),
            ("it says both", &[result("dmarc", "pass", &from), result("dmarc", "fail", &from)]),
            ("of another author", &[result("dmarc", "pass", &[("header.from", "b.example")])]),
            ("of two", &[result("dmarc", "pass", &[("header.from", "b.example"), from[0]])]),
            ("of nobody", &[result("dmarc", "pass", &[])]),
            ("of a chain", &[result("arc", "pass", &[("header.d", "a.example")])]),
            ("of another signer", &[result("dkim", "pass", &[("header.d", "b.example")])]),
        ] {
            assert!(!of(results), "{why}");
        }
    }

    #[test]
    fn those_are_believed_behind_whom_nobody_but_the_trusted_stands() {
        let passed = [result("dmarc", "pass", &[("header.from", "a.example")])];
        let (trusted, stranger) = (("list.example", &passed[..]), ("evil.example", &passed[..]));
        assert!(!vouches("fail", &[trusted]));
        assert!(!vouches("pass", &[]));
        assert!(!vouches("pass", &[trusted, stranger]), "a stranger has had it since");
        assert!(vouches("pass", &[stranger, trusted]), "it looked for itself");
        assert!(!vouches("pass", &[stranger, ("list.example", &[])]), "it believes others");
        assert!(vouches("pass", &[trusted, ("list.example", &[])]));
    }

    #[test]
    fn an_unknown_word_is_no_pass_and_no_policy() {
        assert_eq!(AuthOutcome::from("pass"), AuthOutcome::Pass);
        assert_eq!(AuthOutcome::from("Pass"), AuthOutcome::Other);
        assert_eq!(DmarcPolicy::from("reject"), DmarcPolicy::Reject);
        assert_eq!(DmarcPolicy::from("shred"), DmarcPolicy::None);
    }
}
