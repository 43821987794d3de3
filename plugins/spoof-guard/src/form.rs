//! Checks the form of From: whether it names one sender, and whether a display name shows a different one.

use pintle_plugin_sdk::fields::{self, FieldAddress, FieldEntry};
use pintle_plugin_sdk::{encoded_words, message::Field};

use crate::check::{Check, SpoofFinding, quoted};
use crate::domain::ComparedDomain;
use crate::known::{Known, People, posed_as};
use crate::shown::{self, Shown};

/// Maximum number of authors whose names are checked. Whether all share one domain is checked for all authors.
const READ: usize = 32;

/// The parsed From fields of a message.
pub(crate) struct From {
    values: Vec<String>,
    authors: Vec<FromEntry>,
    /// Addresses in Reply-To: services that send for a customer put the customer's address there.
    answers: Vec<Shown>,
}

/// One entry of a From field.
struct FromEntry {
    entry: FieldEntry,
    /// The display name with encoded words decoded.
    name: String,
    /// The address as written in the field, and its domain for comparisons.
    typed: String,
    domain: ComparedDomain,
    /// Whether further text follows the domain, such as `%evil.example` or a word.
    has_more: bool,
    has_route: bool,
}

impl From {
    pub(crate) fn read(fields: &[Field]) -> Self {
        let named = |name: &'static str| {
            fields.iter().filter(move |field| field.name.trim_end().eq_ignore_ascii_case(name))
        };
        let mut values: Vec<String> = named("From").map(|field| field.value.clone()).collect();
        // An identical second line is a bug of a mail program, and names one sender.
        values.dedup();
        let authors = values.iter().flat_map(|value| authors(value)).collect();
        let answers = named("Reply-To").flat_map(|field| fields::addresses(&field.value)).map(|found| {
            Shown { domain: ComparedDomain::new(&found.domain), local: found.local, is_apart: false }
        });
        Self { authors, answers: answers.collect(), values }
    }

    /// The domains of the senders.
    pub(crate) fn domains(&self) -> impl Iterator<Item = &ComparedDomain> {
        self.authors.iter().map(|author| &author.domain)
    }

    /// The findings about the form, which do not depend on SPF and DKIM.
    pub(crate) fn examine(&self, known: &Known) -> Vec<SpoofFinding> {
        let mut found = Vec::new();
        if self.values.len() > 1 {
            found.push(SpoofFinding::new(
                Check::SeveralFrom,
                "The message has several From fields: it must have one",
            ));
        }
        if self.authors.is_empty() {
            found.push(self.nobody());
        }
        for author in self.authors.iter().take(READ) {
            found.extend(author.form());
            found.extend(author.domain_form());
            found.extend(shown::oddities(&author.name));
            found.extend(known.examine(&author.domain, author.typed_domain()));
            found.extend(
                self.shows(author, known).filter(|finding| finding.check != Check::DisplayProtectedAddress),
            );
        }
        if self.authors.iter().any(|author| author.domain != self.authors[0].domain) {
            let text = "From names senders of several domains: it must name those of one";
            found.push(SpoofFinding::new(Check::SeveralAuthors, text));
        }
        found
    }

    /// The findings about senders that impersonate our domains or people.
    pub(crate) fn poses(&self, known: &Known, people: &People) -> Vec<SpoofFinding> {
        let mut found = Vec::new();
        for author in self.authors.iter().take(READ) {
            found.extend(
                self.shows(author, known).filter(|finding| finding.check == Check::DisplayProtectedAddress),
            );
            if known.is_own(&author.domain) {
                continue;
            }
            let meant = people.meant_by(&author.name);
            let addresses = author.entry.addresses.iter().filter(|_| !meant.is_empty());
            let posed = addresses.filter_map(|address| Some((address, posed_as(&meant, address)?)));
            found.extend(posed.take(READ).map(|(address, person)| {
                let text = format!("{person} does not write from {}", shown_address(address));
                SpoofFinding::new(Check::OwnPerson, text)
            }));
        }
        found
    }

    /// The addresses that a display name shows and that are not the sender's.
    fn shows<'a>(
        &'a self,
        author: &'a FromEntry,
        known: &'a Known,
    ) -> impl Iterator<Item = SpoofFinding> + 'a {
        let domains: Vec<ComparedDomain> =
            author.entry.addresses.iter().map(|found| ComparedDomain::new(&found.domain)).collect();
        let foreign =
            move |shown: &Shown| !domains.iter().any(|domain| known.are_one_owners(&shown.domain, domain));
        // Shops write blanks around the @ in their names, so that form counts only if it shows a known domain.
        let meant = move |shown: &Shown| !shown.is_apart || known.is_known(&shown.domain);
        shown::addresses(&author.name).into_iter().filter(meant).filter(foreign).map(move |shown| {
            let is_known = known.is_known(&shown.domain);
            let check = if shown::says_via(&author.name) || (!is_known && self.answers.contains(&shown)) {
                Check::DisplayRelayed
            } else if is_known {
                Check::DisplayProtectedAddress
            } else {
                Check::DisplayAddress
            };
            let shown = quoted(&format!("{}@{}", shown.local, shown.domain));
            let text =
                format!("The sender's name shows {shown}, but the sender is {}", author.shown_address());
            SpoofFinding::new(check, text)
        })
    }

    fn nobody(&self) -> SpoofFinding {
        let values: Vec<String> = self.values.iter().map(|value| encoded_words::decode(value)).collect();
        if values.iter().any(|value| !fields::addresses(value).is_empty()) {
            let text = "The sender's address in From is an encoded word: only names may be";
            return SpoofFinding::new(Check::EncodedAddress, text);
        }
        if values.iter().any(|value| !shown::addresses(value).is_empty()) {
            let text = "The sender's address in From is written with signs that only look like those of one";
            return SpoofFinding::new(Check::EncodedAddress, text);
        }
        match values.iter().find(|value| names_somebody(value)) {
            Some(value) => {
                SpoofFinding::new(Check::NoDomain, format!("The sender {} has no domain", quoted(value)))
            }
            None => SpoofFinding::new(Check::NullFrom, "The message does not say in From who sent it"),
        }
    }
}

