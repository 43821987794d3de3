//! MIME trees: the results for benign and hostile messages, and what must hold for any message.

#![allow(clippy::unwrap_used, reason = "a violated property is a failed test")]

mod mime_play;

use mail_parser::{Message, MessageParser, MimeHeaders, PartType};
use mime_play::{LINES, parted, play, scanned};
use pintle_mail::mime::transfer::{self, TransferDecoder};
use pintle_mail::mime::{Defect, MimeLimit, MimeLimits, Scanner, Tree};
use proptest::collection::vec;
use proptest::prelude::*;

fn tree(message: &[u8]) -> Tree {
    let (header, body) = parted(message);
    let tree = scanned(&header, [body], MimeLimits::default());
    mime_play::check(&tree, &header, body, MimeLimits::default());
    tree
}

/// Type, parent and content of each part.
fn parts(message: &str) -> Vec<(String, Option<u32>, String)> {
    let (_, body) = parted(message.as_bytes());
    let text = |at: u64| usize::try_from(at).unwrap();
    let part = |part: &pintle_mail::mime::MimePart| {
        let content = &body[text(part.content.start)..text(part.content.end)];
        (part.content_type.clone(), part.parent, String::from_utf8_lossy(content).into_owned())
    };
    tree(message.as_bytes()).parts.iter().map(part).collect()
}

/// The contents of all parts that contain no other parts.
fn leaves(message: &str) -> Vec<String> {
    let all = parts(message);
    let is_leaf = |at: usize| !all.iter().any(|(_, parent, _)| *parent == u32::try_from(at).ok());
    (0..all.len()).filter(|at| is_leaf(*at)).map(|at| all[at].2.clone()).collect()
}

const MIXED: &str = "Content-Type: multipart/mixed; boundary=b\r\n\r\n";

#[test]
fn delimiters_are_whole_lines() {
    for (body, expected) in [
        ("pre\r\n--b\r\n\r\none\r\n--b\r\n\r\ntwo\r\n--b--\r\nafter\r\n", vec!["one", "two"]),
        ("--b \t\r\n\r\none\r\n--b-- \r\n", vec!["one"]),
        ("--b\n\none\n--b\n\ntwo\n--b--\n", vec!["one", "two"]),
        (
            "--b\r\n\r\none\r\n--bb\r\n --b\r\n--b-\r\n--b--x\r\nx--b\r\n--b--",
            vec!["one\r\n--bb\r\n --b\r\n--b-\r\n--b--x\r\nx--b"],
        ),
        ("--b\r\n\r\n--b\r\n\r\n\r\n--b\r\n\r\n\r\n\r\n--b--\r\n", vec!["", "", "\r\n"]),
        ("--b\r\n\r\nnot closed\r\n", vec!["not closed\r\n"]),
        ("--b\r\nSubject: no body\r\n--b\r\n\r\ntwo\r\n--b--\r\n", vec!["", "two"]),
        ("--b\r\n\r\none\r\n--b--\r\n--b\r\n\r\nbehind the end\r\n", vec!["one"]),
    ] {
        assert_eq!(leaves(&format!("{MIXED}{body}")), expected, "{body:?}");
    }
}

#[test]
fn an_outer_boundary_ends_what_is_open_within() {
    let message = "Content-Type: multipart/mixed; boundary=outer\r\n\r\n--outer\r\n\
        Content-Type: multipart/mixed; boundary=inner\r\n\r\n--inner\r\n\r\none\r\n--outer\r\n\r\ntwo\r\n--inner\r\n--outer--\r\n";
    assert_eq!(leaves(message), ["one", "two\r\n--inner"]);
    assert!(tree(message.as_bytes()).malformed.has(Defect::NotClosed));
}

#[test]
fn enclosed_messages_are_looked_into() {
    let message = format!(
        "{MIXED}--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: within\r\n{MIXED}--b\r\n\r\nborrowed\r\n--b--\r\n"
    );
    let found = parts(&message);
    let types: Vec<_> = found.iter().map(|(kind, parent, _)| (kind.as_str(), *parent)).collect();
    assert_eq!(
        types,
        [
            ("multipart/mixed", None),
            ("message/rfc822", Some(0)),
            ("multipart/mixed", Some(1)),
            ("text/plain", Some(2))
        ],
        "the innermost multipart of one boundary has it"
    );
    let digest =
        "Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nSubject: x\r\n\r\nhello\r\n--b--\r\n";
    assert_eq!(leaves(digest), ["hello"]);
    let encoded = format!(
        "{MIXED}--b\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\nU3ViamVjdDogeA==\r\n--b--\r\n"
    );
    assert_eq!(
        leaves(&encoded),
        ["U3ViamVjdDogeA=="],
        "a place inside encoded content is not a place in the message"
    );
    assert!(tree(encoded.as_bytes()).malformed.has(Defect::Encoded));
}

