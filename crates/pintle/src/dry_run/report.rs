//! What a dry run found, as it is told to people and to programs. The JSON of `--json` is this, field for field.

use pintle_mail::{Envelope, HeaderEdit};
use pintle_policy::{AuthResult, Edit, Verdict};
use pintle_record::Record;
use serde::Serialize;

use super::trace::{LogLine, Recorded};

/// A whole dry run.
#[derive(Debug, Serialize)]
pub(super) struct DryRunReport {
    pub(super) session: SessionReport,
    /// As it was asked about.
    pub(super) envelope: EnvelopeReport,
    /// The message's size in octets, and whether its line ends were made CRLF.
    pub(super) size: u64,
    pub(super) mended: bool,
    /// Every question, in order.
    pub(super) stages: Vec<StageReport>,
    /// What would become of the message.
    pub(super) fate: FateReport,
    /// Who decided so, the gateway's own laws included; none where nobody objected.
    pub(super) by: Option<String>,
    /// What the client would be told, when it is refused.
    pub(super) reply: Option<String>,
    /// The sum of all points.
    pub(super) score: f64,
    /// The results for the Authentication-Results field that the gateway writes.
    pub(super) auth_results: Vec<String>,
    /// The recipients that were not refused.
    pub(super) taken: Vec<String>,
    /// The envelope that plugins have left; none when they have changed nothing.
    pub(super) new_envelope: Option<EnvelopeReport>,
    /// A unified diff of the header; none when nothing has changed.
    pub(super) header_diff: Option<String>,
    /// The same from there to the message as it would be stored: trace fields, results, signatures.
    pub(super) written: Option<String>,
    /// The header as it would be stored; none when nothing would be.
    pub(super) stored_header: Option<String>,
    /// What would stand in the event log.
    pub(super) records: Vec<Record>,
    pub(super) body: BodyReport,
    /// What was logged beside any question, such as while plugins were loaded and by timers.
    pub(super) log: Vec<LogLine>,
    /// What this answer leaves out.
    pub(super) not_judged: &'static [&'static str],
}

/// What would become of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum FateReport {
    /// Taken for all recipients.
    Accepted,
    /// Taken, but not for all.
    AcceptedForSome,
    /// Refused for good.
    Rejected,
    /// Refused for now.
    Deferred,
    /// The session would be closed.
    Closed,
    /// Taken and dropped.
    Discarded,
    /// Taken and held.
    Quarantined,
}

