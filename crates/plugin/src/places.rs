//! Positions of a plugin's settings in the operator's file, so that mistakes can be reported with their line.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;

/// Maps settings to the lines of the file that they were read from.
///
/// All values compare equal: settings that only moved to other lines are unchanged and must not reload the plugin.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// Path of the file.
    pub file: PathBuf,
    /// Line numbers from 1, by JSON Pointer (RFC 6901); "" is the whole.
    pub lines: HashMap<String, usize>,
}

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileLine {
    /// Path of the file.
    pub file: PathBuf,
    /// Line number, from 1.
    pub line: usize,
}

impl Places {
    /// The line of the value at this pointer, or of the nearest enclosing value with a known line.
    #[must_use]
    pub fn at(&self, pointer: &str) -> Option<FileLine> {
        let mut pointer = pointer;
        loop {
            if let Some(&line) = self.lines.get(pointer) {
                return Some(FileLine { file: self.file.clone(), line });
            }
            pointer = &pointer[..pointer.rfind('/')?];
        }
    }
}

impl PartialEq for Places {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl fmt::Display for FileLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// Appends a key to a JSON Pointer.
#[must_use]
pub fn pointer(within: &str, step: &str) -> String {
    format!("{within}/{}", step.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_line_of_its_own_stands_where_its_surroundings_do() {
        let lines = HashMap::from([(String::new(), 3), ("/rules/0".to_owned(), 7)]);
        let places = Places { file: "a.toml".into(), lines };
        let line = |pointer: &str| places.at(pointer).map(|place| place.line);
        assert_eq!(line("/rules/0/remove/name"), Some(7));
        assert_eq!(line("/rules/1"), Some(3));
        assert_eq!(line("no pointer"), None);
        assert_eq!(Places::default().at("/a"), None);
        assert_eq!(pointer("/a", "b/c~d"), "/a/b~1c~0d");
    }
}
