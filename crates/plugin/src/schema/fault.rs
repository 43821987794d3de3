//! Errors in a plugin's JSON Schema.

use std::fmt;

/// Maximum size of a schema, in octets.
pub(super) const MAX_SCHEMA: usize = 256 << 10;
/// The identifier of the only supported dialect.
pub(super) const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";
/// Why a schema cannot be used: a fault of the plugin's author.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemaFault {
    /// The schema exceeds the size limit; holds its size in octets.
    TooLarge(usize),
    /// The schema is not valid JSON.
    NotJson(String),
    /// The schema declares a dialect other than 2020-12.
    Dialect(String),
    /// The schema uses an unsupported feature: a keyword, or a reference to another document.
    Unserved(String),
    /// A reference that resolves to nothing.
    Dangling(String),
    /// Its references form a cycle that does not descend into the settings.
    Circle,
    /// Validating these settings would exceed the limit on steps or depth.
    Costly,
    /// A pattern whose automaton exceeds the size limit.
    Pattern(String),
    /// The schema is JSON, but not a valid JSON Schema.
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
