//! The types that define sections and keys of the file: name, type, default, meaning. [`crate::schema`] has the
//! definitions themselves.

use crate::value_kind::ValueKind;

/// The definition of one section (TOML table) of the file.
pub(crate) struct SectionDefinition {
    /// The path from the top of the file, such as `tls.certificate`; empty for the root.
    pub(crate) name: &'static str,
    /// Whether the section is a single table, a list of tables, or tables with names.
    pub(crate) shape: SectionShape,
    /// The purpose of the section, in Markdown, for the reference.
    pub(crate) about: &'static str,
    /// The keys of the section, in the order of the reference.
    pub(crate) keys: &'static [KeyDefinition],
}

/// The TOML syntax of a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SectionShape {
    /// A single table: `[name]`.
    One,
    /// A list of tables: `[[name]]`, any number of times.
    Many,
    /// Tables that the operator names: `[name.NAME]`, any number of times.
    Named,
}

/// The definition of one key of a section.
pub(crate) struct KeyDefinition {
    pub(crate) name: &'static str,
    pub(crate) kind: fn() -> ValueKind,
    /// The default as TOML text; none if the key is required, or has no value when it is absent.
    pub(crate) default: Option<&'static str>,
    pub(crate) required: bool,
    pub(crate) about: &'static str,
}

/// All sections that a file may have.
pub(crate) struct Schema {
    /// The keys before the first section.
    pub(crate) root: SectionDefinition,
    /// The sections, in groups, in the order of the reference.
    pub(crate) groups: &'static [&'static [SectionDefinition]],
}

impl Schema {
    /// Every section but the root, in the order of the reference.
    pub(crate) fn sections(&self) -> impl Iterator<Item = &'static SectionDefinition> {
        self.groups.iter().copied().flatten()
    }

    /// The section of this name below `parent`. If the schema lacks it, which only a test can cause, the root.
    pub(crate) fn section(&'static self, parent: &str, name: &str) -> &'static SectionDefinition {
        let found = self.sections().find(|section| section.is_below(parent) && section.last_name() == name);
        debug_assert!(found.is_some(), "the schema lacks the section {name}");
        found.unwrap_or(&self.root)
    }

    /// The names allowed in a section: its keys and the sections below it.
    pub(crate) fn names_in(&self, section: &SectionDefinition) -> Vec<&'static str> {
        let below = self.sections().filter(|other| other.is_below(section.name));
        section.keys.iter().map(|key| key.name).chain(below.map(SectionDefinition::last_name)).collect()
    }
}

impl SectionDefinition {
    /// The section's heading as TOML: `[name]`, `[[name]]` or `[name.NAME]`.
    pub(crate) fn heading(&self) -> String {
        match self.shape {
            SectionShape::One => format!("[{}]", self.name),
            SectionShape::Many => format!("[[{}]]", self.name),
            SectionShape::Named => format!("[{}.NAME]", self.name),
        }
    }

    fn is_below(&self, parent: &str) -> bool {
        let own = self.name.rsplit_once('.').map_or("", |(parent, _)| parent);
        own == parent && !self.name.is_empty()
    }

    fn last_name(&self) -> &'static str {
        self.name.rsplit_once('.').map_or(self.name, |(_, last)| last)
    }
}

impl SectionShape {
    pub(crate) fn describe(self, name: &str) -> String {
        match self {
            Self::One => format!("a table: [{name}]"),
            Self::Many => format!("a list of tables: [[{name}]]"),
            Self::Named => format!("tables with names: [{name}.NAME]"),
        }
    }
}
