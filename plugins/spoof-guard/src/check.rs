//! The spoofing checks: names, default actions, and the texts of findings.

use std::collections::BTreeMap;

use pintle_plugin_sdk::action::{self, Action};
use serde::Deserialize;

/// One check. The README describes each, with the reasons for its default action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Check {
    NullFrom,
    NoDomain,
    SeveralFrom,
    SeveralAuthors,
    TwoAddresses,
    EncodedAddress,
    ControlCharacters,
    BidiCharacters,
    InvisibleCharacters,
    PaddedName,
    DisplayAddress,
    DisplayRelayed,
    DisplayProtectedAddress,
    OwnPerson,
    OwnDomain,
    OwnDomainRelayed,
    LookalikeDomain,
    MixedScript,
    TypoDomain,
    CousinDomain,
}

impl Check {
    /// The name in configuration, facts, counters and logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::NullFrom => "null-from",
            Self::NoDomain => "no-domain",
            Self::SeveralFrom => "several-from",
            Self::SeveralAuthors => "several-authors",
            Self::TwoAddresses => "two-addresses",
            Self::EncodedAddress => "encoded-address",
            Self::ControlCharacters => "control-characters",
            Self::BidiCharacters => "bidi-characters",
            Self::InvisibleCharacters => "invisible-characters",
            Self::PaddedName => "padded-name",
            Self::DisplayAddress => "display-address",
            Self::DisplayRelayed => "display-relayed",
            Self::DisplayProtectedAddress => "display-protected-address",
            Self::OwnPerson => "own-person",
            Self::OwnDomain => "own-domain",
            Self::OwnDomainRelayed => "own-domain-relayed",
            Self::LookalikeDomain => "lookalike-domain",
            Self::MixedScript => "mixed-script",
            Self::TypoDomain => "typo-domain",
            Self::CousinDomain => "cousin-domain",
        }
    }

    /// Only what no working mail program writes is refused; what may be legitimate is held, so that nothing is lost.
    fn default_action(self) -> Action {
        match self {
            Self::NullFrom | Self::SeveralFrom | Self::TwoAddresses => Action::Reject,
            Self::SeveralAuthors
            | Self::EncodedAddress
            | Self::ControlCharacters
            | Self::BidiCharacters
            | Self::DisplayProtectedAddress
            | Self::OwnPerson
            | Self::OwnDomain
            | Self::LookalikeDomain
            | Self::MixedScript
            | Self::TypoDomain
            | Self::CousinDomain => Action::Quarantine,
            Self::InvisibleCharacters | Self::PaddedName => Action::Score(3.0),
            Self::DisplayAddress => Action::Score(2.0),
            Self::NoDomain => Action::Score(1.0),
            Self::DisplayRelayed | Self::OwnDomainRelayed => Action::PassOn,
        }
    }
}

/// The result of a check that matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SpoofFinding {
    pub(crate) check: Check,
    /// Text for the log and for the sender: what is wrong, and how to correct it.
    pub(crate) text: String,
    /// DNS failed, so the message may be authentic after all.
    pub(crate) undecided: bool,
}

impl SpoofFinding {
    pub(crate) fn new(check: Check, text: impl Into<String>) -> Self {
        Self { check, text: text.into(), undecided: false }
    }

    /// The text for the sender.
    pub(crate) fn told(&self) -> action::ActionReason<'_> {
        let code = if is_unauthenticated(self.check) { "7.26" } else { "7.1" };
        action::ActionReason { rule: self.check.name(), quarantine: "spoof-guard", code, text: &self.text }
    }
}

/// The operator's actions, which override the defaults.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct Actions(BTreeMap<Check, Action>);

impl Actions {
    /// The action for a finding. While DNS cannot decide it, the mail is deferred instead of being held or refused
    /// permanently, and gets no score.
    pub(crate) fn of(&self, finding: &SpoofFinding) -> Action {
        let action = self.0.get(&finding.check).copied().unwrap_or_else(|| finding.check.default_action());
        match action {
            Action::Quarantine | Action::Reject if finding.undecided => Action::Defer,
            Action::Score(_) if finding.undecided => Action::PassOn,
            action => action,
        }
    }

    /// The score of each check, which is the sum of its findings. No check is made in both hooks.
    pub(crate) fn scores(&self, findings: &[SpoofFinding]) -> BTreeMap<Check, f64> {
        let mut scores = BTreeMap::new();
        for finding in findings {
            if let Action::Score(points) = self.of(finding) {
                *scores.entry(finding.check).or_default() += points;
            }
        }
        scores
    }

    /// The finding with the strongest action that stops the mail; the first of several.
    pub(crate) fn decisive<'f>(&self, findings: &'f [SpoofFinding]) -> Option<&'f SpoofFinding> {
        let stops = findings.iter().rev().filter(|finding| self.of(finding).stops());
        stops.max_by_key(|finding| strength(self.of(finding)))
    }
}

/// RFC 7372 section 3.3 defines a status code for mail that no check authenticates.
fn is_unauthenticated(check: Check) -> bool {
    matches!(check, Check::OwnDomain | Check::OwnDomainRelayed)
}

fn strength(action: Action) -> u8 {
    match action {
        Action::PassOn | Action::Score(_) => 0,
        Action::Quarantine => 1,
        Action::Defer => 2,
        Action::Reject => 3,
    }
}

/// A part of the message for a reply or a log line: truncated, and without misleading characters.
pub(crate) fn quoted(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_graphic() || c.is_alphanumeric() || c == ' ' { c } else { '?' };
    let mut quoted: String = text.chars().take(80).map(plain).collect();
    if text.chars().nth(80).is_some() {
        quoted.push('…');
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(check: Check) -> SpoofFinding {
        SpoofFinding::new(check, "text")
    }

    #[test]
    fn the_strongest_action_decides_and_points_alone_let_pass() {
        let mut actions = Actions::default();
        let found = [Check::DisplayAddress, Check::TwoAddresses, Check::LookalikeDomain].map(finding);
        assert_eq!(actions.decisive(&found).unwrap().check, Check::TwoAddresses);
        assert_eq!(actions.of(&found[2]), Action::Quarantine);
        assert_eq!(actions.decisive(&found[..1]), None);
        assert_eq!(actions.decisive(&[]), None);
        actions.0.insert(Check::DisplayAddress, Action::Reject);
        assert_eq!(actions.decisive(&found[..1]), Some(&found[0]));
    }

    #[test]
    fn the_findings_of_a_check_are_summed() {
        let found =
            [Check::DisplayAddress, Check::PaddedName, Check::DisplayAddress, Check::NullFrom].map(finding);
        let scores = Actions::default().scores(&found);
        assert_eq!(scores, BTreeMap::from([(Check::DisplayAddress, 4.0), (Check::PaddedName, 3.0)]));
    }

    #[test]
    fn what_dns_could_not_decide_is_deferred() {
        let mut actions = Actions::default();
        let mut own = finding(Check::OwnDomain);
        own.undecided = true;
        assert_eq!((actions.of(&own), own.told().code), (Action::Defer, "7.26"));
        actions.0.insert(Check::OwnDomain, Action::Score(2.0));
        assert_eq!(actions.of(&own), Action::PassOn);
    }

    #[test]
    fn what_is_quoted_plays_no_tricks() {
        assert_eq!(quoted("a\u{202e}b\r\n\0ü"), "a?b???ü");
        assert_eq!(quoted(&"x".repeat(81)).chars().count(), 81);
    }
}
