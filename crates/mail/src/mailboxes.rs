//! Parses mailboxes in header fields such as From and To (RFC 5322 section 3.4): display names, addresses, and where the
//! addresses are in the value.
//!
//! The parser finds what mail programs would show or use, even in fields that violate the grammar: every pair of angle
//! brackets counts, so `Bob <bob@good.example> <eve@bad.example>` contains two addresses. There is no recursion, and the
//! work grows linearly with the octets of the value.

use std::ops::Range;

use crate::encoded_words;

/// One entry of an address field: the name that a reader sees, and the addresses of the entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailboxEntry {
    /// The text beside the addresses, with encoded words decoded: phrases and quoted strings without their quotes,
    /// comments, the name of a group. Empty if there is none.
    pub name: String,
    /// The same with encoded words as they are in the field.
    pub encoded_name: String,
    /// One mailbox if the field follows the grammar; none for an entry without an address, such as an empty group.
    pub mailboxes: Vec<FieldMailbox>,
}

/// An address in a field's value. It need not be a valid [`Address`](crate::Address).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldMailbox {
    /// Where `local@domain` is in the value, in octets. It may include comments and white space.
    pub range: Range<usize>,
    /// The address: the local part as it is in the value, `@` and the domain in lower case, without comments and without
    /// white space around the parts.
    pub text: String,
    /// The local part, without quotes and escapes.
    pub local: String,
    /// The domain in lower case.
    pub domain: String,
}

/// The entries of an address field's unfolded value, in order, until they have `most` mailboxes.
///
/// A part without an address, as results from an unquoted comma in a name or from a group's name, is added to the name
/// of the next entry.
#[must_use]
pub fn entries(value: &str, most: usize) -> Vec<MailboxEntry> {
    let mask = mask(value);
    let (mut entries, mut before, mut room) = (Vec::new(), String::new(), most);
    for item in (MailboxItems { mask: &mask, at: 0, is_over: false }) {
        if room == 0 {
            return entries;
        }
        let places = item.places.iter().cloned();
        let mailboxes: Vec<_> = places.filter_map(|place| found(value, &mask, place)).take(room).collect();
        join(&mut before, &item.name(value, &mask, mailboxes.is_empty()));
        if !mailboxes.is_empty() {
            room -= mailboxes.len();
            entries.push(entry(std::mem::take(&mut before), mailboxes));
        }
    }
    if !before.is_empty() {
        entries.push(entry(before, Vec::new()));
    }
    entries
}

fn entry(encoded_name: String, mailboxes: Vec<FieldMailbox>) -> MailboxEntry {
    MailboxEntry { name: encoded_words::decoded(&encoded_name), encoded_name, mailboxes }
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
/// character; a comment that is never closed extends to the end.
fn mask(value: &str) -> Vec<u8> {
    let (mask, unclosed) = mask_quotes(value, value.len());
    unclosed.map_or(mask, |at| mask_quotes(value, at).0)
}

/// Masks quotes before `end` only; also returns the start of an unclosed quoted string.
fn mask_quotes(value: &str, end: usize) -> (Vec<u8>, Option<usize>) {
    let mut mask = value.as_bytes().to_vec();
    let (mut quoted, mut depth, mut is_escaped) = (None, 0_usize, false);
    for (at, octet) in mask.iter_mut().enumerate() {
        let this = *octet;
        let is_literal = std::mem::take(&mut is_escaped);
        if quoted.is_some() {
            is_escaped = !is_literal && this == b'\\';
            quoted = quoted.filter(|_| is_literal || this != b'"');
            *octet = b'"';
        } else if depth > 0 {
            is_escaped = !is_literal && this == b'\\';
            match this {
                b'(' if !is_literal => depth += 1,
                b')' if !is_literal => depth -= 1,
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
struct MailboxItem {
    whole: Range<usize>,
    places: Vec<Range<usize>>,
    has_angles: bool,
}

impl MailboxItem {
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

/// The items of a masked value, one at a time: a value of a million commas has a million.
struct MailboxItems<'a> {
    mask: &'a [u8],
    at: usize,
    is_over: bool,
}

impl Iterator for MailboxItems<'_> {
    type Item = MailboxItem;

    fn next(&mut self) -> Option<MailboxItem> {
        if self.is_over {
            return None;
        }
        let (start, mut angle, mut has_angles) = (self.at, None, false);
        let mut places: Vec<Range<usize>> = Vec::new();
        for (at, octet) in self.mask.iter().enumerate().skip(start) {
            match (octet, angle) {
                (b'<', open) => {
                    // An unclosed bracket does not hide the text after it; neither does the last one.
                    places.extend(open.and_then(|from| place(from, at)));
                    (angle, has_angles) = (Some(at + 1), true);
                }
                (b'>', Some(from)) => {
                    places.extend(place(from, at));
                    angle = None;
                }
                // The end of an item, or of a group's name (RFC 5322 section 3.4). Colons of source routes are within
                // angle brackets.
                (b',' | b';' | b':', None) => {
                    self.at = at + 1;
                    return Some(item(start..at, places, has_angles, *octet == b':'));
                }
                _ => {}
            }
        }
        self.is_over = true;
        let end = self.mask.len();
        places.extend(angle.and_then(|from| place(from, end)));
        Some(item(start..end, places, has_angles, false))
    }
}

/// The place between two angle brackets; none if it is empty.
fn place(from: usize, end: usize) -> Option<Range<usize>> {
    (from < end).then_some(from..end)
}

fn item(whole: Range<usize>, places: Vec<Range<usize>>, has_angles: bool, is_group: bool) -> MailboxItem {
    let places = if has_angles || is_group { places } else { vec![whole.clone()] };
    MailboxItem { whole, places, has_angles }
}

fn found(value: &str, mask: &[u8], place: Range<usize>) -> Option<FieldMailbox> {
    // RFC 5322 section 4.4: an obsolete route ends in a colon.
    let route = mask[place.clone()].iter().rposition(|&octet| octet == b':');
    let start = route.map_or(place.start, |colon| place.start + colon + 1);
    // A closing bracket without an opening one is not part of the address.
    let blank = |octet: &u8| octet.is_ascii_whitespace() || *octet == b'>';
    let inner = &mask[start..place.end];
    let before = inner.iter().take_while(|octet| blank(octet)).count();
    let after = inner.iter().rev().take_while(|octet| blank(octet)).count();
    let range = start + before..place.end.checked_sub(after).filter(|end| *end > start + before)?;
    let at = range.start + mask[range.clone()].iter().rposition(|&octet| octet == b'@')?;
    let part = |range: Range<usize>| value.get(range.clone()).map(|text| uncommented(text, &mask[range]));
    let local = part(range.start..at)?;
    let domain = joined(&part(at + 1..range.end)?);
    let local = local.trim();
    Some(FieldMailbox { range, text: format!("{local}@{domain}"), local: unquoted(local), domain })
}

/// The domain in lower case, without blanks around the dots, which the obsolete form permits (RFC 5322 section 4.4).
fn joined(domain: &str) -> String {
    let mut out = String::with_capacity(domain.len());
    for (at, label) in domain.split('.').enumerate() {
        out.push_str(if at > 0 { "." } else { "" });
        out.push_str(label.trim());
    }
    out.to_lowercase()
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
