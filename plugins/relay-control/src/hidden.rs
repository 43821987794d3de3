//! Source routes and other addresses hidden in local parts.
//!
//! Mail servers have long interpreted local parts as addresses: `user%host@here` and `host!user@here` were routes;
//! `"user@host"@here` becomes one where a server drops the quotes, and `user%40host@here` where a server decodes
//! percent-encoding. Which interpretation the next hop uses is unknown here. So every host that any interpretation
//! yields is returned, and a form that cannot be compared with a rule is reported as unreadable.

use crate::normal::normal;

/// The hosts hidden in a local part.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct HiddenRoutes {
    /// Hosts to which a next hop might forward the mail, in lower case.
    pub(crate) hosts: Vec<String>,
    /// Why the local part may hide further hosts that cannot be determined here; `None` if it cannot.
    pub(crate) unreadable: Option<&'static str>,
}

/// Number of nested percent-encodings that are decoded.
const ROUNDS: usize = 3;

/// The hosts hidden in this local part, given without its outer quotes and escapes.
pub(crate) fn hidden(local: &str) -> HiddenRoutes {
    let mut all = HiddenRoutes::default();
    let mut text = normal(local);
    for _ in 0..=ROUNDS {
        // RFC 2047: addresses contain no encoded words, but some programs decode them before they look for the `@`.
        if text.contains("=?") {
            all.unreadable = Some("holds an encoded word");
        }
        capsules(&text, &mut all);
        read(&text, &mut all);
        let decoded = normal(&percent_decoded(&text));
        if decoded == text {
            return all;
        }
        text = decoded;
    }
    all.unreadable = Some("is encoded many times over");
    all
}

/// Finds Exchange's encapsulated addresses: `IMCEASMTP-ann+40b+2Eexample`, and other types for other networks. Exchange
/// looks for them at the beginning; to be safe, they are found anywhere.
fn capsules(text: &str, all: &mut HiddenRoutes) {
    // A code page without the dotless i maps it to a plain i.
    let lower = text.replace('\u{131}', "i").to_ascii_lowercase();
    for (at, mark) in lower.match_indices("imcea") {
        match lower[at + mark.len()..].split_once('-') {
            Some(("smtp", inner)) => read(&normal(&percent_decoded(&inner.replace('+', "%"))), all),
            // `IMCEAEX-` holds a name of Exchange's own directory.
            Some(("ex" | "", _)) | None => {}
            Some((kind, _)) if !kind.chars().all(char::is_alphanumeric) => {}
            Some(_) => all.unreadable = Some("holds an address of another network"),
        }
    }
}

/// Adds the hosts of one interpretation. Hosts follow `@` and `%`, and precede `!` and `::`; quotes, brackets and
/// comments around them are ignored.
fn read(text: &str, all: &mut HiddenRoutes) {
    let mut follows_sign = false;
    let mut rest = text;
    while !rest.is_empty() {
        let end = sign_at(rest);
        let (piece, from_sign) = rest.split_at(end);
        let is_path = from_sign.starts_with('!') || from_sign.starts_with("::");
        if follows_sign || is_path {
            runs(piece).for_each(|host| all.add(host));
        }
        follows_sign = from_sign.starts_with(['@', '%']);
        let width = if from_sign.starts_with("::") { 2 } else { 1 };
        rest = from_sign.get(width..).unwrap_or("");
    }
}

/// Position of the next separator between hosts and users; separators in address literals do not count.
fn sign_at(text: &str) -> usize {
    let mut literal = false;
    for (at, c) in text.char_indices() {
        match c {
            '[' => literal = text[at..].contains(']'),
            ']' => literal = false,
            '@' | '%' | '!' | ':' | ',' | ';' if !literal => return at,
            _ => {}
        }
    }
    text.len()
}

/// All substrings that could be a host name.
fn runs(piece: &str) -> impl Iterator<Item = &str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-_.[]:".contains(c) || !c.is_ascii();
    piece.split(move |c| !is_part(c)).map(|run| run.trim_matches('.')).filter(|run| !run.is_empty())
}

