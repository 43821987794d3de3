//! The questions of one mail, asked in the order in which a session asks them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pintle_config::Settings;
use pintle_inbound::{ListenerConfig, relay, score};
use pintle_mail::{
    Body, BodyError, Envelope, HeaderBlock, MailParams, NextHop, QueueId, RcptParams, Recipient, SessionId,
    UnixTime,
};
use pintle_policy::{
    Call, Chain, Decision, Delivery, Frozen, Message, Notes, Session, TlsFacts, Transaction, Verdict, View,
};

use super::Trouble;
use super::diff::unified;
use super::ear::Ear;
use super::mail::Mail;
use super::report::{
    BodyReport, EnvelopeReport, Fate, Report, SessionReport, StageReport, auth_result, reply_to,
};
use super::show::NOT_JUDGED;
use crate::cli::Try;

/// Bodies are read in pieces of this size.
const PIECE: usize = 1 << 20;

/// One trial under way.
pub(super) struct Trial<'a> {
    settings: &'a Settings,
    chain: &'a Chain,
    ear: &'a Ear,
    options: &'a Try,
    view: View,
    stages: Vec<StageReport>,
    /// Recipients that were not refused, as they were asked about.
    taken: Vec<String>,
    /// The same and those whose copies were dropped.
    answered_yes: usize,
    /// The first refusal of the whole message.
    end: Option<End>,
    /// A recipient was refused.
    some_refused: Option<End>,
    discarded: Option<End>,
    held: Option<End>,
}

/// How it ended, by whose word.
#[derive(Clone)]
struct End {
    fate: Fate,
    by: Option<String>,
    reply: Option<String>,
}

impl<'a> Trial<'a> {
    pub(super) fn new(
        settings: &'a Settings,
        listener: &ListenerConfig,
        chain: &'a Chain,
        ear: &'a Ear,
        options: &'a Try,
    ) -> Self {
        let view = View::of(session(listener, options));
        Self {
            settings,
            chain,
            ear,
            options,
            view,
            stages: Vec::new(),
            taken: Vec::new(),
            answered_yes: 0,
            end: None,
            some_refused: None,
            discarded: None,
            held: None,
        }
    }

    /// Asks everything.
    ///
    /// # Errors
    /// A body that plugins have written cannot be read.
    pub(super) async fn run(mut self, mail: &Mail) -> Result<Report, Trouble> {
        self.open(mail).await;
        self.envelope(mail).await;
        self.content(mail).await;
        if self.options.deliver && self.end.is_none() {
            self.deliver().await;
        }
        self.report(mail).await
    }

    async fn open(&mut self, mail: &Mail) {
        self.ask(Call::Connect, None).await;
        if self.end.is_some() {
            return;
        }
        let name = self.hello();
        let session = Arc::make_mut(&mut self.view.session);
        session.hello = Some(name.clone());
        session.esmtp = true;
        self.ask(Call::Hello(name), None).await;
        if self.end.is_some() {
            return;
        }
        let params = MailParams::default();
        let envelope = Envelope { sender: mail.sender.clone(), params, recipients: Vec::new() };
        let id = QueueId::new(now(), 1);
        self.view.transaction = Some(Arc::new(Transaction::new(id, envelope)));
        self.ask(Call::Mail, None).await;
    }

    async fn envelope(&mut self, mail: &Mail) {
        for (id, address) in (0..).zip(&mail.recipients) {
            if self.end.is_some() {
                return;
            }
            let params = RcptParams::default();
            let recipient = Recipient { id, address: address.clone(), params, original: None, relay: false };
            self.with_recipients(|recipients| recipients.push(recipient));
            self.recipient(id, address.as_str()).await;
        }
        // A copy that is dropped is not the message, unless it was the last.
        if self.recipients() > 0 {
            self.discarded = None;
        }
        // Where a client heard no other answer than no, it has nobody to send the message to.
        if self.answered_yes == 0 && self.end.is_none() {
            self.end.clone_from(&self.some_refused);
        }
    }

    fn recipients(&self) -> usize {
        self.view.transaction.as_ref().map_or(0, |transaction| transaction.envelope.recipients.len())
    }

