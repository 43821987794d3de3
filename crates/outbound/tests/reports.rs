//! Bounces, delay warnings and success reports (DSN): which are sent, and which are not.

#![allow(clippy::unwrap_used, reason = "what is not there fails the test, and the place is told")]

mod common;

use common::{HOUR, MINUTE, TestMessage, World, message_to, nobody, recipient, relay, to_relay, with_relay};
use mail_parser::{MessageParser, MimeHeaders};
use pintle_mail::{Charset, Notify, Return, ReversePath};
use pintle_outbound::{Config, Endpoint, Protocol, Relay, Route, Select};
use pintle_record::{Record, ReportKind, Unreported};
use pintle_testkit::{Script, Sink, SinkStep, SinkTransaction, StaticResolver};

/// Mail goes to one sink, reports to the other.
async fn two_ways(script: Script) -> (Sink, Sink, Config) {
    let (next, home) = (Sink::start(script).await, Sink::start(Script::new()).await);
    let mut config = to_relay(&[next.address()]);
    config.relays.insert("home".into(), relay(&[home.address()]));
    config.routes.add("sender.example", Route::Relay("home".into()));
    (next, home, config)
}

fn no_such_user() -> Script {
    Script::new().reply(SinkStep::Rcpt, "550 5.1.1 no such user")
}

/// The parts of a report: its text, its fields, and what is returned with its type.
struct Parsed {
    text: String,
    fields: String,
    returned_type: String,
    returned: String,
}

fn parse(transaction: &SinkTransaction) -> Parsed {
    let message = MessageParser::default().parse(&transaction.message).expect("a message");
    let root = message.content_type().expect("a type");
    assert_eq!((root.ctype(), root.subtype()), ("multipart", Some("report")));
    assert_eq!(root.attribute("report-type"), Some("delivery-status"));
    assert_eq!(message.header_raw("Auto-Submitted").map(str::trim), Some("auto-replied"));
    let to = format!("<{}>", transaction.recipients()[0]);
    assert_eq!(message.header_raw("To").map(str::trim), Some(to.as_str()));
    let raw = |at: usize| {
        let part = &message.parts[at];
        let (from, to) = (part.raw_body_offset() as usize, part.raw_end_offset() as usize);
        String::from_utf8(transaction.message[from..to].to_vec()).unwrap()
    };
    let kind = |at: usize| {
        let kind = message.parts[at].content_type().expect("a type");
        format!("{}/{}", kind.ctype(), kind.subtype().unwrap_or_default())
    };
    assert!(kind(1).starts_with("text/plain"), "{}", kind(1));
    Parsed { text: raw(1), fields: raw(2), returned_type: kind(3), returned: raw(3) }
}

#[tokio::test]
async fn a_failure_is_reported_to_the_sender() {
    let (_next, home, config) = two_ways(no_such_user()).await;
    let world = World::start(config, StaticResolver::new());
    let mut mail = message_to(&["bob@example.net"]);
    mail.params.envid = Some("Envelope+2B1".into());
    mail.recipients[0].params.orcpt = Some("rfc822;Bobby@example.net".into());
    let text = mail.text();
    let id = world.commit(mail).await;

    let report = home.wait_for(1).await.remove(0);
    assert_eq!(report.sender.address, "", "a report has the null reverse-path");
    assert_eq!(report.recipients(), ["anna@sender.example"]);
    assert_eq!(report.recipients[0].param("NOTIFY"), Some("NEVER"));
    let parsed = parse(&report);
    assert!(parsed.text.contains("<bob@example.net>"), "{}", parsed.text);
    assert!(parsed.text.contains("[127.0.0.1] said: 550 5.1.1 no such user"), "{}", parsed.text);
    assert!(parsed.text.contains(&id.to_string()));
    for field in [
        "Original-Envelope-Id: Envelope+1",
        "Reporting-MTA: dns; gate.example.org",
        "Arrival-Date: Sun, 22 Nov 2026 03:10:00 +0000",
        "Original-Recipient: rfc822; Bobby@example.net",
        "Final-Recipient: rfc822; bob@example.net",
        "Action: failed",
        "Status: 5.1.1",
        "Remote-MTA: dns; [127.0.0.1]",
        "Diagnostic-Code: smtp; 550 5.1.1 no such user",
    ] {
        assert!(parsed.fields.lines().any(|line| line == field), "{field} in {}", parsed.fields);
    }
    assert_eq!(parsed.returned_type, "message/rfc822");
    assert_eq!(parsed.returned.trim_end(), text.trim_end());
    world.empty().await;

    let Record::Bounce(bounce) = world.log.wait_for("bounce", 1).await.remove(0) else { unreachable!() };
    let Record::Report(told) = world.log.wait_for("report", 1).await.remove(0) else { unreachable!() };
    assert_eq!((told.about, told.kind), (id, ReportKind::Failure));
    assert_eq!((bounce.report, bounce.unreported), (Some(told.id), None));
    home.assert_no_violations();
}