impl FateReport {
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::AcceptedForSome => "accepted, but not for all recipients",
            Self::Rejected => "refused for good",
            Self::Deferred => "refused for now",
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

#[derive(Debug, Default, Serialize)]
pub(super) struct BodyReport {
    pub(super) changed: bool,
    /// In octets.
    pub(super) before: u64,
    pub(super) after: u64,
    /// Of a body that was changed, where it was asked for.
    pub(super) diff: Option<String>,
}

/// One question to all plugins.
#[derive(Debug, Serialize)]
pub(super) struct StageReport {
    pub(super) stage: &'static str,
    /// The recipient, or the next hop.
    pub(super) about: Option<String>,
    /// What the chain made of all answers.
    pub(super) verdict: &'static str,
    pub(super) by: Option<String>,
    /// What the client would be told.
    pub(super) reply: Option<String>,
    pub(super) delay_ms: u64,
    pub(super) plugins: Vec<PluginReport>,
    /// What the gateway itself says to it.
    pub(super) gateway: Vec<String>,
    /// In deliveries: what is different for this one from the message that was accepted.
    pub(super) header_diff: Option<String>,
    /// In deliveries: the header as it would be sent.
    pub(super) header: Option<String>,
}

/// One plugin's answer.
#[derive(Debug, Serialize)]
pub(super) struct PluginReport {
    pub(super) plugin: String,
    pub(super) verdict: &'static str,
    /// Its own words.
    pub(super) reply: Option<String>,
    /// What it would have said to somebody whom it does not know; passed over, since everybody counts as known.
    pub(super) assumed_known: Option<String>,
    pub(super) fault: Option<String>,
    pub(super) facts: Vec<(String, String)>,
    pub(super) scores: Vec<(String, f64)>,
    pub(super) auth_results: Vec<String>,
    /// Everything else that it changes.
    pub(super) changes: Vec<String>,
    pub(super) log: Vec<LogLine>,
}

impl From<Recorded> for PluginReport {
    fn from(recorded: Recorded) -> Self {
        let fault = recorded.ruling.fault;
        // A fault is logged as well, and told once here.
        let is_the_fault =
            |line: &LogLine| fault.as_ref().is_some_and(|fault| line.text.starts_with(&fault.text));
        let mut report = Self {
            plugin: recorded.judge.to_string(),
            verdict: recorded.ruling.verdict.name(),
            reply: words_of(&recorded.ruling.verdict),
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

/// The reply or the quarantine that a verdict names.
fn words_of(verdict: &Verdict) -> Option<String> {
    match verdict {
        Verdict::Reject(reply) | Verdict::Defer(reply) | Verdict::Close(reply) => {
            reply.as_ref().map(ToString::to_string)
        }
        Verdict::Quarantine(name) => Some(name.clone()),
        Verdict::Next | Verdict::Accept | Verdict::Discard => None,
    }
}

/// RFC 8601 section 2.2, in a line.
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
        Edit::SessionNote(key, _) => format!("notes {key:?} for itself, on the session"),
        Edit::Note(key, _) => format!("notes {key:?} for itself, on the transaction"),
        Edit::Offer(param) => format!("offers {}", param.name),
        Edit::Withhold(name) => format!("withholds {name}"),
        Edit::Delay(delay) => format!("delays the reply by {} ms", delay.as_millis()),
        Edit::AddRecipient(_, address) => format!("adds the recipient <{}>", address.as_str()),
        Edit::RemoveRecipient(id) => format!("removes recipient {id}"),
        Edit::RewriteRecipient(id, address) => format!("rewrites recipient {id} to <{}>", address.as_str()),
        Edit::RewriteSender(sender) => format!("rewrites the sender to <{}>", sender.as_str()),
        Edit::GrantRelay(id) => format!("lets recipient {id} be relayed"),
        Edit::Headers(edits) => headers(edits),
        Edit::Body(_) => "writes a new body".to_owned(),
        Edit::Sign(key) => format!("has it signed with the key {key:?}"),
        Edit::Seal(key) => format!("has it sealed with the key {key:?}"),
        Edit::NextHop(hop) | Edit::UnlistedHop(hop) => format!("sends it to {hop}"),
        Edit::Tls(policy) => format!("demands at least TLS {policy:?} of the next hop"),
        Edit::Source(address) => format!("sends it from {address}"),
        Edit::Credentials(name) => format!("uses the credentials {name:?}"),
        Edit::RetryAfter(wait) => format!("tries again after {} s", wait.as_secs()),
        Edit::NoBounce(id) => format!("sends no bounce for recipient {id}"),
        Edit::SessionFact(..) | Edit::Fact(..) | Edit::Score(..) | Edit::AuthResult(_) => String::new(),
    }
}

fn headers(edits: &[HeaderEdit]) -> String {
    let (mut added, mut replaced, mut renamed, mut removed) = (0, 0, 0, 0);
    for edit in edits {
        match edit {
            HeaderEdit::Add { .. } => added += 1,
            HeaderEdit::Replace { .. } => replaced += 1,
            HeaderEdit::Rename { .. } => renamed += 1,
            HeaderEdit::Remove(_) | HeaderEdit::RemoveAll(_) => removed += 1,
        }
    }
    let renamed = if renamed > 0 { format!("{renamed} renamed, ") } else { String::new() };
    format!("header: {added} added, {replaced} replaced, {renamed}{removed} removed")
}
