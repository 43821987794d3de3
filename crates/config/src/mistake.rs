//! Mistakes in a configuration: place, cause and remedy of each.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use crate::Exposed;
use crate::rules::ConfigRule;

/// A mistake, or something worth a warning, at its place in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The key, from the top: `listener[2].tls`. List items count from 1. Empty where the file's form is wrong.
    pub key: String,
    /// The octets of the file that the mistake is about.
    pub span: Range<usize>,
    /// What is wrong.
    pub cause: Cause,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// The configuration file itself cannot be read.
    NoFile(String),
    /// The line is not TOML; the text is the parser's.
    Syntax(String),
    /// There is no such key here.
    UnknownKey {
        /// The name that was probably meant.
        nearest: Option<&'static str>,
        /// The names that there are.
        known: Vec<&'static str>,
    },
    /// A required key is missing.
    Missing {
        /// The type and form of a good value.
        expected: String,
    },
    /// A value of another type.
    WrongType {
        /// The type and form of a good value.
        expected: String,
        /// The type of the value.
        found: &'static str,
    },
    /// The value has the right type but cannot be read.
    Malformed {
        /// The type and form of a good value.
        expected: String,
        /// What is wrong with the value.
        why: String,
    },
    /// The word is not one of those allowed.
    NoSuchWord {
        /// The word.
        given: String,
        /// The word that was probably meant.
        nearest: Option<&'static str>,
        /// The words that are allowed.
        known: Vec<&'static str>,
    },
    /// The value names something that the file does not define.
    Undefined {
        /// The kind of thing: `relay`.
        what: &'static str,
        /// The name.
        name: String,
        /// The names that are defined.
        known: Vec<String>,
    },
    /// The name or address was used before.
    Duplicate {
        /// The kind of thing: `listener name`.
        what: &'static str,
        /// The name or address.
        name: String,
        /// The line of the first use.
        line: usize,
    },
    /// A file that the configuration names cannot be used.
    File {
        /// The file.
        path: PathBuf,
        /// Why it cannot be used.
        why: String,
    },
    /// A certificate, a key or a file of root certificates cannot be used; the text says which and why.
    Certificate(String),
    /// A signing key cannot be used; the text says why.
    SigningKey(String),
    /// Other users can read or change a file that only the gateway should.
    Exposed(Exposed),
    /// This environment variable is not set.
    Environment(String),
    /// A rule between keys, or between the file and the machine.
    Rule(ConfigRule),
}

impl Mistake {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> String {
        self.cause.remedy()
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFile(why) => write!(f, "the configuration file cannot be read: {why}"),
            Self::Syntax(text) => write!(f, "this is not TOML: {text}"),
            Self::UnknownKey { .. } => f.write_str("unknown key"),
            Self::Missing { .. } => f.write_str("a required key is missing"),
            Self::WrongType { expected, found } => write!(f, "expected {expected}, found {found}"),
            Self::Malformed { why, .. } => f.write_str(why),
            Self::NoSuchWord { given, .. } => write!(f, "{given:?} is not allowed here"),
            Self::Undefined { what, name, .. } => write!(f, "there is no {what} named {name:?}"),
            Self::Duplicate { what, name, line } => {
                write!(f, "{what} {name:?} was already given at line {line}")
            }
            Self::File { path, why } => write!(f, "{} cannot be used: {why}", path.display()),
            Self::Certificate(why) | Self::SigningKey(why) => f.write_str(why),
            Self::Exposed(exposed) => exposed.fmt(f),
            Self::Environment(name) => write!(f, "the environment variable {name} is not set"),
            Self::Rule(rule) => rule.fmt(f),
        }
    }
}

impl Cause {
    /// Whether the mistake may be that a line could not be read.
    pub(crate) fn is_an_absence(&self) -> bool {
        match self {
            Self::Missing { .. } | Self::Undefined { .. } => true,
            Self::Rule(rule) => rule.is_an_absence(),
            _ => false,
        }
    }

    fn remedy(&self) -> String {
        match self {
            Self::NoFile(_) => "give an existing, readable file with -c".into(),
            Self::Syntax(_) => "correct the line; strings are in quotes, tables in [brackets]".into(),
            Self::UnknownKey { nearest, known } => suggestion(*nearest, known),
            Self::Missing { expected } => format!("add it: {expected}"),
            Self::WrongType { expected, .. } | Self::Malformed { expected, .. } => {
                format!("write {expected}")
            }
            Self::NoSuchWord { nearest, known, .. } => suggestion(*nearest, known),
            Self::Undefined { what, known, .. } if known.is_empty() => {
                format!("the file defines no {what}")
            }
            Self::Undefined { what, known, .. } => {
                format!("define the {what}, or use one of: {}", known.join(", "))
            }
            Self::Duplicate { .. } => "remove or rename one of them".into(),
            Self::File { .. } | Self::Certificate(_) => {
                "check path, content and permissions; relative paths start from the configuration file's folder"
                    .into()
            }
            Self::SigningKey(_) => "correct it, or make a new key with `pintle dkim keygen`".into(),
            Self::Exposed(exposed) => exposed.remedy(),
            Self::Environment(name) => {
                format!("set {name} for the gateway's process, or use {{ file = \"...\" }}")
            }
            Self::Rule(rule) => rule.remedy(),
        }
    }
}

fn suggestion(nearest: Option<&str>, known: &[&str]) -> String {
    match nearest {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("allowed here: {}", known.join(", ")),
    }
}
