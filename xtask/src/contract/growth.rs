//! Compares the contract with a frozen version of it. A component that was built against the frozen version must work
//! with the contract unchanged, so everything frozen is kept, and only imported interfaces and new ones grow.

use std::collections::{BTreeMap, BTreeSet};

use super::elements::{Element, ElementOwner, ElementPlace, SinceVersion, WitPackage};

/// The world that lists all hooks: an interface that it exports is complete from the day on which it is frozen.
const ALL_HOOKS: &str = "host-side";
/// The world that every plugin includes: a further export would be one that no plugin has.
const EVERY_PLUGIN: &str = "base";

/// A difference that breaks components which were built against the frozen version.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct IncompatibleChange {
    /// The line in the later version, from 1; 0 if it is no longer there.
    pub(crate) line: usize,
    pub(crate) text: String,
}

/// What `later` has changed, removed or added although it is bound by `frozen`.
pub(crate) fn incompatible_changes(frozen: &WitPackage, later: &WitPackage) -> Vec<IncompatibleChange> {
    let (before, after) = (frozen.elements(), later.elements());
    let version = frozen.version();
    let mut found: Vec<_> = before
        .iter()
        .filter_map(|(place, element)| kept_or_not(place, element, after.get(place), &version))
        .collect();
    let exported: BTreeSet<_> = exported(&before).chain(exported(&after)).collect();
    let added = after.iter().filter(|(place, _)| !before.contains_key(*place));
    found.extend(added.filter_map(|(place, element)| {
        let reason = forbidden_addition(place, &before, &exported)
            .or_else(|| missing_since(place, element, &before, &version))?;
        Some(IncompatibleChange { line: element.line, text: format!("{} {reason}", place.shown()) })
    }));
    found.sort();
    found
}

/// Whether two versions belong to one line, within which the contract only grows: 0.1.0 and 0.1.7, 1.0.0 and 1.4.2.
pub(crate) fn same_line(one: &str, other: &str) -> bool {
    fn line(version: &str) -> Vec<&str> {
        let numbers: Vec<_> = version.split(['.', '-', '+']).collect();
        let count = if numbers.first() == Some(&"0") { 2 } else { 1 };
        numbers.into_iter().take(count).collect()
    }
    line(one) == line(other)
}

fn kept_or_not(
    place: &ElementPlace,
    before: &Element,
    after: Option<&Element>,
    version: &str,
) -> Option<IncompatibleChange> {
    let Some(after) = after else {
        let text = format!("{} of {version} is gone", place.shown());
        return Some(IncompatibleChange { line: 0, text });
    };
    (before.form != after.form).then(|| {
        let text =
            format!("{} is not as in {version}: `{}`, now `{}`", place.shown(), before.form, after.form);
        IncompatibleChange { line: after.line, text }
    })
}

/// The interfaces that plugins export as hooks.
fn exported(elements: &BTreeMap<ElementPlace, Element>) -> impl Iterator<Item = &String> {
    elements.keys().filter_map(|place| match &place.owner {
        ElementOwner::Exports(world) if world == ALL_HOOKS => place.name.as_ref(),
        _ => None,
    })
}

/// Why nothing may be added here.
fn forbidden_addition(
    place: &ElementPlace,
    before: &BTreeMap<ElementPlace, Element>,
    exported: &BTreeSet<&String>,
) -> Option<String> {
    let owner_is_old = before.keys().any(|old| old.owner == place.owner);
    match &place.owner {
        ElementOwner::Interface(name) if owner_is_old && exported.contains(name) => Some(
            "is new in an interface that plugins export, and which is therefore complete: give it a new interface"
                .to_owned(),
        ),
        ElementOwner::Exports(world) if owner_is_old && world == EVERY_PLUGIN => {
            Some(format!("is new in the world `{EVERY_PLUGIN}`: no existing plugin exports it"))
        }
        _ => None,
    }
}

/// New interfaces and functions say since when they are there, so that the refusal of a component can name the release that
/// has what it imports.
fn missing_since(
    place: &ElementPlace,
    element: &Element,
    before: &BTreeMap<ElementPlace, Element>,
    version: &str,
) -> Option<String> {
    let itself = ElementPlace { owner: place.owner.clone(), name: None };
    let comes_with_its_interface = place.name.is_some() && !before.contains_key(&itself);
    let text = match &element.since {
        SinceVersion::NotNeeded => return None,
        _ if comes_with_its_interface => return None,
        SinceVersion::Given(since) if is_later(since, version) => return None,
        SinceVersion::Given(since) => {
            format!("says `@since(version = {since})`, and {version} does not have it")
        }
        SinceVersion::Missing => format!("is new since {version} and does not say `@since(version = ...)`"),
    };
    Some(text)
}

/// Whether `one` is a later version than `other`, both without a pre-release.
fn is_later(one: &str, other: &str) -> bool {
    let numbers =
        |version: &str| version.split('.').map(|number| number.parse().unwrap_or(0)).collect::<Vec<u64>>();
    numbers(one) > numbers(other)
}
