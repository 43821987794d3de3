//! Reads a TOML document key by key and collects all mistakes instead of stopping at the first.
//!
//! serde stops at the first wrong type, so that an operator would need one run for each mistake. Instead, the document
//! is parsed with spans and error recovery, and then each key is read by the [`Schema`]: a mistake is recorded with its
//! place, and reading continues with the default.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use pintle_plugin::Places;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::definition::{KeyDefinition, Schema, SectionDefinition, SectionShape};
use crate::exposed::{FileKind, Us};
use crate::position::position;
use crate::value_kind::ValueKind;
use crate::{Cause, ConfigRule, FileRule, Mistake};

pub(crate) type Value<'a> = Spanned<DeValue<'a>>;

/// The reader of one configuration file, which collects its mistakes and warnings.
pub(crate) struct ConfigReader<'a> {
    pub(crate) text: &'a str,
    /// The path of the file, as the caller gave it.
    pub(crate) path: PathBuf,
    schema: &'static Schema,
    /// The folder of the file, from which relative paths are resolved.
    pub(crate) base: PathBuf,
    /// The user and groups that the gateway will run as; those of this process until `[process]` has been read.
    pub(crate) us: Cell<Us>,
    /// Whether the file contains a secret, so that other users must not read it.
    pub(crate) is_secret: Cell<bool>,
    found: RefCell<ReadFindings>,
}

#[derive(Default)]
struct ReadFindings {
    mistakes: Vec<Mistake>,
    warnings: Vec<Mistake>,
    /// Section, name and type of each key that was read. A test compares them with the schema.
    asked: BTreeSet<(&'static str, &'static str, String)>,
}

/// A section (TOML table) of the file: its path, its definition, and its content, which may be absent.
#[derive(Clone)]
pub(crate) struct Section<'a> {
    pub(crate) reader: &'a ConfigReader<'a>,
    spec: &'static SectionDefinition,
    table: Option<&'a DeTable<'a>>,
    span: Range<usize>,
    path: String,
}

/// The place of a value in the file, to which mistakes are attached.
#[derive(Clone)]
pub(crate) struct Spot<'a> {
    pub(crate) reader: &'a ConfigReader<'a>,
    pub(crate) key: String,
    pub(crate) span: Range<usize>,
}

impl<'a> ConfigReader<'a> {
    pub(crate) fn new(text: &'a str, path: &Path, schema: &'static Schema) -> Self {
        let base = path.parent().unwrap_or(Path::new("")).to_owned();
        let (us, is_secret) = (Cell::new(Us::new(None)), Cell::new(false));
        Self { text, path: path.to_owned(), schema, base, us, is_secret, found: RefCell::default() }
    }

    /// The keys before the first section. Reports unknown keys among them.
    pub(crate) fn root(&'a self, table: &'a DeTable<'a>) -> Section<'a> {
        let root = Section {
            reader: self,
            spec: &self.schema.root,
            table: Some(table),
            span: 0..0,
            path: String::new(),
        };
        root.refuse_unknown();
        root
    }

    /// Records a mistake.
    pub(crate) fn mistake(&self, key: String, span: Range<usize>, cause: Cause) {
        self.found.borrow_mut().mistakes.push(Mistake { key, span, cause });
    }

    pub(crate) fn line(&self, offset: usize) -> usize {
        position(self.text, offset).line
    }

    /// Takes all mistakes and all warnings, each in the order of the file.
    pub(crate) fn finish(&self) -> (Vec<Mistake>, Vec<Mistake>) {
        let mut found = self.found.take();
        // A line with a syntax error was blanked. A key or name that may be on it is not reported as missing.
        if found.mistakes.iter().any(|m| matches!(m.cause, Cause::Syntax(_))) {
            found.mistakes.retain(|m| !m.cause.is_an_absence());
            found.warnings.retain(|m| !m.cause.is_an_absence());
        }
        (ordered(found.mistakes), ordered(found.warnings))
    }

    #[cfg(test)]
    pub(crate) fn asked(&self) -> BTreeSet<(&'static str, &'static str, String)> {
        self.found.borrow().asked.clone()
    }
}

fn ordered(mut mistakes: Vec<Mistake>) -> Vec<Mistake> {
    mistakes.sort_by_key(|m| (m.span.start, m.span.end));
    mistakes.dedup();
    mistakes
}

impl<'a> Section<'a> {
    /// The value of a key that has a default or is required. An absent or invalid value gives the schema's default, or
    /// that of the type if the key is required.
    pub(crate) fn get<T: ReadValue + Default>(&self, key: &'static str) -> T {
        self.optional(key).unwrap_or_default()
    }