    async fn recipient(&mut self, id: u32, about: &str) {
        let verdict = self.ask(Call::Recipient(id), Some(format!("<{about}>"))).await.verdict;
        let by_plugin = verdict.refuses().then(|| self.end.take()).flatten();
        // Closing ends more than the recipient.
        if matches!(verdict, Verdict::Close(_)) {
            self.end = by_plugin;
            return;
        }
        let refused = by_plugin.or_else(|| self.law(id));
        self.answered_yes += usize::from(refused.is_none());
        if refused.is_some() || verdict == Verdict::Discard {
            self.with_recipients(|recipients| recipients.retain(|recipient| recipient.id != id));
        } else {
            self.taken.push(about.to_owned());
        }
        self.some_refused = self.some_refused.take().or(refused);
    }

    /// Law 7, as the gateway judges it after the plugins.
    fn law(&mut self, id: u32) -> Option<End> {
        let transaction = self.view.transaction.as_deref()?;
        let recipient = transaction.recipient(id)?;
        let domains = &self.settings.inbound.rules.domains;
        let refusal = relay::check(&self.view.session, recipient, domains).err();
        let said = refusal.as_ref().map_or_else(|| "relaying: allowed".to_owned(), ToString::to_string);
        if let Some(stage) = self.stages.last_mut() {
            stage.gateway.push(said.clone());
        }
        refusal.map(|_| End { fate: Fate::Rejected, by: Some("the gateway".to_owned()), reply: Some(said) })
    }

    async fn content(&mut self, mail: &Mail) {
        if self.end.is_some() {
            return;
        }
        let mut message = Message::new(mail.header.clone(), None);
        message.has_8bit = !mail.header.as_bytes().is_ascii();
        self.view.message = Some(Arc::new(message));
        self.ask(Call::Headers, None).await;
        if self.end.is_some() {
            return;
        }
        if let Some(message) = &mut self.view.message {
            let message = Arc::make_mut(message);
            message.has_8bit |= !mail.body.is_ascii();
            message.has_nul = mail.body.contains(&0);
            message.body = Some(Arc::new(mail.body.clone()));
        }
        let decision = self.ask(Call::Message, None).await;
        self.weigh(decision);
        self.check_added();
    }

    /// The operator's thresholds, as the gateway lets them act after the plugins.
    fn weigh(&mut self, mut decision: Decision) {
        let points = self.view.transaction.as_ref().map_or(0.0, |transaction| transaction.score());
        let Some(limit) = score::weigh(&self.settings.inbound.rules, points, &mut decision) else {
            return;
        };
        let said = format!("the message scored {points:.1}, and the threshold is {limit:.1}");
        if let Some(stage) = self.stages.last_mut() {
            stage.gateway.push(said.clone());
        }
        let end = |fate| Some(End { fate, by: Some("the gateway".to_owned()), reply: Some(said) });
        match decision.verdict {
            Verdict::Quarantine(_) => self.held = self.held.take().or_else(|| end(Fate::Quarantined)),
            _ => self.end = end(Fate::Rejected),
        }
    }

    /// Recipients that plugins have written or changed since they were judged.
    fn check_added(&mut self) {
        let Some(transaction) = self.view.transaction.clone() else { return };
        if transaction.envelope.recipients.is_empty() {
            self.discarded.get_or_insert(End { fate: Fate::Discarded, by: None, reply: None });
        }
        let domains = &self.settings.inbound.rules.domains;
        let check = |recipient| relay::check(&self.view.session, recipient, domains).err();
        let Some(refusal) = transaction.envelope.recipients.iter().find_map(check) else { return };
        let reply = Some(refusal.to_string());
        if let Some(stage) = self.stages.last_mut() {
            stage.gateway.extend(reply.clone());
        }
        let end = End { fate: Fate::Rejected, by: Some("the gateway".to_owned()), reply };
        self.end = self.end.take().or(Some(end));
    }

