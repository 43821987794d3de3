//! The Received-SPF field (RFC 7208 section 9.1): writes it, and recognises forged ones that name this gateway as
//! receiver.
//!
//! The field contains values that the client supplied. Each is quoted as its position requires and truncated, so that a
//! client can neither end the field or a comment nor add a pair.

use pintle_plugin_sdk::Address;
use pintle_plugin_sdk::sender_auth::{AuthOutcome, SpfResult};

pub(crate) const NAME: &str = "Received-SPF";

/// Maximum length of a value that the client supplied: that of a path (RFC 5321 section 4.5.3.1.3).
const MAX_PIECE: usize = 256;

/// The inputs of the check, without the result.
pub(crate) struct Checked<'a> {
    pub(crate) client: &'a str,
    pub(crate) hello: &'a str,
    pub(crate) sender: &'a Address,
    pub(crate) receiver: &'a str,
}

impl Checked<'_> {
    /// The field's value for one identity, with all that is needed to repeat the check.
    pub(crate) fn value(&self, result: &SpfResult) -> String {
        let says = says(result.outcome());
        let comment = format!("{}: {} {says} {}", self.receiver, piece(&result.domain), self.client);
        let identity = if result.mail_from { "mailfrom" } else { "helo" };
        let mut pairs = vec![("identity", identity.to_owned()), ("client-ip", self.client.to_owned())];
        if !self.hello.is_empty() {
            pairs.push(("helo", self.hello.to_owned()));
        }
        pairs.push(("envelope-from", self.envelope_from()));
        pairs.extend(result.mechanism.clone().map(|mechanism| ("mechanism", mechanism)));
        pairs.extend(result.problem.clone().map(|problem| ("problem", problem)));
        pairs.push(("receiver", self.receiver.to_owned()));
        let pairs: Vec<String> =
            pairs.iter().map(|(key, value)| format!("{key}={}", word(&piece(value)))).collect();
        format!("{} ({}) {}", result.outcome, escaped(&comment, "()\\"), pairs.join("; "))
    }

    /// RFC 7208 section 2.4: a null reverse-path stands for the postmaster of the HELO name.
    fn envelope_from(&self) -> String {
        if self.sender.is_null() {
            format!("postmaster@{}", self.hello)
        } else {
            // With the quotes of its local part, without which it would be a different address, and in A-labels, since
            // the field may pass servers without SMTPUTF8.
            Address::new(&self.sender.local, &self.sender.domain).text
        }
    }
}

/// Whether a field names this receiver. A field that cannot be parsed counts if it contains the name.
pub(crate) fn is_from(value: &str, receiver: &str) -> bool {
    let Some(pairs) = pairs(value) else {
        return value.to_ascii_lowercase().contains(&receiver.to_ascii_lowercase());
    };
    pairs.iter().filter_map(|pair| pair.split_once('=')).any(|(key, value)| {
        // The result precedes the first key.
        let key = key.split_whitespace().next_back().unwrap_or_default();
        let name = value.split_whitespace().next().unwrap_or_default();
        let name = name.strip_suffix('.').unwrap_or(name);
        key.eq_ignore_ascii_case("receiver") && name.eq_ignore_ascii_case(receiver)
    })
}

/// The parts between semicolons, without comments and quotes; `None` if a comment or quote is not closed.
fn pairs(value: &str) -> Option<Vec<String>> {
    let (mut pairs, mut depth, mut quoted) = (vec![String::new()], 0_u32, false);
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        let literal = match c {
            '\\' if quoted || depth > 0 => Some(chars.next()?),
            '"' if depth == 0 => {
                quoted = !quoted;
                None
            }
            '(' if !quoted => {
                depth += 1;
                None
            }
            ')' if !quoted => {
                depth = depth.checked_sub(1)?;
                Some(' ')
            }
            ';' if !quoted && depth == 0 => {
                pairs.push(String::new());
                None
            }
            other => Some(other),
        };
        if let (Some(c), 0) = (literal, depth) {
            pairs.last_mut()?.push(c);
        }
    }
    (depth == 0 && !quoted).then_some(pairs)
}

/// The domain owner's statement about the client, in words.
fn says(outcome: AuthOutcome) -> &'static str {
    match outcome {
        AuthOutcome::Pass => "lets its mail come from",
        AuthOutcome::Fail => "forbids its mail to come from",
        AuthOutcome::Softfail => "would rather not have its mail come from",
        AuthOutcome::Neutral => "says nothing about",
        AuthOutcome::None => "has no record about",
        AuthOutcome::Temperror => "cannot be asked now about",
        AuthOutcome::Permerror | AuthOutcome::Policy | AuthOutcome::Other => "has a broken record about",
    }
}

/// A client-supplied value, truncated and with all characters replaced that are not visible ASCII or space.
fn piece(text: &str) -> String {
    let visible = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
    text.chars().take(MAX_PIECE).map(visible).collect()
}

/// The text as a dot-atom if possible, otherwise as a quoted string (RFC 5322 sections 3.2.3 and 3.2.4).
fn word(text: &str) -> String {
    let is_atom = |atom: &str| {
        !atom.is_empty()
            && atom.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b))
    };
    if text.split('.').all(is_atom) { text.to_owned() } else { format!("\"{}\"", escaped(text, "\"\\")) }
}

