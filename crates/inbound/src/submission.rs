//! Completes the header of a submitted message (RFC 6409 section 8): adds the fields that every message must have, and
//! removes those that no recipient may see.

use pintle_mail::{FieldPosition, HeaderBlock, HeaderEdit, QueueId, UnixTime};

/// Fields that only the author may see (RFC 5322 section 3.6.3), and one that only the last server writes (RFC 5321
/// section 4.4).
const PRIVATE: [&str; 3] = ["Bcc", "Resent-Bcc", "Return-Path"];

/// Adds Date and Message-ID if they are missing, and removes the private fields. Existing fields stay unchanged,
/// whatever their value.
pub(crate) fn completed(header: HeaderBlock, id: QueueId, hostname: &str, now: UnixTime) -> HeaderBlock {
    let is_there = |name: &&str| header.named(name).next().is_some();
    let mut edits: Vec<_> = PRIVATE
        .iter()
        .filter(|name| is_there(name))
        .map(|name| HeaderEdit::RemoveAll((*name).to_owned()))
        .collect();
    for (name, value) in [("Date", now.rfc5322()), ("Message-ID", format!("<{id}@{hostname}>"))] {
        if !is_there(&name) {
            edits.push(HeaderEdit::Add { at: FieldPosition::Bottom, name: name.to_owned(), value });
        }
    }
    // None of these edits can fail.
    header.edited(&edits).unwrap_or(header)
}

#[cfg(test)]
mod tests {
    use pintle_mail::Bytes;

    use super::*;

    fn complete(header: &'static str) -> String {
        let now = UnixTime::from_millis(1_795_317_028_000);
        let id = QueueId::new(UnixTime::from_millis(0), 0);
        let header = HeaderBlock::parse(Bytes::from_static(header.as_bytes()));
        String::from_utf8(completed(header, id, "gate.example", now).as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn what_is_missing_is_added_and_what_is_private_goes() {
        assert_eq!(
            complete(
                "Return-Path: <x@a.example>\r\nSubject: hi\r\nbcc: c@a.example,\r\n d@a.example\r\nResent-Bcc: e\r\n"
            ),
            "Subject: hi\r\nDate: Sun, 22 Nov 2026 03:10:28 +0000\r\n\
             Message-ID: <00000000000000000000000000@gate.example>\r\n"
        );
        let whole = "date: yesterday\r\nMESSAGE-ID: <1@a.example>\r\nSubject:  hi\r\n";
        assert_eq!(complete(whole), whole);
        assert!(complete("").starts_with("Date: "));
    }
}
