//! Parses addresses in header fields such as From and To (RFC 5322 section 3.4). The positions are kept, so that a
//! plugin can check or replace addresses and leave names, comments and folding as they are.
//!
//! The parser finds what mail clients would show or use, even in fields that violate the grammar: every pair of angle
//! brackets counts, so `Bob <bob@good.example> <eve@bad.example>` contains two addresses.

use std::ops::Range;

/// An address in a field's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldAddress {
    /// Position of `local@domain` in the value, in octets.
    pub place: Range<usize>,
    /// Local part, without quotes and escapes.
    pub local: String,
    /// Domain in lower case, without comments and blanks.
    pub domain: String,
}

/// One entry of an address field: the name that a reader sees, and the addresses of the entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldEntry {
    /// The text beside the addresses: phrases and quoted strings without their quotes, comments, the name of a group.
    /// Encoded words are not decoded.
    pub name: String,
    /// One address if the field follows the grammar; empty for an entry without an address, such as an empty group.
    pub addresses: Vec<FieldAddress>,
}

/// The addresses in an address field's value, in order.
#[must_use]
pub fn addresses(value: &str) -> Vec<FieldAddress> {
    entries(value).into_iter().flat_map(|entry| entry.addresses).collect()
}

/// The entries of an address field's value, in order. A part without an address, as results from an unquoted comma in a
/// name or from a group's name, is added to the name of the next entry.
#[must_use]
pub fn entries(value: &str) -> Vec<FieldEntry> {
    let mask = mask(value);
    let mut entries = Vec::new();
    let mut before = String::new();
    for item in items(&mask) {
        let places = item.places.iter().cloned();
        let addresses: Vec<_> = places.filter_map(|place| found(value, &mask, place)).collect();
        join(&mut before, &item.name(value, &mask, addresses.is_empty()));
        if !addresses.is_empty() {
            entries.push(FieldEntry { name: std::mem::take(&mut before), addresses });
        }
    }
    if !before.is_empty() {
        entries.push(FieldEntry { name: before, addresses: Vec::new() });
    }
    entries
}

fn join(name: &mut String, more: &str) {
    if !name.is_empty() && !more.is_empty() {
        name.push_str(", ");
    }
    name.push_str(more);
}

/// Mask value for the octets of comments: white space like blanks, but one that does not occur in fields.
const COMMENT: u8 = b'\x0c';

/// The value with comments blanked and quoted strings replaced octet by octet, so that the remaining commas, brackets
/// and other separators are significant. It has the length of the value. A quote that is never closed is an ordinary
/// character.
fn mask(value: &str) -> Vec<u8> {
    let (mask, unclosed) = mask_quotes(value, value.len());
    unclosed.map_or(mask, |at| mask_quotes(value, at).0)
}

/// Masks quotes before `end` only; also returns the start of an unclosed quoted string.
fn mask_quotes(value: &str, end: usize) -> (Vec<u8>, Option<usize>) {
    let mut mask = value.as_bytes().to_vec();
    let (mut quoted, mut depth, mut escaped) = (None, 0_usize, false);
    for (at, octet) in mask.iter_mut().enumerate() {
        let this = *octet;
        let literal = std::mem::take(&mut escaped);
        if quoted.is_some() {
            escaped = !literal && this == b'\\';
            quoted = quoted.filter(|_| literal || this != b'"');
            *octet = b'"';
        } else if depth > 0 {
            escaped = !literal && this == b'\\';
            match this {
                b'(' if !literal => depth += 1,
                b')' if !literal => depth -= 1,
                _ => {}
            }
            *octet = COMMENT;
        } else if this == b'"' && at < end {
            quoted = Some(at);
        } else if this == b'(' {
            depth = 1;
            *octet = COMMENT;
        }
    }
    (mask, quoted)
}

/// A list item, and the ranges in which it may contain addresses: between angle brackets, or the whole item if it has
/// none.
struct ListItem {
    whole: Range<usize>,
    places: Vec<Range<usize>>,
    has_angles: bool,
}

