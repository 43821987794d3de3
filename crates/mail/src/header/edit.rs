//! Edits of a header block: adding, replacing, renaming and removing fields, all of a list or none.

use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};

use super::check::{HeaderError, check_field, check_name, check_raw};
use super::fold::folded;
use super::{Field, HeaderBlock};

/// One change of a header block. Indices refer to the fields of the original block, regardless of the other edits in
/// the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderEdit {
    /// Adds a new field.
    Add {
        /// Where the field is inserted.
        at: FieldPosition,
        /// The name of the new field.
        name: String,
        /// The value, unfolded; it is folded here when it is long.
        value: String,
    },
    /// Gives the field of this index a new value.
    Replace {
        /// The index of the field.
        index: usize,
        /// The new value, unfolded; it is folded here when it is long.
        value: String,
    },
    /// Removes the field of this index.
    Remove(usize),
    /// Removes all fields of this name, in any case.
    RemoveAll(String),
    /// Gives a field another name. The text after its name stays as it is, octet by octet.
    Rename {
        /// The index of the field.
        index: usize,
        /// The new name of the field.
        name: String,
    },
    /// Adds a new field that is written as given.
    AddRaw {
        /// Where the field is inserted.
        at: FieldPosition,
        /// Name, colon, value and folding, without the final CRLF.
        field: Bytes,
    },
    /// Writes another field, as given, in the place of the field of this index.
    ReplaceRaw {
        /// The index of the field.
        index: usize,
        /// Name, colon, value and folding, without the final CRLF. The name may be another one.
        field: Bytes,
    },
}

/// Where a new field is inserted. Fields that one list of edits adds at one position are in the order of the list. Those
/// after a field are above those before the next one, and stay when the field is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FieldPosition {
    /// Above all other fields.
    Top,
    /// Below all other fields.
    Bottom,
    /// Above the field of this index.
    Before(usize),
    /// Below the field of this index.
    After(usize),
}

impl HeaderBlock {
    /// Returns a new block with all edits made.
    ///
    /// # Errors
    /// The first edit that cannot be made. Then none is made.
    pub fn edited(&self, edits: &[HeaderEdit]) -> Result<Self, HeaderError> {
        if edits.is_empty() {
            return Ok(self.clone());
        }
        edits.iter().try_for_each(|edit| self.check(edit))?;
        let plan = EditIndex::of(edits);
        let mut out = BytesMut::with_capacity(self.bytes.len() + 128 * edits.len());
        plan.write_added(&mut out, FieldPosition::Top);
        for field in self.iter() {
            plan.write_added(&mut out, FieldPosition::Before(field.index));
            match plan.decision(field) {
                None => out.put_slice(field.raw()),
                Some(edit) => write_edited(&mut out, field, edit),
            }
            end_line(&mut out);
            plan.write_added(&mut out, FieldPosition::After(field.index));
        }
        plan.write_added(&mut out, FieldPosition::Bottom);
        Ok(Self::parse(out.freeze()))
    }

    /// Checks that this edit could be made to this block.
    ///
    /// # Errors
    /// Why it could not.
    pub fn check(&self, edit: &HeaderEdit) -> Result<(), HeaderError> {
        match edit {
            HeaderEdit::Add { at, name, value } => {
                self.check_position(*at)?;
                check_field(name, value)
            }
            HeaderEdit::AddRaw { at, field } => {
                self.check_position(*at)?;
                check_raw(field)
            }
            HeaderEdit::ReplaceRaw { index, field } => self.existing(*index).and_then(|_| check_raw(field)),
            HeaderEdit::Replace { index, value } => {
                self.existing(*index).and_then(|field| check_field(&field.name_text(), value))
            }
            HeaderEdit::Remove(index) => self.existing(*index).map(|_| ()),
            HeaderEdit::RemoveAll(_) => Ok(()),
            HeaderEdit::Rename { index, name } => self.existing(*index).and_then(|_| check_name(name)),
        }
    }

    fn check_position(&self, at: FieldPosition) -> Result<(), HeaderError> {
        match at {
            FieldPosition::Top | FieldPosition::Bottom => Ok(()),
            FieldPosition::Before(index) | FieldPosition::After(index) => self.existing(index).map(|_| ()),
        }
    }

    fn existing(&self, index: usize) -> Result<Field<'_>, HeaderError> {
        self.get(index).ok_or(HeaderError::NoSuchField(index))
    }
}

