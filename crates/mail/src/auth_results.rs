//! The Authentication-Results field (RFC 8601): writing ours, and finding those that others wrote in our name.

use std::fmt::Write as _;

use crate::HeaderBlock;
use crate::header::folded;

/// The result of one authentication method, to be written into a field.
#[derive(Debug, Clone, Copy)]
pub struct MethodResult<'a> {
    /// The method: `spf`, `dkim`, … A token.
    pub method: &'a str,
    /// The result: `pass`, `fail`, … A token.
    pub outcome: &'a str,
    /// The reason for the result, as text for people; written as a quoted string.
    pub reason: Option<&'a str>,
    /// Property names such as `smtp.mailfrom`, which are tokens, with their values.
    pub properties: &'a [(String, String)],
}

/// A result that another system reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportedResult {
    /// The method, in lower case, without a version.
    pub method: String,
    /// The result, in lower case.
    pub outcome: String,
    /// The reason, as text for people; none when the field has none.
    pub reason: Option<String>,
    /// Property names in lower case, with their values unquoted.
    pub properties: Vec<(String, String)>,
}

/// Reads an ARC-Authentication-Results field (RFC 8617 section 4.1.1): `i=`, an authserv-id, results. Comments are
/// ignored. The list is empty when a comment or a quoted string does not end, or when there are more than
/// [`MAX_REPORTED`] results, since the intended meaning of such a value cannot be known.
#[must_use]
pub fn reported_in_arc(value: &str) -> Vec<ReportedResult> {
    let items = items(value).unwrap_or_default();
    let results = items.into_iter().skip(2).filter(|item| !item.is_empty());
    let results: Vec<_> = results.filter_map(reported).collect();
    if results.len() > MAX_REPORTED { Vec::new() } else { results }
}

/// The most results that are read from one field. Ten signatures and a few other methods make fewer.
pub const MAX_REPORTED: usize = 32;

fn reported(pairs: Vec<(String, String)>) -> Option<ReportedResult> {
    let mut pairs = pairs.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value));
    let (method, outcome) = pairs.next()?;
    // RFC 8601 section 2.2: a method may have a version.
    let method = method.split('/').next().unwrap_or_default().to_owned();
    let mut result = ReportedResult {
        method,
        outcome: outcome.to_ascii_lowercase(),
        reason: None,
        properties: Vec::new(),
    };
    for (name, value) in pairs {
        if name == "reason" {
            result.reason = Some(value);
        } else {
            result.properties.push((name, value));
        }
    }
    Some(result)
}

/// The pairs `name=value` between semicolons; words that are not pairs are left out. None when a comment or a quoted
/// string does not end.
fn items(value: &str) -> Option<Vec<Vec<(String, String)>>> {
    let mut items = vec![Vec::new()];
    let mut rest = blank(value)?;
    while !rest.is_empty() {
        if let Some(next) = rest.strip_prefix(';') {
            items.push(Vec::new());
            rest = blank(next)?;
            continue;
        }
        let (name, behind) = word(rest, "=")?;
        rest = blank(behind)?;
        if let Some(next) = rest.strip_prefix('=') {
            let (value, behind) = word(blank(next)?, "")?;
            items.last_mut()?.push((name, value));
            rest = blank(behind)?;
        }
    }
    Some(items)
}

/// The text after white space and comments.
fn blank(text: &str) -> Option<&str> {
    let mut rest = text.trim_start();
    while rest.starts_with('(') {
        let (inside, behind) = rest.split_at(comment(rest));
        if behind.is_empty() && !is_closed(inside) {
            return None;
        }
        rest = behind.trim_start();
    }
    Some(rest)
}

/// A word up to the next white space, comment, semicolon or character of `ends`, with its quoted parts unquoted; and
/// the text after it.
fn word<'t>(text: &'t str, ends: &str) -> Option<(String, &'t str)> {
    let (mut out, mut quoted) = (String::new(), false);
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => quoted = !quoted,
            '\\' if quoted => out.push(chars.next()?.1),
            _ if quoted => out.push(c),
            _ if c.is_whitespace() || "(;".contains(c) || ends.contains(c) => {
                return Some((out, &text[at..]));
            }
            _ => out.push(c),
        }
    }
    (!quoted).then_some((out, ""))
}

/// Writes the whole field, folded, with its CRLF. `by` is our name, the authserv-id of section 2.5.
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

/// The indices of the fields with our authserv-id in a received header. Others have forged them (section 5).
#[must_use]
pub fn in_the_name_of(header: &HeaderBlock, by: &str) -> Vec<usize> {
    let fields = header.named("Authentication-Results");
    let ours = fields.filter(|field| bears_the_name_of(&field.value(), by));
    ours.map(|field| field.index).collect()
}

/// Whether an Authentication-Results field with this value has our authserv-id. A final dot makes no difference.
#[must_use]
pub fn bears_the_name_of(value: &str, by: &str) -> bool {
    let bare = |name: &str| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    bare(&server(value)) == bare(by)
}

