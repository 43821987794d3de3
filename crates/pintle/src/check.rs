//! `pintle check`: validates a configuration and loads its plugins, without serving and without writing to the disk.

use std::collections::BTreeMap;
use std::process::ExitCode;

use pintle_config::{Mistake, count};
use pintle_plugin::{ConfigMistake, LoadError, PluginCheck};
use serde::Serialize;

use crate::cli::Check;
use crate::output::{self, say};
use crate::stock;

/// The result as JSON, for `--json`. Fields are only ever added.
#[derive(Debug, Serialize)]
struct CheckReport {
    file: String,
    /// Whether the gateway could start: no mistakes, and every plugin can be loaded.
    good: bool,
    mistakes: Vec<CheckFinding>,
    warnings: Vec<CheckFinding>,
    /// The configured plugins whose component could be read.
    plugins: Vec<CheckedPlugin>,
}

/// A mistake or a warning.
#[derive(Debug, Serialize)]
struct CheckFinding {
    /// The key in the file, such as `listener[2].tls`; for a mistake in a plugin's settings, the JSON Pointer into
    /// them.
    key: String,
    /// The plugin with the mistake; none for a mistake in the configuration file itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    plugin: Option<String>,
    /// The file with the mistake, if known.
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
    /// Optional grants that the plugin requests and does not have.
    ungranted: Vec<String>,
    /// Functions that the plugin imports and that are denied to it, by the missing grant.
    denied: BTreeMap<String, Vec<String>>,
}

/// Prints every mistake and warning. The plugins are loaded and configured as at startup, even if the file has
/// mistakes.
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
    plugins.iter().for_each(print_plugin);
    let file = report.path.display();
    if bad > 0 {
        say!("{file}: {bad} of {} plugins cannot be loaded", plugins.len());
    }
    // The summary comes last, so that it covers everything above.
    if bad == 0 || !report.mistakes.is_empty() {
        say!("{file}: {}", count(report.mistakes.len(), report.warnings.len()));
    }
}

fn print_plugin(plugin: &PluginCheck) {
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
            say!("  note: it requests {} in `grants`, but runs without", plugin.ungranted.join(", "));
        }
        for (grant, functions) in &plugin.denied {
            let functions = functions.join(", ");
            say!("  note: without `{grant}` in `grants`, these imported functions are denied: {functions}");
        }
    }
}

/// Prints a mistake in a plugin's settings, in the form of mistakes in the configuration file.
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
    let finding = |mistake: &Mistake| in_file(report, mistake);
    let of_plugins =
        plugins.iter().flat_map(|plugin| plugin.errors.iter().flat_map(|error| of(plugin, error)));
    CheckReport {
        file: report.path.display().to_string(),
        good,
        mistakes: report.mistakes.iter().map(finding).chain(of_plugins).collect(),
        warnings: report.warnings.iter().map(finding).collect(),
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
    let finding = |key: &str, cause: String| CheckFinding {
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
                ..finding(&mistake.at, mistake.text.clone())
            })
            .collect(),
        error => vec![finding("", error.to_string())],
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
