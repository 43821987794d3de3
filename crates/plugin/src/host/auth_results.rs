//! Results of sender authentication in the form of the Authentication-Results field (RFC 8601 section 2.2).

use super::checks::{self, MAX_TEXT};
use crate::bindings::pintle::plugin::sender_auth::{ArcResult, DkimResult, DmarcResult, SpfResult};
use crate::bindings::pintle::plugin::transaction::AuthResult;

/// RFC 8601 section 2.7.2.
pub(super) fn of_spf(result: SpfResult) -> AuthResult {
    let property = if result.mail_from { "smtp.mailfrom" } else { "smtp.helo" };
    auth_result("spf", result.outcome, None, vec![(property, result.domain)], result.details)
}

/// RFC 8601 section 2.7.1, and RFC 6008 for the start of the signature.
pub(super) fn of_dkim(result: DkimResult) -> AuthResult {
    let identity = result.identity.unwrap_or_default();
    let properties = vec![("header.d", result.domain), ("header.i", identity), ("header.s", result.selector)];
    auth_result("dkim", result.outcome, result.reason, properties, result.details)
}

/// RFC 7489 section 11.2.
pub(super) fn of_dmarc(result: DmarcResult) -> AuthResult {
    let properties = vec![("header.from", result.from_domain), ("policy.dmarc", result.policy)];
    auth_result("dmarc", result.outcome, None, properties, result.details)
}

/// RFC 8617 section 10.1. None if there is no chain.
pub(super) fn of_arc(result: ArcResult) -> Option<AuthResult> {
    let is_there = result.outcome != "none";
    is_there.then(|| auth_result("arc", result.outcome, None, Vec::new(), result.details))
}

/// A result whose texts, which come from mail and DNS, are such that `add-auth-result` takes them.
fn auth_result(
    method: &str,
    outcome: String,
    reason: Option<String>,
    properties: Vec<(&str, String)>,
    details: Vec<(String, String)>,
) -> AuthResult {
    let known = properties.into_iter().filter(|(_, value)| !value.is_empty());
    let all = known.map(|(name, value)| (name.to_owned(), value)).chain(details);
    AuthResult {
        method: method.to_owned(),
        outcome,
        reason: reason.map(|reason| checks::line(&reason, MAX_TEXT)),
        properties: all.map(|(name, value)| (name, checks::line(&value, MAX_TEXT))).collect(),
    }
}
