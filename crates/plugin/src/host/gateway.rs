//! `gateway`: what the operator has said once, for all plugins.

use pintle_mail::address::domain_to_ascii;

use crate::bindings::pintle::plugin::gateway::{Host, Snapshot};
use crate::guest::Guest;

impl Host for Guest {
    fn info(&mut self) -> Snapshot {
        Snapshot {
            hostname: self.common.gateway.load().hostname.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    fn is_local(&mut self, domain: String) -> bool {
        self.common.gateway.load().domains.contains(&domain_to_ascii(&domain))
    }

    fn to_ascii(&mut self, domain: String) -> String {
        domain_to_ascii(&domain)
    }

    fn local_domains(&mut self) -> Vec<String> {
        self.common.gateway.load().domains.patterns().collect()
    }
}
