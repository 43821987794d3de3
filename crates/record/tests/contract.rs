//! Pins the serialised form: a change to one of these texts breaks every reader of event logs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use pintle_mail::{
    Address, Charset, EnhancedCode, NextHop, QueueId, Reply, ReversePath, SessionId, UnixTime,
};
use pintle_record::{
    Bounce, ClientMembers, Deferral, Delivery, Discard, DsnReport, Expiration, Hold, JobMembers, PeerMembers,
    PluginFault, PluginVerdict, Reception, Record, Rejection, Release, ReportKind, Tls, Unreported,
};

const AT: UnixTime = UnixTime::from_millis(1_795_317_028_123);

fn id() -> QueueId {
    QueueId::new(UnixTime::from_millis(0), 1)
}

fn address(text: &str) -> Address {
    Address::parse(text, Charset::Ascii).unwrap()
}

fn sender() -> ReversePath {
    ReversePath::Address(address("a@example.org"))
}

fn client() -> ClientMembers {
    ClientMembers {
        session: SessionId::new(UnixTime::from_millis(0), 2),
        listener: "mx".into(),
        client: ([192, 0, 2, 1], 4242).into(),
        hello: Some("client.example".into()),
        identity: None,
        tls: Some(tls()),
    }
}

fn tls() -> Tls {
    Tls { version: "TLSv1.3".into(), cipher: "TLS_AES_256_GCM_SHA384".into(), verified: false }
}

fn job() -> JobMembers {
    JobMembers {
        time: AT,
        id: id(),
        sender: sender(),
        recipient: address("b@example.net"),
        next_hop: NextHop::Mx("example.net".into()),
        attempt: 2,
        age_ms: 61_000,
        size: 1234,
    }
}

fn peer() -> PeerMembers {
    PeerMembers {
        host: Some("mx.example.net".into()),
        address: Some(([192, 0, 2, 25], 25).into()),
        tls: None,
        session_use: 3,
    }
}

fn no() -> Reply {
    Reply::new(550, EnhancedCode(5, 1, 1), "no such user")
}

