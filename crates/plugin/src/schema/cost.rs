//! Upper bound on the cost of validating settings by a schema, computed before validation.
//!
//! A schema of two kilobytes can require "both of these, twice each" forty levels deep, and a validator would do all of
//! that. Such a validation could not be cancelled, since it computes on a thread of its own. So the pairs of schema and
//! value that a validator would visit are counted first. Each pair is computed once, however often it would be visited,
//! and a schema with too high a total is refused. Branches that a validator may or may not take are counted as taken.

use std::collections::HashMap;

use regex::RegexBuilder;
use serde_json::{Map, Value};

use super::fault::SchemaFault;

/// Maximum number of validation steps: one or two seconds.
const MAX_STEPS: u64 = 1_000_000;
/// Maximum combined nesting depth of schema and settings; deeper ones could overflow the stack.
const MAX_DEPTH: usize = 200;
/// Maximum size of a pattern's automaton, in octets.
const MAX_PATTERN: usize = 256 << 10;
/// Maximum number of patterns in a schema, each of which keeps an automaton in memory.
const MAX_PATTERNS: usize = 256;

/// Keywords with a schema for the same value.
const SAME: &[&str] = &["not", "if", "then", "else"];
/// Keywords with a list of schemas for the same value.
const SAME_LIST: &[&str] = &["allOf", "anyOf", "oneOf"];
/// Keywords with a schema for the value's children.
const INNER: &[&str] = &[
    "items",
    "contains",
    "additionalProperties",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
];
/// Keywords with a map of schemas for the value's children; `properties` is matched by name only.
const INNER_NAMED: &[&str] = &["patternProperties"];

/// Refuses a schema that cannot validate these settings in bounded time, or that refers to another document.
pub(super) fn bound(schema: &Value, settings: &Value) -> Result<(), SchemaFault> {
    look_over(schema, &mut 0)?;
    let mut toil = CostEstimate { root: schema, known: HashMap::new() };
    let steps = toil.steps(schema, settings, 0)?;
    if steps > MAX_STEPS { Err(SchemaFault::Costly) } else { Ok(()) }
}

/// Resolves a reference within the schema.
pub(super) fn referred<'a>(root: &'a Value, reference: &str) -> Result<&'a Value, SchemaFault> {
    let unserved = || SchemaFault::Unserved(format!("the reference {reference:?}"));
    let pointer = reference.strip_prefix('#').ok_or_else(unserved)?;
    if !pointer.is_empty() && !pointer.starts_with('/') {
        return Err(unserved());
    }
    root.pointer(&decoded(pointer)).ok_or_else(|| SchemaFault::Dangling(reference.to_owned()))
}

/// Decodes the percent-encoding of a URL fragment.
pub(super) fn decoded(fragment: &str) -> String {
    let mut out = Vec::with_capacity(fragment.len());
    let mut rest = fragment.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let octet = code.filter(|_| first == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(octet.unwrap_or(first));
        rest = if octet.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Checks every value in the schema that may be a subschema. Values of `default` and similar keywords are included: a
/// reference in them would be harmless, but is refused too.
fn look_over(value: &Value, patterns: &mut usize) -> Result<(), SchemaFault> {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                look_at(key, value, patterns)?;
                look_over(value, patterns)?;
            }
            Ok(())
        }
        Value::Array(items) => items.iter().try_for_each(|item| look_over(item, patterns)),
        _ => Ok(()),
    }
}

fn look_at(key: &str, value: &Value, patterns: &mut usize) -> Result<(), SchemaFault> {
    let mut fits = |pattern: &str| {
        *patterns += 1;
        if *patterns > MAX_PATTERNS { Err(SchemaFault::Costly) } else { fits(pattern) }
    };
    match (key, value) {
        ("$dynamicRef" | "$recursiveRef" | "$id", Value::String(_)) => {
            Err(SchemaFault::Unserved(format!("the keyword `{key}`")))
        }
        ("pattern", Value::String(pattern)) => fits(pattern),
        ("patternProperties", Value::Object(properties)) => {
            properties.keys().try_for_each(|pattern| fits(pattern))
        }
        _ => Ok(()),
    }
}

/// Compiles a pattern with a size limit, because the validator compiles patterns without one. Other mistakes in
/// patterns are left to the validator, which knows the regex dialect of JSON Schema.
fn fits(pattern: &str) -> Result<(), SchemaFault> {
    match RegexBuilder::new(pattern).size_limit(MAX_PATTERN).build() {
        Err(regex::Error::CompiledTooBig(_)) => Err(SchemaFault::Pattern(pattern.chars().take(60).collect())),
        _ => Ok(()),
    }
}

struct CostEstimate<'a> {
    root: &'a Value,
    /// Steps of each pair of schema and value, by address; `None` while the pair is being counted.
    known: HashMap<(usize, usize), Option<u64>>,
}

impl<'a> CostEstimate<'a> {
    fn steps(&mut self, schema: &'a Value, value: &'a Value, depth: usize) -> Result<u64, SchemaFault> {
        let Some(object) = schema.as_object() else { return Ok(1) };
        let pair = (std::ptr::from_ref(schema).addr(), std::ptr::from_ref(value).addr());
        match self.known.get(&pair) {
            Some(Some(steps)) => return Ok(*steps),
            Some(None) => return Err(SchemaFault::Circle),
            None => {}
        }
        if depth == MAX_DEPTH || self.known.len() as u64 > MAX_STEPS {
            return Err(SchemaFault::Costly);
        }
        self.known.insert(pair, None);
        let mut sum = own(object);
        for (inner, value) in self.met(object, value)? {
            sum = sum.saturating_add(self.steps(inner, value, depth + 1)?);
        }
        self.known.insert(pair, Some(sum));
        Ok(sum)
    }

    /// The subschemas that this one applies, each with the value that it applies to.
    fn met(
        &self,
        schema: &'a Map<String, Value>,
        value: &'a Value,
    ) -> Result<Vec<(&'a Value, &'a Value)>, SchemaFault> {
        let mut met: Vec<_> = same(schema).map(|inner| (inner, value)).collect();
        if let Some(Value::String(reference)) = schema.get("$ref") {
            met.push((referred(self.root, reference)?, value));
        }
        let all: Vec<_> = for_all(schema).collect();
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    let own = schema.get("properties").and_then(|properties| properties.get(name));
                    met.extend(own.into_iter().chain(all.iter().copied()).map(|inner| (inner, member)));
                }
            }
            Value::Array(items) => {
                for (at, item) in items.iter().enumerate() {
                    let own = schema.get("prefixItems").and_then(|schemas| schemas.get(at));
                    met.extend(own.into_iter().chain(all.iter().copied()).map(|inner| (inner, item)));
                }
            }
            _ => {}
        }
        Ok(met)
    }
}

fn own(schema: &Map<String, Value>) -> u64 {
    let words = schema.get("enum").and_then(Value::as_array).map_or(0, Vec::len);
    1 + words as u64
}

/// Schemas that apply to the value itself.
fn same(schema: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    let one = SAME.iter().filter_map(|key| schema.get(*key));
    let lists = SAME_LIST.iter().filter_map(|key| schema.get(*key)?.as_array()).flatten();
    let named = schema.get("dependentSchemas").and_then(Value::as_object).into_iter().flat_map(Map::values);
    one.chain(lists).chain(named)
}

/// Schemas that apply to every child of the value.
fn for_all(schema: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    let one = INNER.iter().filter_map(|key| schema.get(*key));
    let named = INNER_NAMED.iter().filter_map(|key| schema.get(*key)?.as_object()).flat_map(Map::values);
    one.chain(named)
}