impl HiddenRoutes {
    fn add(&mut self, host: &str) {
        let host = host.to_lowercase();
        // Rules contain A-labels, so a non-ASCII host would not match the rule for it.
        if !host.is_ascii() {
            self.unreadable = Some("names a host in letters beyond ASCII");
        } else if !self.hosts.contains(&host) {
            self.hosts.push(host);
        }
    }
}

/// Programs that decode addresses as parts of a URL read `%40` as `@`.
fn percent_decoded(text: &str) -> String {
    let mut decoded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        decoded.push_str(before);
        let digits = after.get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let code = digits
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
            .filter(|code| (32..127).contains(code));
        decoded.push(code.map_or('%', char::from));
        rest = code.and(after.get(2..)).unwrap_or(after);
    }
    decoded + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_host_that_can_be_read_is_found() {
        for (local, hosts) in [
            ("ann", &[][..]),
            ("ann.lee+x=y", &[]),
            ("ann%b.example", &["b.example"]),
            ("ann%b.example%C.example", &["b.example", "c.example"]),
            ("b.example!c.example!ann", &["b.example", "c.example"]),
            ("b.example!ann%c.example", &["b.example", "c.example"]),
            ("ann@b.example", &["b.example"]),
            ("@b.example,@c.example:ann@d.example", &["b.example", "c.example", "d.example"]),
            ("ann%", &[]),
            ("ann%b.example.", &["b.example"]),
            ("ann@ b.example ", &["b.example"]),
            ("ann@(x)b.example", &["x", "b.example"]),
            ("<ann@b.example>", &["b.example"]),
            ("\"ann\"@\"b.example\"", &["b.example"]),
            ("ann\\@b.example", &["b.example"]),
            ("ann@[192.0.2.1]", &["[192.0.2.1]"]),
            ("ann@[IPv6:2001:db8::1]", &["[ipv6:2001:db8::1]"]),
            ("b.example::ann", &["b.example"]),
            ("IMCEASMTP-ann+40b+2Eexample", &["b.example"]),
            ("imceasmtp-ann+40b.example", &["b.example"]),
            ("IMCEAEX-_O=A_CN=ann", &[]),
            ("ann\u{ff20}b.example", &["b.example"]),
            ("ann%b\u{3002}example", &["b.example"]),
            ("b.example\u{ff1a}\u{ff1a}ann", &["b.example"]),
            ("b.example\u{2236}\u{2236}ann", &["b.example"]),
            ("b.example\u{203c}ann", &["b.example"]),
            ("ann\u{66a}b.example", &["b.example"]),
            ("ann@b.exa\u{200b}mple", &["b.example"]),
            (" IMCEASMTP-ann+40b+2Eexample", &["b.example"]),
            ("x;IMCEASMTP-ann+40b+2Eexample", &["b.example"]),
            ("\u{200b}\u{131}mceasm\u{ad}tp-ann+40b.example", &["b.example"]),
        ] {
            assert_eq!(
                hidden(local),
                HiddenRoutes { hosts: hosts.iter().map(ToString::to_string).collect(), unreadable: None },
                "{local}"
            );
        }
    }

    #[test]
    fn encoded_signs_are_read_both_ways() {
        assert_eq!(hidden("ann%40b.example").hosts, ["40b.example", "b.example"]);
        assert_eq!(hidden("ann%2540b.example").hosts, ["2540b.example", "40b.example", "b.example"]);
        assert_eq!(hidden("b.example%21ann").hosts, ["21ann", "b.example"]);
        assert!(hidden("ann%252525252540b.example").unreadable.is_some());
    }

    #[test]
    fn what_cannot_be_compared_is_told() {
        assert!(hidden("=?x?q?ann=40b.example?=").unreadable.is_some());
        assert!(hidden("ann%bücher.example").unreadable.is_some());
        assert!(hidden("\u{ff1d}?x?q?ann=40b.example?=").unreadable.is_some());
        assert!(hidden("IMCEAFAX-0900+2D1").unreadable.is_some());
        assert_eq!(hidden("zoë").unreadable, None);
    }
}
