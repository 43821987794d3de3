//! Header blocks: every octet belongs to a field, edits change what they name and nothing else, and no value starts a
//! line of its own.

use pintle_mail::header::{folded, is_field_line};
use pintle_mail::{Bytes, FieldPosition, HeaderBlock, HeaderEdit};

use super::plan::Plan;

/// Reads a list of edits, followed by the block to edit.
pub fn play(octets: &[u8]) {
    let mut plan = Plan::new(octets);
    let edits: Vec<HeaderEdit> = (0..plan.octet() % 8).map(|_| edit(&mut plan)).collect();
    let block = HeaderBlock::parse(Bytes::copy_from_slice(plan.rest()));
    fields(&block);
    // A session's header begins with a field: the first line that is not one belongs to the body.
    let first = block.as_bytes().split_inclusive(|octet| *octet == b'\n').next().unwrap_or_default();
    if is_field_line(first) || block.is_empty() {
        edited(&block, &edits);
    }
}

fn edit(plan: &mut Plan<'_>) -> HeaderEdit {
    let kind = plan.octet();
    let index = usize::from(plan.octet() % 8);
    let at = match kind / 8 % 4 {
        0 => FieldPosition::Top,
        1 => FieldPosition::Bottom,
        2 => FieldPosition::After(index),
        _ => FieldPosition::Before(index),
    };
    match kind % 8 {
        0 => HeaderEdit::Add { at, name: plan.text(), value: plan.text() },
        1 => HeaderEdit::Replace { index, value: plan.text() },
        2 => HeaderEdit::Remove(index),
        3 => HeaderEdit::Rename { index, name: plan.text() },
        4 => HeaderEdit::AddRaw { at, field: Bytes::copy_from_slice(plan.octets()) },
        5 => HeaderEdit::ReplaceRaw { index, field: Bytes::copy_from_slice(plan.octets()) },
        6 => HeaderEdit::AddRaw { at, field: raw(plan) },
        _ => HeaderEdit::RemoveAll(plan.text()),
    }
}

/// Octets that are likely to be a field.
fn raw(plan: &mut Plan<'_>) -> Bytes {
    const PIECES: [&[u8]; 8] = [b"X", b":", b" a", b"\r\n\t", b"\r\n ", b"\xff", b"b", b"\n"];
    let pieces: Vec<_> = (0..plan.octet() % 16).map(|_| PIECES[usize::from(plan.octet() % 8)]).collect();
    Bytes::from([b"X:", pieces.concat().as_slice()].concat())
}

fn fields(block: &HeaderBlock) {
    let whole: Vec<u8> = block.iter().flat_map(|field| field.raw().to_vec()).collect();
    assert_eq!(&whole, block.as_bytes(), "the fields are the block");
    for (at, field) in block.iter().enumerate() {
        assert_eq!(field.index, at);
        assert!(field.raw().starts_with(field.name()) && field.raw().ends_with(field.value_octets()));
        assert!(at == 0 || is_field_line(field.raw()), "only the first may be none");
        assert!(!field.value().contains(['\r', '\n']), "{:?}", field.value());
        let name = field.name_text();
        assert!(block.named(&name).any(|named| named.index == at) || field.name() != name.as_bytes());
    }
}

fn edited(block: &HeaderBlock, edits: &[HeaderEdit]) {
    let fit = edits.iter().all(|edit| block.check(edit).is_ok());
    let result = block.edited(edits);
    assert_eq!(result.is_ok(), fit, "all edits or none");
    let Ok(after) = result else { return };
    fields(&after);
    if edits.is_empty() {
        return assert_eq!(after.as_bytes(), block.as_bytes());
    }
    let expected = expected(block, edits);
    let raw: Vec<Vec<u8>> = after.iter().map(|field| field.raw().to_vec()).collect();
    assert_eq!(raw.len(), expected.len(), "as many fields as there should be");
    for (raw, (expected, ours)) in raw.iter().zip(&expected) {
        let ended = [expected.as_slice(), b"\r\n"].concat();
        assert!(
            raw == expected || !expected.ends_with(b"\n") && *raw == ended,
            "every other field as it was"
        );
        if *ours {
            lines(raw);
        }
    }
}

/// What each field should be after the edits, computed in the simplest way; and whether we wrote its octets.
fn expected(block: &HeaderBlock, edits: &[HeaderEdit]) -> Vec<(Vec<u8>, bool)> {
    let mut out = Vec::new();
    let add = |out: &mut Vec<_>, place: FieldPosition| {
        for edit in edits {
            match edit {
                HeaderEdit::Add { at, name, value } if *at == place => out.push((folded(name, value), true)),
                HeaderEdit::AddRaw { at, field } if *at == place => out.push((ended(field), true)),
                _ => {}
            }
        }
    };
    add(&mut out, FieldPosition::Top);
    for field in block.iter() {
        add(&mut out, FieldPosition::Before(field.index));
        let name = field.name_text();
        let last = edits.iter().rev().find(|edit| match edit {
            HeaderEdit::Replace { index, .. }
            | HeaderEdit::ReplaceRaw { index, .. }
            | HeaderEdit::Remove(index)
            | HeaderEdit::Rename { index, .. } => *index == field.index,
            HeaderEdit::RemoveAll(gone) => gone.as_bytes().eq_ignore_ascii_case(field.name()),
            HeaderEdit::Add { .. } | HeaderEdit::AddRaw { .. } => false,
        });
        match last {
            None => out.push((field.raw().to_vec(), false)),
            Some(HeaderEdit::Replace { value, .. }) => out.push((folded(&name, value), true)),
            Some(HeaderEdit::ReplaceRaw { field, .. }) => out.push((ended(field), true)),
            Some(HeaderEdit::Rename { name, .. }) => {
                out.push(([name.as_bytes(), b":", field.value_octets()].concat(), false));
            }
            Some(_) => {}
        }
        add(&mut out, FieldPosition::After(field.index));
    }
    add(&mut out, FieldPosition::Bottom);
    out
}

fn ended(field: &[u8]) -> Vec<u8> {
    [field, b"\r\n"].concat()
}

/// RFC 5322 sections 2.1.1 and 2.2.3: no line that we write is too long, and none is blank, which some readers take for
/// the end of the header.
pub fn lines(field: &[u8]) {
    let text = field.strip_suffix(b"\r\n").unwrap();
    for (at, line) in text.split(|octet| *octet == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        assert!(line.len() <= 998, "a line of {} octets", line.len());
        assert!(!line.iter().any(|octet| matches!(octet, b'\r' | 0)), "{line:?}");
        let blank = line.iter().all(|octet| matches!(octet, b' ' | b'\t'));
        assert!(
            at == 0 || line[..1].trim_ascii().is_empty() && !blank,
            "{:?}",
            String::from_utf8_lossy(field)
        );
    }
}
