//! Signature fields as text, and the octets that they sign (RFC 6376 sections 3.5, 3.7 and 5.4).

use std::fmt::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pintle_mail::{HeaderBlock, UnixTime};

use super::canonical::Canonicalization;
use super::keyring::SigningKey;

const DKIM: &str = "DKIM-Signature";
/// Lines are folded within this many octets (RFC 5322 section 2.1.1).
const FOLD_AT: usize = 78;
/// The characters of a signature on one line.
const BASE64_LINE: usize = 72;

/// The kind of signature over a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Dkim,
    Arc,
}

/// A signature field without its signature.
pub(super) struct Unsigned {
    key: Arc<SigningKey>,
    text: String,
    /// The octets to sign.
    input: Vec<u8>,
}

impl Unsigned {
    /// A DKIM-Signature field.
    pub(super) fn dkim(key: &Arc<SigningKey>, header: &HeaderBlock, body_hash: &[u8], now: UnixTime) -> Self {
        let mut field = FieldText::new(DKIM);
        field.tag("v", "1");
        let names = message_tags(&mut field, key, header, now, Purpose::Dkim);
        if let Some(expires) = key.config.expires {
            field.tag("x", &seconds(now.plus(expires)).to_string());
        }
        Self::over_message(key, field, header, &names, body_hash, key.config.header)
    }

    /// An ARC-Message-Signature field (RFC 8617 section 4.1.2): like a DKIM-Signature with an instance in place of the
    /// version, in the relaxed form, and also over the signatures that the message arrived with.
    pub(super) fn arc(
        key: &Arc<SigningKey>,
        instance: u32,
        header: &HeaderBlock,
        body_hash: &[u8],
        now: UnixTime,
    ) -> Self {
        let mut field = FieldText::new("ARC-Message-Signature");
        field.tag("i", &instance.to_string());
        let names = message_tags(&mut field, key, header, now, Purpose::Arc);
        Self::over_message(key, field, header, &names, body_hash, Canonicalization::Relaxed)
    }

    fn over_message(
        key: &Arc<SigningKey>,
        mut field: FieldText,
        header: &HeaderBlock,
        names: &[&str],
        body_hash: &[u8],
        canonicalization: Canonicalization,
    ) -> Self {
        field.list("h", names);
        field.line("bh", &STANDARD.encode(body_hash));
        let mut input = Vec::with_capacity(4_096);
        write_signed(header, names, canonicalization, &mut input);
        Self::new(key, field, input, canonicalization)
    }

    /// The field itself is signed too, without its signature and its line end (section 3.7).
    pub(super) fn new(
        key: &Arc<SigningKey>,
        field: FieldText,
        mut input: Vec<u8>,
        canonicalization: Canonicalization,
    ) -> Self {
        let text = field.open();
        canonicalization.write_field(text.as_bytes(), &mut input);
        input.truncate(input.len() - 2);
        Self { key: Arc::clone(key), text, input }
    }

    /// Whether signing would block others for too long. RSA with 2,048 bits takes a quarter of a millisecond on new
    /// processors and a whole one on old ones, with 4,096 bits six times that; Ed25519 takes 25 µs, little more than
    /// switching threads costs.
    pub(super) fn is_slow(&self) -> bool {
        matches!(self.key.algorithm(), super::Algorithm::Rsa { .. })
    }

    /// Signs and returns the whole field, or the name of the key that failed.
    pub(super) fn complete(self) -> Result<Vec<u8>, String> {
        let signature = self.key.private.sign(&self.input).ok_or_else(|| self.key.name().to_owned())?;
        let mut text = self.text;
        let signature = STANDARD.encode(signature);
        let mut rest = signature.as_str();
        while rest.len() > BASE64_LINE {
            let (line, after) = rest.split_at(BASE64_LINE);
            text.push_str(line);
            text.push_str("\r\n ");
            rest = after;
        }
        text.push_str(rest);
        text.push_str("\r\n");
        Ok(text.into_bytes())
    }
}

