//! Events of plugins: verdicts and faults.

use pintle_mail::{QueueId, SessionId, UnixTime};
use serde::{Deserialize, Serialize};

use crate::{Record, RecordSink, stamp};

/// A plugin gave a verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PluginVerdict {
    /// When it happened, by the wall clock.
    #[serde(with = "stamp")]
    pub time: UnixTime,
    /// The plugin's name in the configuration.
    pub plugin: String,
    /// The hook: `rcpt`, `message`, …
    pub hook: String,
    /// `next`, `accept`, `reject`, `defer`; or, beside the verdict `next`, what it requests first: `quarantine`, `discard`,
    /// `refuse`, `close`.
    pub verdict: String,
    /// Whether the plugin objected in vain, since another one had accepted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overruled: bool,
    /// The session, in the hooks that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// The message, in the hooks that have one.
    #[serde(default, rename = "queue-id", alias = "id", skip_serializing_if = "Option::is_none")]
    pub id: Option<QueueId>,
}

/// A plugin's call failed, and another verdict took its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PluginFault {
    /// When it happened, by the wall clock.
    #[serde(with = "stamp")]
    pub time: UnixTime,
    /// The plugin's name in the configuration.
    pub plugin: String,
    /// The hook: `rcpt`, `message`, …
    pub hook: String,
    /// The kind of fault: `trap`, `timeout`, `memory`, `limit`, `busy`, `bad-answer`, `not-loaded`.
    pub kind: String,
    /// The error as text for the operator.
    pub text: String,
    /// The verdict that was used instead, as `on_fault` says.
    pub verdict: String,
    /// The session, in the hooks that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// The message, in the hooks that have one.
    #[serde(default, rename = "queue-id", alias = "id", skip_serializing_if = "Option::is_none")]
    pub id: Option<QueueId>,
}

/// One plugin's part in a stage: a fault, which is always recorded, or a verdict, which is recorded only on request.
#[derive(Debug, Clone, Copy)]
pub struct PluginStep<'a> {
    /// The plugin's name in the configuration.
    pub plugin: &'a str,
    /// The hook's name: `rcpt`, `message`, …
    pub hook: &'a str,
    /// The name of its verdict, or of the one that took the place of a fault.
    pub verdict: &'a str,
    /// Whether it objected in vain, since another one had accepted.
    pub overruled: bool,
    /// The kind and the text of the fault, if there was one.
    pub fault: Option<(&'a str, &'a str)>,
    /// The session, while there is one.
    pub session: Option<SessionId>,
    /// The message, from MAIL on.
    pub id: Option<QueueId>,
}

impl PluginStep<'_> {
    /// Records it, if the sink wants such records.
    pub fn record(self, sink: &dyn RecordSink, time: UnixTime) {
        let (plugin, hook) = (self.plugin.to_owned(), self.hook.to_owned());
        let (verdict, session, id) = (self.verdict.to_owned(), self.session, self.id);
        match self.fault {
            Some((kind, text)) if sink.wanted() => {
                let (kind, text) = (kind.to_owned(), text.to_owned());
                sink.record(&Record::PluginFault(PluginFault {
                    time,
                    plugin,
                    hook,
                    kind,
                    text,
                    verdict,
                    session,
                    id,
                }));
            }
            None if sink.wants_verdicts() => {
                sink.record(&Record::PluginVerdict(PluginVerdict {
                    time,
                    plugin,
                    hook,
                    verdict,
                    overruled: self.overruled,
                    session,
                    id,
                }));
            }
            _ => {}
        }
    }
}
