//! Delivery status notifications: whatever a next hop, a sender or the message says, the report has its three parts,
//! its fields say what was meant and no more, and it can be sent.

use std::sync::LazyLock;

use pintle_mail::dsn::{DsnAction, DsnMessage, Notification, RecipientStatus, ReturnedContent};
use pintle_mail::mime::{MimeLimits, Scanner, Tree};
use pintle_mail::{
    Address, Bytes, Charset, EnhancedCode, HeaderBlock, QueueId, RcptParams, Recipient, Reply, UnixTime,
    xtext,
};

use super::plan::Plan;

const BY: &str = "gate.example";
static FROM: LazyLock<Address> = LazyLock::new(|| address("postmaster@gate.example"));
static TO: LazyLock<Address> = LazyLock::new(|| address("anna@example.org"));

fn address(text: &str) -> Address {
    Address::parse(text, Charset::Utf8).unwrap()
}

/// Reads the recipients that failed and the reasons, followed by the message to return.
pub fn play(octets: &[u8]) {
    let mut plan = Plan::new(octets);
    let (utf8, whole) = (plan.flag(), plan.flag());
    let action = [DsnAction::Failed, DsnAction::Delayed, DsnAction::Delivered, DsnAction::Relayed];
    let action = action[usize::from(plan.octet() % 4)];
    let envid = plan.maybe_text();
    let failures: Vec<Failure> = (0..=plan.octet() % 3).map(|_| Failure::of(&mut plan, utf8)).collect();
    let recipients: Vec<RecipientStatus<'_>> =
        failures.iter().map(|failure| failure.status(action)).collect();
    let message = Bytes::copy_from_slice(plan.rest());
    let notification = Notification {
        id: QueueId::new(UnixTime::from_millis(0), 1),
        at: UnixTime::from_millis(1_795_317_029_000),
        random: 7,
        reporting_mta: BY,
        from_name: "Mail Delivery System",
        from: &FROM,
        to: &TO,
        about: QueueId::new(UnixTime::from_millis(0), 2),
        arrival: UnixTime::from_millis(1_795_317_000_000),
        envid: envid.as_deref(),
        recipients: &recipients,
        returned: returned(whole, &message),
        utf8,
    };
    check(&notification, &notification.write());
}

/// Splits a message as a session does: at the first empty line.
fn returned(whole: bool, message: &Bytes) -> ReturnedContent {
    let end = message.windows(4).position(|four| four == b"\r\n\r\n").map_or(message.len(), |at| at + 4);
    let head = message.slice(..end);
    if whole { ReturnedContent::Whole(head, message.slice(end..)) } else { ReturnedContent::Header(head) }
}

struct Failure {
    recipient: Recipient,
    status: Option<EnhancedCode>,
    remote_mta: Option<String>,
    diagnostic: Option<Reply>,
    cause: Option<String>,
}

impl Failure {
    fn of(plan: &mut Plan<'_>, utf8: bool) -> Self {
        let charset = if utf8 { Charset::Utf8 } else { Charset::Ascii };
        let text = plan.text();
        let found = Address::parse(&text, charset).unwrap_or_else(|_| address("bob@example.net"));
        let recipient = Recipient {
            params: RcptParams { orcpt: plan.maybe_text(), ..RcptParams::default() },
            ..Recipient::new(0, found)
        };
        let code = |plan: &mut Plan<'_>| EnhancedCode(plan.octet() % 6, plan.number(), plan.number());
        let diagnostic = plan.flag().then(|| Reply {
            code: 200 + plan.number() % 400,
            enhanced: plan.flag().then(|| code(plan)),
            text: plan.text().into(),
        });
        Self {
            recipient,
            status: plan.flag().then(|| code(plan)),
            remote_mta: plan.maybe_text(),
            diagnostic,
            cause: plan.maybe_text(),
        }
    }

    fn status(&self, action: DsnAction) -> RecipientStatus<'_> {
        RecipientStatus {
            recipient: &self.recipient,
            action,
            status: self.status,
            remote_mta: self.remote_mta.as_deref(),
            diagnostic: self.diagnostic.as_ref(),
            cause: self.cause.as_deref(),
            last_attempt: Some(UnixTime::from_millis(1_795_317_028_000)),
            will_retry_until: None,
        }
    }
}

