//! A message made from a plan, scanned and checked: shared by the property tests and the fuzz target.
//!
//! [`play`] panics when the scanner breaks a promise: a tree that depends on how the input was cut, a range outside the
//! message or the enclosing part, more parts or depth than the limits allow, or more than a fixed number of steps per
//! octet.

#![allow(dead_code, reason = "each test binary uses its own part of this module")]
#![allow(unreachable_pub, reason = "public to the binaries that include it, which the lint cannot see")]
#![allow(clippy::unwrap_used, reason = "a violated property is a failed test")]

use pintle_mail::mime::transfer::{self, TransferDecoder};
use pintle_mail::mime::{MimeLimits, MimePart, Scanner, Tree};
use pintle_mail::{Bytes, HeaderBlock};

/// Limits small enough to be met by chance.
pub const TIGHT: MimeLimits = MimeLimits { depth: 4, parts: 12, header: 120, names: 200 };

/// Lines that a message may consist of, so that random choices build trees.
pub const LINES: [&str; 42] = [
    "--a\r\n",
    "--a\r\n",
    "--a--\r\n",
    "--b\r\n",
    "--b\n",
    "--b--\r\n",
    "--ab\r\n",
    "--a \t \r\n",
    "--a--  \n",
    "--a--x\r\n",
    " --a\r\n",
    "--a----\r\n",
    "--\r\n",
    "\r\n",
    "\r\n",
    "\n",
    "text\r\n",
    "text\n",
    "\r",
    "Gr=C3=BC=DFe=\r\n",
    "aGVsbG8=\r\n",
    "Content-Type: multipart/mixed; boundary=a\r\n",
    "Content-Type: multipart/mixed; boundary=b\r\n",
    "Content-Type: multipart/digest; boundary=\"a--\"\r\n",
    "Content-Type: multipart/alternative;\r\n boundary*0=a; boundary*1=b\r\n",
    "Content-Type: multipart/mixed\r\n",
    "Content-Type: message/rfc822\r\n",
    "Content-Type: message/global\r\n",
    "Content-Type: text/html; charset=iso-8859-1; name=\"=?utf-8?q?=C3=A9?=\"\r\n",
    "Content-Type: (((\r\n",
    "content-type:\r\n",
    "Content-Disposition: attachment; filename*=utf-8''%E9%C3%A9; filename=x\r\n",
    "Content-Transfer-Encoding: base64\r\n",
    "Content-Transfer-Encoding: Quoted-Printable (so it says)\r\n",
    "Subject: x\r\n",
    " folded\r\n",
    "no field\r\n",
    "\0\u{e4}\u{20ac}",
    "--",
    "--aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n",
    "Content-ID: <part@example>\r\n",
    "Content-Disposition: inline\r\n",
];

/// The message of a plan. The first octet decides how the rest is read: as indices of [`LINES`], or as octets.
pub fn message(plan: &[u8]) -> Vec<u8> {
    let Some((how, rest)) = plan.split_first() else { return Vec::new() };
    if how % 2 == 0 {
        return rest.to_vec();
    }
    rest.iter().flat_map(|at| LINES[usize::from(*at) % LINES.len()].bytes()).collect()
}

/// Header and body, split at the first empty line.
pub fn parted(message: &[u8]) -> (HeaderBlock, &[u8]) {
    let mut at = 0;
    for line in message.split_inclusive(|octet| *octet == b'\n') {
        let end = at + line.len();
        if line == b"\r\n" || line == b"\n" {
            return (HeaderBlock::parse(Bytes::copy_from_slice(&message[..at])), &message[end..]);
        }
        at = end;
    }
    (HeaderBlock::parse(Bytes::copy_from_slice(message)), b"")
}

/// Scans pieces.
pub fn scanned<'a>(
    header: &HeaderBlock,
    pieces: impl IntoIterator<Item = &'a [u8]>,
    limits: MimeLimits,
) -> Tree {
    let mut scanner = Scanner::new(header, limits);
    pieces.into_iter().for_each(|piece| scanner.push(piece));
    scanner.finish()
}

/// Scans the message that the plan makes, and checks the tree.
pub fn play(plan: &[u8]) {
    let whole = message(plan);
    let (header, body) = parted(&whole);
    for limits in [MimeLimits::default(), TIGHT] {
        let tree = scanned(&header, [body], limits);
        let size = plan.first().map_or(1, |how| usize::from(how / 2) % 7 + 1);
        assert_eq!(scanned(&header, body.chunks(size), limits), tree, "cut into pieces of {size}");
        check(&tree, &header, body, limits);
        tree.parts.iter().for_each(|part| decode(part, body));
    }
}

/// What must hold for every tree.
pub fn check(tree: &Tree, header: &HeaderBlock, body: &[u8], limits: MimeLimits) {
    assert!((1..=limits.parts.max(1)).contains(&tree.parts.len()));
    let octets = (header.as_bytes().len() + body.len()) as u64;
    assert!(tree.steps <= (6 + limits.depth as u64) * octets, "{} steps for {octets} octets", tree.steps);
    let mut depths: Vec<usize> = Vec::new();
    let mut ends: Vec<u64> = vec![0; tree.parts.len()];
    let mut names = 0;
    for (at, part) in tree.parts.iter().enumerate() {
        assert!(part.content.start <= part.content.end && part.content.end <= body.len() as u64);
        assert!(!part.content_type.is_empty());
        assert!(part.transfer_encoding.len() <= 64);
        names += names_of(part);
        let Some(parent) = part.parent else {
            assert!(at == 0 && part.header.is_none());
            depths.push(0);
            continue;
        };
        let (parent, around) = (parent as usize, &tree.parts[parent as usize]);
        assert!(parent < at && (around.content_type.starts_with("m")), "{}", around.content_type);
        let header = part.header.as_ref().unwrap();
        assert!(header.start <= header.end && header.end <= part.content.start);
        assert!(around.content.start <= header.start && part.content.end <= around.content.end);
        assert!(ends[parent] <= header.start, "parts stand one behind the other");
        ends[parent] = part.content.end;
        depths.push(depths[parent] + 1);
        assert!(depths[at] <= limits.depth);
    }
    assert!(names <= limits.names, "{names} octets of names");
}

/// The octets of the strings of a part that it can do without.
fn names_of(part: &MimePart) -> usize {
    let maybe = [&part.charset, &part.filename, &part.disposition, &part.content_id];
    maybe.into_iter().flatten().map(String::len).sum()
}

fn decode(part: &MimePart, body: &[u8]) {
    let place = |offset: u64| usize::try_from(offset).unwrap();
    let content = &body[place(part.content.start)..place(part.content.end)];
    let mut decoder = TransferDecoder::new(part.encoding);
    decoder.push(content);
    let decoded = decoder.finish();
    assert!(decoded.len() <= content.len());
    assert!(transfer::text(part, &decoded).len() <= 4 * decoded.len() + 4);
}