#[test]
fn what_breaks_the_rules_is_marked() {
    for (message, defect) in [
        ("Content-Type: multipart/mixed\r\n\r\ntext", Defect::NoBoundary),
        ("Content-Type: multipart/mixed; boundary=b\r\n\r\ntext", Defect::NoParts),
        ("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\ntext", Defect::NotClosed),
        ("Content-Type: multipart/mixed; boundary=b; boundary=c\r\n\r\n--b\r\n\r\n--b--", Defect::Repeated),
        ("Content-Type: text/plain\r\nContent-Type: text/html\r\n\r\n", Defect::Repeated),
        ("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nhello\r\n\r\n--b--", Defect::Header),
        ("Content-Type: nonsense\r\n\r\n", Defect::Type),
    ] {
        let found = tree(message.as_bytes());
        assert_eq!(found.malformed.names(), [pintle_mail::mime::Flag::name(defect)], "{message:?}");
        assert!(found.truncated.is_empty());
    }
    let well_formed = format!("{MIXED}--b\r\n\r\ntext\r\n--b--\r\n");
    assert!(tree(well_formed.as_bytes()).malformed.is_empty());
}

/// Messages nested as deep as the input likes: the depth of the tree, and of the stack, is that of the limit.
#[test]
fn depth_is_bounded() {
    let message = "Content-Type: message/rfc822\r\n\r\n".repeat(60_000);
    let found = tree(message.as_bytes());
    assert_eq!(found.parts.len(), MimeLimits::default().depth + 1);
    assert!(found.truncated.has(MimeLimit::Depth));
    let multiparts: String = (0..60_000)
        .map(|at| format!("Content-Type: multipart/mixed; boundary={at}\r\n\r\n--{at}\r\n"))
        .collect();
    let found = tree(multiparts.as_bytes());
    assert!(found.truncated.has(MimeLimit::Depth) && found.parts.len() == MimeLimits::default().depth + 1);
}

#[test]
fn parts_headers_and_names_are_bounded() {
    let found = tree(format!("{MIXED}{}", "--b\r\n\r\nx\r\n".repeat(20_000)).as_bytes());
    assert_eq!(found.parts.len(), 10_000);
    assert_eq!(found.truncated.names(), ["parts"]);
    let header = "X-Filler: x\r\n".repeat(10_000);
    let found =
        tree(format!("{MIXED}--b\r\n{header}Content-Type: text/html\r\n\r\nx\r\n--b--\r\n").as_bytes());
    assert_eq!(found.parts[1].content_type, "text/plain");
    assert_eq!(found.truncated.names(), ["header"]);
    let name = "n".repeat(60_000);
    let part = format!("--b\r\nContent-Disposition: attachment; filename={name}\r\n\r\nx\r\n");
    let found = tree(format!("{MIXED}{}", part.repeat(40)).as_bytes());
    assert_eq!(found.truncated.names(), ["names"]);
    let kept: usize = found.parts.iter().filter_map(|part| part.filename.as_ref().map(String::len)).sum();
    assert!((900_000..=1 << 20).contains(&kept), "{kept}");
}

/// Disposition, Content-ID and transfer encoding of a part with these fields.
fn declared(fields: &str) -> (Option<String>, Option<String>, String) {
    let part = tree(format!("{MIXED}--b\r\n{fields}\r\nx\r\n--b--\r\n").as_bytes()).parts.remove(1);
    (part.disposition, part.content_id, part.transfer_encoding)
}

