//! Fields of addresses and of phrases in ASCII: display names and comments are written as encoded words (RFC 2047
//! section 5), addresses cannot be.
//!
//! The value is read once from its start, and nested comments are counted, so the work is linear whatever the value
//! holds.

use crate::encoded_words::{TextWord, WordWriter, is_encoded_word};

/// A token of a structured field (RFC 5322 section 3.2), as it is in the value.
#[derive(Clone, Copy)]
enum FieldToken<'a> {
    White(&'a str),
    Comment(&'a str),
    Quoted(&'a str),
    Atom(&'a str),
    /// One of [`SEPARATORS`].
    Separator(&'a str),
}

/// What ends an address, a display name or a group's name.
const SEPARATORS: &[char] = &['<', '>', ',', ';', ':'];

/// Writes the value of the field of this name. With `is_phrases` the field is a list of phrases, without addresses.
///
/// # Errors
/// Why this cannot be done.
pub(super) fn addresses(name: &str, value: &str, is_phrases: bool) -> Result<String, &'static str> {
    let mut writer = AddressWriter { writer: WordWriter::new(name), tokens: Vec::new() };
    let (mut rest, mut is_in_angle) = (value, false);
    while !rest.is_empty() {
        let token = FieldToken::first(rest)?;
        rest = &rest[token.text().len()..];
        match token {
            FieldToken::Separator(mark @ ("<" | ":")) if !is_in_angle => {
                writer.phrase();
                writer.separator(mark);
                is_in_angle = mark == "<";
            }
            FieldToken::Separator(mark @ ("," | ";")) if !is_in_angle => {
                if is_phrases {
                    writer.phrase()
                } else {
                    writer.address()?
                }
                writer.separator(mark);
            }
            FieldToken::Separator(">") if is_in_angle => {
                writer.address()?;
                writer.separator(">");
                is_in_angle = false;
            }
            token => writer.tokens.push(token),
        }
    }
    if is_in_angle {
        return Err("an angle bracket is not closed");
    }
    if is_phrases {
        writer.phrase()
    } else {
        writer.address()?
    }
    Ok(writer.writer.finish())
}

struct AddressWriter<'a> {
    writer: WordWriter,
    /// What has been read since the last separator. Only the next one shows what it is.
    tokens: Vec<FieldToken<'a>>,
}

impl AddressWriter<'_> {
    /// Writes the tokens as an address: only comments can be encoded.
    fn address(&mut self) -> Result<(), &'static str> {
        for token in self.tokens.drain(..) {
            match token {
                FieldToken::Comment(text) => comment(&mut self.writer, text),
                token if token.text().is_ascii() => self.writer.verbatim(token.text()),
                _ => return Err("an address in it has characters outside ASCII"),
            }
        }
        Ok(())
    }

    /// Writes the tokens as a phrase. Atoms and quoted strings without white space between them are one word.
    fn phrase(&mut self) {
        let writer = &mut self.writer;
        let mut word = PendingWord { is_spaced: true, ..PendingWord::default() };
        for token in self.tokens.drain(..) {
            match token {
                FieldToken::White(white) => word.end(writer, white),
                FieldToken::Comment(text) => {
                    word.end(writer, "");
                    writer.separate();
                    comment(writer, text);
                }
                FieldToken::Quoted(text) => word.add(text, &unquoted(text)),
                FieldToken::Atom(text) | FieldToken::Separator(text) => word.add(text, text),
            }
        }
        word.end(writer, "");
    }

    /// Writes a separator after the tokens.
    fn separator(&mut self, mark: &str) {
        self.writer.separate();
        self.writer.verbatim(mark);
    }
}

/// Writes a comment, with its parentheses and those of nested ones.
fn comment(writer: &mut WordWriter, text: &str) {
    let mut word = PendingWord::default();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        let raw = &text[at..at + c.len_utf8()];
        match c {
            ' ' | '\t' => word.end(writer, raw),
            '(' | ')' => {
                word.end(writer, "");
                writer.verbatim(raw);
            }
            '\\' => {
                let escaped = chars.next().map_or("", |(at, c)| &text[at..at + c.len_utf8()]);
                word.add(raw, "");
                word.add(escaped, escaped);
            }
            _ => word.add(raw, raw),
        }
    }
}