/// The text is the contract. It must also read back as the same record, for readers written in Rust.
fn pin(record: &Record, text: &str) {
    let written = serde_json::to_string(record).unwrap();
    assert_eq!(written, text);
    assert_eq!(&serde_json::from_str::<Record>(&written).unwrap(), record);
    assert!(written.starts_with(&format!(r#"{{"event":"{}","time":"#, record.event())));
}

#[test]
fn reception() {
    let record = Record::Reception(Reception {
        time: AT,
        id: id(),
        from: client(),
        sender: ReversePath::Null,
        recipients: vec![address("b@example.net")],
        size: 1234,
        message_id: Some("<1@client.example>".into()),
        subject: Some("Grüße".into()),
    });
    pin(
        &record,
        concat!(
            r#"{"event":"reception","time":"2026-11-22T03:10:28.123Z","queue-id":"00000000000000000000000001","#,
            r#""session":"00000000000000000000000002","listener":"mx","client":"192.0.2.1:4242","#,
            r#""hello":"client.example","tls":{"version":"TLSv1.3","cipher":"TLS_AES_256_GCM_SHA384","#,
            r#""verified":false},"sender":"","recipients":["b@example.net"],"size":1234,"#,
            r#""message-id":"<1@client.example>","subject":"Grüße"}"#
        ),
    );
}

#[test]
fn rejection() {
    let record = Record::Rejection(Rejection {
        time: AT,
        id: None,
        from: ClientMembers { hello: None, tls: None, identity: Some("anna".into()), ..client() },
        stage: "rcpt".into(),
        sender: Some(sender()),
        recipient: Some(address("b@example.net")),
        reply: no(),
        by: Some("greylist".into()),
    });
    pin(
        &record,
        concat!(
            r#"{"event":"rejection","time":"2026-11-22T03:10:28.123Z","session":"00000000000000000000000002","#,
            r#""listener":"mx","client":"192.0.2.1:4242","identity":"anna","stage":"rcpt","#,
            r#""sender":"a@example.org","recipient":"b@example.net","#,
            r#""reply":{"code":550,"enhanced":"5.1.1","text":"no such user"},"by":"greylist"}"#
        ),
    );
}

#[test]
fn discard() {
    let record = Record::Discard(Discard {
        time: AT,
        id: id(),
        stage: "message".into(),
        sender: sender(),
        recipients: vec![address("b@example.net")],
        by: None,
        quarantine: None,
        user: None,
    });
    pin(
        &record,
        concat!(
            r#"{"event":"discard","time":"2026-11-22T03:10:28.123Z","queue-id":"00000000000000000000000001","#,
            r#""stage":"message","sender":"a@example.org","recipients":["b@example.net"]}"#
        ),
    );
}

#[test]
fn plugins() {
    let verdict = Record::PluginVerdict(PluginVerdict {
        time: AT,
        plugin: "greylist".into(),
        hook: "rcpt".into(),
        verdict: "defer".into(),
        overruled: false,
        session: Some(client().session),
        id: None,
    });
    pin(
        &verdict,
        concat!(
            r#"{"event":"plugin-verdict","time":"2026-11-22T03:10:28.123Z","plugin":"greylist","hook":"rcpt","#,
            r#""verdict":"defer","session":"00000000000000000000000002"}"#
        ),
    );
    let fault = Record::PluginFault(PluginFault {
        time: AT,
        plugin: "greylist".into(),
        hook: "message".into(),
        kind: "trap".into(),
        text: "unreachable".into(),
        verdict: "defer".into(),
        session: None,
        id: Some(id()),
    });
    pin(
        &fault,
        concat!(
            r#"{"event":"plugin-fault","time":"2026-11-22T03:10:28.123Z","plugin":"greylist","hook":"message","#,
            r#""kind":"trap","text":"unreachable","verdict":"defer","queue-id":"00000000000000000000000001"}"#
        ),
    );
}

/// The members that all delivery events have.
const JOB: &str = concat!(
    r#""time":"2026-11-22T03:10:28.123Z","queue-id":"00000000000000000000000001","sender":"a@example.org","#,
    r#""recipient":"b@example.net","next-hop":{"mx":"example.net"},"attempt":2,"age-ms":61000,"size":1234"#
);
const PEER: &str = r#""host":"mx.example.net","address":"192.0.2.25:25","session-use":3"#;

#[test]
fn delivery_and_deferral() {
    let delivery = Record::Delivery(Delivery {
        job: job(),
        peer: peer(),
        reply: Reply::plain(250, "queued"),
        took_ms: 12,
    });
    pin(
        &delivery,
        &format!(
            r#"{{"event":"delivery",{JOB},{PEER},"reply":{{"code":250,"text":"queued"}},"took-ms":12}}"#
        ),
    );
    let deferral = Record::Deferral(Deferral {
        job: job(),
        peer: PeerMembers { tls: Some(tls()), ..PeerMembers::default() },
        reply: Reply::new(450, EnhancedCode(4, 2, 0), "later"),
        next_attempt: AT,
    });
    pin(
        &deferral,
        &format!(
            concat!(
                r#"{{"event":"deferral",{},"tls":{{"version":"TLSv1.3","cipher":"TLS_AES_256_GCM_SHA384","#,
                r#""verified":false}},"session-use":0,"reply":{{"code":450,"enhanced":"4.2.0","text":"later"}},"#,
                r#""next-attempt":"2026-11-22T03:10:28.123Z"}}"#
            ),
            JOB
        ),
    );
}

#[test]
fn bounce_and_expiration() {
    let bounce = Record::Bounce(Bounce {
        job: job(),
        peer: peer(),
        reply: no(),
        report: Some(id()),
        unreported: None,
        by: Some("operator".into()),
    });
    let reply = r#""reply":{"code":550,"enhanced":"5.1.1","text":"no such user"}"#;
    pin(
        &bounce,
        &format!(
            r#"{{"event":"bounce",{JOB},{PEER},{reply},"report":"00000000000000000000000001","by":"operator"}}"#
        ),
    );
    let expiration = Record::Expiration(Expiration {
        job: job(),
        reply: None,
        report: None,
        unreported: Some(Unreported::NullSender),
        quarantine: None,
    });
    pin(&expiration, &format!(r#"{{"event":"expiration",{JOB},"unreported":"null-sender"}}"#));
    let expiration = Record::Expiration(Expiration {
        job: job(),
        reply: None,
        report: None,
        unreported: Some(Unreported::Suppressed),
        quarantine: Some("spam".into()),
    });
    let text = format!(r#"{{"event":"expiration",{JOB},"unreported":"suppressed","quarantine":"spam"}}"#);
    pin(&expiration, &text);
}

#[test]
fn hold_release_and_report() {
    let hold = Record::Hold(Hold {
        time: AT,
        id: id(),
        quarantine: Some("spam".into()),
        reason: None,
        by: Some("scanner".into()),
    });
    pin(
        &hold,
        concat!(
            r#"{"event":"hold","time":"2026-11-22T03:10:28.123Z","queue-id":"00000000000000000000000001","#,
            r#""quarantine":"spam","by":"scanner"}"#
        ),
    );
    pin(
        &Record::Release(Release { time: AT, id: id(), quarantine: None, by: None, user: None }),
        r#"{"event":"release","time":"2026-11-22T03:10:28.123Z","queue-id":"00000000000000000000000001"}"#,
    );
    let text = |text: &str| Some(text.to_owned());
    let (quarantine, by, user) = (text("spam"), text("operator"), text("anna"));
    pin(
        &Record::Release(Release { time: AT, id: id(), quarantine, by, user }),
        concat!(
            r#"{"event":"release","time":"2026-11-22T03:10:28.123Z","queue-id":"00000000000000000000000001","#,
            r#""quarantine":"spam","by":"operator","user":"anna"}"#
        ),
    );
    let report = Record::Report(DsnReport {
        time: AT,
        id: id(),
        about: id(),
        kind: ReportKind::Failure,
        to: address("a@example.org"),
        recipients: vec![address("b@example.net")],
    });
    pin(
        &report,
        concat!(
            r#"{"event":"report","time":"2026-11-22T03:10:28.123Z","queue-id":"00000000000000000000000001","#,
            r#""about":"00000000000000000000000001","kind":"failure","to":"a@example.org","#,
            r#""recipients":["b@example.net"]}"#
        ),
    );
}

/// Records of earlier versions.
#[test]
fn a_queue_id_by_its_old_name_is_read() {
    let text = r#"{"event":"release","time":"2026-11-22T03:10:28.123Z","id":"00000000000000000000000001"}"#;
    assert_eq!(serde_json::from_str::<Record>(text).unwrap().id(), Some(id()));
}
