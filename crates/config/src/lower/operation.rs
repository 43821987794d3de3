//! Converts the sections `[process]`, `[spool]`, `[admin]` and `[log]`.

use std::path::PathBuf;

use pintle_spool::{DraftLimits, EmbeddedConfig};

use super::surroundings;
use crate::AccountRule;
use crate::accounts::{RunAs, Unknown};
use crate::exposed::FileKind;
use crate::reader::Section;
use crate::values::{LogFormat, LogLevel, Size};

/// The settings of the log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogSettings {
    /// The format of a log line: text or JSON.
    pub format: LogFormat,
    /// The lowest level that is written.
    pub level: LogLevel,
    /// The log file; none for standard error.
    pub file: Option<PathBuf>,
}

/// The user and groups that the gateway switches to; none if none are configured, or they cannot be found.
pub(crate) fn run_as(section: &Section<'_>) -> Option<RunAs> {
    let (user, group) = (section.optional::<String>("user"), section.optional::<String>("group"));
    let Some(user) = user else {
        if group.is_some() {
            section.rule("group", AccountRule::GroupWithoutUser);
        }
        return None;
    };
    match RunAs::find(&user, group.as_deref()) {
        Ok(found) if found.uid == 0 => section.rule("user", AccountRule::UserIsRoot),
        Ok(found) => return Some(found),
        Err(Unknown::User) => section.rule("user", AccountRule::NoSuchUser(user)),
        Err(Unknown::Group) => section.rule("group", AccountRule::NoSuchGroup(group.unwrap_or_default())),
        Err(Unknown::GroupOfNumber) => section.rule("user", AccountRule::NumberWithoutGroup),
    }
    None
}

pub(crate) fn spool(section: &Section<'_>) -> EmbeddedConfig {
    let folder: PathBuf = section.get("dir");
    section.spot("dir").guard(&folder, FileKind::Folder);
    surroundings::own_folder(&section.spot("dir"), &folder, false);
    EmbeddedConfig {
        drafts: DraftLimits {
            in_memory: section.get::<Size>("memory_per_message").octets(),
            budget: section.get::<Size>("memory").octets(),
            ..DraftLimits::default()
        },
        segment_size: section.get::<Size>("segment_size").0,
        reserve: section.get::<Size>("reserve").0,
        warm: section.get::<Size>("warm_memory").octets(),
        ..EmbeddedConfig::new(folder)
    }
}

pub(crate) fn admin(section: &Section<'_>) -> pintle_admin::Config {
    pintle_admin::Config { socket: section.get("socket"), http: section.optional("http") }
}

pub(super) fn log(section: &Section<'_>) -> LogSettings {
    let file = section.optional("file");
    file.iter().for_each(|file: &PathBuf| surroundings::file(&section.spot("file"), file));
    LogSettings { format: section.get("format"), level: section.get("level"), file }
}
