//! Builds the report of a dry run from the SMTP exchanges, the recorded rulings and the planned deliveries.

use pintle_inbound::dry_run::{AskedQuestion, DryRunExchange, HeardReply};
use pintle_mail::{Body, BodyError, NextHop, Recipient};
use pintle_outbound::dry_run::PlannedDelivery;
use pintle_policy::{Decision, Edit, Fate, Hook, Transaction, Verdict, View};
use pintle_record::Record;
use pintle_spool::Stored;

use super::diff::unified;
use super::mail::MailFile;
use super::report::{
    BodyReport, DryRunReport, EnvelopeReport, FateReport, PluginReport, RecipientReport, SessionReport,
    StageReport, auth_result,
};
use super::show::NOT_JUDGED;
use super::trace::{LogLine, Recorded};
use crate::cli::Try;
use crate::output::CommandError;

/// The size of the pieces in which bodies are read, in octets.
const PIECE: usize = 1 << 20;
/// The name of the gateway in the field `by`, for decisions that no plugin made.
const GATEWAY: &str = "the gateway";

/// The raw results of a finished dry run.
pub(super) struct Played<'a> {
    pub(super) options: &'a Try,
    pub(super) mail: &'a MailFile,
    pub(super) listener: &'a str,
    pub(super) hello: String,
    pub(super) exchanges: Vec<DryRunExchange>,
    /// The event records that would be logged.
    pub(super) records: Vec<Record>,
    /// The message as it would be stored in the spool, for the recipients that receive it, or else for those of the first
    /// quarantine; none if it was not accepted.
    pub(super) stored: Option<Stored>,
    pub(super) deliveries: Vec<PlannedDelivery>,
    /// The plugins' rulings, in the order of the calls.
    pub(super) rulings: Vec<Recorded>,
    /// The lines logged outside the stages.
    pub(super) lines: Vec<LogLine>,
}

/// The outcome, who decided it, and the reply or quarantine.
struct DryRunEnd {
    fate: FateReport,
    by: Option<String>,
    reply: Option<String>,
}

