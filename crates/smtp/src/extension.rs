//! ESMTP extensions (RFC 5321 section 2.2): the EHLO keywords that Pintle knows, and their parameters.
//!
//! The server uses this for what it offers, the client for what a next hop offers. A new extension is a variant with a
//! row in `Extension::row`; a new kind of parameter is a variant of [`Parameter`].

/// An ESMTP extension that the server offers or the client uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extension {
    /// Command pipelining (RFC 2920).
    Pipelining,
    /// Message size declaration (RFC 1870). Its parameter is the largest message in octets; 0 is no limit.
    Size,
    /// Bodies with octets above 127 (RFC 6152).
    EightBitMime,
    /// Addresses and headers in UTF-8 (RFC 6531).
    SmtpUtf8,
    /// BDAT, a message in chunks of known length (RFC 3030).
    Chunking,
    /// Bodies that are not made of lines (RFC 3030 section 3). Only the client uses it.
    BinaryMime,
    /// Replies with enhanced status codes (RFC 2034). Replies carry the codes even where this is not offered: a client
    /// that does not know them reads them as text.
    EnhancedStatusCodes,
    /// Delivery status notifications (RFC 3461).
    Dsn,
    /// TLS on request (RFC 3207).
    StartTls,
    /// Authentication (RFC 4954). Its parameter is the list of SASL mechanisms.
    Auth,
    /// TLS on every hop (RFC 8689). Offered only by a host whose delivery obeys it.
    RequireTls,
    /// A reply for each recipient at the end of data (PRDR, draft-hall-prdr-00, as Exim implements it). Only the server
    /// uses it.
    Prdr,
}

/// What may follow an extension's keyword.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grammar {
    Nothing,
    Octets,
    Words,
}

impl Extension {
    /// Every extension, in the order in which the server offers them.
    pub const ALL: [Self; 12] = [
        Self::Pipelining,
        Self::Size,
        Self::StartTls,
        Self::Auth,
        Self::EnhancedStatusCodes,
        Self::EightBitMime,
        Self::Dsn,
        Self::Chunking,
        Self::BinaryMime,
        Self::Prdr,
        Self::SmtpUtf8,
        Self::RequireTls,
    ];

    const fn row(self) -> (&'static str, Grammar) {
        match self {
            Self::Pipelining => ("PIPELINING", Grammar::Nothing),
            Self::Size => ("SIZE", Grammar::Octets),
            Self::EightBitMime => ("8BITMIME", Grammar::Nothing),
            Self::SmtpUtf8 => ("SMTPUTF8", Grammar::Nothing),
            Self::Chunking => ("CHUNKING", Grammar::Nothing),
            Self::BinaryMime => ("BINARYMIME", Grammar::Nothing),
            Self::EnhancedStatusCodes => ("ENHANCEDSTATUSCODES", Grammar::Nothing),
            Self::Dsn => ("DSN", Grammar::Nothing),
            Self::StartTls => ("STARTTLS", Grammar::Nothing),
            Self::Auth => ("AUTH", Grammar::Words),
            Self::RequireTls => ("REQUIRETLS", Grammar::Nothing),
            Self::Prdr => ("PRDR", Grammar::Nothing),
        }
    }

    /// Returns the EHLO keyword, in upper case.
    #[must_use]
    pub const fn keyword(self) -> &'static str {
        self.row().0
    }

    /// Finds the extension with this EHLO keyword, in any case.
    #[must_use]
    pub fn named(keyword: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|extension| extension.keyword().eq_ignore_ascii_case(keyword))
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// What follows an extension's keyword in the reply to EHLO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parameter {
    /// The extension takes none.
    None,
    /// A number of octets; 0 if the keyword has no number.
    Octets(u64),
    /// Words separated by spaces, such as the mechanisms of AUTH.
    Words(Vec<String>),
}

impl Parameter {
    /// Parses the text after the keyword. Returns `None` if the extension does not take such text.
    #[must_use]
    pub fn parse(extension: Extension, text: Option<&str>) -> Option<Self> {
        let text = text.map(str::trim).filter(|text| !text.is_empty());
        match (extension.row().1, text) {
            (Grammar::Nothing, None) => Some(Self::None),
            (Grammar::Nothing, Some(_)) => None,
            (Grammar::Octets, text) => text.unwrap_or("0").parse().ok().map(Self::Octets),
            (Grammar::Words, text) => {
                let words = text.unwrap_or_default().split_ascii_whitespace();
                Some(Self::Words(words.map(str::to_ascii_uppercase).collect()))
            }
        }
    }

