//! Recipients of one message with fates and groups of their own.

use std::sync::{Arc, Mutex};

use pintle_inbound::{Boundless, RefusedRecipients, TlsMode};
use pintle_mail::{Address, Charset, EnhancedCode, Reply};
use pintle_policy::{Edit, Fate, Hook, Judge, Ruling, Verdict};
use pintle_spool::Health;
use pintle_testkit::Client;

use crate::gate::*;

const THREE: [&str; 3] = ["a@ours.example", "b@ours.example", "c@ours.example"];

fn gate_of(requests: Vec<Edit>, setting: RefusedRecipients) -> Gate {
    let judges = vec![edits(Hook::Message, requests)];
    gate_under(listener(TlsMode::None), judges, Arc::new(Boundless), |rules| {
        rules.refused_recipients = setting;
    })
}

#[tokio::test]
async fn recipients_with_different_fates_get_copies_of_their_own() {
    let requests = vec![hold(Hook::Message, &[0], "spam"), discard(&[1])];
    let gate = gate_of(requests, RefusedRecipients::default());
    let mut client = gate.client().await;
    client.hello("client.example").await;
    let queued = client.deliver("s@x.example", &THREE, MESSAGE).await;
    let stored = gate.stored().await;
    let of =
        |name: &str| stored.iter().find(|(_, recipients)| *recipients == [name]).map(|(stored, _)| stored);
    let (held, delivered) = (of("a").unwrap(), of("c").unwrap());
    assert_eq!(stored.len(), 2);
    assert!(delivered.entry.hold.is_none() && held.entry.hold.is_some());
    assert!(
        queued.text().contains(&delivered.id.to_string()),
        "the client hears of the copy that is delivered"
    );
    for stored in [held, delivered] {
        let head = String::from_utf8(stored.head.to_vec()).unwrap().replace("\r\n ", " ");
        assert!(head.contains(&format!("id {}", stored.id)), "each copy is traced under its own id: {head}");
        let body = stored.body.read(0, 1 << 20).await.unwrap();
        assert_eq!(&body[..], b"first\r\n..dots\r\n");
    }
    assert_eq!(gate.events(), ["plugin-verdict", "reception", "hold", "reception", "discard"]);
}

#[tokio::test]
async fn the_operator_decides_about_refused_recipients_of_a_client_that_cannot_be_told() {
    for (setting, is_trusted, stored) in [
        (RefusedRecipients::Quarantine, true, vec!["b", "ac"]),
        (RefusedRecipients::Report, true, vec!["acb"]),
        (RefusedRecipients::Report, false, vec!["b", "ac"]),
        (RefusedRecipients::Discard, true, vec!["ac"]),
    ] {
        let judges = vec![edits(Hook::Message, vec![refuse(&[1])])];
        let trusted = if is_trusted { vec!["127.0.0.0/8".parse().unwrap()] } else { Vec::new() };
        let listener = pintle_inbound::ListenerConfig { trusted, ..listener(TlsMode::None) };
        let gate = gate_under(listener, judges, Arc::new(Boundless), |rules| {
            rules.refused_recipients = setting;
        });
        let mut client = gate.client().await;
        client.hello("client.example").await;
        client.deliver("s@x.example", &THREE, MESSAGE).await;
        let mut found: Vec<_> = gate.stored().await.into_iter().map(|(_, all)| all.concat()).collect();
        found.sort_by_key(String::len);
        assert_eq!(found, stored, "{setting:?}");
    }
}

/// A report to a null reverse-path would be lost without a trace.
#[tokio::test]
async fn refused_recipients_of_a_bounce_are_held_where_others_would_be_reported() {
    let gate = gate_of(vec![refuse(&[1])], RefusedRecipients::Report);
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.deliver("", &THREE, MESSAGE).await;
    assert_eq!(gate.stored().await.len(), 2);
}