impl ListItem {
    fn name(&self, value: &str, mask: &[u8], is_all_name: bool) -> String {
        let octets = value.as_bytes();
        let mut name = Vec::new();
        if is_all_name {
            name.extend(&octets[self.whole.clone()]);
        } else if self.has_angles {
            let mut from = self.whole.start;
            for place in self.places.iter().chain([&(self.whole.end..self.whole.end)]) {
                let outside = (from..place.start).filter(|at| !matches!(mask[*at], b'<' | b'>'));
                name.extend(outside.map(|at| octets[at]));
                from = place.end;
            }
        } else {
            // No angle brackets: the name consists of the comments.
            name.extend(self.whole.clone().filter(|at| mask[*at] == COMMENT).map(|at| octets[at]));
        }
        unescaped(String::from_utf8_lossy(&name).trim())
    }
}

fn items(mask: &[u8]) -> Vec<ListItem> {
    let (mut items, mut start, mut angle) = (Vec::new(), 0, None);
    let mut places: Vec<Range<usize>> = Vec::new();
    let item = |whole: Range<usize>, places: Vec<Range<usize>>, is_group: bool| {
        let has_angles = !places.is_empty();
        let places = if has_angles || is_group { places } else { vec![whole.clone()] };
        ListItem { whole, places, has_angles }
    };
    for (at, octet) in mask.iter().chain(b",").enumerate() {
        match (octet, angle) {
            (b'<', open) => {
                // An unclosed bracket does not hide the text after it; neither does the last one.
                places.extend(open.map(|from| from..at));
                angle = Some(at + 1);
            }
            (b'>', Some(from)) => {
                places.push(from..at);
                angle = None;
            }
            // The end of an item, or of a group's name (RFC 5322 section 3.4). Colons of source routes are within angle
            // brackets.
            (b',' | b';' | b':', None) => {
                items.push(item(start..at, std::mem::take(&mut places), *octet == b':'));
                start = at + 1;
            }
            _ => {}
        }
    }
    if let Some(from) = angle {
        places.push(from..mask.len());
        items.push(item(start..mask.len(), places, false));
    }
    items
}

fn found(value: &str, mask: &[u8], place: Range<usize>) -> Option<FieldAddress> {
    // RFC 5322 section 4.4: an obsolete route ends in a colon.
    let route = mask[place.clone()].iter().rposition(|&octet| octet == b':');
    let start = route.map_or(place.start, |colon| place.start + colon + 1);
    // A closing bracket without an opening one is not part of the address.
    let blank = |octet: &u8| octet.is_ascii_whitespace() || *octet == b'>';
    let inner = &mask[start..place.end];
    let before = inner.iter().take_while(|octet| blank(octet)).count();
    let after = inner.iter().rev().take_while(|octet| blank(octet)).count();
    let place = start + before..place.end.checked_sub(after).filter(|end| *end > start + before)?;
    let at = place.start + mask[place.clone()].iter().rposition(|&octet| octet == b'@')?;
    let part = |range: Range<usize>| value.get(range.clone()).map(|text| uncommented(text, &mask[range]));
    Some(FieldAddress {
        local: unquoted(part(place.start..at)?.trim()),
        domain: joined(&part(at + 1..place.end)?),
        place,
    })
}

/// The domain in lower case, without blanks around the dots, which the obsolete form permits (RFC 5322 section 4.4).
fn joined(domain: &str) -> String {
    let labels: Vec<&str> = domain.split('.').map(str::trim).collect();
    labels.join(".").to_lowercase()
}

/// The text without the octets that the mask marks as comments.
fn uncommented(text: &str, mask: &[u8]) -> String {
    let kept = text.char_indices().filter(|(at, _)| mask[*at] != COMMENT);
    kept.map(|(_, c)| c).collect()
}

fn unquoted(local: &str) -> String {
    let inner = local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inner.map_or_else(|| local.to_owned(), |_| unescaped(local))
}

