//! The types of key values, with a description of each for error messages and for the reference.

/// The type of a key's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ValueKind {
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
    PluginName,
    Secret,
    Table,
    OnFault,
    Percent,
    ByQuarantine(Box<ValueKind>),
    Word(Vec<&'static str>),
    List(Box<ValueKind>),
}

impl ValueKind {
    /// The type in words with an example, for error messages and the reference.
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
            Self::PluginName => "a name of letters, digits, \"-\" and \"_\"",
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