fn authors(value: &str) -> Vec<FromEntry> {
    let brackets: Vec<(usize, &str)> = value.match_indices(['<', '>', '"']).collect();
    let entries = fields::entries(value).into_iter();
    entries.filter_map(|entry| FromEntry::read(value, &brackets, entry)).collect()
}

/// Whether a value without an address has a word in the place of one.
fn names_somebody(value: &str) -> bool {
    let value = value.trim();
    if value.ends_with(';') {
        return false;
    }
    let inner = value.rsplit_once('<').map_or(value, |(_, inner)| inner);
    inner.chars().any(char::is_alphanumeric)
}

impl FromEntry {
    /// Parses an entry. The positions of brackets and quotes are computed once per field, which may have thousands of
    /// authors.
    fn read(value: &str, brackets: &[(usize, &str)], entry: FieldEntry) -> Option<Self> {
        let last = entry.addresses.last()?;
        let typed = value[last.place.clone()].to_owned();
        let plain = plain_part(&last.domain);
        let (domain, has_more) = (ComparedDomain::new(plain), plain.len() < last.domain.len());
        let routed = |found: &FieldAddress| {
            let start = found.place.start;
            let before = &brackets[..brackets.partition_point(|(at, _)| *at < start)];
            value[..start].trim_end().ends_with(':') && before.last().is_some_and(|(_, sign)| *sign == "<")
        };
        let has_route = entry.addresses.iter().any(routed);
        Some(Self { name: encoded_words::decode(&entry.name), entry, typed, domain, has_more, has_route })
    }

    fn typed_domain(&self) -> &str {
        self.typed.rsplit('@').next().unwrap_or_default()
    }

    fn shown_address(&self) -> String {
        self.entry.addresses.last().map(shown_address).unwrap_or_default()
    }

