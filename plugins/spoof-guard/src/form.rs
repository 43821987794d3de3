//! Checks the form of From: whether it names one sender, and whether a display name shows a different one.

use pintle_plugin_sdk::mailboxes::{FieldMailbox, MailboxEntry};
use pintle_plugin_sdk::{Address, HostError};

use crate::check::{Check, SpoofFinding, quoted};
use crate::domain::{ComparedDomain, OwnedDomain};
use crate::gateway_text::{decoded, mailboxes_in};
use crate::known::{Known, People, posed_as};
use crate::sender_fields::SenderFields;
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

/// One entry of a From field, with at least one mailbox.
struct FromEntry {
    mailboxes: Vec<FieldMailbox>,
    /// The display name with encoded words decoded, control characters included.
    name: String,
    /// The address as written in the field, and its domain for comparisons.
    typed: String,
    domain: ComparedDomain,
    /// Whether further text follows the domain, such as `%evil.example` or a word.
    has_more: bool,
    has_route: bool,
}

impl From {
    pub(crate) fn read(header: &SenderFields) -> Result<Self, HostError> {
        let mut fields: Vec<_> = header.named("From").collect();
        // An identical second line is a bug of a mail program, and names one sender.
        fields.dedup_by(|second, first| second.field.value == first.field.value);
        let authors = fields.iter().flat_map(|field| authors(&field.field.value, field.entries));
        let mut authors: Vec<FromEntry> = authors.collect();
        let names = decoded(authors.iter().take(READ).map(|author| author.name.as_str()))?;
        authors.iter_mut().zip(names).for_each(|(author, name)| author.name = name);
        let answers = header.addresses("Reply-To").map(|address| Shown {
            domain: ComparedDomain::new(&address.domain_shown),
            local: address.local.clone(),
            is_apart: false,
        });
        let values = fields.iter().map(|field| field.field.value.clone()).collect();
        Ok(Self { authors, answers: answers.collect(), values })
    }

    /// The domains of the senders.
    pub(crate) fn domains(&self) -> impl Iterator<Item = &ComparedDomain> {
        self.authors.iter().map(|author| &author.domain)
    }

    /// The findings about the form, which do not depend on SPF and DKIM.
    pub(crate) fn examine(&self, known: &Known) -> Result<Vec<SpoofFinding>, HostError> {
        let mut found = Vec::new();
        if self.values.len() > 1 {
            found.push(SpoofFinding::new(
                Check::SeveralFrom,
                "The message has several From fields: it must have one",
            ));
        }
        if self.authors.is_empty() {
            found.push(self.nobody()?);
        }
        for author in self.authors.iter().take(READ) {
            found.extend(author.form()?);
            found.extend(author.domain_form());
            found.extend(shown::oddities(&author.name));
            found.extend(known.examine(&author.domain, author.typed_domain())?);
            let shows = self.shows(author, known)?.into_iter();
            found.extend(shows.filter(|finding| finding.check != Check::DisplayProtectedAddress));
        }
        if self.authors.iter().any(|author| author.domain != self.authors[0].domain) {
            let text = "From names senders of several domains: it must name those of one";
            found.push(SpoofFinding::new(Check::SeveralAuthors, text));
        }
        Ok(found)
    }

    /// The findings about senders that impersonate our domains or people.
    pub(crate) fn poses(&self, known: &Known, people: &People) -> Result<Vec<SpoofFinding>, HostError> {
        let mut found = Vec::new();
        for author in self.authors.iter().take(READ) {
            let shows = self.shows(author, known)?.into_iter();
            found.extend(shows.filter(|finding| finding.check == Check::DisplayProtectedAddress));
            if known.is_own(&author.domain) {
                continue;
            }
            let meant = people.meant_by(&author.name)?;
            let addresses = author.addresses().filter(|_| !meant.is_empty());
            let posed = addresses.filter_map(|address| Some((address, posed_as(&meant, address)?)));
            found.extend(posed.take(READ).map(|(address, person)| {
                let text = format!("{person} does not write from {}", shown_address(address));
                SpoofFinding::new(Check::OwnPerson, text)
            }));
        }
        Ok(found)
    }

    /// The findings about addresses that a display name shows and that are not the sender's.
    fn shows(&self, author: &FromEntry, known: &Known) -> Result<Vec<SpoofFinding>, HostError> {
        let mut all = shown::addresses(&author.name);
        // Shops write blanks around the @ in their names, so that form counts only if it shows a known domain.
        all.retain(|shown| !shown.is_apart || known.is_known(&shown.domain));
        if all.is_empty() {
            return Ok(Vec::new());
        }
        let names = author.addresses().map(|address| ComparedDomain::new(&address.domain_shown));
        let real = OwnedDomain::all(names.collect())?;
        let owned = OwnedDomain::all(all.iter().map(|shown| shown.domain.clone()).collect())?;
        let is_foreign = |shown: &OwnedDomain| !real.iter().any(|real| known.are_one_owners(shown, real));
        let foreign = all.into_iter().zip(&owned).filter(|(_, owned)| is_foreign(owned));
        Ok(foreign.map(|(shown, _)| self.shown_finding(author, &shown, known)).collect())
    }

    fn shown_finding(&self, author: &FromEntry, shown: &Shown, known: &Known) -> SpoofFinding {
        let is_known = known.is_known(&shown.domain);
        let check = if shown::says_via(&author.name) || (!is_known && self.answers.contains(shown)) {
            Check::DisplayRelayed
        } else if is_known {
            Check::DisplayProtectedAddress
        } else {
            Check::DisplayAddress
        };
        let shown = quoted(&format!("{}@{}", shown.local, shown.domain));
        let text = format!("The sender's name shows {shown}, but the sender is {}", author.shown_address());
        SpoofFinding::new(check, text)
    }

