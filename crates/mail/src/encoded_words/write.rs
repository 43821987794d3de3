//! Writes text outside ASCII as encoded words (RFC 2047): UTF-8, in the encoding that is shorter.

use super::is_linear_white;

/// The longest encoded word that is written. RFC 2047 section 2 allows 75 octets, and 76 for its line; the difference is
/// for a space before the word, and for closing parentheses and a comma behind it.
const MAX_WORD: usize = 72;
/// The longest line with an encoded word (RFC 2047 section 2).
const MAX_LINE: usize = 76;
/// The shortest room that is used: for the frame of a word, and one character of four octets in either encoding.
const MIN_ROOM: usize = FRAME + 12;
/// The octets of an encoded word without its text: `=?utf-8?Q?` and `?=`.
const FRAME: usize = 12;

/// One word of a text, as [`WordWriter::word`] takes it.
pub(crate) enum TextWord<'a> {
    /// To be written as it is.
    Plain(&'a str),
    /// An encoded word already, to be written as it is.
    Encoded(&'a str),
    /// To be encoded: the text that a reader should see.
    Unencoded(&'a str),
}

/// Writes a field's value word by word. Adjacent words that need encoding are encoded together, with the white space
/// between them, since readers drop white space between encoded words (RFC 2047 section 6.2).
pub(crate) struct WordWriter {
    out: String,
    /// The octets on the first line before the value.
    indent: usize,
    /// The text to encode next.
    run: String,
    /// Whether `out` ends in an encoded word that was there before.
    follows_encoded: bool,
}

impl WordWriter {
    /// Starts the value of the field of this name.
    pub(crate) fn new(name: &str) -> Self {
        let indent = name.len() + ": ".len();
        Self { out: String::new(), indent, run: String::new(), follows_encoded: false }
    }

    /// Writes a word, after the white space that precedes it.
    pub(crate) fn word(&mut self, white: &str, word: &TextWord<'_>) {
        match *word {
            TextWord::Unencoded(text) => {
                // White space between two encoded words must be part of one of them.
                if !self.run.is_empty() || self.follows_encoded {
                    self.run.push_str(white);
                } else {
                    self.out.push_str(white);
                }
                self.run.push_str(text);
            }
            TextWord::Encoded(text) if !self.run.is_empty() => {
                self.run.push_str(white);
                self.end_run();
                self.out.push(' ');
                self.out.push_str(text);
                self.follows_encoded = true;
            }
            TextWord::Plain(text) | TextWord::Encoded(text) => {
                self.verbatim(white);
                self.out.push_str(text);
                self.follows_encoded = matches!(word, TextWord::Encoded(_));
            }
        }
    }

    /// Writes text that is not part of any word, such as white space and punctuation.
    pub(crate) fn verbatim(&mut self, text: &str) {
        self.end_run();
        self.out.push_str(text);
        self.follows_encoded = false;
    }

    /// Writes a space if a word that has been encoded precedes. White space is between an encoded word and a special
    /// character that follows (RFC 2047 section 5 (3)).
    pub(crate) fn separate(&mut self) {
        if !self.run.is_empty() {
            self.verbatim(" ");
        }
    }

    /// Whether what has been written ends in white space, or is empty.
    pub(crate) fn is_after_white(&self) -> bool {
        self.run.is_empty() && self.out.chars().next_back().is_none_or(is_linear_white)
    }

    /// The whole value.
    pub(crate) fn finish(mut self) -> String {
        self.end_run();
        self.out
    }

    fn end_run(&mut self) {
        if self.run.is_empty() {
            return;
        }
        if self.follows_encoded {
            self.out.push(' ');
        }
        let room = MAX_LINE.saturating_sub(self.unbroken()).clamp(MIN_ROOM, MAX_WORD);
        encode(&self.run, room, &mut self.out);
        self.run.clear();
    }

    /// How many octets at the end of the value have to be on one line with a word that follows.
    fn unbroken(&self) -> usize {
        let tail = &self.out.as_bytes()[self.out.len().saturating_sub(MAX_LINE)..];
        let is_white = |octet: &u8| matches!(octet, b' ' | b'\t');
        let word = tail.iter().rev().take_while(|octet| !is_white(octet)).count();
        let white = tail[..tail.len() - word].iter().rev().take_while(|octet| is_white(octet)).count();
        if word + white == self.out.len() { self.indent + word + white } else { word + white }
    }
}

/// Appends the text as encoded words, separated by spaces. The first has at most `room` octets.
fn encode(text: &str, room: usize, out: &mut String) {
    let quoted: usize = text.bytes().map(quoted_len).sum();
    let is_quoted = quoted <= text.len().div_ceil(3) * 4;
    let (mut rest, mut room) = (text, room);
    while !rest.is_empty() {
        let end = if is_quoted { quoted_end(rest, room - FRAME) } else { base64_end(rest, room - FRAME) };
        let (word, behind) = rest.split_at(end);
        out.push_str(if is_quoted { "=?utf-8?Q?" } else { "=?utf-8?B?" });
        if is_quoted {
            quote(word, out)
        } else {
            base64(word.as_bytes(), out)
        }
        out.push_str(if behind.is_empty() { "?=" } else { "?= " });
        (rest, room) = (behind, MAX_WORD);
    }
}

/// How much of the text fits into `room` octets of quoted text: whole characters (RFC 2047 section 5), at least one.
fn quoted_end(text: &str, room: usize) -> usize {
    let mut used = 0;
    let fits = |c: &char| {
        used += c.encode_utf8(&mut [0; 4]).bytes().map(quoted_len).sum::<usize>();
        used <= room
    };
    text.chars().take_while(fits).map(char::len_utf8).sum()
}

/// How much of the text fits into `room` octets of base64: whole characters, at least one.
fn base64_end(text: &str, room: usize) -> usize {
    text.floor_char_boundary(room / 4 * 3)
}

/// How many octets this octet takes in the encoding "Q". What may stand for itself in every place is not escaped (RFC
/// 2047 section 5 (3)).
fn quoted_len(octet: u8) -> usize {
    if octet == b' ' || octet.is_ascii_alphanumeric() || b"!*+-/".contains(&octet) { 1 } else { 3 }
}

/// The encoding "Q" (RFC 2047 section 4.2).
fn quote(text: &str, out: &mut String) {
    for octet in text.bytes() {
        match octet {
            b' ' => out.push('_'),
            octet if quoted_len(octet) == 1 => out.push(char::from(octet)),
            octet => {
                out.push('=');
                out.extend(
                    [octet >> 4, octet & 15].map(|digit| char::from(b"0123456789ABCDEF"[usize::from(digit)])),
                );
            }
        }
    }
}

/// The encoding "B" (RFC 2047 section 4.1): base64 (RFC 4648 section 4).
fn base64(octets: &[u8], out: &mut String) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for group in octets.chunks(3) {
        let octet = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = octet(0) << 16 | octet(1) << 8 | octet(2);
        for at in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * at) & 63) as usize];
            out.push(if at <= group.len() { char::from(digit) } else { '=' });
        }
    }
}
