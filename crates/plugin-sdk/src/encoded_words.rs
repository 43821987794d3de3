//! Decodes encoded words (RFC 2047), such as `=?utf-8?Q?Zo=C3=AB?=`. Feature: `encoded-words`.
//!
//! Words are decoded wherever mail clients decode them, including within quoted strings, where the standard does not
//! permit them. A word that cannot be decoded is kept as it is; one with an unknown charset is decoded as UTF-8.

use mail_parser::parsers::MessageStream;

/// Maximum length of a word, in octets; RFC 2047 section 2 allows 75. Without a limit, text that starts a word at every
/// other octet and never ends one would be searched to its end each time.
const MAX_WORD: usize = 1_000;

/// The text as readers see it. Decoded line ends and NUL characters are kept.
#[must_use]
pub fn decode(text: &str) -> String {
    let mut shown = String::new();
    let (mut rest, mut follows_word) = (text, false);
    while let Some(at) = rest.find("=?") {
        let (before, word) = rest.split_at(at);
        let decoded = word_at(word);
        // RFC 2047 section 6.2: white space between two encoded words is not part of the text.
        if !(follows_word && decoded.is_some() && before.trim().is_empty()) {
            shown.push_str(before);
        }
        follows_word = decoded.is_some();
        let (text, len) = decoded.unwrap_or_else(|| ("=?".to_owned(), 2));
        shown.push_str(&text);
        rest = &word[len..];
    }
    shown + rest
}

/// The decoded word at the beginning of the text, and its encoded length in octets (RFC 2047 section 2).
fn word_at(text: &str) -> Option<(String, usize)> {
    let text = &text[..text.floor_char_boundary(MAX_WORD)];
    let charset = 2 + text[2..].find('?')?;
    let data = charset + 1 + text[charset + 1..].find('?')? + 1;
    let len = data + text[data..].find("?=")? + 2;
    let decoded = MessageStream::new(&text.as_bytes()[1..len]).decode_rfc2047()?;
    Some((decoded, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_what_readers_see() {
        for (text, shown) in [
            ("=?utf-8?Q?Zo=C3=AB?= Lee", "Zoë Lee"),
            ("=?UTF-8?B?Wm/Dqw==?= =?utf-8?q?_Lee?=", "Zoë Lee"),
            ("a =?iso-8859-1?Q?=E9?= b", "a é b"),
            ("=?koi8-r?B?8NLJ18XU?=", "Привет"),
            ("=?iso-2022-jp?B?GyRCRnxLXBsoQg==?=", "日本"),
            ("=?utf-8?Q?bob=40good.example?=", "bob@good.example"),
            ("=?utf-8?Q?a=00b?=", "a\0b"),
            ("=?nonsense", "=?nonsense"),
            ("1 =? 2 ?= 3", "1 =? 2 ?= 3"),
            ("=?utf-8?X?abc?=", "=?utf-8?X?abc?="),
            ("é =?", "é =?"),
        ] {
            assert_eq!(decode(text), shown, "{text}");
        }
    }
}
