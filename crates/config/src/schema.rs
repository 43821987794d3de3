//! Every section and key of the file, with type, default and meaning: the one place where they stand.
//!
//! The reader takes defaults and known names from here, and the reference in docs/configuration.md is written from it,
//! so neither can disagree with what the program does. A test holds these defaults against those of the crates that the
//! values go to, and another checks that every key is read, and as the type that stands here.

use crate::read::Read;

mod delivery;
mod intake;
mod operation;

/// One table of the file.
pub(crate) struct Section {
    /// From the top: `tls.certificate`; empty for the root.
    pub(crate) name: &'static str,
    /// How it is written.
    pub(crate) shape: Shape,
    /// What it is for.
    pub(crate) about: &'static str,
    /// What it holds.
    pub(crate) keys: &'static [Key],
}

/// How a section is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `[name]`, once.
    One,
    /// `[[name]]`, any number of times.
    Many,
    /// `[name.NAME]`, any number of times.
    Named,
}

/// One key of a section.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) kind: fn() -> Kind,
    /// In TOML.
    pub(crate) default: Option<&'static str>,
    pub(crate) required: bool,
    pub(crate) about: &'static str,
}

/// What a key's value can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Flag,
    Count,
    Positive,
    Number,
    Duration,
    DurationOrNever,
    DurationOrZero,
    Size,
    SocketAddress,
    NameServer,
    IpAddress,
    Ipv4Address,
    Ipv6Address,
    Network,
    Nat64,
    Domain,
    DomainPattern,
    RoutePattern,
    Mailbox,
    Host,
    Path,
    Secret,
    Table,
    OnFault,
    Percent,
    ByQuarantine(Box<Kind>),
    Word(Vec<&'static str>),
    List(Box<Kind>),
}

/// A key that may be left out; in its place stands the default, which is TOML.
pub(super) const fn key<T: Read>(name: &'static str, default: &'static str, about: &'static str) -> Key {
    Key { name, kind: T::kind, default: Some(default), required: false, about }
}

/// A key that may be left out, and is then not there.
pub(super) const fn optional<T: Read>(name: &'static str, about: &'static str) -> Key {
    Key { name, kind: T::kind, default: None, required: false, about }
}

/// A key that must be there.
pub(super) const fn required<T: Read>(name: &'static str, about: &'static str) -> Key {
    Key { name, kind: T::kind, default: None, required: true, about }
}

/// Stands in for what the schema lacks, which only a test can meet.
pub(crate) static UNDEFINED: Key = optional::<String>("", "");

/// The top of the file.
pub(crate) static ROOT: Section = Section {
    name: "",
    shape: Shape::One,
    about: "Keys before the first section.",
    keys: &[
        required::<crate::read::Domain>(
            "hostname",
            "The gateway's own name: in the greeting, in EHLO, in Received fields and bounces. It should resolve to the \
             gateway's address and back, and stand in its certificate.",
        ),
        optional::<pintle_mail::Address>(
            "postmaster",
            "Where mail for `<postmaster>` goes, without a domain or with the hostname, from which reports come. Left out: \
             to the postmaster of the first accepted domain, unless a route says where mail for the hostname goes.",
        ),
    ],
};

/// Every section but the root, in the order of the reference.
pub(crate) fn sections() -> impl Iterator<Item = &'static Section> {
    intake::SECTIONS.iter().chain(delivery::SECTIONS).chain(operation::SECTIONS)
}

/// The section of this name below `parent`.
pub(crate) fn section(parent: &str, name: &str) -> &'static Section {
    let found = sections().find(|section| section.is_below(parent) && section.last_name() == name);
    debug_assert!(found.is_some(), "the schema lacks the section {name}");
    found.unwrap_or(&ROOT)
}

impl Section {
    /// What may stand in it: keys and sections below.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        let below = sections().filter(|section| section.is_below(self.name)).map(Section::last_name);
        self.keys.iter().map(|key| key.name).chain(below).collect()
    }

    /// As it stands in a file.
    pub(crate) fn heading(&self) -> String {
        match self.shape {
            Shape::One => format!("[{}]", self.name),
            Shape::Many => format!("[[{}]]", self.name),
            Shape::Named => format!("[{}.NAME]", self.name),
        }
    }

    fn is_below(&self, parent: &str) -> bool {
        let own = self.name.rsplit_once('.').map_or("", |(parent, _)| parent);
        own == parent && !self.name.is_empty()
    }

    fn last_name(&self) -> &'static str {
        self.name.rsplit_once('.').map_or(self.name, |(_, last)| last)
    }
}

