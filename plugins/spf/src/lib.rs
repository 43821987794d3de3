//! SPF (RFC 7208): may this client send mail in the sender's name? The gateway finds out; what each result means for the
//! mail is configured here, and by default it means nothing.
//!
//! The MAIL FROM identity decides, or the HELO identity where the reverse-path is null; a HELO name that forbids the client
//! counts as well. Clients in trusted networks and authenticated ones are not asked about, for they send as others by
//! right.

use pintle_plugin_sdk::sender_auth::{self, Outcome, SpfResult};
use pintle_plugin_sdk::settings::Network;
use pintle_plugin_sdk::{metrics, prelude::*};

/// What the operator may configure.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Spf {
    /// What each result means.
    fail: Action,
    softfail: Action,
    permerror: Action,
    temperror: Action,
    neutral: Action,
    none: Action,
    /// A fail of the HELO name is a fail.
    hello: bool,
    /// Clients that are not asked about: forwarders, which send in everybody's name.
    exempt_networks: Vec<Network>,
}

impl Default for Spf {
    fn default() -> Self {
        let nothing = Action::Word(Word::PassOn);
        Self {
            fail: nothing,
            softfail: nothing,
            permerror: nothing,
            temperror: nothing,
            neutral: nothing,
            none: nothing,
            hello: true,
            exempt_networks: Vec::new(),
        }
    }
}

/// What a result means for the mail.
#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize)]
#[serde(untagged)]
enum Action {
    /// So many points.
    Points(f64),
    Word(Word),
}

#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Word {
    PassOn,
    Defer,
    Reject,
}

impl Plugin for Spf {
    const ID: &'static str = "pintle.spf";
    const WANTS: &'static [&'static str] = &["sender-auth"];
    const CONFIG_SCHEMA: Option<&'static str> = Some(include_str!("../config.schema.json"));
}

impl Spf {
    fn on_mail(&self) -> Result<Verdict, HostError> {
        let session = session::info();
        let exempt = self.exempt_networks.iter().any(|network| network.contains(&session.client));
        if session.trusted || session.identity.is_some() || exempt {
            return Ok(Verdict::Next);
        }
        let results = sender_auth::spf()?;
        for result in &results {
            report(result)?;
        }
        let Some(deciding) = self.deciding(&results) else {
            return Ok(Verdict::Next);
        };
        let name = deciding.outcome.name();
        transaction::set_fact("spf", name)?;
        metrics::count("results", 1, &[("result", name)]);
        match self.action(deciding.outcome) {
            Action::Points(points) => {
                transaction::add_score(name, points)?;
                Ok(Verdict::Next)
            }
            Action::Word(Word::PassOn) => Ok(Verdict::Next),
            Action::Word(word) => {
                info!(client = session.client, domain = deciding.domain; "refused: {name}");
                Ok(refusal(word, deciding))
            }
        }
    }

    /// The result that is acted on.
    fn deciding<'r>(&self, results: &'r [SpfResult]) -> Option<&'r SpfResult> {
        let hello = results.iter().find(|result| !result.mail_from);
        let forbidden = hello.filter(|result| self.hello && result.outcome == Outcome::Fail);
        let sender = results.iter().find(|result| result.mail_from);
        forbidden.or(sender).or(hello)
    }

    fn action(&self, outcome: Outcome) -> Action {
        match outcome {
            Outcome::Fail => self.fail,
            Outcome::Softfail => self.softfail,
            Outcome::Permerror => self.permerror,
            Outcome::Temperror => self.temperror,
            Outcome::Neutral => self.neutral,
            Outcome::None => self.none,
            Outcome::Pass | Outcome::Policy => Action::Word(Word::PassOn),
        }
    }
}

/// For the Authentication-Results field (RFC 8601 section 2.7.2).
fn report(result: &SpfResult) -> Result<(), HostError> {
    let property = if result.mail_from { "smtp.mailfrom" } else { "smtp.helo" };
    let properties = [(property.to_owned(), result.domain.clone())];
    transaction::add_auth_result("spf", result.outcome.name(), None, &properties)
}

/// The enhanced codes are those of RFC 7372 section 3.2; the owner's words are shown as his (RFC 7208 section 6.2).
fn refusal(word: Word, result: &SpfResult) -> Verdict {
    let (outcome, domain) = (result.outcome, &result.domain);
    let code = if outcome == Outcome::Fail { "7.23" } else { "7.24" };
    let mut text = format!("SPF of {domain}: {}", outcome.name());
    if let Some(explanation) = &result.explanation {
        text.push_str(&format!("; {domain} explains: {explanation}"));
    }
    match word {
        Word::Reject => reject(&format!("5.{code}"), text),
        _ => defer(&format!("4.{code}"), text),
    }
}

pintle_plugin_sdk::export!(Spf: on_mail);

#[cfg(test)]
mod tests {
    use super::*;

    fn result(mail_from: bool, outcome: Outcome) -> SpfResult {
        SpfResult { outcome, domain: "a.example".to_owned(), mail_from, explanation: None }
    }

    #[test]
    fn the_sender_decides_unless_hello_is_forbidden_or_alone() {
        let spf = Spf::default();
        let decides =
            |spf: &Spf, results: &[SpfResult]| spf.deciding(results).map(|it| (it.mail_from, it.outcome));
        let forged = [result(false, Outcome::Fail), result(true, Outcome::Pass)];
        assert_eq!(decides(&spf, &forged), Some((false, Outcome::Fail)));
        let lenient = Spf { hello: false, ..Spf::default() };
        assert_eq!(decides(&lenient, &forged), Some((true, Outcome::Pass)));
        let plain = [result(false, Outcome::None), result(true, Outcome::Softfail)];
        assert_eq!(decides(&spf, &plain), Some((true, Outcome::Softfail)));
        assert_eq!(decides(&spf, &plain[..1]), Some((false, Outcome::None)));
        assert_eq!(decides(&spf, &[]), None);
    }

    #[test]
    fn by_default_nothing_is_refused() {
        for outcome in
            [Outcome::Fail, Outcome::Softfail, Outcome::Permerror, Outcome::Temperror, Outcome::None]
        {
            assert_eq!(Spf::default().action(outcome), Action::Word(Word::PassOn));
        }
    }
}