#[tokio::test]
async fn a_client_that_speaks_prdr_hears_of_each_recipient() {
    let gate = gate_of(vec![refuse(&[1])], RefusedRecipients::default());
    let mut client = prdr_client(&gate, &THREE).await;
    client.expect(353).await;
    client.expect(250).await;
    assert!(client.expect(550).await.text().contains("not for me"));
    client.expect(250).await;
    client.expect(250).await;
    let (stored, ..) = gate.only().await.unwrap();
    let kept: Vec<_> = stored.entry.envelope.recipients.iter().map(|r| r.id).collect();
    assert_eq!(kept, [0, 2]);
    assert_eq!(gate.events(), ["plugin-verdict", "reception", "rejection"]);
}

#[tokio::test]
async fn a_message_that_all_recipients_refuse_is_refused() {
    for mail in ["MAIL FROM:<s@x.example> PRDR", "MAIL FROM:<s@x.example>"] {
        let gate = gate_of(vec![refuse(&[0])], RefusedRecipients::default());
        let mut client = gate.client().await;
        client.hello("client.example").await;
        client.ask(mail, 250).await;
        client.ask("RCPT TO:<a@ours.example>", 250).await;
        client.ask("DATA", 354).await;
        client.send_data(MESSAGE).await;
        client.expect(550).await;
        assert!(gate.only().await.is_none());
    }
}

/// Begins a message with a reply for each recipient, and returns the client at the end of the data.
async fn prdr_client(gate: &Gate, recipients: &[&str]) -> Client {
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.ask("MAIL FROM:<s@x.example> PRDR", 250).await;
    for recipient in recipients {
        client.ask(&format!("RCPT TO:<{recipient}>"), 250).await;
    }
    client.ask("DATA", 354).await;
    client.send_data(MESSAGE).await;
    client
}

/// The first id that the plugin host gives to a recipient that a plugin adds.
const ADDED: u32 = 1 << 31;

fn add(id: u32, local: &str) -> Edit {
    let address = Address::parse(&format!("{local}@ours.example"), Charset::Ascii).unwrap();
    Edit::AddRecipient(id, address)
}

/// Otherwise the copy for the archive would be committed, and each attempt of the client would add another one.
#[tokio::test]
async fn a_message_whose_named_recipients_are_all_refused_is_refused_before_a_commit() {
    for mail in ["MAIL FROM:<s@x.example> PRDR", "MAIL FROM:<s@x.example>"] {
        let requests = vec![add(ADDED, "archive"), refuse(&[0])];
        let gate = gate_of(requests, RefusedRecipients::default());
        let mut client = gate.client().await;
        client.hello("client.example").await;
        client.ask(mail, 250).await;
        client.ask("RCPT TO:<a@ours.example>", 250).await;
        client.ask("DATA", 354).await;
        client.send_data(MESSAGE).await;
        client.expect(550).await;
        client.ask("NOOP", 250).await;
        assert!(gate.only().await.is_none());
        assert_eq!(gate.events(), ["plugin-verdict", "rejection"]);
    }
}

/// The local parts of the recipients of each stored message, and whether it is held, in alphabetical order.
async fn kept(gate: &Gate) -> Vec<(String, bool)> {
    let stored = gate.stored().await.into_iter();
    let mut kept: Vec<_> = stored.map(|(stored, all)| (all.concat(), stored.entry.hold.is_some())).collect();
    kept.sort();
    kept
}

#[tokio::test]
async fn no_reply_is_about_a_refused_recipient_that_a_plugin_has_added() {
    let alias = || vec![Edit::RemoveRecipient(0), add(ADDED, "x"), add(ADDED + 1, "y"), refuse(&[ADDED + 1])];
    let gate = gate_of(alias(), RefusedRecipients::default());
    let mut client = prdr_client(&gate, &["a@ours.example"]).await;
    client.expect(250).await;
    client.ask("NOOP", 250).await;
    assert_eq!(kept(&gate).await, [("x".to_owned(), false), ("y".to_owned(), true)]);

    let requests = [alias(), vec![refuse(&[1])]].concat();
    let gate = gate_of(requests, RefusedRecipients::default());
    let mut client = prdr_client(&gate, &["a@ours.example", "b@ours.example"]).await;
    for code in [353, 250, 550, 250] {
        client.expect(code).await;
    }
    client.ask("NOOP", 250).await;
    assert_eq!(kept(&gate).await, [("x".to_owned(), false), ("y".to_owned(), true)]);
}

