//! Addresses inside header fields such as From and To (RFC 5322 section 3.4), found where they stand, so that a plugin
//! can judge or replace them and leave names, comments and folding as they are.
//!
//! It reads what mail clients would show or use, also in fields that break the grammar: every pair of angle brackets
//! counts, so `Bob <bob@good.example> <eve@bad.example>` holds two addresses.

use std::ops::Range;

/// An address in a field's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where `local@domain` stands in the value.
    pub place: Range<usize>,
    /// Without quotes and escapes.
    pub local: String,
    /// Lower case.
    pub domain: String,
}

/// The addresses in an address field's value, in order.
#[must_use]
pub fn addresses(value: &str) -> Vec<Found> {
    let mask = mask(value);
    mailboxes(&mask).into_iter().filter_map(|place| found(value, &mask, place)).collect()
}

/// The value with each comment blanked and each octet of a quoted string replaced, so that what is left of commas,
/// brackets and signs has a meaning. It has the value's length.
fn mask(value: &str) -> Vec<u8> {
    let mut mask = value.as_bytes().to_vec();
    let (mut quoted, mut depth, mut escaped) = (false, 0_usize, false);
    for octet in &mut mask {
        let this = *octet;
        let literal = std::mem::take(&mut escaped);
        if quoted {
            escaped = !literal && this == b'\\';
            quoted = literal || this != b'"';
            *octet = b'"';
        } else if depth > 0 {
            escaped = !literal && this == b'\\';
            match this {
                b'(' if !literal => depth += 1,
                b')' if !literal => depth -= 1,
                _ => {}
            }
            *octet = b' ';
        } else if this == b'"' {
            quoted = true;
        } else if this == b'(' {
            depth = 1;
            *octet = b' ';
        }
    }
    mask
}

/// Where addresses may stand: between angle brackets, or whole items of the list without any.
fn mailboxes(mask: &[u8]) -> Vec<Range<usize>> {
    let (mut places, mut item, mut angle, mut had_angle) = (Vec::new(), 0, None, false);
    for (at, octet) in mask.iter().chain(b",").enumerate() {
        match (octet, angle) {
            (b'<', _) => (angle, had_angle) = (Some(at + 1), true),
            (b'>', Some(start)) => {
                places.push(start..at);
                angle = None;
            }
            // The end of an item, or of a group's name (RFC 5322 section 3.4); a source route has its own inside.
            (b',' | b';' | b':', None) => {
                if !had_angle && *octet != b':' {
                    places.push(item..at);
                }
                (item, had_angle) = (at + 1, false);
            }
            _ => {}
        }
    }
    // A bracket that is never closed hides nothing.
    places.extend(angle.map(|start| start..mask.len()));
    places
}

fn found(value: &str, mask: &[u8], place: Range<usize>) -> Option<Found> {
    // RFC 5322 section 4.4: an obsolete route ends in a colon.
    let route = mask[place.clone()].iter().rposition(|&octet| octet == b':');
    let start = route.map_or(place.start, |colon| place.start + colon + 1);
    let blank = |octet: &u8| octet.is_ascii_whitespace();
    let inner = &mask[start..place.end];
    let before = inner.iter().take_while(|octet| blank(octet)).count();
    let after = inner.iter().rev().take_while(|octet| blank(octet)).count();
    let place = start + before..place.end.checked_sub(after).filter(|end| *end > start + before)?;
    let at = place.start + mask[place.clone()].iter().rposition(|&octet| octet == b'@')?;
    Some(Found {
        local: unquoted(value.get(place.start..at)?.trim()),
        domain: value.get(at + 1..place.end)?.trim().to_lowercase(),
        place,
    })
}

fn unquoted(local: &str) -> String {
    let inner = local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let Some(inner) = inner else {
        return local.to_owned();
    };
    let mut plain = String::new();
    let mut octets = inner.chars();
    while let Some(c) = octets.next() {
        plain.extend(if c == '\\' { octets.next() } else { Some(c) });
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
        assert_eq!(texts("\"open <a@b.example>"), [] as [&str; 0]);
        assert_eq!(texts("Zoë <zoë@exämple.org>"), ["zoë@exämple.org"]);
    }
}
