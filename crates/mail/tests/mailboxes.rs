//! Mailboxes in header fields: what readers see and where it is, for benign and hostile values.

#![allow(clippy::unwrap_used, reason = "a violated property is a failed test")]

use pintle_mail::mailboxes::{MailboxEntry, entries};
use proptest::prelude::*;

fn all(value: &str) -> Vec<MailboxEntry> {
    entries(value, usize::MAX)
}

fn places(value: &str) -> Vec<&str> {
    let mailboxes = all(value).into_iter().flat_map(|entry| entry.mailboxes);
    mailboxes.map(|mailbox| &value[mailbox.range]).collect()
}

#[test]
fn addresses_are_found_where_they_are() {
    for (value, found) in [
        ("ann@example.org", vec!["ann@example.org"]),
        ("Ann <ann@example.org>, bob@example.net", vec!["ann@example.org", "bob@example.net"]),
        ("friends: a@x.example, B <b@y.example>;", vec!["a@x.example", "b@y.example"]),
        ("<@r1.example,@r2.example:c@z.example>", vec!["c@z.example"]),
        (" ann@example.org (home, <not@this>)", vec!["ann@example.org"]),
        ("", vec![]),
        ("undisclosed-recipients:;", vec![]),
        (r#""Bob <bob@good.example>" <eve@bad.example>"#, vec!["eve@bad.example"]),
        (r#""a \" , b@c" <d@e.example>"#, vec!["d@e.example"]),
        ("Bob <bob@good.example> <eve@bad.example>", vec!["bob@good.example", "eve@bad.example"]),
        ("Bob <bob@good.example", vec!["bob@good.example"]),
        ("\"open <a@b.example>", vec!["a@b.example"]),
        ("<bob@good.example <eve@bad.example>", vec!["bob@good.example", "eve@bad.example"]),
        ("Zoë <zoë@exämple.org>", vec!["zoë@exämple.org"]),
        ("bob@good.example>", vec!["bob@good.example"]),
        ("<> <a@b.example>", vec!["a@b.example"]),
    ] {
        assert_eq!(places(value), found, "{value}");
    }
}

#[test]
fn an_address_has_no_comments_and_blanks() {
    for (value, text, local, domain) in [
        ("bob @ Good . example", "bob@good.example", "bob", "good.example"),
        ("bob@good.(a comment)example", "bob@good.example", "bob", "good.example"),
        ("<bob @good. example>", "bob@good.example", "bob", "good.example"),
        (r#"<"c \"d\"@x"@Example.ORG>"#, r#""c \"d\"@x"@example.org"#, "c \"d\"@x", "example.org"),
        ("a@b@c.example", "a@b@c.example", "a@b", "c.example"),
    ] {
        let mailbox = all(value).remove(0).mailboxes.remove(0);
        assert_eq!(
            (mailbox.text.as_str(), mailbox.local.as_str(), mailbox.domain.as_str()),
            (text, local, domain)
        );
    }
}

#[test]
fn a_name_is_what_readers_see() {
    for (value, name, addresses) in [
        (r#""Lee, \"Ann\"" <ann@x.example>"#, "Lee, \"Ann\"", vec!["ann@x.example"]),
        ("Lee, Ann <ann@x.example>", "Lee, Ann", vec!["ann@x.example"]),
        ("ann@x.example (Ann Lee)", "(Ann Lee)", vec!["ann@x.example"]),
        ("ann(not@this)@x.example", "(not@this)", vec!["ann@x.example"]),
        ("Ann (home) <ann@x.example>", "Ann (home)", vec!["ann@x.example"]),
        ("staff: ann@x.example;", "staff", vec!["ann@x.example"]),
        ("nobody:;", "nobody", vec![]),
        ("Bob <bob@good.example> <eve@bad.example>", "Bob", vec!["bob@good.example", "eve@bad.example"]),
        ("=?utf-8?Q?Zo=C3=AB?= =?utf-8?B?IExlZQ==?= <z@x.example>", "Zoë Lee", vec!["z@x.example"]),
        ("\"=?utf-8?Q?a=22_b=40c?=\" <z@x.example>", "a\" b@c", vec!["z@x.example"]),
    ] {
        let found = all(value);
        assert_eq!(found.len(), 1, "{found:?}");
        let texts: Vec<_> = found[0].mailboxes.iter().map(|mailbox| mailbox.text.as_str()).collect();
        assert_eq!((found[0].name.as_str(), texts), (name, addresses), "{value}");
    }
    assert_eq!(all("a@x.example, B <b@y.example>").len(), 2);
    assert!(all(" ").is_empty());
}

#[test]
fn no_more_mailboxes_are_read_than_wanted() {
    let value = format!("{}, last:;", ["Ann <a@b.example> <c@d.example>"; 10].join(", "));
    for most in [0, 1, 2, 3, 19] {
        let found = entries(&value, most);
        assert_eq!(found.iter().map(|entry| entry.mailboxes.len()).sum::<usize>(), most);
    }
    assert_eq!(entries(&value, 21).last().unwrap().name, "last");
}

/// Each would take minutes or all memory if it were searched again and again, recursed into, or multiplied.
#[test]
fn hostile_values_are_read_in_time() {
    let size = 1 << 20;
    let many = |text: &str| text.repeat(size / text.len());
    for (value, most, found) in [
        (many("<a@b.example>"), 10_000, 10_000),
        (format!("{} {}", "n".repeat(size / 2), "<a@b>".repeat(size / 10)), usize::MAX, size / 10),
        (many("a@b,"), 1_000, 1_000),
        (many("<"), usize::MAX, 0),
        (many(","), usize::MAX, 0),
        (many("("), usize::MAX, 0),
        (many("\""), usize::MAX, 0),
        (many("\\\""), usize::MAX, 0),
        (many("\"("), usize::MAX, 0),
        (many("@"), usize::MAX, 1),
        (many(":"), usize::MAX, 0),
        (many("=?utf-8?q?x?= "), usize::MAX, 0),
        (many("=?aa?q?"), usize::MAX, 0),
        (format!("{}{} a@b", "(".repeat(10_000), ")".repeat(10_000)), usize::MAX, 1),
        (format!("{}{}x{} a@b", "\"", "(".repeat(10_000), ")".repeat(10_000)), usize::MAX, 1),
    ] {
        let mailboxes: usize = entries(&value, most).iter().map(|entry| entry.mailboxes.len()).sum();
        assert_eq!(mailboxes, found, "{}", &value[..20]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn places_are_in_order_and_hold_an_address(value in "([a-c@.é]|[<>(),:;\"\\\\ \t]|=[?]){0,40}") {
        let mut end = 0;
        for mailbox in all(&value).into_iter().flat_map(|entry| entry.mailboxes) {
            prop_assert!(end <= mailbox.range.start && mailbox.range.start < mailbox.range.end);
            prop_assert!(value[mailbox.range.clone()].contains('@'));
            prop_assert!(mailbox.text.ends_with(&mailbox.domain));
            end = mailbox.range.end;
        }
    }
}