#[tokio::test]
async fn a_client_that_speaks_prdr_hears_of_refused_recipients_of_a_dropped_message() {
    let gate = gate_of(vec![refuse(&[1]), discard(&[])], RefusedRecipients::default());
    let mut client = prdr_client(&gate, &THREE).await;
    for code in [353, 250, 550, 250, 250] {
        client.expect(code).await;
    }
    client.ask("NOOP", 250).await;
    assert!(gate.only().await.is_none());
    assert_eq!(gate.events(), ["plugin-verdict", "discard", "rejection"]);
}

/// The client gets one reply for two recipients, and must not give up the one who may still get the message.
#[tokio::test]
async fn a_temporary_refusal_does_not_become_a_permanent_one() {
    let later = Fate::Refuse(Reply::new(452, EnhancedCode(4, 2, 2), "mailbox full"));
    let later = Edit::Fate { recipients: vec![1], fate: later, hook: Hook::Message };
    let gate = gate_of(vec![refuse(&[0, 2]), later], RefusedRecipients::default());
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.envelope("s@x.example", &THREE).await;
    client.send_data(MESSAGE).await;
    assert!(client.expect(452).await.text().contains("mailbox full"));
    assert!(gate.only().await.is_none());
}

/// The client hears 452 and sends the message again; what is held already must be known to the operator.
#[tokio::test]
async fn a_held_copy_is_recorded_although_a_later_copy_cannot_be_stored() {
    let gate = gate_of(vec![hold(Hook::Message, &[0], "spam")], RefusedRecipients::default());
    let spool = Arc::clone(&gate.spool);
    let fill: OnRecord = Box::new(move |record| {
        if record.event() == "hold" {
            spool.set_health(Health::Full);
        }
    });
    assert!(gate.records.1.set(fill).is_ok());
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.envelope("s@x.example", &THREE).await;
    client.send_data(MESSAGE).await;
    client.expect(452).await;
    gate.spool.set_health(Health::Accepting);
    let (held, ..) = gate.only().await.unwrap();
    assert!(held.entry.hold.is_some());
    assert_eq!(gate.events(), ["plugin-verdict", "reception", "hold", "rejection"]);
}

/// A thousand recipients must not be copied a thousand times.
#[tokio::test]
async fn a_recipient_that_no_plugin_edits_costs_no_copy_of_the_transaction() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let judge = {
        let seen = Arc::clone(&seen);
        says(Hook::Rcpt, move |call, view| {
            let transaction = view.transaction.as_ref().unwrap();
            seen.lock()
                .unwrap()
                .push((Arc::as_ptr(transaction) as usize, transaction.envelope.recipients.len()));
            if call.recipient() == Some(2) { Verdict::Reject(None).into() } else { Verdict::Next.into() }
        })
    };
    let gate = gate_under(listener(TlsMode::None), vec![judge], Arc::new(Boundless), |_| {});
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.ask("MAIL FROM:<s@x.example>", 250).await;
    for (at, code) in [250, 250, 550, 250].into_iter().enumerate() {
        client.ask(&format!("RCPT TO:<r{at}@ours.example>"), code).await;
    }
    let seen = seen.lock().unwrap();
    let first = seen[0].0;
    assert_eq!(*seen, [1, 2, 3, 3].map(|count| (first, count)));
}

fn grouping(judge: impl Fn(&str) -> &'static str + Send + Sync + 'static) -> Arc<dyn Judge> {
    says(Hook::Rcpt, move |call, view| {
        let id = call.recipient().unwrap();
        let recipient = view.transaction.as_ref().unwrap().recipient(id).unwrap();
        let edits = vec![Edit::Group(id, judge(&recipient.address.local()).to_owned())];
        Ruling { verdict: Verdict::Next, edits, fault: None }
    })
}

