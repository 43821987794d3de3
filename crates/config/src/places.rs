//! The line numbers of the values in a plugin's settings, by JSON Pointer, for TOML and for JSON.
//!
//! No parser returns values with lines in a form that JSON Schema can validate, so the lines are collected in a map
//! beside the values. The line of a value with a key is that of its key.

use std::collections::HashMap;
use std::path::Path;

use pintle_plugin::Places;
use pintle_plugin::places::pointer;
use toml::de::{DeTable, DeValue};

/// The lines of the values in a TOML table, which begins at offset `begin` of the text, in octets.
pub(crate) fn in_toml(file: &Path, text: &str, begin: usize, table: &DeTable<'_>) -> Places {
    let mut toml = Toml { starts: line_starts(text), lines: HashMap::new() };
    toml.note(String::new(), begin);
    toml.table("", table);
    Places { file: file.to_owned(), lines: toml.lines }
}

/// The lines of the values in a JSON text. The caller has checked that the text is JSON.
pub(crate) fn in_json(file: &Path, text: &str) -> Places {
    let mut json = JsonWalk { text, at: 0, line: 1, lines: HashMap::new() };
    json.value("");
    Places { file: file.to_owned(), lines: json.lines }
}

struct Toml {
    /// The offset at which each line begins, in octets.
    starts: Vec<usize>,
    lines: HashMap<String, usize>,
}

impl Toml {
    fn table(&mut self, within: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let at = pointer(within, key.get_ref());
            self.note(at.clone(), key.span().start);
            self.value(&at, value.get_ref());
        }
    }

    fn value(&mut self, at: &str, value: &DeValue<'_>) {
        match value {
            DeValue::Table(table) => self.table(at, table),
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let at = pointer(at, &index.to_string());
                    self.note(at.clone(), item.span().start);
                    self.value(&at, item.get_ref());
                }
            }
            _ => {}
        }
    }

    fn note(&mut self, at: String, offset: usize) {
        self.lines.insert(at, self.starts.partition_point(|start| *start <= offset));
    }
}

fn line_starts(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect()
}

/// Scans valid JSON. On other input it ends as well, but the lines have no meaning.
struct JsonWalk<'a> {
    text: &'a str,
    at: usize,
    line: usize,
    lines: HashMap<String, usize>,
}