/// RFC 3461 section 4.3, and our own limit.
#[tokio::test]
async fn only_the_header_comes_back_when_asked_so_or_when_the_message_is_large() {
    let (_next, home, mut config) = two_ways(no_such_user()).await;
    config.reports.return_limit = 2_000;
    let world = World::start(config, StaticResolver::new());
    let mut asked = message_to(&["bob@example.net"]);
    asked.params.ret = Some(Return::Headers);
    let mut large = message_to(&["bob@example.net"]);
    large.params.ret = Some(Return::Full);
    large.body = "many lines\r\n".repeat(1_000);
    for (number, mail) in [asked, large].into_iter().enumerate() {
        let head = mail.head;
        world.commit(mail).await;
        let parsed = parse(&home.wait_for(number + 1).await[number]);
        assert_eq!(parsed.returned_type, "text/rfc822-headers");
        assert_eq!(parsed.returned.trim_end(), head.trim_end());
    }
}

/// RFC 5321 section 4.5.3.1.6: who refuses a line for its length would refuse a report that returns it.
#[tokio::test]
async fn a_line_that_is_too_long_does_not_come_back() {
    let (_next, home, config) = two_ways(no_such_user()).await;
    let world = World::start(config, StaticResolver::new());
    let mut mail = message_to(&["bob@example.net"]);
    mail.body = format!("{}\r\n", "x".repeat(999));
    let head = mail.head;
    world.commit(mail).await;
    let parsed = parse(&home.wait_for(1).await[0]);
    assert_eq!(parsed.returned_type, "text/rfc822-headers");
    assert_eq!(parsed.returned.trim_end(), head.trim_end());
}

/// RFC 8689 section 5: the report asks for what the message asked for, and says no more of it than it must.
#[tokio::test]
async fn a_report_on_mail_that_requires_tls_requires_it_too() {
    let (_next, home, mut config) = two_ways(Script::new()).await;
    config.routes.add("sender.example", Route::Relay("nowhere.invalid".into()));
    let world = World::start(config, StaticResolver::new());
    let mut mail = message_to(&["bob@example.net"]);
    (mail.params.require_tls, mail.params.ret) = (true, Some(Return::Full));
    // The next hop offers no TLS, so the message fails where it stands; the report stays for want of its own next hop.
    let id = world.commit(mail).await;
    world.handle.bounce(Select::Ids(vec![id]), "given up").await.unwrap();
    let Record::Report(told) = world.log.wait_for("report", 1).await.remove(0) else { unreachable!() };
    let report = world.handle.show(told.id).await.unwrap();
    assert!(report.entry.envelope.params.require_tls);
    let body = report.body.read(0, 1 << 20).await.unwrap();
    let body = String::from_utf8(body.to_vec()).unwrap();
    assert!(body.contains("Content-Type: text/rfc822-headers"), "{body}");
    assert!(home.log().transactions.is_empty());
}