/// The authserv-id of a value: a token or a quoted string, after white space and comments (section 2.2).
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

/// The length of the comment that begins here. Comments nest, and an unterminated one extends to the end.
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

/// Whether the comment that begins here ends in this text.
fn is_closed(text: &str) -> bool {
    let (mut depth, mut escaped) = (0, false);
    for c in text.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
    }
    depth == 0
}

fn unquoted(inner: &str) -> String {
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next().filter(|c| *c != '"') {
        out.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    out
}

/// The most octets of a quoted string, which may be a single word and must fit a line.
const MAX_QUOTED: usize = 900;

/// Returns a value as it is when it is a token or an address of plain words, otherwise quoted.
fn pvalue(value: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.+@!#$%&'*/=?^`{|}~".contains(&b);
    // `/`, `=` and `?` would end a token (RFC 2045 section 5.1).
    let fits = |b: u8| plain(b) && !b"/=?".contains(&b);
    if (1..=MAX_QUOTED).contains(&value.len()) && value.bytes().all(fits) {
        return value.to_owned();
    }
    quoted(value)
}

/// Replaces characters that a header without SMTPUTF8 cannot hold by question marks, and cuts the text where no line
/// can hold it.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        if out.len() + 2 > MAX_QUOTED {
            break;
        }
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
    fn our_name_with_its_last_dot_is_our_name() {
        for value in ["gate.example.; spf=pass", "\"GATE.example.\" 1; none", "(c) gate.example. ; none"] {
            assert!(
                bears_the_name_of(value, "gate.example") && bears_the_name_of(value, "gate.example."),
                "{value}"
            );
        }
        assert!(!bears_the_name_of("gate.example..; none", "gate.example"));
    }

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

    type ReadResult = (String, String, Vec<(String, String)>);

    fn of(value: &str) -> Vec<ReadResult> {
        let all = reported_in_arc(value).into_iter();
        all.map(|result| (result.method, result.outcome, result.properties)).collect()
    }

    #[test]
    fn what_sealers_report_is_read_as_they_write_it() {
        let google = "i=1; mx.google.example; dkim=pass header.i=@a.example header.s=s1 header.b=Qk/0+A=; \
            spf=pass (google.example: domain of x@a.example designates 192.0.2.1 as permitted; dmarc=fail) \
            smtp.mailfrom=\"x; dmarc=fail\"@a.example; dmarc=pass (p=NONE sp=NONE dis=NONE) header.from=A.example";
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let found = of(google);
        let methods: Vec<_> = found.iter().map(|(method, outcome, _)| (&**method, &**outcome)).collect();
        assert_eq!(methods, [("dkim", "pass"), ("spf", "pass"), ("dmarc", "pass")]);
        assert_eq!(found[0].2[2], pair("header.b", "Qk/0+A="));
        assert_eq!(found[1].2, [pair("smtp.mailfrom", "x; dmarc=fail@a.example")]);
        assert_eq!(found[2].2, [pair("header.from", "A.example")]);
        let microsoft = "i=1; mx.outlook.example 1; spf=pass smtp.mailfrom=a.example; \
            dmarc=pass action=none header.from=a.example; DMARC/1 (c) = Pass reason=\"x y\" header.from = b; arc=none";
        let found = of(microsoft);
        assert_eq!(found.len(), 4);
        assert_eq!(found[1].2, [pair("action", "none"), pair("header.from", "a.example")]);
        assert_eq!((found[2].0.as_str(), found[2].1.as_str()), ("dmarc", "pass"));
        assert_eq!(of("i=1; gate.example; none"), []);
    }

    #[test]
    fn what_cannot_be_understood_reports_nothing() {
        for broken in [
            "i=1; gate; dmarc=pass header.from=a.example; spf=pass (",
            "i=1; gate; dmarc=pass header.from=\"a.example",
            "i=1; gate; dmarc=pass header.from=\"a.example\\",
            "dmarc=pass header.from=a.example",
            "gate; dmarc=pass header.from=a.example",
            "",
        ] {
            assert_eq!(of(broken), [], "{broken}");
        }
        assert_eq!(of(&format!("i=1; gate{}", "; dkim=pass".repeat(33))), []);
    }

    /// A word cannot be folded, and RFC 5322 section 2.1.1 limits a line to 998 octets.
    #[test]
    fn a_word_that_no_line_can_hold_is_cut_off() {
        let property = [("x".to_owned(), "\\".repeat(600))];
        let long = "w".repeat(2_000);
        let result =
            MethodResult { method: "spf", outcome: "fail", reason: Some(&long), properties: &property };
        let written = String::from_utf8(to_field("gate.example", [result])).unwrap();
        assert!(written.lines().all(|line| line.len() <= 998), "{written}");
        let read = reported_in_arc(&format!(
            "i=1; {}",
            &written["Authentication-Results:".len()..].replace("\r\n", "")
        ));
        assert!(long.starts_with(read[0].reason.as_ref().unwrap()) && read[0].properties[0].1.len() > 400);
    }
}
