//! The settings of the policy "partners": JSON in, checked values or all mistakes with JSON Pointers out.

use std::collections::HashSet;

use serde_json::{Map, Value};

const DEFAULT_LIMIT: u32 = 100;

/// What the operator configured.
#[derive(Debug, Default, PartialEq)]
pub struct Settings {
    /// Domains whose recipients are put into the group "quiet".
    pub quiet: HashSet<String>,
    /// With more recipients than this, a message is logged.
    pub limit: u32,
}

/// A mistake: JSON Pointer (RFC 6901) and text.
pub type Mistake = (String, String);

/// Reads the settings; domains stay as written.
///
/// # Errors
///
/// All mistakes, those of known keys first.
pub fn read(config: &str) -> Result<Settings, Vec<Mistake>> {
    let whole = |text: String| vec![(String::new(), text)];
    let json: Value = serde_json::from_str(config).map_err(|error| whole(format!("not JSON: {error}")))?;
    let Value::Object(keys) = json else { return Err(whole("must be an object".to_owned())) };
    let mut mistakes = Vec::new();
    let quiet = read_quiet(keys.get("quiet"), &mut mistakes);
    let limit = read_limit(keys.get("limit"), &mut mistakes);
    find_unknown_keys(&keys, &mut mistakes);
    if mistakes.is_empty() { Ok(Settings { quiet, limit }) } else { Err(mistakes) }
}

fn read_quiet(value: Option<&Value>, mistakes: &mut Vec<Mistake>) -> HashSet<String> {
    let domains = match value {
        None => return HashSet::new(),
        Some(Value::Array(domains)) => domains,
        Some(_) => {
            mistakes.push(("/quiet".to_owned(), "must be a list of domains".to_owned()));
            return HashSet::new();
        }
    };
    let mut quiet = HashSet::new();
    for (place, domain) in domains.iter().enumerate() {
        match domain.as_str() {
            Some(domain) => _ = quiet.insert(domain.to_owned()),
            None => mistakes.push((format!("/quiet/{place}"), "must be a domain".to_owned())),
        }
    }
    quiet
}

/// JSON has one kind of numbers: 3.0 is an integer, as in JSON Schema.
fn read_limit(value: Option<&Value>, mistakes: &mut Vec<Mistake>) -> u32 {
    let Some(value) = value else { return DEFAULT_LIMIT };
    let number = value.as_f64().unwrap_or(0.0);
    if number.fract() == 0.0 && (1.0..=f64::from(u32::MAX)).contains(&number) {
        return number as u32;
    }
    mistakes.push(("/limit".to_owned(), "must be a positive integer".to_owned()));
    DEFAULT_LIMIT
}

fn find_unknown_keys(keys: &Map<String, Value>, mistakes: &mut Vec<Mistake>) {
    let mut unknown: Vec<&String> =
        keys.keys().filter(|key| !["quiet", "limit"].contains(&key.as_str())).collect();
    unknown.sort();
    for key in unknown {
        // RFC 6901 section 3.
        let pointer = format!("/{}", key.replace('~', "~0").replace('/', "~1"));
        mistakes.push((pointer, "unknown key".to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(config: &str) -> Vec<String> {
        read(config).unwrap_err().into_iter().map(|(at, _)| at).collect()
    }

    #[test]
    fn settings_are_read_and_may_be_left_out() {
        let quiet = HashSet::from(["example.net".to_owned()]);
        let read_all = read(r#"{"quiet": ["example.net"], "limit": 3.0}"#);
        assert_eq!(read_all, Ok(Settings { quiet, limit: 3 }));
        assert_eq!(read("{}"), Ok(Settings { quiet: HashSet::new(), limit: DEFAULT_LIMIT }));
    }

    #[test]
    fn every_mistake_has_its_place() {
        let config = r#"{"limit": 0, "z": 1, "a/~": 2, "quiet": ["example.net", 7]}"#;
        assert_eq!(mistakes(config), ["/quiet/1", "/limit", "/a~1~0", "/z"]);
        assert_eq!(mistakes(r#"{"quiet": null, "limit": 1.5}"#), ["/quiet", "/limit"]);
        assert_eq!(mistakes(r#"{"limit": true}"#), ["/limit"]);
        assert_eq!(mistakes(r#"{"limit": 4294967296}"#), ["/limit"]);
    }

    #[test]
    fn what_is_no_object_is_a_mistake_of_the_whole() {
        assert_eq!(mistakes("[]"), [""]);
        assert_eq!(mistakes("{"), [""]);
    }
}