impl Played<'_> {
    /// Builds the report.
    ///
    /// # Errors
    /// A body that a plugin wrote cannot be read.
    pub(super) async fn report(mut self) -> Result<DryRunReport, CommandError> {
        let stages = self.stages();
        let DryRunEnd { fate, by, reply } = self.end();
        let recipients = self.mail.recipients.iter().map(|address| address.as_str().to_owned()).collect();
        let envelope = EnvelopeReport { sender: self.mail.sender.as_str().to_owned(), recipients };
        let taken = self.taken();
        let unchanged = EnvelopeReport { sender: envelope.sender.clone(), recipients: taken.clone() };
        let view = self.last_view();
        let transaction = view.and_then(|view| view.transaction.as_deref());
        let results =
            transaction.map(|transaction| transaction.auth_results.iter().map(auth_result).collect());
        let after =
            view.and_then(|view| view.message.as_ref()).map(|message| text(message.header.as_bytes()));
        let received = text(self.mail.header.as_bytes());
        let header_diff =
            after.as_ref().and_then(|after| unified(&received, after, ("received", "after the plugins")));
        Ok(DryRunReport {
            session: self.session(),
            new_envelope: self.new_envelope().filter(|new| *new != unchanged),
            envelope,
            taken,
            set_aside: transaction.map(set_aside).unwrap_or_default(),
            size: self.mail.octets.len() as u64,
            mended: self.mail.mended,
            fate,
            by,
            reply,
            score: transaction.map_or(0.0, Transaction::score),
            auth_results: results.unwrap_or_default(),
            header_diff,
            written: self.stored.as_ref().zip(after).and_then(|(stored, after)| {
                unified(&after, &header_of(stored), ("after the plugins", "stored"))
            }),
            stored_header: self.stored.as_ref().map(header_of),
            body: self.body(view).await?,
            records: std::mem::take(&mut self.records),
            log: std::mem::take(&mut self.lines),
            not_judged: NOT_JUDGED,
            stages,
        })
    }

    fn session(&self) -> SessionReport {
        let session = self.exchanges.iter().flat_map(|exchange| &exchange.asked).last();
        let session = session.map(|asked| &asked.view.session);
        SessionReport {
            listener: self.listener.to_owned(),
            client: self.options.client.to_string(),
            hello: self.hello.clone(),
            identity: self.options.identity.clone(),
            trusted: session.is_some_and(|session| session.trusted),
            tls: session.is_some_and(|session| session.tls.is_some()),
        }
    }

    /// The view after the last call of plugins.
    fn last_view(&self) -> Option<&View> {
        self.exchanges.iter().flat_map(|exchange| &exchange.asked).last().map(|asked| &asked.view)
    }

    fn new_envelope(&self) -> Option<EnvelopeReport> {
        let stored = self.stored.as_ref().map(|stored| &stored.entry.envelope);
        let seen = || Some(&self.last_view()?.transaction.as_deref()?.envelope);
        stored.or_else(seen).map(EnvelopeReport::from)
    }

    /// The recipients that RCPT accepted, as the client named them.
    fn taken(&self) -> Vec<String> {
        let taken = self.exchanges.iter().filter(|exchange| !exchange.reply.refuses());
        taken.filter_map(|exchange| Some(exchange.recipient.as_ref()?.as_str().to_owned())).collect()
    }

    fn stages(&mut self) -> Vec<StageReport> {
        let mut rulings = std::mem::take(&mut self.rulings).into_iter();
        let mut plugins =
            |decision: &Decision| plugins_of(rulings.by_ref().take(decision.steps.len()), decision);
        let mut stages = Vec::new();
        for exchange in &self.exchanges {
            let last = exchange.asked.len().saturating_sub(1);
            for (at, asked) in exchange.asked.iter().enumerate() {
                let reply = Some(&exchange.reply).filter(|_| at == last);
                stages.push(self.stage(exchange, asked, reply, plugins(&asked.decision)));
            }
            if exchange.asked.is_empty() && exchange.reply.refuses() {
                stages.push(unasked(exchange));
            }
        }
        for delivery in &self.deliveries {
            stages.push(self.delivery(delivery, plugins(&delivery.decision)));
        }
        stages
    }

    fn stage(
        &self,
        exchange: &DryRunExchange,
        asked: &AskedQuestion,
        reply: Option<&HeardReply>,
        plugins: Vec<(PluginReport, u64)>,
    ) -> StageReport {
        let verdict = &asked.decision.verdict;
        let refused = reply.filter(|reply| reply.refuses());
        let mut gateway: Vec<_> =
            refused.filter(|_| !verdict.refuses()).map(reply_line).into_iter().collect();
        if exchange.recipient.is_some() && refused.is_none() {
            gateway.push("relaying: allowed".to_owned());
        }
        if let Some(held) = self.held().filter(|held| asked.hook == Hook::Message && held.by.is_some()) {
            let score = asked.view.transaction.as_ref().map_or(0.0, |transaction| transaction.score());
            let name = held.quarantine.clone().unwrap_or_default();
            if held.by == held.quarantine {
                gateway.push(format!("held in quarantine {name}: the message scored {score:.1}"));
            }
        }
        StageReport {
            stage: asked.hook.name(),
            about: exchange.recipient.as_ref().map(|recipient| format!("<{}>", recipient.as_str())),
            verdict: asked.decision.summary().0,
            by: asked.decision.summary().1.map(ToString::to_string),
            reply: refused.filter(|_| verdict.refuses()).map(reply_line),
            delay_ms: plugins.iter().map(|(_, delay)| delay).sum(),
            plugins: plugins.into_iter().map(|(report, _)| report).collect(),
            gateway,
            header_diff: None,
            header: None,
        }
    }

    fn delivery(&self, delivery: &PlannedDelivery, plugins: Vec<(PluginReport, u64)>) -> StageReport {
        let by_plugin = delivery.decision.verdict.refuses();
        let reply = delivery.refused.as_ref().map(ToString::to_string);
        let stored = self.stored.as_ref().map(header_of).unwrap_or_default();
        let sent = text(without_empty_line(&delivery.head));
        let moved = |hop: &NextHop| (*hop != delivery.routed).then(|| format!("it goes to {hop}"));
        StageReport {
            stage: Hook::Deliver.name(),
            about: Some(delivery.routed.to_string()),
            verdict: delivery.decision.summary().0,
            by: delivery.decision.summary().1.map(ToString::to_string),
            reply: reply.clone().filter(|_| by_plugin),
            delay_ms: 0,
            plugins: plugins.into_iter().map(|(report, _)| report).collect(),
            gateway: moved(&delivery.next_hop).into_iter().chain(reply.filter(|_| !by_plugin)).collect(),
            header_diff: unified(&stored, &sent, ("accepted", "delivered")),
            header: Some(sent),
        }
    }

    /// The outcome. Of what becomes of recipients, a delivery comes first.
    fn end(&self) -> DryRunEnd {
        let refused = |exchange: &&DryRunExchange| exchange.reply.refuses();
        let some = self.exchanges.iter().filter(|exchange| exchange.recipient.is_some()).find(refused);
        let whole = self.exchanges.last().filter(refused).filter(|exchange| {
            // A refused recipient does not refuse the message: the client sends it to the accepted ones.
            exchange.recipient.is_none() || exchange.closes
        });
        let no_recipient = || self.exchanges.last().filter(|last| last.recipient.is_some()).and(some);
        if let Some(exchange) = whole.or_else(no_recipient) {
            return self.refusal(exchange, None);
        }
        if self.stored.is_none() {
            return DryRunEnd { fate: FateReport::Discarded, by: self.discarded_by(), reply: None };
        }
        let is_held = self.stored.as_ref().is_some_and(|stored| stored.entry.hold.is_some());
        if let Some(held) = self.held().filter(|_| is_held) {
            let by = held
                .by
                .clone()
                .map(|by| if Some(&by) == held.quarantine.as_ref() { GATEWAY.to_owned() } else { by });
            return DryRunEnd { fate: FateReport::Quarantined, by, reply: held.quarantine.clone() };
        }
        if some.is_none() && self.sets_aside() {
            return DryRunEnd { fate: FateReport::AcceptedForSome, by: None, reply: None };
        }
        match some {
            Some(exchange) => self.refusal(exchange, Some(FateReport::AcceptedForSome)),
            None => DryRunEnd { fate: FateReport::Accepted, by: None, reply: None },
        }
    }

    fn refusal(&self, exchange: &DryRunExchange, fate: Option<FateReport>) -> DryRunEnd {
        let by_code = if exchange.closes {
            FateReport::Closed
        } else if (400..500).contains(&exchange.reply.code) {
            FateReport::Deferred
        } else {
            FateReport::Rejected
        };
        let by = exchange.asked.iter().find(|asked| asked.decision.verdict.refuses());
        let by = by.and_then(|asked| asked.decision.by.as_ref()).map_or(GATEWAY, |by| by);
        DryRunEnd {
            fate: fate.unwrap_or(by_code),
            by: Some(by.to_owned()),
            reply: Some(reply_line(&exchange.reply)),
        }
    }

    /// Whether some recipients do not receive the message.
    fn sets_aside(&self) -> bool {
        let transaction = self.last_view().and_then(|view| view.transaction.as_deref());
        transaction.is_some_and(|transaction| !set_aside(transaction).is_empty())
    }

    fn held(&self) -> Option<&pintle_record::Hold> {
        self.records.iter().find_map(|record| if let Record::Hold(held) = record { Some(held) } else { None })
    }

    fn discarded_by(&self) -> Option<String> {
        let by =
            |record: &Record| if let Record::Discard(discard) = record { discard.by.clone() } else { None };
        self.records.iter().rev().find_map(by)
    }

    async fn body(&self, view: Option<&View>) -> Result<BodyReport, CommandError> {
        let before = self.mail.body.size();
        let edited = view.and_then(|view| view.message.as_ref()).filter(|message| message.body_edited);
        let Some(body) = edited.and_then(|message| message.body.as_ref()) else {
            return Ok(BodyReport { before, after: before, ..BodyReport::default() });
        };
        let new = read(&**body).await?;
        let diff = self.options.diff_body.then(|| {
            let (old, new) = (String::from_utf8_lossy(&self.mail.body), String::from_utf8_lossy(&new));
            unified(&old, &new, ("received", "after the plugins"))
        });
        let changed = new != self.mail.body;
        Ok(BodyReport { changed, before, after: new.len() as u64, diff: diff.flatten() })
    }
}

