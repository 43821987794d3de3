//! Authentication-Results: what we write is read back with the same meaning, and no field that others wrote passes for
//! ours.

use pintle_mail::auth_results::{MAX_REPORTED, MethodResult, in_the_name_of, reported_in_arc, to_field};
use pintle_mail::{Bytes, HeaderBlock};

use super::plan::Plan;

const BY: &str = "gate.example";

/// Reads results to write, followed by the value of a field from an untrusted sender.
pub fn play(octets: &[u8]) {
    let mut plan = Plan::new(octets);
    let results: Vec<Owned> = (0..plan.octet() % 5).map(|_| Owned::of(&mut plan)).collect();
    ours(&results);
    theirs(plan.rest());
}

struct Owned {
    method: String,
    outcome: String,
    reason: Option<String>,
    properties: Vec<(String, String)>,
}

impl Owned {
    fn of(plan: &mut Plan<'_>) -> Self {
        Self {
            method: token(plan),
            outcome: token(plan),
            reason: plan.maybe_text(),
            properties: (0..plan.octet() % 4).map(|_| (token(plan), plan.text())).collect(),
        }
    }
}

/// Names come from a plugin, which may give tokens only.
fn token(plan: &mut Plan<'_>) -> String {
    let token: String = plan.octets().iter().map(|octet| char::from(b'a' + octet % 26)).take(40).collect();
    if token.is_empty() || token == "reason" { "x".to_owned() } else { token }
}

/// Whether this is all that a header without SMTPUTF8 can hold of a text, up to a part that no line can hold.
fn shows(read: &str, meant: &str) -> bool {
    let shown: String = meant.chars().map(|c| if (' '..='~').contains(&c) { c } else { '?' }).collect();
    read == shown || read.len() >= 440 && shown.starts_with(read)
}

fn ours(results: &[Owned]) {
    let written = to_field(
        BY,
        results.iter().map(|result| MethodResult {
            method: &result.method,
            outcome: &result.outcome,
            reason: result.reason.as_deref(),
            properties: &result.properties,
        }),
    );
    assert!(written.is_ascii());
    super::header::lines(&written);
    let block = HeaderBlock::parse(Bytes::from(written));
    assert_eq!((block.len(), in_the_name_of(&block, BY)), (1, vec![0]));
    let value = block.get(0).unwrap().value();
    let read = reported_in_arc(&format!("i=1; {value}"));
    assert_eq!(read.len(), results.len(), "{value}");
    for (read, meant) in read.iter().zip(results) {
        assert_eq!((&read.method, &read.outcome), (&meant.method, &meant.outcome));
        assert_eq!(read.reason.is_some(), meant.reason.is_some());
        assert!(read.reason.iter().zip(&meant.reason).all(|(read, meant)| shows(read, meant)));
        assert_eq!(read.properties.len(), meant.properties.len());
        for ((name, read), (meant_name, meant)) in read.properties.iter().zip(&meant.properties) {
            assert!(name == meant_name && shows(read, meant), "{name}={read:?} of {meant:?}");
        }
    }
}

fn theirs(value: &[u8]) {
    let text = String::from_utf8_lossy(value);
    let reported = reported_in_arc(&text);
    assert!(reported.len() <= MAX_REPORTED);
    let octets: usize = reported.iter().map(|one| one.method.len() + one.outcome.len()).sum();
    assert!(octets <= 3 * text.len(), "lower case is at most three times as long");
    let field = [b"Authentication-Results:".as_slice(), value, b"\r\n"].concat();
    let block = HeaderBlock::parse(Bytes::from(field));
    let found = in_the_name_of(&block, BY);
    for field in block.named("Authentication-Results") {
        let names_us = names_us(&field.value());
        assert_eq!(found.contains(&field.index), names_us, "{:?}", field.value());
    }
}

/// Whether our name comes first, by a reader that shares no code with the crate's: comments and quotes are removed, and
/// the rest must begin with our name, followed by a character that cannot belong to it.
fn names_us(value: &str) -> bool {
    let (mut depth, mut escaped) = (0_u32, false);
    let mut left = value.trim_start().chars().skip_while(move |c| {
        let inside = depth > 0 || *c == '(';
        match c {
            _ if escaped => escaped = false,
            '\\' if depth > 0 => escaped = true,
            '(' => depth += 1,
            ')' if depth > 0 => depth -= 1,
            _ => {}
        }
        inside || c.is_whitespace()
    });
    let Some(first) = left.next() else { return false };
    let name: String = if first == '"' {
        let mut escaped = false;
        left.filter_map(move |c| match c {
            _ if escaped => {
                escaped = false;
                Some(Some(c))
            }
            '\\' => {
                escaped = true;
                None
            }
            '"' => Some(None),
            c => Some(Some(c)),
        })
        .map_while(|c| c)
        .collect()
    } else {
        std::iter::once(first).chain(left).take_while(|c| !c.is_whitespace() && !"();".contains(*c)).collect()
    };
    name.eq_ignore_ascii_case(BY)
}
