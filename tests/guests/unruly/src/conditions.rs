//! Conditions under which hooks are called, as the settings of the plugin list them.

use pintle_plugin_sdk::bindings::services::pintle::plugin::calls as host;
use pintle_plugin_sdk::{HostError, calls};

/// A condition under which a hook is called: the name of a function of `calls` with its arguments.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HookCondition {
    hook: String,
    only: String,
    #[serde(default)]
    values: Vec<String>,
    #[serde(default)]
    sizes: (u32, u32),
}

impl HookCondition {
    pub(crate) fn declare(&self) -> Result<(), HostError> {
        let (hook, values) = (self.hook.as_str(), &self.values[..]);
        match self.only.as_str() {
            "strangers" => calls::only_strangers(&[hook]),
            "known" => calls::only_known(&[hook]),
            "listeners" => calls::only_listeners(hook, values),
            "senders" => calls::only_senders(hook, values),
            "recipients" => calls::only_recipients(hook, values),
            "with-headers" => calls::only_with_headers(hook, values),
            "sizes" => calls::only_sizes(hook, self.sizes.0, self.sizes.1),
            "not-networks" => host::not_networks(hook, values),
            // A word that the contract does not list.
            clients => host::only_clients(hook, clients),
        }
    }
}
