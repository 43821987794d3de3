//! The report of a dry run, for text and JSON output. The JSON of `--json` has these fields.

use pintle_mail::{Envelope, HeaderEdit};
use pintle_policy::{AuthResult, Edit, Fate, LeaseScope, Verdict};
use pintle_record::Record;
use serde::Serialize;

use super::trace::{LogLine, Recorded};

/// The report of one dry run.
#[derive(Debug, Serialize)]
pub(super) struct DryRunReport {
    pub(super) session: SessionReport,
    /// The envelope that the client sent.
    pub(super) envelope: EnvelopeReport,
    /// The message's size in octets, and whether its line ends were made CRLF.
    pub(super) size: u64,
    pub(super) mended: bool,
    /// The stages, in order.
    pub(super) stages: Vec<StageReport>,
    /// The outcome for the message.
    pub(super) fate: FateReport,
    /// Who decided: a plugin, or the gateway itself; none if the message was accepted without objection.
    pub(super) by: Option<String>,
    /// The reply that the client would get if the message is refused, or the name of the quarantine.
    pub(super) reply: Option<String>,
    /// The sum of all scores.
    pub(super) score: f64,
    /// The results for the Authentication-Results field that the gateway writes.
    pub(super) auth_results: Vec<String>,
    /// The recipients that RCPT accepted.
    pub(super) taken: Vec<String>,
    /// What becomes of recipients that do not receive the message, although it is accepted.
    pub(super) set_aside: Vec<RecipientReport>,
    /// The envelope after the plugins' changes; none if they changed nothing.
    pub(super) new_envelope: Option<EnvelopeReport>,
    /// A unified diff of the plugins' changes to the header; none if they changed nothing.
    pub(super) header_diff: Option<String>,
    /// A unified diff from that header to the stored one: trace fields, Authentication-Results, signatures.
    pub(super) written: Option<String>,
    /// The header as it would be stored; none if the message would not be stored.
    pub(super) stored_header: Option<String>,
    /// The event records that would be logged.
    pub(super) records: Vec<Record>,
    pub(super) body: BodyReport,
    /// Lines logged outside the stages, such as while plugins were loaded and by timers.
    pub(super) log: Vec<LogLine>,
    /// What the dry run does not cover.
    pub(super) not_judged: &'static [&'static str],
}

/// The outcome for the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum FateReport {
    /// Accepted for all recipients.
    Accepted,
    /// Accepted, but not for all recipients.
    AcceptedForSome,
    /// Refused permanently (5xx).
    Rejected,
    /// Refused temporarily (4xx).
    Deferred,
    /// Refused, and the session closed.
    Closed,
    /// Accepted and dropped.
    Discarded,
    /// Accepted and held in a quarantine.
    Quarantined,
}

