//! Bounces and other reports to senders: who gets a DSN (RFC 3464), and the DSN as a new message.

use std::borrow::Cow;

use pintle_mail::dsn::{self, DsnAction, Notification, ReturnedContent};
use pintle_mail::{
    Address, BodyType, Bytes, Charset, EnhancedCode, Envelope, MailParams, Notify, QueueId, RcptParams,
    Recipient, Return, ReversePath, UnixTime,
};
use pintle_record::ReportKind;
use pintle_smtp::client::Speaker;
use pintle_spool::{Content, Entry, NewMessage, Stored};

use crate::Config;
use crate::parts::OutboundShared;
use crate::recipient_result::{self, RecipientResult, ReportPolicy, Resolution, SuccessReporter};

/// The longest line that is returned, with its CRLF, in octets.
const LONGEST_LINE: usize = 1_000;

/// A DSN, not committed yet.
pub(crate) struct NewReport {
    pub(crate) message: NewMessage,
    pub(crate) kind: ReportKind,
    pub(crate) to: Address,
    /// The ids of the recipients that it reports on.
    pub(crate) about: Vec<u32>,
}

/// The reports that are due for these results; none for a null reverse-path (RFC 5321 section 4.5.5, RFC 3464 section
/// 2).
pub(crate) async fn reports_for(
    shared: &OutboundShared,
    stored: &Stored,
    results: &[RecipientResult],
) -> Vec<NewReport> {
    let mut reports = Vec::new();
    let ReversePath::Address(sender) = &stored.entry.envelope.sender else {
        return reports;
    };
    for kind in [ReportKind::Failure, ReportKind::Success] {
        let recipients: Vec<DsnRecipient<'_>> =
            results.iter().filter_map(|result| dsn_recipient(stored, result, kind)).collect();
        if !recipients.is_empty() {
            let builder = DsnBuilder { shared, stored, sender };
            reports.push(builder.report(kind, &recipients).await);
        }
    }
    reports
}

/// A recipient that a report is about.
struct DsnRecipient<'a> {
    recipient: &'a Recipient,
    action: DsnAction,
    result: &'a RecipientResult,
    cause: Option<Cow<'static, str>>,
}

/// Whether a report of this kind names the recipient. The sender's `NOTIFY` decides (RFC 3461 sections 4.1 and 5.2).
fn dsn_recipient<'a>(
    stored: &'a Stored,
    result: &'a RecipientResult,
    kind: ReportKind,
) -> Option<DsnRecipient<'a>> {
    let recipient = recipient_result::recipient(stored, result.recipient)?;
    let notify = recipient.params.notify();
    let (action, cause) = match (kind, result.end) {
        (ReportKind::Failure, Resolution::Failed(ReportPolicy::Due)) if notify.failure => {
            (DsnAction::Failed, None)
        }
        (ReportKind::Failure, Resolution::Expired(ReportPolicy::Due)) if notify.failure => {
            (DsnAction::Failed, Some(too_late(result)))
        }
        (ReportKind::Success, Resolution::Delivered(SuccessReporter::Delivered)) if notify.success => {
            (DsnAction::Delivered, None)
        }
        (ReportKind::Success, Resolution::Delivered(SuccessReporter::Relayed)) if notify.success => {
            (DsnAction::Relayed, None)
        }
        _ => return None,
    };
    Some(DsnRecipient { recipient, action, result, cause })
}

/// Why the recipient expired, in words. A next hop's reply has a field of its own; a cause that we found ourselves is
/// reported in this sentence only.
fn too_late(result: &RecipientResult) -> Cow<'static, str> {
    let sentence = "It could not be delivered in time; no further attempt is made.";
    match &result.reply {
        Some(reply) if result.speaker == Speaker::Us => {
            format!("{sentence} The last failure: {}.", reply.text).into()
        }
        _ => sentence.into(),
    }
}

/// Writes the reports of one settlement.
pub(crate) struct DsnBuilder<'a> {
    pub(crate) shared: &'a OutboundShared,
    pub(crate) stored: &'a Stored,
    pub(crate) sender: &'a Address,
}

