//! Parses the configuration that the host passes, and reports the positions of mistakes.

use serde::de::DeserializeOwned;
use serde_path_to_error::{Path, Segment};

use crate::bindings::services::exports::pintle::plugin::plugin::ConfigError;

/// Parses `json`. Empty text counts as an empty table, so that a plugin whose fields all have defaults needs no
/// configuration.
pub(crate) fn read<P: DeserializeOwned>(json: &str) -> Result<P, ConfigError> {
    let json = if matches!(json.trim(), "" | "null") { "{}" } else { json };
    let mut reader = serde_json::Deserializer::from_str(json);
    let config = serde_path_to_error::deserialize(&mut reader)
        .map_err(|error| ConfigError { at: pointer(error.path()), text: text(error.inner()) })?;
    reader.end().map_err(|error| ConfigError { at: String::new(), text: text(&error) })?;
    Ok(config)
}

/// The error text without line and column, which refer to JSON that the host generated and the operator never saw.
fn text(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let is_place = |rest: &str| rest.chars().all(|c| c.is_ascii_digit() || " column".contains(c));
    match text.rsplit_once(" at line ") {
        Some((before, rest)) if is_place(rest) => before.to_owned(),
        _ => text,
    }
}

/// RFC 6901 section 3: `~` and `/` in a key are written `~0` and `~1`.
fn pointer(path: &Path) -> String {
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } => {
                pointer.push('/');
                pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
            }
            // A plain string that names an enum variant has no path segment of its own in the JSON text.
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    pointer
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[derive(serde::Deserialize, Debug, Default, PartialEq)]
    #[serde(deny_unknown_fields, default)]
    struct SampleConfig {
        zones: Vec<Zone>,
        limits: BTreeMap<String, u32>,
    }

    #[derive(serde::Deserialize, Debug, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Zone {
        name: String,
    }

    fn place(json: &str) -> String {
        read::<SampleConfig>(json).unwrap_err().at
    }

    #[test]
    fn a_mistake_is_reported_with_its_json_pointer() {
        assert_eq!(place(r#"{"zones": [{"name": "a"}, {"name": 7}]}"#), "/zones/1/name");
        assert_eq!(place(r#"{"zones": [{"naem": "a"}]}"#), "/zones/0/naem");
        assert_eq!(place(r#"{"limits": {"a/b~c": "x"}}"#), "/limits/a~1b~0c");
        assert_eq!(place("7"), "");
        assert_eq!(place("{} trailing"), "");
    }

    #[test]
    fn a_mistake_is_told_in_the_operators_terms() {
        let text = read::<SampleConfig>(r#"{"zones": [{"naem": "a"}]}"#).unwrap_err().text;
        assert_eq!(text, "unknown field `naem`, expected `name`");
    }

    #[test]
    fn no_configuration_is_an_empty_table() {
        for json in ["", "null", " {} "] {
            assert_eq!(read::<SampleConfig>(json), Ok(SampleConfig::default()));
        }
    }
}
