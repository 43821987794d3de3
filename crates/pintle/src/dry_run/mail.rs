//! Reads the message of a dry run, and makes its envelope from the command line or else from the header fields.

use std::borrow::Cow;

use pintle_inbound::split_message;
use pintle_mail::{Address, Bytes, Charset, HeaderBlock, ReversePath};

use crate::cli::Try;

/// A message as the gateway would receive it.
pub(super) struct MailFile {
    /// The whole message, with CRLF line ends.
    pub(super) octets: Bytes,
    pub(super) header: HeaderBlock,
    pub(super) body: Bytes,
    pub(super) sender: ReversePath,
    pub(super) recipients: Vec<Address>,
    /// Whether LF line ends, as in files, were converted to CRLF.
    pub(super) mended: bool,
}

impl MailFile {
    /// Parses a message.
    ///
    /// # Errors
    /// The message has no header, there is no recipient, or an address is invalid.
    pub(super) fn read(bytes: &[u8], options: &Try) -> Result<Self, String> {
        let whole = with_crlf(bytes);
        let octets = Bytes::copy_from_slice(&whole);
        let (header, body) = split_message(octets.clone());
        let block = HeaderBlock::parse(header);
        if block.is_empty() {
            return Err("the message has no header: is this a mail message?".to_owned());
        }
        let sender = sender(options.sender.as_deref(), &block)?;
        let recipients = recipients(&options.recipients, &block)?;
        let mended = matches!(whole, Cow::Owned(_));
        Ok(Self { octets, header: block, body, sender, recipients, mended })
    }
}

fn sender(given: Option<&str>, header: &HeaderBlock) -> Result<ReversePath, String> {
    if let Some(given) = given {
        return ReversePath::parse(given.trim_matches(['<', '>']), Charset::Utf8)
            .map_err(|error| format!("the sender {given:?}: {error}"));
    }
    // RFC 5321 section 4.4: final delivery stores the reverse-path in Return-Path.
    let path = header.named("Return-Path").next().map(|field| field.value());
    if path.is_some_and(|path| path.trim() == "<>") {
        return Ok(ReversePath::Null);
    }
    let found =
        ["Return-Path", "Sender", "From"].iter().find_map(|name| addresses(header, name).into_iter().next());
    Ok(found.map_or(ReversePath::Null, ReversePath::Address))
}

fn recipients(given: &[String], header: &HeaderBlock) -> Result<Vec<Address>, String> {
    let parse = |text: &String| {
        let address = Address::parse(text.trim_matches(['<', '>']), Charset::Utf8);
        address.map_err(|error| format!("the recipient {text:?}: {error}"))
    };
    if !given.is_empty() {
        return given.iter().map(parse).collect();
    }
    let mut found: Vec<Address> = Vec::new();
    for address in ["To", "Cc", "Bcc"].iter().flat_map(|name| addresses(header, name)) {
        if !found.iter().any(|other| other.key() == address.key()) {
            found.push(address);
        }
    }
    if found.is_empty() {
        return Err("the header names no recipient: give --recipient".to_owned());
    }
    Ok(found)
}

fn addresses(header: &HeaderBlock, name: &str) -> Vec<Address> {
    header.named(name).flat_map(|field| addresses_in(&field.value())).collect()
}

/// The addresses in an address list field (RFC 5322 section 3.4). Invalid addresses are skipped: this is only a default
/// for the envelope, which the command line can override.
fn addresses_in(value: &str) -> Vec<Address> {
    let bare = without_words(value);
    let parts = bare.split([',', ';', ':']);
    let address = |part: &str| {
        let inner = part.rsplit_once('<').map_or(part, |(_, rest)| rest.split('>').next().unwrap_or(rest));
        Address::parse(inner.trim(), Charset::Utf8).ok().filter(|address| !address.is_bare_postmaster())
    };
    parts.filter_map(address).collect()
}

/// Removes comments and quoted display names; keeps a quoted local part.
fn without_words(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let (mut depth, mut rest) = (0_usize, value.chars().peekable());
    while let Some(c) = rest.next() {
        match c {
            '\\' => drop(rest.next()),
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ if depth > 0 => {}
            '"' => {
                let quoted = quoted(&mut rest);
                if rest.peek() == Some(&'@') {
                    out.push_str(&quoted);
                }
            }
            c => out.push(c),
        }
    }
    out
}

/// Reads the rest of a quoted string, after its first quote. Returns it with both quotes.
fn quoted(rest: &mut impl Iterator<Item = char>) -> String {
    let mut out = String::from("\"");
    while let Some(c) = rest.next() {
        out.push(c);
        match c {
            '\\' => out.extend(rest.next()),
            '"' => break,
            _ => {}
        }
    }
    out
}

/// Converts LF line ends to CRLF. Borrowed if all line ends are CRLF already.
fn with_crlf(bytes: &[u8]) -> Cow<'_, [u8]> {
    let bare = |line: &[u8]| line.ends_with(b"\n") && !line.ends_with(b"\r\n");
    let lines = || bytes.split_inclusive(|octet| *octet == b'\n');
    if !lines().any(bare) {
        return Cow::Borrowed(bytes);
    }
    let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 32);
    for line in lines() {
        match line.strip_suffix(b"\n") {
            Some(text) if bare(line) => out.extend_from_slice(&[text, b"\r\n"].concat()),
            _ => out.extend_from_slice(line),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(value: &str) -> Vec<String> {
        addresses_in(value).iter().map(|address| address.as_str().to_owned()).collect()
    }

    #[test]
    fn addresses_are_found_among_words() {
        assert_eq!(
            texts("\"Bob, the <b@fake.example>\" <bob@x.example> (home), ann@y.example, Team: c@z.example;"),
            ["bob@x.example", "ann@y.example", "c@z.example"]
        );
        assert_eq!(texts("\"a b\"@x.example, nobody, <>"), ["\"a b\"@x.example"]);
    }

    #[test]
    fn a_file_becomes_a_message() {
        let split = |message: &[u8]| split_message(Bytes::copy_from_slice(message));
        let (header, body) = split(&with_crlf(b"From a@b Mon\nSubject: s\n\nbody\r\n\n"));
        assert_eq!(header.as_ref(), b"X-Mailbox-Line: From a@b Mon\r\nSubject: s\r\n");
        assert_eq!(body.as_ref(), b"body\r\n\r\n");
        // As in the gateway: a line that is not a field ends the header.
        let (header, body) = split(b"A: b\r\nno field\r\nC: d\r\n\r\n");
        assert_eq!((header.as_ref(), body.as_ref()), (&b"A: b\r\n"[..], &b"no field\r\nC: d\r\n\r\n"[..]));
        assert!(matches!(with_crlf(b"a\r\nb"), Cow::Borrowed(_)));
    }
}
