//! What one server session offers: its EHLO keywords (RFC 5321 section 2.2) and its SASL mechanisms.
//!
//! [`Offers`] is the list of EHLO keywords of one session. The host may edit it while the question
//! [`super::Question::Hello`] is open; the session then advertises and accepts what it contains.

use std::fmt;

use pintle_mail::Param;

use crate::extension::{Extension, Extensions, Offered, Parameter};

/// A SASL mechanism (RFC 4422) that the server implements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaslMechanism {
    /// PLAIN (RFC 4616): authorization identity, user name and password in one response.
    Plain,
    /// LOGIN, which has no RFC and which Exchange and Outlook require.
    Login,
}

impl SaslMechanism {
    /// Returns its registered name, in upper case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
        }
    }

    /// Finds the mechanism with this name, in any case.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Plain, Self::Login].into_iter().find(|mechanism| mechanism.name().eq_ignore_ascii_case(name))
    }
}

/// A set of SASL mechanisms; both by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SaslMechanisms {
    /// Whether PLAIN is in the set.
    pub plain: bool,
    /// Whether LOGIN is in the set.
    pub login: bool,
}

impl Default for SaslMechanisms {
    fn default() -> Self {
        Self { plain: true, login: true }
    }
}

impl SaslMechanisms {
    /// Whether this mechanism is in the set.
    #[must_use]
    pub fn has(self, mechanism: SaslMechanism) -> bool {
        match mechanism {
            SaslMechanism::Plain => self.plain,
            SaslMechanism::Login => self.login,
        }
    }

    /// Returns their names as the parameter of AUTH.
    fn parameter(self) -> Parameter {
        let all =
            [SaslMechanism::Plain, SaslMechanism::Login].into_iter().filter(|mechanism| self.has(*mechanism));
        Parameter::Words(all.map(|mechanism| mechanism.name().to_owned()).collect())
    }

    /// Picks the implemented mechanisms from the names in a parameter of AUTH.
    fn from_names(names: &[String]) -> Self {
        let has = |wanted| names.iter().any(|name| SaslMechanism::named(name) == Some(wanted));
        Self { plain: has(SaslMechanism::Plain), login: has(SaslMechanism::Login) }
    }
}

/// The EHLO keywords that one session offers, with their values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offers {
    known: Offered,
    other: Vec<Param>,
}

impl Offers {
    pub(super) fn new(extensions: Extensions, size: u64, mechanisms: SaslMechanisms) -> Self {
        let mut known = Offered::default();
        for extension in Extension::ALL.into_iter().filter(|extension| extensions.has(*extension)) {
            let parameter = match extension {
                Extension::Size => Parameter::Octets(size),
                Extension::Auth => mechanisms.parameter(),
                _ => Parameter::None,
            };
            known.insert(extension, parameter);
        }
        Self { known, other: Vec::new() }
    }

    pub(super) fn none() -> Self {
        Self { known: Offered::default(), other: Vec::new() }
    }

    /// Whether the extension is offered.
    #[must_use]
    pub fn has(&self, extension: Extension) -> bool {
        self.known.has(extension)
    }

    /// Returns the largest message in octets if SIZE is offered; 0 is no limit.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        self.known.size()
    }

    /// Returns the SASL mechanisms of AUTH; none if it is not offered.
    #[must_use]
    pub fn mechanisms(&self) -> SaslMechanisms {
        SaslMechanisms::from_names(self.known.mechanisms())
    }

    /// Adds a keyword, or replaces its value. A keyword that the server does not know is advertised, and its parameters
    /// of MAIL and RCPT are passed on in `other`.
    ///
    /// STARTTLS within TLS, AUTH where the configuration forbids it, and mechanisms that the server does not implement
    /// are omitted from the reply even if added here.
    ///
    /// # Errors
    /// Returns why the keyword cannot be part of a reply to EHLO.
    pub fn offer(&mut self, keyword: &str, value: Option<&str>) -> Result<(), OfferError> {
        check_offer(keyword, value)?;
        let Some(extension) = Extension::named(keyword) else {
            self.withhold(keyword);
            self.other.push(Param { name: keyword.to_ascii_uppercase(), value: value.map(str::to_owned) });
            return Ok(());
        };
        let parameter = Parameter::parse(extension, value).ok_or(OfferError::Value)?;
        self.known.insert(extension, parameter);
        if extension == Extension::Auth {
            self.known.insert(extension, self.mechanisms().parameter());
        }
        Ok(())
    }

    /// Removes a keyword; does nothing if it is not offered.
    pub fn withhold(&mut self, keyword: &str) {
        match Extension::named(keyword) {
            Some(extension) => self.known.remove(extension),
            None => self.other.retain(|param| !param.name.eq_ignore_ascii_case(keyword)),
        }
    }

    /// Returns the keywords with their values, in the order of the EHLO reply.
    #[must_use]
    pub fn params(&self) -> Vec<Param> {
        let param = |(extension, parameter): (Extension, &Parameter)| Param {
            name: extension.keyword().to_owned(),
            value: parameter.text(),
        };
        self.known.iter().map(param).chain(self.other.iter().cloned()).collect()
    }

    /// Appends the keywords to the text of a reply, one on each line.
    pub(super) fn append_lines(&self, text: &mut String) {
        for (extension, parameter) in self.known.iter() {
            append_line(text, extension.keyword(), parameter.text().as_deref());
        }
        for param in &self.other {
            append_line(text, &param.name, param.value.as_deref());
        }
    }

    /// Whether a parameter of this name belongs to an extension that the host added.
    pub(super) fn has_other(&self, keyword: &str) -> bool {
        self.other.iter().any(|param| param.name.eq_ignore_ascii_case(keyword))
    }

    /// Removes what the session cannot serve now.
    pub(super) fn restrict(&mut self, possible: Extensions) {
        for extension in Extension::ALL.into_iter().filter(|extension| !possible.has(*extension)) {
            self.known.remove(extension);
        }
    }

    /// Lowers SIZE to the configured limit, which memory and disk were sized for. 0 is no limit.
    pub(super) fn cap_size(&mut self, most: u64) {
        if most > 0 && self.size().is_some_and(|size| size == 0 || size > most) {
            self.known.insert(Extension::Size, Parameter::Octets(most));
        }
    }
}