    /// The finding about a message whose From fields have no mailbox.
    fn nobody(&self) -> Result<SpoofFinding, HostError> {
        let values = decoded(self.values.iter().take(READ).map(String::as_str))?;
        // More mailboxes than the gateway returns are mailboxes too.
        let has_mailbox = |value: &String| {
            mailboxes_in(value).map_or(true, |all| all.iter().any(|entry| !entry.mailboxes.is_empty()))
        };
        if values.iter().any(has_mailbox) {
            let text = "The sender's address in From is an encoded word: only names may be";
            return Ok(SpoofFinding::new(Check::EncodedAddress, text));
        }
        if values.iter().any(|value| !shown::addresses(value).is_empty()) {
            let text = "The sender's address in From is written with signs that only look like those of one";
            return Ok(SpoofFinding::new(Check::EncodedAddress, text));
        }
        Ok(match values.iter().find(|value| names_somebody(value)) {
            Some(value) => {
                SpoofFinding::new(Check::NoDomain, format!("The sender {} has no domain", quoted(value)))
            }
            None => SpoofFinding::new(Check::NullFrom, "The message does not say in From who sent it"),
        })
    }
}

fn authors(value: &str, entries: &[MailboxEntry]) -> Vec<FromEntry> {
    let brackets: Vec<(usize, &str)> = value.match_indices(['<', '>', '"']).collect();
    entries.iter().filter_map(|entry| FromEntry::read(value, &brackets, entry)).collect()
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
    /// Examines an entry. The positions of brackets and quotes are computed once per field, which may have thousands of
    /// authors. The name is not decoded yet.
    fn read(value: &str, brackets: &[(usize, &str)], entry: &MailboxEntry) -> Option<Self> {
        let last = entry.mailboxes.last()?;
        let typed = value.get(last.range()).unwrap_or(&last.address.text).to_owned();
        let written = &last.address.domain_shown;
        let plain = plain_part(written);
        let (domain, has_more) = (ComparedDomain::new(plain), plain.len() < written.len());
        let routed = |found: &FieldMailbox| {
            let start = found.range().start;
            let before = &brackets[..brackets.partition_point(|(at, _)| *at < start)];
            let is_after_colon = value.get(..start).is_some_and(|text| text.trim_end().ends_with(':'));
            is_after_colon && before.last().is_some_and(|(_, sign)| *sign == "<")
        };
        let has_route = entry.mailboxes.iter().any(routed);
        let (mailboxes, name) = (entry.mailboxes.clone(), entry.encoded_name.clone());
        Some(Self { mailboxes, name, typed, domain, has_more, has_route })
    }

    fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.mailboxes.iter().map(|mailbox| &mailbox.address)
    }

    fn typed_domain(&self) -> &str {
        self.typed.rsplit('@').next().unwrap_or_default()
    }

    fn shown_address(&self) -> String {
        self.addresses().last().map(shown_address).unwrap_or_default()
    }

    /// One mailbox has one address (RFC 5322 section 3.4), and it must be unambiguous.
    fn form(&self) -> Result<Vec<SpoofFinding>, HostError> {
        let first = &self.mailboxes[0].address;
        let same = |found: &Address| found.domain_shown == first.domain_shown && found.local == first.local;
        let is_encoded = |found: &Address| is_encoded(&found.local) || is_encoded(&found.domain_shown);
        let two = |text: &str| SpoofFinding::new(Check::TwoAddresses, text);
        let mut found = Vec::new();
        if self.addresses().any(is_encoded) {
            let text = "The sender's address in From is made of encoded words: only names may be";
            found.push(SpoofFinding::new(Check::EncodedAddress, text));
        } else if !self.addresses().all(same) {
            found.push(two("From shows two addresses for one sender: write the sender's alone"));
        } else if self.has_route {
            found.push(two("From shows a route to the sender: write the address alone"));
        } else if self.addresses().any(|address| address.local.contains(['@', '<', '>'])) {
            found.push(two("From hides an address in the sender's: write one that is plain"));
        }
        let texts: Vec<String> =
            self.addresses().map(|address| format!("{}@{}", address.local, address.domain_shown)).collect();
        let texts = decoded(texts.iter().map(String::as_str))?;
        found.extend(texts.iter().find_map(|text| shown::address_oddity(text)));
        Ok(found)
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

fn shown_address(address: &Address) -> String {
    quoted(&format!("{}@{}", address.local, ComparedDomain::new(&address.domain_shown)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::known::Likeness;

    fn checks(header: &[&str]) -> Vec<&'static str> {
        let known =
            Known::new(["ours.example"].into_iter(), ["bank.example"].into_iter(), Likeness::default())
                .unwrap();
        let from = From::read(&SenderFields::of_lines(header)).unwrap();
        let mut found = from.examine(&known).unwrap();
        found.extend(from.poses(&known, &People::default()).unwrap());
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
        let people = People::new(&[("Ann Lee".to_owned(), addresses)].into()).unwrap();
        let known =
            Known::new(["ours.example"].into_iter(), std::iter::empty(), Likeness::default()).unwrap();
        let found = |value: &str| {
            let header = SenderFields::of_lines(&[&format!("From: {value}")]);
            From::read(&header).unwrap().poses(&known, &people).unwrap().len()
        };
        assert_eq!(found("=?utf-8?Q?Lee=2C_Ann?= <eve@evil.example>"), 1);
        assert_eq!(found("eve@evil.example (Ann Lee)"), 1);
        assert_eq!(found("Ann Lee via List <list@lists.example>"), 0);
        assert_eq!(found("Ann Lee <ann.lee@ours.example>"), 0, "our domain is another check's affair");
    }
}
