//! Finds the end of the header of a message (RFC 5322 section 2.1) while the message comes in.
//!
//! Usually an empty line ends it. A line that is neither a field nor the continuation of one ends it too, and is then
//! the first line of the body: such messages exist, and nothing of them may be lost. Two things before a header are
//! known not to belong to the message: the `From ` line of an mbox file becomes a field, and the byte order mark of a
//! text file is removed.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr;
use pintle_mail::header::{is_continuation, is_field_line, is_mailbox_line};

/// Longer than this, in octets, a line without a colon can no longer become a field (RFC 5322 section 2.1.1).
const LONGEST_NAME: usize = 998;

/// Prefix that turns the `From ` line of an mbox file into a field; Postfix uses the same name.
const MAILBOX_LINE: &[u8] = b"X-Mailbox-Line: ";

/// U+FEFF in UTF-8, which editors and scripts put at the start of a text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Collects the header until it is complete.
#[derive(Debug, Default)]
pub(crate) struct HeaderReader {
    lines: BytesMut,
    /// The lines before this offset are fields and continuations.
    judged: usize,
}

/// A header that has been received completely.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CompleteHeader {
    pub(crate) header: Bytes,
    /// Whether an empty line followed it.
    pub(crate) separated: bool,
    /// The beginning of the body, as far as it has been read.
    pub(crate) rest: Bytes,
}

/// Splits a complete message with CRLF line ends into header and body, as a session does with what it receives.
#[must_use]
pub fn split_message(message: Bytes) -> (Bytes, Bytes) {
    let mut head = HeaderReader::default();
    let found = head.push(message).unwrap_or_else(|| head.finish());
    (found.header, found.rest)
}

/// How a line relates to the header.
enum HeaderLine {
    Belongs,
    Empty,
    Foreign,
}

impl HeaderReader {
    /// The number of octets held.
    pub(crate) fn len(&self) -> usize {
        self.lines.len()
    }

    /// Takes decoded content. Returns the header if its end is in this content.
    pub(crate) fn push(&mut self, content: Bytes) -> Option<CompleteHeader> {
        if !self.lines.is_empty() {
            self.lines.extend_from_slice(&content);
            let (end, separator) = end_of_header(&self.lines, &mut self.judged)?;
            return Some(split(self.lines.split().freeze(), end, separator));
        }
        // The usual case: the whole header came with one read, and nothing needs to be copied.
        match end_of_header(&content, &mut self.judged) {
            Some((end, separator)) => Some(split(content, end, separator)),
            None => {
                self.lines.extend_from_slice(&content);
                None
            }
        }
    }

    /// Ends a message whose header has not ended yet. A last line without CRLF is judged like any other.
    pub(crate) fn finish(&mut self) -> CompleteHeader {
        let last = &self.lines[self.judged..];
        let end = match judge(last, self.judged) {
            HeaderLine::Belongs => self.lines.len(),
            HeaderLine::Empty | HeaderLine::Foreign => self.judged,
        };
        split(self.lines.split().freeze(), end, 0)
    }
}

/// Returns the length of the header and of the separator after it, once they are known.
fn end_of_header(bytes: &[u8], judged: &mut usize) -> Option<(usize, usize)> {
    while let Some(lf) = memchr(b'\n', &bytes[*judged..]) {
        match judge(&bytes[*judged..=*judged + lf], *judged) {
            HeaderLine::Belongs => *judged += lf + 1,
            HeaderLine::Empty => return Some((*judged, lf + 1)),
            HeaderLine::Foreign => return Some((*judged, 0)),
        }
    }
    let last = &bytes[*judged..];
    let endless = last.len() > LONGEST_NAME && matches!(judge(last, *judged), HeaderLine::Foreign);
    endless.then_some((*judged, 0))
}

fn judge(line: &[u8], at: usize) -> HeaderLine {
    let belongs = match at {
        0 => is_field_line(without_mark(line)) || is_mailbox_line(line),
        _ => is_field_line(line) || is_continuation(line),
    };
    match line {
        b"\r\n" => HeaderLine::Empty,
        _ if belongs => HeaderLine::Belongs,
        _ => HeaderLine::Foreign,
    }
}

