//! SPF (RFC 7208): acts on whether the sender's domain authorises this client. The gateway evaluates SPF; the
//! configuration of this plugin says what each result means for the mail, by default nothing.
//!
//! The MAIL FROM identity decides, or the HELO identity if the reverse-path is null; a fail of the HELO name counts as
//! well. Trusted and authenticated clients are not checked, since they may send for other domains.
//!
//! Results are reported in Authentication-Results and, if configured, in Received-SPF fields (see `field`). The gateway
//! does the rest.

mod field;

use pintle_plugin_sdk::action::{Action, ActionReason};
use pintle_plugin_sdk::sender_auth::{self, AuthOutcome, SpfResult};
use pintle_plugin_sdk::settings::Network;
use pintle_plugin_sdk::{Header, metrics, prelude::*};

use crate::field::Checked;

/// The operator's configuration.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Spf {
    /// The action for each result.
    fail: Action,
    softfail: Action,
    permerror: Action,
    temperror: Action,
    neutral: Action,
    none: Action,
    /// Whether a fail of the HELO name counts as a fail.
    hello: bool,
    /// Clients that are not checked: forwarders, which send for other domains.
    exempt_networks: Vec<Network>,
    /// Whether results are also written to Received-SPF fields. Requires the grant edit-headers.
    received_spf: bool,
}

impl Default for Spf {
    fn default() -> Self {
        let nothing = Action::PassOn;
        Self {
            fail: nothing,
            softfail: nothing,
            permerror: nothing,
            temperror: nothing,
            neutral: nothing,
            none: nothing,
            hello: true,
            exempt_networks: Vec::new(),
            received_spf: false,
        }
    }
}

impl Plugin for Spf {
    const ID: &'static str = "pintle.spf";
    const WANTS: &'static [&'static str] = &["sender-auth", "auth-results", "edit-headers"];
    const CONFIG_SCHEMA: Option<&'static str> = Some(include_str!("../config.schema.json"));

    fn conditions(&self) -> Result<(), HostError> {
        calls::only_strangers(&["on-mail", "on-headers"])?;
        if !self.received_spf {
            calls::never("on-headers")?;
        }
        calls::not_networks(&["on-mail"], &self.exempt_networks)
    }
}

impl Spf {
    fn on_mail(&self) -> Result<Verdict, HostError> {
        let session = session::info()?;
        if session.known || self.is_exempt(&session) {
            return Ok(Verdict::Next);
        }
        sender_auth::report(&["spf"])?;
        let results = sender_auth::spf()?;
        let Some(deciding) = self.deciding(&results) else {
            return Ok(Verdict::Next);
        };
        transaction::set_fact("result", &deciding.outcome)?;
        metrics::count("results", 1, &[("result", &deciding.outcome)]);
        act(self.action(deciding.outcome()), deciding, &session)
    }

    fn on_headers(&self) -> Result<Verdict, HostError> {
        if self.received_spf {
            let session = session::info()?;
            if !session.known {
                self.write_fields(&session)?;
            }
        }
        Ok(Verdict::Next)
    }

    /// Adds a Received-SPF field at the top for each identity that was checked, and removes forged ones.
    fn write_fields(&self, session: &session::Snapshot) -> Result<(), HostError> {
        let gateway = gateway::info();
        let mut edits = forged(&gateway.hostname)?;
        if !self.is_exempt(session) {
            edits.extend(fields(session, &gateway.hostname)?);
        }
        match message::edit_headers(&edits) {
            // A missing grant is an operator's mistake and must not stop the mail.
            Err(HostError::Denied(grant)) => {
                error!(
                    "no Received-SPF: received_spf needs the grant {grant}: add it to the plugin's grants"
                );
                Ok(())
            }
            done => done,
        }
    }

    fn is_exempt(&self, session: &session::Snapshot) -> bool {
        self.exempt_networks.iter().any(|network| network.contains(&session.client))
    }

    /// The result that the action is based on.
    fn deciding<'r>(&self, results: &'r [SpfResult]) -> Option<&'r SpfResult> {
        let hello = results.iter().find(|result| !result.mail_from);
        let forbidden = hello.filter(|result| self.hello && result.outcome() == AuthOutcome::Fail);
        let sender = results.iter().find(|result| result.mail_from);
        forbidden.or(sender).or(hello)
    }

    fn action(&self, outcome: AuthOutcome) -> Action {
        match outcome {
            AuthOutcome::Fail => self.fail,
            AuthOutcome::Softfail => self.softfail,
            AuthOutcome::Permerror => self.permerror,
            AuthOutcome::Temperror => self.temperror,
            AuthOutcome::Neutral => self.neutral,
            AuthOutcome::None => self.none,
            AuthOutcome::Pass | AuthOutcome::Policy | AuthOutcome::Other => Action::PassOn,
        }
    }
}

/// Removals of fields from strangers that name this gateway. RFC 7208 section 9.1 lets fields of other receivers stay
/// below ours, as a trace of earlier hops.
fn forged(hostname: &str) -> Result<Vec<message::HeaderEdit>, HostError> {
    let found = message::headers_named(&[field::NAME.to_owned()])?;
    let forged = found.iter().filter(|found| field::is_from(&found.value, hostname));
    let edits: Vec<_> = forged.map(|found| message::HeaderEdit::Remove(found.index)).collect();
    if !edits.is_empty() {
        metrics::count_all("forged_fields", edits.len(), &[]);
    }
    Ok(edits)
}

