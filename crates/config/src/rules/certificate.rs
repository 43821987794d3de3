//! The time in which a certificate is valid.

use std::fmt;

/// The time in which a certificate is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertificateRule {
    /// A certificate's time is over, since this day (a warning).
    Expired(String),
    /// A certificate's time is over soon, on this day (a warning).
    ExpiresSoon(String),
    /// A certificate's time has not begun (a warning).
    NotYetValid(String),
}

impl fmt::Display for CertificateRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired(at) => write!(f, "this certificate has expired on {at}"),
            Self::ExpiresSoon(at) => write!(f, "this certificate expires on {at}"),
            Self::NotYetValid(at) => write!(f, "this certificate is not valid before {at}"),
        }
    }
}

impl CertificateRule {
    pub(super) fn remedy(&self) -> String {
        match self {
            Self::Expired(_) | Self::ExpiresSoon(_) => "renew it; the gateway serves the new one by itself",
            Self::NotYetValid(_) => "look at this machine's clock, or wait",
        }
        .into()
    }
}
