//! Delivery status notifications: reports to a sender about the fate of a message (RFC 3464, in the form of RFC 6522).
//!
//! A [`Notification`] is written from plain values; the caller supplies the time and the random number. It has three
//! parts: a text for people, the fields for programs, and the message that it is about, in full or only its header.
//! Where an address requires it, the international forms of RFC 6533 are used in place of the usual ones. Who is sent a
//! notification, and that a notification never causes another one, is decided elsewhere.

use std::borrow::Cow;
use std::fmt::Write as _;

use bytes::{BufMut, Bytes, BytesMut};

use crate::header::folded;
use crate::{Address, QueueId, UnixTime, xtext};

mod recipient_status;

use self::recipient_status::mta_name;
pub use self::recipient_status::{DsnAction, RecipientStatus};

/// One notification, about some recipients of one message.
#[derive(Debug, Clone)]
pub struct Notification<'a> {
    /// The notification's own queue id, which its Message-ID is made from.
    pub id: QueueId,
    /// When the notification is written; its Date field.
    pub at: UnixTime,
    /// A random number to make the MIME boundary from.
    pub random: u128,
    /// Our host name, for Reporting-MTA.
    pub reporting_mta: &'a str,
    /// The display name in From.
    pub from_name: &'a str,
    /// The address in From.
    pub from: &'a Address,
    /// The reverse-path of the message that it is about, to which the notification is sent.
    pub to: &'a Address,
    /// The queue id of that message.
    pub about: QueueId,
    /// When that message was received.
    pub arrival: UnixTime,
    /// `ENVID` of that message, in xtext (RFC 3461 section 4.4).
    pub envid: Option<&'a str>,
    /// The recipients that it is about: at least one, all with the same action.
    pub recipients: &'a [RecipientStatus<'a>],
    /// What is returned of that message.
    pub returned: ReturnedContent,
    /// Whether that message needed SMTPUTF8, so that its sender can read the forms of RFC 6533.
    pub utf8: bool,
}

/// What a notification returns of the message.
#[derive(Debug, Clone)]
pub enum ReturnedContent {
    /// The whole message: the header block with the empty line that ends it, and the body.
    Whole(Bytes, Bytes),
    /// Only the header block, with or without that line.
    Header(Bytes),
}

impl ReturnedContent {
    fn pieces(&self) -> [&Bytes; 2] {
        static NOTHING: Bytes = Bytes::new();
        match self {
            Self::Whole(head, body) => [head, body],
            Self::Header(head) => [head, &NOTHING],
        }
    }

    fn is_ascii(&self) -> bool {
        self.pieces().iter().all(|piece| piece.is_ascii())
    }
}

/// A notification as it is stored and sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DsnMessage {
    /// The header block, with the empty line that ends it.
    pub head: Bytes,
    /// Everything after that line.
    pub body: Bytes,
    /// Whether it has octets above 127.
    pub has_8bit: bool,
}