fn fields(session: &session::Snapshot, hostname: &str) -> Result<Vec<message::HeaderEdit>, HostError> {
    let transaction = transaction::info()?;
    let checked = Checked {
        client: &session.client.text,
        hello: session.hello.as_deref().unwrap_or_default(),
        sender: &transaction.sender,
        receiver: hostname,
    };
    let add = |result: &SpfResult| {
        let field = Header { name: field::NAME.to_owned(), value: checked.value(result) };
        message::HeaderEdit::Add((message::Position::Top, field))
    };
    // MAIL FROM is the last of the results, and its field the first.
    Ok(sender_auth::spf()?.iter().rev().map(add).collect())
}

/// Applies the action for the result.
fn act(action: Action, result: &SpfResult, session: &session::Snapshot) -> Result<Verdict, HostError> {
    let name = &result.outcome;
    if action.stops() {
        info!(client = session.client, domain = result.domain; "not passed on: {name}");
    }
    action.take(&ActionReason {
        rule: name,
        quarantine: "spf",
        code: code(result.outcome()),
        text: &explain(result),
    })
}

/// Enhanced status code for a result (RFC 7372 section 3.2).
fn code(outcome: AuthOutcome) -> &'static str {
    if outcome == AuthOutcome::Fail { "7.23" } else { "7.24" }
}

/// The domain owner's explanation, marked as the owner's words (RFC 7208 section 6.2).
fn explain(result: &SpfResult) -> String {
    let SpfResult { outcome, domain, explanation, .. } = result;
    let mut text = format!("SPF of {domain}: {outcome}");
    if let Some(explanation) = explanation {
        text.push_str(&format!("; {domain} explains: {explanation}"));
    }
    text
}

pintle_plugin_sdk::export!(Spf: on_mail, on_headers);

#[cfg(test)]
mod tests {
    use super::*;

    fn result(mail_from: bool, outcome: &str) -> SpfResult {
        SpfResult {
            outcome: outcome.to_owned(),
            domain: "a.example".to_owned(),
            mail_from,
            explanation: None,
            mechanism: None,
            problem: None,
            details: Vec::new(),
        }
    }

    #[test]
    fn the_sender_decides_unless_hello_is_forbidden_or_alone() {
        let spf = Spf::default();
        let decides =
            |spf: &Spf, results: &[SpfResult]| spf.deciding(results).map(|it| (it.mail_from, it.outcome()));
        let forged = [result(false, "fail"), result(true, "pass")];
        assert_eq!(decides(&spf, &forged), Some((false, AuthOutcome::Fail)));
        let lenient = Spf { hello: false, ..Spf::default() };
        assert_eq!(decides(&lenient, &forged), Some((true, AuthOutcome::Pass)));
        let plain = [result(false, "none"), result(true, "softfail")];
        assert_eq!(decides(&spf, &plain), Some((true, AuthOutcome::Softfail)));
        assert_eq!(decides(&spf, &plain[..1]), Some((false, AuthOutcome::None)));
        assert_eq!(decides(&spf, &[]), None);
    }

    #[test]
    fn by_default_nothing_is_refused() {
        for outcome in ALL {
            assert_eq!(Spf::default().action(outcome), Action::PassOn);
        }
    }

    const ALL: [AuthOutcome; 8] = [
        AuthOutcome::Fail,
        AuthOutcome::Softfail,
        AuthOutcome::Permerror,
        AuthOutcome::Temperror,
        AuthOutcome::Neutral,
        AuthOutcome::None,
        AuthOutcome::Pass,
        AuthOutcome::Other,
    ];

    #[test]
    fn each_result_has_an_action_but_pass_and_unknown_ones() {
        let spf = Spf {
            fail: Action::Score(1.0),
            softfail: Action::Score(2.0),
            permerror: Action::Score(3.0),
            temperror: Action::Score(4.0),
            neutral: Action::Score(5.0),
            none: Action::Score(6.0),
            ..Spf::default()
        };
        let actions = ALL.map(|outcome| spf.action(outcome));
        let points = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0].map(Action::Score);
        assert_eq!(actions[..6], points);
        assert_eq!(actions[6..], [Action::PassOn; 2]);
    }

    #[test]
    fn refusals_carry_the_codes_of_rfc_7372_and_the_owners_words_as_his() {
        let mut fail = result(true, "fail");
        fail.explanation = Some("go away".to_owned());
        let finding = ActionReason {
            rule: "fail",
            quarantine: "spf",
            code: code(fail.outcome()),
            text: &explain(&fail),
        };
        let told = |verdict| match verdict {
            Verdict::Reject(Some(reply)) | Verdict::Defer(Some(reply)) => {
                (reply.enhanced.unwrap(), reply.text)
            }
            other => panic!("{other:?}"),
        };
        let text = "SPF of a.example: fail; a.example explains: go away".to_owned();
        assert_eq!(told(Action::Reject.take(&finding).unwrap()), ("5.7.23".to_owned(), text.clone()));
        assert_eq!(told(Action::Defer.take(&finding).unwrap()), ("4.7.23".to_owned(), text));
        assert!(ALL[1..].iter().all(|outcome| code(*outcome) == "7.24"));
    }
}
