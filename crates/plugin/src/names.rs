//! Checks names in a plugin's settings against the gateway's configuration.
//!
//! A plugin cannot read the gateway's configuration in `configure`, and JSON Schema sees only the settings. So a schema
//! marks a string as a reference by the keyword `x-pintle-names`: `signing-key`, `relay` or `secret`. The host checks it when the
//! plugin is loaded and again at each reload, since the gateway's configuration may have changed.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::places::pointer;
use crate::{ConfigMistake, Gateway, GrantKind, Grants};

/// The schema keyword for the kind of object that a string names.
const KEYWORD: &str = "x-pintle-names";
/// Maximum nesting depth followed in settings and references.
const DEEPEST: usize = 64;
/// Maximum number of steps: a schema may lead to the same value along many paths.
const MOST: usize = 100_000;

/// Returns a mistake for each name that the gateway's configuration does not define.
pub(crate) fn check(
    schema: &Value,
    settings: &Value,
    gateway: &Gateway,
    grants: &Grants,
) -> Vec<ConfigMistake> {
    let mut walk = NameWalk { root: schema, gateway, grants, steps: 0, mistakes: Vec::new() };
    walk.value("", schema, settings, DEEPEST);
    walk.mistakes
}

struct NameWalk<'a> {
    root: &'a Value,
    gateway: &'a Gateway,
    grants: &'a Grants,
    steps: usize,
    mistakes: Vec<ConfigMistake>,
}

impl NameWalk<'_> {
    fn value(&mut self, at: &str, schema: &Value, value: &Value, left: usize) {
        self.steps += 1;
        let Some(left) = left.checked_sub(1).filter(|_| self.steps < MOST) else { return };
        if let Some(there) = schema.get("$ref").and_then(Value::as_str).and_then(|to| to.strip_prefix('#')) {
            self.root.pointer(there).into_iter().for_each(|schema| self.value(at, schema, value, left));
        }
        if let (Some(kind), Some(name)) = (schema.get(KEYWORD).and_then(Value::as_str), value.as_str()) {
            self.name(at, kind, name);
        }
        for (key, value) in value.as_object().into_iter().flatten() {
            let own = schema.get("properties").and_then(|properties| properties.get(key));
            let of = own.or_else(|| schema.get("additionalProperties"));
            of.into_iter().for_each(|schema| self.value(&pointer(at, key), schema, value, left));
        }
        if let Some(schema) = schema.get("items") {
            for (index, value) in value.as_array().into_iter().flatten().enumerate() {
                self.value(&pointer(at, &index.to_string()), schema, value, left);
            }
        }
    }

    fn name(&mut self, at: &str, kind: &str, name: &str) {
        let (what, section, known): (_, _, BTreeSet<&str>) = match kind {
            "signing-key" => {
                let keys = self.gateway.keys.values().flatten();
                ("key", "[dkim_keys.NAME]", keys.map(|key| key.name.as_str()).collect())
            }
            "relay" => ("relay", "[relays.NAME]", self.gateway.relays.iter().map(String::as_str).collect()),
            "secret" => {
                ("secret", "[secrets.NAME]", self.gateway.secrets.keys().map(String::as_str).collect())
            }
            // Unknown kind: a later release may define it.
            _ => return,
        };
        if known.contains(name) {
            return self.granted(at, kind, name);
        }
        let text = format!("there is no {what} {name:?} in the configuration ({section})");
        let known: Vec<&str> = known.into_iter().collect();
        let others =
            if known.is_empty() { String::new() } else { format!(", or use one of: {}", known.join(", ")) };
        let remedy = format!("define it in {section}{others}");
        self.mistakes.push(ConfigMistake { remedy: Some(remedy), ..ConfigMistake::new(at.to_owned(), text) });
    }

    /// A secret that exists must also be among those that the grant names, if it names any.
    fn granted(&mut self, at: &str, kind: &str, name: &str) {
        let grant = GrantKind::Secrets;
        if kind != "secret" || !self.grants.contains(grant) || self.grants.permits(grant, name) {
            return;
        }
        let text = format!("the plugin's grant `{grant}` is for other secrets than {name:?}");
        let remedy = format!("add \"{grant}:{name}\" to its `grants`");
        self.mistakes.push(ConfigMistake { remedy: Some(remedy), ..ConfigMistake::new(at.to_owned(), text) });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Grant, SecretKey, SigningKeyName};

    #[test]
    fn names_of_nothing_are_found_wherever_they_stand() {
        let key = SigningKeyName { name: "good".into(), selector: "s".into() };
        let secret = SecretKey::new(b"0123456789abcdef");
        let gateway = Gateway {
            keys: [("a.example".to_owned(), vec![key])].into(),
            relays: ["inside".to_owned()].into(),
            secrets: [("a".to_owned(), secret.clone()), ("b".to_owned(), secret)].into(),
            ..Gateway::default()
        };
        let schema = json!({
            "$defs": {"rule": {"properties": {"via": {"x-pintle-names": "relay"}, "rules": {"$ref": "#/$defs/rules"}}},
                "rules": {"items": {"$ref": "#/$defs/rule"}}, "circle": {"$ref": "#/$defs/circle"}},
            "properties": {"seal": {"type": "string", "x-pintle-names": "signing-key"},
                "rules": {"$ref": "#/$defs/rules"}, "round": {"$ref": "#/$defs/circle"},
                "later": {"x-pintle-names": "table"}},
            "additionalProperties": {"x-pintle-names": "signing-key"},
        });
        let good =
            json!({"seal": "good", "rules": [{"via": "inside"}], "round": 1, "later": "x", "other": "good"});
        let none = Grants::default();
        assert_eq!(check(&schema, &good, &gateway, &none), []);
        let bad =
            json!({"seal": "goood", "rules": [{"via": "inside", "rules": [{"via": "out"}]}], "other": "x"});
        let found: Vec<_> = check(&schema, &bad, &gateway, &none);
        let at: Vec<&str> = found.iter().map(|mistake| mistake.at.as_str()).collect();
        assert_eq!(at, ["/other", "/rules/0/rules/0/via", "/seal"]);
        assert_eq!(found[2].text, "there is no key \"goood\" in the configuration ([dkim_keys.NAME])");
        assert_eq!(found[2].remedy.as_deref(), Some("define it in [dkim_keys.NAME], or use one of: good"));
        let schema = json!({"items": {"x-pintle-names": "secret"}});
        let secrets = |grants: &[&str]| {
            let grants: Grants = grants.iter().map(|grant| grant.parse::<Grant>().unwrap()).collect();
            let found = check(&schema, &json!(["a", "b", "c"]), &gateway, &grants);
            found.into_iter().map(|mistake| format!("{} {}", mistake.at, mistake.text)).collect::<Vec<_>>()
        };
        let missing = "/2 there is no secret \"c\" in the configuration ([secrets.NAME])";
        assert_eq!(secrets(&["secrets"]), [missing]);
        let other = "/1 the plugin's grant `secrets` is for other secrets than \"b\"";
        assert_eq!(secrets(&["secrets:a"]), [other, missing]);
    }
}
