//! A test plugin that misbehaves on demand: loops, traps, exhausts memory, sleeps, returns invalid values, edits
//! everything.
//!
//! Its settings name an action for each hook. The action `by-recipient` uses the recipient's local part as the action,
//! so that one plugin can behave and misbehave at the same time.

use std::time::Duration;

use pintle_plugin_sdk::bindings::services::pintle::plugin::sender_auth::report_disposition;
use pintle_plugin_sdk::message::{HeaderEdit, Piece, Position};
use pintle_plugin_sdk::prelude::*;
use pintle_plugin_sdk::transaction::AuthResult;
use pintle_plugin_sdk::{Header, dns, kv, metrics, sender_auth, signing};

mod conditions;
mod fate;
mod reading;

use crate::conditions::HookCondition;

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Unruly {
    configure: String,
    conditions: Vec<HookCondition>,
    connect: String,
    hello: String,
    auth: String,
    auth_result: String,
    mail: String,
    rcpt: String,
    data: String,
    headers: String,
    message: String,
    queued: String,
    deliver: String,
    delivery_result: String,
    disconnect: String,
    timer: String,
}

impl Plugin for Unruly {
    const ID: &'static str = "test.unruly";
    const WANTS: &'static [&'static str] = &["kv", "dns"];

    fn check(&mut self) -> Result<(), Vec<ConfigError>> {
        match self.configure.as_str() {
            "refuse" => Err(vec![mistake("/configure", "no"), mistake("", "not at all")]),
            other => {
                act(other).map_err(|error| vec![mistake("/configure", format!("{error:?}"))])?;
                Ok(())
            }
        }
    }

    fn conditions(&self) -> Result<(), HostError> {
        self.conditions.iter().try_for_each(HookCondition::declare)
    }
}

impl Unruly {
    fn on_connect(&self) -> Result<Verdict, HostError> {
        act(&self.connect)
    }

    fn on_hello(&self, _: &str) -> Result<Verdict, HostError> {
        act(&self.hello)
    }

    fn on_auth_password(
        &self,
        _: &str,
        authorization_id: Option<&str>,
        username: &str,
        password: &str,
    ) -> Result<AuthVerdict, HostError> {
        act(&self.auth)?;
        if password == "right" {
            Ok(AuthVerdict::Granted(authorization_id.unwrap_or(username).to_owned()))
        } else {
            Ok(AuthVerdict::Denied(None))
        }
    }

    fn on_auth_result(&self, mechanism: &str, username: &str, outcome: &str) -> Result<(), HostError> {
        if self.auth_result == "tell" {
            session::set_fact("login", &format!("{mechanism} {username} {outcome}"))?;
            kv::increment(&format!("{outcome} {username}"), 1, None)?;
        }
        act(&self.auth_result).map(drop)
    }

    fn on_mail(&self) -> Result<Verdict, HostError> {
        act(&self.mail)
    }

    fn on_rcpt(&self, rcpt: &Recipient) -> Result<Verdict, HostError> {
        match self.rcpt.as_str() {
            "by-recipient" => act(&rcpt.address.local),
            "greylist" => greylist(rcpt),
            "discard-this" | "quarantine-this" | "group" => {
                fate::request_for(&self.rcpt, rcpt)?;
                Ok(Verdict::Next)
            }
            "grant-relay" => {
                transaction::grant_relay(rcpt.id)?;
                Ok(Verdict::Accept)
            }
            then if then.starts_with("grant-then-") => {
                transaction::grant_relay(rcpt.id)?;
                act(&then["grant-then-".len()..])
            }
            other => act(other),
        }
    }

    fn on_data(&self) -> Result<Verdict, HostError> {
        if self.data == "count" {
            return Ok(reject("5.5.3", format!("{} recipients", transaction::recipients()?.len())));
        }
        act(&self.data)
    }

    fn on_headers(&self) -> Result<Verdict, HostError> {
        act(&self.headers)
    }

    fn on_message(&self) -> Result<Verdict, HostError> {
        match self.message.as_str() {
            "edit-all" => edit_all(),
            "look" => look(),
            "parts" => tell_parts(),
            "write" => write(),
            act if act.starts_with("work-") => work(&act["work-".len()..]),
            "nul" => {
                message::write_body(&[Piece::Bytes(b"a\0b".to_vec())])?;
                Ok(Verdict::Next)
            }
            "bare-cr-at-end" => {
                message::write_body(&[Piece::Bytes(b"text\r".to_vec())])?;
                Ok(Verdict::Next)
            }
            other => act(other),
        }
    }