/// Writes the tags that both kinds of message signature have; returns the names for `h=`.
fn message_tags<'a>(
    field: &mut FieldText,
    key: &'a SigningKey,
    header: &HeaderBlock,
    now: UnixTime,
    purpose: Purpose,
) -> Vec<&'a str> {
    let config = &key.config;
    let in_header = match purpose {
        Purpose::Dkim => config.header,
        Purpose::Arc => Canonicalization::Relaxed,
    };
    field.tag("a", key.algorithm().name());
    field.tag("c", &format!("{}/{}", in_header.name(), config.body.name()));
    field.tag("d", &config.domain);
    field.tag("s", &config.selector);
    field.tag("t", &seconds(now).to_string());
    signed_names(header, &config.fields, purpose)
}

/// Seconds since 1970, never below 0.
pub(super) fn seconds(time: UnixTime) -> u64 {
    u64::try_from(time.millis() / 1_000).unwrap_or(0)
}

/// Each name as often as its field occurs, and once more where none may be added: a field that is signed but absent
/// counts as empty, and adding one breaks the signature (section 5.4.2).
fn signed_names<'a>(header: &HeaderBlock, fields: &'a [(String, bool)], purpose: Purpose) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    let mut add = |name: &'a str, over: bool| {
        let count = header.named(name).count() + usize::from(over);
        names.extend(std::iter::repeat_n(name, count));
    };
    let is = |known: &str, name: &str| known.eq_ignore_ascii_case(name);
    for (name, over) in fields {
        // RFC 8617 section 4.1.2 excludes the fields of ARC sets; the next sealer adds some.
        let is_arc = name.get(..4).is_some_and(|start| is(start, "ARC-"));
        if purpose == Purpose::Dkim || !is_arc {
            add(name, *over);
        }
    }
    if purpose == Purpose::Arc && !fields.iter().any(|(name, _)| is(name, DKIM)) {
        add(DKIM, false);
    }
    names
}

/// Fields of one name are taken from the bottom up (section 5.4.2).
fn write_signed(header: &HeaderBlock, names: &[&str], canonicalization: Canonicalization, out: &mut Vec<u8>) {
    for name in names.chunk_by(|a, b| a.eq_ignore_ascii_case(b)).filter_map(|same| same.first()) {
        let fields: Vec<_> = header.named(name).collect();
        fields.iter().rev().for_each(|field| canonicalization.write_field(field.raw(), out));
    }
}

/// A field of tags being written.
pub(super) struct FieldText {
    text: String,
    /// The offset at which the last line begins.
    line: usize,
}

impl FieldText {
    pub(super) fn new(name: &str) -> Self {
        Self { text: format!("{name}:"), line: 0 }
    }

    /// Writes a tag that is not folded.
    pub(super) fn tag(&mut self, name: &str, value: &str) {
        self.put(&format!("{name}={value};"), " ");
    }

    /// Writes a tag of words separated by colons, at which it may be folded.
    fn list(&mut self, name: &str, words: &[&str]) {
        let mut separator = " ";
        for (at, word) in words.iter().enumerate() {
            let start = if at == 0 { format!("{name}=") } else { String::new() };
            let end = if at + 1 == words.len() { ';' } else { ':' };
            self.put(&format!("{start}{word}{end}"), separator);
            separator = "";
        }
    }

    /// Writes a tag on a new line.
    fn line(&mut self, name: &str, value: &str) {
        self.fold();
        // Writing into a string cannot fail.
        let _ = write!(self.text, "{name}={value};");
    }

    /// The field up to the position of its signature.
    fn open(mut self) -> String {
        self.fold();
        self.text.push_str("b=");
        self.text
    }

    fn put(&mut self, text: &str, separator: &str) {
        if self.text.len() - self.line + separator.len() + text.len() > FOLD_AT {
            self.fold();
        } else {
            self.text.push_str(separator);
        }
        self.text.push_str(text);
    }

    fn fold(&mut self) {
        self.text.push_str("\r\n ");
        self.line = self.text.len() - 1;
    }
}