fn without_mark(line: &[u8]) -> &[u8] {
    line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line)
}

fn split(mut bytes: Bytes, end: usize, separator: usize) -> CompleteHeader {
    let mut header = bytes.split_to(end);
    let rest = bytes.split_off(separator);
    if is_mailbox_line(first_line(&header)) {
        header = [MAILBOX_LINE, &header].concat().into();
    } else if header.starts_with(BYTE_ORDER_MARK) {
        header.advance(BYTE_ORDER_MARK.len());
    }
    CompleteHeader { header, separated: separator > 0, rest }
}

fn first_line(bytes: &[u8]) -> &[u8] {
    memchr(b'\n', bytes).map_or(bytes, |lf| &bytes[..lf])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(message: &str, step: usize) -> (String, bool, String) {
        let mut head = HeaderReader::default();
        let mut pieces = message.as_bytes().chunks(step);
        let found = pieces.by_ref().find_map(|piece| head.push(Bytes::copy_from_slice(piece)));
        let found = found.unwrap_or_else(|| head.finish());
        let mut rest = found.rest.to_vec();
        pieces.for_each(|piece| rest.extend_from_slice(piece));
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (text(found.header.to_vec()), found.separated, text(rest))
    }

    #[test]
    fn headers_end_where_they_should() {
        for (message, header, separated, body) in [
            ("A: 1\r\nB: 2\r\n\r\nbody\r\n", "A: 1\r\nB: 2\r\n", true, "body\r\n"),
            ("A: 1\r\n\tmore\r\n\r\n", "A: 1\r\n\tmore\r\n", true, ""),
            ("\r\nbody\r\n", "", true, "body\r\n"),
            ("hello\r\nA: 1\r\n", "", false, "hello\r\nA: 1\r\n"),
            (" x\r\nA: 1\r\n", "", false, " x\r\nA: 1\r\n"),
            ("A: 1\r\nhello\r\n\r\n", "A: 1\r\n", false, "hello\r\n\r\n"),
            ("A: 1\r\n", "A: 1\r\n", false, ""),
            ("A: 1\r\nB: 2", "A: 1\r\nB: 2", false, ""),
            ("A: 1\r\nB", "A: 1\r\n", false, "B"),
            ("", "", false, ""),
            (
                "From a Mon Jan 1 10:00\r\nA: 1\r\n\r\nb",
                "X-Mailbox-Line: From a Mon Jan 1 10:00\r\nA: 1\r\n",
                true,
                "b",
            ),
            (">From a\r\n\r\nb", "X-Mailbox-Line: >From a\r\n", true, "b"),
            ("From a", "X-Mailbox-Line: From a", false, ""),
            ("A: 1\r\nFrom b\r\n", "A: 1\r\n", false, "From b\r\n"),
            ("From : a\r\n\r\nb", "From : a\r\n", true, "b"),
            ("\u{feff}A: 1\r\nB: 2\r\n\r\nb", "A: 1\r\nB: 2\r\n", true, "b"),
            ("\u{feff}text\r\n", "", false, "\u{feff}text\r\n"),
            ("A: 1\r\n\u{feff}B: 2\r\n", "A: 1\r\n", false, "\u{feff}B: 2\r\n"),
            ("Fromage is\r\n", "", false, "Fromage is\r\n"),
        ] {
            for step in 1..=message.len().max(1) {
                let expected = (header.to_owned(), separated, body.to_owned());
                assert_eq!(scan(message, step), expected, "{message:?} by {step}");
            }
        }
    }

    #[test]
    fn an_endless_line_is_no_header() {
        let message = "x".repeat(3_000);
        let mut head = HeaderReader::default();
        let found = head.push(Bytes::from(message.clone())).unwrap();
        assert_eq!((found.header.len(), found.rest.len()), (0, message.len()));
    }
}
