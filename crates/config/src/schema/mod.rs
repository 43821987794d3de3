//! Every section and key of the file, with type, default and meaning. They are defined nowhere else.
//!
//! The reader takes defaults and known names from here, and the reference in docs/configuration.md is generated from
//! it, so neither can disagree with what the program does. A test compares these defaults with those of the crates that
//! use the values, and another checks that every key is read with the type given here.

use crate::definition::{KeyDefinition, Schema, SectionDefinition, SectionShape};
use crate::reader::ReadValue;
use crate::values::Domain;

mod delivery;
mod intake;
mod operation;

/// A key with a default, given as TOML text.
pub(super) const fn key<T: ReadValue>(
    name: &'static str,
    default: &'static str,
    about: &'static str,
) -> KeyDefinition {
    KeyDefinition { name, kind: T::kind, default: Some(default), required: false, about }
}

/// A key that may be absent and has no default.
pub(super) const fn optional<T: ReadValue>(name: &'static str, about: &'static str) -> KeyDefinition {
    KeyDefinition { name, kind: T::kind, default: None, required: false, about }
}

/// A required key. Its absence is a mistake.
pub(super) const fn required<T: ReadValue>(name: &'static str, about: &'static str) -> KeyDefinition {
    KeyDefinition { name, kind: T::kind, default: None, required: true, about }
}

/// All sections and keys of a configuration file.
pub(crate) static SCHEMA: Schema = Schema {
    root: SectionDefinition {
        name: "",
        shape: SectionShape::One,
        about: "Keys before the first section.",
        keys: &[
            required::<Domain>(
                "hostname",
                "The gateway's own name, used in the greeting, in EHLO, in Received fields and in bounces. It \
                 should resolve to the gateway's address and back, and its certificate should cover it.",
            ),
            optional::<pintle_mail::Address>(
                "postmaster",
                "The mailbox for `<postmaster>`, without a domain or with the hostname; reports come from that \
                 address. Default: the postmaster of the first accepted domain, unless a route says where mail for \
                 the hostname goes.",
            ),
        ],
    },
    groups: &[intake::SECTIONS, delivery::SECTIONS, operation::SECTIONS],
};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use toml::de::{DeTable, DeValue};

    use super::*;
    use crate::lower::lower;
    use crate::reader::ConfigReader;

    /// Every section once and empty, so that `lower` reads every key.
    fn every_section() -> String {
        SCHEMA.sections().map(|section| section.heading() + "\n").collect()
    }

    #[test]
    fn every_key_is_read_and_as_what_the_schema_says() {
        let text = every_section();
        let reader = ConfigReader::new(&text, Path::new("x.toml"), &SCHEMA);
        let document = DeTable::parse(&text).unwrap();
        lower(&reader.root(document.get_ref()), &[]);
        let all = std::iter::once(&SCHEMA.root).chain(SCHEMA.sections());
        let of = |section: &'static SectionDefinition| {
            section.keys.iter().map(|key| (section.name, key.name, (key.kind)().describe()))
        };
        let defined: BTreeSet<_> = all.flat_map(of).collect();
        assert_eq!(reader.asked(), defined);
    }

    #[test]
    fn names_are_unique_and_defaults_are_toml() {
        for section in std::iter::once(&SCHEMA.root).chain(SCHEMA.sections()) {
            let names = SCHEMA.names_in(section);
            assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{}", section.name);
            for key in section.keys {
                let default = key.default.unwrap_or("true");
                assert!(DeValue::parse(default).is_ok(), "{}.{}: {default}", section.name, key.name);
                assert!(!key.about.is_empty());
            }
        }
    }
}
