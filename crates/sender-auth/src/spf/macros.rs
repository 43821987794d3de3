//! Macros in domain specs and explanations (RFC 7208 section 7).

use std::fmt::Write as _;

/// A macro-string: text with macros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MacroString(Vec<MacroToken>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum MacroToken {
    Text(String),
    Macro {
        letter: char,
        /// Whether the macro letter is a capital: the value is escaped as in a URL.
        escape: bool,
        /// How many parts are kept, from the right; none means all.
        keep: Option<usize>,
        reverse: bool,
        delimiters: String,
    },
}

/// The macro letters that are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MacroLetters {
    /// The letters for domains.
    Domain,
    /// Also those for explanations: `c`, `r` and `t`.
    Any,
}

/// The longest name that can be queried, without the final dot.
const MAX_NAME: usize = 253;

impl MacroString {
    /// Parses a macro-string. None when it breaks the grammar. Spaces are allowed in explanations only.
    pub(super) fn parse(text: &str, macros: MacroLetters) -> Option<Self> {
        let mut tokens = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            push_text(&mut tokens, &rest[..at]);
            let after = &rest[at + 1..];
            rest = match after.as_bytes().first()? {
                b'%' => {
                    push_text(&mut tokens, "%");
                    &after[1..]
                }
                b'_' => {
                    push_text(&mut tokens, " ");
                    &after[1..]
                }
                b'-' => {
                    push_text(&mut tokens, "%20");
                    &after[1..]
                }
                b'{' => {
                    let (inner, behind) = after[1..].split_once('}')?;
                    tokens.push(parse_macro(inner, macros)?);
                    behind
                }
                _ => return None,
            };
        }
        push_text(&mut tokens, rest);
        Some(Self(tokens))
    }

    /// Parses a `domain-spec`: visible characters, ending in a macro or in a label that can be a top-level one.
    pub(super) fn domain(text: &str) -> Option<Self> {
        let spec = Self::parse(text, MacroLetters::Domain)?;
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return None;
        }
        let ends_well = match spec.0.last()? {
            MacroToken::Macro { .. } => true,
            MacroToken::Text(text) => {
                let text = text.strip_suffix('.').unwrap_or(text);
                text.rsplit_once('.').is_some_and(|(_, label)| is_top_label(label))
            }
        };
        ends_well.then_some(spec)
    }

    /// Whether the client's confirmed name is needed, which costs lookups.
    pub(super) fn wants_name(&self) -> bool {
        let wants = |token: &MacroToken| matches!(token, MacroToken::Macro { letter: 'p', .. });
        self.0.iter().any(wants)
    }

    /// Expands the macros; `value` returns the value of each letter.
    pub(super) fn expand(&self, value: impl Fn(char) -> String) -> String {
        let mut out = String::new();
        for token in &self.0 {
            match token {
                MacroToken::Text(text) => out.push_str(text),
                MacroToken::Macro { letter, escape, keep, reverse, delimiters } => {
                    let value = transform(&value(*letter), *keep, *reverse, delimiters);
                    if *escape {
                        url_escape(&mut out, &value);
                    } else {
                        out.push_str(&value);
                    }
                }
            }
        }
        out
    }

    /// As [`MacroString::expand`], shortened from the left, label by label, to a name that can be queried (section
    /// 7.3).
    pub(super) fn expand_domain(&self, value: impl Fn(char) -> String) -> String {
        let whole = self.expand(value);
        let mut name = whole.strip_suffix('.').unwrap_or(&whole);
        while name.len() > MAX_NAME {
            name = name.split_once('.').map_or("", |(_, rest)| rest);
        }
        name.to_owned()
    }
}

fn push_text(tokens: &mut Vec<MacroToken>, text: &str) {
    match tokens.last_mut() {
        _ if text.is_empty() => {}
        Some(MacroToken::Text(before)) => before.push_str(text),
        _ => tokens.push(MacroToken::Text(text.to_owned())),
    }
}