/// A whole queue may reach its maximum age in one moment; every sender gets a report, though not all at once.
#[tokio::test]
async fn a_hundred_messages_expire_together() {
    let (_next, home, config) = two_ways(Script::new().reply(SinkStep::Rcpt, "450 4.2.1 not yet")).await;
    let world = World::start(config, StaticResolver::new());
    for _ in 0..100 {
        world.mail(&["bob@example.net"]).await;
    }
    world.log.wait_for("deferral", 100).await;
    world.calm().await;
    world.clock.advance(5 * 24 * HOUR + MINUTE);
    world.log.wait_for("expiration", 100).await;
    home.wait_for(100).await;
    world.empty().await;
}

#[tokio::test]
async fn several_failures_of_one_attempt_make_one_report() {
    let (_next, home, config) = two_ways(no_such_user()).await;
    let world = World::start(config, StaticResolver::new());
    world.mail(&["bob@example.net", "carl@example.net"]).await;
    let fields = parse(&home.wait_for(1).await[0]).fields;
    assert_eq!(fields.matches("Action: failed").count(), 2, "{fields}");
    world.empty().await;
    assert_eq!(world.log.count("report"), 1);
}

/// Law 4.
#[tokio::test]
async fn a_null_sender_begets_no_report() {
    let (_next, home, config) = two_ways(no_such_user()).await;
    let world = World::start(config, StaticResolver::new());
    let mut mail = message_to(&["bob@example.net"]);
    mail.sender = ReversePath::Null;
    world.commit(mail).await;
    let Record::Bounce(bounce) = world.log.wait_for("bounce", 1).await.remove(0) else { unreachable!() };
    assert_eq!((bounce.report, bounce.unreported), (None, Some(Unreported::NullSender)));
    world.empty().await;
    world.calm().await;
    assert_eq!((world.log.count("report"), home.log().transactions.len()), (0, 0));
}

/// A report that cannot be delivered ends there.
#[tokio::test]
async fn a_report_is_never_reported_on() {
    let sink = Sink::start(no_such_user()).await;
    let world = World::start(to_relay(&[sink.address()]), StaticResolver::new());
    world.mail(&["bob@example.net"]).await;
    world.log.wait_for("bounce", 2).await;
    world.empty().await;
    world.calm().await;
    assert_eq!(world.log.count("report"), 1);
}

fn asking(notify: Notify) -> TestMessage {
    let mut mail = message_to(&["bob@example.net"]);
    mail.recipients[0].params.notify = Some(notify);
    mail
}

const SUCCESS: Notify = Notify { success: true, failure: false, delay: false };

#[tokio::test]
async fn who_asked_for_no_report_gets_none() {
    for notify in [Notify::NEVER, SUCCESS] {
        let (_next, home, config) = two_ways(no_such_user()).await;
        let world = World::start(config, StaticResolver::new());
        world.commit(asking(notify)).await;
        let Record::Bounce(bounce) = world.log.wait_for("bounce", 1).await.remove(0) else { unreachable!() };
        assert_eq!(bounce.unreported, Some(Unreported::NotWanted));
        world.empty().await;
        assert_eq!(home.log().transactions.len(), 0);
    }
}

/// RFC 3461 section 5.2.2: a next hop that offers DSN takes the wish over.
#[tokio::test]
async fn a_next_hop_with_dsn_reports_success_itself() {
    let (next, home, config) = two_ways(Script::new()).await;
    let world = World::start(config, StaticResolver::new());
    world.commit(asking(SUCCESS)).await;
    assert_eq!(next.wait_for(1).await[0].recipients[0].param("NOTIFY"), Some("SUCCESS"));
    world.empty().await;
    assert_eq!(home.log().transactions.len(), 0);
}

/// RFC 3461 section 6.1: without DSN there the chain ends with us.
#[tokio::test]
async fn success_is_reported_where_the_next_hop_will_not() {
    let (next, home, config) = two_ways(Script::new().hide("DSN")).await;
    let world = World::start(config, StaticResolver::new());
    world.commit(asking(SUCCESS)).await;
    next.wait_for(1).await;
    let parsed = parse(&home.wait_for(1).await[0]);
    assert!(parsed.fields.contains("Action: relayed\r\nStatus: 2."), "{}", parsed.fields);
    assert_eq!(parsed.returned_type, "text/rfc822-headers");
}