    async fn deliver(&mut self) {
        let (Some(transaction), Some(message)) = (self.view.transaction.clone(), self.view.message.clone())
        else {
            return;
        };
        let accepted = text(&message.header);
        for (hop, recipients) in self.jobs(&transaction) {
            // As it is when the message lies in the spool.
            let frozen = Frozen::of(&self.view.session, &transaction).to_bytes();
            let Ok(frozen) = Frozen::from_bytes(&frozen) else { return };
            self.view = frozen.thaw(transaction.id, transaction.envelope.clone());
            self.view.message = Some(Arc::new(Message {
                has_8bit: message.has_8bit,
                ..Message::new(message.header.clone(), message.body.clone())
            }));
            self.view.delivery = Some(Arc::new(Delivery {
                attempt: 1,
                age: Duration::ZERO,
                recipients,
                tls: self.settings.outbound.tls_for(&hop),
                tls_asked: None,
                next_hop: hop.clone(),
                unlisted: false,
                source: None,
                credentials: None,
                retry_after: None,
                no_bounce: Vec::new(),
            }));
            self.ask(Call::Deliver, Some(hop.to_string())).await;
            let after = self.view.message.as_ref().map(|message| text(&message.header));
            if let (Some(stage), Some(after)) = (self.stages.last_mut(), after) {
                stage.header_diff = unified(&accepted, &after, ("accepted", "delivered"));
            }
        }
        self.view.transaction = Some(transaction);
        self.view.message = Some(message);
    }

    /// Recipients by next hop.
    fn jobs(&self, transaction: &Transaction) -> BTreeMap<NextHop, Vec<Recipient>> {
        let mut jobs: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for recipient in &transaction.envelope.recipients {
            let hop = self.settings.outbound.routes.next_hop(&recipient.address.domain_ascii());
            jobs.entry(hop).or_default().push(recipient.clone());
        }
        jobs
    }

    /// Asks the chain, and notes what everybody said.
    async fn ask(&mut self, call: Call, about: Option<String>) -> Decision {
        let decision = self.chain.judge(&call, &mut self.view).await;
        let stage = call.stage().hook().name();
        let reply = reply_to(&decision.verdict);
        let by = decision.by.as_ref().map(ToString::to_string);
        self.stages.push(StageReport {
            stage,
            about,
            verdict: decision.verdict.name(),
            by: by.clone(),
            reply: reply.clone(),
            delay_ms: u64::try_from(decision.delay.as_millis()).unwrap_or(u64::MAX),
            plugins: self.plugins(&decision),
            gateway: Vec::new(),
            header_diff: None,
        });
        self.take(&decision.verdict, &End { fate: Fate::Accepted, by, reply });
        decision
    }

    fn plugins(&self, decision: &Decision) -> Vec<super::report::PluginReport> {
        let mut reports: Vec<super::report::PluginReport> =
            self.ear.rulings().into_iter().map(Into::into).collect();
        // Edits that cannot be made are found out by the chain, after the plugin has answered.
        for (report, step) in reports.iter_mut().zip(&decision.steps) {
            if let (None, Some(fault)) = (&report.fault, &step.fault) {
                report.fault = Some(format!("{}: {}", fault.kind.name(), fault.text));
                report.verdict = step.verdict;
            }
        }
        reports
    }

    fn take(&mut self, verdict: &Verdict, said: &End) {
        let end = |fate| Some(End { fate, ..said.clone() });
        match verdict {
            Verdict::Next | Verdict::Accept => {}
            Verdict::Reject(_) => self.end = end(Fate::Rejected),
            Verdict::Defer(_) => self.end = end(Fate::Deferred),
            Verdict::Close(_) => self.end = end(Fate::Closed),
            // Of two stages that decide alike the first counts.
            Verdict::Discard => self.discarded = self.discarded.take().or_else(|| end(Fate::Discarded)),
            Verdict::Quarantine(name) => {
                let held = End { fate: Fate::Quarantined, reply: Some(name.clone()), ..said.clone() };
                self.held.get_or_insert(held);
            }
        }
    }

    /// What came of it: a refusal before anything, then what drops it, then what holds it.
    fn ended(&self) -> End {
        let whole = self.end.clone().or(self.discarded.clone()).or(self.held.clone());
        let some = || self.some_refused.clone().map(|end| End { fate: Fate::AcceptedForSome, ..end });
        whole.or_else(some).unwrap_or(End { fate: Fate::Accepted, by: None, reply: None })
    }

