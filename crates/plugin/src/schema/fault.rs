//! Why a plugin's JSON Schema cannot be used.

use std::fmt;

/// The largest schema, in octets.
pub(super) const MAX_SCHEMA: usize = 256 << 10;
/// The identifier of the only dialect that is read.
pub(super) const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";
/// Why a schema cannot be used: a fault of the plugin's author.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemaFault {
    /// Its size in octets exceeds the limit.
    TooLarge(usize),
    /// It is not JSON.
    NotJson(String),
    /// It is written in another dialect than 2020-12.
    Dialect(String),
    /// It uses something that is not supported: a keyword, or a reference to another document.
    Unserved(String),
    /// A reference to nothing.
    Dangling(String),
    /// Its references form a cycle that does not descend into the settings.
    Circle,
    /// Checking these settings by it takes more steps than any check may, or goes too deep.
    Costly,
    /// A pattern that needs too large an automaton.
    Pattern(String),
    /// It is JSON, but not a valid schema.
    Invalid(String),
}

impl fmt::Display for SchemaFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge(size) => write!(f, "it has {size} octets; at most {MAX_SCHEMA} are allowed"),
            Self::NotJson(why) => write!(f, "it is not JSON: {why}"),
            Self::Dialect(found) => write!(f, "its `$schema` is {found:?}, and only {DIALECT} is supported"),
            Self::Unserved(what) => {
                write!(
                    f,
                    "{what} is not supported: refer to definitions within the schema, as `#/$defs/NAME`"
                )
            }
            Self::Dangling(reference) => write!(f, "{reference:?} refers to nothing"),
            Self::Circle => f.write_str("its references form a cycle"),
            Self::Costly => f.write_str("checking by it would take too long: make it simpler"),
            Self::Pattern(pattern) => write!(f, "the pattern {pattern:?} is too large"),
            Self::Invalid(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for SchemaFault {}
