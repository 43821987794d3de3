//! Conditions under which the host calls a hook at all, for use in [`Plugin::conditions`](crate::Plugin::conditions).
//! Always granted.
//!
//! A hook is named as in the contract: "on-message". The host calls it only if all of its conditions hold, which saves the
//! cost of entering the plugin. It may call a hook more often, so a plugin still checks what it relies on.

use crate::HostError;
use crate::bindings::services::pintle::plugin::calls as host;
pub use crate::bindings::services::pintle::plugin::calls::{
    never, only_listeners, only_recipients, only_senders, only_sizes, only_with_headers,
};
use crate::settings::Network;

/// Calls these hooks only for clients that are neither trusted nor authenticated.
///
/// # Errors
///
/// A name is not a hook that the component exports, or this is not `configure`.
pub fn only_strangers(hooks: &[&str]) -> Result<(), HostError> {
    hooks.iter().try_for_each(|hook| host::only_clients(hook, "strangers"))
}

/// Calls these hooks only for clients that are trusted or authenticated.
///
/// # Errors
///
/// As [`only_strangers`].
pub fn only_known(hooks: &[&str]) -> Result<(), HostError> {
    hooks.iter().try_for_each(|hook| host::only_clients(hook, "known"))
}

/// Does not call these hooks for clients in these networks.
///
/// # Errors
///
/// As [`only_strangers`].
pub fn not_networks(hooks: &[&str], networks: &[Network]) -> Result<(), HostError> {
    if networks.is_empty() {
        return Ok(());
    }
    let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
    hooks.iter().try_for_each(|hook| host::not_networks(hook, &networks))
}
