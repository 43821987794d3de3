//! Reads single parts of a configuration, for commands that need only these. Mistakes in other parts are ignored: a
//! typo in a plugin's settings must not prevent an operator from looking at the queue.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pintle_sender_auth::sign::Keyring;
use toml::de::DeTable;

use crate::exposed::Us;
use crate::lower::{self, keys, operation};
use crate::reader::{ConfigReader, Section};
use crate::schema::SCHEMA;
use crate::{Cause, ConfigReport, Mistake, form};

/// A part of a configuration file.
#[derive(Debug)]
pub struct ConfigPart<T> {
    /// The part's settings. Keys that could not be read have their defaults.
    pub value: T,
    /// The mistakes in this part, and all syntax errors of the file.
    pub report: ConfigReport,
}

/// Reads `[admin]`: the admin socket and the HTTP address.
///
/// # Errors
/// The file cannot be read.
pub fn admin(path: &Path) -> io::Result<ConfigPart<pintle_admin::Config>> {
    part(path, &["admin"], |root| operation::admin(&root.table("admin")))
}

/// The default path of the admin socket.
#[must_use]
pub fn default_socket() -> PathBuf {
    let reader = ConfigReader::new("", Path::new(""), &SCHEMA);
    let empty = DeTable::new();
    operation::admin(&reader.root(&empty).table("admin")).socket
}

/// Reads `[spool]`: the folder and limits of the spool.
///
/// # Errors
/// The file cannot be read.
pub fn spool(path: &Path) -> io::Result<ConfigPart<pintle_spool::EmbeddedConfig>> {
    part(path, &["spool", "process"], |root| operation::spool(&root.table("spool")))
}

/// Reads the DKIM keys, and the name servers that are asked for their published records.
///
/// # Errors
/// The file cannot be read.
pub fn signing(path: &Path) -> io::Result<ConfigPart<(Arc<Keyring>, pintle_dns::Config)>> {
    part(path, &["dkim_keys", "dns", "process"], |root| (keys(root), lower::dns(&root.table("dns"))))
}

fn part<T>(
    path: &Path,
    sections: &[&str],
    lower: impl FnOnce(&Section<'_>) -> T,
) -> io::Result<ConfigPart<T>> {
    let text = crate::files::text(path)?;
    let (value, mut mistakes) = {
        let reader = ConfigReader::new(&text, path, &SCHEMA);
        let mended = form::mend(&text);
        for fault in mended.faults {
            reader.mistake(String::new(), fault.span, Cause::Syntax(fault.message));
        }
        let (document, _) = DeTable::parse_recoverable(&mended.text);
        let root = reader.root(document.get_ref());
        reader.us.set(Us::new(operation::run_as(&root.table("process")).as_ref()));
        (lower(&root), reader.finish().0)
    };
    let first = |key: &str| key.split(['.', '[']).next().unwrap_or_default().to_owned();
    // A line with a syntax error may belong to this part.
    let is_meant = |mistake: &Mistake| {
        matches!(mistake.cause, Cause::Syntax(_)) || sections.contains(&first(&mistake.key).as_str())
    };
    mistakes.retain(is_meant);
    let report = ConfigReport::of(path.to_owned(), text, mistakes);
    Ok(ConfigPart { value, report })
}
