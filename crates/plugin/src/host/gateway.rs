//! Host functions of `gateway`: gateway-wide configuration that all plugins can read.

use std::sync::atomic::Ordering;

use pintle_mail::address::domain_to_ascii;
use wasmtime::component::{HasData, Linker};

use super::domains::{charge_domain, converted};
use crate::bindings::pintle::plugin::gateway::{self, Host, Snapshot};
use crate::budget::Budget;
use crate::state::HostServices;
use crate::store_data::{HostParts, StoreData};

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
    services: &'a HostServices,
    budget: &'a mut Budget,
}

impl<'a> GatewayView<'a> {
    pub(super) fn of(HostParts { services, call, .. }: HostParts<'a>) -> Self {
        Self { services, budget: &mut call.budget }
    }
}

impl Host for GatewayView<'_> {
    fn info(&mut self) -> Snapshot {
        Snapshot {
            hostname: self.services.gateway.load().hostname.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            contract: crate::examine::OFFERED.to_owned(),
        }
    }

    fn are_local(&mut self, domains: Vec<String>) -> Vec<bool> {
        let domains = self.to_ascii(domains);
        let gateway = self.services.gateway.load();
        domains.iter().map(|domain| gateway.domains.contains(domain)).collect()
    }

    fn to_ascii(&mut self, domains: Vec<String>) -> Vec<String> {
        domains.into_iter().map(|domain| self.ascii(&domain)).collect()
    }

    fn local_domains(&mut self) -> Vec<String> {
        let domains: Vec<String> = self.services.gateway.load().domains.patterns().collect();
        let octets: usize = domains.iter().map(|domain| 32 + domain.len()).sum();
        self.budget.charged(Some(domains), |_| octets).unwrap_or_default()
    }

    fn generation(&mut self) -> u32 {
        self.services.gateway_generation.load(Ordering::Acquire)
    }
}

impl GatewayView<'_> {
    fn ascii(&mut self, domain: &str) -> String {
        match charge_domain(self.budget, domain) {
            Ok(()) => converted(domain, domain_to_ascii),
            Err(_) => domain.to_lowercase(),
        }
    }
}
