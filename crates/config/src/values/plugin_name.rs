//! The name of a plugin, which is the prefix of its facts: letters, digits, hyphens and underscores.

use super::{ReadValue, Spot, Value, ValueKind, parsed};

/// The longest name, in octets.
const MAX_NAME: usize = 64;
/// The prefix of the gateway's own facts.
const RESERVED: &str = "pintle";

/// The name that the operator gives a plugin; empty only where a required name is missing, which is a mistake of its own.
#[derive(Debug, Clone, Default)]
pub(crate) struct PluginName(pub(crate) String);

impl ReadValue for PluginName {
    fn kind() -> ValueKind {
        ValueKind::PluginName
    }

    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
        parsed::<Self, _, _>(value, spot, |text| {
            let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
            if text == RESERVED {
                return Err(
                    "no plugin may have the name \"pintle\", which the facts of the gateway itself have",
                );
            }
            if text.is_empty() || text.len() > MAX_NAME || !text.chars().all(fits) {
                return Err("a name has 1 to 64 letters, digits, hyphens and underscores");
            }
            Ok(Self(text.to_owned()))
        })
    }
}
