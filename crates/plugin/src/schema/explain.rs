//! Error messages for settings that a schema refuses: the position, the value found, and what is expected.
//!
//! Descriptions and patterns come from the schema, values from the settings. All of them pass through [`clean`], so
//! that neither can inject log lines.

use boon::{ErrorKind, ValidationError};
use serde_json::{Map, Value};

use super::cost::{decoded, referred};
use crate::ConfigMistake;
use crate::guest_log::clean;
use crate::places::pointer;

/// Maximum number of references followed to describe what is expected.
const MAX_STEPS: usize = 16;
/// Substrings of setting names whose values are not quoted.
const SECRETS: &[&str] = &["password", "secret", "token"];
/// Maximum length of a quoted value, in characters.
const MAX_QUOTE: usize = 40;

/// All mistakes that the validator found, in the order of the settings.
pub(super) fn mistakes(
    error: &ValidationError<'_, '_>,
    schema: &Value,
    settings: &Value,
) -> Vec<ConfigMistake> {
    let mut teller = MistakeCollector { schema, settings, told: Vec::new() };
    teller.explain(error);
    let mut told = teller.told;
    told.sort_by(|a, b| a.at.cmp(&b.at));
    told.dedup();
    told
}

struct MistakeCollector<'a> {
    schema: &'a Value,
    settings: &'a Value,
    told: Vec<ConfigMistake>,
}

impl MistakeCollector<'_> {
    fn explain(&mut self, error: &ValidationError<'_, '_>) {
        let at = at(error);
        match &error.kind {
            ErrorKind::AdditionalProperties { got } => {
                got.iter().for_each(|key| self.unknown(error, &at, key));
            }
            ErrorKind::Required { want } => want.iter().for_each(|key| self.missing(error, &at, key)),
            ErrorKind::AnyOf | ErrorKind::OneOf(None) => self.tell_none_fits(error, &at),
            ErrorKind::FalseSchema => self.note(at, "this is not allowed here", Some("remove it")),
            // The key itself is wrong, not its value.
            ErrorKind::PropertyName { prop } => {
                let text = format!("{prop:?} cannot be the name of a key here");
                self.note(pointer(&at, prop), &text, Some("rename it"));
            }
            kind => match fault(kind) {
                Some((text, remedy)) => {
                    let remedy = remedy.unwrap_or_else(|| self.remedy(error));
                    let found = self.found(&at);
                    self.note(at, &format!("{text}{found}"), Some(&remedy));
                }
                None => error.causes.iter().for_each(|cause| self.explain(cause)),
            },
        }
    }

    fn note(&mut self, at: String, text: &str, remedy: Option<&str>) {
        self.told.push(ConfigMistake { remedy: remedy.map(clean), ..ConfigMistake::new(at, clean(text)) });
    }

    fn unknown(&mut self, error: &ValidationError<'_, '_>, at: &str, key: &str) {
        let known: Vec<&str> = match self.schema_of(error).and_then(|schema| schema.get("properties")) {
            Some(Value::Object(properties)) => properties.keys().map(String::as_str).collect(),
            _ => Vec::new(),
        };
        let remedy = match nearest(key, &known) {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.is_empty() => "remove it".to_owned(),
            None => format!("allowed here: {}", known.join(", ")),
        };
        self.note(pointer(at, key), &format!("there is no key {key:?} here"), Some(&remedy));
    }

    fn missing(&mut self, error: &ValidationError<'_, '_>, at: &str, key: &str) {
        let property = self.schema_of(error).and_then(|schema| schema.get("properties")?.get(key));
        let expected = property.map_or_else(|| "…".to_owned(), |property| self.expected(property));
        self.note(
            at.to_owned(),
            &format!("`{key}` is missing"),
            Some(&format!("add it: {key} = {expected}")),
        );
    }

    /// Reports that none of several forms fits. If exactly one form has the right type and a mistake further in, that
    /// mistake is reported.
    fn tell_none_fits(&mut self, error: &ValidationError<'_, '_>, at: &str) {
        let meant: Vec<_> = error.causes.iter().filter(|cause| !misses(cause, at)).collect();
        if let [only] = meant.as_slice() {
            return self.explain(only);
        }
        if let Some(keys) = keys_missed(error, at) {
            let keys = one_of(keys.iter().map(|key| format!("`{key}`")).collect());
            return self.note(at.to_owned(), &format!("{keys} is missing"), Some("add one of them"));
        }
        let (found, remedy) = (self.found(at), self.remedy(error));
        self.note(at.to_owned(), &format!("this matches none of the possible forms{found}"), Some(&remedy));
    }

    /// What was found, as the end of a sentence.
    fn found(&self, at: &str) -> String {
        let value = self.settings.pointer(at).unwrap_or(&Value::Null);
        // Error messages end up in logs and tickets, so secrets are not quoted.
        let is_secret = SECRETS.iter().any(|word| at.to_ascii_lowercase().contains(word));
        if is_secret { String::new() } else { format!(": found {}", quoted(value)) }
    }

    fn remedy(&self, error: &ValidationError<'_, '_>) -> String {
        let Some(schema) = self.schema_of(error) else {
            return "see the plugin's documentation".to_owned();
        };
        let meaning = schema.get("description").and_then(Value::as_str);
        let meaning = meaning.map(|text| format!(" ({text})")).unwrap_or_default();
        format!("write {}{meaning}", self.expected(schema))
    }

    /// The schema that refused the value.
    fn schema_of(&self, error: &ValidationError<'_, '_>) -> Option<&Value> {
        let (_, fragment) = error.schema_url.split_once('#')?;
        self.schema.pointer(&decoded(fragment))
    }

    fn expected(&self, schema: &Value) -> String {
        expected(schema, self.schema, MAX_STEPS)
    }
}

