//! Syntax errors in TOML, one for each slip: lines with syntax errors are blanked, so that the rest can be parsed.
//!
//! The parser has error recovery, but after one unclosed bracket it reports every following line and reads all of them
//! as list items. So each section is parsed alone, and the line that causes most of its errors is blanked, until the
//! section parses. Blanking keeps the offsets of all other octets, and so the line and column of later mistakes.

use std::ops::Range;

use toml::de::{DeTable, Error};

/// A file that parses as TOML, and the syntax errors of the lines that were blanked.
pub(crate) struct Mended {
    pub(crate) text: String,
    pub(crate) faults: Vec<SyntaxSlip>,
}

/// A syntax error: where the parser found it, and the parser's message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SyntaxSlip {
    pub(crate) span: Range<usize>,
    pub(crate) message: String,
}

/// The most syntax errors that are repaired in one section. A section with more is not a configuration, and repairing
/// it would take long.
const MAX_ROUNDS: usize = 50;

pub(crate) fn mend(text: &str) -> Mended {
    let mut mended = Mended { text: text.to_owned(), faults: Vec::new() };
    if errors(text).is_empty() {
        return mended;
    }
    for section in sections(text) {
        mended.mend_section(section);
    }
    // Errors that no section has alone: a table that is defined twice.
    let rest = errors(&mended.text);
    mended.faults.extend(rest.iter().map(|error| SyntaxSlip::new(error, 0)));
    mended
}

impl Mended {
    /// Blanks one line in each round, until the section parses.
    fn mend_section(&mut self, section: Range<usize>) {
        for _ in 0..MAX_ROUNDS {
            let found = errors(&self.text[section.clone()]);
            let Some(first) = found.first() else { return };
            let fault = SyntaxSlip::new(first, section.start);
            let culprit = self.culprit(section.clone(), fault.span.start);
            self.faults.push(fault);
            blank(&mut self.text, culprit);
        }
    }

    /// The line to blank: the one where the parser found the error, or the last line before it that is not empty (an
    /// unclosed bracket is found on the next line). The one without which fewer errors are left is chosen.
    fn culprit(&self, section: Range<usize>, at: usize) -> Range<usize> {
        let written = |line: &Range<usize>| !self.text[line.clone()].trim().is_empty();
        let mut up_to_here: Vec<_> =
            lines(&self.text, section.clone()).into_iter().filter(|line| line.start <= at).collect();
        let shown = up_to_here.pop().unwrap_or(section.clone());
        let before = up_to_here.into_iter().rfind(written);
        let errors_without = |line: &Range<usize>| {
            let mut text = self.text.clone();
            blank(&mut text, line.clone());
            errors(&text[section.clone()]).len()
        };
        let first_choice = errors_without(&shown);
        before.filter(|line| errors_without(line) < first_choice).unwrap_or(shown)
    }
}

impl SyntaxSlip {
    fn new(error: &Error, offset: usize) -> Self {
        let span = error.span().unwrap_or(0..0);
        Self { span: span.start + offset..span.end + offset, message: error.message().to_owned() }
    }
}

fn errors(text: &str) -> Vec<Error> {
    let (_, mut errors) = DeTable::parse_recoverable(text);
    errors.sort_by_key(|error| error.span().map(|span| span.start));
    errors
}

/// The ranges of the sections, each from its heading to the next.
fn sections(text: &str) -> Vec<Range<usize>> {
    let is_heading = |line: &Range<usize>| {
        let line = text[line.clone()].trim();
        line.starts_with('[') && line.ends_with(']') && !line.contains(['"', ',', '=', '\''])
    };
    let headings = lines(text, 0..text.len()).into_iter().filter(is_heading).map(|line| line.start);
    let mut starts: Vec<usize> = std::iter::once(0).chain(headings).collect();
    starts.dedup();
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    starts.iter().copied().zip(ends).map(|(start, end)| start..end).collect()
}

/// The ranges of the lines in a part of the text, each with its line end.
fn lines(text: &str, part: Range<usize>) -> Vec<Range<usize>> {
    let mut start = part.start;
    let ends = text[part].split_inclusive('\n').map(|line| {
        let line = start..start + line.len();
        start = line.end;
        line
    });
    ends.collect()
}

/// Replaces all octets of a line but its line end by spaces. The length stays the same.
fn blank(text: &mut String, line: Range<usize>) {
    let spaces: String = text[line.clone()].bytes().map(|b| if b == b'\n' { '\n' } else { ' ' }).collect();
    text.replace_range(line, &spaces);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slips(text: &str) -> Vec<usize> {
        let mended = mend(text);
        assert_eq!(mended.text.len(), text.len());
        assert!(errors(&mended.text).is_empty(), "{}", mended.text);
        mended.faults.iter().map(|fault| text[..fault.span.start].matches('\n').count() + 1).collect()
    }

    #[test]
    fn each_slip_is_one_fault() {
        assert_eq!(slips("a = 1\n[b]\nc = \"x\"\n"), [0; 0]);
        assert_eq!(slips("a = x.y\nb = 1\n"), [1]);
        assert_eq!(
            slips("a = [1\nb = 2\nc = 3\n[d]\ne = 4\n"),
            [2],
            "an open bracket shows on the next line"
        );
        assert_eq!(slips("a = \"x\n[b]\nc = \n[d]\ne = 'ü\nf = 1\n"), [1, 3, 5]);
        assert_eq!(slips("a = 1\na = 2\nb = =\n"), [2, 3]);
    }

    #[test]
    fn what_is_sound_stays() {
        let text = "a = [1\nb = 2\nc = 3\n[d]\ne = 4\n";
        assert_eq!(mend(text).text, "      \nb = 2\nc = 3\n[d]\ne = 4\n");
    }
}
