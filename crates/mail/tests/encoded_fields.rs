//! Values in ASCII: what is written as encoded words is read back, by this crate and by another library.

#![allow(clippy::unwrap_used, reason = "a violated property is a failed test")]

use std::collections::HashSet;

use mail_parser::MessageParser;
use pintle_mail::encoded_words::decoded;
use pintle_mail::header::{encoded, folded};
use pintle_mail::{Bytes, HeaderBlock, HeaderError};
use proptest::collection::vec;
use proptest::prelude::*;

/// Texts of one space between words, so that readers that join white space read the same.
const TEXTS: &[&str] = &[
    "Zoë",
    "ä",
    "Grüße aus Köln, wo es schön ist",
    "plain words around ä single one",
    "ä ö plain ü ß",
    "Привет, мир",
    "Γειά σου Κόσμε",
    "שלום עולם",
    "مرحبا بالعالم",
    "สวัสดีชาวโลก",
    "नमस्ते दुनिया",
    "안녕하세요 세계",
    "こんにちは世界、お元気ですか",
    "你好，世界",
    "👩‍👩‍👧‍👦 family 🏳️‍🌈 👍🏽",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈",
    "e\u{301} combining\u{20dd}",
    "a\u{a0}b\u{3000}c \u{3000} d\u{2028}e",
    "=?utf-8?q?x?= é",
    "é =?utf-8?q?x?= =?utf-8?b?eA==?= é",
    "é =? ?= =?utf-8?q?é",
    "x=?utf-8?q?x?= é",
    "_é_ a_b =C3 ?é? \"é\" (é) <é@é>",
    "\u{feff}é \u{202e}é\u{200f}",
];

/// Whether something that looks like an encoded word is part of a longer word, where RFC 2047 section 5 permits none and
/// readers decode it all the same.
fn has_glued_word(value: &str) -> bool {
    value.split([' ', '\t']).any(|word| word.contains("=?") && !word.starts_with("=?"))
        || value
            .split([' ', '\t'])
            .any(|word| word.contains("=?") && (!word.is_ascii() || !word.ends_with("?=")))
        || value.split([' ', '\t']).any(|word| word.matches("=?").count() > 1)
}

fn round(name: &str, value: &str) -> String {
    let ascii = encoded(name, value).unwrap();
    assert!(ascii.is_ascii(), "{ascii}");
    if !has_glued_word(value) {
        assert_eq!(decoded(&ascii), decoded(value), "{ascii}");
    }
    let given: HashSet<&str> = value.split([' ', '\t']).collect();
    let is_new = |word: &&str| word.starts_with("=?utf-8?") && !given.contains(word);
    for word in ascii.split([' ', '\t']).filter(is_new) {
        assert!(word.len() <= 75, "{word}");
    }
    ascii
}

#[test]
fn unstructured_text_is_read_back_exactly() {
    for text in TEXTS {
        for value in [
            (*text).to_owned(),
            format!("  {text}\t "),
            text.replace(' ', "  "),
            text.replace(' ', " \t "),
            text.replace(' ', ""),
            text.repeat(40),
            vec![*text; 40].join(" "),
        ] {
            round("Subject", &value);
            round("X-A-Field-With-A-Name-That-Leaves-Hardly-Any-Room-On-The-First-Line-At-All", &value);
        }
    }
}

#[test]
fn other_programs_read_the_same() {
    for value in TEXTS.iter().map(|text| [*text; 12].join(" ")) {
        let field = folded("Subject", &encoded("Subject", &value).unwrap());
        let message = [field.as_slice(), b"\r\ntext\r\n"].concat();
        let parsed = MessageParser::default().parse(&message).unwrap();
        if !has_glued_word(&value) {
            assert_eq!(parsed.subject(), Some(&*decoded(&value)), "{}", String::from_utf8_lossy(&field));
        }
    }
}

/// RFC 2047 section 2: a line with an encoded word has at most 76 octets.
#[test]
fn lines_are_short() {
    for text in TEXTS {
        let value = vec![*text; 40].join(" ");
        let field = folded("Subject", &round("Subject", &value));
        let text = String::from_utf8(field.clone()).unwrap();
        assert!(text.lines().all(|line| line.len() <= 76), "{text}");
        if !has_glued_word(&value) {
            let read = HeaderBlock::parse(Bytes::from(field)).get(0).unwrap().value();
            assert_eq!(decoded(&read), decoded(&value));
        }
    }
}

#[test]
fn the_shorter_encoding_is_used_and_only_where_needed() {
    for (value, ascii) in [
        ("plain =?utf-8?q?x?= (a)", "plain =?utf-8?q?x?= (a)"),
        ("re: Zoë is here", "re: =?utf-8?Q?Zo=C3=AB?= is here"),
        ("ä ö und ü", "=?utf-8?B?w6Qgw7Y=?= und =?utf-8?B?w7w=?="),
        ("漢字", "=?utf-8?B?5ryi5a2X?="),
        ("", ""),
    ] {
        assert_eq!(encoded("Subject", value).unwrap(), ascii);
    }
}

