//! Host functions of `gateway`: gateway-wide configuration that all plugins can read.

use arc_swap::ArcSwap;
use pintle_mail::address::domain_to_ascii;
use wasmtime::component::{HasData, Linker};

use crate::Gateway;
use crate::bindings::pintle::plugin::gateway::{self, Host, Snapshot};
use crate::budget::Budget;
use crate::store_data::{HostParts, StoreData};

/// Budget charge per octet of IDNA normalisation, and the maximum length of a domain that is normalised: U-labels may
/// need four octets per letter.
const OCTET_COST: u64 = 8;
const MAX_DOMAIN: usize = 1_024;

/// Adds the interface to the linker.
pub(crate) fn link(linker: &mut Linker<StoreData>) -> wasmtime::Result<()> {
    gateway::add_to_linker::<_, GatewayInterface>(linker, |data| GatewayView::of(data.parts()))
}

struct GatewayInterface;

impl HasData for GatewayInterface {
    type Data<'a> = GatewayView<'a>;
}

/// The data that the interface accesses: information about the gateway, and the budget of the call.
pub(crate) struct GatewayView<'a> {
    gateway: &'a ArcSwap<Gateway>,
    budget: &'a mut Budget,
}

impl<'a> GatewayView<'a> {
    fn of(HostParts { services, call, .. }: HostParts<'a>) -> Self {
        Self { gateway: &services.gateway, budget: &mut call.budget }
    }
}

impl Host for GatewayView<'_> {
    fn info(&mut self) -> Snapshot {
        Snapshot {
            hostname: self.gateway.load().hostname.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    fn is_local(&mut self, domain: String) -> bool {
        let domain = self.to_ascii(domain);
        self.gateway.load().domains.contains(&domain)
    }

    fn to_ascii(&mut self, domain: String) -> String {
        let paid = self.budget.charge(OCTET_COST * domain.len() as u64).is_ok();
        // A longer name is not a valid domain (RFC 1035 section 3.1), whatever its normalised form.
        if paid && domain.len() <= MAX_DOMAIN { domain_to_ascii(&domain) } else { domain.to_lowercase() }
    }

    fn local_domains(&mut self) -> Vec<String> {
        let domains: Vec<String> = self.gateway.load().domains.patterns().collect();
        let octets: usize = domains.iter().map(|domain| 32 + domain.len()).sum();
        self.budget.charged(Some(domains), |_| octets).unwrap_or_default()
    }
}