impl Notification<'_> {
    /// Renders the notification as a message.
    #[must_use]
    pub fn write(&self) -> DsnMessage {
        let boundary = self.boundary();
        let mut body = BytesMut::with_capacity(4096);
        self.part(&mut body, &boundary, self.text_type(), self.text().as_bytes());
        self.part(&mut body, &boundary, self.status_type(), self.fields().as_bytes());
        self.write_returned(&mut body, &boundary);
        body.put_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        let head = self.head(&boundary, body.is_ascii());
        DsnMessage { has_8bit: !(head.is_ascii() && body.is_ascii()), head, body: body.freeze() }
    }

    fn action(&self) -> DsnAction {
        self.recipients.first().map_or(DsnAction::Failed, |status| status.action)
    }

    /// RFC 2046 section 5.1.1: the boundary must not occur in any part.
    fn boundary(&self) -> String {
        let free = |boundary: &String| {
            let pieces = self.returned.pieces();
            let occurs = |piece: &&Bytes| memchr::memmem::find(piece, boundary.as_bytes()).is_some();
            !pieces.iter().any(occurs)
        };
        let numbers = (0..).map(|more| self.random.wrapping_add(more));
        // Each number makes another boundary, and a message can contain only finitely many of them.
        let mut boundaries = numbers.map(|number| format!("=_report_{number:032x}"));
        boundaries.find(free).unwrap_or_default()
    }

    fn head(&self, boundary: &str, ascii: bool) -> Bytes {
        let mut out = BytesMut::with_capacity(1024);
        let mut field = |name: &str, value: &str| out.put_slice(&folded(name, value));
        field("From", &format!("{} <{}>", quoted(self.from_name), self.from));
        field("To", &format!("<{}>", self.address(self.to)));
        field("Subject", self.action().subject());
        field("Date", &self.at.rfc5322());
        field("Message-ID", &format!("<{}@{}>", self.id, self.reporting_mta));
        // RFC 3834 section 5: an automatic reply to this would make a loop.
        field("Auto-Submitted", "auto-replied");
        field("MIME-Version", "1.0");
        field(
            "Content-Type",
            &format!("multipart/report; report-type=delivery-status; boundary=\"{boundary}\""),
        );
        field("Content-Transfer-Encoding", if ascii { "7bit" } else { "8bit" });
        out.put_slice(b"\r\n");
        out.freeze()
    }

    fn part(&self, out: &mut BytesMut, boundary: &str, content_type: &str, content: &[u8]) {
        out.put_slice(format!("--{boundary}\r\nContent-Type: {content_type}\r\n").as_bytes());
        if !content.is_ascii() {
            out.put_slice(b"Content-Transfer-Encoding: 8bit\r\n");
        }
        out.put_slice(b"\r\n");
        out.put_slice(content);
        out.put_slice(b"\r\n");
    }

    fn text_type(&self) -> &'static str {
        if self.utf8 { "text/plain; charset=utf-8" } else { "text/plain; charset=us-ascii" }
    }

    fn status_type(&self) -> &'static str {
        if self.utf8 { "message/global-delivery-status" } else { "message/delivery-status" }
    }

    /// The text for people.
    fn text(&self) -> String {
        let action = self.action();
        let mut text =
            format!("This is the mail gateway {}.\r\n\r\n{}\r\n", self.reporting_mta, action.opening());
        for status in self.recipients {
            let _ = write!(text, "\r\n  <{}>\r\n", self.shown(&self.address(&status.recipient.address)));
            for line in wrapped(&self.shown(&status.reason())) {
                let _ = write!(text, "      {line}\r\n");
            }
        }
        let until = self.recipients.iter().find_map(|status| status.will_retry_until);
        let until =
            until.map_or(String::new(), |until| format!("\r\nWe will give up on {}.", until.rfc5322()));
        let _ = write!(
            text,
            "\r\n{}{until}\r\n\r\nWe received the message on {}.\r\nIts queue id is {}; please name it when you ask for help.\r\n",
            action.outlook(),
            self.arrival.rfc5322(),
            self.about,
        );
        text
    }

    /// The fields for programs (RFC 3464 section 2).
    fn fields(&self) -> String {
        let mut text = String::new();
        if let Some(envid) = self.envid {
            // RFC 3464 section 2.2.1: decoded from the xtext of ENVID.
            self.field(&mut text, "Original-Envelope-Id", &xtext::decode(envid));
        }
        self.field(&mut text, "Reporting-MTA", &format!("dns; {}", self.reporting_mta));
        self.field(&mut text, "Arrival-Date", &self.arrival.rfc5322());
        for status in self.recipients {
            text.push_str("\r\n");
            self.recipient_fields(&mut text, status);
        }
        text
    }

    fn recipient_fields(&self, text: &mut String, status: &RecipientStatus<'_>) {
        if let Some(orcpt) = &status.recipient.params.orcpt {
            // RFC 3464 section 2.3.1: type and address of ORCPT, decoded.
            let (kind, address) = orcpt.split_once(';').unwrap_or(("rfc822", orcpt));
            let address = xtext::decode(address);
            let address =
                if self.utf8 { Cow::Borrowed(&*address) } else { xtext::unicode_in_ascii(&address) };
            self.field(text, "Original-Recipient", &format!("{kind}; {address}"));
        }
        let kind = if status.recipient.address.needs_smtputf8() { "utf-8" } else { "rfc822" };
        let address = self.address(&status.recipient.address);
        self.field(text, "Final-Recipient", &format!("{kind}; {address}"));
        self.field(text, "Action", status.action.as_str());
        self.field(text, "Status", &status.code().to_string());
        if let Some(host) = status.remote_mta {
            self.field(text, "Remote-MTA", &format!("dns; {}", mta_name(host)));
        }
        if let Some(reply) = status.diagnostic {
            self.field(text, "Diagnostic-Code", &format!("smtp; {reply}"));
        }
        if let Some(at) = status.last_attempt {
            self.field(text, "Last-Attempt-Date", &at.rfc5322());
        }
        if let Some(until) = status.will_retry_until {
            self.field(text, "Will-Retry-Until", &until.rfc5322());
        }
    }

    /// An address in a form that the report can contain (RFC 6533 section 3).
    fn address<'t>(&self, address: &'t Address) -> Cow<'t, str> {
        address.ascii().unwrap_or_else(|| match self.utf8 {
            true => Cow::Borrowed(address.as_str()),
            false => xtext::unicode_in_ascii(address.as_str()),
        })
    }

    fn field(&self, text: &mut String, name: &str, value: &str) {
        let value = self.shown(value);
        text.push_str(&String::from_utf8_lossy(&folded(name, &value)));
    }

    /// Makes text from others safe: no control character can start a line of its own, and without SMTPUTF8 only
    /// US-ASCII is shown.
    fn shown(&self, text: &str) -> String {
        let safe = |c: char| match c {
            ' '..='~' => c,
            c if self.utf8 && !c.is_ascii() && !c.is_control() => c,
            '\n' | '\t' => ' ',
            _ => '?',
        };
        // A single word longer than the limit of a line would make the report itself undeliverable.
        let mut octets = 0;
        let fits = |c: &char| {
            octets += c.len_utf8();
            octets <= 900
        };
        text.chars().map(safe).take_while(fits).collect()
    }

    fn write_returned(&self, out: &mut BytesMut, boundary: &str) {
        // The type follows from the returned header alone, whichever hosts the report itself can be sent to.
        let utf8 = !self.returned.pieces()[0].is_ascii();
        let content_type = match (&self.returned, utf8) {
            (ReturnedContent::Whole(..), false) => "message/rfc822",
            (ReturnedContent::Header(_), false) => "text/rfc822-headers",
            // RFC 6533 section 3.
            (ReturnedContent::Whole(..), true) => "message/global",
            (ReturnedContent::Header(_), true) => "message/global-headers",
        };
        out.put_slice(format!("--{boundary}\r\nContent-Type: {content_type}\r\n").as_bytes());
        if !self.returned.is_ascii() {
            out.put_slice(b"Content-Transfer-Encoding: 8bit\r\n");
        }
        out.put_slice(b"\r\n");
        for piece in self.returned.pieces() {
            out.put_slice(piece);
        }
    }
}