#[test]
fn a_part_says_what_its_header_declares() {
    let some = |text: &str| Some(text.to_owned());
    for (fields, disposition, id, encoding) in [
        ("", None, None, "7bit"),
        ("Content-Disposition: (a) ATTACHMENT ; filename=x\r\n", some("attachment"), None, "7bit"),
        ("Content-Disposition: Inline\r\nContent-ID: <A.b@C>\r\n", some("inline"), some("A.b@C"), "7bit"),
        ("Content-Disposition: ; filename=x\r\nContent-Id:\r\n <a\r\n b>\r\n", None, some("a b"), "7bit"),
        ("Content-ID: bare@id \r\nContent-Transfer-Encoding: 8BIT\r\n", None, some("bare@id"), "8bit"),
        ("Content-ID: <>\r\nContent-Transfer-Encoding:\r\n", None, None, "7bit"),
        ("Content-ID: x <open\r\nContent-Transfer-Encoding: X-UU\r\n", None, some("open"), "x-uu"),
        ("Content-Transfer-Encoding: Quoted-Printable (a)\r\n", None, None, "quoted-printable"),
    ] {
        assert_eq!(declared(fields), (disposition, id, encoding.to_owned()), "{fields:?}");
    }
    let twice = format!("{MIXED}--b\r\nContent-ID: <a>\r\nContent-ID: <b>\r\n\r\nx\r\n--b--\r\n");
    let found = tree(twice.as_bytes());
    assert_eq!(found.malformed.names(), ["repeated"]);
    assert_eq!(found.parts[1].content_id.as_deref(), Some("a"));
}

#[test]
fn what_a_part_declares_is_bounded() {
    let long = "é".repeat(900);
    let (disposition, id, encoding) = declared(&format!(
        "Content-Disposition: {long}\r\nContent-ID: <{long}>\r\nContent-Transfer-Encoding: a{long}\r\n"
    ));
    assert_eq!((disposition.unwrap().len(), id, encoding.len()), (64, None, 63));
    let id = "i".repeat(998);
    let part = format!("--b\r\nContent-ID: <{id}>\r\nContent-Transfer-Encoding: base64\r\n\r\neA==\r\n");
    let found = tree(format!("{MIXED}{}--b--\r\n", part.repeat(2_000)).as_bytes());
    assert_eq!(found.truncated.names(), ["names"]);
    let kept: usize = found.parts.iter().filter_map(|part| part.content_id.as_ref().map(String::len)).sum();
    assert!((900_000..=1 << 20).contains(&kept), "{kept}");
    let last = found.parts.last().unwrap();
    assert_eq!((&last.content_id, last.transfer_encoding.as_str()), (&None, "base64"));
}

/// Steps are counted, not seconds: twice the octets must cost at most twice the work.
#[test]
fn work_is_linear_in_the_octets() {
    let shapes: [fn(usize) -> String; 6] = [
        |n| "Content-Type: message/rfc822\r\n\r\n".repeat(n),
        |n| format!("{MIXED}{}", "--b\r\n\r\nx\r\n".repeat(n)),
        |n| format!("{MIXED}--b\r\n{}\r\n", "X: y\r\n".repeat(n)),
        |n| format!("Content-Type: text/plain{}\r\n\r\n", "; name*1=x".repeat(n)),
        |n| {
            let open: String = (10..100)
                .map(|at| {
                    format!(
                        "Content-Type: multipart/mixed; boundary={}{at}\r\n\r\n--{}{at}\r\n",
                        "b".repeat(60),
                        "b".repeat(60)
                    )
                })
                .collect();
            format!("{open}{}", format!("--{}xx\r\n", "b".repeat(60)).repeat(n))
        },
        |n| "--\r\n".repeat(n),
    ];
    for shape in shapes {
        let steps = |n| tree(shape(n).as_bytes()).steps.max(1);
        assert!(steps(20_000) <= 21 * steps(1_000).max(10_000), "{}", &shape(1));
    }
}

/// The fields of one part, a quarter MiB each, made to be searched again and again or to nest endlessly.
#[test]
fn no_field_is_read_twice() {
    let size = 256 << 10;
    let many = |text: &str| text.repeat(size / text.len());
    for hostile in [
        many("("),
        many("(\\"),
        many("\""),
        many("; name*1=x"),
        many("; name*0*=u'x'%41"),
        (0..20_000).map(|at| format!("; name*{at}=x")).collect(),
        (0..20_000).map(|at| format!("; p{at}*1=x")).collect(),
        format!("; name=\"{}\"", many("=?a?q?x ")),
        format!("; name=\"{}\"", many("=?utf-8?b?")),
        format!("; name=\"{}\"", many("=?")),
        format!("; name=\"{}\"", many("\\")),
        many(";"),
        many("="),
        many("'"),
        many(" \r\n\t"),
    ] {
        for field in [
            "Content-Type: text/plain",
            "Content-Disposition: attachment",
            "Content-Transfer-Encoding: 7bit",
            "Content-ID: <a",
        ] {
            let message = format!("{field}{hostile}\r\n\r\n");
            assert_eq!(tree(message.as_bytes()).parts.len(), 1);
            assert!(tree(message.as_bytes()).truncated.has(MimeLimit::Header));
        }
    }
}

