//! ESMTP extensions: which there are, which a configuration allows, and what one session offers (RFC 5321 section 2.2).
//!
//! [`Offers`] is the list of EHLO keywords of one session. The host may edit it while the question [`super::Question::Hello`]
//! is open; what it then holds is what the machine advertises and what it accepts afterwards.

use std::fmt;

use pintle_mail::Param;

/// An extension that the machine can serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extension {
    /// RFC 2920.
    Pipelining,
    /// RFC 1870.
    Size,
    /// RFC 6152.
    EightBitMime,
    /// RFC 6531.
    SmtpUtf8,
    /// BDAT (RFC 3030).
    Chunking,
    /// RFC 2034. Replies bear their codes even where this is withheld: they are text to a client that does not know them.
    EnhancedStatusCodes,
    /// RFC 3461.
    Dsn,
    /// RFC 3207.
    StartTls,
    /// RFC 4954.
    Auth,
    /// RFC 8689. Only for a host whose delivery obeys it.
    RequireTls,
}

impl Extension {
    /// In the order in which they are offered.
    pub const ALL: [Self; 10] = [
        Self::Pipelining,
        Self::Size,
        Self::StartTls,
        Self::Auth,
        Self::EnhancedStatusCodes,
        Self::EightBitMime,
        Self::Dsn,
        Self::Chunking,
        Self::SmtpUtf8,
        Self::RequireTls,
    ];

    /// Its EHLO keyword.
    #[must_use]
    pub fn keyword(self) -> &'static str {
        match self {
            Self::Pipelining => "PIPELINING",
            Self::Size => "SIZE",
            Self::EightBitMime => "8BITMIME",
            Self::SmtpUtf8 => "SMTPUTF8",
            Self::Chunking => "CHUNKING",
            Self::EnhancedStatusCodes => "ENHANCEDSTATUSCODES",
            Self::Dsn => "DSN",
            Self::StartTls => "STARTTLS",
            Self::Auth => "AUTH",
            Self::RequireTls => "REQUIRETLS",
        }
    }

    /// The extension with this keyword, in any case.
    #[must_use]
    pub fn named(keyword: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|extension| extension.keyword().eq_ignore_ascii_case(keyword))
    }

    fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// A set of extensions. The default is all but STARTTLS, AUTH and REQUIRETLS, which need a host that can serve them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extensions(u16);

impl Extensions {
    /// None at all, as after HELO.
    pub const NONE: Self = Self(0);

    /// The set with this extension.
    #[must_use]
    pub fn with(self, extension: Extension) -> Self {
        Self(self.0 | extension.bit())
    }

    /// The set without it.
    #[must_use]
    pub fn without(self, extension: Extension) -> Self {
        Self(self.0 & !extension.bit())
    }

    /// Whether it is in the set.
    #[must_use]
    pub fn has(self, extension: Extension) -> bool {
        self.0 & extension.bit() != 0
    }
}

impl Default for Extensions {
    fn default() -> Self {
        Extension::ALL
            .into_iter()
            .fold(Self::NONE, Self::with)
            .without(Extension::StartTls)
            .without(Extension::Auth)
            .without(Extension::RequireTls)
    }
}

/// A SASL mechanism (RFC 4422) that the machine speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// The undocumented one that Exchange and Outlook insist on.
    Login,
}

impl Mechanism {
    /// Its registered name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
        }
    }

    /// The mechanism with this name, in any case.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Plain, Self::Login].into_iter().find(|mechanism| mechanism.name().eq_ignore_ascii_case(name))
    }
}

/// A set of mechanisms; both by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mechanisms {
    /// PLAIN.
    pub plain: bool,
    /// LOGIN.
    pub login: bool,
}

impl Default for Mechanisms {
    fn default() -> Self {
        Self { plain: true, login: true }
    }
}

impl Mechanisms {
    /// Whether this mechanism is in the set.
    #[must_use]
    pub fn has(self, mechanism: Mechanism) -> bool {
        match mechanism {
            Mechanism::Plain => self.plain,
            Mechanism::Login => self.login,
        }
    }

    /// Their names as EHLO gives them, if there are any.
    fn names(self) -> Option<&'static str> {
        match (self.plain, self.login) {
            (true, true) => Some("PLAIN LOGIN"),
            (true, false) => Some("PLAIN"),
            (false, true) => Some("LOGIN"),
            (false, false) => None,
        }
    }

    fn from_names(names: &str) -> Self {
        let has = |wanted| names.split_ascii_whitespace().any(|name| Mechanism::named(name) == Some(wanted));
        Self { plain: has(Mechanism::Plain), login: has(Mechanism::Login) }
    }
}

/// What one session offers in its reply to EHLO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offers {
    known: Extensions,
    size: u64,
    mechanisms: Mechanisms,
    other: Vec<Param>,
}

impl Offers {
    pub(super) fn new(known: Extensions, size: u64, mechanisms: Mechanisms) -> Self {
        Self { known, size, mechanisms, other: Vec::new() }
    }

    pub(super) fn none() -> Self {
        Self::new(Extensions::NONE, 0, Mechanisms::default())
    }