    /// One mailbox has one address (RFC 5322 section 3.4), and it must be unambiguous.
    fn form(&self) -> Vec<SpoofFinding> {
        let addresses = &self.entry.addresses;
        let same =
            |found: &FieldAddress| found.domain == addresses[0].domain && found.local == addresses[0].local;
        let two = |text: &str| SpoofFinding::new(Check::TwoAddresses, text);
        let mut found = Vec::new();
        if addresses.iter().any(|address| is_encoded(&address.local) || is_encoded(&address.domain)) {
            let text = "The sender's address in From is made of encoded words: only names may be";
            found.push(SpoofFinding::new(Check::EncodedAddress, text));
        } else if !addresses.iter().all(same) {
            found.push(two("From shows two addresses for one sender: write the sender's alone"));
        } else if self.has_route {
            found.push(two("From shows a route to the sender: write the address alone"));
        } else if addresses.iter().any(|address| address.local.contains(['@', '<', '>'])) {
            found.push(two("From hides an address in the sender's: write one that is plain"));
        }
        let odd = addresses.iter().find_map(|address| {
            shown::address_oddity(&encoded_words::decode(&format!("{}@{}", address.local, address.domain)))
        });
        found.extend(odd);
        found
    }

    fn domain_form(&self) -> Option<SpoofFinding> {
        let text =
            || format!("The sender's address {} has no domain of the Internet's", self.shown_address());
        (self.has_more || !self.domain.is_qualified()).then(|| SpoofFinding::new(Check::NoDomain, text()))
    }
}

/// The part that a reader takes for the domain: up to the first character that is not valid in a name.
fn plain_part(domain: &str) -> &str {
    let is_part = |c: char| !c.is_ascii() || c.is_ascii_alphanumeric() || "-_.".contains(c);
    if domain.starts_with('[') { domain } else { domain.split(|c| !is_part(c)).next().unwrap_or_default() }
}

fn is_encoded(text: &str) -> bool {
    text.contains("=?") && text.contains("?=")
}

