//! A mistake in a plugin's settings, reported by its schema or by the plugin.

use std::fmt;

use crate::FileLine;

/// A mistake in a plugin's settings, reported by its schema or by the plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigMistake {
    /// A JSON Pointer (RFC 6901) into the plugin's settings; "" refers to the whole.
    pub at: String,
    /// Description of the mistake.
    pub text: String,
    /// How to correct it; `None` if unknown.
    pub remedy: Option<String>,
    /// File and line; `None` if the settings were not read from a file.
    pub place: Option<FileLine>,
}

impl ConfigMistake {
    pub(crate) fn new(at: String, text: String) -> Self {
        Self { at, text, remedy: None, place: None }
    }
}

impl fmt::Display for ConfigMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        if !self.at.is_empty() {
            write!(f, "{}: ", self.at)?;
        }
        f.write_str(&self.text)?;
        match &self.remedy {
            Some(remedy) => write!(f, " ({remedy})"),
            None => Ok(()),
        }
    }
}
