//! `cargo xtask tidy`: the house rules that no compiler checks. It reports all violations at once, each with its place.
//!
//! The allowed dependencies are in `fences::FENCES`, the only machine-readable copy of the table in
//! docs/architecture.md. A violation that has to stay is listed in `exceptions::EXCEPTIONS` with its reason; an
//! exception that is no longer needed is a violation too, so the list stays as short as possible.

mod contract;
mod exceptions;
mod fences;
mod numbers;
mod source;
mod texts;
mod vocabulary;

use std::fmt;

use crate::run::{ChoreError, step};
use source::SourceFile;

/// A violation of a rule, with its place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Violation {
    /// A path in the repository.
    path: String,
    /// The line number, from 1; 0 for the whole file.
    line: usize,
    rule: TidyRule,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum TidyRule {
    /// A dependency that the architecture does not allow.
    Fence,
    /// A call that a pure crate must not make, such as reading a clock.
    Knowledge,
    FunctionLength,
    FileLength,
    FirstLine,
    Unsafe,
    MachinePath,
    MergeMark,
    LogField,
    Copy,
    Contract,
    Vocabulary,
    Exception,
}

/// Reports all violations; succeeds if there are none.
pub(crate) fn tidy() -> Result<(), ChoreError> {
    step("Tidying");
    let sources = source::tracked()?;
    let mut found = fences::violations(&fences::metadata()?);
    found.extend(texts::copies()?);
    found.extend(contract::violations()?);
    let rust: Vec<&SourceFile> = sources.iter().filter(|source| source.is_rust()).collect();
    for source in &rust {
        found.extend(numbers::violations(source));
        found.extend(texts::first_line(source));
        found.extend(texts::unsafe_outside(source));
        found.extend(texts::log_fields(source));
        found.extend(fences::knowledge(source));
    }
    found.extend(numbers::spread_violations(&rust));
    found.extend(vocabulary::violations(&sources));
    found.extend(sources.iter().flat_map(texts::machine_paths));
    found.extend(sources.iter().flat_map(texts::merge_marks));
    let mut left = exceptions::apply(found);
    left.sort();
    println!("    {} files; functions: {}", sources.len(), numbers::LengthSpread::of(&rust));
    let lines: Vec<_> = left.iter().map(ToString::to_string).collect();
    if lines.is_empty() { Ok(()) } else { Err(ChoreError::Untidy(lines)) }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, line, text, .. } = self;
        if *line == 0 { write!(f, "  {path}: {text}") } else { write!(f, "  {path}:{line}: {text}") }
    }
}