impl FateReport {
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::AcceptedForSome => "accepted, but not for all recipients",
            Self::Rejected => "refused permanently",
            Self::Deferred => "refused temporarily",
            Self::Closed => "refused, and the session closed",
            Self::Discarded => "accepted and discarded",
            Self::Quarantined => "accepted and held in quarantine",
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct SessionReport {
    pub(super) listener: String,
    pub(super) client: String,
    pub(super) hello: String,
    pub(super) identity: Option<String>,
    pub(super) trusted: bool,
    pub(super) tls: bool,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct EnvelopeReport {
    pub(super) sender: String,
    pub(super) recipients: Vec<String>,
}

impl From<&Envelope> for EnvelopeReport {
    fn from(envelope: &Envelope) -> Self {
        let recipients = envelope.recipients.iter().map(|recipient| recipient.address.as_str().to_owned());
        Self { sender: envelope.sender.as_str().to_owned(), recipients: recipients.collect() }
    }
}

/// A recipient that does not receive an accepted message.
#[derive(Debug, Serialize)]
pub(super) struct RecipientReport {
    pub(super) recipient: String,
    /// `quarantine`, `refuse` or `discard`.
    pub(super) fate: &'static str,
    /// The plugin that requested it, or `score`.
    pub(super) by: String,
    /// The name of the quarantine, with the reason, or the reply.
    pub(super) text: Option<String>,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct BodyReport {
    pub(super) changed: bool,
    /// The size before and after the plugins' changes, in octets.
    pub(super) before: u64,
    pub(super) after: u64,
    /// A unified diff of a changed body, with `--diff-body` only.
    pub(super) diff: Option<String>,
}

/// One stage: a call of all plugins that have the hook.
#[derive(Debug, Serialize)]
pub(super) struct StageReport {
    pub(super) stage: &'static str,
    /// The recipient of `on-rcpt`, or the next hop of a delivery; otherwise none.
    pub(super) about: Option<String>,
    /// The chain's verdict.
    pub(super) verdict: &'static str,
    /// The plugin that decided; none if none did.
    pub(super) by: Option<String>,
    /// The reply that the client would get if a plugin refused.
    pub(super) reply: Option<String>,
    /// The sum of the delays that plugins asked for, in milliseconds.
    pub(super) delay_ms: u64,
    pub(super) plugins: Vec<PluginReport>,
    /// The gateway's own decisions at this stage, such as relaying.
    pub(super) gateway: Vec<String>,
    /// In deliveries: a unified diff from the stored header to the one of this delivery.
    pub(super) header_diff: Option<String>,
    /// In deliveries: the header as it would be sent.
    pub(super) header: Option<String>,
}

/// One plugin's ruling.
#[derive(Debug, Serialize)]
pub(super) struct PluginReport {
    pub(super) plugin: String,
    pub(super) verdict: &'static str,
    /// Whether it objected in vain, since another plugin had accepted.
    pub(super) overruled: bool,
    /// The reply that the plugin gave.
    pub(super) reply: Option<String>,
    /// With `--assume-known`: the reply of a deferral that was replaced by `next`.
    pub(super) assumed_known: Option<String>,
    pub(super) fault: Option<String>,
    pub(super) facts: Vec<(String, String)>,
    pub(super) scores: Vec<(String, f64)>,
    pub(super) auth_results: Vec<String>,
    /// The plugin's other edits, in words.
    pub(super) changes: Vec<String>,
    pub(super) log: Vec<LogLine>,
}

impl From<Recorded> for PluginReport {
    fn from(recorded: Recorded) -> Self {
        let verdict = recorded.ruling.name();
        let fault = recorded.ruling.fault;
        // A fault is also logged; the report has it once.
        let is_the_fault =
            |line: &LogLine| fault.as_ref().is_some_and(|fault| line.text.starts_with(&fault.text));
        let mut report = Self {
            plugin: recorded.judge.to_string(),
            verdict,
            overruled: false,
            reply: reply_text(&recorded.ruling.verdict),
            assumed_known: recorded.passed_over,
            facts: Vec::new(),
            scores: Vec::new(),
            auth_results: Vec::new(),
            changes: Vec::new(),
            log: recorded.lines.iter().filter(|line| !is_the_fault(line)).cloned().collect(),
            fault: fault.map(|fault| format!("{}: {}", fault.kind.name(), fault.text)),
        };
        recorded.ruling.edits.into_iter().for_each(|edit| report.take(edit));
        report
    }
}

impl PluginReport {
    fn take(&mut self, edit: Edit) {
        match edit {
            Edit::SessionFact(key, value) | Edit::Fact(key, value) => self.facts.push((key, value)),
            Edit::Score(rule, points) => self.scores.push((rule, points)),
            Edit::AuthResult(result) => self.auth_results.push(auth_result(&result)),
            edit => self.changes.push(change(&edit)),
        }
    }
}

/// The reply that a verdict has.
fn reply_text(verdict: &Verdict) -> Option<String> {
    match verdict {
        Verdict::Reject(reply) | Verdict::Defer(reply) => reply.as_ref().map(ToString::to_string),
        Verdict::Next | Verdict::Accept => None,
    }
}

/// Formats an authentication result on one line (RFC 8601 section 2.2).
pub(super) fn auth_result(result: &AuthResult) -> String {
    let mut text = format!("{}={}", result.method, result.outcome);
    if let Some(reason) = &result.reason {
        text += &format!(" reason={reason:?}");
    }
    for (name, value) in &result.properties {
        text += &format!(" {name}={value}");
    }
    text
}

fn change(edit: &Edit) -> String {
    match edit {
        Edit::SessionNote(key, _) => format!("sets the private note {key:?} on the session"),
        Edit::Note(key, _) => format!("sets the private note {key:?} on the transaction"),
        Edit::Offer(param) => format!("offers {}", param.name),
        Edit::Withhold(name) => format!("withholds {name}"),
        Edit::Delay(delay) => format!("delays the reply by {} ms", delay.as_millis()),
        Edit::AddRecipient(_, address) => format!("adds the recipient <{}>", address.as_str()),
        Edit::RemoveRecipient(id) => format!("removes recipient {id}"),
        Edit::RewriteRecipient(id, address) => format!("rewrites recipient {id} to <{}>", address.as_str()),
        Edit::RewriteSender(sender) => format!("rewrites the sender to <{}>", sender.as_str()),
        Edit::GrantRelay(id) => format!("allows relaying to recipient {id}"),
        Edit::Group(id, group) => format!("puts recipient {id} into the group {group:?}"),
        Edit::Fate { recipients, fate, .. } => fate_request(recipients, fate),
        Edit::Close => "closes the session after the reply".to_owned(),
        Edit::Dmarc(done) => format!("reports the DMARC disposition {}", done.disposition),
        Edit::Headers(edits) => headers(edits),
        Edit::Body(_) => "writes a new body".to_owned(),
        Edit::Sign(key) => format!("signs the message with the key {key:?}"),
        Edit::Seal(key) => format!("seals the message with the key {key:?}"),
        Edit::NextHop(hop) | Edit::UnlistedHop(hop) => format!("sends it to {hop}"),
        Edit::Tls(policy) => format!("requires at least TLS {policy:?} of the next hop"),
        Edit::Source(address) => format!("sends it from {address}"),
        Edit::Credentials(name) => format!("uses the credentials {name:?}"),
        Edit::RetryAfter(wait) => format!("tries again after {} s", wait.as_secs()),
        Edit::NoBounce(id) => format!("sends no bounce for recipient {id}"),
        Edit::Lease(LeaseScope::Session, lease) => format!("counts the session under {:?}", lease.key),
        Edit::Lease(LeaseScope::Transaction, lease) => {
            format!("counts the transaction under {:?}", lease.key)
        }
        Edit::Lease(LeaseScope::Delivery, lease) => format!("counts the attempt under {:?}", lease.key),
        Edit::SessionFact(..) | Edit::Fact(..) | Edit::Score(..) | Edit::AuthResult(_) => String::new(),
    }
}

fn fate_request(recipients: &[u32], fate: &Fate) -> String {
    let ids: Vec<_> = recipients.iter().map(ToString::to_string).collect();
    let what = if ids.is_empty() { "the mail".to_owned() } else { format!("recipients {}", ids.join(", ")) };
    match fate {
        Fate::Quarantine { name, reason } if reason.is_empty() => {
            format!("holds {what} in quarantine {name}")
        }
        Fate::Quarantine { name, reason } => format!("holds {what} in quarantine {name}: {reason}"),
        Fate::Refuse(reply) => format!("refuses {what}: {reply}"),
        Fate::Discard => format!("drops {what}"),
    }
}

fn headers(edits: &[HeaderEdit]) -> String {
    let (mut added, mut replaced, mut renamed, mut removed) = (0, 0, 0, 0);
    for edit in edits {
        match edit {
            HeaderEdit::Add { .. } | HeaderEdit::AddRaw { .. } => added += 1,
            HeaderEdit::Replace { .. } | HeaderEdit::ReplaceRaw { .. } => replaced += 1,
            HeaderEdit::Rename { .. } => renamed += 1,
            HeaderEdit::Remove(_) | HeaderEdit::RemoveAll(_) => removed += 1,
        }
    }
    let renamed = if renamed > 0 { format!("{renamed} renamed, ") } else { String::new() };
    format!("header: {added} added, {replaced} replaced, {renamed}{removed} removed")
}
