//! What a display name in From shows to readers: addresses other than the sender's, and misleading characters.

use crate::check::{Check, SpoofFinding, quoted};
use crate::domain::ComparedDomain;

/// Number of consecutive blanks that programs write only to push the rest out of view.
const PADDING: usize = 24;

/// Maximum number of addresses read from one name.
const MOST: usize = 16;

/// An address in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) local: String,
    pub(crate) domain: ComparedDomain,
    /// Whether there are blanks beside the @.
    pub(crate) is_apart: bool,
}

/// The addresses that the text shows, in order. Characters that look like @, < and > count as these; invisible
/// characters are ignored.
pub(crate) fn addresses(text: &str) -> Vec<Shown> {
    let seen: Vec<char> = text.chars().filter(|c| !is_invisible(*c) && !is_joiner(*c)).map(sign).collect();
    let ats = seen.iter().enumerate().filter(|(_, c)| **c == '@').map(|(at, _)| at);
    ats.filter_map(|at| address_at(&seen, at)).take(MOST).collect()
}

fn address_at(seen: &[char], at: usize) -> Option<Shown> {
    let is_local = |c: &&char| c.is_alphanumeric() || ".!#$%&*+-/=?^_{}~".contains(**c);
    let is_domain = |c: &&char| c.is_alphanumeric() || matches!(**c, '.' | '-' | '_' | '\u{3002}');
    let is_apart = |c: &&char| is_blank(**c);
    let gap = seen[..at].iter().rev().take_while(is_apart).count();
    let end = at - gap;
    let start = at + 1 + seen[at + 1..].iter().take_while(is_apart).count();
    let local: Vec<char> = seen[..end].iter().rev().take_while(is_local).copied().collect();
    let local: String = local.into_iter().rev().collect();
    let domain: String = seen[start..].iter().take_while(is_domain).collect();
    let domain = ComparedDomain::new(domain.trim_end_matches(['.', '-', '_']));
    let is_apart = gap > 0 || start > at + 1;
    (!local.is_empty() && domain.is_qualified()).then_some(Shown { local, domain, is_apart })
}

/// The ASCII character that this one looks like.
fn sign(c: char) -> char {
    match c {
        '\u{ff20}' | '\u{fe6b}' => '@',
        '\u{ff1c}' | '\u{fe64}' | '\u{2039}' | '\u{3008}' | '\u{2329}' | '\u{27e8}' | '\u{1438}'
        | '\u{276e}' => '<',
        '\u{ff1e}' | '\u{fe65}' | '\u{203a}' | '\u{3009}' | '\u{232a}' | '\u{27e9}' | '\u{1433}'
        | '\u{276f}' => '>',
        '\u{ff0e}' | '\u{2024}' | '\u{fe52}' | '\u{3002}' | '\u{ff61}' => '.',
        c => c,
    }
}

/// Whether the name itself says that it is sent on behalf of another, as lists and services write it.
pub(crate) fn says_via(text: &str) -> bool {
    let words = [
        "via", "behalf", "auftrag", "über", "namens", "tramite", "przez", "nombre", "nome", "nom", "经由",
        "経由",
    ];
    let lower = text.to_lowercase();
    lower.split(|c: char| !c.is_alphanumeric()).any(|word| words.contains(&word))
}

/// Characters in a name that hide, reorder or push away the text around them.
pub(crate) fn oddities(name: &str) -> Vec<SpoofFinding> {
    let name = name.trim();
    let mut found = Vec::new();
    if let Some(c) = name.chars().find(|c| c.is_ascii_control() && *c != '\t') {
        let text = format!("The sender's name holds the control character U+{:04X}", u32::from(c));
        found.push(SpoofFinding::new(Check::ControlCharacters, text));
    }
    if has_stray_direction(name) {
        let text = "The sender's name holds characters that turn the writing around";
        found.push(SpoofFinding::new(Check::BidiCharacters, text));
    }
    if let Some(c) = hidden_character(name) {
        let text = format!("The sender's name holds the invisible character U+{:04X}", u32::from(c));
        found.push(SpoofFinding::new(Check::InvisibleCharacters, text));
    }
    if longest_blank(name) >= PADDING {
        let start: String = name.chars().take_while(|c| !is_blank(*c)).collect();
        let text = format!("The sender's name is filled up with blanks after {}", quoted(&start));
        found.push(SpoofFinding::new(Check::PaddedName, text));
    }
    found
}

/// The same for an address, which must not contain any of them.
pub(crate) fn address_oddity(address: &str) -> Option<SpoofFinding> {
    let c =
        address.chars().find(|c| c.is_control() || is_invisible(*c) || is_joiner(*c) || is_direction(*c))?;
    let check = match c {
        c if c.is_control() => Check::ControlCharacters,
        c if is_direction(c) => Check::BidiCharacters,
        _ => Check::InvisibleCharacters,
    };
    Some(SpoofFinding::new(check, format!("The sender's address holds the character U+{:04X}", u32::from(c))))
}