#[test]
fn names_and_comments_of_addresses_are_encoded() {
    for (value, ascii) in [
        ("Zoë Lee <zoe@x.example>", "=?utf-8?Q?Zo=C3=AB?= Lee <zoe@x.example>"),
        ("\"Lee, Zoë\" <zoe@x.example>", "=?utf-8?B?TGVlLCBab8Or?= <zoe@x.example>"),
        ("\"Zoë \\\"Z\\\"\"<z@x.example>", "=?utf-8?B?Wm/DqyAiWiI=?= <z@x.example>"),
        ("\"Lee, Ann\" Zoë\t<z@x.example>", "\"Lee, Ann\" =?utf-8?Q?Zo=C3=AB?=\t<z@x.example>"),
        ("a@b.example,Zoë <z@x.example>", "a@b.example, =?utf-8?Q?Zo=C3=AB?= <z@x.example>"),
        ("zoe@x.example (Zoë (Köln))", "zoe@x.example (=?utf-8?Q?Zo=C3=AB?= (=?utf-8?B?S8O2bG4=?=))"),
        ("z@x.example (a\\)é b)", "z@x.example (=?utf-8?B?YSnDqQ==?= b)"),
        ("Zoë(home)Lee <z@x.example>", "=?utf-8?Q?Zo=C3=AB?= (home)Lee <z@x.example>"),
        ("(home)Zoë <z@x.example>", "(home) =?utf-8?Q?Zo=C3=AB?= <z@x.example>"),
        (
            "Grüße: a@b.example, Bö <c@d.example>;",
            "=?utf-8?B?R3LDvMOfZQ==?= : a@b.example, =?utf-8?B?QsO2?= <c@d.example>;",
        ),
        ("Zoë <@r.example:z@x.example>", "=?utf-8?Q?Zo=C3=AB?= <@r.example:z@x.example>"),
        ("Zoë <z@[IPv6:::1]>, b@[IPv6:::1]", "=?utf-8?Q?Zo=C3=AB?= <z@[IPv6:::1]>, b@[IPv6:::1]"),
        ("<z@x.example> (Zoë)", "<z@x.example> (=?utf-8?Q?Zo=C3=AB?=)"),
        (
            "=?utf-8?q?Ann?= Zoë =?utf-8?q?Lee?= <z@x.example>",
            "=?utf-8?q?Ann?= =?utf-8?B?IFpvw6sg?= =?utf-8?q?Lee?= <z@x.example>",
        ),
        ("=?x?= é =?utf-8?q?=zz?= <z@x.example>", "=?x?= =?utf-8?B?w6k=?= =?utf-8?q?=zz?= <z@x.example>"),
    ] {
        for name in ["From", "to", "Resent-CC", "Disposition-Notification-To", "Errors-To"] {
            assert_eq!(encoded(name, value).as_deref(), Ok(ascii), "{name}: {value}");
        }
    }
    assert_eq!(encoded("List-Id", "Zoë <a.example>").as_deref(), Ok("=?utf-8?Q?Zo=C3=AB?= <a.example>"));
    assert_eq!(
        encoded("Keywords", "Zoë, a b,ä").as_deref(),
        Ok("=?utf-8?Q?Zo=C3=AB?= , a b, =?utf-8?B?w6Q=?=")
    );
}

#[test]
fn names_are_read_back_by_other_programs() {
    for text in TEXTS.iter().filter(|text| !text.contains("=?")) {
        let name = text.repeat(5).replace(['"', '\\'], "");
        let value = format!("\"{name}\" <a@b.example>, c@d.example ({name})");
        let field = folded("To", &encoded("To", &value).unwrap());
        assert!(field.split(|octet| *octet == b'\n').all(|line| line.len() <= 78));
        let message = [field.as_slice(), b"\r\ntext\r\n"].concat();
        let parsed = MessageParser::default().parse(&message).unwrap();
        let first = parsed.to().unwrap().first().unwrap();
        assert_eq!((first.name(), first.address()), (Some(name.as_str()), Some("a@b.example")));
        let ours = pintle_mail::mailboxes::entries(
            &HeaderBlock::parse(Bytes::from(field)).get(0).unwrap().value(),
            9,
        );
        assert_eq!(
            (ours[0].name.as_str(), ours[0].mailboxes[0].text.as_str()),
            (name.as_str(), "a@b.example")
        );
    }
}

