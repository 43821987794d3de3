//! The policy "partners" in Rust, straight from the contract: it refuses, groups and marks mail. ../README.md describes
//! the policy. A plugin in Rust is shorter with the SDK; this one shows what the SDK is built on.

mod settings;

use std::cell::RefCell;

use exports::pintle::plugin::{on_message, on_rcpt, plugin};
use pintle::plugin::message::{HeaderEdit, Position};
use pintle::plugin::types::{Header, HostError, Recipient, Reply, Verdict};
use pintle::plugin::{calls, gateway, log, message, transaction};
use settings::Settings;

wit_bindgen::generate!({ path: "wit", world: "partners", generate_all });

thread_local! {
    /// What `configure` computes. It runs on every new instance, so this is the one global that may be kept.
    static SETTINGS: RefCell<Settings> = RefCell::default();
}

struct Partners;

export!(Partners);

impl plugin::Guest for Partners {
    fn describe() -> plugin::Manifest {
        plugin::Manifest {
            id: "pintle.partners".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: env!("CARGO_PKG_DESCRIPTION").to_owned(),
            config_schema: None,
            wants: vec!["edit-headers".to_owned()],
            more: vec![("language".to_owned(), "Rust".to_owned())],
        }
    }

    fn configure(config: String) -> Result<(), Vec<plugin::ConfigError>> {
        let config_error = |(at, text)| plugin::ConfigError { at, text };
        let mut settings = settings::read(&config)
            .map_err(|mistakes| mistakes.into_iter().map(config_error).collect::<Vec<_>>())?;
        let quiet: Vec<String> = settings.quiet.into_iter().collect();
        settings.quiet = gateway::to_ascii(&quiet).into_iter().collect();
        SETTINGS.set(settings);
        calls::only_clients("on-message", "strangers")
            .map_err(|error| vec![config_error((String::new(), format!("only-clients: {error}")))])
    }
}

impl on_rcpt::Guest for Partners {
    fn handle(rcpt: Recipient) -> Verdict {
        match rcpt.address.local.as_str() {
            "blocked" => Verdict::Reject(Some(reply(550, "5.7.1", "No mail to blocked"))),
            "busy" => Verdict::Defer(Some(reply(451, "4.7.1", "busy takes mail later"))),
            _ => {
                if SETTINGS.with_borrow(|settings| settings.quiet.contains(&rcpt.address.domain)) {
                    or_trap(transaction::set_group(rcpt.id, "quiet"));
                }
                Verdict::Next
            }
        }
    }
}

impl on_message::Guest for Partners {
    fn handle() -> Verdict {
        if carries_test_virus() {
            return Verdict::Reject(Some(reply(554, "5.7.1", "the message carries a test virus")));
        }
        let recipients = or_trap(transaction::recipients());
        let mut subjects = or_trap(message::headers_shown(&["Subject".to_owned()]));
        for subject in &mut subjects {
            subject.value.make_ascii_lowercase();
        }
        let subject_has = |text| subjects.iter().any(|subject| subject.value.contains(text));
        if subject_has("offer") {
            judge_offer(&recipients);
        }
        if subject_has("hold me") {
            or_trap(transaction::quarantine(&[], "policy", "the subject asks for it"));
        }
        report_count(recipients.len());
        Verdict::Next
    }
}

fn carries_test_virus() -> bool {
    let found = |index| or_trap(message::find_in_part(index, b"virus-test-string", false, 1));
    or_trap(message::parts()).iter().any(|part| !found(part.index).is_empty())
}

fn judge_offer(recipients: &[Recipient]) {
    or_trap(transaction::set_score("offer", 1.5));
    let picky = recipients.iter().filter(|rcpt| rcpt.address.local == "picky");
    let picky: Vec<u32> = picky.map(|rcpt| rcpt.id).collect();
    if !picky.is_empty() {
        or_trap(transaction::refuse(&picky, &reply(550, "5.7.1", "picky takes no mail of this kind")));
    }
}

fn report_count(count: usize) {
    or_trap(transaction::set_fact("seen", &count.to_string()));
    let limit = SETTINGS.with_borrow(|settings| settings.limit);
    if count > limit as usize {
        let fields = [("recipients".to_owned(), count.to_string()), ("limit".to_owned(), limit.to_string())];
        log::write(log::Level::Warn, "more recipients than the limit", &fields);
    }
    let header = Header { name: "X-Partners".to_owned(), value: format!("grüße {count}") };
    match message::edit_headers(&[HeaderEdit::Add((Position::Bottom, header))]) {
        // The operator need not grant edit-headers; the rest of the policy works without it.
        Err(HostError::Denied(_)) => {}
        result => or_trap(result),
    }
}

fn reply(code: u16, enhanced: &str, text: &str) -> Reply {
    Reply { code, enhanced: Some(enhanced.to_owned()), text: text.to_owned() }
}

/// Ends the call when the host refused what must not be refused. All changes of the call are dropped then, and the
/// operator's `on_fault` decides about the mail.
fn or_trap<T>(result: Result<T, HostError>) -> T {
    result.unwrap_or_else(|error| panic!("the gateway refused a call: {error}"))
}
