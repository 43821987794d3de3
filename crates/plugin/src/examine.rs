//! Checks a component's exports and imports against the contract and the grants before any of its code runs.
//!
//! The engine would refuse most violations itself, but its messages name neither the missing grant nor the remedy.

use std::collections::BTreeMap;

use pintle_policy::{Hook, Hooks};
use wasmtime::Engine;
use wasmtime::component::types::{Component, ComponentItem};

use crate::{GrantKind, Grants, LoadError, interfaces};

/// The version of the contract that this release offers.
pub(crate) const OFFERED: &str = "0.1.0";

/// The package of the contract, and the WASI 0.2 packages that are linked (their functions have no access to the
/// system).
const OURS: &str = "pintle:plugin";
const WASI: &[&str] =
    &["wasi:cli", "wasi:clocks", "wasi:filesystem", "wasi:io", "wasi:random", "wasi:sockets"];

/// Returns the hooks that a component exports, and all reasons why it cannot be used.
pub(crate) fn examine(component: &Component, engine: &Engine, grants: &Grants) -> (Hooks, Vec<LoadError>) {
    let mut errors = Vec::new();
    let mut exports = FoundExports::default();
    for (name, _) in component.exports(engine) {
        if let Err(error) = exports.take(name) {
            errors.push(error);
        }
    }
    errors.extend(exports.verdict());
    errors.extend(check_hooks(exports.hooks, grants));
    for (name, _) in component.imports(engine) {
        if let Err(error) = check_import(name, grants) {
            errors.push(error);
        }
    }
    (exports.hooks, errors)
}

/// Imported functions, by the missing grant that each requires.
pub(crate) type MissingGrants = BTreeMap<GrantKind, Vec<String>>;

/// The functions that the component imports and whose grants it lacks, by grant. The component is loaded nevertheless:
/// some language kits import whole interfaces, even if only some of the functions are called.
pub(crate) fn missing(component: &Component, engine: &Engine, grants: &Grants) -> MissingGrants {
    let mut missing = MissingGrants::new();
    for (name, item) in component.imports(engine) {
        let ComponentItem::ComponentInstance(instance) = item.ty else { continue };
        let full = InterfaceName::split(name);
        for (function, _) in instance.exports(engine) {
            let needed = needed(&full, function);
            if !needed.is_empty() && !needed.iter().any(|grant| grants.contains(*grant)) {
                missing.entry(needed[0]).or_default().push(format!("{}.{function}", full.interface));
            }
        }
    }
    missing
}

fn needed(import: &InterfaceName<'_>, function: &str) -> &'static [GrantKind] {
    let interface = interfaces::find(import.interface).filter(|_| import.package == OURS);
    let functions = interface.map_or(&[][..], |interface| interface.functions);
    let found = functions.iter().find(|(name, _)| *name == function);
    found.map_or(&[], |(_, kinds)| kinds)
}

#[derive(Default)]
struct FoundExports {
    plugin: bool,
    hooks: Hooks,
}

impl FoundExports {
    fn take(&mut self, name: &str) -> Result<(), LoadError> {
        let full = InterfaceName::split(name);
        if full.package != OURS {
            // Some language kits add their own exports, which are ignored.
            return Ok(());
        }
        full.check_version(name)?;
        if full.interface == "plugin" {
            self.plugin = true;
            return Ok(());
        }
        let hook = full.interface.strip_prefix("on-").and_then(hook_named);
        let hook = hook.ok_or_else(|| {
            LoadError::Export(format!(
                "the component exports `{name}`, but there is no such hook in version {OFFERED} of the contract"
            ))
        })?;
        self.hooks = self.hooks.with(hook);
        Ok(())
    }

    fn verdict(&self) -> Vec<LoadError> {
        let mut errors = Vec::new();
        if !self.plugin {
            errors.push(LoadError::NoPluginExport);
        }
        if self.hooks == Hooks::NONE {
            errors.push(LoadError::NoHook);
        }
        errors
    }
}

fn hook_named(name: &str) -> Option<Hook> {
    Hook::ALL.iter().copied().find(|hook| hook.name() == name)
}

/// `on-auth` receives every password, and an identity that it authenticates may relay (law 7).
fn check_hooks(hooks: Hooks, grants: &Grants) -> Option<LoadError> {
    let (hook, grant) = (Hook::Auth, GrantKind::Auth);
    (hooks.has(hook) && !grants.contains(grant)).then_some(LoadError::UngrantedHook { hook, grant })
}

fn check_import(name: &str, grants: &Grants) -> Result<(), LoadError> {
    let full = InterfaceName::split(name);
    if WASI.contains(&full.package) && full.version.starts_with("0.2.") {
        return Ok(());
    }
    if full.package != OURS {
        return Err(LoadError::UnknownImport(name.to_owned()));
    }
    full.check_version(name)?;
    let found = interfaces::find(full.interface);
    let interface = found.ok_or_else(|| LoadError::UnknownImport(name.to_owned()))?;
    if interface.link.is_none() {
        return Err(LoadError::NotServed(name.to_owned()));
    }
    match interface.grant {
        Some(grant) if !grants.contains(grant) => {
            Err(LoadError::MissingGrant { interface: name.to_owned(), grant })
        }
        _ => Ok(()),
    }
}

/// A parsed interface name: `package/interface@version`.
struct InterfaceName<'a> {
    package: &'a str,
    interface: &'a str,
    version: &'a str,
}

