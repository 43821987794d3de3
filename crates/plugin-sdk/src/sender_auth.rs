//! SPF, DKIM, DMARC and ARC, computed once a message by the host. Grants: sender-auth, and sign for signing.

pub use crate::bindings::services::pintle::plugin::sender_auth::{
    ArcResult, DkimResult, DmarcPolicy, DmarcResult, Outcome, SigningKey, SpfResult, arc, arc_seal, dkim,
    dkim_sign, dmarc, signing_keys, spf,
};

use crate::{HostError, transaction};

/// Reports every DKIM signature in the Authentication-Results field (RFC 8601 section 2.7.1, RFC 6008), unless another
/// plugin has already.
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
        transaction::add_auth_result("dkim", signature.outcome.name(), signature.reason.as_deref(), &known)?;
    }
    Ok(())
}

/// Reports the chain of ARC sets (RFC 8617 section 10.1), where there is one, unless another plugin has already.
///
/// # Errors
///
/// As [`arc`].
pub fn report_arc() -> Result<(), HostError> {
    let chain = arc()?;
    if chain.outcome == Outcome::None || is_reported("arc") {
        return Ok(());
    }
    transaction::add_auth_result("arc", chain.outcome.name(), None, &[])
}

fn is_reported(method: &str) -> bool {
    transaction::auth_results().iter().any(|result| result.method == method)
}

impl DmarcPolicy {
    /// The word in records and reports.
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
    /// The word of RFC 8601 section 2.7, for header fields, logs and configuration.
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
