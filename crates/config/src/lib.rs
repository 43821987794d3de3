//! The configuration file: parses TOML, validates it, and converts it to the configuration types of each crate.
//!
//! [`check`] reads a TOML file and returns a [`ConfigReport`]: all mistakes in one run, each with line, key, cause and
//! remedy, or the [`Settings`] that the program runs with. It opens no port and starts nothing. Besides the file it
//! reads only the files that it names (certificates, secrets, settings of plugins; `/etc/passwd` and `/etc/group` where
//! it names a user), and checks their owners and modes, since other users must not read secrets or change files that
//! the gateway relies on. The plugin host checks whether a plugin's component compiles and accepts its settings.
//!
//! On a reload, a running gateway calls [`check`] again, and [`Settings::needs_restart`] lists the changes that take
//! effect only after a restart.

mod accounts;
mod definition;
mod exposed;
pub mod files;
mod form;
mod lower;
mod mistake;
pub mod parts;
mod places;
mod position;
mod reader;
mod reference;
mod report;
mod rules;
mod schema;
mod units;
mod value_kind;
mod values;

use std::path::Path;

use toml::de::DeTable;

pub use accounts::RunAs;
pub use exposed::{Exposed, How};
pub use lower::{LogSettings, Settings, Stock};
pub use mistake::{Cause, Mistake};
pub use position::TextPosition;
pub use reference::reference;
pub use report::{ConfigReport, count};
pub use rules::{AccountRule, CertificateRule, ConfigRule, DeliveryRule, FileRule, ListenerRule, SecretRule};
pub use units::duration;
pub use values::{LogFormat, LogLevel};

use crate::reader::ConfigReader;
use crate::schema::SCHEMA;

/// Reads and checks a configuration file. Relative paths in it are resolved from its folder. `stock` lists the plugins
/// that are compiled into the program.
#[must_use]
pub fn check(path: &Path, stock: &Stock) -> ConfigReport {
    match files::text(path) {
        Ok(text) => read(text, path, stock),
        Err(error) => {
            let cause = Cause::NoFile(error.to_string());
            let mistake = Mistake { key: String::new(), span: 0..0, cause };
            ConfigReport::of(path.to_owned(), String::new(), vec![mistake])
        }
    }
}

/// Checks a configuration that is in memory already, as if it had been read from the file `path`.
#[must_use]
pub fn read(text: String, path: &Path, stock: &Stock) -> ConfigReport {
    let (settings, mistakes, warnings) = {
        let reader = ConfigReader::new(&text, path, &SCHEMA);
        let mended = form::mend(&text);
        for fault in mended.faults {
            reader.mistake(String::new(), fault.span, Cause::Syntax(fault.message));
        }
        let (document, _) = DeTable::parse_recoverable(&mended.text);
        let settings = lower::lower(&reader.root(document.get_ref()), stock);
        let (mistakes, warnings) = reader.finish();
        (settings, mistakes, warnings)
    };
    let plugins = sound(&settings.plugins, &mistakes);
    let settings = mistakes.is_empty().then_some(settings);
    ConfigReport { path: path.to_owned(), text, mistakes, warnings, settings, plugins }
}

/// The plugins that have no mistake in their own section. The cache is left out if its key has a mistake.
fn sound(plugins: &pintle_plugin::Config, mistakes: &[Mistake]) -> pintle_plugin::Config {
    let is_mistaken = |at: usize| {
        let (own, below) = (format!("plugin[{at}]"), format!("plugin[{at}]."));
        mistakes.iter().any(|mistake| mistake.key == own || mistake.key.starts_with(&below))
    };
    let kept = plugins.plugins.iter().enumerate().filter(|(at, _)| !is_mistaken(at + 1));
    let cache =
        plugins.cache.clone().filter(|_| !mistakes.iter().any(|mistake| mistake.key == "plugins.cache"));
    pintle_plugin::Config {
        plugins: kept.map(|(_, plugin)| plugin.clone()).collect(),
        cache,
        ..plugins.clone()
    }
}
