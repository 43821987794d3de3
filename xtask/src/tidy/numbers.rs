//! Limits on the length of functions and files.
//!
//! The scanner relies on rustfmt, which the task `ci` checks before: a function ends at the closing brace with the
//! indentation of its `fn`. That is enough to measure lengths, and a parser would do no better.

use std::fmt;

use super::source::SourceFile;
use super::{TidyRule, Violation};

const LONGEST_FUNCTION: usize = 60;
const MEDIAN_FUNCTION: usize = 8;
/// Nine of ten functions have at most this many lines.
const NINTH_DECILE_FUNCTION: usize = 20;
const LONGEST_FILE: usize = 549;

/// The functions of this file that are too long, and the file itself if it is.
pub(super) fn violations(source: &SourceFile) -> Vec<Violation> {
    let lines = source.text.lines().count();
    let file = (lines > LONGEST_FILE).then(|| Violation {
        path: source.path.clone(),
        line: 0,
        rule: TidyRule::FileLength,
        text: format!("has {lines} lines; the limit is {LONGEST_FILE}"),
    });
    let functions = functions(&source.text).into_iter().filter(|function| function.length > LONGEST_FUNCTION);
    let functions = functions.map(|function| Violation {
        path: source.path.clone(),
        line: function.line,
        rule: TidyRule::FunctionLength,
        text: format!("`{}` has {} lines; the limit is {LONGEST_FUNCTION}", function.name, function.length),
    });
    functions.chain(file).collect()
}

/// Violations of the limits for the tree as a whole.
pub(super) fn spread_violations(sources: &[&SourceFile]) -> Vec<Violation> {
    let spread = LengthSpread::of(sources);
    let violation = |what: &str, length: usize, limit: usize| Violation {
        path: "crates".to_owned(),
        line: 0,
        rule: TidyRule::FunctionLength,
        text: format!("the {what} of all functions' lengths is {length}; the limit is {limit}"),
    };
    let limits = [
        ("median", spread.median, MEDIAN_FUNCTION),
        ("ninth decile", spread.ninth_decile, NINTH_DECILE_FUNCTION),
    ];
    let broken = limits.into_iter().filter(|(_, length, limit)| length > limit);
    broken.map(|(what, length, limit)| violation(what, length, limit)).collect()
}

/// The distribution of the lengths of functions.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LengthSpread {
    count: usize,
    median: usize,
    ninth_decile: usize,
    longest: usize,
}

impl LengthSpread {
    pub(super) fn of(sources: &[&SourceFile]) -> Self {
        let all = sources.iter().flat_map(|source| functions(&source.text));
        let mut lengths: Vec<_> = all.map(|function| function.length).collect();
        lengths.sort_unstable();
        let at = |tenths: usize| lengths.get(lengths.len() * tenths / 10).copied().unwrap_or(0);
        let longest = lengths.last().copied().unwrap_or(0);
        Self { count: lengths.len(), median: at(5), ninth_decile: at(9), longest }
    }
}

impl fmt::Display for LengthSpread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, median, ninth_decile, longest } = self;
        write!(f, "{count}, median {median} lines, 90 % at most {ninth_decile}, longest {longest}")
    }
}

#[derive(Debug, PartialEq, Eq)]
struct MeasuredFunction<'t> {
    name: &'t str,
    line: usize,
    length: usize,
}

fn functions(text: &str) -> Vec<MeasuredFunction<'_>> {
    let lines: Vec<_> = text.lines().collect();
    let starts = lines.iter().enumerate();
    starts
        .filter_map(|(at, line)| {
            let name = function_name(line)?;
            let length = body_length(&lines[at..])?;
            Some(MeasuredFunction { name, line: at + 1, length })
        })
        .collect()
}

/// The function's name, if this line begins a function: only qualifiers may come before its `fn`.
fn function_name(line: &str) -> Option<&str> {
    const QUALIFIERS: [&str; 7] = ["default", "const", "async", "unsafe", "extern", "\"C\"", "pub"];
    let (before, after) = line.trim_start().split_once("fn ")?;
    let is_qualifier = |word: &str| QUALIFIERS.contains(&word) || word.starts_with("pub(");
    if !before.split_whitespace().all(is_qualifier) {
        return None;
    }
    let end = after.find(|c: char| !c.is_alphanumeric() && c != '_')?;
    (end > 0).then(|| &after[..end])
}

/// The number of lines from the `fn` to its closing brace; `None` for a declaration without a body.
fn body_length(lines: &[&str]) -> Option<usize> {
    let first = lines.first()?;
    let indent = &first[..first.len() - first.trim_start().len()];
    if first.trim_end().ends_with('}') {
        return Some(1);
    }
    if first.trim_end().ends_with(';') {
        return None;
    }
    for (at, line) in lines.iter().enumerate().skip(1) {
        let rest = line.strip_prefix(indent).filter(|rest| !rest.starts_with(' '));
        match rest {
            Some("}") => return Some(at + 1),
            // The end of a multi-line signature, as a trait declares it.
            Some(rest) if rest.starts_with(')') && rest.ends_with(';') => return None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> SourceFile {
        SourceFile { path: path.to_owned(), text: text.to_owned() }
    }

    fn long(lines: usize) -> String {
        format!("fn long() {{\n{}}}\n", "    x;\n".repeat(lines - 2))
    }

    #[test]
    fn functions_are_measured_from_fn_to_brace() {
        let text = "\
impl A {
    pub(crate) const fn one() {}

    pub async unsafe fn three(
        a: u8,
    ) -> u8 {
        a
    }
}

trait T {
    fn declared(&self);
    fn declared_long(
        &self,
    ) -> u8;
}
// A comment on fn names.
let x = fn_like();
";
        let found: Vec<_> = functions(text).iter().map(|f| (f.name, f.line, f.length)).collect();
        assert_eq!(found, [("one", 2, 1), ("three", 4, 5)]);
    }

    #[test]
    fn a_function_of_sixty_lines_passes_and_one_more_does_not() {
        assert_eq!(violations(&source("crates/a/src/lib.rs", &long(60))), []);
        let found = violations(&source("crates/a/src/lib.rs", &long(61)));
        assert_eq!((found.len(), found[0].rule, found[0].line), (1, TidyRule::FunctionLength, 1));
    }

    #[test]
    fn files_have_a_limit() {
        let text = "// x\n".repeat(550);
        assert_eq!(violations(&source("crates/a/src/lib.rs", &text)).len(), 1);
    }

    #[test]
    fn the_spread_is_judged_over_all_files() {
        let short = source("a.rs", &long(9).repeat(10));
        let found = spread_violations(&[&short]);
        assert_eq!(found.len(), 1, "a median of nine lines is one too many: {found:?}");
        let spread = LengthSpread::of(&[&short]);
        assert_eq!(spread, LengthSpread { count: 10, median: 9, ninth_decile: 9, longest: 9 });
    }
}
