//! `gateway`: what the operator has said once, for all plugins.

use pintle_mail::address::domain_to_ascii;

use crate::bindings::pintle::plugin::gateway::{Host, Snapshot};
use crate::store_data::StoreData;

/// What normalising an octet costs, and the longest domain for which it is done: U-labels may have four octets a letter.
const OCTET_COST: u64 = 8;
const MAX_DOMAIN: usize = 1_024;

impl Host for StoreData {
    fn info(&mut self) -> Snapshot {
        Snapshot {
            hostname: self.common.gateway.load().hostname.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    fn is_local(&mut self, domain: String) -> bool {
        let domain = self.to_ascii(domain);
        self.common.gateway.load().domains.contains(&domain)
    }

    fn to_ascii(&mut self, domain: String) -> String {
        let paid = self.live.budget.charge(OCTET_COST * domain.len() as u64).is_ok();
        // What is longer than a domain can be is none (RFC 1035 section 3.1), whatever it would become.
        if paid && domain.len() <= MAX_DOMAIN { domain_to_ascii(&domain) } else { domain.to_lowercase() }
    }

    fn local_domains(&mut self) -> Vec<String> {
        let domains: Vec<String> = self.common.gateway.load().domains.patterns().collect();
        let octets: usize = domains.iter().map(|domain| 32 + domain.len()).sum();
        self.charged(Some(domains), |_| octets).unwrap_or_default()
    }
}
