//! The `Plugin` trait, and the plugin value that an instance keeps between calls.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use serde::de::DeserializeOwned;

use crate::bindings::services::exports::pintle::plugin::plugin::{ConfigError, Manifest};
use crate::{AuthVerdict, HostError, Verdict, config};

/// A plugin: a type that is deserialised from the operator's configuration.
///
/// The operator's table is converted to JSON and deserialised by serde. Fields with `#[serde(default)]` are optional;
/// `#[serde(deny_unknown_fields)]` is recommended, since it detects misspelt keys. A plugin without configuration is a
/// struct with braces and no fields.
///
/// The version, summary, license and homepage that the operator sees come from the crate's Cargo.toml.
pub trait Plugin: DeserializeOwned + 'static {
    /// Identifier in the form `vendor.name`, the same in all versions of the plugin.
    const ID: &'static str;

    /// A JSON Schema (2020-12) of the configuration, for the operator's tools.
    const CONFIG_SCHEMA: Option<&'static str> = None;

    /// The grants that the plugin requests. They are shown to the operator, who decides.
    const WANTS: &'static [&'static str] = &[];

    /// Validates what types cannot express, and computes data that hooks need; fields with `#[serde(skip)]` can hold
    /// it. Runs on each new instance before any hook. The services dns and kv are not
    /// available.
    ///
    /// # Errors
    ///
    /// All mistakes found, each with the JSON Pointer of its position: see [`mistake`].
    fn check(&mut self) -> Result<(), Vec<ConfigError>> {
        Ok(())
    }

    /// Declares conditions under which hooks need not be called, by functions of [`calls`](crate::calls). Runs after a
    /// successful [`check`](Self::check), which thus needs no host and can be unit-tested.
    ///
    /// # Errors
    ///
    /// The host refuses a condition. The configuration is then invalid.
    fn conditions(&self) -> Result<(), HostError> {
        Ok(())
    }
}

/// A mistake in the configuration. `at` is a JSON Pointer (RFC 6901) such as `/zones/0`, or "" for the whole.
#[must_use]
pub fn mistake(at: impl Into<String>, text: impl Into<String>) -> ConfigError {
    ConfigError { at: at.into(), text: text.into() }
}

/// Converts a hook's return value into the reply to the host.
///
/// A plain value is passed on. An `Err` is a fault of the plugin: it is logged, the call traps, its edits are
/// discarded, and the operator's failure policy for this plugin applies to the mail. A plugin that should continue
/// instead has to match on the error and return a verdict.
pub trait Settle<T> {
    /// The value for the host; `hook` is the hook's name for the log.
    fn settle(self, hook: &str) -> T;
}

impl Settle<Verdict> for Verdict {
    fn settle(self, _hook: &str) -> Self {
        self
    }
}

impl Settle<AuthVerdict> for AuthVerdict {
    fn settle(self, _hook: &str) -> Self {
        self
    }
}

impl Settle<()> for () {
    fn settle(self, _hook: &str) {}
}

impl<T, E: fmt::Display> Settle<T> for Result<T, E> {
    fn settle(self, hook: &str) -> T {
        self.unwrap_or_else(|fault| {
            crate::error!("{hook} failed: {fault}");
            panic!("{hook} failed: {fault}")
        })
    }
}

/// The plugin value of an instance. Only for use by [`export!`](crate::export).
#[doc(hidden)]
pub struct PluginSlot<P>(RefCell<Option<Rc<P>>>);

impl<P: Plugin> PluginSlot<P> {
    #[must_use]
    pub const fn new() -> Self {
        Self(RefCell::new(None))
    }

    /// The manifest that `describe` returns for a crate of this version and summary; `more` has its other entries, of
    /// which empty ones are left out.
    #[must_use]
    pub fn manifest(version: &str, summary: &str, more: &[(&str, &str)]) -> Manifest {
        let given = more.iter().filter(|(_, value)| !value.is_empty());
        Manifest {
            id: P::ID.to_owned(),
            version: version.to_owned(),
            summary: summary.to_owned(),
            config_schema: P::CONFIG_SCHEMA.map(str::to_owned),
            wants: P::WANTS.iter().map(ToString::to_string).collect(),
            more: given.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        }
    }

    /// # Errors
    ///
    /// The configuration is invalid for this plugin.
    pub fn configure(&self, json: &str) -> Result<(), Vec<ConfigError>> {
        let mut plugin: P = config::read(json).map_err(|mistake| vec![mistake])?;
        plugin.check()?;
        plugin.conditions().map_err(|refused| vec![mistake("", refused.to_string())])?;
        self.0.replace(Some(Rc::new(plugin)));
        Ok(())
    }

    /// # Panics
    ///
    /// Called before the first successful `configure`, which the contract excludes.
    pub fn plugin(&self) -> Rc<P> {
        let Some(plugin) = self.0.borrow().clone() else { panic!("a hook was called before configure") };
        plugin
    }
}

impl<P: Plugin> Default for PluginSlot<P> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    struct SamplePlugin {
        zones: Vec<String>,
        #[serde(skip)]
        count: usize,
    }

    impl Plugin for SamplePlugin {
        const ID: &'static str = "test.sample";
        const WANTS: &'static [&'static str] = &["dns"];

        fn check(&mut self) -> Result<(), Vec<ConfigError>> {
            self.count = self.zones.len();
            let empty = self.zones.iter().enumerate().filter(|(_, zone)| zone.is_empty());
            let mistakes: Vec<_> = empty.map(|(at, _)| mistake(format!("/zones/{at}"), "empty")).collect();
            if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
        }

        fn conditions(&self) -> Result<(), HostError> {
            if self.count > 2 { Err(HostError::Limit("too many".to_owned())) } else { Ok(()) }
        }
    }

    #[test]
    fn a_configured_plugin_is_there_for_hooks_with_what_check_computed() {
        let slot = PluginSlot::<SamplePlugin>::new();
        slot.configure(r#"{"zones": ["a", "b"]}"#).unwrap();
        assert_eq!(slot.plugin().count, 2);
    }

    #[test]
    fn all_mistakes_of_check_are_reported_and_the_plugin_before_stays() {
        let slot = PluginSlot::<SamplePlugin>::new();
        slot.configure(r#"{"zones": ["a"]}"#).unwrap();
        let mistakes = slot.configure(r#"{"zones": ["", "b", ""]}"#).unwrap_err();
        assert_eq!(mistakes.iter().map(|m| m.at.as_str()).collect::<Vec<_>>(), ["/zones/0", "/zones/2"]);
        assert_eq!(slot.plugin().zones, ["a"]);
    }

    #[test]
    fn the_manifest_tells_what_the_plugin_declares() {
        let manifest = PluginSlot::<SamplePlugin>::manifest(
            "1.2.3",
            "A sample",
            &[("license", "MIT"), ("homepage", "")],
        );
        assert_eq!((manifest.id.as_str(), manifest.version.as_str()), ("test.sample", "1.2.3"));
        assert_eq!(manifest.wants, ["dns"]);
        assert_eq!(manifest.more, [("license".to_owned(), "MIT".to_owned())]);
    }

    #[test]
    fn a_condition_that_the_host_refuses_is_a_mistake_of_the_whole() {
        let slot = PluginSlot::<SamplePlugin>::new();
        let mistakes = slot.configure(r#"{"zones": ["a", "b", "c"]}"#).unwrap_err();
        assert_eq!(mistakes.len(), 1);
        assert_eq!(mistakes[0].at, "");
        assert!(mistakes[0].text.contains("too many"), "{}", mistakes[0].text);
    }
}
