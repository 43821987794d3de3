//! Actions: how a finding affects the mail, configured by operators as a word or a score.

use serde::Deserialize;

use crate::{HostError, Verdict, defer, reject, transaction};

/// The action for a finding.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "WrittenAction")]
pub enum Action {
    /// No effect on the mail: the finding is only counted and reported.
    PassOn,
    /// Counts in the message's score for the operator's thresholds; negative values count in favour of the message.
    Score(f64),
    /// Refuse temporarily (451).
    Defer,
    /// Accept the message and hold it in a quarantine.
    Quarantine,
    /// Refuse permanently (550).
    Reject,
}

/// The reason for an action, with the texts for the log and the sender.
pub struct ActionReason<'a> {
    /// Rule name under which the score is recorded.
    pub rule: &'a str,
    /// Name of the quarantine: 1 to 32 lower-case letters, digits and hyphens.
    pub quarantine: &'a str,
    /// Enhanced status code without its class, such as `7.26`.
    pub code: &'a str,
    /// The reason, as text for the sender of the message.
    pub text: &'a str,
}

impl Action {
    /// The configuration words and their actions.
    pub const WORDS: [(&'static str, Self); 4] = [
        ("pass-on", Self::PassOn),
        ("defer", Self::Defer),
        ("quarantine", Self::Quarantine),
        ("reject", Self::Reject),
    ];

    /// Whether the action refuses or holds the mail.
    #[must_use]
    pub fn stops(self) -> bool {
        matches!(self, Self::Defer | Self::Quarantine | Self::Reject)
    }

    /// Performs the action: sets the score of the rule, which replaces an earlier one of the same rule; requests the
    /// quarantine for all recipients; or returns the verdict.
    ///
    /// # Errors
    ///
    /// There is no transaction to record the score or the quarantine in.
    pub fn take(self, finding: &ActionReason<'_>) -> Result<Verdict, HostError> {
        Ok(match self {
            Self::PassOn => Verdict::Next,
            Self::Score(points) => {
                transaction::set_score(finding.rule, points)?;
                Verdict::Next
            }
            Self::Defer => defer(&format!("4.{}", finding.code), finding.text),
            Self::Quarantine => {
                transaction::quarantine(&[], finding.quarantine, cut(finding.text))?;
                Verdict::Next
            }
            Self::Reject => reject(&format!("5.{}", finding.code), finding.text),
        })
    }
}

/// The host refuses a longer reason for a quarantine, in octets. Texts may contain words of senders and domain owners, who
/// must not be able to make the plugin fail.
const MAX_REASON: usize = 512;

fn cut(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(MAX_REASON)]
}

/// The configured form: a word or a number.
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
    fn a_reason_is_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        assert_eq!(cut(&format!("{}\u{e9}\u{e9}", "a".repeat(511))).len(), 511);
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
