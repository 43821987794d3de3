//! A field's value in ASCII: text outside ASCII is written as encoded words (RFC 2047) where the field permits them.

use super::check::HeaderError;
use super::encoded_addresses::addresses;
use crate::encoded_words::{TextWord, WordWriter, is_encoded_word};

/// Fields of addresses (RFC 5322 sections 3.6.2 and 3.6.3, RFC 8098, and common ones without an RFC), and List-ID (RFC
/// 2919), in which a name may precede an identifier in angle brackets too.
const ADDRESSES: &[&str] = &[
    "from",
    "sender",
    "reply-to",
    "to",
    "cc",
    "bcc",
    "disposition-notification-to",
    "return-receipt-to",
    "errors-to",
    "mail-followup-to",
    "mail-reply-to",
    "list-id",
];

/// Fields without text for readers, in addition to those of [`STRUCTURED_PREFIXES`].
const STRUCTURED: &[&str] = &[
    "message-id",
    "in-reply-to",
    "references",
    "date",
    "received",
    "return-path",
    "mime-version",
    "received-spf",
    "authentication-results",
    "delivered-to",
    "auto-submitted",
    "archived-at",
    "supersedes",
    "tls-required",
    "domainkey-signature",
];

/// What the names of more fields without text for readers begin with.
const STRUCTURED_PREFIXES: &[&str] = &["content-", "list-", "arc-", "dkim-"];

/// Where a field permits encoded words (RFC 2047 section 5).
enum FieldSyntax {
    /// Everywhere.
    Unstructured,
    /// In display names and comments.
    Addresses,
    /// In each of a list of phrases.
    Phrases,
    /// Nowhere.
    Structured,
}

/// The value in ASCII, for the field of this name. Both are unfolded. A value in ASCII is returned as it is, with any
/// encoded words in it.
///
/// In unstructured fields, which are all that are not known as something else, words outside ASCII become encoded words;
/// in fields of addresses, display names and comments do. Encoded words that are there already stay, so that a tag can be
/// written before a value as it was read. [`decoded`](crate::encoded_words::decoded) shows the same text as for `value`.
///
/// # Errors
/// - [`HeaderError::Value`]: a value outside ASCII holds CR, LF or NUL.
/// - [`HeaderError::NotAscii`]: the field does not permit encoded words where they would be necessary, or an address
///   field has a quoted string, a comment or a bracket that is not closed.
pub fn encoded(name: &str, value: &str) -> Result<String, HeaderError> {
    if value.is_ascii() {
        return Ok(value.to_owned());
    }
    if value.contains(['\r', '\n', '\0']) {
        return Err(HeaderError::Value(name.to_owned()));
    }
    let text = match FieldSyntax::of(name) {
        FieldSyntax::Unstructured => Ok(unstructured(name, value)),
        FieldSyntax::Addresses => addresses(name, value, false),
        FieldSyntax::Phrases => addresses(name, value, true),
        FieldSyntax::Structured => Err("this field permits no encoded words"),
    };
    text.map_err(|reason| HeaderError::NotAscii { name: name.to_owned(), reason })
}

impl FieldSyntax {
    fn of(name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        let base = name.strip_prefix("resent-").unwrap_or(&name);
        match base {
            // RFC 2045 section 8.
            "content-description" => Self::Unstructured,
            // RFC 5322 section 3.6.5.
            "keywords" => Self::Phrases,
            base if ADDRESSES.contains(&base) => Self::Addresses,
            base if STRUCTURED.contains(&base) => Self::Structured,
            base if STRUCTURED_PREFIXES.iter().any(|prefix| base.starts_with(prefix)) => Self::Structured,
            _ => Self::Unstructured,
        }
    }
}

fn unstructured(name: &str, value: &str) -> String {
    let mut writer = WordWriter::new(name);
    for (white, word) in words(value) {
        let word = match word.is_ascii() {
            true if is_encoded_word(word) => TextWord::Encoded(word),
            true => TextWord::Plain(word),
            false => TextWord::Unencoded(word),
        };
        writer.word(white, &word);
    }
    writer.finish()
}

/// The words of a text, each with the white space before it; white space at the end comes with an empty word.
fn words(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let is_blank = |c: char| matches!(c, ' ' | '\t');
    let mut rest = text;
    std::iter::from_fn(move || {
        let start = rest.find(|c| !is_blank(c)).unwrap_or(rest.len());
        let (white, behind) = rest.split_at(start);
        let (word, behind) = behind.split_at(behind.find(is_blank).unwrap_or(behind.len()));
        rest = behind;
        (!white.is_empty() || !word.is_empty()).then_some((white, word))
    })
}