/// A word of a phrase or a comment that is being read.
#[derive(Default)]
struct PendingWord {
    /// The white space before it.
    white: String,
    /// The word as it is in the value, and without its quotes and escapes.
    raw: String,
    text: String,
    /// Whether white space must precede an encoded word.
    is_spaced: bool,
}

impl PendingWord {
    fn add(&mut self, raw: &str, text: &str) {
        self.raw.push_str(raw);
        self.text.push_str(text);
    }

    /// Writes the word, or the white space if there is no word. Then begins the next one, after this white space.
    fn end(&mut self, writer: &mut WordWriter, white: &str) {
        if self.raw.is_empty() {
            self.white.push_str(white);
            if white.is_empty() {
                writer.verbatim(&self.white);
                self.white.clear();
            }
            return;
        }
        if self.raw.is_ascii() {
            let word = if is_encoded_word(&self.raw) {
                TextWord::Encoded(&self.raw)
            } else {
                TextWord::Plain(&self.raw)
            };
            writer.word(&self.white, &word);
        } else {
            let is_bare = self.is_spaced && self.white.is_empty() && !writer.is_after_white();
            writer.word(if is_bare { " " } else { &self.white }, &TextWord::Unencoded(&self.text));
        }
        self.raw.clear();
        self.text.clear();
        white.clone_into(&mut self.white);
    }
}

impl<'a> FieldToken<'a> {
    /// The token that the text begins with; the text is not empty.
    ///
    /// # Errors
    /// What is not closed.
    fn first(text: &'a str) -> Result<Self, &'static str> {
        let is_special = |c: char| matches!(c, ' ' | '\t' | '(' | '"' | '[') || SEPARATORS.contains(&c);
        let up_to = |end: usize| &text[..end];
        Ok(match text.as_bytes()[0] {
            b' ' | b'\t' => Self::White(up_to(text.find(|c| !matches!(c, ' ' | '\t')).unwrap_or(text.len()))),
            b'(' => Self::Comment(up_to(comment_end(text).ok_or("a comment is not closed")?)),
            b'"' => Self::Quoted(up_to(quoted_end(text).ok_or("a quoted string is not closed")?)),
            b'[' => Self::Atom(up_to(text.find(']').ok_or("a square bracket is not closed")? + 1)),
            b'<' | b'>' | b',' | b';' | b':' => Self::Separator(up_to(1)),
            _ => Self::Atom(up_to(text.find(is_special).unwrap_or(text.len()))),
        })
    }

    fn text(self) -> &'a str {
        match self {
            Self::White(text)
            | Self::Comment(text)
            | Self::Quoted(text)
            | Self::Atom(text)
            | Self::Separator(text) => text,
        }
    }
}

/// Where the quoted string ends that the text begins with (RFC 5322 section 3.2.4).
fn quoted_end(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    let end = text.bytes().skip(1).position(|octet| {
        let is_end = octet == b'"' && !is_escaped;
        is_escaped = octet == b'\\' && !is_escaped;
        is_end
    });
    end.map(|at| at + 2)
}

/// Where the comment ends that the text begins with, with the comments in it (RFC 5322 section 3.2.2).
fn comment_end(text: &str) -> Option<usize> {
    let (mut open, mut is_escaped) = (0_usize, false);
    let end = text.bytes().position(|octet| {
        match octet {
            b'(' if !is_escaped => open += 1,
            b')' if !is_escaped => open -= 1,
            _ => {}
        }
        is_escaped = octet == b'\\' && !is_escaped;
        open == 0
    });
    end.map(|at| at + 1)
}

/// The text of a quoted string, without quotes and escapes.
fn unquoted(quoted: &str) -> String {
    let mut chars = quoted[1..quoted.len() - 1].chars();
    let next = || match chars.next()? {
        '\\' => chars.next(),
        c => Some(c),
    };
    std::iter::from_fn(next).collect()
}
