//! The words for results that all methods share.

use std::fmt;

/// What a method found (RFC 8601 section 2.7). Not every method knows every outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuthOutcome {
    /// There is nothing to judge: no record, no signature.
    None,
    /// The domain's owner says nothing about this client.
    Neutral,
    /// It is as claimed.
    Pass,
    /// It is not as claimed.
    Fail,
    /// The domain's owner believes that it is not as claimed.
    SoftFail,
    /// It may be in order, but we do not accept such a thing: a key that is too weak, one signature too many.
    Policy,
    /// DNS did not answer; later it may.
    TempError,
    /// What was published or sent is broken; trying again will not help.
    PermError,
}

impl AuthOutcome {
    /// The word in header fields.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Neutral => "neutral",
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::SoftFail => "softfail",
            Self::Policy => "policy",
            Self::TempError => "temperror",
            Self::PermError => "permerror",
        }
    }
}

impl fmt::Display for AuthOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