/// JSON Pointer to the mistake in the settings.
fn at(error: &ValidationError<'_, '_>) -> String {
    error.instance_location.to_string()
}

/// Whether a form fails at the value itself, and not further in.
fn misses(error: &ValidationError<'_, '_>, there: &str) -> bool {
    let here = matches!(
        error.kind,
        ErrorKind::Type { .. } | ErrorKind::Enum { .. } | ErrorKind::Const { .. } | ErrorKind::FalseSchema
    );
    (here && at(error) == there) || error.causes.iter().any(|cause| misses(cause, there))
}

/// The alternative missing keys, if each form lacks only a key: any one of them suffices.
fn keys_missed<'e>(error: &'e ValidationError<'_, '_>, there: &str) -> Option<Vec<&'e str>> {
    fn missed<'e>(cause: &'e ValidationError<'_, '_>, there: &str, keys: &mut Vec<&'e str>) -> bool {
        match &cause.kind {
            ErrorKind::Required { want } if at(cause) == there => {
                keys.extend(want);
                true
            }
            ErrorKind::Group | ErrorKind::Schema { .. } | ErrorKind::Reference { .. } => {
                cause.causes.iter().all(|cause| missed(cause, there, keys))
            }
            _ => false,
        }
    }
    let mut keys = Vec::new();
    error.causes.iter().all(|cause| missed(cause, there, &mut keys)).then_some(keys)
}

/// Error text and, if it differs from the schema's expectation as a whole, the remedy; `None` if the causes describe
/// the mistake.
fn fault(kind: &ErrorKind<'_, '_>) -> Option<(String, Option<String>)> {
    let plain = |text: &str| Some((text.to_owned(), None));
    match kind {
        ErrorKind::Type { .. } => plain("this has the wrong type"),
        ErrorKind::Enum { .. } | ErrorKind::Const { .. } => plain("this is not one of the possible values"),
        ErrorKind::Pattern { .. } | ErrorKind::Format { .. } => {
            plain("this text does not have the required form")
        }
        ErrorKind::Minimum { .. } | ErrorKind::ExclusiveMinimum { .. } => plain("this number is too small"),
        ErrorKind::Maximum { .. } | ErrorKind::ExclusiveMaximum { .. } => plain("this number is too large"),
        ErrorKind::MultipleOf { want, .. } => plain(&format!("this number is not a multiple of {want}")),
        ErrorKind::MinLength { want, .. } => plain(&format!("this text has fewer than {want} characters")),
        ErrorKind::MaxLength { want, .. } => plain(&format!("this text has more than {want} characters")),
        ErrorKind::MinItems { want: 1, .. } => plain("this list is empty"),
        ErrorKind::MinItems { want, .. } => plain(&format!("this list has fewer than {want} items")),
        ErrorKind::MaxItems { want, .. } => plain(&format!("this list has more than {want} items")),
        ErrorKind::MinProperties { want, .. } => plain(&format!("this table has fewer than {want} keys")),
        ErrorKind::MaxProperties { want, .. } => plain(&format!("this table has more than {want} keys")),
        ErrorKind::UniqueItems { got: [one, other] } => {
            let text = format!("items {} and {} of this list are the same", one + 1, other + 1);
            Some((text, Some("remove one of them".to_owned())))
        }
        ErrorKind::Contains | ErrorKind::MinContains { .. } => plain("this list lacks a required item"),
        ErrorKind::MaxContains { .. } => plain("this list has too many items of a kind"),
        ErrorKind::AdditionalItems { got } => {
            Some((format!("this list has {got} extra items"), Some("remove the last ones".to_owned())))
        }
        ErrorKind::Dependency { prop, missing } | ErrorKind::DependentRequired { prop, missing } => {
            let missing = missing.join(", ");
            Some((
                format!("`{prop}` needs {missing} as well"),
                Some(format!("add {missing}, or remove {prop}")),
            ))
        }
        ErrorKind::Not => plain("this value is excluded"),
        ErrorKind::OneOf(Some(_)) => plain("this matches several forms, and may match only one"),
        _ => None,
    }
}

