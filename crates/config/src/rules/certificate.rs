//! Rules for the validity of certificates.

use std::fmt;

/// A rule for the validity of certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertificateRule {
    /// The certificate expired on this day (a warning).
    Expired(String),
    /// The certificate expires soon, on this day (a warning).
    ExpiresSoon(String),
    /// The certificate is not valid before this day (a warning).
    NotYetValid(String),
}

impl fmt::Display for CertificateRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired(at) => write!(f, "this certificate expired on {at}"),
            Self::ExpiresSoon(at) => write!(f, "this certificate expires on {at}"),
            Self::NotYetValid(at) => write!(f, "this certificate is not valid before {at}"),
        }
    }
}

impl CertificateRule {
    pub(super) fn remedy(&self) -> String {
        match self {
            Self::Expired(_) | Self::ExpiresSoon(_) => "renew it; the gateway loads the new one by itself",
            Self::NotYetValid(_) => "check this machine's clock, or wait",
        }
        .into()
    }
}
