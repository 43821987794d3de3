//! The example plugin, built from source: the type of its component lists exactly the hooks that it has and the
//! services that it uses. The host relies on this type alone.

use std::collections::BTreeSet;
use std::error::Error;

use wit_component::DecodedWasm;
use wit_parser::WorldItem;

/// The interfaces of our package that the component exports and imports.
fn interfaces() -> Result<(BTreeSet<String>, BTreeSet<String>), Box<dyn Error>> {
    let path = pintle_guest_build::component("example")?;
    let DecodedWasm::Component(resolve, world) = wit_component::decode(&std::fs::read(path)?)? else {
        return Err("not a component".into());
    };
    let ours = |item: &WorldItem| match item {
        WorldItem::Interface { id, .. } => {
            let interface = &resolve.interfaces[*id];
            let package = &resolve.packages[interface.package?].name;
            (package.namespace == "pintle").then(|| interface.name.clone()).flatten()
        }
        _ => None,
    };
    let world = &resolve.worlds[world];
    let exports = world.exports.values().filter_map(ours).collect();
    Ok((exports, world.imports.values().filter_map(ours).collect()))
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

#[test]
fn a_component_exports_the_hooks_it_names_and_imports_the_services_it_calls() {
    let (exports, imports) = interfaces().unwrap();
    let hooks = [
        "plugin",
        "on-connect",
        "on-hello",
        "on-auth-result",
        "on-mail",
        "on-rcpt",
        "on-data",
        "on-headers",
        "on-message",
        "on-queued",
        "on-deliver",
        "on-delivery-result",
        "on-disconnect",
    ];
    assert_eq!(exports, set(&hooks));
    assert_eq!(imports, set(&["types", "session", "transaction", "message", "delivery", "log"]));
}