impl<'a> InterfaceName<'a> {
    fn split(name: &'a str) -> Self {
        let (path, version) = name.split_once('@').unwrap_or((name, ""));
        let (package, interface) = path.split_once('/').unwrap_or((path, ""));
        Self { package, interface, version }
    }

    /// Within one 0.x line older versions link; newer ones may use functions that this release lacks.
    fn check_version(&self, name: &str) -> Result<(), LoadError> {
        let served = match (numbers(self.version), numbers(OFFERED)) {
            (Some(theirs), Some(ours)) => theirs[..2] == ours[..2] && theirs[2] <= ours[2],
            _ => false,
        };
        if served {
            return Ok(());
        }
        Err(LoadError::Version { interface: name.to_owned(), offered: OFFERED })
    }
}

fn numbers(version: &str) -> Option<[u64; 3]> {
    let mut parts = version.split('.').map(|part| part.parse().ok());
    let numbers = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_are_known_granted_and_of_our_version() {
        let none = Grants::default();
        let kv = Grants::from([GrantKind::Kv]);
        assert_eq!(check_import("pintle:plugin/session@0.1.0", &none), Ok(()));
        assert_eq!(check_import("wasi:io/streams@0.2.12", &none), Ok(()));
        assert_eq!(check_import("pintle:plugin/kv@0.1.0", &kv), Ok(()));
        let text = |name: &str| check_import(name, &none).unwrap_err().to_string();
        assert_eq!(
            text("pintle:plugin/kv@0.1.0"),
            "the component imports `pintle:plugin/kv@0.1.0`, which needs the grant `kv`: add \"kv\" to the plugin's \
             `grants` if it may have it"
        );
        assert_eq!(
            text("pintle:plugin/http@0.1.0"),
            "the component imports `pintle:plugin/http@0.1.0`, which this release does not serve yet: build it without"
        );
        assert_eq!(
            text("pintle:plugin/session@0.2.0"),
            "the component uses `pintle:plugin/session@0.2.0`, but this release offers version 0.1.0 of the contract: \
             build it against wit/ of this release"
        );
        assert_eq!(
            text("acme:db/query"),
            "the component imports `acme:db/query`, which is neither part of the plugin contract nor of WASI 0.2"
        );
        assert!(text("pintle:plugin/session@0.1.1").contains("offers version 0.1.0"));
        assert!(text("wasi:http/types@0.2.3").contains("neither"));
        assert!(text("wasi:io/streams@0.3.0").contains("neither"));
    }

    #[test]
    fn hooks_are_read_off_the_exports() {
        let mut exports = FoundExports::default();
        for name in ["pintle:plugin/plugin@0.1.0", "pintle:plugin/on-rcpt@0.1.0", "exports"] {
            exports.take(name).unwrap();
        }
        assert_eq!(exports.verdict(), []);
        assert_eq!(exports.hooks, Hooks::NONE.with(Hook::Rcpt));
        let error = exports.take("pintle:plugin/on-lunch@0.1.0").unwrap_err();
        assert!(error.to_string().contains("on-lunch"));
        assert_eq!(FoundExports::default().verdict(), [LoadError::NoPluginExport, LoadError::NoHook]);
    }
}