impl Shape {
    pub(crate) fn describe(self, name: &str) -> String {
        match self {
            Self::One => format!("a table: [{name}]"),
            Self::Many => format!("a list of tables: [[{name}]]"),
            Self::Named => format!("tables with names: [{name}.NAME]"),
        }
    }
}

impl Kind {
    /// In words with an example, as complaints and the reference want it.
    pub(crate) fn describe(&self) -> String {
        let fixed = match self {
            Self::Text => "text in quotes",
            Self::Flag => "true or false",
            Self::Count => "a whole number",
            Self::Positive => "a whole number from 1",
            Self::Number => "a number",
            Self::Duration => "a duration with its unit, like \"30s\", \"5m\", \"4h\", \"5d\"",
            Self::DurationOrNever => "a duration with its unit, like \"4h\", or \"never\"",
            Self::DurationOrZero => "a duration with its unit, like \"10s\", or \"0s\" for not at all",
            Self::Size => "a size with its unit, like \"36MiB\" or \"10kB\"",
            Self::SocketAddress => "an address with its port, like \"192.0.2.1:25\" or \"[::]:25\"",
            Self::NameServer => "an address, like \"192.0.2.53\" or \"[2001:db8::53]:5353\"",
            Self::IpAddress => "an IP address, like \"192.0.2.1\" or \"2001:db8::1\"",
            Self::Ipv4Address => "an IPv4 address, like \"192.0.2.1\"",
            Self::Ipv6Address => "an IPv6 address, like \"2001:db8::1\"",
            Self::Network => "a network, like \"192.0.2.0/24\" or \"2001:db8::/32\"",
            Self::Nat64 => "a prefix of IPv6, like \"2001:db8:64::/96\"",
            Self::Domain => "a domain name, like \"mail.example.org\"",
            Self::DomainPattern => "a domain, like \"example.org\", or all below it, like \".example.org\"",
            Self::RoutePattern => "\"example.org\", \".example.org\" for all below it, or \"*\" for the rest",
            Self::Mailbox => "a mail address, like \"postmaster@example.org\"",
            Self::Host => "\"HOST\", \"HOST:PORT\", \"[ADDRESS]:PORT\" or \"unix:/PATH\"",
            Self::Path => "a path in quotes",
            Self::Secret => "{ file = \"PATH\" } or { env = \"NAME\" }",
            Self::Table => "a table",
            Self::Percent => "a whole number from 0 to 100",
            Self::ByQuarantine(item) => {
                let item = item.describe();
                return format!("{item}; or a table of these by quarantine, with \"default\" for the rest");
            }
            Self::OnFault => "\"defer\", \"accept\", \"reject\" or \"skip\", or a table of these by hook",
            Self::Word(words) => {
                return words.iter().map(|w| format!("\"{w}\"")).collect::<Vec<_>>().join(" or ");
            }
            Self::List(item) => return format!("a list of: {}", item.describe()),
        };
        fixed.into()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use toml::de::{DeTable, DeValue};

    use super::*;
    use crate::lower::lower;
    use crate::reader::Reader;

    /// Every section once, and nothing in it: the lowering then asks for every key.
    fn every_section() -> String {
        sections().map(|section| section.heading() + "\n").collect()
    }

    #[test]
    fn every_key_is_read_and_as_what_the_schema_says() {
        let text = every_section();
        let reader = Reader::new(&text, Path::new("x.toml"));
        let document = DeTable::parse(&text).unwrap();
        lower(&reader.root(document.get_ref()), &[]);
        let all = std::iter::once(&ROOT).chain(sections());
        let of = |section: &'static Section| {
            section.keys.iter().map(|key| (section.name, key.name, (key.kind)().describe()))
        };
        let defined: BTreeSet<_> = all.flat_map(of).collect();
        assert_eq!(reader.asked(), defined);
    }

    #[test]
    fn names_are_unique_and_defaults_are_toml() {
        for section in std::iter::once(&ROOT).chain(sections()) {
            let names = section.names();
            assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{}", section.name);
            for key in section.keys {
                let default = key.default.unwrap_or("true");
                assert!(DeValue::parse(default).is_ok(), "{}.{}: {default}", section.name, key.name);
                assert!(!key.about.is_empty());
            }
        }
    }
}