    fn on_queued(&self) -> Result<(), HostError> {
        if self.queued == "tell" {
            let seen = transaction::fact("unruly.seen")?.unwrap_or_default();
            info!("queued {} for {} {seen}", transaction::info()?.id, transaction::info()?.recipient_count);
        }
        act(&self.queued).map(drop)
    }

    fn on_deliver(&self) -> Result<Verdict, HostError> {
        if self.deliver == "route" {
            let inner = delivery::NextHop::Relay("inner".to_owned());
            delivery::set_next_hop(&inner)?;
            delivery::set_tls(delivery::TlsPolicy::Verified)?;
            let dane = delivery::set_tls(delivery::TlsPolicy::Dane).is_err();
            assert!(dane && delivery::info()?.next_hop() == inner);
            return Ok(Verdict::Next);
        }
        if self.deliver == "to nowhere" {
            delivery::set_next_hop(&delivery::NextHop::Discard)?;
            return Ok(Verdict::Next);
        }
        if let Some(name) = self.deliver.strip_prefix("to ") {
            delivery::set_next_hop(&delivery::NextHop::Relay(name.to_owned()))?;
            return Ok(Verdict::Next);
        }
        if let Some(hop) = self.deliver.strip_prefix("hop ") {
            delivery::set_next_hop(&hop.into())?;
            return Ok(Verdict::Next);
        }
        if self.deliver == "sender" {
            transaction::rewrite_sender("bounces@example.com")?;
            let stands = transaction::rewrite_recipient(0, "other@example.net");
            assert!(matches!(stands, Err(HostError::Unavailable(_))), "{stands:?}");
            return Ok(Verdict::Next);
        }
        act(&self.deliver)
    }

    fn on_delivery_result(&self, outcomes: &[DeliveryOutcome]) -> Result<(), HostError> {
        for outcome in outcomes {
            delivery::suppress_bounce(outcome.recipient)?;
        }
        act(&self.delivery_result).map(drop)
    }

    fn on_disconnect(&self) -> Result<(), HostError> {
        act(&self.disconnect).map(drop)
    }

    fn on_timer(&self) -> Result<(), HostError> {
        if self.timer == "session" {
            session::info()?;
        } else {
            act(&self.timer)?;
        }
        kv::increment("timer", 1, None)?;
        Ok(())
    }
}

/// Performs the action of this name.
fn act(what: &str) -> Result<Verdict, HostError> {
    fate::request(what)?;
    edit(what)?;
    claim(what)?;
    harm(what)?;
    tell(what)?;
    reading::read(what)?;
    Ok(match what {
        "accept" => Verdict::Accept,
        "reject" | "close-reject" => reject("5.7.1", "told to"),
        "contradict" => Verdict::Reject(Some(Reply::new(250, "2.0.0", "fine"))),
        _ => Verdict::Next,
    })
}

/// Changes of the mail and of the session.
fn edit(what: &str) -> Result<(), HostError> {
    match what {
        "raw" => edit_raw(),
        "body-and-back" => {
            message::write_body(&[Piece::Bytes(b"another".to_vec())])?;
            message::drop_body()
        }
        "nobody" | "nobody-else" => replace_all(what == "nobody-else"),
        "withhold" => session::withhold_extension("STARTTLS"),
        "offer" => session::offer_extension("XFORWARD", None),
        "note" => count_in_note(),
        "huge-note" => session::set_note("big", Some(&vec![0; 65_537])),
        "sign" => signing::dkim_sign("key"),
        "seal" => signing::arc_seal("key"),
        _ => Ok(()),
    }
}

/// Claims in the name of the gateway or of other plugins.
fn claim(what: &str) -> Result<(), HostError> {
    match what {
        "forge" => report_disposition("reject", Some("local_policy")),
        "forge-spf" => transaction::set_fact("spf", "pass"),
        "forge-name" => session::set_fact("pintle.client-name", "trusted.example"),
        "say" | "say-again" | "quote" => say(what),
        "rename" => rename_all("Authentication-Results"),
        "rename-else" => rename_all("X-Results"),
        "results" => {
            transaction::add_auth_result(&result("spf", None, &[("smtp.helo", "h")]))?;
            transaction::set_fact("results", &format!("{:?}", transaction::auth_results()?))
        }
        _ => Ok(()),
    }
}

