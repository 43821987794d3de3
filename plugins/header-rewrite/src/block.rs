//! A header block that rewriting steps modify, and the difference from the original.

use pintle_plugin_sdk::Header;
use pintle_plugin_sdk::message::{Field, HeaderEdit, Position, can_be_written};
use serde::Deserialize;

use crate::octets;

/// Limit on the total size of new values, in octets: half of what the gateway accepts from a call. Senders control how
/// often a rule matches in their mail.
const MAX_WRITTEN: usize = 2 << 20;

/// The fields of a message, in their original and their new form.
#[derive(Debug)]
pub(crate) struct Block {
    lines: Vec<FieldLine>,
    /// Total size of the new values, in octets.
    written: usize,
}

/// One header field.
#[derive(Debug)]
pub(crate) struct FieldLine {
    pub(crate) name: String,
    pub(crate) value: String,
    /// The original field; `None` for an added one.
    old: Option<Field>,
    removed: bool,
    /// Whether a new value could not be written, so that the field stays as it was.
    left: bool,
}

/// The edits of a block, in the original numbering of the fields.
#[derive(Debug)]
pub(crate) struct Edits<'b> {
    /// Removals of fields.
    pub(crate) removals: Vec<HeaderEdit>,
    /// All other edits, grouped by field; the edits of a group apply together or not at all.
    pub(crate) changes: Vec<Vec<HeaderEdit>>,
    /// The field name of each group.
    pub(crate) names: Vec<&'b str>,
}

/// A pattern for field names: `X-Spam-*` matches all names with this prefix. Case-insensitive.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub(crate) struct Glob {
    start: String,
    whole: bool,
}

impl Block {
    /// The fields of a message, with values in the form of [`octets`].
    pub(crate) fn new(fields: Vec<Field>) -> Self {
        let line = |field: Field| FieldLine {
            name: field.name.clone(),
            value: field.value.clone(),
            old: Some(field),
            removed: false,
            left: false,
        };
        Self { lines: fields.into_iter().map(line).collect(), written: 0 }
    }

    /// The current fields, without removed ones.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &FieldLine> {
        self.lines.iter().filter(|line| !line.removed)
    }

    pub(crate) fn fields_mut(&mut self) -> impl Iterator<Item = &mut FieldLine> {
        self.lines.iter_mut().filter(|line| !line.removed)
    }

    pub(crate) fn remove(&mut self, what: impl Fn(&FieldLine) -> bool) {
        self.fields_mut().filter(|line| what(line)).for_each(|line| line.removed = true);
    }

    /// As `remove`, with the index among [`Block::fields`] in addition.
    pub(crate) fn remove_each(&mut self, what: impl Fn(usize, &FieldLine) -> bool) {
        let chosen = self.fields_mut().enumerate().filter(|(at, line)| what(*at, line));
        chosen.for_each(|(_, line)| line.removed = true);
    }

    /// Changes the values of fields. A field stays unchanged if `new` returns `None` (the value became too long), or if
    /// the new values exceed the limit on their total size.
    pub(crate) fn rewrite(
        &mut self,
        what: impl Fn(&FieldLine) -> bool,
        new: impl Fn(&FieldLine) -> Option<String>,
    ) {
        let mut written = self.written;
        for line in self.fields_mut().filter(|line| what(line)) {
            let others = written - line.written();
            match new(line) {
                Some(value) if value == line.value => {}
                Some(value) if others + value.len() <= MAX_WRITTEN => {
                    line.value = value;
                    written = others + line.written();
                }
                _ => line.left = true,
            }
        }
        self.written = written;
    }

    pub(crate) fn add(&mut self, top: bool, name: &str, value: String) {
        let line = FieldLine { name: name.to_owned(), value, old: None, removed: false, left: false };
        let at = if top { 0 } else { self.lines.len() };
        self.lines.insert(at, line);
    }

    /// The edits that turn the original block into the current one.
    pub(crate) fn edits(&self) -> Edits<'_> {
        let is_new = |line: &FieldLine| line.old.is_none();
        let first_old = self.lines.iter().position(|line| !is_new(line)).unwrap_or(0);
        let mut edits = Edits { removals: Vec::new(), changes: Vec::new(), names: Vec::new() };
        for (at, line) in self.lines.iter().enumerate() {
            let place = if at < first_old { Position::Top } else { Position::Bottom };
            match line.edits(place) {
                Some(change) if line.removed => edits.removals.extend(change),
                Some(change) => {
                    edits.changes.push(change);
                    edits.names.push(&line.name);
                }
                None => {}
            }
        }
        edits
    }

    /// The fields whose new value cannot be written: existing ones stay unchanged, new ones are not added.
    pub(crate) fn unwritable(&self) -> impl Iterator<Item = &FieldLine> {
        self.fields().filter(|line| line.left || (line.has_new_value() && !line.can_be_written()))
    }

    /// The changes in readable form: `-` before removed lines, `+` before added ones.
    pub(crate) fn difference(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for line in self.lines.iter().filter(|line| line.edits(Position::Bottom).is_some()) {
            lines.extend(
                line.old.as_ref().map(|old| format!("- {}: {}", old.name, octets::shown(&old.value))),
            );
            if !line.removed {
                lines.push(format!("+ {}: {}", line.name, octets::shown(&line.value)));
            }
        }
        lines
    }
}