/// Describes what a schema expects, in the syntax that an operator writes.
fn expected(schema: &Value, root: &Value, left: usize) -> String {
    one_of(forms(schema, root, left))
}

/// The expectation as a list, one entry per form.
fn forms(schema: &Value, root: &Value, left: usize) -> Vec<String> {
    let any = || vec!["a value".to_owned()];
    let Some(schema) = schema.as_object().filter(|_| left > 0) else {
        return any();
    };
    if let Some(Value::Array(words)) = schema.get("enum") {
        return words.iter().map(ToString::to_string).collect();
    }
    if let Some(constant) = schema.get("const") {
        return vec![constant.to_string()];
    }
    let several = ["anyOf", "oneOf"].iter().find_map(|key| schema.get(*key)?.as_array());
    if let Some(several) = several {
        return several.iter().flat_map(|form| forms(form, root, left - 1)).collect();
    }
    if let Some(Value::String(reference)) = schema.get("$ref")
        && let Ok(target) = referred(root, reference)
    {
        return forms(target, root, left - 1);
    }
    match schema.get("type") {
        Some(Value::String(kind)) => vec![of_type(kind, schema, root, left)],
        Some(Value::Array(kinds)) => {
            let each = |kind: &Value| of_type(kind.as_str().unwrap_or(""), schema, root, left);
            kinds.iter().map(each).collect()
        }
        _ => any(),
    }
}

fn of_type(kind: &str, schema: &Map<String, Value>, root: &Value, left: usize) -> String {
    match kind {
        "string" => text(schema),
        "boolean" => "true or false".to_owned(),
        "integer" => format!("a whole number{}", range(schema)),
        "number" => format!("a number{}", range(schema)),
        "array" => match schema.get("items") {
            Some(items) => format!("a list of {}", expected(items, root, left - 1)),
            None => "a list".to_owned(),
        },
        "object" => "a table".to_owned(),
        _ => "a value".to_owned(),
    }
}

/// Prefers examples, which are clearer than a pattern.
fn text(schema: &Map<String, Value>) -> String {
    let examples = schema.get("examples").and_then(Value::as_array);
    match (examples, schema.get("pattern").and_then(Value::as_str)) {
        (Some(examples), _) => {
            format!("text like {}", one_of(examples.iter().map(ToString::to_string).collect()))
        }
        (None, Some(pattern)) => format!("text that matches {pattern}"),
        (None, None) => "text".to_owned(),
    }
}

fn range(schema: &Map<String, Value>) -> String {
    match (schema.get("minimum"), schema.get("maximum")) {
        (Some(least), Some(most)) => format!(" from {least} to {most}"),
        (Some(least), None) => format!(" of at least {least}"),
        (None, Some(most)) => format!(" of at most {most}"),
        (None, None) => String::new(),
    }
}

fn one_of(mut words: Vec<String>) -> String {
    match words.pop() {
        Some(last) if words.is_empty() => last,
        Some(last) => format!("{} or {last}", words.join(", ")),
        None => "nothing".to_owned(),
    }
}