/// Faults, and waste of time, memory and log.
fn harm(what: &str) -> Result<(), HostError> {
    match what {
        "spin" => spin(),
        "trap" => panic!("as told"),
        "exit" => std::process::exit(7),
        "eat" => eat(),
        "hoard" => hoard(),
        "sleep" => std::thread::sleep(Duration::from_secs(3_600)),
        "nap" => std::thread::sleep(Duration::from_millis(600)),
        "flood" => (0..100_000).for_each(|n| info!("line {n}")),
        "print" => println!("hello from inside"),
        "fact-then-trap" => {
            session::set_fact("left.behind", "yes")?;
            panic!("after an edit");
        }
        "many-metrics" => (0..1_000).for_each(|n| metrics::count("n", 1, &[("n", &n.to_string())])),
        _ => {}
    }
    Ok(())
}

/// What the plugin can see, as facts.
fn tell(what: &str) -> Result<(), HostError> {
    match what {
        "kv" => kv::get("x").map(drop),
        "spf" => session::set_fact("spf", &format!("{:?}", sender_auth::spf())),
        "sender" => sender(),
        "gateway" => tell_gateway(),
        "names" => session::set_fact("names", &session::reverse_names()?.join(",")),
        _ => Ok(()),
    }
}

/// Removes all recipients, and adds one replacement or none.
fn replace_all(by_another: bool) -> Result<(), HostError> {
    for rcpt in transaction::recipients()? {
        transaction::remove_recipient(rcpt.id)?;
    }
    if by_another {
        transaction::add_recipient("more@example.org")?;
    }
    Ok(())
}

/// Writes the first field and a new one after it as octets that are not UTF-8.
fn edit_raw() -> Result<(), HostError> {
    message::edit_headers(&[
        HeaderEdit::ReplaceRaw((0, b"X-First: caf\xe9\r\n folded".to_vec())),
        HeaderEdit::AddRaw((Position::After(0), b"X-Second: \xff".to_vec())),
    ])
}

/// A passing result of this method.
fn result(method: &str, reason: Option<&str>, properties: &[(&str, &str)]) -> AuthResult {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    AuthResult {
        method: method.to_owned(),
        outcome: "pass".to_owned(),
        reason: reason.map(str::to_owned),
        properties: properties.iter().map(owned).collect(),
    }
}

/// Stores what the gateway reports about itself as a fact.
fn tell_gateway() -> Result<(), HostError> {
    let local =
        ["ours.example", "A.OURS.example", "a.below.example", "foreign.example"].map(gateway::is_local);
    let keys = signing::keys("Ours.Example", false)?;
    let told = format!("{} {:?} {local:?} {keys:?}", gateway::info().hostname, gateway::local_domains());
    session::set_fact("gateway", &told)
}

/// Stores the results of sender authentication as facts.
fn sender() -> Result<(), HostError> {
    let (spf, dkim) = (sender_auth::spf()?, sender_auth::dkim()?);
    let (dmarc, arc) = (sender_auth::dmarc()?, sender_auth::arc()?);
    let spf: Vec<_> = spf.iter().map(|it| format!("{} {} {}", it.outcome, it.domain, it.mail_from)).collect();
    let dkim: Vec<_> =
        dkim.iter().map(|it| format!("{} {} {}", it.outcome, it.domain, it.selector)).collect();
    transaction::set_fact("spf", &spf.join(", "))?;
    transaction::set_fact("dkim", &dkim.join(", "))?;
    let aligned = (dmarc.spf_aligned, dmarc.dkim_aligned);
    let dmarc = format!("{} {} {} {aligned:?}", dmarc.outcome, dmarc.from_domain, dmarc.policy);
    transaction::set_fact("dmarc", &dmarc)?;
    transaction::set_fact("arc", &arc.outcome)
}

fn spin() {
    let mut n = 0_u64;
    loop {
        n = std::hint::black_box(n.wrapping_add(1));
    }
}

fn eat() {
    let mut eaten = Vec::new();
    loop {
        eaten.push(vec![1_u8; 1 << 20]);
        std::hint::black_box(&eaten);
    }
}

