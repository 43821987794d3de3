//! The authors that a From field names: every address that a mail program may show as the author's, however the field
//! breaks the rules.
//!
//! An address parser has one reading of a field. Programs disagree about malformed fields, and a forger needs only one
//! of them: `"a" <x@strict.example> <y@other.example>` is from x for some and from y for others. So all brackets of an
//! item count, and the bare text where there are none. Comments and quoted strings may be anywhere (RFC 5322 section
//! 3.2.2) and contain no address.

use crate::domain;

/// The domains of all these addresses, in A-labels, each once. The field's value may be folded. It takes one pass over
/// the octets.
pub(crate) fn domains(value: &[u8]) -> Vec<String> {
    let mut domains: Vec<String> = Vec::new();
    for address in addresses(value) {
        let Some((_, name)) = address.rsplit_once('@') else { continue };
        let name = pintle_mail::address::domain_to_ascii(&joined(name));
        let name = domain::bare(&name);
        if !domains.iter().any(|known| known == name) {
            domains.push(name.to_owned());
        }
        if domains.len() > 1 {
            // Callers only need to know that there are several.
            break;
        }
    }
    domains
}

/// Removes blanks around dots, as programs do: RFC 5322 section 4.4 once allowed them. Otherwise such a domain would be
/// unknown and have no policy.
fn joined(name: &str) -> String {
    name.split('.').map(str::trim).collect::<Vec<_>>().join(".")
}

/// The texts that may be addresses.
fn addresses(value: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(value);
    let mut items = AddressItems::default();
    for piece in (UncommentedPieces { text: &text, quotes: true, comments: true }) {
        match piece {
            FieldPiece::Quoted => items.text.push('"'),
            FieldPiece::Sign(sign) => items.sign(sign),
        }
    }
    items.end_item();
    items.found
}

/// A piece of the field's text, without comments.
enum FieldPiece {
    /// A quoted string, with any content.
    Quoted,
    Sign(char),
}

struct UncommentedPieces<'t> {
    text: &'t str,
    /// Whether quoted strings are recognised. After one that does not end, neither it nor any later one is.
    quotes: bool,
    /// The same for comments.
    comments: bool,
}

impl Iterator for UncommentedPieces<'_> {
    type Item = FieldPiece;

    fn next(&mut self) -> Option<FieldPiece> {
        loop {
            let sign = self.text.chars().next()?;
            let end = match sign {
                '"' if self.quotes => end_of_quoted(self.text),
                '(' if self.comments => end_of_comment(self.text),
                _ => None,
            };
            match (sign, end) {
                ('"', Some(end)) => {
                    self.text = &self.text[end..];
                    return Some(FieldPiece::Quoted);
                }
                (_, Some(end)) => self.text = &self.text[end..],
                (_, None) => {
                    self.quotes &= sign != '"';
                    self.comments &= sign != '(';
                    self.text = &self.text[sign.len_utf8()..];
                    return Some(FieldPiece::Sign(sign));
                }
            }
        }
    }
}

fn end_of_quoted(text: &str) -> Option<usize> {
    let mut signs = text.char_indices().skip(1);
    while let Some((at, sign)) = signs.next() {
        match sign {
            '"' => return Some(at + 1),
            '\\' => drop(signs.next()),
            _ => {}
        }
    }
    None
}

fn end_of_comment(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut signs = text.char_indices();
    while let Some((at, sign)) = signs.next() {
        match sign {
            '(' => depth += 1,
            ')' if depth == 1 => return Some(at + 1),
            ')' => depth -= 1,
            '\\' => drop(signs.next()),
            _ => {}
        }
    }
    None
}

/// Splits the text into items between commas: each has the text in brackets, or bare text.
#[derive(Default)]
struct AddressItems {
    found: Vec<String>,
    text: String,
    /// Whether a bracket has been seen in this item: the text before it is a display name.
    has_brackets: bool,
}

impl AddressItems {
    fn sign(&mut self, sign: char) {
        match sign {
            ',' | ';' => self.end_item(),
            // The text before the colon is the name of a group.
            ':' if !self.has_brackets => self.text.clear(),
            '<' => {
                if self.has_brackets {
                    self.keep();
                }
                self.text.clear();
                self.has_brackets = true;
            }
            '>' => self.keep(),
            sign => self.text.push(sign),
        }
    }

    fn keep(&mut self) {
        let text = std::mem::take(&mut self.text);
        let text = text.trim();
        if text.contains('@') {
            self.found.push(text.to_owned());
        }
    }

    fn end_item(&mut self) {
        self.keep();
        self.has_brackets = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &str) -> Vec<String> {
        domains(value.as_bytes())
    }

    #[test]
    fn one_author_however_it_is_written() {
        for value in [
            "a@A.Example",
            " a @ a . example",
            "a@a.example>",
            "<a@a.example",
            "x <a@A. Example >",
            "a@a.example.",
            "\"ceo@good.example\" <x@a.example>",
            "ceo@good.example <x@a.example>",
            "\"x, <y@b.example>\" <a@a.example>",
            "\"a@b.example\"@a.example",
            "(x@b.example) a@a.example (<y@c.example>)",
            "a(c \\) <x@b.example>)@(d(e)f)a.example",
            "\"A\" (note: (nested)) <a@a.example>",
            "team: a@a.example, \"b\" <b@A.example>;",
            "a@a.example,\r\n b@a.example",
            "<@b.example:a@a.example>",
            "<a@a.example> trailing words",
            "\"never closed <a@a.example>",
            "(never closed <a@a.example>",
        ] {
            assert_eq!(of(value), ["a.example"], "{value}");
        }
        assert_eq!(of("x <x@b\u{fc}cher.example>"), ["xn--bcher-kva.example"]);
    }

    #[test]
    fn every_address_counts_that_a_reader_may_show() {
        for value in [
            "\"a\" <x@strict.example> <y@other.example>",
            "<x@strict.example> y@other.example",
            "<x@strict.example <y@other.example>",
            "<<x@strict.example><y@other.example>>",
            "x@strict.example, y@other.example",
            "x@strict.example; y@other.example",
            "<x@strict.example>(c)<y@other.example>",
            "\"\" <x@strict.example>\"\"<y@other.example>",
        ] {
            assert_eq!(of(value), ["strict.example", "other.example"], "{value}");
        }
        for value in ["", "nobody", "\"a@b.example\"", "(a@b.example)", "undisclosed:;", "name <>"] {
            assert!(of(value).is_empty(), "{value}");
        }
    }

    /// A search that starts again at each character would take billions of steps.
    #[test]
    fn what_never_ends_is_looked_for_once() {
        for piece in ["\\\"", "\"\\", "(", "((\\)", "<", ","] {
            let value = format!("a@a.example, \"{}", piece.repeat(100_000));
            assert!(!of(&value).is_empty());
        }
    }
}