/// Ordinary mail is read as other programs read it.
#[test]
fn benign_mail_reads_as_a_library_reads_it() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/corpus");
    let mut seen = 0;
    for path in eml_files(folder.as_ref()) {
        let octets = std::fs::read(&path).unwrap();
        let parsed = MessageParser::default().parse(&octets).unwrap();
        let mut theirs = Vec::new();
        flatten(&parsed, None, &mut theirs);
        assert_eq!(described(&octets), theirs, "{}", path.display());
        seen += 1;
    }
    assert!(seen > 60, "{seen}");
}

fn eml_files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let all = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    all.filter(|path| path.extension().is_some_and(|end| end == "eml")).collect()
}

/// Parent, type, charset, file name, whether it is attached, and the decoded content of a part without parts of its
/// own.
type Seen = (Option<u32>, String, Option<String>, Option<String>, bool, Option<String>);

fn described(octets: &[u8]) -> Vec<Seen> {
    let (_, body) = parted(octets);
    let tree = tree(octets);
    let place = |at: u64| usize::try_from(at).unwrap();
    let seen = |(at, part): (usize, &pintle_mail::mime::MimePart)| {
        let holds = tree.parts.iter().any(|other| other.parent == u32::try_from(at).ok());
        let mut decoder = TransferDecoder::new(part.encoding);
        decoder.push(&body[place(part.content.start)..place(part.content.end)]);
        let content = (!holds && part.content_type.starts_with("text/"))
            .then(|| transfer::text(part, &decoder.finish()).trim_end().to_owned());
        (
            part.parent,
            part.content_type.clone(),
            part.charset.clone(),
            part.filename.clone(),
            part.disposition.as_deref() == Some("attachment"),
            content,
        )
    };
    tree.parts.iter().enumerate().map(seen).collect()
}

/// The library gives enclosed messages their own trees, and lists parts in the order in which they begin.
fn flatten(message: &Message<'_>, parent: Option<u32>, out: &mut Vec<Seen>) {
    let base = u32::try_from(out.len()).unwrap();
    let mut places = vec![base; message.parts.len()];
    let mut parents = vec![parent; message.parts.len()];
    for (at, part) in message.parts.iter().enumerate() {
        places[at] = u32::try_from(out.len()).unwrap();
        let kind = part.content_type();
        let text = match &part.body {
            PartType::Text(text) | PartType::Html(text) => Some(text.trim_end().to_owned()),
            _ => None,
        };
        out.push((
            parents[at],
            kind.map_or("text/plain".into(), |kind| {
                format!("{}/{}", kind.ctype(), kind.subtype().unwrap_or(""))
            }),
            kind.and_then(|kind| kind.attribute("charset")).map(str::to_lowercase),
            part.attachment_name().map(str::to_owned),
            part.content_disposition().is_some_and(|it| it.is_attachment()),
            text.filter(|_| kind.is_none_or(|kind| kind.ctype() == "text")),
        ));
        match &part.body {
            PartType::Multipart(children) => {
                children.iter().for_each(|child| parents[*child as usize] = Some(places[at]));
            }
            PartType::Message(within) => flatten(within, Some(places[at]), out),
            _ => {}
        }
    }
}

#[test]
fn the_seeds_of_the_fuzz_target_hold() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/mime");
    let seeds: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(seeds.len() >= 8, "{}", seeds.len());
    seeds.iter().for_each(|seed| play(&std::fs::read(seed).unwrap()));
}

#[test]
fn steps_can_be_asked_for_on_the_way() {
    let (header, body) = parted(b"\r\nhello\r\nworld\r\n");
    let mut scanner = Scanner::new(&header, MimeLimits::default());
    scanner.push(body);
    assert_eq!(scanner.steps(), body.len() as u64);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_octets_break_a_promise(plan in vec(any::<u8>(), 0..600)) {
        play(&plan);
    }

    #[test]
    fn no_likely_message_breaks_a_promise(how: u8, root in 21..26_u8, lines in vec(0..u8::try_from(LINES.len()).unwrap(), 0..60)) {
        let mut plan = vec![how | 1, root, 13];
        plan.extend(lines);
        play(&plan);
    }
}