/// Creates timers in the host without end, and never drops one.
fn hoard() {
    for n in 1.. {
        std::mem::forget(wasip2::clocks::monotonic_clock::subscribe_duration(u64::MAX));
        if n % 1_000 == 0 {
            println!("{n} timers");
        }
    }
}

fn count_in_note() -> Result<(), HostError> {
    let before = session::note_as::<u32>("count")?.unwrap_or(0);
    session::set_note_as("count", &(before + 1))?;
    session::set_fact("count", &(before + 1).to_string())
}

/// Defers the first attempt of each client and recipient, and refuses listed clients.
fn greylist(rcpt: &Recipient) -> Result<Verdict, HostError> {
    let client = session::info()?.client;
    let zones = ["list.example".to_owned(), "dead.example".to_owned()];
    if let [zone, ..] = dns::listed(&client, &zones)[..] {
        return Ok(reject("5.7.1", format!("listed by {zone}")));
    }
    let key = format!("{client} {}", rcpt.address);
    let tries = kv::increment(&key, 1, Some(3_600))?;
    let bucket = kv::Bucket { capacity: 3, refill_per_minute: 0.0 };
    let taken = kv::take("rate", 1, bucket)?;
    if !taken.allowed {
        return Ok(defer("4.7.0", "too fast"));
    }
    Ok(if tries == 1 { defer("4.7.1", "come again") } else { Verdict::Next })
}

/// Makes every edit of the message stage, and reads each back if the contract permits it.
fn edit_all() -> Result<Verdict, HostError> {
    edit_header_and_body()?;
    transaction::rewrite_sender("")?;
    let first = transaction::recipients()?[0].id;
    transaction::rewrite_recipient(first, "other@example.net")?;
    let id = transaction::add_recipient("more@example.net")?;
    transaction::grant_relay(id)?;
    let second = transaction::recipients()?[1].id;
    transaction::remove_recipient(second)?;
    let now: Vec<_> = transaction::recipients()?.iter().map(|r| r.address.to_string()).collect();
    assert_eq!(now, ["other@example.net", "more@example.net"]);
    assert!(transaction::info()?.sender.is_null());
    transaction::set_fact("seen", "all")?;
    // A plugin does not know the name that its facts have, unless the test has given it this one.
    assert!(transaction::fact("unruly.seen")?.is_none_or(|seen| seen == "all"));
    transaction::set_note_as("n", &5)?;
    assert_eq!(transaction::note_as::<u32>("n")?, Some(5));
    transaction::set_score("rule", 9.0)?;
    transaction::set_score("rule", 2.5)?;
    transaction::set_score("other", -0.5)?;
    assert_eq!(transaction::score()?, 2.0);
    let found = result("spf", None, &[("smtp.mailfrom", "example.com")]);
    transaction::add_auth_result(&found)?;
    transaction::add_auth_result(&found)?;
    assert_eq!(transaction::auth_results()?.len(), 1);
    session::delay_reply(20)?;
    Ok(Verdict::Accept)
}

/// Adds authentication results to a header field: in the gateway's name or another's, as a new field or in the first
/// one.
fn say(how: &str) -> Result<(), HostError> {
    let us = gateway::info().hostname.to_uppercase();
    let who = if how == "quote" { "elsewhere.example" } else { &us };
    let value = format!("(x) {who}; dmarc=pass");
    message::edit_headers(&[match how {
        "say-again" => HeaderEdit::Replace((0, value)),
        _ => HeaderEdit::Add((Position::Top, Header { name: "authentication-results".to_owned(), value })),
    }])
}

/// Renames all fields of the message.
fn rename_all(name: &str) -> Result<(), HostError> {
    let fields = message::headers()?;
    let rename = |field: &message::Field| HeaderEdit::Rename((field.index, name.to_owned()));
    message::edit_headers(&fields.iter().map(rename).collect::<Vec<_>>())
}

fn edit_header_and_body() -> Result<(), HostError> {
    let add = |at, name: &str, value: &str| {
        let name = name.to_owned();
        let value = value.to_owned();
        HeaderEdit::Add((at, Header { name, value }))
    };
    message::edit_headers(&[
        add(Position::Top, "X-Top", "1"),
        add(Position::Before(1), "X-Before", "2"),
        add(Position::Bottom, "X-Bottom", "3"),
        HeaderEdit::Replace((0, "new subject".to_owned())),
        HeaderEdit::RemoveAll("x-old".to_owned()),
    ])?;
    let refused = message::edit_headers(&[add(Position::Top, "X-Bad", "two\r\nX-Lines: 1")]);
    assert!(matches!(refused, Err(HostError::Invalid(_))));
    let size = message::info()?.body_size;
    message::write_body(&[Piece::Copy((0, size)), Piece::Bytes(b"-- \nfooter".to_vec())])
}

