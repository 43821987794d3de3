//! The reference of all sections and keys as Markdown, for docs/configuration.md.

use std::fmt::Write as _;

use crate::definition::{KeyDefinition, SectionDefinition};
use crate::schema::SCHEMA;

/// Every section and key, with type, default and meaning.
#[must_use]
pub fn reference() -> String {
    let mut page = String::new();
    describe(&mut page, "Top of the file", &SCHEMA.root);
    for section in SCHEMA.sections() {
        describe(&mut page, &format!("`{}`", section.heading()), section);
    }
    page
}

fn describe(page: &mut String, heading: &str, section: &SectionDefinition) {
    // Writing to a String cannot fail.
    let _ = writeln!(page, "### {heading}\n\n{}\n", section.about);
    let _ = writeln!(page, "| key | value | default | meaning |\n|---|---|---|---|");
    for key in section.keys {
        let (name, kind) = (key.name, cell(&(key.kind)().describe()));
        let _ = writeln!(page, "| `{name}` | {kind} | {} | {} |", default(key), cell(key.about));
    }
    page.push('\n');
}

fn default(key: &KeyDefinition) -> String {
    match key.default {
        Some(default) => format!("`{default}`"),
        None if key.required => "required".into(),
        None => String::new(),
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