fn shown_address(address: &FieldAddress) -> String {
    quoted(&format!("{}@{}", address.local, ComparedDomain::new(&address.domain)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::known::Likeness;

    fn field(index: u32, line: &str) -> Field {
        let (name, value) = line.split_once(':').unwrap();
        Field { index, name: name.to_owned(), value: value.trim().to_owned() }
    }

    fn checks(header: &[&str]) -> Vec<&'static str> {
        let known =
            Known::new(["ours.example"].into_iter(), ["bank.example"].into_iter(), Likeness::default());
        let fields: Vec<Field> = header.iter().map(|line| field(0, line)).collect();
        let from = From::read(&fields);
        let mut found = from.examine(&known);
        found.extend(from.poses(&known, &People::default()));
        found.into_iter().map(|finding| finding.check.name()).collect()
    }

    #[test]
    fn a_message_has_one_sender() {
        for (header, found) in [
            (&[][..], &["null-from"][..]),
            (&["From: "], &["null-from"]),
            (&["From: <>"], &["null-from"]),
            (&["From: Bob <>"], &["null-from"]),
            (&["From: nobody:;"], &["null-from"]),
            (&["From: root"], &["no-domain"]),
            (&["From: Cron <root>"], &["no-domain"]),
            (&["From: root@localhost"], &["no-domain"]),
            (&["From: x@[192.0.2.1]"], &["no-domain"]),
            (&["From: a@x.example", "From: b@x.example"], &["several-from"]),
            (&["From: a@x.example", "From : b@x.example"], &["several-from"]),
            (&["From: a@x.example", "FROM: a@x.example"], &[]),
            (&["From: a@x.example, b@y.example"], &["several-authors"]),
            (&["From: a@x.example, b@X.example"], &[]),
            (&["From: staff: a@x.example, b@x.example;"], &[]),
        ] {
            assert_eq!(checks(header), found, "{header:?}");
        }
    }

    #[test]
    fn an_address_that_hides_another_is_found() {
        for (value, found) in [
            ("Bob <bob@good.example> <eve@evil.example>", &["two-addresses"][..]),
            ("<bob@good.example <eve@evil.example>", &["two-addresses"]),
            ("bob@good.example eve@evil.example", &["two-addresses"]),
            ("<@good.example:eve@evil.example>", &["two-addresses"]),
            ("\"bob@good.example\"@evil.example", &["two-addresses"]),
            ("\"bob@good.example> \" <\"bob> \"@evil.example>", &["two-addresses", "display-address"]),
            ("Bob <bob@x.example> <bob@x.example>", &[]),
            ("\"bob@good.example\" <eve@evil.example>", &["display-address"]),
            ("bob@good.example <eve@evil.example>", &["display-address"]),
            ("eve@evil.example (bob@good.example)", &["display-address"]),
            ("bob@good.example: eve@evil.example;", &["display-address"]),
            ("=?utf-8?B?Ym9iQGdvb2QuZXhhbXBsZQ==?= <eve@evil.example>", &["display-address"]),
            ("\"=?utf-8?Q?bob=40good.example?=\" <eve@evil.example>", &["display-address"]),
            ("\"bob@ours.example\" <eve@evil.example>", &["display-protected-address"]),
            ("\"x@mail.bank.example\" <eve@evil.example>", &["display-protected-address"]),
            ("=?utf-8?Q?eve=40evil.example?=", &["encoded-address"]),
            ("=?utf-8?Q?bob=40good.example=00?=@evil.example", &["encoded-address", "control-characters"]),
            ("=?utf-8?Q?Bob=00?= <eve@evil.example>", &["control-characters"]),
            ("Bob <eve@\u{202e}evil.example>", &["bidi-characters"]),
            ("Bob <eve@0urs.example>", &["lookalike-domain"]),
            ("bob\u{ff20}ours.example", &["encoded-address"]),
            ("bob@ours.examp1e%evil.example", &["no-domain", "lookalike-domain"]),
            ("bob@x.example Bob", &["no-domain"]),
            ("\"bob @ours.example\" <eve@evil.example>", &["display-protected-address"]),
            ("\"bob @ Bank.example\" <eve@evil.example>", &["display-protected-address"]),
        ] {
            assert_eq!(checks(&[&format!("From: {value}")]), found, "{value}");
        }
    }

    #[test]
    fn names_that_show_an_address_openly_are_no_spoofs() {
        for value in [
            "support@shop.example <support@shop.example>",
            "\"support@shop.example\" <bounce@mail.shop.example>",
            "\"ann@ours.example\" <bob@ours.example>",
            "Lee, Ann <ann@x.example>",
            "Zoë <zoë@exämple.org>",
            "\"Ann: at home\" <ann@x.example> (home)",
            "bob=good.example@lists.example",
            "\"Deals @ Shop.example\" <b@deals.example>",
            "bob @ good . example",
            "bob@good.example>",
            "\"Bob <Sales>\" <bob@x.example>",
        ] {
            assert_eq!(checks(&[&format!("From: {value}")]), [] as [&str; 0], "{value}");
        }
        let via = "From: \"'bob@ours.example' via Docs\" <docs@service.example>";
        assert_eq!(checks(&[via]), ["display-relayed"]);
        let desk =
            ["From: \"jane@customer.example\" <desk@tickets.example>", "Reply-To: jane@customer.example"];
        assert_eq!(checks(&desk), ["display-relayed"]);
        let ours = ["From: \"jane@ours.example\" <desk@tickets.example>", "Reply-To: jane@ours.example"];
        assert_eq!(checks(&ours), ["display-protected-address"]);
    }

    #[test]
    fn people_of_ours_write_from_their_addresses() {
        use pintle_plugin_sdk::settings::Mailbox;
        let addresses = vec![Mailbox::try_from("ann@ours.example".to_owned()).unwrap()];
        let people = People::new(&[("Ann Lee".to_owned(), addresses)].into());
        let known = Known::new(["ours.example"].into_iter(), std::iter::empty(), Likeness::default());
        let found =
            |value: &str| From::read(&[field(0, &format!("From: {value}"))]).poses(&known, &people).len();
        assert_eq!(found("=?utf-8?Q?Lee=2C_Ann?= <eve@evil.example>"), 1);
        assert_eq!(found("eve@evil.example (Ann Lee)"), 1);
        assert_eq!(found("Ann Lee via List <list@lists.example>"), 0);
        assert_eq!(found("Ann Lee <ann.lee@ours.example>"), 0, "our domain is another check's affair");
    }
}