/// Adds a copy of each field of the message at the bottom. Reports how many the gateway accepted, and for which it
/// disagreed with the SDK. In the message `_` stands for a blank and `~` for a tab, so that values can end in them.
fn write() -> Result<Verdict, HostError> {
    let (mut taken, mut other) = (0, Vec::new());
    for field in message::headers()? {
        let value = field.value.replace('_', " ").replace('~', "\t");
        let expected = message::can_be_written(&field.name, &value);
        let edit = HeaderEdit::Add((Position::Bottom, Header { name: field.name, value }));
        let result = message::edit_headers(&[edit]);
        taken += u32::from(result.is_ok());
        if result.is_ok() != expected {
            other.push(format!("{}: {result:?}", field.index));
        }
    }
    transaction::set_fact("taken", &taken.to_string())?;
    transaction::set_fact("other", &other.join(", "))?;
    Ok(Verdict::Next)
}

/// Reports the number of parts, and defects of the MIME tree.
fn tell_parts() -> Result<Verdict, HostError> {
    transaction::set_fact("parts", &message::parts()?.len().to_string())?;
    let found = message::tree_flaws()?;
    transaction::set_fact("flaws", &format!("{:?} {:?}", found.malformed, found.truncated))?;
    Ok(Verdict::Next)
}

/// Makes the host work repeatedly until it refuses; the error is reported and ignored.
fn work(what: &str) -> Result<Verdict, HostError> {
    let key = |n: u32| n.to_string();
    let step = |n: u32| match what {
        "read" => message::read_body(0, 1 << 20).map(drop),
        "find" => message::find_in_body(b"nowhere", true, 1).map(drop),
        "find-part" => message::find_in_part(0, b"nowhere", true, 1).map(drop),
        "headers" => message::headers().map(drop),
        "shown" => message::headers_shown(&["Subject".to_owned()]).map(drop),
        "values" => kv::get_many(&vec!["big".to_owned(); 1_000]).map(drop),
        "scores" => transaction::set_score(&key(n), 0.0),
        "results" => transaction::add_auth_result(&result("x", Some(&key(n)), &[])),
        "notes" => transaction::set_note(&key(n), Some(&[0])),
        "facts" => transaction::set_fact(&key(n), ""),
        "pieces" => message::write_body(&[Piece::Copy((0, 1))]),
        other => reading::work(other),
    };
    if what == "values" {
        kv::set("big", &vec![0; 256 << 10], None)?;
    }
    let refused = (0..10_000_000).find_map(|n| step(n).err().map(|error| (n, error)));
    let (count, error) = refused.expect("somebody stops it");
    session::set_fact("refused", &format!("{count} {error:?}"))?;
    Ok(Verdict::Accept)
}

/// Reports what it sees of the message in facts.
fn look() -> Result<Verdict, HostError> {
    let body = message::body(1 << 20)?;
    let found = message::find_in_body(b"HELLO", true, 10)?;
    let parts = message::parts()?;
    let text = message::part_text(1, 100)?;
    let digest = message::part_digest(1, "sha256")?;
    let header = message::part_headers(1)?;
    transaction::set_fact("body", &body.len().to_string())?;
    transaction::set_fact("found", &format!("{found:?}"))?;
    let types: Vec<_> = parts.iter().map(|part| part.content_type.as_str()).collect();
    transaction::set_fact("parts", &types.join(" "))?;
    transaction::set_fact("text", text.trim())?;
    transaction::set_fact("digest", &format!("{:02x}{:02x}", digest[0], digest[1]))?;
    transaction::set_fact("part-header", &header[0].name)?;
    let denied = message::edit_headers(&[HeaderEdit::Remove(0)]);
    transaction::set_fact("denied", &format!("{denied:?}"))?;
    Ok(Verdict::Next)
}

pintle_plugin_sdk::export!(
    Unruly: on_connect, on_hello, on_auth_password, on_auth_result, on_mail, on_rcpt, on_data, on_headers, on_message,
    on_queued, on_deliver, on_delivery_result, on_disconnect, on_timer
);