    /// Whether the keyword is meaningless with this parameter: AUTH without a mechanism.
    fn is_useless(&self) -> bool {
        matches!(self, Self::Words(words) if words.is_empty())
    }

    /// Returns the text to write after the keyword, if there is any.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        match self {
            Self::None => None,
            Self::Octets(octets) => Some(octets.to_string()),
            Self::Words(words) => Some(words.join(" ")),
        }
    }
}

/// A set of extensions. The default is what the server can offer without help of its host: all but STARTTLS, AUTH and
/// REQUIRETLS, which need a host that can serve them, and BINARYMIME.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extensions(u16);

impl Extensions {
    /// The empty set, as after HELO.
    pub const NONE: Self = Self(0);

    /// Returns the set with this extension added.
    #[must_use]
    pub const fn with(self, extension: Extension) -> Self {
        Self(self.0 | extension.bit())
    }

    /// Returns the set with this extension removed.
    #[must_use]
    pub const fn without(self, extension: Extension) -> Self {
        Self(self.0 & !extension.bit())
    }

    /// Whether the set contains this extension.
    #[must_use]
    pub const fn has(self, extension: Extension) -> bool {
        self.0 & extension.bit() != 0
    }
}

impl Default for Extensions {
    fn default() -> Self {
        let all = Extension::ALL.into_iter().fold(Self::NONE, Self::with);
        let beyond = [Extension::StartTls, Extension::Auth, Extension::RequireTls, Extension::BinaryMime];
        beyond.into_iter().fold(all, Self::without)
    }
}

/// The extensions that one side of a session offers, each with its parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    set: Extensions,
    /// The parameters of those that take one.
    parameters: Vec<(Extension, Parameter)>,
}

impl Default for Offered {
    fn default() -> Self {
        Self { set: Extensions::NONE, parameters: Vec::new() }
    }
}

