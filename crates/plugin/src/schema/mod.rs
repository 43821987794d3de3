//! Validates a plugin's settings against its JSON Schema (2020-12) before the plugin receives them.
//!
//! The schema comes from the plugin and is not trusted. Its size is limited, it cannot refer to other documents, its
//! patterns are matched in linear time by automata of limited size, and `cost` estimates the validation work in
//! advance. An invalid schema, or one that exceeds a limit, is a fault of the plugin's author ([`SchemaFault`]).
//! Settings refused by a valid schema are a mistake of the operator ([`ConfigMistake`]); `explain` writes its text.
//!
//! These functions compute, possibly for a second or two; call them on a blocking thread.

mod cost;
mod explain;
mod fault;

use boon::{Compiler, Draft, Schemas, UrlLoader};
use serde_json::Value;

pub use fault::SchemaFault;
use fault::{DIALECT, MAX_SCHEMA};

use crate::ConfigMistake;

/// The schema's URL for the validator. It is never fetched.
const NAME: &str = "plugin:///schema";

/// All mistakes that the schema finds in these settings, in the order of the settings.
///
/// # Errors
///
/// The schema cannot be used.
pub(crate) fn check(schema: &str, settings: &Value) -> Result<Vec<ConfigMistake>, SchemaFault> {
    let schema = read(schema)?;
    cost::bound(&schema, settings)?;
    let mut compiler = Compiler::new();
    compiler.set_default_draft(Draft::V2020_12);
    compiler.use_loader(Box::new(Nowhere));
    compiler.add_resource(NAME, schema.clone()).map_err(|error| invalid(&error))?;
    let mut schemas = Schemas::new();
    let index = compiler.compile(NAME, &mut schemas).map_err(|error| invalid(&error))?;
    match schemas.validate(settings, index) {
        Ok(()) => Ok(Vec::new()),
        Err(error) => Ok(explain::mistakes(&error, &schema, settings)),
    }
}

/// Parses a schema and checks its dialect.
pub(crate) fn read(text: &str) -> Result<Value, SchemaFault> {
    if text.len() > MAX_SCHEMA {
        return Err(SchemaFault::TooLarge(text.len()));
    }
    // The parser refuses input that is nested too deeply.
    let mut schema: Value =
        serde_json::from_str(text).map_err(|error| SchemaFault::NotJson(error.to_string()))?;
    if let Some(root) = schema.as_object_mut() {
        // The schema's own identifier; references are not resolved by it.
        root.remove("$id");
    }
    match schema.get("$schema") {
        None => Ok(schema),
        Some(Value::String(dialect)) if dialect.trim_end_matches('#') == DIALECT => Ok(schema),
        Some(other) => Err(SchemaFault::Dialect(crate::guest_log::clean(&other.to_string()))),
    }
}

fn invalid(error: &boon::CompileError) -> SchemaFault {
    SchemaFault::Invalid(crate::guest_log::clean(&format!("{error:#}")))
}

/// A retriever that refuses to load other schemas.
struct Nowhere;

impl UrlLoader for Nowhere {
    fn load(&self, url: &str) -> Result<Value, Box<dyn std::error::Error>> {
        Err(Box::new(SchemaFault::Unserved(url.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fault(schema: &Value, settings: &Value) -> SchemaFault {
        check(&schema.to_string(), settings).unwrap_err()
    }

    #[test]
    fn a_schema_that_is_none_is_the_plugins_fault() {
        let any = json!({});
        assert!(matches!(check("{", &any).unwrap_err(), SchemaFault::NotJson(_)));
        assert!(matches!(fault(&json!({"type": "txt"}), &any), SchemaFault::Invalid(_)));
        assert!(matches!(fault(&json!({"pattern": "("}), &any), SchemaFault::Invalid(_)));
        let old = json!({"$schema": "http://json-schema.org/draft-07/schema#"});
        assert!(matches!(fault(&old, &any), SchemaFault::Dialect(_)));
        let large = json!({"description": "x".repeat(MAX_SCHEMA)});
        assert!(matches!(fault(&large, &any), SchemaFault::TooLarge(_)));
    }

    #[test]
    fn nothing_is_fetched() {
        for elsewhere in ["file:///etc/passwd", "https://schema.example/x", "other.json", "#anchor"] {
            let found = fault(&json!({"$ref": elsewhere}), &json!({}));
            assert!(matches!(found, SchemaFault::Unserved(_)), "{elsewhere}: {found}");
        }
        let dynamic = json!({"$dynamicRef": "#x"});
        assert!(matches!(fault(&dynamic, &json!({})), SchemaFault::Unserved(_)));
        let renamed = json!({"properties": {"a": {"$id": "https://schema.example/y"}}});
        assert!(matches!(fault(&renamed, &json!({})), SchemaFault::Unserved(_)));
        assert!(matches!(fault(&json!({"$ref": "#/$defs/x"}), &json!({})), SchemaFault::Dangling(_)));
    }

    /// Each definition uses the previous one twice, forty levels deep: a trillion validations of one value, from two
    /// kilobytes.
    #[test]
    fn a_schema_made_to_explode_is_refused_before_it_does() {
        let mut definitions = serde_json::Map::new();
        for n in 0..40 {
            let next = json!({"$ref": format!("#/$defs/d{}", n + 1)});
            definitions.insert(format!("d{n}"), json!({"allOf": [next, next]}));
        }
        definitions.insert("d40".to_owned(), json!({"type": "object"}));
        let bomb = json!({"$defs": definitions, "$ref": "#/$defs/d0"});
        assert_eq!(fault(&bomb, &json!({})), SchemaFault::Costly);
        let circle = json!({"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"});
        assert_eq!(fault(&circle, &json!({})), SchemaFault::Circle);
        let automaton = json!({"pattern": "(((a{200}){200}){200}){200}"});
        assert!(matches!(fault(&automaton, &json!("a")), SchemaFault::Pattern(_)));
    }

    /// Each pattern is small enough; together they would take gigabytes of memory and minutes to compile.
    #[test]
    fn patterns_without_end_are_refused_before_they_are_built() {
        let one = |n: u32| (format!("p{n}"), json!({"pattern": "^[a-z]{20}$"}));
        let many = |count| json!({"properties": (0..count).map(one).collect::<serde_json::Map<_, _>>()});
        assert_eq!(fault(&many(5_000), &json!({})), SchemaFault::Costly);
        assert_eq!(check(&many(20).to_string(), &json!({"p0": "x".repeat(20)})).unwrap(), []);
    }

    #[test]
    fn a_chain_of_references_cannot_eat_the_stack() {
        let mut definitions = serde_json::Map::new();
        for n in 0..3_000 {
            definitions.insert(format!("d{n}"), json!({"$ref": format!("#/$defs/d{}", n + 1)}));
        }
        definitions.insert("d3000".to_owned(), json!({}));
        assert_eq!(
            fault(&json!({"$defs": definitions, "$ref": "#/$defs/d0"}), &json!({})),
            SchemaFault::Costly
        );
    }

    #[test]
    fn a_schema_may_describe_what_contains_itself() {
        let tree = json!({"$defs": {"node": {
            "type": "object", "additionalProperties": false,
            "properties": {"left": {"$ref": "#/$defs/node"}, "right": {"$ref": "#/$defs/node"}},
        }}, "$ref": "#/$defs/node"});
        let good = json!({"left": {"left": {}, "right": {"left": {}}}});
        assert_eq!(check(&tree.to_string(), &good).unwrap(), []);
        let bad = json!({"left": {"lift": {}}});
        assert_eq!(check(&tree.to_string(), &bad).unwrap()[0].at, "/left/lift");
    }
}
