//! Checks a component's exports and imports against the contract and the grants before any of its code runs.
//!
//! The engine would refuse most violations itself, but its messages name neither the missing grant nor the remedy.

use std::collections::BTreeMap;

use pintle_policy::{Hook, Hooks};
use wasmtime::Engine;
use wasmtime::component::types::{Component, ComponentItem};

use crate::interfaces::HostInterface;
use crate::{GrantKind, Grants, LoadError, interfaces};

/// The version of the contract that this release offers.
pub(crate) const OFFERED: &str = "0.1.0";

/// The packages of the contract and of its preview, and the WASI 0.2 packages that are linked (their functions have no access to the
/// system).
const OURS: &str = "pintle:plugin";
const PREVIEW: &str = "pintle:preview";
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
    for (name, item) in component.imports(engine) {
        match check_import(name, grants) {
            Ok(Some(interface)) => {
                errors.extend(check_functions(name, interface, &functions(&item.ty, engine)))
            }
            Ok(None) => {}
            Err(error) => errors.push(error),
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

/// The names of the functions that an import consists of.
fn functions(import: &ComponentItem, engine: &Engine) -> Vec<String> {
    let ComponentItem::ComponentInstance(instance) = import else { return Vec::new() };
    let functions =
        instance.exports(engine).filter(|(_, item)| matches!(item.ty, ComponentItem::ComponentFunc(_)));
    functions.map(|(name, _)| name.to_owned()).collect()
}

/// Refuses functions that the host does not serve. A component is judged by what it uses, not by the version of the
/// contract that it was built against.
fn check_functions(import: &str, interface: &HostInterface, used: &[String]) -> Vec<LoadError> {
    let served = |name: &str| interface.functions.iter().any(|(function, _)| *function == name);
    let missing = used.iter().filter(|name| !served(name));
    let version = InterfaceName::split(import).version;
    missing
        .map(|name| LoadError::NotServed {
            what: format!("function `{name}` of `{import}`"),
            since: version.to_owned(),
            offered: OFFERED,
        })
        .collect()
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
        full.check_line(name)?;
        if full.interface == "plugin" {
            self.plugin = true;
            return Ok(());
        }
        let hook = full.interface.strip_prefix("on-").and_then(hook_named);
        let hook = hook.ok_or_else(|| not_served(format!("hook `{name}`"), &full))?;
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

/// `on-auth-password` receives every password, and an identity that it authenticates may relay (law 7).
fn check_hooks(hooks: Hooks, grants: &Grants) -> Option<LoadError> {
    let (hook, grant) = (Hook::AuthPassword, GrantKind::Auth);
    (hooks.has(hook) && !grants.contains(grant)).then_some(LoadError::UngrantedHook { hook, grant })
}

/// Checks that an interface is known and granted; returns it if it is one of the contract.
fn check_import(name: &str, grants: &Grants) -> Result<Option<&'static HostInterface>, LoadError> {
    let full = InterfaceName::split(name);
    if WASI.contains(&full.package) && full.version.starts_with("0.2.") {
        return Ok(None);
    }
    if full.package == PREVIEW {
        return Err(LoadError::Preview(name.to_owned()));
    }
    if full.package != OURS {
        return Err(LoadError::UnknownImport(name.to_owned()));
    }
    full.check_line(name)?;
    let found = interfaces::find(full.interface);
    let interface = found.ok_or_else(|| not_served(format!("interface `{name}`"), &full))?;
    match interface.grant {
        Some(grant) if !grants.contains(grant) => {
            Err(LoadError::MissingGrant { interface: name.to_owned(), grant })
        }
        _ => Ok(Some(interface)),
    }
}

fn not_served(what: String, name: &InterfaceName<'_>) -> LoadError {
    LoadError::NotServed { what, since: name.version.to_owned(), offered: OFFERED }
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

    /// Checks that the interface belongs to the line of versions that this release serves: within it, the contract only
    /// grows, so that older and newer components differ in the functions that they use.
    fn check_line(&self, name: &str) -> Result<(), LoadError> {
        match (numbers(self.version), numbers(OFFERED)) {
            (Some(theirs), Some(ours)) if theirs[..2] == ours[..2] => Ok(()),
            _ => Err(LoadError::Version { interface: name.to_owned(), offered: OFFERED }),
        }
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
        let name = |import: &str, grants: &Grants| {
            check_import(import, grants).map(|found| found.map(|interface| interface.name))
        };
        assert_eq!(name("pintle:plugin/session@0.1.0", &none), Ok(Some("session")));
        assert_eq!(
            name("pintle:plugin/session@0.1.7", &none),
            Ok(Some("session")),
            "judged by its functions"
        );
        assert_eq!(name("wasi:io/streams@0.2.12", &none), Ok(None));
        assert_eq!(name("pintle:plugin/kv@0.1.0", &kv), Ok(Some("kv")));
        let text = |import: &str| name(import, &none).unwrap_err().to_string();
        assert_eq!(
            text("pintle:plugin/kv@0.1.0"),
            "the component imports `pintle:plugin/kv@0.1.0`, which needs the grant `kv`: add \"kv\" to the plugin's \
             `grants` if it may have it"
        );
        assert_eq!(
            text("pintle:plugin/outbox@0.1.4"),
            "the component uses the interface `pintle:plugin/outbox@0.1.4`, which this release does not serve (it \
             serves version 0.1.0 of the contract): use a release of Pintle that serves version 0.1.4, or build it \
             without"
        );
        assert_eq!(
            text("pintle:preview/http@0.0.1"),
            "the component imports `pintle:preview/http@0.0.1`, a preview that this release does not serve: build it \
             without"
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
        assert!(text("wasi:http/types@0.2.3").contains("neither"));
        assert!(text("wasi:io/streams@0.3.0").contains("neither"));
    }

    #[test]
    fn a_component_is_judged_by_the_functions_that_it_uses() {
        let import = "pintle:plugin/session@0.1.3";
        let session = interfaces::find("session").unwrap();
        let used = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            check_functions(import, session, &names)
        };
        assert_eq!(used(&["info", "close"]), []);
        let errors = used(&["info", "set-reply-text"]);
        assert_eq!(
            errors[0].to_string(),
            "the component uses the function `set-reply-text` of `pintle:plugin/session@0.1.3`, which this release \
             does not serve (it serves version 0.1.0 of the contract): use a release of Pintle that serves version \
             0.1.3, or build it without"
        );
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
