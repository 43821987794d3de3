//! Parsing an SPF record into terms (RFC 7208 sections 4.5, 4.6.1, 5 and 6).
//!
//! The whole record is parsed before any of it is evaluated, since a syntax error anywhere makes it invalid.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::macros::{MacroLetters, MacroString};
use crate::AuthOutcome;

/// A parsed SPF record.
#[derive(Debug)]
pub(super) struct SpfRecord {
    pub(super) directives: Vec<Directive>,
    pub(super) redirect: Option<MacroString>,
    pub(super) explanation: Option<MacroString>,
}

/// A mechanism, and the result when it matches.
#[derive(Debug)]
pub(super) struct Directive {
    /// The mechanism as written in the record.
    pub(super) text: String,
    pub(super) outcome: AuthOutcome,
    pub(super) mechanism: SpfMechanism,
}

#[derive(Debug)]
pub(super) enum SpfMechanism {
    All,
    Include(MacroString),
    A(Option<MacroString>, Prefixes),
    Mx(Option<MacroString>, Prefixes),
    Ptr(Option<MacroString>),
    Ip(IpAddr, u8),
    Exists(MacroString),
}

/// How many leading bits of an address must match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prefixes {
    pub(super) v4: u8,
    pub(super) v6: u8,
}

/// A term that breaks the grammar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BadTerm(pub(super) String);

/// Whether a TXT record is an SPF record (section 4.5): the version, then a space or the end.
pub(super) fn is_spf(text: &[u8]) -> bool {
    let Some((version, rest)) = text.split_at_checked(6) else {
        return false;
    };
    version.eq_ignore_ascii_case(b"v=spf1") && (rest.is_empty() || rest[0] == b' ')
}

impl SpfRecord {
    /// Parses a record for which [`is_spf`] holds.
    pub(super) fn parse(text: &[u8]) -> Result<Self, BadTerm> {
        let text = std::str::from_utf8(text).ok().filter(|text| text.is_ascii());
        let text = text.ok_or_else(|| BadTerm("characters outside ASCII".into()))?;
        let mut record = Self { directives: Vec::new(), redirect: None, explanation: None };
        for term in text.split(' ').skip(1).filter(|term| !term.is_empty()) {
            record.take(term).ok_or_else(|| BadTerm(term.to_owned()))?;
        }
        Ok(record)
    }

    fn take(&mut self, term: &str) -> Option<()> {
        let end = term.find(['=', ':', '/']).unwrap_or(term.len());
        let (name, rest) = term.split_at(end);
        if let Some(value) = rest.strip_prefix('=') {
            return self.modifier(name, value);
        }
        let (outcome, mechanism) = directive(name, rest)?;
        self.directives.push(Directive { text: term.to_owned(), outcome, mechanism });
        Some(())
    }

    /// Section 6: each of the two known modifiers may occur at most once; others are ignored.
    fn modifier(&mut self, name: &str, value: &str) -> Option<()> {
        let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if !name.starts_with(|c: char| c.is_ascii_alphabetic()) || !name.chars().all(word) {
            return None;
        }
        let slot = match name.to_ascii_lowercase().as_str() {
            "redirect" => &mut self.redirect,
            "exp" => &mut self.explanation,
            _ => return MacroString::parse(value, MacroLetters::Any).map(drop),
        };
        let spec = MacroString::domain(value)?;
        slot.replace(spec).is_none().then_some(())
    }
}

fn directive(name: &str, rest: &str) -> Option<(AuthOutcome, SpfMechanism)> {
    let (outcome, name) = match name.as_bytes().first()? {
        b'+' => (AuthOutcome::Pass, &name[1..]),
        b'-' => (AuthOutcome::Fail, &name[1..]),
        b'~' => (AuthOutcome::SoftFail, &name[1..]),
        b'?' => (AuthOutcome::Neutral, &name[1..]),
        _ => (AuthOutcome::Pass, name),
    };
    let argument = rest.strip_prefix(':');
    let mechanism = match name.to_ascii_lowercase().as_str() {
        "all" if rest.is_empty() => SpfMechanism::All,
        "include" => SpfMechanism::Include(MacroString::domain(argument?)?),
        "exists" => SpfMechanism::Exists(MacroString::domain(argument?)?),
        "ptr" => SpfMechanism::Ptr(optional(rest)?),
        "a" => {
            let (rest, prefixes) = prefixes(rest)?;
            SpfMechanism::A(optional(rest)?, prefixes)
        }
        "mx" => {
            let (rest, prefixes) = prefixes(rest)?;
            SpfMechanism::Mx(optional(rest)?, prefixes)
        }
        "ip4" => network(argument?, 32, |text| text.parse::<Ipv4Addr>().ok().map(IpAddr::V4))?,
        "ip6" => network(argument?, 128, |text| text.parse::<Ipv6Addr>().ok().map(IpAddr::V6))?,
        // Section 4.6.1: an unknown mechanism is a syntax error.
        _ => return None,
    };
    Some((outcome, mechanism))
}

