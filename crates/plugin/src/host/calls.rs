//! Host functions of `calls`: the conditions under which the plugin's hooks are called, stated in `configure`.

use pintle_policy::Hook;
use wasmtime::component::{HasData, Linker};

use super::checks;
use crate::bindings::pintle::plugin::calls::{self, Host};
use crate::bindings::pintle::plugin::types::HostError;
use crate::call::CallState;
use crate::call_conditions::{AddressPatterns, CallCondition, ClientNetwork};
use crate::store_data::{HostParts, StoreData};

/// Maximum number of conditions of a plugin, and of names in one of them.
const MAX_CONDITIONS: usize = 100;
const MAX_NAMES: usize = 10_000;
/// Budget charge for a name, in octets.
const NAME_COST: u64 = 64;

/// Adds the interface to the linker.
pub(crate) fn link(linker: &mut Linker<StoreData>) -> wasmtime::Result<()> {
    calls::add_to_linker::<_, CallsInterface>(linker, |data| CallsView::of(data.parts()))
}

struct CallsInterface;

impl HasData for CallsInterface {
    type Data<'a> = CallsView<'a>;
}

/// The data that the interface accesses: the conditions stated so far, in the call of `configure`.
pub(crate) struct CallsView<'a> {
    call: &'a mut CallState,
}

impl<'a> CallsView<'a> {
    pub(super) fn of(HostParts { call, .. }: HostParts<'a>) -> Self {
        Self { call }
    }
}

impl Host for CallsView<'_> {
    fn never(&mut self, hook: String) -> Result<(), HostError> {
        self.add(&hook, CallCondition::Never)
    }

    fn only_clients(&mut self, hook: String, clients: String) -> Result<(), HostError> {
        let known = match clients.as_str() {
            "strangers" => false,
            "known" => true,
            _ => {
                let text = format!("{clients:?} names no clients: there are \"strangers\" and \"known\"");
                return Err(HostError::Unavailable(text));
            }
        };
        self.add(&hook, CallCondition::Known(known))
    }

    fn only_listeners(&mut self, hook: String, names: Vec<String>) -> Result<(), HostError> {
        self.charge(&names)?;
        self.add(&hook, CallCondition::Listeners(names.into_iter().collect()))
    }

    fn not_networks(&mut self, hook: String, networks: Vec<String>) -> Result<(), HostError> {
        self.charge(&networks)?;
        let parsed = |text: &String| {
            let not = || HostError::Invalid(format!("{text:?} is not a network or an address"));
            ClientNetwork::parse(text).ok_or_else(not)
        };
        let networks = networks.iter().map(parsed).collect::<Result<_, _>>()?;
        self.add(&hook, CallCondition::NotNetworks(networks))
    }

    fn only_senders(&mut self, hook: String, patterns: Vec<String>) -> Result<(), HostError> {
        let patterns = self.patterns(&patterns)?;
        self.add(&hook, CallCondition::Senders(patterns))
    }

    fn only_recipients(&mut self, hook: String, patterns: Vec<String>) -> Result<(), HostError> {
        let patterns = self.patterns(&patterns)?;
        self.add(&hook, CallCondition::Recipients(patterns))
    }

    fn only_with_headers(&mut self, hook: String, names: Vec<String>) -> Result<(), HostError> {
        self.charge(&names)?;
        let names = names.into_iter().map(|name| name.to_ascii_lowercase().into()).collect();
        self.add(&hook, CallCondition::Headers(names))
    }

    fn only_sizes(&mut self, hook: String, min: u32, max: u32) -> Result<(), HostError> {
        // The largest number stands for all larger sizes.
        let max = if max == u32::MAX { u64::MAX } else { max.into() };
        self.add(&hook, CallCondition::Sizes(min.into(), max))
    }
}

impl CallsView<'_> {
    fn add(&mut self, hook: &str, condition: CallCondition) -> Result<(), HostError> {
        let known =
            hook.strip_prefix("on-").and_then(|name| Hook::ALL.iter().find(|hook| hook.name() == name));
        let hook = *known.ok_or_else(|| HostError::Invalid(format!("there is no hook {hook:?}")))?;
        if !condition.applies_at(hook) {
            return Err(HostError::Invalid(format!("this condition cannot be evaluated in on-{hook}")));
        }
        if self.call.hook.is_some() {
            return Err(HostError::Unavailable("conditions of calling are stated in `configure`".into()));
        }
        if self.call.conditions.count() >= MAX_CONDITIONS {
            return Err(HostError::Limit(format!("a plugin has at most {MAX_CONDITIONS} conditions")));
        }
        self.call.conditions.add(hook, condition);
        Ok(())
    }

    fn charge(&mut self, names: &[String]) -> Result<(), HostError> {
        checks::bounded("a list of a condition", names.len(), MAX_NAMES)?;
        let octets: usize = names.iter().map(String::len).sum();
        self.call.budget.charge(NAME_COST * names.len() as u64 + octets as u64)
    }

    fn patterns(&mut self, texts: &[String]) -> Result<AddressPatterns, HostError> {
        self.charge(texts)?;
        let not = |text| HostError::Invalid(format!("{text:?} is not an address or a domain"));
        AddressPatterns::parse(texts).map_err(not)
    }
}