#[test]
fn what_permits_no_encoded_words_is_an_error() {
    let no_words = "this field permits no encoded words";
    let address = "an address in it has characters outside ASCII";
    for (name, value, reason) in [
        ("Message-ID", "<é@x.example>", no_words),
        ("resent-message-id", "<é@x.example>", no_words),
        ("References", "<é@x.example>", no_words),
        ("Date", "Mon, 1 Jän 2026", no_words),
        ("Received", "from é", no_words),
        ("Return-Path", "<é@x.example>", no_words),
        ("Content-Type", "text/plain; name=é", no_words),
        ("Content-Disposition", "attachment; filename=é", no_words),
        ("DKIM-Signature", "i=é@x.example", no_words),
        ("ARC-Seal", "d=é", no_words),
        ("Authentication-Results", "é; none", no_words),
        ("List-Unsubscribe", "<mailto:é@x.example>", no_words),
        ("From", "zoë@x.example", address),
        ("From", "Zoë <zoë@x.example>", address),
        ("From", "Ann <ann@é.example>", address),
        ("To", "a@b.example, zoë@x.example, c@d.example", address),
        ("To", "group: zoë@x.example;", address),
        ("To", "\"zoë\"@x.example", address),
        ("To", "<a@b.example> Zoë", address),
        ("To", "Zoë", address),
        ("List-ID", "Zoë <é.example>", address),
        ("From", "\"Zoë <z@x.example>", "a quoted string is not closed"),
        ("From", "\"Zoë\\\"", "a quoted string is not closed"),
        ("From", "Zoë (home <z@x.example>", "a comment is not closed"),
        ("From", "Zoë <z@x.example", "an angle bracket is not closed"),
        ("From", "Zoë <z@[x>", "a square bracket is not closed"),
    ] {
        let error = HeaderError::NotAscii { name: name.to_owned(), reason };
        assert_eq!(encoded(name, value), Err(error), "{name}: {value}");
    }
    let error = encoded("Date", "é").unwrap_err().to_string();
    assert_eq!(error, "the value for Date cannot be in ASCII: this field permits no encoded words");
    for value in ["é\r\nBcc: b", "é\n", "\0é"] {
        assert_eq!(encoded("Subject", value), Err(HeaderError::Value("Subject".to_owned())));
    }
    assert_eq!(round("Content-Description", "é"), "=?utf-8?B?w6k=?=");
}

/// Each would take minutes or overflow the stack if it were searched again and again, or recursed into.
#[test]
fn hostile_values_are_written_in_time() {
    let size = 1 << 20;
    let many = |text: &str| text.repeat(size / text.len());
    for value in [
        many("漢"),
        many("é "),
        many("é x "),
        many("=?"),
        format!("é{}", many(" ")),
        format!("{}é", many("x")),
        format!("é {}", "=?utf-8?q?x?= ".repeat(10_000)),
    ] {
        round("Subject", &value);
    }
    let nested = |depth: usize| format!("a@b.example {}é{}", "(".repeat(depth), ")".repeat(depth));
    for (value, is_fit) in [
        (nested(10_000), true),
        (nested(size / 2), true),
        (format!("é <a@b.example>{}", many(",")), true),
        (format!("{} <a@b.example>", many("é")), true),
        (format!("{} <a@b.example>", many("é(é)")), true),
        (format!("a@b.example ({})", many("(é)")), true),
        (format!("a@b.example ({})", many("é\\)")), true),
        (format!("\"{}\" <a@b.example>", many("é\\\"")), true),
        (many("é: "), true),
        (format!("é{}", many("(")), false),
        (format!("é{}", many("\"")), false),
        (format!("é{}x", many("[")), false),
        (format!("é{}", many("<")), false),
    ] {
        let ascii = encoded("To", &value);
        assert_eq!(ascii.as_ref().is_ok_and(|text| text.is_ascii()), is_fit, "{}", &value[..18]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_back(value in "([a-c=?_]|[ \t]{1,3}|=[?]utf-8[?][qb][?]|[?]=|[é漢👍]|[^\r\n\0]){0,60}") {
        if !value.is_ascii() {
            round("Subject", &value);
        }
    }

    #[test]
    fn any_address_field_is_written_in_ascii_or_refused(value in "([a-cé漢@.]|[<>(),:;\"\\\\ \t\\[\\]]|=[?]utf-8[?]q[?]a[?]=){0,40}") {
        if let Ok(ascii) = encoded("From", &value) {
            prop_assert!(ascii.is_ascii());
        }
    }

    #[test]
    fn a_list_of_names_stays_a_list(names in vec("[a-z é漢,.\"\\\\]{1,30}", 1..6)) {
        let quoted = names.iter().map(|name| name.replace('\\', "\\\\").replace('"', "\\\""));
        let value = quoted.map(|name| format!("\"{name}\" <a@b.example>")).collect::<Vec<_>>().join(", ");
        let found = pintle_mail::mailboxes::entries(&encoded("To", &value).unwrap(), 9);
        prop_assert_eq!(found.len(), names.len());
        for (entry, name) in found.iter().zip(&names) {
            prop_assert_eq!(entry.name.trim(), name.trim());
            prop_assert_eq!(&entry.mailboxes[0].text, "a@b.example");
        }
    }
}
