//! Edits that write a whole field as octets.

#![allow(clippy::unwrap_used, reason = "a violated property is a failed test")]

use pintle_mail::{Bytes, FieldPosition, HeaderBlock, HeaderEdit, HeaderError};

fn block() -> HeaderBlock {
    HeaderBlock::parse(Bytes::from_static(b"A: 1\r\nB: 2\r\nB: 3"))
}

fn add(at: FieldPosition, field: &[u8]) -> HeaderEdit {
    HeaderEdit::AddRaw { at, field: Bytes::copy_from_slice(field) }
}

fn replace(index: usize, field: &[u8]) -> HeaderEdit {
    HeaderEdit::ReplaceRaw { index, field: Bytes::copy_from_slice(field) }
}

fn edited(edits: &[HeaderEdit]) -> String {
    String::from_utf8_lossy(block().edited(edits).unwrap().as_bytes()).into_owned()
}

#[test]
fn octets_are_written_as_given() {
    let field = b"DKIM-Signature:v=1;\r\n\t b=abc=\r\n  ;  x=\xff ";
    let edited = block().edited(&[add(FieldPosition::Top, field), replace(1, b"C:")]).unwrap();
    assert_eq!(edited.as_bytes().as_ref(), [field, b"\r\nA: 1\r\nC:\r\nB: 3\r\n".as_slice()].concat());
    assert_eq!(edited.len(), 4);
}

#[test]
fn a_field_may_go_after_another() {
    let new = |value: &str| HeaderEdit::Add {
        at: FieldPosition::After(0),
        name: "N".to_owned(),
        value: value.to_owned(),
    };
    let edits = [
        add(FieldPosition::Bottom, b"Z: 9"),
        add(FieldPosition::Before(1), b"M: 0"),
        new("1"),
        add(FieldPosition::After(0), b"N: 2"),
        add(FieldPosition::After(2), b"L: 0"),
        HeaderEdit::Remove(0),
    ];
    assert_eq!(edited(&edits), "N: 1\r\nN: 2\r\nM: 0\r\nB: 2\r\nB: 3\r\nL: 0\r\nZ: 9\r\n");
    let past = block().check(&add(FieldPosition::After(3), b"N: 1"));
    assert_eq!(past, Err(HeaderError::NoSuchField(3)));
}

#[test]
fn the_last_edit_of_a_field_decides() {
    let value = HeaderEdit::Replace { index: 1, value: "4".to_owned() };
    assert_eq!(edited(&[value.clone(), replace(1, b"C: 5")]), "A: 1\r\nC: 5\r\nB: 3\r\n");
    assert_eq!(edited(&[replace(1, b"C: 5"), value]), "A: 1\r\nB: 4\r\nB: 3\r\n");
    assert_eq!(edited(&[replace(1, b"C: 5"), HeaderEdit::RemoveAll("b".to_owned())]), "A: 1\r\n");
    assert_eq!(edited(&[HeaderEdit::RemoveAll("b".to_owned()), replace(1, b"B: 5")]), "A: 1\r\nB: 5\r\n");
    assert_eq!(block().check(&replace(3, b"C: 5")), Err(HeaderError::NoSuchField(3)));
}

#[test]
fn octets_that_are_not_one_field_are_refused() {
    let long = [b"X: ".as_slice(), &[b'a'; 996]].concat();
    let long_second = [b"X: a\r\n ".as_slice(), &[b'a'; 998]].concat();
    let huge = vec![b'a'; 1 << 20];
    for (field, name) in [
        (b"".as_slice(), ""),
        (b"no colon", ""),
        (b": 1", ""),
        (b"X : 1", ""),
        (b"X Y: 1", ""),
        (b"\xc3\xa9: 1", ""),
        (b" X: 1", ""),
        (b"X\r\n: 1", ""),
        (&huge, ""),
        (b"X: 1\r\n", "X"),
        (b"X: 1\r\nBcc: b", "X"),
        (b"X: 1\r\n\r\n body", "X"),
        (b"X: 1\r\n ", "X"),
        (b"X: 1\r\n \t\r\n more", "X"),
        (b"X: 1\n more", "X"),
        (b"X: 1\r more", "X"),
        (b"X: 1\r", "X"),
        (b"X: 1\r\r\n more", "X"),
        (b"X: 1\r\n\n more", "X"),
        (b"X: \0", "X"),
        (&long, "X"),
        (&long_second, "X"),
    ] {
        for edit in [add(FieldPosition::Top, field), replace(0, field)] {
            let error = block().edited(&[edit]).unwrap_err();
            assert!(matches!(&error, HeaderError::Raw { name: said, .. } if said == name), "{error:?}");
        }
    }
    let error = block().check(&add(FieldPosition::Top, b"X: 1\n")).unwrap_err();
    assert_eq!(error.to_string(), "the raw field \"X\" has a CR or LF that is not part of a CRLF, or NUL");
    for field in [&long[..998], &long_second[..1004], b"X:\r\n 1", b"X:"] {
        assert_eq!(block().check(&add(FieldPosition::Top, field)), Ok(()));
    }
}

#[test]
fn a_raw_field_of_a_mebibyte_is_checked_line_by_line() {
    let lines = [b"X:".as_slice(), &b"\r\n a".repeat(1 << 18)].concat();
    let edited = HeaderBlock::default().edited(&[add(FieldPosition::Bottom, &lines)]).unwrap();
    assert_eq!((edited.len(), edited.as_bytes().len()), (1, lines.len() + 2));
}
