//! A header block that steps can change, and the difference to what it was.

use pintle_plugin_sdk::Header;
use pintle_plugin_sdk::message::{Field, HeaderEdit, Position};
use serde::Deserialize;

/// The longest value and the longest line that the gateway writes, in octets.
const MAX_VALUE: usize = 64 << 10;
const MAX_LINE: usize = 998;

/// The fields of a message, as they are and as they are to be.
#[derive(Debug)]
pub(crate) struct Block(Vec<Line>);

/// One field.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) value: String,
    /// What it was; none for one that is new.
    old: Option<Field>,
    removed: bool,
}

/// Names of fields: `X-Spam-*` for all that begin so. Case does not count.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub(crate) struct Glob {
    start: String,
    whole: bool,
}

impl Block {
    pub(crate) fn new(fields: Vec<Field>) -> Self {
        let line = |field: Field| Line {
            name: field.name.clone(),
            value: field.value.clone(),
            old: Some(field),
            removed: false,
        };
        Self(fields.into_iter().map(line).collect())
    }

    /// The fields that are there now.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &Line> {
        self.0.iter().filter(|line| !line.removed)
    }

    pub(crate) fn fields_mut(&mut self) -> impl Iterator<Item = &mut Line> {
        self.0.iter_mut().filter(|line| !line.removed)
    }

    pub(crate) fn remove(&mut self, what: impl Fn(&Line) -> bool) {
        self.fields_mut().filter(|line| what(line)).for_each(|line| line.removed = true);
    }

    /// The same, by their places among [`Block::fields`] too.
    pub(crate) fn remove_each(&mut self, what: impl Fn(usize, &Line) -> bool) {
        let chosen = self.fields_mut().enumerate().filter(|(at, line)| what(*at, line));
        chosen.for_each(|(_, line)| line.removed = true);
    }

    pub(crate) fn add(&mut self, top: bool, name: &str, value: String) {
        let line = Line { name: name.to_owned(), value, old: None, removed: false };
        let at = if top { 0 } else { self.0.len() };
        self.0.insert(at, line);
    }

    /// What is to be done, in the numbering of the fields as they were.
    pub(crate) fn edits(&self) -> Vec<HeaderEdit> {
        let first_old = self.0.iter().position(|line| line.old.is_some()).unwrap_or(0);
        let (above, rest) = self.0.split_at(first_old);
        // Each goes on top of those before it, so the lowest goes first.
        let mut edits: Vec<_> = above.iter().rev().filter_map(|line| line.edit(Position::Top)).collect();
        edits.extend(rest.iter().filter_map(|line| line.edit(Position::Bottom)));
        let written_anew = |line: &&Line| !line.removed && line.is_renamed() && line.has_new_value();
        let olds = self.0.iter().filter(written_anew).filter(|line| line.can_be_written());
        edits.extend(olds.filter_map(|line| Some(HeaderEdit::Remove(line.old.as_ref()?.index))));
        edits
    }

    /// The fields that stay as they were because what they were to become cannot be written, and those that do not come.
    pub(crate) fn unwritable(&self) -> impl Iterator<Item = &Line> {
        self.fields().filter(|line| line.has_new_value() && !line.can_be_written())
    }

    /// The same for people: `-` before what goes, `+` before what comes.
    pub(crate) fn difference(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for line in self.0.iter().filter(|line| line.edit(Position::Bottom).is_some()) {
            lines.extend(line.old.as_ref().map(|old| format!("- {}: {}", old.name, old.value)));
            if !line.removed {
                lines.push(format!("+ {}: {}", line.name, line.value));
            }
        }
        lines
    }
}

impl Line {
    pub(crate) fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// Bytes that are no UTF-8 are shown to plugins as U+FFFD: what was read cannot be written back.
    pub(crate) fn is_readable(&self) -> bool {
        !self.value.contains('\u{fffd}')
    }

    /// Whether the gateway can write it: a line has room for each of its words (RFC 5322 section 2.1.1), and the first
    /// stands beside the name.
    fn can_be_written(&self) -> bool {
        let mut words = self.value.split(' ').map(str::len);
        self.value.len() <= MAX_VALUE
            && !self.value.contains(['\r', '\n', '\0'])
            && self.name.len() + words.next().unwrap_or(0) + 2 <= MAX_LINE
            && words.all(|len| len < MAX_LINE)
    }

