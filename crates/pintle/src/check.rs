//! `pintle check`: everything that can be found out about a configuration without serving anybody.

use std::process::ExitCode;

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
    let mut good = true;
    for plugin in runtime.block_on(pintle_plugin::check(settings.plugins))? {
        let version = plugin.manifest.as_ref().map_or("", |manifest| manifest.version.as_str());
        for error in &plugin.errors {
            say!("error: plugin {}: {error}", plugin.name);
            good = false;
        }
        if plugin.errors.is_empty() {
            let hooks: Vec<_> = plugin.hooks.iter().map(|hook| hook.name()).collect();
            say!("plugin {} {version}: good, called at {}", plugin.name, hooks.join(", "));
        }
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