#[tokio::test]
async fn recipients_that_plugins_add_belong_to_no_group_of_the_client() {
    let added = edits(Hook::Mail, vec![add(ADDED, "archive")]);
    let judges = vec![added, grouping(|_| "lax")];
    let gate = gate_under(listener(TlsMode::None), judges, Arc::new(Boundless), |rules| {
        rules.one_group_per_transaction = true;
    });
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.deliver("s@x.example", &THREE, MESSAGE).await;
    let (stored, ..) = gate.only().await.unwrap();
    assert_eq!(stored.entry.envelope.recipients.len(), 4);
}

/// The limit is for clients that guess addresses.
#[tokio::test]
async fn recipients_of_other_groups_do_not_count_as_refused() {
    let judges = vec![grouping(|local| if local == "a" { "lax" } else { "strict" })];
    let gate = gate_under(listener(TlsMode::None), judges, Arc::new(Boundless), |rules| {
        rules.one_group_per_transaction = true;
        rules.max_refusals = 2;
    });
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.ask("MAIL FROM:<s@x.example>", 250).await;
    client.ask("RCPT TO:<a@ours.example>", 250).await;
    for _ in 0..4 {
        client.ask("RCPT TO:<b@ours.example>", 452).await;
    }
    client.ask("RCPT TO:<a@elsewhere.example>", 550).await;
    client.ask("RCPT TO:<a@elsewhere.example>", 421).await;
}

#[tokio::test]
async fn a_transaction_has_recipients_of_one_kind_if_the_operator_wants_it() {
    for one_group in [false, true] {
        let group = grouping(|local| if local == "b" { "strict" } else { "lax" });
        let gate = gate_under(listener(TlsMode::None), vec![group], Arc::new(Boundless), |rules| {
            rules.one_group_per_transaction = one_group;
        });
        let mut client = gate.client().await;
        client.hello("client.example").await;
        client.ask("MAIL FROM:<s@x.example>", 250).await;
        client.ask("RCPT TO:<a@ours.example>", 250).await;
        let second = client.ask("RCPT TO:<b@ours.example>", if one_group { 452 } else { 250 }).await;
        assert_eq!(second.text().contains("4.5.3"), one_group);
        client.ask("RCPT TO:<c@ours.example>", 250).await;
        client.ask("DATA", 354).await;
        client.send_data(MESSAGE).await;
        client.expect(250).await;
        let (stored, ..) = gate.only().await.unwrap();
        assert_eq!(stored.entry.envelope.recipients.len(), if one_group { 2 } else { 3 });
    }
}

/// What was found out about a recipient that is refused does not concern the message for the others.
#[tokio::test]
async fn points_and_facts_of_a_refused_recipient_do_not_count() {
    let judge = says(Hook::Rcpt, |call, view| {
        let id = call.recipient().unwrap();
        let recipient = view.transaction.as_ref().unwrap().recipient(id).unwrap();
        let is_bad = recipient.address.local() == "b";
        let edits = vec![
            Edit::Score("trap".to_owned(), if is_bad { 100.0 } else { 1.0 }),
            Edit::Fact(format!("test.{}", recipient.address.local()), "seen".to_owned()),
            Edit::SessionFact("test.session".to_owned(), "seen".to_owned()),
        ];
        Ruling { verdict: if is_bad { Verdict::Reject(None) } else { Verdict::Next }, edits, fault: None }
    });
    let gate = gate_under(listener(TlsMode::None), vec![judge], Arc::new(Boundless), |rules| {
        rules.reject_score = Some(50.0);
    });
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.ask("MAIL FROM:<s@x.example>", 250).await;
    client.ask("RCPT TO:<a@ours.example>", 250).await;
    client.ask("RCPT TO:<b@ours.example>", 550).await;
    client.ask("DATA", 354).await;
    client.send_data(MESSAGE).await;
    client.expect(250).await;
    let (stored, ..) = gate.only().await.unwrap();
    let context = String::from_utf8(stored.entry.context.to_vec()).unwrap();
    assert!(context.contains("test.a") && !context.contains("test.b"), "{context}");
    assert!(context.contains("test.session"), "the session's facts stay");
}