#[tokio::test]
async fn lmtp_is_the_last_stop_and_reported_as_delivered() {
    let (store, home) = (Sink::start(Script::new().lmtp()).await, Sink::start(Script::new()).await);
    let mut lmtp = relay(&[store.address()]);
    lmtp.protocol = Protocol::Lmtp;
    let mut config = with_relay(lmtp);
    config.relays.insert("home".into(), relay(&[home.address()]));
    config.routes.add("sender.example", Route::Relay("home".into()));
    let world = World::start(config, StaticResolver::new());
    world.commit(asking(SUCCESS)).await;
    let parsed = parse(&home.wait_for(1).await[0]);
    assert!(parsed.fields.contains("Action: delivered\r\n"), "{}", parsed.fields);
}

#[tokio::test]
async fn a_delay_is_told_once_and_the_end_at_last() {
    let (_next, home, config) = two_ways(Script::new().reply(SinkStep::Rcpt, "450 4.2.1 not yet")).await;
    let world = World::start(config, StaticResolver::new());
    let id = world.mail(&["bob@example.net"]).await;
    let mut deferrals = 1;
    world.log.wait_for("deferral", deferrals).await;
    world.calm().await;
    world.clock.advance(4 * HOUR);
    let warning = parse(&home.wait_for(1).await[0]);
    assert!(warning.text.contains("has not been delivered yet"), "{}", warning.text);
    assert!(warning.fields.contains("Action: delayed\r\nStatus: 4.2.1\r\n"), "{}", warning.fields);
    assert!(warning.fields.contains("Remote-MTA: dns; [127.0.0.1]\r\n"), "{}", warning.fields);
    assert!(warning.fields.contains("Last-Attempt-Date: Sun, 22 Nov 2026 03:10:00 +0000\r\n"));
    assert!(warning.text.contains("[127.0.0.1] said: 450"), "{}", warning.text);
    assert!(warning.fields.contains("Will-Retry-Until: Fri, 27 Nov 2026 03:10:00 +0000\r\n"));
    assert_eq!(warning.returned_type, "text/rfc822-headers");

    for _ in 0..3 {
        deferrals += 1;
        world.log.wait_for("deferral", deferrals).await;
        world.calm().await;
        world.clock.advance(3 * HOUR);
    }
    assert!(world.handle.show(id).await.is_ok());
    world.clock.advance(5 * 24 * HOUR);
    let expiration = world.log.wait_for("expiration", 1).await.remove(0);
    let Record::Expiration(expiration) = expiration else { unreachable!() };
    assert_eq!(expiration.reply.map(|reply| reply.code), Some(450));
    let reports = home.wait_for(2).await;
    let end = parse(&reports[1]);
    assert!(end.text.contains("could not be delivered in time"), "{}", end.text);
    assert!(end.fields.contains("Action: failed\r\nStatus: 5.2.1\r\n"), "{}", end.fields);
    assert!(end.fields.contains("Remote-MTA: dns; [127.0.0.1]\r\n"), "{}", end.fields);
    assert!(end.fields.contains("Last-Attempt-Date: Sun, 22 Nov 2026 "), "{}", end.fields);
    world.empty().await;
    assert_eq!(world.log.count("report"), 2, "one warning, one failure");
}

/// RFC 3464 section 2.3.6: a diagnostic code is what the other side said. Who was never reached said nothing.
#[tokio::test]
async fn no_words_are_put_into_the_mouth_of_a_next_hop_that_was_never_reached() {
    let home = Sink::start(Script::new()).await;
    let mut config = to_relay(&[nobody().await]);
    config.relays.insert("home".into(), relay(&[home.address()]));
    config.routes.add("sender.example", Route::Relay("home".into()));
    let world = World::start(config, StaticResolver::new());
    world.mail(&["bob@example.net"]).await;
    world.log.wait_for("deferral", 1).await;
    world.calm().await;
    world.clock.advance(4 * HOUR);
    home.wait_for(1).await;
    world.clock.advance(5 * 24 * HOUR);
    for (report, told) in home.wait_for(2).await.iter().zip(["", "The last failure: "]) {
        let report = parse(report);
        let text = report.text.replace("\r\n      ", " ");
        assert!(text.contains(told) && text.contains("cannot be reached"), "{text}");
        assert!(!text.contains("said"), "{text}");
        assert!(!report.fields.contains("Diagnostic-Code"), "{}", report.fields);
        assert!(report.fields.contains(".4.1\r\n"), "{}", report.fields);
    }
}