/// Whether the text has direction overrides, or embeddings and isolates that are not closed and so affect the address.
/// The marks that Arabic and Hebrew need are permitted.
fn has_stray_direction(name: &str) -> bool {
    let mut depth = 0_i32;
    for c in name.chars() {
        match c {
            '\u{202d}' | '\u{202e}' => return true,
            '\u{202a}' | '\u{202b}' | '\u{2066}'..='\u{2068}' => depth += 1,
            '\u{202c}' | '\u{2069}' => depth -= 1,
            _ => {}
        }
    }
    depth > 0
}

/// The first invisible character between two visible ones. At the ends they are usually accidental. Joiners are
/// meaningful in many scripts and between emoji, but not between letters of Latin, Greek and Cyrillic.
fn hidden_character(name: &str) -> Option<char> {
    let chars: Vec<char> = name.chars().collect();
    let between = |at: usize, fits: &dyn Fn(char) -> bool| {
        let before = at.checked_sub(1).and_then(|at| chars.get(at));
        before.is_some_and(|c| fits(*c)) && chars.get(at + 1).is_some_and(|c| fits(*c))
    };
    let is_european = |c: char| c.is_alphanumeric() && c < '\u{590}';
    chars.iter().enumerate().find_map(|(at, &c)| {
        let hides = is_invisible(c) && between(at, &|c| c.is_alphanumeric() || is_invisible(c));
        (hides || (is_joiner(c) && between(at, &is_european))).then_some(c)
    })
}

fn longest_blank(name: &str) -> usize {
    name.split(|c| !is_blank(c)).map(|blanks| blanks.chars().count()).max().unwrap_or(0)
}

/// Characters that take up space and show nothing.
fn is_blank(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{2800}' | '\u{3164}' | '\u{ffa0}' | '\u{115f}' | '\u{1160}')
}

/// Characters without width. Tag characters are excluded, since flag emoji contain them.
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{34f}' | '\u{180e}' | '\u{200b}' | '\u{2060}'..='\u{2064}' | '\u{206a}'..='\u{206f}' | '\u{feff}'
    )
}

fn is_joiner(c: char) -> bool {
    matches!(c, '\u{200c}' | '\u{200d}')
}

fn is_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        let together = addresses(text).into_iter().filter(|shown| !shown.is_apart);
        together.map(|shown| format!("{}@{}", shown.local, shown.domain.as_str())).collect()
    }

    #[test]
    fn addresses_are_seen_where_readers_see_them() {
        for text in [
            "Bob bob@good.example",
            "bob@good.example.",
            "(bob\u{ff20}good.example)",
            "bob@go\u{200b}od.example",
            "\u{ff1c}bob@good.example\u{ff1e}",
            "bob@good\u{3002}example",
            "mailto:bob@GOOD.example",
            "\u{2039}bob@good.example\u{203a}",
        ] {
            assert_eq!(texts(text), ["bob@good.example"], "{text}");
        }
        assert_eq!(texts("a@x.example, b@y.example"), ["a@x.example", "b@y.example"]);
        for none in
            ["Bob @ Acme", "@acme.example", "Deals @ Shop.example", "a@b", "3@1.50", "bob at good.example"]
        {
            assert!(texts(none).is_empty(), "{none}");
        }
    }

    #[test]
    fn characters_that_mislead_are_told_from_those_that_scripts_need() {
        let check = |name: &str| oddities(name).first().map(|finding| finding.check);
        let padded = format!("Bob{}x", "\u{a0}".repeat(PADDING));
        for (name, found) in [
            ("Bob\0", Check::ControlCharacters),
            ("Bob\r\nBcc: x", Check::ControlCharacters),
            ("Bob \u{202e}elpmaxe.doog@bob", Check::BidiCharacters),
            ("Bob \u{202b}x", Check::BidiCharacters),
            ("Pay\u{200b}Pal", Check::InvisibleCharacters),
            ("Pay\u{200d}Pal", Check::InvisibleCharacters),
            (&padded, Check::PaddedName),
        ] {
            assert_eq!(check(name), Some(found), "{name:?}");
        }
        for fine in [
            "Bob\tLee",
            "Bob\n",
            "\u{feff}Bob",
            "\u{202b}عربي\u{202c}",
            "\u{200f}عربي\u{200f} (x)",
            "می\u{200c}خواهم",
            "👩\u{200d}💻 News",
            "  Bob  Lee ",
            "क्\u{200d}ष",
        ] {
            assert_eq!(check(fine), None, "{fine:?}");
        }
        assert_eq!(address_oddity("b\u{200e}ob@x.example").unwrap().check, Check::BidiCharacters);
        assert_eq!(address_oddity("bob@x.example"), None);
    }

    #[test]
    fn a_relay_that_says_so_is_heard() {
        for text in ["Bob via List", "bob@x.example (via Docs)", "On behalf of Bob", "Bob im Auftrag von Ann"]
        {
            assert!(says_via(text), "{text}");
        }
        assert!(!says_via("Viable Trivia") && !says_via("Bob"));
    }
}
