//! What plugins may do: kinds of grants, grants with what they are limited to, and the grants of one plugin.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

macro_rules! grants {
    ($($(#[$doc:meta])* $grant:ident = $name:literal),+ $(,)?) => {
        /// A kind of permission that the operator gives a plugin, by its name in the contract.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum GrantKind {
            $($(#[$doc])* $grant),+
        }

        impl GrantKind {
            /// All kinds.
            pub const ALL: &'static [Self] = &[$(Self::$grant),+];

            /// The name in the configuration and in messages.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$grant => $name),+ }
            }
        }
    };
}

grants! {
    /// Add, replace and remove header fields.
    EditHeaders = "edit-headers",
    /// Write a new body.
    EditBody = "edit-body",
    /// Add and rewrite recipients and the sender, and replace recipients.
    EditEnvelope = "edit-envelope",
    /// Let a recipient's mail leave for a domain that is not ours.
    Relay = "relay",
    /// Choose next hop among relays and exchangers, more TLS, source address and credentials of a delivery.
    Route = "route",
    /// With `route`: choose a next hop that no configuration lists, local sockets included.
    RouteAnywhere = "route-anywhere",
    /// Give up mail that was accepted, or is believed to be: discard it, take recipients away, reject it at a delivery, or keep
    /// its sender from hearing of a failure.
    DropMail = "drop-mail",
    /// Judge credentials: it sees passwords, and identities that it grants may relay.
    Auth = "auth",
    /// Ask DNS.
    Dns = "dns",
    /// Call HTTP services; not served by this release.
    Http = "http",
    /// Keep state in the host.
    Kv = "kv",
    /// Look up the operator's tables; not served by this release.
    Tables = "tables",
    /// See the results of SPF, DKIM, DMARC and ARC.
    SenderAuth = "sender-auth",
    /// Sign with configured keys.
    Sign = "sign",
    /// Speak in the gateway's name about the sender of a mail: results in its Authentication-Results field, and the facts that
    /// its own records and trace fields use.
    AuthResults = "auth-results",
    /// Exempt a client, or a mail, from the plugins that come after, by the verdict `accept`.
    Accept = "accept",
    /// Choose which SMTP extensions are offered; STARTTLS is one.
    EditExtensions = "edit-extensions",
    /// Ask DNS for the names of the client's address, and for nothing else.
    ReverseDns = "reverse-dns",
}

impl GrantKind {
    /// What a grant of this kind is limited to; none for a kind that is granted as a whole or not at all.
    #[must_use]
    const fn parameter(self) -> Option<&'static str> {
        match self {
            Self::Http => Some("a URL pattern"),
            Self::Tables => Some("the name of a table"),
            _ => None,
        }
    }
}

impl fmt::Display for GrantKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for GrantKind {
    type Err = GrantMistake;

    fn from_str(name: &str) -> Result<Self, GrantMistake> {
        let mut kinds = Self::ALL.iter().copied();
        kinds.find(|kind| kind.name() == name).ok_or_else(|| GrantMistake::Unknown(name.to_owned()))
    }
}

/// A permission for one plugin. As text: the name of its kind, and behind a colon what it is limited to where its kind has
/// such a parameter, as in `tables:partners`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    kind: GrantKind,
    parameter: Option<String>,
}

impl From<GrantKind> for Grant {
    fn from(kind: GrantKind) -> Self {
        Self { kind, parameter: None }
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)?;
        self.parameter.iter().try_for_each(|parameter| write!(f, ":{parameter}"))
    }
}

impl FromStr for Grant {
    type Err = GrantMistake;

    fn from_str(text: &str) -> Result<Self, GrantMistake> {
        let (name, parameter) = match text.split_once(':') {
            Some((name, parameter)) => (name, Some(parameter)),
            None => (text, None),
        };
        let kind: GrantKind = name.parse()?;
        match (parameter, kind.parameter()) {
            (Some(_), None) => Err(GrantMistake::NoParameter(kind)),
            (Some(""), Some(what)) => Err(GrantMistake::EmptyParameter(kind, what)),
            _ => Ok(Self { kind, parameter: parameter.map(str::to_owned) }),
        }
    }
}

/// What is wrong with the text of a grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GrantMistake {
    /// There is no kind of this name.
    Unknown(String),
    /// This kind is granted as a whole.
    NoParameter(GrantKind),
    /// A colon, and nothing behind it where such a parameter belongs.
    EmptyParameter(GrantKind, &'static str),
}

impl fmt::Display for GrantMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => {
                let known: Vec<_> = GrantKind::ALL.iter().map(|kind| kind.name()).collect();
                write!(f, "there is no grant {name:?}; there are {}", known.join(", "))
            }
            Self::NoParameter(kind) => write!(f, "the grant `{kind}` takes no parameter: write \"{kind}\""),
            Self::EmptyParameter(kind, what) => write!(f, "write {what} behind the colon of \"{kind}:\""),
        }
    }
}

impl std::error::Error for GrantMistake {}

/// The grants of one plugin: by kind, what they are limited to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants(BTreeMap<GrantKind, BTreeSet<String>>);

impl Grants {
    /// Whether a grant of this kind is among them.
    #[must_use]
    pub fn contains(&self, kind: GrantKind) -> bool {
        self.parameters(kind).is_some()
    }

    /// What grants of this kind are limited to; none where there is no such grant. The set is empty for kinds without
    /// parameters, and for a grant that names none, which allows nothing beyond what every plugin may.
    #[must_use]
    pub fn parameters(&self, kind: GrantKind) -> Option<&BTreeSet<String>> {
        self.0.get(&kind)
    }

    /// Adds a grant.
    pub fn insert(&mut self, grant: impl Into<Grant>) {
        let Grant { kind, parameter } = grant.into();
        self.0.entry(kind).or_default().extend(parameter);
    }

    /// Takes all grants of a kind away.
    pub fn remove(&mut self, kind: GrantKind) {
        self.0.remove(&kind);
    }
}

impl<G: Into<Grant>> Extend<G> for Grants {
    fn extend<I: IntoIterator<Item = G>>(&mut self, grants: I) {
        grants.into_iter().for_each(|grant| self.insert(grant));
    }
}

impl<G: Into<Grant>> FromIterator<G> for Grants {
    fn from_iter<I: IntoIterator<Item = G>>(grants: I) -> Self {
        let mut all = Self::default();
        all.extend(grants);
        all
    }
}

impl<G: Into<Grant>, const N: usize> From<[G; N]> for Grants {
    fn from(grants: [G; N]) -> Self {
        grants.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_text_and_collect_their_parameters() {
        for text in ["kv", "tables", "tables:partners", "http:https://score.example/*"] {
            assert_eq!(text.parse::<Grant>().unwrap().to_string(), text);
        }
        for (text, mistake) in [
            ("kv:x", "the grant `kv` takes no parameter: write \"kv\""),
            ("http:", "write a URL pattern behind the colon of \"http:\""),
        ] {
            assert_eq!(text.parse::<Grant>().unwrap_err().to_string(), mistake);
        }
        assert!(
            "kvv"
                .parse::<Grant>()
                .unwrap_err()
                .to_string()
                .starts_with("there is no grant \"kvv\"; there are ")
        );
        let given = ["tables:b", "kv", "tables:a"].map(|text| text.parse::<Grant>().unwrap());
        let grants = Grants::from(given);
        let tables: Vec<_> = grants.parameters(GrantKind::Tables).unwrap().iter().collect();
        assert_eq!(tables, ["a", "b"]);
        assert!(grants.contains(GrantKind::Kv) && !grants.contains(GrantKind::Http));
    }
}