fn append_line(text: &mut String, keyword: &str, value: Option<&str>) {
    text.push('\n');
    text.push_str(keyword);
    if let Some(value) = value {
        text.push(' ');
        text.push_str(value);
    }
}

/// Why a keyword cannot be offered. The plugin or the operator that asked for it is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfferError {
    /// The keyword has characters other than letters, digits and hyphens (RFC 5321 section 4.1.1.1).
    Keyword,
    /// The value does not fit this extension, or contains characters that a reply must not contain.
    Value,
    /// BINARYMIME needs binary transport all the way to the next hop, which Pintle does not have.
    Unsupported,
}

impl fmt::Display for OfferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keyword => "an EHLO keyword holds letters, digits and hyphens only",
            Self::Value => "the value does not fit the EHLO keyword",
            Self::Unsupported => "BINARYMIME cannot be offered",
        })
    }
}

impl std::error::Error for OfferError {}

fn check_offer(keyword: &str, value: Option<&str>) -> Result<(), OfferError> {
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if keyword.is_empty() || keyword.len() > 64 || !keyword.bytes().all(letters) {
        return Err(OfferError::Keyword);
    }
    if keyword.eq_ignore_ascii_case("BINARYMIME") {
        return Err(OfferError::Unsupported);
    }
    let printable =
        |value: &str| value.len() <= 400 && value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if value.is_none_or(printable) { Ok(()) } else { Err(OfferError::Value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offers() -> Offers {
        Offers::new(Extensions::default(), 1_000, SaslMechanisms::default())
    }

    fn keywords(offers: &Offers) -> Vec<String> {
        let line = |param: Param| match param.value {
            Some(value) => format!("{} {value}", param.name),
            None => param.name,
        };
        offers.params().into_iter().map(line).collect()
    }

    #[test]
    fn defaults_leave_out_what_needs_a_host() {
        assert_eq!(
            keywords(&offers()),
            [
                "PIPELINING",
                "SIZE 1000",
                "ENHANCEDSTATUSCODES",
                "8BITMIME",
                "DSN",
                "CHUNKING",
                "PRDR",
                "SMTPUTF8"
            ]
        );
    }

    #[test]
    fn a_host_edits_its_offers() {
        let mut offers = offers();
        offers.offer("size", Some("5")).unwrap();
        offers.offer("AUTH", Some("LOGIN SCRAM-SHA-256")).unwrap();
        offers.offer("x-thing", Some("a b")).unwrap();
        for gone in ["chunking", "DSN", "SMTPUTF8", "X-NEVER", "8bitmime", "prdr"] {
            offers.withhold(gone);
        }
        assert_eq!(
            keywords(&offers),
            ["PIPELINING", "SIZE 5", "AUTH LOGIN", "ENHANCEDSTATUSCODES", "X-THING a b"]
        );
        assert!(offers.has_other("X-Thing"));
    }

    #[test]
    fn no_host_offers_room_that_the_configuration_does_not_have() {
        for (offered, most, size) in
            [("0", 1_000, 1_000), ("9999", 1_000, 1_000), ("5", 1_000, 5), ("0", 0, 0), ("9", 0, 9)]
        {
            let mut offers = offers();
            offers.offer("SIZE", Some(offered)).unwrap();
            offers.cap_size(most);
            assert_eq!(offers.size(), Some(size), "{offered} of {most}");
        }
    }

    #[test]
    fn offers_that_cannot_stand_are_refused() {
        let mut offers = offers();
        assert_eq!(offers.offer("BINARYMIME", None), Err(OfferError::Unsupported));
        assert_eq!(offers.offer("A B", None), Err(OfferError::Keyword));
        assert_eq!(offers.offer("X", Some("a\r\n250 B")), Err(OfferError::Value));
        assert_eq!(offers.offer("SIZE", Some("big")), Err(OfferError::Value));
        assert_eq!(offers.offer("DSN", Some("1")), Err(OfferError::Value));
    }
}