impl JsonWalk<'_> {
    fn value(&mut self, at: &str) {
        let first = self.peek();
        self.lines.entry(at.to_owned()).or_insert(self.line);
        match first {
            Some(b'{') => self.members(at),
            Some(b'[') => self.items(at),
            Some(b'"') => drop(self.string()),
            _ => {
                while self
                    .octet()
                    .is_some_and(|octet| !octet.is_ascii_whitespace() && !b",]}".contains(&octet))
                {
                    self.at += 1;
                }
            }
        }
    }

    fn members(&mut self, within: &str) {
        self.at += 1;
        while self.peek() == Some(b'"') {
            let line = self.line;
            let at = pointer(within, &self.string());
            self.lines.insert(at.clone(), line);
            self.skip(b':');
            self.value(&at);
            self.skip(b',');
        }
        self.skip(b'}');
    }

    fn items(&mut self, within: &str) {
        self.at += 1;
        let mut index = 0;
        while self.peek().is_some_and(|octet| octet != b']') {
            let begin = self.at;
            self.value(&pointer(within, &index.to_string()));
            self.skip(b',');
            index += 1;
            if self.at == begin {
                // This is not JSON, and the loop would never end.
                return;
            }
        }
        self.skip(b']');
    }

    fn string(&mut self) -> String {
        let begin = self.at;
        self.at += 1;
        while let Some(octet) = self.octet() {
            self.at += if octet == b'\\' { 2 } else { 1 };
            if octet == b'"' {
                break;
            }
        }
        serde_json::from_str(self.text.get(begin..self.at).unwrap_or_default()).unwrap_or_default()
    }

    fn skip(&mut self, octet: u8) {
        if self.peek() == Some(octet) {
            self.at += 1;
        }
    }

    /// The next octet that is not white space.
    fn peek(&mut self) -> Option<u8> {
        while let Some(octet) = self.octet().filter(u8::is_ascii_whitespace) {
            self.line += usize::from(octet == b'\n');
            self.at += 1;
        }
        self.octet()
    }

    fn octet(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(places: Places) -> Vec<(String, usize)> {
        let mut lines: Vec<_> = places.lines.into_iter().collect();
        lines.sort();
        lines
    }

    fn expected(lines: &[(&str, usize)]) -> Vec<(String, usize)> {
        lines.iter().map(|(at, line)| ((*at).to_owned(), *line)).collect()
    }

    #[test]
    fn values_of_toml_stand_where_their_keys_do() {
        let text =
            "a = 1\nlist = [\n  2,\n  { b = 3 },\n]\n[t]\n\"x/y\" = 1\n[[rules]]\nn = 1\n[[rules]]\nn = 2\n";
        let table = DeTable::parse(text).unwrap();
        let places = in_toml(Path::new("x.toml"), text, 0, table.get_ref());
        assert_eq!(
            sorted(places),
            expected(&[
                ("", 1),
                ("/a", 1),
                ("/list", 2),
                ("/list/0", 3),
                ("/list/1", 4),
                ("/list/1/b", 4),
                ("/rules", 8),
                ("/rules/0", 8),
                ("/rules/0/n", 9),
                ("/rules/1", 10),
                ("/rules/1/n", 11),
                ("/t", 6),
                ("/t/x~1y", 7),
            ])
        );
    }

    #[test]
    fn values_of_json_stand_where_their_keys_do() {
        let text =
            "{ \"a\":\n 1,\n \"li\\\"st\": [ -2.5e3,\n {\"b\": \"}],\\\\\"}, [] ],\n\"e\": {},\"n\":null}\n";
        serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(
            sorted(in_json(Path::new("x.json"), text)),
            expected(&[
                ("", 1),
                ("/a", 1),
                ("/e", 5),
                ("/li\"st", 3),
                ("/li\"st/0", 3),
                ("/li\"st/1", 4),
                ("/li\"st/1/b", 4),
                ("/li\"st/2", 4),
                ("/n", 5),
            ])
        );
    }

    fn pointers(value: &serde_json::Value, at: &str, out: &mut Vec<String>) {
        out.push(at.to_owned());
        match value {
            serde_json::Value::Object(members) => {
                members.iter().for_each(|(key, value)| pointers(value, &pointer(at, key), out));
            }
            serde_json::Value::Array(items) => {
                items
                    .iter()
                    .enumerate()
                    .for_each(|(n, item)| pointers(item, &pointer(at, &n.to_string()), out));
            }
            _ => {}
        }
    }

    /// Valid JSON, and the same with some octets changed: the scan ends, and in JSON each value has a line.
    #[test]
    fn odd_texts_neither_hold_up_nor_break_the_walk() {
        let sample = "{\"a\\u00e9\\\\\": [1, {\"b/~\": null}, [], {}, \"x\\\"]\"],\n\"\": {\"c\": [[2]]}, \"ü\": -1e3}";
        let signs = b"{}[]:,\"\\ \n1ntu\xc3\xbc";
        let mut dice = 1_u64;
        let mut roll = |most: usize| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(dice >> 33).unwrap_or(0) % most
        };
        let mut sound = 0;
        for changes in (0..4).cycle().take(40_000) {
            let mut octets = sample.as_bytes().to_vec();
            for _ in 0..changes {
                let at = roll(octets.len());
                octets[at] = signs[roll(signs.len())];
            }
            let text = String::from_utf8_lossy(&octets);
            let lines = in_json(Path::new("x"), &text).lines;
            if let Ok(value) = serde_json::from_str::<serde_json::Value>(&text) {
                let mut all = Vec::new();
                pointers(&value, "", &mut all);
                let missing: Vec<_> = all.iter().filter(|at| !lines.contains_key(*at)).collect();
                assert!(missing.is_empty(), "{missing:?} in {text}");
                sound += 1;
            }
            if let Ok(table) = DeTable::parse(&text) {
                in_toml(Path::new("x"), &text, 0, table.get_ref());
            }
        }
        assert!(sound > 10_000, "{sound}");
    }
}