impl FieldLine {
    pub(crate) fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    fn can_be_written(&self) -> bool {
        can_be_written(&self.name, &self.value)
    }

    /// Size of the new value, in octets.
    fn written(&self) -> usize {
        if self.has_new_value() { self.value.len() } else { 0 }
    }

    fn has_new_value(&self) -> bool {
        self.old.as_ref().is_none_or(|old| old.value != self.value)
    }

    fn is_renamed(&self) -> bool {
        self.old.as_ref().is_some_and(|old| old.name != self.name)
    }

    /// The edits of the field; `None` if it is unchanged. A field with a new name and a new value is added before
    /// itself; one whose value is not UTF-8 is written as octets.
    fn edits(&self, place: Position) -> Option<Vec<HeaderEdit>> {
        let header = || Header { name: self.name.clone(), value: self.value.clone() };
        match (&self.old, self.removed) {
            (None, true) => None,
            (Some(old), true) => Some(vec![HeaderEdit::Remove(old.index)]),
            (_, false) if self.has_new_value() && !self.can_be_written() => None,
            (None, false) => Some(vec![HeaderEdit::Add((place, header()))]),
            (Some(old), false) if self.has_new_value() && octets::has_octets(&self.value) => {
                Some(vec![HeaderEdit::ReplaceRaw((old.index, octets::field(&self.name, &self.value)))])
            }
            (Some(old), false) => match (self.is_renamed(), self.has_new_value()) {
                (true, true) => Some(vec![
                    HeaderEdit::Add((Position::Before(old.index), header())),
                    HeaderEdit::Remove(old.index),
                ]),
                (true, false) => Some(vec![HeaderEdit::Rename((old.index, self.name.clone()))]),
                (false, true) => Some(vec![HeaderEdit::Replace((old.index, self.value.clone()))]),
                (false, false) => None,
            },
        }
    }
}

impl Glob {
    pub(crate) fn new(text: &str) -> Self {
        let lower = text.to_ascii_lowercase();
        match lower.strip_suffix('*') {
            Some(start) => Self { start: start.to_owned(), whole: false },
            None => Self { start: lower, whole: true },
        }
    }

    pub(crate) fn matches(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        if self.whole { name == self.start } else { name.starts_with(&self.start) }
    }
}

