//! The Authentication-Results field (RFC 8601): the one that we write, and those that others wrote in our name.

use std::fmt::Write as _;

use crate::HeaderBlock;
use crate::header::folded;

/// What one method found.
#[derive(Debug, Clone, Copy)]
pub struct MethodResult<'a> {
    /// `spf`, `dkim`, … A token.
    pub method: &'a str,
    /// `pass`, `fail`, … A token.
    pub outcome: &'a str,
    /// In words.
    pub reason: Option<&'a str>,
    /// `smtp.mailfrom` and its like, tokens, with their values.
    pub properties: &'a [(String, String)],
}

/// The whole field, folded, with its CRLF; `by` is our name, the authserv-id of section 2.5.
#[must_use]
pub fn to_field<'a>(by: &str, results: impl IntoIterator<Item = MethodResult<'a>>) -> Vec<u8> {
    let mut value = by.to_owned();
    for result in results {
        // Writing into a string cannot fail.
        let _ = write!(value, "; {}={}", result.method, result.outcome);
        if let Some(reason) = result.reason {
            let _ = write!(value, " reason={}", quoted(reason));
        }
        for (name, property) in result.properties {
            let _ = write!(value, " {name}={}", pvalue(property));
        }
    }
    folded("Authentication-Results", &value)
}

/// Which fields bear our name: whoever wrote them, it was not us (section 5).
#[must_use]
pub fn in_the_name_of(header: &HeaderBlock, by: &str) -> Vec<usize> {
    let fields = header.named("Authentication-Results");
    let ours = fields.filter(|field| server(&field.value()).eq_ignore_ascii_case(by));
    ours.map(|field| field.index).collect()
}

/// The authserv-id of a value: a token or a quoted string behind white space and comments (section 2.2).
fn server(value: &str) -> String {
    let mut rest = value.trim_start();
    while rest.starts_with('(') {
        rest = rest[comment(rest)..].trim_start();
    }
    if let Some(inner) = rest.strip_prefix('"') {
        return unquoted(inner);
    }
    let end = rest.find(|c: char| c.is_whitespace() || "();".contains(c));
    rest[..end.unwrap_or(rest.len())].to_owned()
}

/// How long the comment is that begins here. Comments nest, and one that never ends takes the rest.
fn comment(text: &str) -> usize {
    let (mut depth, mut escaped) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '(' => depth += 1,
            ')' if depth == 1 => return at + 1,
            ')' => depth -= 1,
            _ => {}
        }
    }
    text.len()
}

fn unquoted(inner: &str) -> String {
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next().filter(|c| *c != '"') {
        out.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    out
}

/// A value as it is where it is a token or an address of plain words, else quoted.
fn pvalue(value: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.+@!#$%&'*/=?^`{|}~".contains(&b);
    // `/`, `=` and `?` would end a token (RFC 2045 section 5.1).
    let fits = |b: u8| plain(b) && !b"/=?".contains(&b);
    if !value.is_empty() && value.bytes().all(fits) {
        return value.to_owned();
    }
    quoted(value)
}

/// Characters that a header without SMTPUTF8 cannot hold become question marks.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            _ => out.push('?'),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use crate::Bytes;

    use super::*;

    #[test]
    fn the_field_says_what_was_found() {
        let mail_from = [("smtp.mailfrom".to_owned(), "joe@a.example".to_owned())];
        let signer = [("header.d".to_owned(), "a b".to_owned()), ("header.s".to_owned(), String::new())];
        let result =
            |method, outcome, reason, properties| MethodResult { method, outcome, reason, properties };
        let results = [
            result("spf", "pass", None, &mail_from[..]),
            result("dkim", "fail", Some("a \"b\" \r\n\u{e9}"), &signer[..]),
        ];
        let field = String::from_utf8(to_field("gate.example", results)).unwrap();
        assert_eq!(
            field.replace("\r\n ", " "),
            "Authentication-Results: gate.example; spf=pass smtp.mailfrom=joe@a.example; \
             dkim=fail reason=\"a \\\"b\\\" ???\" header.d=\"a b\" header.s=\"\"\r\n"
        );
    }

    #[test]
    fn our_name_is_found_however_it_is_written() {
        for ours in [
            "gate.example; spf=pass",
            " GATE.example 1; none",
            "\r\n (who (wrote \\) this)) \"gate.ex\\ample\" ; none",
            "gate.example",
            "gate.example(v1); none",
        ] {
            let header = format!("Subject: x\r\nauthentication-results: {ours}\r\n");
            let header = HeaderBlock::parse(Bytes::from(header));
            assert_eq!(in_the_name_of(&header, "gate.example"), [1], "{ours}");
        }
        for foreign in
            ["other.example; x=gate.example", "gate.example.org; none", "(gate.example", "", "\"gate"]
        {
            let header = HeaderBlock::parse(Bytes::from(format!("Authentication-Results: {foreign}\r\n")));
            assert!(in_the_name_of(&header, "gate.example").is_empty(), "{foreign}");
        }
    }
}