    /// Whether the extension is on offer.
    #[must_use]
    pub fn has(&self, extension: Extension) -> bool {
        self.known.has(extension)
    }

    /// The largest message, in octets; 0 is no limit.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The SASL mechanisms, which mean something while AUTH is on offer.
    #[must_use]
    pub fn mechanisms(&self) -> Mechanisms {
        self.mechanisms
    }

    /// Adds a keyword, or changes its value. A keyword that the machine does not know is advertised, and its
    /// parameters of MAIL and RCPT are passed on in `other`.
    ///
    /// STARTTLS within TLS, and AUTH where the configuration forbids it, are left out of the reply all the same.
    ///
    /// # Errors
    /// Says why the keyword cannot stand in a reply to EHLO.
    pub fn offer(&mut self, keyword: &str, value: Option<&str>) -> Result<(), OfferError> {
        check_offer(keyword, value)?;
        match Extension::named(keyword) {
            Some(Extension::Size) => {
                self.size = value.unwrap_or("0").parse().map_err(|_| OfferError::Value)?;
            }
            Some(Extension::Auth) => self.mechanisms = Mechanisms::from_names(value.unwrap_or_default()),
            Some(_) if value.is_some() => return Err(OfferError::Value),
            Some(_) => {}
            None => {
                self.offer_other(keyword, value);
                return Ok(());
            }
        }
        if let Some(extension) = Extension::named(keyword) {
            self.known = self.known.with(extension);
        }
        Ok(())
    }

    /// Takes a keyword out; one that is not there is no fault.
    pub fn withhold(&mut self, keyword: &str) {
        match Extension::named(keyword) {
            Some(extension) => self.known = self.known.without(extension),
            None => self.other.retain(|param| !param.name.eq_ignore_ascii_case(keyword)),
        }
    }

    /// The keywords with their values, in the order of the reply.
    #[must_use]
    pub fn params(&self) -> Vec<Param> {
        let mut params = Vec::new();
        for extension in Extension::ALL {
            self.known_line(extension, |value| {
                params.push(Param { name: extension.keyword().to_owned(), value: value.map(str::to_owned) });
            });
        }
        params.extend(self.other.iter().cloned());
        params
    }

    /// Appends the keywords to the text of a reply, each on a line of its own.
    pub(super) fn append_lines(&self, text: &mut String) {
        for extension in Extension::ALL {
            self.known_line(extension, |value| append_line(text, extension.keyword(), value));
        }
        for param in &self.other {
            append_line(text, &param.name, param.value.as_deref());
        }
    }

    /// Calls `line` with the value of this extension if it is on offer.
    fn known_line(&self, extension: Extension, line: impl FnOnce(Option<&str>)) {
        match extension {
            _ if !self.has(extension) => {}
            Extension::Size => line(Some(&self.size.to_string())),
            Extension::Auth => {
                if let Some(names) = self.mechanisms.names() {
                    line(Some(names));
                }
            }
            _ => line(None),
        }
    }

    /// Whether a parameter of this name belongs to an extension that the host added.
    pub(super) fn has_other(&self, keyword: &str) -> bool {
        self.other.iter().any(|param| param.name.eq_ignore_ascii_case(keyword))
    }

    /// Leaves only what the session can serve now.
    pub(super) fn restrict(&mut self, possible: Extensions) {
        for extension in Extension::ALL {
            if !possible.has(extension) {
                self.known = self.known.without(extension);
            }
        }
    }

    /// Never promises more than the configuration does: its limit is what memory and disk were laid out for. 0 is no limit.
    pub(super) fn cap_size(&mut self, most: u64) {
        if most > 0 && (self.size == 0 || self.size > most) {
            self.size = most;
        }
    }

    fn offer_other(&mut self, keyword: &str, value: Option<&str>) {
        self.withhold(keyword);
        self.other.push(Param { name: keyword.to_ascii_uppercase(), value: value.map(str::to_owned) });
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

/// Why a keyword cannot be offered. Whoever asked for it (a plugin, the operator) owns the fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfferError {
    /// A keyword is letters, digits and hyphens (RFC 5321 section 4.1.1.1).
    Keyword,
    /// The value is not what this extension takes, or holds characters that no reply may hold.
    Value,
    /// BINARYMIME needs a path that carries binary to the end, which we do not have.
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
        Offers::new(Extensions::default(), 1_000, Mechanisms::default())
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
            ["PIPELINING", "SIZE 1000", "ENHANCEDSTATUSCODES", "8BITMIME", "DSN", "CHUNKING", "SMTPUTF8"]
        );
    }

    #[test]
    fn a_host_edits_its_offers() {
        let mut offers = offers();
        offers.offer("size", Some("5")).unwrap();
        offers.offer("AUTH", Some("LOGIN SCRAM-SHA-256")).unwrap();
        offers.offer("x-thing", Some("a b")).unwrap();
        for gone in ["chunking", "DSN", "SMTPUTF8", "X-NEVER", "8bitmime"] {
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
            assert_eq!(offers.size(), size, "{offered} of {most}");
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