impl Offered {
    /// Parses the text of a reply to EHLO or LHLO as a client does. The first line is the server's name; unknown
    /// keywords and malformed parameters are ignored.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut offered = Self::default();
        for line in text.split('\n').skip(1) {
            offered.add_line(line);
        }
        offered
    }

    fn add_line(&mut self, line: &str) {
        let line = line.trim_ascii();
        let split = line.split_once(|c: char| c.is_ascii_whitespace());
        let (keyword, text) = split.map_or((line, None), |(keyword, text)| (keyword, Some(text)));
        // Servers from before RFC 2554 wrote `AUTH=LOGIN`, and some still do.
        if keyword.len() > 5 && keyword.is_char_boundary(5) && keyword[..5].eq_ignore_ascii_case("AUTH=") {
            return self.add_mechanisms(&format!("{} {}", &keyword[5..], text.unwrap_or_default()));
        }
        match Extension::named(keyword) {
            Some(Extension::Auth) => self.add_mechanisms(text.unwrap_or_default()),
            // RFC 1870 section 4: a missing or malformed number means that no limit is known.
            Some(Extension::Size) => {
                let first = text.and_then(|text| text.split_ascii_whitespace().next());
                let limit = Parameter::parse(Extension::Size, first).unwrap_or(Parameter::Octets(0));
                self.insert(Extension::Size, limit);
            }
            Some(extension) => self.insert(extension, Parameter::None),
            None => {}
        }
    }

    fn add_mechanisms(&mut self, text: &str) {
        // In place: a next hop may write a thousand AUTH lines, and copying the list for each would take quadratic time.
        let at = self.parameters.iter().position(|(extension, _)| *extension == Extension::Auth);
        let mut all = match at.map(|at| self.parameters.swap_remove(at).1) {
            Some(Parameter::Words(words)) => words,
            _ => Vec::new(),
        };
        for word in text.split_ascii_whitespace().map(str::to_ascii_uppercase) {
            if !all.contains(&word) {
                all.push(word);
            }
        }
        self.insert(Extension::Auth, Parameter::Words(all));
    }

    /// Adds an extension, or replaces its parameter.
    pub fn insert(&mut self, extension: Extension, parameter: Parameter) {
        self.remove(extension);
        self.set = self.set.with(extension);
        if parameter != Parameter::None {
            self.parameters.push((extension, parameter));
        }
    }

    /// Removes an extension; does nothing if it is not offered.
    pub fn remove(&mut self, extension: Extension) {
        self.set = self.set.without(extension);
        self.parameters.retain(|(other, _)| *other != extension);
    }

    /// Whether the extension is offered.
    #[must_use]
    pub fn has(&self, extension: Extension) -> bool {
        self.set.has(extension)
    }

    /// Returns the parameter of an extension; [`Parameter::None`] if it is not offered.
    #[must_use]
    pub fn parameter(&self, extension: Extension) -> &Parameter {
        let found = self.parameters.iter().find(|(other, _)| *other == extension);
        found.map_or(&Parameter::None, |(_, parameter)| parameter)
    }

    /// Returns the largest message in octets if SIZE is offered; 0 is no limit.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        match self.parameter(Extension::Size) {
            Parameter::Octets(octets) => Some(*octets),
            _ => None,
        }
    }

    /// Returns the names of the SASL mechanisms, in upper case.
    #[must_use]
    pub fn mechanisms(&self) -> &[String] {
        self.words(Extension::Auth)
    }

    fn words(&self, extension: Extension) -> &[String] {
        match self.parameter(extension) {
            Parameter::Words(words) => words,
            _ => &[],
        }
    }

    /// Iterates over the offered extensions in the order of an EHLO reply, without those whose parameter makes them
    /// meaningless.
    pub fn iter(&self) -> impl Iterator<Item = (Extension, &Parameter)> {
        let all = Extension::ALL.into_iter().filter(|extension| self.has(*extension));
        all.map(|extension| (extension, self.parameter(extension)))
            .filter(|(_, parameter)| !parameter.is_useless())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_read_in_any_case_and_unknown_ones_ignored() {
        let offered = Offered::parse(
            "mx.example\nPipelining\nSIZE 1000\nX-ODD 1\nauth PLAIN login\nAUTH=LOGIN xoauth2",
        );
        assert!(offered.has(Extension::Pipelining) && !offered.has(Extension::StartTls));
        assert_eq!(offered.size(), Some(1000));
        assert_eq!(offered.mechanisms(), ["PLAIN", "LOGIN", "XOAUTH2"]);
    }

    #[test]
    fn any_white_space_separates_keyword_and_parameter() {
        let offered = Offered::parse("x\nSIZE\t1000\n  DSN \nAUTH\tPLAIN \t LOGIN\nSTARTTLS\r");
        assert_eq!((offered.size(), offered.mechanisms().len()), (Some(1000), 2));
        assert!(offered.has(Extension::Dsn) && offered.has(Extension::StartTls));
    }

    #[test]
    fn the_first_line_is_a_name_and_no_offer() {
        assert_eq!(Offered::parse("STARTTLS"), Offered::default());
    }

    #[test]
    fn a_size_without_sense_is_no_limit() {
        for line in ["SIZE", "SIZE ", "SIZE 99999999999999999999999", "SIZE big", "size 0"] {
            assert_eq!(Offered::parse(&format!("x\n{line}")).size(), Some(0), "{line}");
        }
        assert_eq!(Offered::parse("x\nDSN").size(), None);
    }

    #[test]
    fn odd_lines_of_a_next_hop_are_borne() {
        for line in ["", " ", "AUTH=", "AUTH", "\u{e9}\u{e9}\u{e9}=x", "DSN RFC3461", "SIZE 5 6", "STARTTLS "]
        {
            let offered = Offered::parse(&format!("x\n{line}"));
            assert_eq!(offered.has(Extension::Dsn), line.starts_with("DSN"));
            assert_eq!(offered.has(Extension::StartTls), line.starts_with("STARTTLS"));
        }
    }

    #[test]
    fn every_extension_has_a_keyword_and_a_bit_of_its_own() {
        for extension in Extension::ALL {
            assert_eq!(Extension::named(&extension.keyword().to_lowercase()), Some(extension));
            assert!(Extensions::NONE.with(extension).has(extension));
            assert_eq!(Extensions::NONE.with(extension).without(extension), Extensions::NONE);
        }
    }
}
