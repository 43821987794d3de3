//! Verifies that a message is complete and as it was written: its record, and the file of its body.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use bytes::Bytes;
use pintle_mail::QueueId;

use super::body::BLOCK;
use super::meta::{MessageMeta, from_json};
use super::record::{Front, RecordHeader};
use super::row::MessageRow;
use super::scan::is_sound;
use super::segment_file::{is_absent, read_at};

/// What is wrong with a message's octets, if anything. `segment` is the file of its segment.
///
/// # Errors
/// A read failed in a way that may pass, which is not damage.
pub(crate) fn verify_message(
    (id, row): (QueueId, &MessageRow),
    segment: &File,
    seed: u32,
    bodies: &Path,
) -> io::Result<Option<String>> {
    let place = row.place;
    let raw = match read_at(segment, place.position, place.length) {
        Err(error) if is_absent(&error) => return Ok(Some(format!("part of it is missing: {error}"))),
        raw => raw?,
    };
    let header = RecordHeader::decode(&raw, seed, place.segment, place.position)
        .filter(|header| header.id == id && header.length() == place.length);
    let Some(header) = header else {
        return Ok(Some("its record is not at its place in the log".to_owned()));
    };
    let Some(front) = front(&raw, &header) else {
        return Ok(Some("its checksum is wrong".to_owned()));
    };
    if let Err(what) = from_json::<MessageMeta>(&front.meta) {
        return Ok(Some(what));
    }
    let Some(name) = &row.file else { return Ok(None) };
    match sum_file(&bodies.join(name), header.body, &front.checksums) {
        Ok(true) => Ok(None),
        Ok(false) => Ok(Some(format!("the checksum of its body's file {name} is wrong"))),
        Err(error) if is_absent(&error) => Ok(Some(format!("its body's file {name} is missing"))),
        Err(error) => Err(error),
    }
}

fn front(raw: &Bytes, header: &RecordHeader) -> Option<Front> {
    Front::decode(raw, header).filter(|_| is_sound(raw, header))
}

fn sum_file(path: &Path, size: u64, checksums: &[u32]) -> io::Result<bool> {
    let mut file = File::open(path)?.take(size);
    for sum in checksums {
        let mut block = Vec::with_capacity(BLOCK);
        file.by_ref().take(BLOCK as u64).read_to_end(&mut block)?;
        if crc32fast::hash(&block) != *sum {
            return Ok(false);
        }
    }
    Ok(file.limit() == 0)
}
