//! Trace fields: the Received field that we add (RFC 5321 section 4.4), and counting those of earlier hops.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::IpAddr;

use crate::header::folded;
use crate::{Address, HeaderBlock, QueueId, UnixTime};

/// The contents of one Received field.
#[derive(Debug, Clone)]
pub struct ReceivedField<'a> {
    /// The EHLO or HELO argument as the client gave it; unsafe characters are replaced when it is written.
    pub hello: &'a str,
    /// The client's forward-confirmed host name; none when it is not known.
    pub client_name: Option<&'a str>,
    /// The client's IP address.
    pub client: IpAddr,
    /// Our host name, after `by`.
    pub by: &'a str,
    /// `ESMTP`, `ESMTPSA` and their like (RFC 3848, RFC 6531 section 4.3).
    pub with: &'a str,
    /// The TLS version and cipher; none without TLS.
    pub tls: Option<(&'a str, &'a str)>,
    /// The message's queue id.
    pub id: QueueId,
    /// The recipient, when there is only one. With several it is none, since they must not learn of each other (RFC
    /// 5321 section 7.2).
    pub recipient: Option<&'a Address>,
    /// When the message was received.
    pub at: UnixTime,
}

impl ReceivedField<'_> {
    /// Writes the whole field, folded, with its CRLF.
    #[must_use]
    pub fn to_field(&self) -> Vec<u8> {
        let client = match self.client {
            IpAddr::V4(ip) => format!("[{ip}]"),
            IpAddr::V6(ip) => format!("[IPv6:{ip}]"),
        };
        let name = self.client_name.map(|name| format!("{} ", harmless(name))).unwrap_or_default();
        let mut value =
            format!("from {} ({name}{client}) by {} with {}", harmless(self.hello), self.by, self.with);
        if let Some((version, cipher)) = self.tls {
            let _ = write!(value, " ({} {})", harmless(version), harmless(cipher));
        }
        let _ = write!(value, " id {}", self.id);
        // The form without SMTPUTF8, where the address has one: this field must not be the one that makes the message
        // need SMTPUTF8.
        let recipient =
            self.recipient.map(|address| address.ascii().unwrap_or(Cow::Borrowed(address.as_str())));
        if let Some(recipient) = recipient.filter(|recipient| recipient.len() < 250) {
            let _ = write!(value, " for <{}>", harmless_address(&recipient));
        }
        let _ = write!(value, "; {}", self.at.rfc5322());
        folded("Received", &value)
    }
}

/// The number of hops that a message has made: its Received fields (RFC 5321 section 6.3).
#[must_use]
pub fn hops(header: &HeaderBlock) -> usize {
    header.named("Received").count()
}

/// Makes text from a client safe in a trace field: no spaces, brackets, comments or control characters.
fn harmless(text: &str) -> String {
    let safe = |c: char| match c {
        '!'..='~' if !matches!(c, '(' | ')' | '<' | '>' | '\\' | '"' | ';' | ',') => c,
        // No characters outside US-ASCII either: a client's hello must not make its message need SMTPUTF8.
        _ => '?',
    };
    if text.is_empty() { "unknown".to_owned() } else { text.chars().map(safe).take(255).collect() }
}

/// The address was parsed before, so only the spaces in a quoted local part could be folded badly; they stay as they
/// are.
fn harmless_address(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Charset;
    use bytes::Bytes;

    #[test]
    fn the_field_says_who_how_and_when() {
        let recipient = Address::parse("b@example.org", Charset::Ascii).unwrap();
        let received = ReceivedField {
            hello: "mx (\u{e4}vil)\r\n",
            client_name: Some("mail.example.net"),
            client: "2001:db8::1".parse().unwrap(),
            by: "gate.example.org",
            with: "ESMTPS",
            tls: Some(("TLSv1.3", "TLS13_AES_256_GCM_SHA384")),
            id: QueueId::new(UnixTime::from_millis(0), 0),
            recipient: Some(&recipient),
            at: UnixTime::from_millis(1_795_317_028_000),
        };
        let block = HeaderBlock::parse(Bytes::from(received.to_field()));
        assert_eq!(hops(&block), 1);
        assert_eq!(
            block.get(0).unwrap().value(),
            "from mx???vil??? (mail.example.net [IPv6:2001:db8::1]) by gate.example.org with ESMTPS \
             (TLSv1.3 TLS13_AES_256_GCM_SHA384) id 00000000000000000000000000 for <b@example.org>; \
             Sun, 22 Nov 2026 03:10:28 +0000"
        );
    }
}