fn quoted(value: &Value) -> String {
    match value {
        Value::Object(_) => "a table".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Null => "nothing".to_owned(),
        Value::String(text) if text.chars().count() > MAX_QUOTE => {
            format!("{:?}…", text.chars().take(MAX_QUOTE).collect::<String>())
        }
        plain => plain.to_string(),
    }
}

/// The known key most similar to a misspelt one: at most a third of its letters changed, added, removed or swapped.
fn nearest<'a>(key: &str, known: &[&'a str]) -> Option<&'a str> {
    let distance = |other: &&str| strsim::damerau_levenshtein(key, other);
    let best = known.iter().copied().min_by_key(distance)?;
    (distance(&best) <= key.len().max(best.len()) / 3).then_some(best)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::schema::check;

    fn found(schema: &serde_json::Value, settings: &serde_json::Value) -> Vec<String> {
        let mistakes = check(&schema.to_string(), settings).unwrap();
        mistakes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_mistake_is_told_at_once_in_plain_words() {
        let schema = json!({
            "type": "object", "additionalProperties": false, "required": ["zone"],
            "properties": {
                "zone": {"type": "string"},
                "weight": {"type": "integer", "minimum": 1, "maximum": 9, "description": "What a hit counts"},
                "of": {"type": "array", "items": {"enum": ["hello", "sender"]}},
                "dry": {"type": "boolean"},
            },
        });
        assert_eq!(
            found(&schema, &json!({"wieght": 1, "weight": 12, "of": ["hello", "sendr"], "dry": "yes"})),
            [
                "`zone` is missing (add it: zone = text)",
                "/dry: this has the wrong type: found \"yes\" (write true or false)",
                "/of/1: this is not one of the possible values: found \"sendr\" (write \"hello\" or \"sender\")",
                "/weight: this number is too large: found 12 (write a whole number from 1 to 9 (What a hit counts))",
                "/wieght: there is no key \"wieght\" here (did you mean `weight`?)",
            ]
        );
    }

    #[test]
    fn of_several_forms_the_one_that_was_meant_is_told() {
        let schema = json!({"anyOf": [
            {"enum": ["defer", "reject"]},
            {"type": "object", "properties": {"points": {"type": "number"}}, "additionalProperties": false},
        ]});
        assert_eq!(
            found(&schema, &json!("rejct")),
            [
                "this matches none of the possible forms: found \"rejct\" (write \"defer\", \"reject\" or a table)"
            ]
        );
        assert_eq!(
            found(&schema, &json!({"point": 3})),
            ["/point: there is no key \"point\" here (did you mean `points`?)"]
        );
    }

    #[test]
    fn examples_tell_what_a_pattern_means() {
        let schema = json!({"type": "string", "pattern": "^[0-9]+s$", "examples": ["5s", "30s"]});
        let expected =
            "this text does not have the required form: found \"5\" (write text like \"5s\" or \"30s\")";
        assert_eq!(found(&schema, &json!("5")), [expected]);
    }

    #[test]
    fn one_key_of_several_is_asked_for() {
        let schema = json!({"anyOf": [{"required": ["add"]}, {"required": ["remove"]}]});
        assert_eq!(found(&schema, &json!({"ad": 1})), ["`add` or `remove` is missing (add one of them)"]);
    }

    #[test]
    fn references_are_followed_and_keys_with_odd_letters_found() {
        let schema = json!({
            "$defs": {"a b%/~": {"type": "array", "minItems": 1, "items": {"type": "string"}}},
            "properties": {"x": {"$ref": "#/$defs/a%20b%25~1~0"}},
        });
        assert_eq!(
            found(&schema, &json!({"x": []})),
            ["/x: this list is empty: found a list (write a list of text)"]
        );
        assert_eq!(
            found(&schema, &json!({"x": [3]})),
            ["/x/0: this has the wrong type: found 3 (write text)"]
        );
    }

    #[test]
    fn nothing_that_is_quoted_can_write_a_line_of_a_log() {
        let schema = json!({"type": "string", "pattern": "^[a-z]+$", "description": "one\nERROR two"});
        let told = found(&schema, &json!("\u{1b}[31m\nERROR three"));
        assert!(!told[0].contains(char::is_control), "{told:?}");
    }
}