impl From<String> for Glob {
    fn from(text: String) -> Self {
        Self::new(&text)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A block parsed from lines such as "Name: value".
    pub(crate) fn block(text: &str) -> Block {
        let field = |(index, line): (usize, &str)| {
            let (name, value) = line.split_once(": ").unwrap();
            Field { index: u32::try_from(index).unwrap(), name: name.to_owned(), value: value.to_owned() }
        };
        Block::new(text.lines().enumerate().map(field).collect())
    }

    pub(crate) fn lines(block: &Block) -> Vec<String> {
        block.fields().map(|line| format!("{}: {}", line.name, line.value)).collect()
    }

    fn changes(block: &Block) -> Vec<String> {
        block.edits().changes.iter().map(|change| format!("{change:?}")).collect()
    }

    #[test]
    fn what_is_untouched_has_no_edit() {
        let mut changed = block("A: 1\nB: 2\nC: 3\nD: 4");
        assert!(changes(&changed).is_empty() && changed.edits().removals.is_empty());
        changed.add(true, "T1", "t".to_owned());
        changed.add(true, "T2", "t".to_owned());
        changed.add(true, "T3", "t".to_owned());
        changed.add(false, "Z", "z".to_owned());
        changed.remove(|line| line.is("a") || line.is("T1"));
        changed.rewrite(|line| line.is("B"), |_| Some("two".to_owned()));
        changed.fields_mut().filter(|line| line.is("C")).for_each(|line| line.name = "X-C".to_owned());
        assert_eq!(lines(&changed), ["T3: t", "T2: t", "B: two", "X-C: 3", "D: 4", "Z: z"]);
        let difference = changed.difference();
        let expected = ["+ T3: t", "+ T2: t", "- A: 1", "- B: 2", "+ B: two", "- C: 3", "+ X-C: 3", "+ Z: z"];
        assert_eq!(difference, expected);
        assert_eq!(format!("{:?}", changed.edits().removals), "[HeaderEdit::Remove(0)]");
        let changes = changes(&changed);
        assert_eq!(changes.len(), 5, "{changes:?}");
        // The gateway writes fields added at the same position in the order of the list.
        assert!(changes[0].contains("T3") && changes[1].contains("T2"), "{changes:?}");
        assert!(changes[3].starts_with("[HeaderEdit::Rename") && changes[3].contains("X-C"), "{changes:?}");
        assert_eq!(changed.edits().names, ["T3", "T2", "B", "X-C", "Z"]);
    }

    #[test]
    fn what_gets_another_name_and_value_is_written_anew() {
        let mut changed = block("A: 1\nB: 2");
        changed.fields_mut().filter(|line| line.is("A")).for_each(|line| {
            line.name = "X-A".to_owned();
            line.value = "one".to_owned();
        });
        let changes = changes(&changed);
        assert!(changes[0].contains("Before(0)") && changes[0].contains("Remove(0)"), "{changes:?}");
        assert_eq!(changes.len(), 1, "both or neither");
    }

    /// A field's name can always be changed alone: the octets after it stay as they are.
    #[test]
    fn what_cannot_be_written_anew_is_left_alone() {
        let long = "x".repeat(1_000);
        let far = format!("a{}b", " ".repeat(1_000));
        let mut changed = block(&format!("A: {long}\nB: {long}\nC: caf\u{10ffe9}\nE: {far}\nA: {far}"));
        changed.rewrite(|line| line.is("A"), |line| Some(format!("{}y", line.value)));
        changed.fields_mut().filter(|line| !line.is("A")).for_each(|line| line.name.insert_str(0, "X-"));
        changed.add(false, "D", long);
        let changes = changes(&changed);
        assert!(changes.iter().all(|edit| edit.starts_with("[HeaderEdit::Rename")), "{changes:?}");
        assert_eq!(changes.len(), 3);
        assert_eq!(changed.unwritable().count(), 3);
        assert!(changed.difference().iter().all(|line| !line.contains("A:") && !line.contains("D:")));
    }

    #[test]
    fn a_value_that_is_not_utf_8_is_written_as_octets() {
        let mut changed = block("A: caf\u{10ffe9} one\nB: caf\u{10ffe9}\nC: caf\u{10ffe9}");
        changed.rewrite(|line| line.is("A"), |line| Some(line.value.replace("one", "two")));
        changed.rewrite(|line| line.is("B"), |_| Some("plain".to_owned()));
        changed.fields_mut().filter(|line| line.is("A")).for_each(|line| line.name = "X-A".to_owned());
        let edits = changed.edits().changes.concat();
        assert_eq!(edits.len(), 2, "{edits:?}");
        let written = HeaderEdit::ReplaceRaw((0, b"X-A: caf\xe9 two".to_vec()));
        assert_eq!(edits[0], written);
        assert_eq!(edits[1], HeaderEdit::Replace((1, "plain".to_owned())));
        assert_eq!(changed.difference()[..2], ["- A: caf\u{fffd} one", "+ X-A: caf\u{fffd} two"]);
    }

    #[test]
    fn what_is_written_anew_is_bounded_whatever_a_rule_finds() {
        let mut changed = block(&"A: a\n".repeat(200));
        let large = || Some("word ".repeat(10_000));
        for _ in 0..3 {
            changed.rewrite(|line| line.is("A"), |_| large());
        }
        let written = |block: &Block| block.fields().map(FieldLine::written).sum::<usize>();
        assert_eq!((changes(&changed).len(), changed.unwritable().count()), (41, 159));
        assert!(written(&changed) <= MAX_WRITTEN && changed.written == written(&changed));
        changed.rewrite(|line| line.is("A"), |_| Some("a".to_owned()));
        assert_eq!((written(&changed), changed.written), (0, 0), "what is as it was takes no room");
        changed.rewrite(|line| line.is("A"), |_| None);
        assert_eq!(changed.unwritable().count(), 200);
    }

    #[test]
    fn globs_match_names_in_any_case() {
        assert!(Glob::new("X-Spam-*").matches("x-spam-score") && !Glob::new("X-Spam-*").matches("X-Spa"));
        assert!(Glob::new("Received").matches("RECEIVED") && !Glob::new("Received").matches("Received-SPF"));
    }
}