/// Parses the text between the braces: `letter [digits] ["r"] [delimiters]`.
fn parse_macro(inner: &str, macros: MacroLetters) -> Option<MacroToken> {
    let first = inner.chars().next()?;
    let letter = first.to_ascii_lowercase();
    let known = match macros {
        MacroLetters::Domain => "slodiphv",
        MacroLetters::Any => "slodiphvcrt",
    };
    if !known.contains(letter) {
        return None;
    }
    let rest = &inner[1..];
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = rest.split_at(digits);
    let keep = match digits {
        "" => None,
        digits => Some(digits.parse::<usize>().unwrap_or(usize::MAX)),
    };
    let (reverse, delimiters) = match rest.strip_prefix(['r', 'R']) {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let fits = keep != Some(0) && delimiters.chars().all(|c| ".-+,/_=".contains(c));
    fits.then(|| MacroToken::Macro {
        letter,
        escape: first.is_ascii_uppercase(),
        keep,
        reverse,
        delimiters: if delimiters.is_empty() { "." } else { delimiters }.to_owned(),
    })
}

fn transform(value: &str, keep: Option<usize>, reverse: bool, delimiters: &str) -> String {
    let mut parts: Vec<&str> = value.split(|c| delimiters.contains(c)).collect();
    if reverse {
        parts.reverse();
    }
    let skip = keep.map_or(0, |keep| parts.len().saturating_sub(keep));
    parts[skip..].join(".")
}

/// Section 7.3: escapes all but the "unreserved" characters of RFC 3986.
fn url_escape(out: &mut String, value: &str) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing into a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// Section 7.1: letters, digits and hyphens, no hyphen at either end, and not only digits.
fn is_top_label(label: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    !label.is_empty()
        && label.bytes().all(fits)
        && !label.starts_with('-')
        && !label.ends_with('-')
        && !label.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of RFC 7208 section 7.4.
    fn value(letter: char) -> String {
        match letter {
            's' => "strong-bad@email.example.com",
            'l' => "strong-bad",
            'o' | 'd' => "email.example.com",
            'i' => "192.0.2.3",
            'v' => "in-addr",
            _ => "other",
        }
        .to_owned()
    }

    #[test]
    fn the_examples_of_the_rfc_expand_as_it_says() {
        for (text, expanded) in [
            ("%{s}", "strong-bad@email.example.com"),
            ("%{o}", "email.example.com"),
            ("%{d4}", "email.example.com"),
            ("%{d3}", "email.example.com"),
            ("%{d2}", "example.com"),
            ("%{d1}", "com"),
            ("%{dr}", "com.example.email"),
            ("%{d2r}", "example.email"),
            ("%{l}", "strong-bad"),
            ("%{l-}", "strong.bad"),
            ("%{lr}", "strong-bad"),
            ("%{lr-}", "bad.strong"),
            ("%{l1r-}", "strong"),
            ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
            ("%{lr-}.lp.%{ir}.%{v}._spf.%{d2}", "bad.strong.lp.3.2.0.192.in-addr._spf.example.com"),
            ("%{d2}.trusted-domains.example.net", "example.com.trusted-domains.example.net"),
            ("%{S}%%%_%-", "strong-bad%40email.example.com% %20"),
        ] {
            let spec = MacroString::parse(text, MacroLetters::Domain).unwrap();
            assert_eq!(spec.expand(value), expanded, "{text}");
        }
    }

    #[test]
    fn long_names_lose_labels_from_the_left() {
        let spec = MacroString::domain("%{l}.example.com").unwrap();
        let long = vec!["x".repeat(60); 5].join(".");
        let name = spec.expand_domain(|_| long.clone());
        assert!(name.len() <= MAX_NAME && name.ends_with(".example.com"), "{name}");
        assert_eq!(MacroString::domain("%{l}").unwrap().expand_domain(|_| "y".repeat(300)), "");
    }
}