/// `[ ":" domain-spec ]`.
fn optional(rest: &str) -> Option<Option<MacroString>> {
    if rest.is_empty() {
        return Some(None);
    }
    MacroString::domain(rest.strip_prefix(':')?).map(Some)
}

fn network(text: &str, widest: u8, parse: impl Fn(&str) -> Option<IpAddr>) -> Option<SpfMechanism> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, prefix_length(prefix, widest)?),
        None => (text, widest),
    };
    Some(SpfMechanism::Ip(parse(address)?, prefix))
}

/// Splits `[ "/" n ] [ "//" n ]` off the end (`dual-cidr-length` of section 5.6).
fn prefixes(rest: &str) -> Option<(&str, Prefixes)> {
    let mut prefixes = Prefixes { v4: 32, v6: 128 };
    let mut rest = rest;
    if let Some((before, digits)) = rest.rsplit_once("//")
        && is_number(digits)
    {
        prefixes.v6 = prefix_length(digits, 128)?;
        rest = before;
    }
    if let Some((before, digits)) = rest.rsplit_once('/')
        && is_number(digits)
    {
        prefixes.v4 = prefix_length(digits, 32)?;
        rest = before;
    }
    Some((rest, prefixes))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// A number without leading zeros, within the width.
fn prefix_length(digits: &str, widest: u8) -> Option<u8> {
    let plain = is_number(digits) && (digits == "0" || !digits.starts_with('0'));
    let length = digits.parse().ok().filter(|length| *length <= widest);
    length.filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_end_where_they_should() {
        assert!(is_spf(b"v=spf1") && is_spf(b"V=SPF1 -all"));
        assert!(!is_spf(b"v=spf10") && !is_spf(b"v=spf1-all") && !is_spf(b"v=spf") && !is_spf(b" v=spf1"));
    }

    #[test]
    fn the_grammar_is_kept() {
        for good in [
            "",
            "a mx ptr -all",
            "A:Mail.Example/24//64 mx//64 ip4:192.0.2.1 ip4:192.0.2.0/0 ip6:::1 ip6:2001:db8::/32",
            "include:%{d1r}.example exists:%{ir}.%{v}._spf.%{d2} redirect=_spf.example exp=why.example",
            "moo=anything:%{s} ?all ~all",
            "a:example.com. ip6:::ffff:192.0.2.1/96",
            "exists:%{l1r+-}.%{d} a:%{h}",
        ] {
            assert!(SpfRecord::parse(format!("v=spf1 {good}").as_bytes()).is_ok(), "{good}");
        }
        for bad in [
            "all:x",
            "al",
            "a:",
            "a/",
            "a/33",
            "a/032",
            "a//129",
            "a/24/24",
            "a:localhost",
            "a:192.0.2.1",
            "ip4:192.0.2",
            "ip4:192.0.2.1/",
            "ip4:192.0.2.1/33",
            "ip4",
            "ip6:1.2.3.4",
            "include",
            "include:",
            "redirect=",
            "redirect=a.example redirect=a.example",
            "exp=a.example exp=b.example",
            "-",
            "=x",
            "exists:%{x}.example",
            "exists:%d.example",
            "exists:%{d0}.example",
            "exists:%{c}.example",
            "1a=b",
            "a:example.-com",
            "mx:a.example/x",
            "a\u{e9}",
        ] {
            assert!(SpfRecord::parse(format!("v=spf1 {bad}").as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn prefixes_are_read_from_the_end() {
        let read = |text| prefixes(text).map(|(rest, p)| (rest.to_owned(), p.v4, p.v6));
        assert_eq!(read(":a.example/24//64"), Some((":a.example".into(), 24, 64)));
        assert_eq!(read("//0"), Some((String::new(), 32, 0)));
        assert_eq!(read(":%{d1/}.example"), Some((":%{d1/}.example".into(), 32, 128)));
    }
}