    async fn report(self, mail: &Mail) -> Result<Report, Trouble> {
        let End { fate, by, reply } = self.ended();
        let recipients = mail.recipients.iter().map(|address| address.as_str().to_owned()).collect();
        let envelope = EnvelopeReport { sender: mail.sender.as_str().to_owned(), recipients };
        let sender = envelope.sender.clone();
        let unchanged = EnvelopeReport { sender, recipients: self.taken.clone() };
        let transaction = self.view.transaction.as_deref();
        let after = self.view.message.as_ref().map(|message| text(&message.header));
        let header_diff =
            after.and_then(|after| unified(&text(&mail.header), &after, ("received", "after the plugins")));
        let new_envelope = transaction.map(|transaction| EnvelopeReport::from(&transaction.envelope));
        let results =
            transaction.map(|transaction| transaction.auth_results.iter().map(auth_result).collect());
        let session = &self.view.session;
        Ok(Report {
            session: SessionReport {
                listener: session.listener.clone(),
                client: session.client.ip().to_string(),
                hello: self.hello(),
                identity: session.identity.clone(),
                trusted: session.trusted,
                tls: session.tls.is_some(),
            },
            new_envelope: new_envelope.filter(|new| *new != unchanged),
            envelope,
            taken: self.taken.clone(),
            size: mail.header.as_bytes().len() as u64 + 2 + mail.body.size(),
            mended: mail.mended,
            fate,
            by,
            reply,
            score: transaction.map_or(0.0, Transaction::score),
            auth_results: results.unwrap_or_default(),
            header_diff,
            body: self.body(mail).await?,
            log: self.ear.lines(),
            not_judged: NOT_JUDGED,
            stages: self.stages,
        })
    }

    async fn body(&self, mail: &Mail) -> Result<BodyReport, Trouble> {
        let before = mail.body.size();
        let edited = self.view.message.as_ref().filter(|message| message.body_edited);
        let Some(body) = edited.and_then(|message| message.body.as_ref()) else {
            return Ok(BodyReport { before, after: before, ..BodyReport::default() });
        };
        let new = read(&**body).await?;
        let diff = self.options.diff_body.then(|| {
            let (old, new) = (String::from_utf8_lossy(&mail.body), String::from_utf8_lossy(&new));
            unified(&old, &new, ("received", "after the plugins"))
        });
        let changed = new != mail.body;
        Ok(BodyReport { changed, before, after: new.len() as u64, diff: diff.flatten() })
    }

    fn with_recipients(&mut self, change: impl FnOnce(&mut Vec<Recipient>)) {
        if let Some(transaction) = &mut self.view.transaction {
            change(&mut Arc::make_mut(transaction).envelope.recipients);
        }
    }

    /// A client that does not say who it is names its address (RFC 5321 section 4.1.4).
    fn hello(&self) -> String {
        let literal = || match self.options.client {
            IpAddr::V4(ip) => format!("[{ip}]"),
            IpAddr::V6(ip) => format!("[IPv6:{ip}]"),
        };
        self.options.hello.clone().unwrap_or_else(literal)
    }
}

fn session(listener: &ListenerConfig, options: &Try) -> Session {
    let tls = options.tls.then(|| TlsFacts {
        version: "TLSv1.3".to_owned(),
        cipher: "TLS13_AES_256_GCM_SHA384".to_owned(),
        server_name: None,
        client_certificate_sha256: None,
        client_certificate_subject: None,
        client_certificate_verified: false,
    });
    let local = listener.addresses.first().copied().unwrap_or(SocketAddr::from(([127, 0, 0, 1], 25)));
    Session {
        id: SessionId::new(now(), 1),
        listener: listener.name.clone(),
        // Any port will do, as long as it is one.
        client: SocketAddr::new(options.client, 50_000),
        local,
        started: now(),
        hello: None,
        esmtp: false,
        tls,
        identity: options.identity.clone(),
        trusted: options.trusted || listener.trusts(options.client),
        extensions: Vec::new(),
        notes: Notes::default(),
        facts: BTreeMap::new(),
    }
}

fn now() -> UnixTime {
    SystemTime::now().into()
}

fn text(header: &HeaderBlock) -> String {
    String::from_utf8_lossy(header.as_bytes()).into_owned()
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
