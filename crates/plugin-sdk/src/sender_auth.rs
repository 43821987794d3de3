//! SPF, DKIM, DMARC and ARC, computed once a message by the host. Grants: sender-auth, and sign for signing.

pub use crate::bindings::services::pintle::plugin::sender_auth::{
    ArcResult, DkimResult, DmarcPolicy, DmarcResult, Outcome, SigningKey, SpfResult, arc, arc_seal, dkim,
    dkim_sign, dmarc, signing_keys, spf,
};

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