/// A path of this machine is nothing for senders to read.
#[tokio::test]
async fn the_path_of_a_socket_is_not_told() {
    let (_next, home, mut config) = two_ways(Script::new()).await;
    let path = "/nowhere/secret.sock";
    let store = Relay { protocol: Protocol::Lmtp, ..Relay::new(vec![Endpoint::Unix(path.into())]) };
    config.relays.insert("next".into(), store);
    let world = World::start(config, StaticResolver::new());
    world.mail(&["bob@example.net"]).await;
    let Record::Deferral(deferral) = world.log.wait_for("deferral", 1).await.remove(0) else {
        unreachable!()
    };
    assert_eq!(deferral.peer.host.as_deref(), Some(path), "the operator's log names it");
    world.calm().await;
    world.clock.advance(4 * HOUR);
    home.wait_for(1).await;
    world.clock.advance(5 * 24 * HOUR);
    for report in home.wait_for(2).await {
        let text = report.text().to_owned();
        assert!(text.contains("the local mail system") && !text.contains("secret"), "{text}");
    }
}

/// One message for two next hops is two jobs, and one thing to its sender.
#[tokio::test]
async fn jobs_that_grow_old_together_make_one_report() {
    let later = || Script::new().reply(SinkStep::Rcpt, "450 4.2.1 not yet");
    let (_next, home, mut config) = two_ways(later()).await;
    let other = Sink::start(later()).await;
    config.relays.insert("other".into(), relay(&[other.address()]));
    config.routes.add("example.com", Route::Relay("other".into()));
    let world = World::start(config, StaticResolver::new());
    world.mail(&["bob@example.net", "carl@example.com"]).await;
    world.log.wait_for("deferral", 2).await;
    world.calm().await;
    for (number, wait, action) in [(1, 4 * HOUR, "Action: delayed"), (2, 5 * 24 * HOUR, "Action: failed")] {
        world.clock.advance(wait);
        let fields = parse(&home.wait_for(number).await[number - 1]).fields;
        assert_eq!(fields.matches(action).count(), 2, "{fields}");
        world.calm().await;
    }
    world.empty().await;
    assert_eq!(world.log.count("report"), 2);
    let hops: Vec<String> = world
        .log
        .wait_for("expiration", 2)
        .await
        .into_iter()
        .map(|record| match record {
            Record::Expiration(expiration) => expiration.job.next_hop.to_string(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(hops[0].contains("next") && hops[1].contains("other"), "{hops:?}");
}

/// Commits a message with this hold.
async fn held(world: &World, hold: pintle_spool::HoldReason) -> pintle_mail::QueueId {
    let id = pintle_mail::QueueId::new(common::START, 99);
    let mut message = message_to(&["bob@example.net"]).message(id, common::START);
    message.entry.hold = Some(hold);
    world.outbound.spool().commit(message).await.unwrap();
    world.calm().await;
    assert_eq!(world.queue().await.held, 1);
    id
}

fn spam() -> pintle_spool::HoldReason {
    pintle_spool::HoldReason::Quarantine(pintle_spool::Quarantine::new("spam", common::START))
}

/// Law 9: the age counts in a state without attempts too.
#[tokio::test]
async fn held_mail_expires_and_its_sender_hears_of_it() {
    let (next, home, config) = two_ways(Script::new()).await;
    let world = World::start(config, StaticResolver::new());
    held(&world, pintle_spool::HoldReason::Operator("look".into())).await;
    world.clock.advance(5 * 24 * HOUR + MINUTE);
    world.log.wait_for("expiration", 1).await;
    world.empty().await;
    assert_eq!(world.log.count("report"), 1);
    assert_eq!(home.log().accepted().count(), 1);
    assert_eq!(next.log().transactions.len(), 0);
}

/// A report on what was taken for harmful would be backscatter; and five days are for a next hop, not for a person.
#[tokio::test]
async fn a_quarantine_ends_at_its_own_time_and_tells_nobody() {
    let (next, home, mut config) = two_ways(Script::new()).await;
    config.quarantine.names.insert("spam".into(), 7 * 24 * HOUR);
    let world = World::start(config.clone(), StaticResolver::new());
    held(&world, spam()).await;
    world.clock.advance(7 * 24 * HOUR - MINUTE);
    world.calm().await;
    assert_eq!(world.log.count("expiration"), 0, "max_age is for mail that may go");
    // The operator shortens the time: it counts for what lies there already.
    config.quarantine.names.insert("spam".into(), 6 * 24 * HOUR);
    world.handle.reload(config, common::no_verification());
    let Record::Expiration(expiration) = world.log.wait_for("expiration", 1).await.remove(0) else {
        unreachable!()
    };
    assert_eq!(expiration.quarantine.as_deref(), Some("spam"));
    assert_eq!(expiration.unreported, Some(Unreported::Suppressed));
    world.empty().await;
    world.calm().await;
    assert_eq!((world.log.count("report"), home.log().accepted().count()), (0, 0));
    assert_eq!(next.log().transactions.len(), 0);
    assert_eq!(world.queue().await.jobs, 0);
}

#[tokio::test]
async fn what_leaves_a_quarantine_late_has_all_the_time_of_other_mail() {
    let (next, home, config) = two_ways(Script::new().reply(SinkStep::Rcpt, "450 4.2.1 not yet")).await;
    let world = World::start(config, StaticResolver::new());
    let id = held(&world, spam()).await;
    world.clock.advance(20 * 24 * HOUR);
    let which = Select::Ids(vec![id]);
    world.handle.release_quarantined(which, None).await.unwrap();
    world.log.wait_for("deferral", 1).await;
    world.clock.advance(4 * 24 * HOUR);
    world.calm().await;
    assert_eq!((world.log.count("expiration"), world.log.count("bounce")), (0, 0));
    next.follow(Script::new());
    world.clock.advance(12 * HOUR);
    world.log.wait_for("delivery", 1).await;
    drop(home);
}

/// Only the address that a report goes to says whether it may need SMTPUTF8 (RFC 6533 section 3): the host of a sender who
/// needs none may not know it.
#[tokio::test]
async fn an_international_report_goes_to_international_senders_alone() {
    for (sender, recipient_field) in [
        ("anna@sender.example", "Final-Recipient: utf-8; j\\x{FC}rgen@example.net\r\n"),
        ("änna@sender.example", "Final-Recipient: utf-8; jürgen@example.net\r\n"),
    ] {
        let (_next, home, config) = two_ways(no_such_user()).await;
        if sender.is_ascii() {
            home.follow(Script::new().hide("SMTPUTF8"));
        }
        let world = World::start(config, StaticResolver::new());
        let mut mail = message_to(&[]);
        mail.recipients = vec![recipient(0, "jürgen@example.net")];
        mail.params.smtputf8 = true;
        mail.smtputf8 = true;
        mail.head = "Subject: für dich\r\n\r\n";
        mail.sender = ReversePath::parse(sender, Charset::Utf8).unwrap();
        world.commit(mail).await;
        let report = &home.wait_for(1).await[0];
        assert_eq!(
            report.sender.params.iter().any(|param| param == "SMTPUTF8"),
            sender.starts_with('ä'),
            "{report:?}"
        );
        let parsed = parse(report);
        assert!(parsed.fields.contains(recipient_field), "{}", parsed.fields);
        assert_eq!(parsed.returned_type, "message/global");
        home.assert_no_violations();
    }
}
