//! What a next hop says of itself: its greeting and the keywords of its EHLO reply (RFC 5321 section 4.1.1.1).

/// What the next hop said of itself so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Peer {
    /// The text of its greeting.
    pub greeting: String,
    /// What it offers since the last EHLO.
    pub extensions: Extensions,
}

/// What a next hop offers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Extensions {
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// 8BITMIME (RFC 6152).
    pub eight_bit_mime: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// DSN (RFC 3461).
    pub dsn: bool,
    /// STARTTLS (RFC 3207).
    pub starttls: bool,
    /// REQUIRETLS (RFC 8689).
    pub require_tls: bool,
    /// CHUNKING (RFC 3030).
    pub chunking: bool,
    /// BINARYMIME (RFC 3030).
    pub binary_mime: bool,
    /// SIZE (RFC 1870); zero when no limit was named.
    pub size: Option<u64>,
    /// The mechanisms of AUTH (RFC 4954), in upper case.
    pub auth: Vec<String>,
}

impl Extensions {
    /// Reads the text of a reply to EHLO or LHLO. Its first line names the server; what is not known is passed over.
    pub(super) fn parse(text: &str) -> Self {
        let mut extensions = Self::default();
        for line in text.split('\n').skip(1) {
            extensions.add(line);
        }
        extensions
    }

    fn add(&mut self, line: &str) {
        let line = line.to_ascii_uppercase();
        let mut words = line.split_ascii_whitespace();
        match words.next().unwrap_or_default() {
            "PIPELINING" => self.pipelining = true,
            "8BITMIME" => self.eight_bit_mime = true,
            "SMTPUTF8" => self.smtputf8 = true,
            "DSN" => self.dsn = true,
            "STARTTLS" => self.starttls = true,
            "REQUIRETLS" => self.require_tls = true,
            "CHUNKING" => self.chunking = true,
            "BINARYMIME" => self.binary_mime = true,
            // RFC 1870 section 4: a missing or senseless number means that no limit is known.
            "SIZE" => self.size = Some(words.next().and_then(|n| n.parse().ok()).unwrap_or(0)),
            "AUTH" => self.add_mechanisms(words),
            // Servers from before RFC 2554 wrote `AUTH=LOGIN`, and some still do.
            word if word.starts_with("AUTH=") => self.add_mechanisms(word[5..].split(' ').chain(words)),
            _ => {}
        }
    }

    fn add_mechanisms<'a>(&mut self, words: impl Iterator<Item = &'a str>) {
        for word in words {
            if !word.is_empty() && !self.auth.iter().any(|known| known == word) {
                self.auth.push(word.to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_read_in_any_case_and_unknown_ones_passed_over() {
        let offers =
            Extensions::parse("mx.example\nPipelining\nSIZE 1000\nX-ODD 1\nauth PLAIN login\nAUTH=LOGIN");
        assert!(offers.pipelining && !offers.starttls);
        assert_eq!(offers.size, Some(1000));
        assert_eq!(offers.auth, ["PLAIN", "LOGIN"]);
    }

    #[test]
    fn the_first_line_is_a_name_and_no_offer() {
        assert_eq!(Extensions::parse("STARTTLS"), Extensions::default());
    }

    #[test]
    fn a_size_without_sense_is_no_limit() {
        assert_eq!(Extensions::parse("x\nSIZE").size, Some(0));
        assert_eq!(Extensions::parse("x\nSIZE 99999999999999999999999").size, Some(0));
    }
}
