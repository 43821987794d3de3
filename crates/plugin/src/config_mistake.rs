//! A mistake in a plugin's settings, as its schema or the plugin itself has found it.

use std::fmt;

use crate::FileLine;

/// A mistake that a plugin, or its schema, found in its configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigMistake {
    /// A JSON Pointer (RFC 6901) into the plugin's settings; "" for the whole.
    pub at: String,
    /// What is wrong.
    pub text: String,
    /// How to correct it, where that is known.
    pub remedy: Option<String>,
    /// Where it stands, when the settings came from a file.
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
