//! The text files of the repository, and which of their lines are code.

use std::fs;

use crate::run::{ChoreError, command, output};

/// A text file that git tracks, or would track if it were added.
#[derive(Debug)]
pub(super) struct SourceFile {
    /// The path from the repository's root, with forward slashes.
    pub(super) path: String,
    pub(super) text: String,
}

/// All text files, including new ones; files that are not UTF-8 are skipped.
pub(super) fn tracked() -> Result<Vec<SourceFile>, ChoreError> {
    let list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let listed = output(&mut command("git", &list))?;
    let paths = listed.split(|&byte| byte == 0).filter(|path| !path.is_empty());
    let read = |path: &[u8]| {
        let path = String::from_utf8(path.to_vec()).ok()?;
        let text = fs::read_to_string(pintle_guest_build::repository().join(&path)).ok()?;
        Some(SourceFile { path, text })
    };
    Ok(paths.filter_map(read).collect())
}

impl SourceFile {
    pub(super) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether the file contains only tests, where length is mostly data and clocks may be read.
    pub(super) fn is_test(&self) -> bool {
        self.path.starts_with("tests/") || self.path.contains("/tests/") || self.path.ends_with("tests.rs")
    }

    /// The lines of code with their numbers from 1: without comments, and without the tests after the unindented
    /// `#[cfg(test)]`, which come last.
    pub(super) fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(at, line)| (at + 1, line));
        let product = lines.take_while(|(_, line)| *line != "#[cfg(test)]");
        product.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_neither_comment_nor_test() {
        let text = "//! Text.\nfn a() {}\n    // why\nfn b() {}\n#[cfg(test)]\nmod tests {}\n".to_owned();
        let source = SourceFile { path: "crates/x/src/lib.rs".to_owned(), text };
        assert_eq!(source.code().collect::<Vec<_>>(), [(2, "fn a() {}"), (4, "fn b() {}")]);
    }

    #[test]
    fn this_file_is_among_the_sources() {
        let sources = tracked().unwrap();
        assert!(sources.iter().any(|source| source.path == "xtask/src/tidy/source.rs" && source.is_rust()));
    }
}
