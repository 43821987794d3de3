//! `pintle check`: everything that can be found out about a configuration without serving anybody.

use std::process::ExitCode;

use pintle_plugin::{ConfigMistake, LoadError, Report};

use crate::cli::ConfigFile;
use crate::say::say;
use crate::stock;

/// Prints every mistake and warning; the plugins are loaded and configured as they would be at a start.
pub(crate) fn check(options: &ConfigFile) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let report = pintle_config::check(&options.config, &stock::components());
    say!("{report}");
    let Ok(settings) = report.into_settings() else {
        return Ok(ExitCode::FAILURE);
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let plugins = runtime.block_on(pintle_plugin::check(settings.plugins))?;
    plugins.iter().for_each(tell);
    let bad = plugins.iter().filter(|plugin| !plugin.errors.is_empty()).count();
    if bad > 0 {
        say!("{}: {bad} of {} plugins cannot be loaded", options.config.display(), plugins.len());
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(plugin: &Report) {
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
