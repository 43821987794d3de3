//! Host functions of `names`: registered domains, U-labels and skeletons.

use pintle_mail::names::{domain_to_unicode, registered_domain, skeleton};
use wasmtime::component::{HasData, Linker};

use super::domains::{charge_domain, converted, has_domain_length};
use crate::bindings::pintle::plugin::names::{self, Host};
use crate::bindings::pintle::plugin::types::HostError;
use crate::budget::Budget;
use crate::store_data::{HostParts, StoreData};

/// Budget charge per text and per octet of it: a skeleton takes two normalisations and can be longer than the text.
const TEXT_COST: u64 = 32;
const OCTET_COST: u64 = 8;
/// Maximum number of domains or texts of one call.
const MAX_ITEMS: usize = 10_000;

/// Adds the interface to the linker.
pub(crate) fn link(linker: &mut Linker<StoreData>) -> wasmtime::Result<()> {
    names::add_to_linker::<_, NamesInterface>(linker, |data| NamesView::of(data.parts()))
}

struct NamesInterface;

impl HasData for NamesInterface {
    type Data<'a> = NamesView<'a>;
}

/// The data that the interface accesses: the budget of the call. The functions depend on their arguments alone.
pub(crate) struct NamesView<'a> {
    budget: &'a mut Budget,
}

impl<'a> NamesView<'a> {
    pub(super) fn of(HostParts { call, .. }: HostParts<'a>) -> Self {
        Self { budget: &mut call.budget }
    }
}

impl Host for NamesView<'_> {
    fn registered_domains(&mut self, domains: Vec<String>) -> Result<Vec<Option<String>>, HostError> {
        self.each_domain(&domains, |domain| {
            Some(domain).filter(|domain| has_domain_length(domain)).and_then(registered_domain)
        })
    }

    fn to_unicode(&mut self, domains: Vec<String>) -> Result<Vec<String>, HostError> {
        self.each_domain(&domains, |domain| converted(domain, domain_to_unicode))
    }

    fn skeletons(&mut self, texts: Vec<String>) -> Result<Vec<String>, HostError> {
        if texts.len() > MAX_ITEMS {
            return Err(HostError::Limit(format!("one call takes at most {MAX_ITEMS} texts")));
        }
        let skeleton = |text: String| {
            self.budget.charge(TEXT_COST + OCTET_COST * text.len() as u64)?;
            let skeleton = skeleton(&text);
            self.budget.charge(skeleton.len() as u64)?;
            Ok(skeleton)
        };
        texts.into_iter().map(skeleton).collect()
    }
}

impl NamesView<'_> {
    fn each_domain<T>(
        &mut self,
        domains: &[String],
        convert: impl Fn(&str) -> T,
    ) -> Result<Vec<T>, HostError> {
        if domains.len() > MAX_ITEMS {
            return Err(HostError::Limit(format!("one call takes at most {MAX_ITEMS} domains")));
        }
        let each = |domain: &String| charge_domain(self.budget, domain).map(|()| convert(domain));
        domains.iter().map(each).collect()
    }
}
