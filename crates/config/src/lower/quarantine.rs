//! Quarantines: how long and how much they keep, for all or by name.

use std::collections::BTreeMap;
use std::time::Duration;

use pintle_outbound::{Quota, Retention, WhenFull};
use toml::de::{DeTable, DeValue};

use crate::read::{Choice, Percent, Positive, Read, Size};
use crate::reader::{Section, Spot, Value};
use crate::schema::Kind;

/// One value for all quarantines, or a table of them by name.
#[derive(Debug, Clone)]
pub(crate) struct ByQuarantine<T> {
    /// For those without a value of their own, where one was given.
    default: Option<T>,
    names: BTreeMap<String, T>,
}

pub(super) fn keep(section: &Section<'_>) -> Retention {
    let given = section.get::<ByQuarantine<Duration>>("keep");
    Retention { default: given.default.unwrap_or(Retention::default().default), names: given.names }
}

pub(super) fn quota(section: &Section<'_>) -> Quota {
    let messages = section.get::<ByQuarantine<Positive<u64>>>("max_messages");
    let size = section.get::<ByQuarantine<Size>>("max_size");
    let mut quota = Quota {
        when_full: section.get("when_full"),
        disk_percent: section.get::<Percent>("max_disk_percent").0,
        messages: messages.names.into_iter().map(|(name, limit)| (name, limit.0)).collect(),
        bytes: size.names.into_iter().map(|(name, limit)| (name, limit.0)).collect(),
        ..Quota::default()
    };
    quota.default.messages = messages.default.map_or(quota.default.messages, |limit| limit.0);
    quota.default.bytes = size.default.map_or(quota.default.bytes, |limit| limit.0);
    quota
}

impl<T> Default for ByQuarantine<T> {
    fn default() -> Self {
        Self { default: None, names: BTreeMap::new() }
    }
}

impl<T: Read> Read for ByQuarantine<T> {
    fn kind() -> Kind {
        Kind::ByQuarantine(Box::new(T::kind()))
    }

    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Table(table) => Some(by_name(table, spot)),
            _ => T::read(value, spot).map(|all| Self { default: Some(all), ..Self::default() }),
        }
    }
}

fn by_name<T: Read>(table: &DeTable<'_>, spot: &Spot<'_>) -> ByQuarantine<T> {
    let mut given = ByQuarantine::default();
    for (key, value) in table {
        let name: &str = key.get_ref();
        let Some(read) = T::read(value, &spot.within(name, value.span())) else {
            continue;
        };
        if name == "default" {
            given.default = Some(read);
        } else {
            given.names.insert(name.to_owned(), read);
        }
    }
    given
}

impl Choice for WhenFull {
    const WORDS: &'static [(&'static str, Self)] =
        &[("refuse", Self::Refuse), ("drop-oldest", Self::DropOldest)];
}