    fn has_new_value(&self) -> bool {
        self.old.as_ref().is_none_or(|old| old.value != self.value)
    }

    fn is_renamed(&self) -> bool {
        self.old.as_ref().is_some_and(|old| old.name != self.name)
    }

    /// Its edit, where it has one. A field that gets another name and another value is added before itself.
    fn edit(&self, place: Position) -> Option<HeaderEdit> {
        let header = || Header { name: self.name.clone(), value: self.value.clone() };
        match (&self.old, self.removed) {
            (None, true) => None,
            (Some(old), true) => Some(HeaderEdit::Remove(old.index)),
            (_, false) if self.has_new_value() && !self.can_be_written() => None,
            (None, false) => Some(HeaderEdit::Add((place, header()))),
            (Some(old), false) => match (self.is_renamed(), self.has_new_value()) {
                (true, true) => Some(HeaderEdit::Add((Position::Before(old.index), header()))),
                (true, false) => Some(HeaderEdit::Rename((old.index, self.name.clone()))),
                (false, true) => Some(HeaderEdit::Replace((old.index, self.value.clone()))),
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

    /// A block of lines such as "Name: value".
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

    #[test]
    fn what_is_untouched_has_no_edit() {
        let mut changed = block("A: 1\nB: 2\nC: 3\nD: 4");
        assert!(changed.edits().is_empty());
        changed.add(true, "T1", "t".to_owned());
        changed.add(true, "T2", "t".to_owned());
        changed.add(false, "Z", "z".to_owned());
        changed.remove(|line| line.is("a") || line.is("T1"));
        changed.fields_mut().filter(|line| line.is("B")).for_each(|line| line.value = "two".to_owned());
        changed.fields_mut().filter(|line| line.is("C")).for_each(|line| line.name = "X-C".to_owned());
        assert_eq!(lines(&changed), ["T2: t", "B: two", "X-C: 3", "D: 4", "Z: z"]);
        let difference = changed.difference();
        assert_eq!(difference, ["+ T2: t", "- A: 1", "- B: 2", "+ B: two", "- C: 3", "+ X-C: 3", "+ Z: z"]);
        let edits: Vec<String> = changed.edits().iter().map(|edit| format!("{edit:?}")).collect();
        assert_eq!(edits.len(), 5, "{edits:?}");
        assert!(edits[0].contains("Top") && edits[1].contains("Remove(0)"), "{edits:?}");
        assert!(edits[3].starts_with("HeaderEdit::Rename") && edits[3].contains("X-C"), "{edits:?}");
    }

    #[test]
    fn what_gets_another_name_and_value_is_written_anew() {
        let mut changed = block("A: 1\nB: 2");
        changed.fields_mut().filter(|line| line.is("A")).for_each(|line| {
            line.name = "X-A".to_owned();
            line.value = "one".to_owned();
        });
        let edits: Vec<String> = changed.edits().iter().map(|edit| format!("{edit:?}")).collect();
        assert!(edits[0].contains("Before(0)") && edits[1].contains("Remove(0)"), "{edits:?}");
        assert_eq!(edits.len(), 2);
    }

    /// A name alone can always be changed: the octets behind it stay.
    #[test]
    fn what_cannot_be_written_anew_is_left_alone() {
        let long = "x".repeat(1_000);
        let mut changed = block(&format!("A: {long}\nB: {long}\nC: caf\u{fffd}"));
        changed.fields_mut().filter(|line| line.is("A")).for_each(|line| line.value.push('y'));
        changed.fields_mut().filter(|line| !line.is("A")).for_each(|line| line.name.insert_str(0, "X-"));
        changed.add(false, "D", long);
        let edits: Vec<String> = changed.edits().iter().map(|edit| format!("{edit:?}")).collect();
        assert!(edits.iter().all(|edit| edit.starts_with("HeaderEdit::Rename")), "{edits:?}");
        assert_eq!(edits.len(), 2);
        assert_eq!(changed.unwritable().count(), 2);
        assert!(changed.difference().iter().all(|line| !line.contains("A:") && !line.contains("D:")));
    }

    #[test]
    fn globs_match_names_in_any_case() {
        assert!(Glob::new("X-Spam-*").matches("x-spam-score") && !Glob::new("X-Spam-*").matches("X-Spa"));
        assert!(Glob::new("Received").matches("RECEIVED") && !Glob::new("Received").matches("Received-SPF"));
    }
}
