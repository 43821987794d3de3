//! What the host reads for the plugin: mailboxes, encoded words, registered domains, skeletons, as facts.

use pintle_plugin_sdk::bindings::services::pintle::plugin::{
    mailboxes as host_mailboxes, names as host_names,
};
use pintle_plugin_sdk::mailboxes::{self, MailboxEntry};
use pintle_plugin_sdk::{HostError, message, names, session, transaction};

/// Performs the reading of this name.
pub(crate) fn read(what: &str) -> Result<(), HostError> {
    match what {
        "mailboxes" => tell_mailboxes(),
        "mailbox-count" => tell_count(),
        "no-header" => {
            session::set_fact("header", &format!("{:?}", mailboxes::in_headers(&["From".to_owned()])))
        }
        "too-many-texts" => tell_refusals(),
        "domains" => tell_domains(),
        "domains-in-configure" => {
            let domains = names::registered_domains(&["mail.example.co.uk".to_owned()])?;
            assert_eq!(domains, [Some("example.co.uk".to_owned())]);
            assert_eq!(mailboxes::in_text("a@b.example")?.len(), 1);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// One step of work for the host, for acts that spend the whole budget.
pub(crate) fn work(what: &str) -> Result<(), HostError> {
    match what {
        "mailboxes" => mailboxes::in_text(&"Ann <a@b.example>, ".repeat(3_000)).map(drop),
        "words" => mailboxes::decode_words(&["=?utf-8?q?x?= ".repeat(10_000)]).map(drop),
        "domains" => names::registered_domains(&vec!["a.b.example".to_owned(); 10_000]).map(drop),
        "labels" => names::to_unicode(&vec!["xn--bcher-kva.example".to_owned(); 10_000]).map(drop),
        _ => names::skeletons(&["\u{fdfa}".repeat(20_000)]).map(drop),
    }
}

fn tell_mailboxes() -> Result<(), HostError> {
    let named = ["from".to_owned(), "REPLY-TO".to_owned()];
    let (fields, entries) = (message::headers_named(&named)?, mailboxes::in_headers(&named)?);
    let value = |entry: &MailboxEntry| {
        let field = fields.iter().find(|field| field.index == entry.field);
        field.map(|field| field.value.as_str()).unwrap_or_default()
    };
    let lines: Vec<String> = entries.iter().map(|entry| line(entry, value(entry))).collect();
    transaction::set_fact("mailboxes", &lines.join("\n"))?;
    let text = "(x) <A@Mail.B\u{fc}cher.Example>";
    let lines: Vec<String> = mailboxes::in_text(text)?.iter().map(|entry| line(entry, text)).collect();
    transaction::set_fact("text", &lines.join("\n"))?;
    let decoded = mailboxes::decode_words(&["=?utf-8?q?a=00?=".to_owned(), "plain".to_owned()])?;
    transaction::set_fact("decoded", &format!("{decoded:?}"))
}

/// The field, both names, and each mailbox with the text at its place in the value.
fn line(entry: &MailboxEntry, value: &str) -> String {
    let mut line = format!("{} {:?} {:?}", entry.field, entry.name, entry.encoded_name);
    for mailbox in &entry.mailboxes {
        let (place, address) = (&value[mailbox.range()], &mailbox.address);
        line += &format!(
            " [{place}|{}|{}|{}|{}]",
            address.text, address.local, address.domain, address.domain_shown
        );
    }
    line
}

fn tell_count() -> Result<(), HostError> {
    let found = mailboxes::in_headers(&["From".to_owned()]);
    let count = found.map(|entries| entries.iter().map(|entry| entry.mailboxes.len()).sum::<usize>());
    transaction::set_fact("count", &format!("{count:?}"))
}

/// Asks for more than the host takes in one call, without the batches of the SDK.
fn tell_refusals() -> Result<(), HostError> {
    let texts = vec!["a".to_owned(); 10_001];
    let refused = [
        host_mailboxes::decode_words(&texts).err(),
        host_names::registered_domains(&texts).err(),
        host_names::to_unicode(&texts).err(),
        host_names::skeletons(&texts).err(),
        mailboxes::in_text(&"a@b,".repeat(10_001)).err(),
    ];
    transaction::set_fact("refused", &refused.map(|error| format!("{error:?}")).join("\n"))?;
    assert_eq!(names::skeletons(&texts)?.len(), texts.len());
    assert_eq!(mailboxes::in_text(&"a@b,".repeat(10_000))?.len(), 10_000);
    Ok(())
}

fn tell_domains() -> Result<(), HostError> {
    let domains = ["A.mail.Example.co.uk.", "github.io", "[192.0.2.1]", "a.b\u{fc}cher.example", "a b"];
    let domains = domains.map(str::to_owned);
    transaction::set_fact("registered", &format!("{:?}", names::registered_domains(&domains)?))?;
    let long = format!("{}.example", "\u{fc}.".repeat(1_000));
    assert_eq!(names::registered_domains(std::slice::from_ref(&long))?, [None]);
    assert_eq!(names::to_unicode(std::slice::from_ref(&long))?, [long]);
    let ascii = ["Xn--Bcher-Kva.example".to_owned(), "Evil\u{ff20}ours".to_owned()];
    transaction::set_fact("unicode", &format!("{:?}", names::to_unicode(&ascii)?))?;
    let skeletons = names::skeletons(&["paypal", "p\u{430}ypal", "hours"].map(str::to_owned))?;
    let alike = (skeletons[0] == skeletons[1], skeletons[0] == skeletons[2]);
    transaction::set_fact("alike", &format!("{alike:?}"))
}
