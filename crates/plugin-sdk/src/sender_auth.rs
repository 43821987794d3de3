//! SPF, DKIM, DMARC and ARC results, computed once per message by the host. Grants: sender-auth, and sign for signing.

pub use crate::bindings::services::pintle::plugin::sender_auth::{
    ArcResult, DkimResult, DmarcPolicy, DmarcResult, Outcome, SigningKey, SpfResult, arc, arc_seal, dkim,
    dkim_sign, dmarc, signing_keys, spf,
};

use std::sync::atomic::{AtomicBool, Ordering};

use crate::transaction::AuthResult;
use crate::{HostError, error, transaction};

/// Adds a result to the Authentication-Results field for the message's recipients. If the plugin lacks the grant
/// `auth-results`, the call succeeds without effect, and the log says so once.
///
/// # Errors
///
/// As [`transaction::add_auth_result`], except for a missing grant.
pub fn report(
    method: &str,
    outcome: Outcome,
    reason: Option<&str>,
    properties: &[(String, String)],
) -> Result<(), HostError> {
    spared(transaction::add_auth_result(method, outcome.name(), reason, properties))
}

/// Records for the gateway's event records what was done with the message because of its author's DMARC policy, and why
/// that differs from the policy (terms of RFC 9990). A missing grant is handled as by [`report`].
///
/// # Errors
///
/// As [`transaction::set_fact`], except for a missing grant.
pub fn report_disposition(disposition: &str, overridden: Option<&str>) -> Result<(), HostError> {
    spared(transaction::set_fact("dmarc.disposition", disposition))?;
    overridden.map_or(Ok(()), |reason| spared(transaction::set_fact("dmarc.override", reason)))
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

/// Adds every DKIM signature's result to the Authentication-Results field (RFC 8601 section 2.7.1, RFC 6008), unless
/// another plugin has already done so.
///
/// # Errors
///
/// As [`dkim`].
pub fn report_dkim() -> Result<(), HostError> {
    if is_reported("dkim") {
        return Ok(());
    }
    for signature in dkim()? {
        let properties = [
            ("header.d".to_owned(), signature.domain),
            ("header.i".to_owned(), signature.identity.unwrap_or_default()),
            ("header.s".to_owned(), signature.selector),
            ("header.a".to_owned(), signature.algorithm),
            ("header.b".to_owned(), signature.signature),
        ];
        let known: Vec<_> = properties.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        report("dkim", signature.outcome, signature.reason.as_deref(), &known)?;
    }
    Ok(())
}

/// Adds the result of the ARC chain (RFC 8617 section 10.1), if there is one, unless another plugin has already done
/// so.
///
/// # Errors
///
/// As [`arc`].
pub fn report_arc() -> Result<(), HostError> {
    let chain = arc()?;
    if chain.outcome == Outcome::None || is_reported("arc") {
        return Ok(());
    }
    report("arc", chain.outcome, None, &[])
}

fn is_reported(method: &str) -> bool {
    transaction::auth_results().iter().any(|result| result.method == method)
}

impl ArcResult {
    /// Whether a trusted sealer saw the message when it was still authenticated for its author's domain: the chain
    /// passes, and one of the newest sealers reports that; it and all newer ones must be trusted. Older sealers do not
    /// matter, since that sealer has checked what they left.
    ///
    /// A seal of a trusted list is no proof of the author, since a list forwards whatever it receives. What counts is
    /// `dmarc=pass` for the author's domain or, if the sealer reports no DMARC result, a DKIM signature or an SPF
    /// result of exactly that domain (RFC 8617 section 7.2.1).
    pub fn vouches(&self, is_trusted: impl Fn(&str) -> bool, is_author: impl Fn(&str) -> bool) -> bool {
        let newest_first = self.sealers.iter().zip(&self.results).rev();
        self.outcome == Outcome::Pass
            && newest_first
                .take_while(|(sealer, _)| is_trusted(sealer))
                .any(|(_, results)| stood_behind(results, &is_author))
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

impl DmarcPolicy {
    /// The name in event records and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Quarantine => "quarantine",
            Self::Reject => "reject",
        }
    }
}

impl Outcome {
    /// The name from RFC 8601 section 2.7, for header fields, logs and configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Neutral => "neutral",
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Softfail => "softfail",
            Self::Policy => "policy",
            Self::Temperror => "temperror",
            Self::Permerror => "permerror",
        }
    }
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

    fn vouches(outcome: Outcome, sets: &[(&str, &[AuthResult])]) -> bool {
        let chain = ArcResult {
            outcome,
            sealers: sets.iter().map(|(sealer, _)| (*sealer).to_owned()).collect(),
            results: sets.iter().map(|(_, results)| results.to_vec()).collect(),
        };
        chain.vouches(|sealer| sealer == "list.example", |domain| domain == "a.example")
    }

    #[test]
    fn a_sealer_vouches_for_what_it_saw_pass() {
        let of = |results: &[AuthResult]| vouches(Outcome::Pass, &[("list.example", results)]);
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
        assert!(!vouches(Outcome::Fail, &[trusted]));
        assert!(!vouches(Outcome::Pass, &[]));
        assert!(!vouches(Outcome::Pass, &[trusted, stranger]), "a stranger has had it since");
        assert!(vouches(Outcome::Pass, &[stranger, trusted]), "it looked for itself");
        assert!(!vouches(Outcome::Pass, &[stranger, ("list.example", &[])]), "it believes others");
        assert!(vouches(Outcome::Pass, &[trusted, ("list.example", &[])]));
    }
}
