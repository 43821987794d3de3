//! The text format of log lines: converts JSON objects to `name=value` (logfmt), in the order of their members, with
//! values quoted where necessary.

use std::fmt::{self, Write as _};

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Members that are left out: each line starts with the event and has a time of its own.
const ELSEWHERE: [&str; 2] = ["event", "time"];

/// The members of a JSON object, in their order in the text.
pub(crate) struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// Formats a record: the event, then its members, with `-` in their names replaced by `_` as in other log lines. None
/// if the text is not a record.
pub(crate) fn record(json: &str) -> Option<String> {
    let Members(members) = serde_json::from_str(json).ok()?;
    let event = members.iter().find(|(name, _)| name == "event")?.1.as_str()?.to_owned();
    let mut line = event;
    for (name, value) in members.iter().filter(|(name, _)| !ELSEWHERE.contains(&name.as_str())) {
        line.push(' ');
        member(&mut line, &name.replace('-', "_"), value);
    }
    Some(line)
}

/// Formats the fields of a plugin's log line. Values are always quoted. None if the text is not a JSON object.
pub(crate) fn fields(json: &str) -> Option<String> {
    let Members(members) = serde_json::from_str(json).ok()?;
    let mut line = String::new();
    for (name, value) in &members {
        if !line.is_empty() {
            line.push(' ');
        }
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let _ = write!(line, "{}={text:?}", word(name));
    }
    Some(line)
}

fn member(line: &mut String, name: &str, value: &Value) {
    let text = match value {
        Value::Object(members) => match (reply(members), members.len()) {
            (Some(reply), _) => reply,
            // A next hop: its kind and its name.
            (None, 1) => members.iter().map(|(kind, which)| format!("{kind}:{}", plain(which))).collect(),
            (None, _) => {
                for (at, (inner, value)) in members.iter().enumerate() {
                    line.push_str(if at > 0 { " " } else { "" });
                    member(line, &format!("{name}.{}", inner.replace('-', "_")), value);
                }
                return;
            }
        },
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(","),
        plain_one => plain(plain_one),
    };
    let _ = write!(line, "{name}={}", word(&text));
}

/// Formats a reply as `451 4.2.0 text`. None if the object is not a reply.
fn reply(members: &serde_json::Map<String, Value>) -> Option<String> {
    let (code, text) = (members.get("code")?.as_u64()?, members.get("text")?.as_str()?);
    let enhanced = members.get("enhanced").and_then(Value::as_str);
    let words = [enhanced.unwrap_or_default(), text].into_iter().filter(|word| !word.is_empty());
    Some(words.fold(code.to_string(), |reply, word| format!("{reply} {word}")))
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The text unchanged if it is one word of harmless characters, otherwise quoted and escaped.
fn word(text: &str) -> String {
    let harmless = |c: char| c.is_alphanumeric() || "-_.:/@+[]<>,%".contains(c);
    if !text.is_empty() && text.chars().all(harmless) { text.to_owned() } else { format!("{text:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_as_a_line() {
        let json = r#"{"event":"deferral","time":"t","queue-id":"01M8","sender":"","recipient":"b@example.net",
            "next-hop":{"mx":"example.net"},"attempt":2,"tls":{"version":"TLSv1.3","verified":false},
            "reply":{"code":450,"enhanced":"4.2.0","text":"later\nERROR \"x\""}}"#;
        assert_eq!(
            record(json).unwrap(),
            concat!(
                r#"deferral queue_id=01M8 sender="" recipient=b@example.net next_hop=mx:example.net attempt=2 "#,
                r#"tls.verified=false tls.version=TLSv1.3 reply="450 4.2.0 later\nERROR \"x\"""#
            )
        );
        assert_eq!(record(r#"{"event":"x","to":["a@b","c@d"]}"#).unwrap(), "x to=a@b,c@d");
        assert_eq!(record("no json"), None);
    }

    #[test]
    fn what_a_plugin_says_stays_in_its_place() {
        let json = r#"{"network":"192.0.2.0/24","a b":"c\" queue_id=\"1"}"#;
        assert_eq!(fields(json).unwrap(), r#"network="192.0.2.0/24" "a b"="c\" queue_id=\"1""#);
    }
}
