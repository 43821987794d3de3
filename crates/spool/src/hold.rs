//! Holds: why a message is not delivered, and who decided that.
//!
//! A quarantine is a verdict about a message, an operator's hold is a request. The verdict takes precedence: an
//! operator who holds a message in quarantine changes nothing, so that it does not become one that may be reported to a
//! forged sender by accident. The same applies to a hold that a later version wrote.

use std::fmt;

use pintle_mail::UnixTime;
use serde::{Deserialize, Serialize};

/// Why a message is not delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HoldReason {
    /// A verdict put it into this quarantine.
    Quarantine(Quarantine),
    /// The operator holds it, for this reason.
    Operator(String),
    /// A hold that this version does not know, as the later version wrote it. It is a hold all the same.
    #[serde(untagged)]
    Other(serde_json::Value),
}

/// The verdict that a person must look at a message before it goes anywhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredQuarantine")]
pub struct Quarantine {
    /// The quarantine's name, chosen by the verdict.
    pub name: String,
    /// When it was quarantined. The time for which it is kept counts from here.
    pub since: UnixTime,
    /// The plugin or built-in check that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// At which stage: `headers`, `message`, `deliver`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// The reason, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The forms on disk: earlier versions wrote the name alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum StoredQuarantine {
    Name(String),
    Whole {
        name: String,
        #[serde(default)]
        since: UnixTime,
        #[serde(default)]
        by: Option<String>,
        #[serde(default)]
        stage: Option<String>,
        #[serde(default)]
        reason: Option<String>,
    },
}

impl HoldReason {
    /// The quarantine. None for other holds.
    #[must_use]
    pub fn quarantine(&self) -> Option<&Quarantine> {
        match self {
            Self::Quarantine(quarantine) => Some(quarantine),
            Self::Operator(_) | Self::Other(_) => None,
        }
    }

    /// Whether this hold replaces the one that the message has: an operator's never replaces a verdict.
    pub(crate) fn replaces(&self, before: Option<&Self>) -> bool {
        matches!(self, Self::Quarantine(_)) || matches!(before, None | Some(Self::Operator(_)))
    }
}

impl Quarantine {
    /// A quarantine of this name, since this time.
    #[must_use]
    pub fn new(name: impl Into<String>, since: UnixTime) -> Self {
        Self { name: name.into(), since, by: None, stage: None, reason: None }
    }

    /// Fills in the time that earlier versions did not write: the one at which the message was received.
    pub(crate) fn dated(&mut self, received: UnixTime) {
        if self.since == UnixTime::default() {
            self.since = received;
        }
    }
}

impl From<StoredQuarantine> for Quarantine {
    fn from(written: StoredQuarantine) -> Self {
        match written {
            StoredQuarantine::Name(name) => Self::new(name, UnixTime::default()),
            StoredQuarantine::Whole { name, since, by, stage, reason } => {
                Self { name, since, by, stage, reason }
            }
        }
    }
}

impl fmt::Display for HoldReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quarantine(quarantine) => write!(f, "quarantine {}", quarantine.name),
            Self::Operator(reason) => write!(f, "held: {reason}"),
            Self::Other(what) => write!(f, "held by a later version: {what}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_earlier_versions_wrote_is_read_and_dated() {
        let hold: HoldReason = serde_json::from_str(r#"{"quarantine":"viruses"}"#).unwrap();
        let HoldReason::Quarantine(mut quarantine) = hold else { panic!("{hold:?}") };
        quarantine.dated(UnixTime::from_millis(7));
        assert_eq!(quarantine, Quarantine::new("viruses", UnixTime::from_millis(7)));
    }

    #[test]
    fn a_hold_of_a_later_version_is_a_hold_and_stays_as_it_was() {
        for text in [r#"{"embargo":{"until":7}}"#, r#""frozen""#, r#"{"quarantine":{"label":7}}"#] {
            let hold: HoldReason = serde_json::from_str(text).unwrap();
            assert!(matches!(hold, HoldReason::Other(_)), "{text}");
            assert_eq!(serde_json::to_string(&hold).unwrap(), text);
            assert!(!HoldReason::Operator("mine".to_owned()).replaces(Some(&hold)));
        }
    }

    #[test]
    fn what_is_written_comes_back() {
        let by = Some("dmarc".to_owned());
        let stage = Some("message".to_owned());
        let quarantine = Quarantine { by, stage, ..Quarantine::new("spoofed", UnixTime::from_millis(9)) };
        for hold in [HoldReason::Quarantine(quarantine), HoldReason::Operator("look".to_owned())] {
            let text = serde_json::to_string(&hold).unwrap();
            assert_eq!(serde_json::from_str::<HoldReason>(&text).unwrap(), hold, "{text}");
        }
    }
}
