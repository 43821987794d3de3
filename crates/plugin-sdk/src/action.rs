//! What a finding means for the mail, as operators say it in a plugin's configuration: a word, or a number of points.

use serde::Deserialize;

use crate::{HostError, Verdict, defer, reject, transaction};

/// What a finding means.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "WrittenAction")]
pub enum Action {
    /// Nothing: it is counted and reported.
    PassOn,
    /// This many points for the operator's thresholds; negative points count in favour of the message.
    Score(f64),
    /// The mail is refused for now.
    Defer,
    /// The message is taken and held.
    Quarantine,
    /// The mail is refused permanently (550).
    Reject,
}

/// Why an action is taken, with the texts for the log and the sender.
pub struct ActionReason<'a> {
    /// The rule of the points.
    pub rule: &'a str,
    /// The name of the quarantine.
    pub quarantine: &'a str,
    /// An enhanced status code without its class: `7.26`.
    pub code: &'a str,
    /// The reason, as text for the sender of the message.
    pub text: &'a str,
}

impl Action {
    /// The words that operators write.
    pub const WORDS: [(&'static str, Self); 4] = [
        ("pass-on", Self::PassOn),
        ("defer", Self::Defer),
        ("quarantine", Self::Quarantine),
        ("reject", Self::Reject),
    ];

    /// Whether the mail is refused or held.
    #[must_use]
    pub fn stops(self) -> bool {
        matches!(self, Self::Defer | Self::Quarantine | Self::Reject)
    }

    /// Does it: gives the points, or the verdict.
    ///
    /// # Errors
    ///
    /// There is no transaction to give points to.
    pub fn take(self, finding: &ActionReason<'_>) -> Result<Verdict, HostError> {
        Ok(match self {
            Self::PassOn => Verdict::Next,
            Self::Score(points) => {
                transaction::add_score(finding.rule, points)?;
                Verdict::Next
            }
            Self::Defer => defer(&format!("4.{}", finding.code), finding.text),
            Self::Quarantine => Verdict::Quarantine(finding.quarantine.to_owned()),
            Self::Reject => reject(&format!("5.{}", finding.code), finding.text),
        })
    }
}

/// As it stands in the configuration.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected \"pass-on\", \"defer\", \"quarantine\", \"reject\" or a number of points"
)]
enum WrittenAction {
    Points(f64),
    Word(String),
}

impl TryFrom<WrittenAction> for Action {
    type Error = String;

    fn try_from(written: WrittenAction) -> Result<Self, String> {
        let word = match written {
            WrittenAction::Points(points) => return Ok(Self::Score(points)),
            WrittenAction::Word(word) => word,
        };
        let known = Self::WORDS.iter().find(|(known, _)| *known == word);
        known.map(|(_, action)| *action).ok_or_else(|| {
            format!(
                "{word:?} is no action: write \"pass-on\", \"defer\", \"quarantine\", \"reject\" or a number of points"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Action, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn actions_are_words_or_points() {
        assert_eq!(read("\"reject\""), Ok(Action::Reject));
        assert_eq!(read("\"pass-on\""), Ok(Action::PassOn));
        assert_eq!(read("-2"), Ok(Action::Score(-2.0)));
        assert!(read("\"drop\"").unwrap_err().contains("\"drop\" is no action: write \"pass-on\""));
        assert!(read("true").unwrap_err().contains("or a number of points"));
    }
}
