//! Grants: the permissions that the operator gives a plugin, some with parameters that restrict them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

macro_rules! grants {
    ($($(#[$doc:meta])* $grant:ident = $name:literal),+ $(,)?) => {
        /// A kind of permission that the operator gives a plugin. Its text form is the name in the contract.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum GrantKind {
            $($(#[$doc])* $grant),+
        }

        impl GrantKind {
            /// All grant kinds.
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
    /// Route a recipient's mail to a domain that is not local (relaying).
    Relay = "relay",
    /// For a delivery, choose the next hop among relays and exchangers, stricter TLS, the source address and the
    /// credentials.
    Route = "route",
    /// With `route`: choose a next hop that is not in the configuration, including local sockets.
    RouteAnywhere = "route-anywhere",
    /// Give up mail that the sender believes accepted: discard it, remove recipients, reject it at delivery, or
    /// suppress failure notifications to its sender.
    DropMail = "drop-mail",
    /// Verify credentials: the plugin sees passwords, and identities that it authenticates may relay.
    Auth = "auth",
    /// Make DNS queries.
    Dns = "dns",
    /// Call HTTP services; not served by this release.
    Http = "http",
    /// Store values in the host (`kv`).
    Kv = "kv",
    /// Look up the operator's tables; not served by this release.
    Tables = "tables",
    /// Read the results of SPF, DKIM, DMARC and ARC.
    SenderAuth = "sender-auth",
    /// Sign with configured DKIM keys.
    Sign = "sign",
    /// Make statements about the sender in the gateway's name: results in its Authentication-Results field, and what was
    /// done because of the sender's DMARC policy, in reports to the domain's owner.
    AuthResults = "auth-results",
    /// Exempt a client or a mail from later plugins by the verdict `accept`.
    Accept = "accept",
    /// Choose the SMTP extensions offered, STARTTLS included.
    EditExtensions = "edit-extensions",
    /// Look up the names of the client's address (reverse DNS), and no other DNS data.
    ReverseDns = "reverse-dns",
    /// Use keys of the configuration without seeing them: all of them, or those that its parameters name.
    Secrets = "secrets",
}

impl GrantKind {
    /// What the parameter of this grant kind restricts; `None` for a kind without parameters.
    #[must_use]
    const fn parameter(self) -> Option<&'static str> {
        match self {
            Self::Http => Some("a URL pattern"),
            Self::Tables => Some("the name of a table"),
            Self::Secrets => Some("the name of a secret"),
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

/// A permission for one plugin. As text: the name of its kind, followed for kinds with parameters by a colon and the
/// parameter, as in `tables:partners`.
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

/// Why the text of a grant is invalid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GrantMistake {
    /// No grant kind has this name.
    Unknown(String),
    /// The grant kind takes no parameter.
    NoParameter(GrantKind),
    /// The text has a colon but no parameter after it.
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

/// The grants of one plugin: the parameters by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants(BTreeMap<GrantKind, BTreeSet<String>>);

impl Grants {
    /// Whether a grant of this kind is included.
    #[must_use]
    pub fn contains(&self, kind: GrantKind) -> bool {
        self.parameters(kind).is_some()
    }

    /// The parameters of the grants of this kind; `None` if the kind is not granted. The set is empty for kinds without
    /// parameters.
    #[must_use]
    pub fn parameters(&self, kind: GrantKind) -> Option<&BTreeSet<String>> {
        self.0.get(&kind)
    }

    /// Whether the kind is granted for this object: without parameters for all, with parameters for those alone.
    #[must_use]
    pub fn permits(&self, kind: GrantKind, object: &str) -> bool {
        self.parameters(kind).is_some_and(|named| named.is_empty() || named.contains(object))
    }

    /// Adds a grant, with its parameter if it has one.
    pub fn insert(&mut self, grant: impl Into<Grant>) {
        let Grant { kind, parameter } = grant.into();
        self.0.entry(kind).or_default().extend(parameter);
    }

    /// Removes all grants of a kind.
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
        assert!(grants.permits(GrantKind::Tables, "a") && !grants.permits(GrantKind::Tables, "c"));
        assert!(grants.permits(GrantKind::Kv, "a") && !grants.permits(GrantKind::Http, "a"));
    }
}
