//! Endpoints of next hops, as configurations and plugins write them: `HOST:PORT`, an address, or `unix:/PATH`.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

/// The address or socket that a next hop listens on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// A name or an address, and a port.
    Tcp {
        /// A host name, or an IP address without brackets.
        host: String,
        /// The TCP port; the caller's default if the text has none.
        port: u16,
    },
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// The text is not an endpoint. The operator or plugin that wrote it is at fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointError(String);

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} names no host: write HOST, HOST:PORT, [ADDRESS]:PORT or unix:/PATH", self.0)
    }
}

impl std::error::Error for EndpointError {}

impl Endpoint {
    /// Reads `host`, `host:port`, `192.0.2.1`, `[192.0.2.1]:25`, `[2001:db8::1]:25`, `2001:db8::1` or `unix:/path`.
    ///
    /// # Errors
    /// The text is none of these.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, EndpointError> {
        let wrong = || EndpointError(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') { Ok(Self::Unix(path.into())) } else { Err(wrong()) };
        }
        let (host, port) = split(text).ok_or_else(wrong)?;
        let port = match port {
            None => default_port,
            Some(port) => port.parse().map_err(|_| wrong())?,
        };
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let is_host = host.parse::<IpAddr>().is_ok()
            || pintle_mail::address::check_domain(&host).is_ok_and(|()| !host.starts_with('['));
        if is_host { Ok(Self::Tcp { host, port }) } else { Err(wrong()) }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

fn split(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        let host = host.get(..5).filter(|tag| tag.eq_ignore_ascii_case("IPv6:")).map_or(host, |_| &host[5..]);
        host.parse::<IpAddr>().ok()?;
        return match rest {
            "" => Some((host, None)),
            rest => rest.strip_prefix(':').map(|port| (host, Some(port))),
        };
    }
    match text.split_once(':') {
        // A bare IPv6 address has more colons than one.
        Some((_, rest)) if rest.contains(':') => Some((text, None)),
        Some((host, port)) => Some((host, Some(port))),
        None => Some((text, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Result<Endpoint, EndpointError> {
        Ok(Endpoint::Tcp { host: host.into(), port })
    }

    #[test]
    fn every_spelling_is_read() {
        let parse = |text| Endpoint::parse(text, 25);
        assert_eq!(parse("Mail.Example.org."), tcp("mail.example.org", 25));
        assert_eq!(parse("mail.example.org:587"), tcp("mail.example.org", 587));
        assert_eq!(parse("192.0.2.1"), tcp("192.0.2.1", 25));
        assert_eq!(parse("[192.0.2.1]:26"), tcp("192.0.2.1", 26));
        assert_eq!(parse("[2001:db8::1]"), tcp("2001:db8::1", 25));
        assert_eq!(parse("[IPv6:2001:db8::1]:24"), tcp("2001:db8::1", 24));
        assert_eq!(parse("2001:db8::1"), tcp("2001:db8::1", 25));
        assert_eq!(parse("unix:/run/lmtp"), Ok(Endpoint::Unix("/run/lmtp".into())));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", ":25", "host:", "host:x", "host:70000", "[x]:25", "[192.0.2.1]25", "unix:run", "a b"]
        {
            assert!(Endpoint::parse(text, 25).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_shown_can_be_read_back() {
        for text in ["mail.example.org:587", "[2001:db8::1]:25", "192.0.2.1:25", "unix:/run/lmtp"] {
            assert_eq!(Endpoint::parse(text, 1).unwrap().to_string(), text);
        }
    }
}