/// An index of edits by the fields that they concern, so that each field is looked up instead of searching the whole
/// list.
#[derive(Default)]
struct EditIndex<'a> {
    added: HashMap<FieldPosition, Vec<&'a HeaderEdit>>,
    /// The last edit of a field, and its number in the list.
    by_index: HashMap<usize, (usize, &'a HeaderEdit)>,
    /// The last removal of all fields of a name, by the name in lower case.
    by_name: HashMap<Vec<u8>, (usize, &'a HeaderEdit)>,
}

impl<'a> EditIndex<'a> {
    fn of(edits: &'a [HeaderEdit]) -> Self {
        let mut plan = Self::default();
        for (number, edit) in edits.iter().enumerate() {
            match edit {
                HeaderEdit::Add { at, .. } | HeaderEdit::AddRaw { at, .. } => {
                    plan.added.entry(*at).or_default().push(edit);
                }
                HeaderEdit::Replace { index, .. }
                | HeaderEdit::ReplaceRaw { index, .. }
                | HeaderEdit::Remove(index)
                | HeaderEdit::Rename { index, .. } => {
                    plan.by_index.insert(*index, (number, edit));
                }
                HeaderEdit::RemoveAll(name) => {
                    plan.by_name.insert(name.to_ascii_lowercase().into_bytes(), (number, edit));
                }
            }
        }
        plan
    }

    /// The edit to make to a field: the last one in the list that concerns it.
    fn decision(&self, field: Field<'_>) -> Option<&'a HeaderEdit> {
        let by_index = self.by_index.get(&field.index);
        let by_name = (!self.by_name.is_empty())
            .then(|| self.by_name.get(&field.name().to_ascii_lowercase()))
            .flatten();
        by_index.into_iter().chain(by_name).max_by_key(|(number, _)| number).map(|(_, edit)| *edit)
    }

    fn write_added(&self, out: &mut BytesMut, at: FieldPosition) {
        for edit in self.added.get(&at).into_iter().flatten() {
            match edit {
                HeaderEdit::Add { name, value, .. } => out.put_slice(&folded(name, value)),
                HeaderEdit::AddRaw { field, .. } => write_raw(out, field),
                _ => {}
            }
        }
    }
}

/// Writes what an edit makes of a field; nothing if it removes the field.
fn write_edited(out: &mut BytesMut, field: Field<'_>, edit: &HeaderEdit) {
    match edit {
        HeaderEdit::Replace { value, .. } => out.put_slice(&folded(&field.name_text(), value)),
        HeaderEdit::ReplaceRaw { field, .. } => write_raw(out, field),
        HeaderEdit::Rename { name, .. } => {
            out.put_slice(name.as_bytes());
            out.put_slice(b":");
            out.put_slice(field.value_octets());
        }
        HeaderEdit::Remove(_)
        | HeaderEdit::RemoveAll(_)
        | HeaderEdit::Add { .. }
        | HeaderEdit::AddRaw { .. } => {}
    }
}

fn write_raw(out: &mut BytesMut, field: &[u8]) {
    out.put_slice(field);
    out.put_slice(b"\r\n");
}

/// The last line of a block may lack its CRLF; fields added below must not run into it.
fn end_line(out: &mut BytesMut) {
    if !out.is_empty() && !out.ends_with(b"\n") {
        out.put_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::fold::{FOLD_AT, MAX_LINE};
    use super::*;

    const BLOCK: &[u8] =
        b"Received: from a\r\n\tby b\r\nSubject:  hello\r\n  world \r\nX-Odd : 1\r\nsubject: again\r\n";

    fn block() -> HeaderBlock {
        HeaderBlock::parse(Bytes::from_static(BLOCK))
    }

    fn text(block: &HeaderBlock) -> &str {
        std::str::from_utf8(block.as_bytes()).unwrap()
    }

    #[test]
    fn untouched_bytes_stay() {
        let edits = [
            HeaderEdit::Add { at: FieldPosition::Top, name: "X-A".into(), value: "1".into() },
            HeaderEdit::Add { at: FieldPosition::Before(2), name: "X-B".into(), value: "2".into() },
            HeaderEdit::Add { at: FieldPosition::Bottom, name: "X-C".into(), value: "3".into() },
            HeaderEdit::Replace { index: 3, value: "new".into() },
            HeaderEdit::Remove(0),
        ];
        let edited = block().edited(&edits).unwrap();
        assert_eq!(
            text(&edited),
            "X-A: 1\r\nSubject:  hello\r\n  world \r\nX-B: 2\r\nX-Odd : 1\r\nsubject: new\r\nX-C: 3\r\n"
        );
    }

    #[test]
    fn a_rename_keeps_octets() {
        let raw = [b"A : \xff\xfe  x\r\n\t".as_slice(), &[b'w'; 2_000], b"\r\nB: 2"].concat();
        let block = HeaderBlock::parse(Bytes::from(raw));
        let rename = |index, name: &str| HeaderEdit::Rename { index, name: name.into() };
        let edited = block.edited(&[rename(0, "X-A"), rename(1, "X-B")]).unwrap();
        let expected = [b"X-A: \xff\xfe  x\r\n\t".as_slice(), &[b'w'; 2_000], b"\r\nX-B: 2\r\n"].concat();
        assert_eq!(edited.as_bytes().as_ref(), expected);
        assert_eq!(block.edited(&[rename(0, "X A")]).unwrap_err(), HeaderError::Name("X A".into()));
        assert_eq!(block.edited(&[rename(2, "X-A")]).unwrap_err(), HeaderError::NoSuchField(2));
    }

    #[test]
    fn all_fields_of_a_name_go() {
        let edited = block().edited(&[HeaderEdit::RemoveAll("SUBJECT".into())]).unwrap();
        assert_eq!(text(&edited), "Received: from a\r\n\tby b\r\nX-Odd : 1\r\n");
    }

    #[test]
    fn the_last_edit_of_a_field_decides() {
        let replace = |value: &str| HeaderEdit::Replace { index: 3, value: value.into() };
        let all = || HeaderEdit::RemoveAll("subject".into());
        let edited = |edits: &[HeaderEdit]| block().edited(edits).unwrap().named("subject").count();
        assert_eq!(edited(&[replace("kept"), all()]), 0);
        assert_eq!(edited(&[all(), replace("kept")]), 1);
        assert_eq!(edited(&[all(), replace("kept"), HeaderEdit::Remove(3)]), 0);
    }

    /// Fifty thousand edits of fifty thousand fields: searching the list for each would take billions of comparisons.
    #[test]
    fn many_edits_of_many_fields_are_found_by_their_places() {
        let count = 50_000;
        let many = HeaderBlock::parse(Bytes::from("X-A: 1\r\n".repeat(count)));
        let edits: Vec<_> = (0..count)
            .map(|index| match index % 3 {
                0 => HeaderEdit::Remove(index),
                1 => HeaderEdit::Replace { index, value: "2".into() },
                _ => HeaderEdit::Add {
                    at: FieldPosition::Before(index),
                    name: "X-B".into(),
                    value: "3".into(),
                },
            })
            .collect();
        let edited = many.edited(&edits).unwrap();
        assert_eq!(edited.named("X-B").count(), count / 3);
        assert_eq!(edited.named("X-A").filter(|field| field.value() == "2").count(), count.div_ceil(3));
    }

    #[test]
    fn one_bad_edit_stops_all() {
        let good = HeaderEdit::Remove(0);
        for (bad, error) in [
            (HeaderEdit::Remove(9), HeaderError::NoSuchField(9)),
            (
                HeaderEdit::Add { at: FieldPosition::Top, name: "X Y".into(), value: String::new() },
                HeaderError::Name("X Y".into()),
            ),
            (
                HeaderEdit::Replace { index: 2, value: "a\r\nBcc: b".into() },
                HeaderError::Value("X-Odd".into()),
            ),
        ] {
            assert_eq!(block().edited(&[good.clone(), bad]).unwrap_err(), error);
        }
    }

    #[test]
    fn long_values_are_folded_and_survive() {
        let value = "word ".repeat(40) + "end";
        let edit = HeaderEdit::Add { at: FieldPosition::Bottom, name: "X-Long".into(), value: value.clone() };
        let edited = HeaderBlock::default().edited(&[edit]).unwrap();
        assert!(text(&edited).lines().all(|line| line.len() <= FOLD_AT));
        assert_eq!(edited.get(0).unwrap().value(), value);
    }

    /// The lines above the first field may not be a field, and then have no name to write a value after.
    #[test]
    fn what_is_no_field_gets_no_value() {
        let block = HeaderBlock::parse(Bytes::from_static(b"no field\r\nA: 1\r\n"));
        let replace = |index| block.check(&HeaderEdit::Replace { index, value: "2".into() });
        assert_eq!((replace(0), replace(1)), (Err(HeaderError::Name(String::new())), Ok(())));
    }

    #[test]
    fn a_last_line_without_its_end_gets_one_before_an_addition() {
        let block = HeaderBlock::parse(Bytes::from_static(b"A: 1"));
        let edit = HeaderEdit::Add { at: FieldPosition::Bottom, name: "B".into(), value: "2".into() };
        assert_eq!(text(&block.edited(&[edit]).unwrap()), "A: 1\r\nB: 2\r\n");
    }

    /// White space stays with the word after it, however long that makes the lines.
    #[test]
    fn no_line_of_a_new_field_is_blank() {
        let blanks = " ".repeat(200);
        for value in
            [format!("a{blanks}b"), format!("a{blanks}"), blanks.clone(), format!("{blanks}a \t \t b")]
        {
            let block = HeaderBlock::parse(Bytes::from(folded("X", &value)));
            assert!(text(&block).lines().skip(1).all(|line| !line.trim().is_empty()), "{:?}", text(&block));
            assert_eq!(block.get(0).unwrap().value(), value.trim());
        }
        let no_line = HeaderEdit::Replace { index: 0, value: format!("a{}b", " ".repeat(MAX_LINE)) };
        assert!(matches!(block().check(&no_line), Err(HeaderError::Value(_))));
    }
}