/// The text without quotes, and with escaped characters unescaped.
fn unescaped(text: &str) -> String {
    let mut plain = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => {}
            '\\' => plain.extend(chars.next()),
            c => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(value: &str) -> Vec<&str> {
        addresses(value).into_iter().map(|found| &value[found.place]).collect()
    }

    #[test]
    fn addresses_are_found_where_they_stand() {
        assert_eq!(texts("ann@example.org"), ["ann@example.org"]);
        assert_eq!(texts("Ann <ann@example.org>, bob@example.net"), ["ann@example.org", "bob@example.net"]);
        assert_eq!(texts("friends: a@x.example, B <b@y.example>;"), ["a@x.example", "b@y.example"]);
        assert_eq!(texts("<@r1.example,@r2.example:c@z.example>"), ["c@z.example"]);
        assert_eq!(texts(" ann@example.org (home, <not@this>)"), ["ann@example.org"]);
        assert_eq!(texts(""), [] as [&str; 0]);
        assert_eq!(texts("undisclosed-recipients:;"), [] as [&str; 0]);
    }

    #[test]
    fn what_is_quoted_is_a_name_and_no_address() {
        assert_eq!(texts(r#""Bob <bob@good.example>" <eve@bad.example>"#), ["eve@bad.example"]);
        assert_eq!(texts(r#""a \" , b@c" <d@e.example>"#), ["d@e.example"]);
        let odd = &addresses(r#"<"c \"d\"@x"@Example.ORG>"#)[0];
        assert_eq!((odd.local.as_str(), odd.domain.as_str()), ("c \"d\"@x", "example.org"));
    }

    #[test]
    fn fields_that_break_the_grammar_hide_nothing() {
        assert_eq!(
            texts("Bob <bob@good.example> <eve@bad.example>"),
            ["bob@good.example", "eve@bad.example"]
        );
        assert_eq!(texts("Bob <bob@good.example"), ["bob@good.example"]);
        assert_eq!(texts("\"open <a@b.example>"), ["a@b.example"]);
        assert_eq!(texts("<bob@good.example <eve@bad.example>"), ["bob@good.example", "eve@bad.example"]);
        assert_eq!(texts("Zoë <zoë@exämple.org>"), ["zoë@exämple.org"]);
        assert_eq!(texts("bob@good.example>"), ["bob@good.example"]);
        for value in ["bob @ good . example", "bob@good.(a comment)example", "<bob @good. example>"] {
            let found = addresses(value).remove(0);
            assert_eq!((found.local.as_str(), found.domain.as_str()), ("bob", "good.example"), "{value}");
        }
    }

    fn entry(value: &str) -> (String, Vec<String>) {
        let mut entries = entries(value);
        assert_eq!(entries.len(), 1, "{entries:?}");
        let FieldEntry { name, addresses } = entries.remove(0);
        (name, addresses.into_iter().map(|found| format!("{}@{}", found.local, found.domain)).collect())
    }

    #[test]
    fn an_entry_tells_what_is_shown_beside_the_address() {
        let at = |name: &str, address: &str| (name.to_owned(), vec![address.to_owned()]);
        assert_eq!(entry(r#""Lee, \"Ann\"" <ann@x.example>"#), at("Lee, \"Ann\"", "ann@x.example"));
        assert_eq!(entry("Lee, Ann <ann@x.example>"), at("Lee, Ann", "ann@x.example"));
        assert_eq!(entry("ann@x.example (Ann Lee)"), at("(Ann Lee)", "ann@x.example"));
        assert_eq!(entry("ann(not@this)@x.example"), at("(not@this)", "ann@x.example"));
        assert_eq!(entry("Ann (home) <ann@x.example>"), at("Ann (home)", "ann@x.example"));
        assert_eq!(entry("staff: ann@x.example;"), at("staff", "ann@x.example"));
        assert_eq!(entry("nobody:;"), ("nobody".to_owned(), vec![]));
        let two = entry("Bob <bob@good.example> <eve@bad.example>");
        assert_eq!(
            two,
            ("Bob".to_owned(), vec!["bob@good.example".to_owned(), "eve@bad.example".to_owned()])
        );
        assert_eq!(entries("a@x.example, B <b@y.example>").len(), 2);
        assert!(entries(" ").is_empty());
    }

    #[test]
    fn a_field_of_many_brackets_is_read_in_time() {
        let value = "<a@b.example>".repeat(20_000);
        assert_eq!(entries(&value)[0].addresses.len(), 20_000);
    }
}
