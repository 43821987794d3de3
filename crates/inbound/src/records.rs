//! Writes the receiving side's records to the event log, from a session's view.

use pintle_mail::{Recipient, Reply};
use pintle_policy::{Decision, Hook, Session, Transaction, View};
use pintle_record::{
    ClientMembers, Discard, DkimCheck, DmarcEvaluation, DmarcPublished, Hold, MAX_SHOWN, PluginStep,
    Reception, Record, RecordSink, Rejection, SpfCheck, Tls,
};
use pintle_sender_auth::{DkimResult, Findings, PublishedPolicy, SpfIdentity, SpfResult};

use crate::ids;

/// Records that a message was committed, and perhaps put into a quarantine.
pub(crate) fn reception(
    sink: &dyn RecordSink,
    view: &View,
    transaction: &Transaction,
    size: u64,
    held: Option<&pintle_spool::Quarantine>,
) {
    if held.is_some() {
        metrics::counter!("pintle_quarantine_total", "act" => "quarantined").increment(1);
    }
    if !sink.wanted() {
        return;
    }
    let (time, id) = (ids::now(), transaction.id);
    sink.record(&Record::Reception(Reception {
        time,
        id,
        from: client(&view.session),
        sender: transaction.envelope.sender.clone(),
        recipients: transaction
            .envelope
            .recipients
            .iter()
            .map(|recipient| recipient.address.clone())
            .collect(),
        size,
        message_id: field(view, "Message-ID"),
        subject: field(view, "Subject"),
    }));
    if let Some(held) = held {
        let (quarantine, by) = (Some(held.name.clone()), held.by.clone());
        sink.record(&Record::Hold(Hold { time, id, quarantine, reason: held.reason.clone(), by }));
    }
}

/// Returns the first field of this name for the record, truncated and sanitized, because it is untrusted text.
fn field(view: &View, name: &str) -> Option<String> {
    let header = &view.message.as_deref()?.header;
    let value = header.named(name).next()?.value();
    Some(pintle_mail::shown(&value, MAX_SHOWN)).filter(|shown| !shown.is_empty())
}

/// Records that a client was refused.
pub(crate) fn rejection(
    sink: &dyn RecordSink,
    view: &View,
    stage: Hook,
    recipient: Option<&Recipient>,
    reply: &Reply,
    by: Option<&str>,
) {
    metrics::counter!("pintle_refusals_total", "stage" => stage.name()).increment(1);
    if !sink.wanted() {
        return;
    }
    let transaction = view.transaction.as_deref();
    sink.record(&Record::Rejection(Rejection {
        time: ids::now(),
        id: transaction.map(|transaction| transaction.id),
        from: client(&view.session),
        stage: stage.name().to_owned(),
        sender: transaction.map(|transaction| transaction.envelope.sender.clone()),
        recipient: recipient.map(|recipient| recipient.address.clone()),
        reply: reply.clone(),
        by: by.map(str::to_owned),
    }));
}

/// Records that recipients were accepted and dropped.
pub(crate) fn discard(
    sink: &dyn RecordSink,
    transaction: &Transaction,
    stage: Hook,
    recipients: &[Recipient],
    by: Option<&str>,
) {
    metrics::counter!("pintle_discards_total", "stage" => stage.name()).increment(1);
    sink.record(&Record::Discard(Discard {
        time: ids::now(),
        id: transaction.id,
        stage: stage.name().to_owned(),
        sender: transaction.envelope.sender.clone(),
        recipients: recipients.iter().map(|recipient| recipient.address.clone()).collect(),
        by: by.map(str::to_owned),
        quarantine: None,
        user: None,
    }));
}

/// Records the verdict of each judge at a stage.
pub(crate) fn verdicts(sink: &dyn RecordSink, view: &View, hook: Hook, decision: &Decision) {
    for step in &decision.steps {
        let told = PluginStep {
            plugin: &step.judge,
            hook: hook.name(),
            verdict: step.verdict,
            overruled: step.overruled,
            fault: step.fault.as_ref().map(|fault| (fault.kind.name(), fault.text.as_str())),
            session: Some(view.session.id),
            id: view.transaction.as_ref().map(|transaction| transaction.id),
        };
        told.record(sink, ids::now());
    }
}

/// Records the DMARC result of a message from an untrusted client. What was done about it is what a plugin
/// with the grant for it has reported; without a report, nothing was done.
pub(crate) fn dmarc(sink: &dyn RecordSink, view: &View) {
    let Some(transaction) = view.transaction.as_deref().filter(|_| sink.wanted()) else {
        return;
    };
    let findings = transaction.computed.slot::<Findings>();
    let Some((result, published)) =
        findings.dmarc.get().and_then(|result| Some((result, result.published.as_ref()?)))
    else {
        return;
    };
    let done = transaction.dmarc.as_ref();
    let sender = transaction.received_sender().address();
    let mut envelope_to: Vec<_> =
        transaction.envelope.recipients.iter().map(|recipient| recipient.address.domain_ascii()).collect();
    envelope_to.sort_unstable();
    envelope_to.dedup();
    sink.record(&Record::DmarcEvaluation(DmarcEvaluation {
        time: ids::now(),
        id: transaction.id,
        from: client(&view.session),
        header_from: result.from_domain.clone(),
        envelope_from: sender.map(pintle_mail::Address::domain_ascii).unwrap_or_default(),
        envelope_to,
        published: as_published(published),
        result: result.outcome.to_string(),
        spf_aligned: result.spf_aligned,
        dkim_aligned: result.dkim_aligned,
        disposition: done.map_or_else(|| "none".to_owned(), |done| done.disposition.clone()),
        overridden: done.and_then(|done| done.override_reason.clone()),
        spf: findings.spf.get().into_iter().flat_map(|results| results.iter()).map(spf_check).collect(),
        dkim: findings.signatures.get().into_iter().flat_map(|all| &all.dkim).map(dkim_check).collect(),
    }));
}

fn as_published(published: &PublishedPolicy) -> DmarcPublished {
    DmarcPublished {
        domain: published.domain.clone(),
        policy: published.policy.name().to_owned(),
        subdomains: published.subdomains.name().to_owned(),
        missing: published.missing.name().to_owned(),
        strict_spf: published.strict_spf,
        strict_dkim: published.strict_dkim,
        testing: published.testing,
        report_to: published.report_to.clone(),
    }
}

fn spf_check(result: &SpfResult) -> SpfCheck {
    let scope = if result.identity == SpfIdentity::MailFrom { "mfrom" } else { "helo" };
    SpfCheck { domain: result.domain.clone(), scope: scope.to_owned(), result: result.outcome.to_string() }
}

fn dkim_check(result: &DkimResult) -> DkimCheck {
    DkimCheck {
        domain: result.domain.clone(),
        selector: result.selector.clone(),
        result: result.outcome.to_string(),
    }
}

fn client(session: &Session) -> ClientMembers {
    ClientMembers {
        session: session.id,
        listener: session.listener.clone(),
        client: session.client,
        hello: session.hello.clone(),
        identity: session.identity.clone(),
        tls: session.tls.as_ref().map(|tls| Tls {
            version: tls.version.clone(),
            cipher: tls.cipher.clone(),
            verified: tls.client_certificate_verified,
        }),
    }
}
