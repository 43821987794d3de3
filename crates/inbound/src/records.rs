//! What the receiving side tells the event log, made from a session's view.

use pintle_mail::{Recipient, Reply};
use pintle_policy::{Decision, Hook, Session, Transaction, View};
use pintle_record::{
    Client, Discard, Hold, PluginFault, PluginVerdict, Reception, Record, Rejection, Sink, Tls,
};

use crate::ids;

/// A message was committed, and perhaps put into a quarantine.
pub(crate) fn reception(
    sink: &dyn Sink,
    view: &View,
    transaction: &Transaction,
    size: u64,
    held: Option<&str>,
) {
    if !sink.wanted() {
        return;
    }
    let (time, id) = (ids::now(), transaction.id);
    sink.record(Record::Reception(Reception {
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
    }));
    if let Some(quarantine) = held {
        let quarantine = Some(quarantine.to_owned());
        sink.record(Record::Hold(Hold { time, id, quarantine, reason: None, by: None }));
    }
}

/// A client was told no.
pub(crate) fn rejection(
    sink: &dyn Sink,
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
    sink.record(Record::Rejection(Rejection {
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

/// Recipients were accepted and dropped.
pub(crate) fn discard(
    sink: &dyn Sink,
    transaction: &Transaction,
    stage: Hook,
    recipients: &[Recipient],
    by: Option<&str>,
) {
    metrics::counter!("pintle_discards_total", "stage" => stage.name()).increment(1);
    sink.record(Record::Discard(Discard {
        time: ids::now(),
        id: transaction.id,
        stage: stage.name().to_owned(),
        sender: transaction.envelope.sender.clone(),
        recipients: recipients.iter().map(|recipient| recipient.address.clone()).collect(),
        by: by.map(str::to_owned),
    }));
}

/// What each judge said at a stage.
pub(crate) fn verdicts(sink: &dyn Sink, view: &View, hook: Hook, decision: &Decision) {
    if !sink.wanted() {
        return;
    }
    let (session, id) = (Some(view.session.id), view.transaction.as_ref().map(|transaction| transaction.id));
    for step in &decision.steps {
        let (time, plugin, hook) = (ids::now(), step.judge.to_string(), hook.name().to_owned());
        let verdict = step.verdict.to_owned();
        sink.record(match &step.fault {
            None => Record::PluginVerdict(PluginVerdict { time, plugin, hook, verdict, session, id }),
            Some(fault) => {
                let (kind, text) = (fault.kind.name().to_owned(), fault.text.clone());
                Record::PluginFault(PluginFault { time, plugin, hook, kind, text, verdict, session, id })
            }
        });
    }
}

fn client(session: &Session) -> Client {
    Client {
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