/// Inserts a backslash before each of these characters.
fn escaped(text: &str, special: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if special.contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_written_in_a_labels() {
        let sender = Address {
            text: "a@b\u{fc}cher.example".to_owned(),
            domain_shown: "b\u{fc}cher.example".to_owned(),
            ..address("a", "xn--bcher-kva.example")
        };
        let value = value(&sender, "h.example", false, "pass");
        assert!(value.contains("envelope-from=\"a@xn--bcher-kva.example\""), "{value}");
    }

    #[test]
    fn a_local_part_keeps_its_quotes() {
        let value = value(&address("a b\"c", "x.example"), "h.example", true, "pass");
        assert!(value.contains(r#"envelope-from="\"a b\\\"c\"@x.example""#), "{value}");
        assert!(
            pairs(&value).unwrap().iter().any(|pair| pair.trim() == r#"envelope-from="a b\"c"@x.example"#)
        );
    }

    fn address(local: &str, domain: &str) -> Address {
        Address::new(local, domain)
    }

    fn value(sender: &Address, hello: &str, mail_from: bool, outcome: &str) -> String {
        let checked = Checked { client: "2001:db8::1", hello, sender, receiver: "gate.example" };
        let domain = if mail_from { sender.domain.clone() } else { hello.to_owned() };
        let mechanism = (outcome == "fail").then(|| "-ip6:2001:db8::/32".to_owned());
        let problem = (outcome == "permerror").then(|| "it has \"several\"; records".to_owned());
        checked.value(&SpfResult {
            outcome: outcome.to_owned(),
            domain,
            mail_from,
            explanation: None,
            mechanism,
            problem,
            details: Vec::new(),
        })
    }

    #[test]
    fn a_result_can_be_checked_again() {
        assert_eq!(
            value(&address("joe", "a.example"), "mx.a.example", true, "fail"),
            "fail (gate.example: a.example forbids its mail to come from 2001:db8::1) identity=mailfrom; \
             client-ip=\"2001:db8::1\"; helo=mx.a.example; envelope-from=\"joe@a.example\"; \
             mechanism=\"-ip6:2001:db8::/32\"; receiver=gate.example"
        );
        let broken = value(&address("joe", "a.example"), "mx.a.example", true, "permerror");
        assert!(
            broken.contains(r#"; problem="it has \"several\"; records"; receiver=gate.example"#),
            "{broken}"
        );
        assert_eq!(
            value(&address("", ""), "mx.a.example", false, "none"),
            "none (gate.example: mx.a.example has no record about 2001:db8::1) identity=helo; \
             client-ip=\"2001:db8::1\"; helo=mx.a.example; envelope-from=\"postmaster@mx.a.example\"; \
             receiver=gate.example"
        );
    }

    #[test]
    fn nobody_can_write_more_than_a_value() {
        let hostile = address("a\" receiver=x; b\\", "c.example");
        let hello = "x) identity=mailfrom; receiver=\"gate.example\r\nEvil: 1(\u{e9}";
        for mail_from in [true, false] {
            let field = value(&hostile, hello, mail_from, "pass");
            assert!(field.bytes().all(|b| b == b' ' || b.is_ascii_graphic()), "{field}");
            let pairs = pairs(&field).unwrap();
            assert_eq!(pairs.len(), 5, "{field}");
            let keys: Vec<_> = pairs[1..].iter().map(|pair| pair.trim().split('=').next().unwrap()).collect();
            assert_eq!(keys, ["client-ip", "helo", "envelope-from", "receiver"]);
            assert_eq!(pairs[2].trim(), "helo=x) identity=mailfrom; receiver=\"gate.example??Evil: 1(?");
            assert_eq!(pairs[3].trim(), r#"envelope-from="a\" receiver=x; b\\"@c.example"#);
        }
        let long = value(&address(&"l".repeat(4_000), "d.example"), &"h".repeat(4_000), true, "pass");
        assert!(long.len() < 1_000, "{}", long.len());
    }

    #[test]
    fn fields_in_our_name_are_known_however_they_are_written() {
        let plain = value(&address("joe", "a.example"), "h.example", true, "pass");
        for ours in [
            plain.as_str(),
            "pass receiver=gate.example",
            "pass (c) RECEIVER (c) = \"Gate.Example\"; client-ip=192.0.2.1",
            "pass (a (nested) \\) one) x=y; receiver=gate.example.",
            "pass receiver=gate.example client-ip=192.0.2.1",
            "pass (unfinished receiver=gate.example",
        ] {
            assert!(is_from(ours, "gate.example"), "{ours}");
        }
        for others in [
            "pass receiver=other.example",
            "pass receiver=gate.example.org",
            "pass (receiver=gate.example) receiver=other.example",
            "pass envelope-from=\"x; receiver=gate.example\"; receiver=other.example",
            "pass",
            "",
            "pass helo=gate.example",
        ] {
            assert!(!is_from(others, "gate.example"), "{others}");
        }
    }
}