/// RFC 5322 section 3.2.4: a display name that is not a plain sequence of words is quoted.
fn quoted(name: &str) -> String {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || " !#$%&'*+-/=?^_`{|}~".contains(c));
    if plain {
        return name.to_owned();
    }
    let escaped: String = name
        .chars()
        .filter(|c| !c.is_control())
        .flat_map(|c| matches!(c, '"' | '\\').then_some('\\').into_iter().chain([c]))
        .collect();
    format!("\"{escaped}\"")
}

fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= 70 => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Charset, EnhancedCode, RcptParams, Recipient, Reply};

    fn address(text: &str) -> Address {
        Address::parse(text, Charset::Utf8).unwrap()
    }

    fn recipient(text: &str, orcpt: Option<&str>) -> Recipient {
        Recipient {
            params: RcptParams { orcpt: orcpt.map(str::to_owned), ..RcptParams::default() },
            ..Recipient::new(0, address(text))
        }
    }

    fn failed<'a>(recipient: &'a Recipient, reply: &'a Reply) -> RecipientStatus<'a> {
        RecipientStatus {
            recipient,
            action: DsnAction::Failed,
            status: reply.enhanced,
            remote_mta: Some("mx.example.net"),
            diagnostic: Some(reply),
            cause: None,
            last_attempt: Some(UnixTime::from_millis(1_795_317_028_000)),
            will_retry_until: None,
        }
    }

    fn write(
        recipients: &[RecipientStatus<'_>],
        returned: ReturnedContent,
        utf8: bool,
    ) -> (String, String, DsnMessage) {
        let (from, to) = (address("postmaster@gate.example.org"), address("anna@example.org"));
        let notification = Notification {
            id: QueueId::new(UnixTime::from_millis(0), 1),
            at: UnixTime::from_millis(1_795_317_029_000),
            random: 7,
            reporting_mta: "gate.example.org",
            from_name: "Mail Delivery System",
            from: &from,
            to: &to,
            about: QueueId::new(UnixTime::from_millis(0), 2),
            arrival: UnixTime::from_millis(1_795_317_000_000),
            envid: Some("QQ+2B314159"),
            recipients,
            returned,
            utf8,
        };
        let written = notification.write();
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        (text(&written.head), text(&written.body), written)
    }

    fn header(text: &'static str) -> ReturnedContent {
        ReturnedContent::Header(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn the_fields_say_who_and_why() {
        let recipient = recipient("bob@example.net", Some("rfc822;Bob+2BX@example.net"));
        let reply = Reply::new(550, EnhancedCode(5, 1, 1), "no such user\nreally");
        let (head, body, written) = write(&[failed(&recipient, &reply)], header("Subject: hi\r\n"), false);
        assert!(head.contains("Auto-Submitted: auto-replied\r\n"), "{head}");
        assert!(head.ends_with("\r\n\r\n") && !written.has_8bit);
        let fields = concat!(
            "Content-Type: message/delivery-status\r\n\r\n",
            "Original-Envelope-Id: QQ+314159\r\n",
            "Reporting-MTA: dns; gate.example.org\r\n",
            "Arrival-Date: Sun, 22 Nov 2026 03:10:00 +0000\r\n\r\n",
            "Original-Recipient: rfc822; Bob+X@example.net\r\n",
            "Final-Recipient: rfc822; bob@example.net\r\n",
            "Action: failed\r\nStatus: 5.1.1\r\nRemote-MTA: dns; mx.example.net\r\n",
            "Diagnostic-Code: smtp; 550 5.1.1 no such user / really\r\n",
            "Last-Attempt-Date: Sun, 22 Nov 2026 03:10:28 +0000\r\n",
        );
        assert!(body.contains(fields), "{body}");
        assert!(body.contains("mx.example.net said: 550 5.1.1 no such user / really"));
        assert!(body.contains("Content-Type: text/rfc822-headers\r\n\r\nSubject: hi\r\n"));
    }

    #[test]
    fn a_host_without_a_name_stands_in_brackets() {
        let recipient = recipient("bob@example.net", None);
        let reply = Reply::new(550, EnhancedCode(5, 1, 1), "no");
        for (host, shown) in [
            ("127.0.0.1", "[127.0.0.1]"),
            ("2001:db8::1", "[IPv6:2001:db8::1]"),
            ("mx.example", "mx.example"),
        ] {
            let status = RecipientStatus { remote_mta: Some(host), ..failed(&recipient, &reply) };
            let (_, body, _) = write(&[status], header("Subject: hi\r\n"), false);
            assert!(body.contains(&format!("Remote-MTA: dns; {shown}\r\n")), "{body}");
            assert!(body.contains(&format!("{shown} said: 550")), "{body}");
        }
    }

    #[test]
    fn a_boundary_never_occurs_in_what_is_returned() {
        let taken = format!("--=_report_{:032x}\r\n", 7);
        let whole = ReturnedContent::Whole(Bytes::from_static(b"\r\n"), Bytes::from(taken));
        let recipient = recipient("bob@example.net", None);
        let reply = Reply::plain(550, "no");
        let (head, body, _) = write(&[failed(&recipient, &reply)], whole, false);
        assert!(head.contains(&format!("\"=_report_{:032x}\"", 8)), "{head}");
        assert!(body.ends_with(&format!("\r\n--=_report_{:032x}--\r\n", 8)));
    }

    #[test]
    fn foreign_text_cannot_write_lines() {
        let recipient = recipient("bob@example.net", Some("rfc822;x+0D+0AAction:+20delivered"));
        let reply = Reply::plain(550, "a\r\n\r\nAction: delivered\u{7}\u{e4}");
        let (_, body, _) = write(&[failed(&recipient, &reply)], header(""), false);
        assert!(!body.contains("\r\nAction: delivered"), "{body}");
        assert!(body.contains("smtp; 550 a?"), "{body}");
        assert!(body.is_ascii());
    }

    #[test]
    fn the_class_of_the_status_fits_the_action() {
        let recipient = recipient("bob@example.net", None);
        let reply = Reply::new(451, EnhancedCode(4, 4, 1), "no answer");
        let mut status = failed(&recipient, &reply);
        assert_eq!(status.code(), EnhancedCode(5, 4, 1));
        status.action = DsnAction::Relayed;
        assert_eq!(status.code(), EnhancedCode(2, 0, 0));
        status.action = DsnAction::Delayed;
        assert_eq!(status.code(), EnhancedCode(4, 4, 1));
    }

    #[test]
    fn international_mail_gets_international_reports() {
        let recipient = recipient("jürgen@bücher.example", None);
        let reply = Reply::plain(550, "no");
        let whole = ReturnedContent::Whole(Bytes::from("Subject: ä\r\n\r\n".as_bytes()), Bytes::new());
        let (head, body, written) = write(&[failed(&recipient, &reply)], whole, true);
        assert!(written.has_8bit && head.contains("Content-Transfer-Encoding: 8bit"));
        assert!(body.contains("Content-Type: message/global-delivery-status\r\n"));
        assert!(body.contains("Final-Recipient: utf-8; jürgen@bücher.example\r\n"), "{body}");
        assert!(body.contains("Content-Type: message/global\r\n"));
    }

    /// Lines are counted in octets (RFC 6532 section 3.4), and a character may have four octets.
    #[test]
    fn wide_characters_fit_the_lines_of_a_report() {
        let recipient = recipient("jürgen@bücher.example", None);
        let reply = Reply::plain(550, "\u{1f980}".repeat(900));
        let (_, body, _) = write(&[failed(&recipient, &reply)], header(""), true);
        assert!(
            body.lines().all(|line| line.len() <= 998) && body.contains(&"\u{1f980}".repeat(200)),
            "{body}"
        );
    }
}
