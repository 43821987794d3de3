//! The result values that all methods share.

use std::fmt;

/// The result of a method (RFC 8601 section 2.7). Not every method has every result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuthOutcome {
    /// There is nothing to check: no record, no signature.
    None,
    /// The domain's owner makes no statement about this client.
    Neutral,
    /// The claim is verified.
    Pass,
    /// The claim is false.
    Fail,
    /// The domain's owner believes that the claim is false.
    SoftFail,
    /// The check may have passed, but our policy does not accept it: a key that is too weak, one signature too many.
    Policy,
    /// DNS did not answer; a later check may succeed.
    TempError,
    /// The published record or the message is broken; trying again will not help.
    PermError,
}

impl AuthOutcome {
    /// The result's name in header fields.
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