impl DsnBuilder<'_> {
    async fn report(&self, kind: ReportKind, recipients: &[DsnRecipient<'_>]) -> NewReport {
        let statuses: Vec<dsn::RecipientStatus<'_>> = recipients.iter().map(status).collect();
        self.write(kind, &statuses, recipients.iter().map(|one| one.recipient.id).collect()).await
    }

    /// The report as a message: one status for each of the recipients `about`.
    pub(crate) async fn write(
        &self,
        kind: ReportKind,
        statuses: &[dsn::RecipientStatus<'_>],
        about: Vec<u32>,
    ) -> NewReport {
        let config = self.shared.config.load_full();
        let (id, at) = (self.shared.new_id(), self.shared.clock.now());
        let from = from_address(&config);
        let entry = &self.stored.entry;
        // Only the address of the sender decides whether the report needs SMTPUTF8, not what the message needed.
        let utf8 = self.sender.needs_smtputf8();
        let written = Notification {
            id,
            at,
            random: (self.shared.random_source)(),
            reporting_mta: &config.hostname,
            from_name: &config.reports.from_name,
            from: &from,
            to: self.sender,
            about: self.stored.id,
            arrival: entry.received,
            envid: entry.envelope.params.envid.as_deref(),
            recipients: statuses,
            returned: returned(self.stored, kind, config.reports.return_limit).await,
            utf8,
        }
        .write();
        let mut entry = entry_of(self.stored.id, self.sender, at, &written, utf8);
        // RFC 8689 section 5: a report contains addresses and the subject, so it requires TLS as the message did.
        entry.envelope.params.require_tls = self.stored.entry.envelope.params.require_tls;
        NewReport {
            message: NewMessage { id, head: written.head, content: Content::from(written.body), entry },
            kind,
            to: self.sender.clone(),
            about,
        }
    }
}

fn status<'a>(one: &'a DsnRecipient<'a>) -> dsn::RecipientStatus<'a> {
    let reply = one.result.reply.as_ref();
    let theirs = one.result.speaker == Speaker::NextHop;
    dsn::RecipientStatus {
        recipient: one.recipient,
        action: one.action,
        status: reply.and_then(|reply| reply.enhanced).or_else(|| default_status(one.result.end)),
        remote_mta: one.result.remote_host(),
        diagnostic: reply.filter(|_| theirs),
        cause: one.cause.as_deref().or_else(|| reply.filter(|_| !theirs).map(|reply| reply.text.as_ref())),
        last_attempt: one.result.last_attempt,
        will_retry_until: None,
    }
}

/// RFC 3463 section 3.5: X.4.7, delivery time expired.
fn default_status(end: Resolution) -> Option<EnhancedCode> {
    matches!(end, Resolution::Expired(_)).then_some(EnhancedCode(5, 4, 7))
}

fn from_address(config: &Config) -> Address {
    let default = || Address::parse(&format!("postmaster@{}", config.hostname), Charset::Utf8);
    let own = config.reports.from.clone();
    // If the hostname is not valid in an address, the bare postmaster is used, which needs no domain (RFC 5321 section
    // 4.5.1).
    own.or_else(|| default().ok())
        .or_else(|| Address::parse("postmaster", Charset::Ascii).ok())
        .unwrap_or_else(|| unreachable!("postmaster is an address"))
}

/// What a report returns of the message. RFC 3461 section 4.3: `RET` applies to failures only; other reports return the
/// header. Without `RET` the whole message is returned. Of a message above the limit only the header is returned, even
/// with `RET=FULL`.
async fn returned(stored: &Stored, kind: ReportKind, limit: u64) -> ReturnedContent {
    let head = stored.head.clone();
    let size = head.len() as u64 + stored.body.size();
    let params = &stored.entry.envelope.params;
    // RFC 8689 section 5: the content of a message that required TLS is not returned, even with RET=FULL.
    let whole = kind == ReportKind::Failure
        && params.ret != Some(Return::Headers)
        && !params.require_tls
        && size <= limit;
    if !whole {
        return ReturnedContent::Header(cut(&head, limit));
    }
    match read(stored).await {
        Ok(body) if long_line(&head).or_else(|| long_line(&body)).is_some() => {
            ReturnedContent::Header(cut(&head, limit))
        }
        Ok(body) => ReturnedContent::Whole(head, body),
        Err(error) => {
            tracing::error!(queue_id = %stored.id, %error, "the body of a message cannot be read; the report returns its header alone");
            ReturnedContent::Header(cut(&head, limit))
        }
    }
}

/// The offset of the first line that is longer than hosts must accept (RFC 5321 section 4.5.3.1.6). A next hop that
/// refuses a message for such a line would refuse the report as well, and the sender would never get it.
fn long_line(text: &[u8]) -> Option<usize> {
    let mut start = 0;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        if line.len() > LONGEST_LINE {
            return Some(start);
        }
        start += line.len();
    }
    None
}

/// Cuts a header block at the end of a line: before one that is too long, and below the limit.
fn cut(head: &Bytes, limit: u64) -> Bytes {
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let head = head.slice(..long_line(head).unwrap_or(head.len()));
    if head.len() <= most {
        return head;
    }
    let end = head[..most].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    head.slice(..end)
}

async fn read(stored: &Stored) -> Result<Bytes, pintle_mail::BodyError> {
    let size = usize::try_from(stored.body.size()).unwrap_or(usize::MAX);
    let mut whole = Vec::with_capacity(size);
    while whole.len() < size {
        let piece = stored.body.read(whole.len() as u64, size - whole.len()).await?;
        if piece.is_empty() {
            break;
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.into())
}

fn entry_of(
    parent: QueueId,
    to: &Address,
    at: UnixTime,
    written: &dsn::DsnMessage,
    needs_smtputf8: bool,
) -> Entry {
    let params = RcptParams {
        // RFC 3461 section 6.2: no report is sent about a report.
        notify: Some(Notify::NEVER),
        ..RcptParams::default()
    };
    let recipient = Recipient { params, relay: true, ..Recipient::new(0, to.clone()) };
    let body = if written.has_8bit { BodyType::EightBitMime } else { BodyType::SevenBit };
    Entry {
        envelope: Envelope {
            sender: ReversePath::Null,
            params: MailParams { body, smtputf8: needs_smtputf8, ..MailParams::default() },
            recipients: vec![recipient],
        },
        received: at,
        parent: Some(parent),
        hold: None,
        released: None,
        has_8bit: written.has_8bit,
        needs_smtputf8,
        context: Bytes::new(),
    }
}
