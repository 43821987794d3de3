//! Domains in arguments of host functions: how long they may be, and the budget charge for converting them.

use crate::bindings::pintle::plugin::types::HostError;
use crate::budget::Budget;

/// Budget charge per domain and per octet of it: IDNA normalisation takes several passes.
const DOMAIN_COST: u64 = 32;
const OCTET_COST: u64 = 8;
/// Maximum length of a domain that is converted, in octets: U-labels may need four octets per letter.
const MAX_DOMAIN: usize = 1_024;

/// Charges for the conversion of a domain.
pub(super) fn charge_domain(budget: &mut Budget, domain: &str) -> Result<(), HostError> {
    budget.charge(DOMAIN_COST + OCTET_COST * domain.len() as u64)
}

/// Whether the text is not too long for a domain (RFC 1035 section 3.1), whatever its normalised form.
pub(super) fn has_domain_length(domain: &str) -> bool {
    domain.len() <= MAX_DOMAIN
}

/// The domain converted by `convert`; in lower case if it is too long for a domain.
pub(super) fn converted(domain: &str, convert: fn(&str) -> String) -> String {
    if has_domain_length(domain) { convert(domain) } else { domain.to_lowercase() }
}
