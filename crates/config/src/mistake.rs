//! Mistakes in a configuration: place, cause and remedy of each.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use crate::Exposed;
use crate::rules::ConfigRule;

/// A mistake or a warning, with its place in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The full path of the key: `listener[2].tls`. List items count from 1. Empty for a syntax error.
    pub key: String,
    /// The range of the file that the mistake is about, as offsets in octets.
    pub span: Range<usize>,
    /// The cause, which also determines the remedy.
    pub cause: Cause,
}

/// What is wrong with the file or a value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// The configuration file itself cannot be read.
    NoFile(String),
    /// The line is not TOML; the text is the parser's.
    Syntax(String),
    /// There is no such key here.
    UnknownKey {
        /// The name that was probably meant; none if no known name is similar.
        nearest: Option<&'static str>,
        /// The names that are allowed here.
        known: Vec<&'static str>,
    },
    /// A required key is missing.
    Missing {
        /// The key with the type and syntax of its value.
        expected: String,
    },
    /// The value has the wrong TOML type.
    WrongType {
        /// The type and syntax of a valid value.
        expected: String,
        /// The type of the value in the file.
        found: &'static str,
    },
    /// The value has the right TOML type, but its content is invalid.
    Malformed {
        /// The type and syntax of a valid value.
        expected: String,
        /// What is wrong with the value.
        why: String,
    },
    /// The word is not one of those allowed.
    NoSuchWord {
        /// The word in the file.
        given: String,
        /// The word that was probably meant; none if no allowed word is similar.
        nearest: Option<&'static str>,
        /// The words that are allowed.
        known: Vec<&'static str>,
    },
    /// The value names something that the file does not define.
    Undefined {
        /// The kind of thing: `relay`.
        what: &'static str,
        /// The name that is not defined.
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
        /// The path, resolved from the folder of the configuration file.
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
    /// The value breaks a rule between keys, or between the file and the machine.
    Rule(ConfigRule),
}

impl Mistake {
    /// The correction, as text for the operator.
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
    /// Whether something is missing, which may be on a line that was blanked for its syntax error.
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