fn check(asked: &Notification<'_>, written: &DsnMessage) {
    head(&written.head);
    let all_ascii = written.head.is_ascii() && written.body.is_ascii();
    assert_eq!(written.has_8bit, !all_ascii);
    let header = HeaderBlock::parse(written.head.slice(..written.head.len() - 2));
    let mut scanner = Scanner::new(&header, MimeLimits::default());
    scanner.push(&written.body);
    let tree = scanner.finish();
    let parts = parts(&tree, &written.body);
    let status = if asked.utf8 { "message/global-delivery-status" } else { "message/delivery-status" };
    let returned = match &asked.returned {
        ReturnedContent::Whole(head, _) if head.is_ascii() => "message/rfc822",
        ReturnedContent::Whole(..) => "message/global",
        ReturnedContent::Header(head) if head.is_ascii() => "text/rfc822-headers",
        ReturnedContent::Header(_) => "message/global-headers",
    };
    let forms = ["text/plain", status, returned];
    assert_eq!(parts.iter().map(|(form, _)| form.as_str()).collect::<Vec<_>>(), forms);
    for (_, content) in &parts[..2] {
        plain(content, asked.utf8);
    }
    let returned = match &asked.returned {
        ReturnedContent::Whole(head, body) => [head.as_ref(), body.as_ref()].concat(),
        ReturnedContent::Header(head) => head.to_vec(),
    };
    assert_eq!(parts[2].1, returned, "the returned content is unchanged");
    fields(asked, parts[1].1);
}

fn head(head: &Bytes) {
    let block = HeaderBlock::parse(head.slice(..head.len() - 2));
    let names: Vec<_> = block.iter().map(|field| field.name_text().into_owned()).collect();
    let expected = [
        "From",
        "To",
        "Subject",
        "Date",
        "Message-ID",
        "Auto-Submitted",
        "MIME-Version",
        "Content-Type",
        "Content-Transfer-Encoding",
    ];
    assert_eq!(names, expected);
    block.iter().for_each(|field| super::header::lines(field.raw()));
}

/// The parts of the report itself, with their content.
fn parts<'b>(tree: &Tree, body: &'b [u8]) -> Vec<(String, &'b [u8])> {
    assert_eq!(tree.parts[0].content_type, "multipart/report");
    let place = |at: u64| usize::try_from(at).unwrap();
    let of_root = tree.parts.iter().filter(|part| part.parent == Some(0));
    of_root
        .map(|part| (part.content_type.clone(), &body[place(part.content.start)..place(part.content.end)]))
        .collect()
}

/// Checks that any next hop accepts these lines, and that they have no control characters.
fn plain(content: &[u8], utf8: bool) {
    let text = std::str::from_utf8(content).unwrap();
    assert!(utf8 || text.is_ascii());
    for line in text.split("\r\n") {
        assert!(line.len() <= 998, "a line of {} octets", line.len());
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
}

/// RFC 3464 section 2: one group for the message, one for each recipient, each field once.
fn fields(asked: &Notification<'_>, content: &[u8]) {
    let text = std::str::from_utf8(content).unwrap();
    let mut groups =
        text.split("\r\n\r\n").map(|group| HeaderBlock::parse(Bytes::copy_from_slice(group.as_bytes())));
    let message = groups.next().unwrap();
    let mut expected = vec!["Reporting-MTA", "Arrival-Date"];
    if asked.envid.is_some() {
        expected.insert(0, "Original-Envelope-Id");
    }
    assert_eq!(names(&message), expected, "{text}");
    let groups: Vec<HeaderBlock> = groups.collect();
    assert_eq!(groups.len(), asked.recipients.len(), "{text}");
    for (group, status) in groups.iter().zip(asked.recipients) {
        recipient(group, status, asked.utf8);
    }
}

fn recipient(group: &HeaderBlock, status: &RecipientStatus<'_>, utf8: bool) {
    let there = [
        ("Original-Recipient", status.recipient.params.orcpt.is_some()),
        ("Final-Recipient", true),
        ("Action", true),
        ("Status", true),
        ("Remote-MTA", status.remote_mta.is_some()),
        ("Diagnostic-Code", status.diagnostic.is_some()),
        ("Last-Attempt-Date", true),
    ];
    let expected: Vec<_> = there.iter().filter(|(_, there)| *there).map(|(name, _)| *name).collect();
    assert_eq!(names(group), expected);
    let value = |name: &str| group.named(name).next().unwrap().value();
    let (action, class) = match status.action {
        DsnAction::Failed => ("failed", "5."),
        DsnAction::Delayed => ("delayed", "4."),
        DsnAction::Delivered => ("delivered", "2."),
        DsnAction::Relayed => ("relayed", "2."),
    };
    assert_eq!(value("Action"), action);
    assert!(value("Status").starts_with(class), "{}", value("Status"));
    let address = &status.recipient.address;
    let other = if utf8 { address.as_str().into() } else { xtext::unicode_in_ascii(address.as_str()) };
    assert!(value("Final-Recipient").ends_with(&*address.ascii().unwrap_or(other)));
    group.iter().for_each(|field| super::header::lines(&[field.raw().trim_ascii_end(), b"\r\n"].concat()));
}

fn names(block: &HeaderBlock) -> Vec<String> {
    block.iter().map(|field| field.name_text().into_owned()).collect()
}
