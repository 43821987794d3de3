//! Converts the plugin sections: component, settings, grants, failure policies and limits of each plugin.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use pintle_inbound::ListenerConfig;
use pintle_plugin::{ComponentSource, Config, Grant, PluginConfig, PluginLimits};
use toml::de::{DeTable, DeValue};

use super::{Names, Stock, surroundings, unique};
use crate::places;
use crate::reader::Section;
use crate::values::{JsonTable, OnFault, OrZero, PluginName, Positive, Size, json};
use crate::{Cause, DeliveryRule, exposed};

/// The value of `max_instances` for plugins without that key. An operator cannot write it, since 0 is not allowed.
pub(super) const UNSAID: usize = 0;

/// Sets `max_instances` of these plugins by the sessions of the listeners.
pub(super) fn follow_sessions<'a>(
    plugins: impl IntoIterator<Item = &'a mut PluginConfig>,
    listeners: &[ListenerConfig],
) {
    let instances = usual_instances(listeners);
    plugins.into_iter().for_each(|plugin| plugin.limits.max_instances = instances);
}

/// The default of `max_instances` for the maximum number of sessions of all listeners together.
pub(super) fn usual_instances(listeners: &[ListenerConfig]) -> usize {
    let sessions = listeners.iter().map(|listener| listener.limits.total);
    PluginLimits::instances_for(sessions.fold(0, usize::saturating_add))
}

pub(super) fn plugins(root: &Section<'_>, stock: &Stock) -> Config {
    let section = root.table("plugins");
    let folder = section.optional::<PathBuf>("folder");
    let folder = folder.unwrap_or_else(|| root.here().reader.base.clone());
    let mut names = Names::new();
    let lower = |section: &Section<'_>| {
        let PluginName(name) = section.get("name");
        unique(&mut names, section, "name", "plugin", &name);
        let component = component(section, &folder, stock);
        plugin(section, PluginConfig::new(name, component))
    };
    // The gateway executes the machine code in the cache, and plugins trust their stored state.
    let kept = |key: &'static str| {
        let folder = section.optional::<PathBuf>(key);
        folder.inspect(|folder| {
            let spot = section.spot(key);
            spot.guard(folder, exposed::FileKind::Folder);
            surroundings::own_folder(&spot, folder, key == "cache");
        })
    };
    Config {
        plugins: root.list("plugin").iter().map(lower).collect(),
        cache: kept("cache"),
        state: kept("state"),
        address_space: section.optional::<Size>("address_space").map(|space| space.0),
        watch: section.get("watch"),
        settle: section.get::<OrZero>("settle").0,
        kv_octets: section.get::<Size>("kv_size").octets(),
        ..Config::default()
    }
}

fn plugin(section: &Section<'_>, plugin: PluginConfig) -> PluginConfig {
    let here = || JsonTable(plugin.settings.clone(), section.here().places());
    let JsonTable(settings, places) = settings(section).unwrap_or_else(here);
    PluginConfig {
        settings,
        places,
        grants: section.get::<Vec<Grant>>("grants").into_iter().collect(),
        mandatory: section.get("mandatory"),
        required: section.get("required"),
        failure: section.get::<OnFault>("on_fault").0,
        limits: limits(&section.table("limits")),
        timer: section.get("timer"),
        ..plugin
    }
}

fn component(section: &Section<'_>, folder: &Path, stock: &Stock) -> ComponentSource {
    let given: String = section.get("component");
    if let Some(name) = given.strip_prefix("stock:") {
        let found = stock.iter().find(|(other, _)| *other == name);
        if found.is_none() {
            let known = stock.iter().map(|(name, _)| format!("stock:{name}")).collect();
            section
                .complain("component", Cause::Undefined { what: "stock plugin", name: name.into(), known });
        }
        let bytes = found.map_or_else(Bytes::new, |(_, bytes)| bytes.clone());
        return ComponentSource::Bytes { name: given, bytes };
    }
    let path = folder.join(&given);
    if section.has("component") && !given.is_empty() {
        // The plugin host compiles the component; this only checks that the file exists.
        let why = match std::fs::metadata(&path) {
            Ok(file) if file.is_file() => None,
            Ok(_) => Some("it is not a regular file".to_owned()),
            // The gateway starts without a plugin that is not required, and loads it when its file appears.
            Err(error) if error.kind() == ErrorKind::NotFound && !section.get::<bool>("required") => None,
            Err(error) => Some(error.to_string()),
        };
        if let Some(why) = why {
            section.complain("component", Cause::File { path: path.clone(), why });
        }
        section.spot("component").guard(&path, exposed::FileKind::Trusted);
    }
    ComponentSource::File(path)
}

/// The plugin's settings, which its `configure` gets; none if there are none, or they cannot be read.
fn settings(section: &Section<'_>) -> Option<JsonTable> {
    if section.has("config") && section.has("config_file") {
        section.rule("config_file", DeliveryRule::TwoSettings);
    }
    let inline = section.optional::<JsonTable>("config");
    let path = section.optional::<PathBuf>("config_file");
    let from_file = path.and_then(|path| {
        section.spot("config_file").guard(&path, exposed::FileKind::Trusted);
        let read = settings_file(&path).map_err(|why| Cause::File { path, why });
        read.map_err(|cause| section.complain("config_file", cause)).ok()
    });
    inline.or(from_file)
}

fn settings_file(path: &Path) -> Result<JsonTable, String> {
    let text = crate::files::text(path).map_err(|error| error.to_string())?;
    if path.extension().is_some_and(|extension| extension == "toml") {
        let table = DeTable::parse(&text).map_err(|error| error.to_string())?;
        let table = table.into_inner();
        let places = places::in_toml(path, &text, 0, &table);
        return Ok(JsonTable(json(&DeValue::Table(table)), places));
    }
    let settings = serde_json::from_str(&text).map_err(|error| format!("it is not JSON: {error}"))?;
    Ok(JsonTable(settings, places::in_json(path, &text)))
}

fn limits(section: &Section<'_>) -> PluginLimits {
    let recycle_after: u64 = section.get("recycle_after");
    PluginLimits {
        wall: section.get("wall"),
        cpu: section.get("cpu"),
        start: section.get("start"),
        memory: section.get::<Size>("memory").octets(),
        max_instances: section.optional::<Positive<_>>("max_instances").map_or(UNSAID, |most| most.0),
        min_idle: section.get("min_idle"),
        wait: section.get("wait"),
        recycle_after: (recycle_after > 0).then_some(recycle_after),
    }
}