    /// The value of a key; the schema's default if it is absent or invalid. Records a missing required key.
    pub(crate) fn optional<T: ReadValue>(&self, key: &'static str) -> Option<T> {
        let spec = self.key(key);
        self.note_asked::<T>(key);
        if let Some(value) = self.value(key) {
            let read = T::read(value, &self.spot(key));
            if read.is_some() {
                return read;
            }
        } else if spec.is_some_and(|spec| spec.required) && self.table.is_some() {
            let expected = format!("{key} = {}", T::kind().describe());
            self.complain(key, Cause::Missing { expected });
        }
        self.default(spec?)
    }

    /// The table of this name below this one; an empty one if it is absent.
    pub(crate) fn table(&self, name: &'static str) -> Section<'a> {
        match self.value(name) {
            Some(value) => self.child(name, name, value, SectionShape::One),
            None => self.empty(name),
        }
    }

    /// The tables of a list below this one: `[[listener]]`.
    pub(crate) fn list(&self, name: &'static str) -> Vec<Section<'a>> {
        let items = match self.value(name).map(|value| (value, value.get_ref())) {
            Some((_, DeValue::Array(items))) => items,
            Some((value, _)) => return vec![self.child(name, name, value, SectionShape::Many)],
            None => return Vec::new(),
        };
        let child = |(at, item)| self.child(name, &format!("{name}[{}]", at + 1), item, SectionShape::Many);
        items.iter().enumerate().map(child).collect()
    }

    /// The tables below this one that the operator names: `[relays.NAME]`.
    pub(crate) fn named(&self, name: &'static str) -> Vec<(String, Section<'a>)> {
        let Some(value) = self.value(name) else {
            return Vec::new();
        };
        let DeValue::Table(table) = value.get_ref() else {
            self.child(name, name, value, SectionShape::Named);
            return Vec::new();
        };
        let child = |(key, value): (&Spanned<_>, &'a Value<'a>)| {
            let own: &std::borrow::Cow<'_, str> = key.get_ref();
            let mut section = self.child(name, &format!("{name}.{own}"), value, SectionShape::Named);
            section.span = key.span();
            (own.to_string(), section)
        };
        table.iter().map(child).collect()
    }

    /// The place of a key's value; that of the section if the key is absent.
    pub(crate) fn spot(&self, key: &str) -> Spot<'a> {
        Spot {
            reader: self.reader,
            key: self.path_of(key),
            span: self.value(key).map_or_else(|| self.span.clone(), Spanned::span),
        }
    }

    /// The place of the section itself.
    pub(crate) fn here(&self) -> Spot<'a> {
        Spot { reader: self.reader, key: self.path.clone(), span: self.span.clone() }
    }

    /// Whether this key is in the file.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    pub(crate) fn complain(&self, key: &str, cause: Cause) {
        self.spot(key).complain(cause);
    }

    pub(crate) fn rule(&self, key: &str, rule: impl Into<ConfigRule>) {
        self.spot(key).rule(rule);
    }

    fn value(&self, key: &str) -> Option<&'a Value<'a>> {
        self.table.and_then(|table| table.get(key))
    }

    /// The definition of a key; none if the schema lacks it, which only a test can cause.
    fn key(&self, name: &str) -> Option<&'static KeyDefinition> {
        let found = self.spec.keys.iter().find(|key| key.name == name);
        debug_assert!(found.is_some(), "the schema lacks {}.{name}", self.spec.name);
        found
    }

    fn default<T: ReadValue>(&self, spec: &'static KeyDefinition) -> Option<T> {
        let value = DeValue::parse(spec.default?).ok()?;
        T::read(&value, &self.here())
    }

    fn note_asked<T: ReadValue>(&self, key: &'static str) {
        // Only the test that compares code and schema needs this.
        if cfg!(test) {
            let asked = (self.spec.name, key, T::kind().describe());
            self.reader.found.borrow_mut().asked.insert(asked);
        }
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn empty(&self, name: &'static str) -> Section<'a> {
        Section {
            reader: self.reader,
            spec: self.reader.schema.section(self.spec.name, name),
            table: None,
            span: self.span.clone(),
            path: self.path_of(name),
        }
    }

    fn child(
        &self,
        name: &'static str,
        step: &str,
        value: &'a Value<'a>,
        shape: SectionShape,
    ) -> Section<'a> {
        let spec = self.reader.schema.section(self.spec.name, name);
        let table = value.get_ref().as_table();
        let path = self.path_of(step);
        let section = Section { reader: self.reader, spec, table, span: value.span(), path };
        if table.is_none() || spec.shape != shape {
            let expected = spec.shape.describe(spec.name);
            section.here().complain(Cause::WrongType { expected, found: type_name(value.get_ref()) });
        }
        section.refuse_unknown();
        section
    }

    fn refuse_unknown(&self) {
        let known = self.reader.schema.names_in(self.spec);
        for (key, _) in self.table.into_iter().flatten() {
            let name = key.get_ref().as_ref();
            if !known.contains(&name) {
                let nearest = nearest(name, &known);
                let known = known.clone();
                self.reader.mistake(self.path_of(name), key.span(), Cause::UnknownKey { nearest, known });
            }
        }
    }
}