/// The reports of the plugins called at one stage, each with the delay that the plugin asked for, in milliseconds.
fn plugins_of(rulings: impl Iterator<Item = Recorded>, decision: &Decision) -> Vec<(PluginReport, u64)> {
    let delay = |edit: &Edit| if let Edit::Delay(delay) = edit { delay.as_millis() } else { 0 };
    let reports = rulings.zip(&decision.steps).map(|(recorded, step)| {
        let delay: u128 = recorded.ruling.edits.iter().map(delay).sum();
        let mut report = PluginReport::from(recorded);
        // The chain detects invalid edits after the plugin has returned its ruling.
        if let (None, Some(fault)) = (&report.fault, &step.fault) {
            report.fault = Some(format!("{}: {}", fault.kind.name(), fault.text));
            report.verdict = step.verdict;
        }
        report.overruled = step.overruled;
        (report, u64::try_from(delay).unwrap_or(u64::MAX))
    });
    reports.collect()
}

/// What becomes of the recipients that do not receive the message.
fn set_aside(transaction: &Transaction) -> Vec<RecipientReport> {
    let report = |recipient: &Recipient| {
        let requested = transaction.fates.of(recipient.id)?;
        Some(RecipientReport {
            recipient: recipient.address.as_str().to_owned(),
            fate: requested.fate.name(),
            by: requested.by.to_string(),
            text: match &requested.fate {
                Fate::Refuse(reply) => Some(reply.to_string()),
                Fate::Quarantine { name, reason } if reason.is_empty() => Some(name.clone()),
                Fate::Quarantine { name, reason } => Some(format!("{name}: {reason}")),
                Fate::Discard => None,
            },
        })
    };
    transaction.envelope.recipients.iter().filter_map(report).collect()
}

/// A command that the gateway refused before any plugin was called.
fn unasked(exchange: &DryRunExchange) -> StageReport {
    StageReport {
        stage: exchange.stage.name(),
        about: exchange.recipient.as_ref().map(|recipient| format!("<{}>", recipient.as_str())),
        verdict: Verdict::Next.name(),
        by: None,
        reply: None,
        delay_ms: 0,
        plugins: Vec::new(),
        gateway: vec![reply_line(&exchange.reply)],
        header_diff: None,
        header: None,
    }
}

fn reply_line(reply: &HeardReply) -> String {
    format!("{} {}", reply.code, reply.text.replace('\n', " "))
}

fn header_of(stored: &Stored) -> String {
    text(without_empty_line(&stored.head))
}

fn without_empty_line(head: &[u8]) -> &[u8] {
    head.strip_suffix(b"\r\n").filter(|head| head.ends_with(b"\r\n")).unwrap_or(head)
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

async fn read(body: &dyn Body) -> Result<Vec<u8>, BodyError> {
    let mut whole = Vec::new();
    loop {
        let piece = body.read(whole.len() as u64, PIECE).await?;
        if piece.is_empty() {
            return Ok(whole);
        }
        whole.extend_from_slice(&piece);
    }
}
