//! `pintle check`: everything that can be found out about a configuration without serving anybody, and without leaving a trace
//! on the disk.

use std::collections::BTreeMap;
use std::process::ExitCode;

use pintle_config::{Mistake, count};
use pintle_plugin::{ConfigMistake, LoadError, PluginCheck};
use serde::Serialize;

use crate::cli::Check;
use crate::output::{self, say};
use crate::stock;

/// What was found, for machines. Fields are only ever added.
#[derive(Debug, Serialize)]
struct CheckReport {
    file: String,
    /// Whether a start would come to something.
    good: bool,
    mistakes: Vec<CheckFinding>,
    warnings: Vec<CheckFinding>,
    /// Those that could be loaded, or at least be looked at.
    plugins: Vec<CheckedPlugin>,
}

/// A mistake or a warning.
#[derive(Debug, Serialize)]
struct CheckFinding {
    /// The key in the file, as `listener[2].tls`; for a mistake in a plugin's settings the JSON Pointer into them.
    key: String,
    /// The plugin that it is about, if a plugin found it.
    #[serde(skip_serializing_if = "Option::is_none")]
    plugin: Option<String>,
    /// The file in which it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
    cause: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

#[derive(Debug, Serialize)]
struct CheckedPlugin {
    name: String,
    good: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    hooks: Vec<&'static str>,
    /// Grants that it would like and does not have.
    ungranted: Vec<String>,
    /// Functions that it imports and would be denied, by the grant that is missing.
    denied: BTreeMap<String, Vec<String>>,
}

/// Prints every mistake and warning; the plugins are loaded and configured as they would be at a start, whatever else is
/// wrong.
pub(crate) fn check(options: &Check) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let report = pintle_config::check(&options.config.config, &stock::components());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let plugins = runtime.block_on(pintle_plugin::check(report.plugins.clone()))?;
    let bad = plugins.iter().filter(|plugin| !plugin.errors.is_empty()).count();
    let good = report.mistakes.is_empty() && bad == 0;
    if options.json {
        output::json(&answer(&report, &plugins, good))?;
    } else {
        print(&report, &plugins, bad);
    }
    let passes = good && (!options.strict || report.warnings.is_empty());
    Ok(if passes { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(report: &pintle_config::ConfigReport, plugins: &[PluginCheck], bad: usize) {
    let findings = report.findings().to_string();
    if !findings.is_empty() {
        say!("{}", findings.trim_end());
        say!("");
    }
    plugins.iter().for_each(tell);
    let file = report.path.display();
    if bad > 0 {
        say!("{file}: {bad} of {} plugins cannot be loaded", plugins.len());
    }
    // The last word, so that it is true of all that stands above.
    if bad == 0 || !report.mistakes.is_empty() {
        say!("{file}: {}", count(report.mistakes.len(), report.warnings.len()));
    }
}

fn tell(plugin: &PluginCheck) {
    let version = plugin.manifest.as_ref().map_or("", |manifest| manifest.version.as_str());
    for error in &plugin.errors {
        match error {
            LoadError::Config(mistakes) => mistakes.iter().for_each(|mistake| show(&plugin.name, mistake)),
            error => say!("error: plugin {}: {error}", plugin.name),
        }
    }
    if plugin.errors.is_empty() {
        let hooks: Vec<_> = plugin.hooks.iter().map(|hook| hook.name()).collect();
        say!("plugin {} {version}: good, called at {}", plugin.name, hooks.join(", "));
        if !plugin.ungranted.is_empty() {
            say!("  note: it would like {} in `grants`, and does without", plugin.ungranted.join(", "));
        }
        for (grant, functions) in &plugin.denied {
            let functions = functions.join(", ");
            say!("  note: without `{grant}` in `grants`, it is denied what it imports for it: {functions}");
        }
    }
}

/// As the mistakes of the file itself are shown.
fn show(plugin: &str, mistake: &ConfigMistake) {
    let at = if mistake.at.is_empty() { String::new() } else { format!("{}: ", mistake.at) };
    say!("error: plugin {plugin}: {at}{}", mistake.text);
    if let Some(place) = &mistake.place {
        say!("  --> {place}");
    }
    if let Some(remedy) = &mistake.remedy {
        say!("  help: {remedy}");
    }
    say!("");
}

fn answer(report: &pintle_config::ConfigReport, plugins: &[PluginCheck], good: bool) -> CheckReport {
    let told = |mistake: &Mistake| in_file(report, mistake);
    let of_plugins =
        plugins.iter().flat_map(|plugin| plugin.errors.iter().flat_map(|error| of(plugin, error)));
    CheckReport {
        file: report.path.display().to_string(),
        good,
        mistakes: report.mistakes.iter().map(told).chain(of_plugins).collect(),
        warnings: report.warnings.iter().map(told).collect(),
        plugins: plugins.iter().map(described).collect(),
    }
}

fn in_file(report: &pintle_config::ConfigReport, mistake: &Mistake) -> CheckFinding {
    let place = report.place(mistake);
    CheckFinding {
        key: mistake.key.clone(),
        plugin: None,
        file: Some(report.path.display().to_string()),
        line: Some(place.line),
        column: Some(place.column),
        cause: mistake.cause.to_string(),
        remedy: Some(mistake.remedy()),
    }
}

fn of(plugin: &PluginCheck, error: &LoadError) -> Vec<CheckFinding> {
    let told = |key: &str, cause: String| CheckFinding {
        key: key.to_owned(),
        plugin: Some(plugin.name.clone()),
        file: None,
        line: None,
        column: None,
        cause,
        remedy: None,
    };
    match error {
        LoadError::Config(mistakes) => mistakes
            .iter()
            .map(|mistake| CheckFinding {
                file: mistake.place.as_ref().map(|place| place.file.display().to_string()),
                line: mistake.place.as_ref().map(|place| place.line),
                remedy: mistake.remedy.clone(),
                ..told(&mistake.at, mistake.text.clone())
            })
            .collect(),
        error => vec![told("", error.to_string())],
    }
}

fn described(plugin: &PluginCheck) -> CheckedPlugin {
    CheckedPlugin {
        name: plugin.name.clone(),
        good: plugin.errors.is_empty(),
        version: plugin.manifest.as_ref().map(|manifest| manifest.version.clone()),
        hooks: plugin.hooks.iter().map(|hook| hook.name()).collect(),
        ungranted: plugin.ungranted.clone(),
        denied: plugin
            .denied
            .iter()
            .map(|(grant, functions)| (grant.to_string(), functions.clone()))
            .collect(),
    }
}