impl Spot<'_> {
    pub(crate) fn complain(&self, cause: Cause) {
        self.reader.mistake(self.key.clone(), self.span.clone(), cause);
    }

    /// Checks owner and mode of this file or folder: records a mistake if other users could read or change it, and a
    /// warning if the gateway's user cannot read it.
    pub(crate) fn guard(&self, path: &Path, kind: FileKind) {
        if let Some(exposed) = self.reader.us.get().examine(path, kind) {
            self.complain(Cause::Exposed(exposed));
        }
        let us = self.reader.us.get();
        if let Some(uid) = us.kept_out_of(path).filter(|_| !us.is_whoever_looks()) {
            self.warn(FileRule::Unreadable(path.to_owned(), uid));
        }
    }

    pub(crate) fn rule(&self, rule: impl Into<ConfigRule>) {
        self.complain(Cause::Rule(rule.into()));
    }

    pub(crate) fn warn(&self, rule: impl Into<ConfigRule>) {
        let (key, span) = (self.key.clone(), self.span.clone());
        self.reader.found.borrow_mut().warnings.push(Mistake { key, span, cause: Cause::Rule(rule.into()) });
    }

    pub(crate) fn line(&self) -> usize {
        self.reader.line(self.span.start)
    }

    /// The line of this place alone, for settings that are not in the file.
    pub(crate) fn places(&self) -> Places {
        Places { file: self.reader.path.clone(), lines: [(String::new(), self.line())].into() }
    }

    /// The place of a key within a value that is a table.
    pub(crate) fn within(&self, key: &str, span: Range<usize>) -> Self {
        Spot { reader: self.reader, key: format!("{}.{key}", self.key), span }
    }

    /// The place of one item of a list.
    pub(crate) fn item(&self, at: usize, value: &Value<'_>) -> Self {
        Spot { reader: self.reader, key: format!("{}[{}]", self.key, at + 1), span: value.span() }
    }
}

/// A type that a key's value can have.
pub(crate) trait ReadValue: Sized {
    /// The kind of value, which error messages and the reference describe.
    fn kind() -> ValueKind;
    /// Reads a value; none if it is invalid, with the mistake recorded at `spot`.
    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self>;
}

/// The text of a key of type `T`; none if the value is not text, with the mistake recorded.
pub(crate) fn text<'a, T: ReadValue>(value: &'a Value<'_>, spot: &Spot<'_>) -> Option<&'a str> {
    let text = value.get_ref().as_str();
    if text.is_none() {
        wrong_type::<T>(value, spot);
    }
    text
}

/// Parses the text of a key of type `T`; none if `parse` fails, with its error recorded as the mistake.
pub(crate) fn parsed<'v, T: ReadValue, P, E: Into<String>>(
    value: &'v Value<'_>,
    spot: &Spot<'_>,
    parse: impl FnOnce(&'v str) -> Result<P, E>,
) -> Option<P> {
    match parse(text::<T>(value, spot)?) {
        Ok(parsed) => Some(parsed),
        Err(why) => {
            malformed::<T>(spot, why.into());
            None
        }
    }
}

/// Records a value of the wrong TOML type.
pub(crate) fn wrong_type<T: ReadValue>(value: &Value<'_>, spot: &Spot<'_>) {
    let (expected, found) = (T::kind().describe(), type_name(value.get_ref()));
    spot.complain(Cause::WrongType { expected, found });
}

/// Records a value whose content is invalid for its type.
pub(crate) fn malformed<T: ReadValue>(spot: &Spot<'_>, why: String) {
    let expected = T::kind().describe();
    spot.complain(Cause::Malformed { expected, why });
}

/// The name that was probably meant, by edit distance; none if no known name is similar.
pub(crate) fn nearest(name: &str, known: &[&'static str]) -> Option<&'static str> {
    let distance = |other: &&'static str| strsim::damerau_levenshtein(name, other);
    let best = known.iter().copied().min_by_key(distance)?;
    (distance(&best) <= name.len().max(best.len()) / 3).then_some(best)
}

pub(crate) fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
