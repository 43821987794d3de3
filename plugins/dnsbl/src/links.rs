//! Finds the hosts in a message's links, by name or by address, and parses them as browsers do.
//!
//! Lists of domains hold registered domains. Which labels of a name form the registered domain depends on the registry,
//! so the gateway is asked, which has a public suffix list.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pintle_plugin_sdk::message::Part;
use pintle_plugin_sdk::{HostError, IpAddress, message, names};

/// Maximum number of octets read from each text part.
const MAX_TEXT: u32 = 256 << 10;
const MAX_PARTS: usize = 10;

/// Host of a link.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Host {
    /// A domain name in lower case.
    Name(String),
    Address(IpAddr),
}

/// At most `max` distinct hosts in the text parts of the message, as decoded by the host program.
pub(crate) fn hosts_in_message(max: usize) -> Result<Vec<Host>, HostError> {
    let mut hosts = Vec::new();
    for part in texts(&message::parts()?).into_iter().take(MAX_PARTS) {
        for host in hosts_in(&message::part_text(part.index, MAX_TEXT)?) {
            if hosts.len() < max && !hosts.contains(&host) {
                hosts.push(host);
            }
        }
    }
    Ok(hosts)
}

/// The text parts of the message itself. Enclosed messages are skipped, since others wrote them: a spam report contains
/// the spam.
fn texts(parts: &[Part]) -> Vec<&Part> {
    let mut enclosed = Vec::with_capacity(parts.len());
    for part in parts {
        let around = part.parent.and_then(|parent| usize::try_from(parent).ok());
        let within = |at: usize| enclosed[at] || parts[at].content_type.starts_with("message/");
        enclosed.push(around.is_some_and(within));
    }
    let own = parts.iter().zip(enclosed).filter(|(_, enclosed)| !enclosed).map(|(part, _)| part);
    own.filter(|part| part.content_type.starts_with("text/") && !part.is_attachment()).collect()
}

/// The names to look up in lists of domains for these hosts.
pub(crate) fn domains(hosts: &[Host]) -> Result<Vec<String>, HostError> {
    let name = |host: &Host| match host {
        Host::Name(name) => Some(name.clone()),
        Host::Address(_) => None,
    };
    let names: Vec<String> = hosts.iter().filter_map(name).collect();
    Ok(registered_or_whole(&names, names::registered_domains(&names)?))
}

/// The registered domain of each name, once. A name that has none, such as a public suffix, is looked up as it is: some
/// lists contain providers under whose names anybody can have one.
fn registered_or_whole(names: &[String], registered: Vec<Option<String>>) -> Vec<String> {
    let pairs = names.iter().zip(registered);
    let mut domains: Vec<String> =
        pairs.map(|(name, registered)| registered.unwrap_or_else(|| name.clone())).collect();
    domains.sort();
    domains.dedup();
    domains
}

/// The addresses to look up in lists of addresses for these hosts.
pub(crate) fn addresses(hosts: &[Host]) -> Vec<IpAddress> {
    let address = |host: &Host| match host {
        Host::Name(_) => None,
        Host::Address(address) => Some(IpAddress::from(*address)),
    };
    hosts.iter().filter_map(address).collect()
}

/// The names to look up for a HELO name or a sender's domain: its registered domain, and the whole name, since some lists
/// contain hosts.
pub(crate) fn name_and_domain(name: &str) -> Result<Vec<String>, HostError> {
    let name = name.trim_end_matches('.').to_lowercase();
    let registered = names::registered_domains(std::slice::from_ref(&name))?.into_iter().flatten();
    let mut names: Vec<String> = registered.filter(|domain| *domain != name).collect();
    names.push(name);
    Ok(names)
}

/// The host of each link: after `http:` or `https:` and slashes of either kind, or at a word that begins with `www.`.
fn hosts_in(text: &str) -> Vec<Host> {
    let text = without_references(&text.to_ascii_lowercase());
    let mut hosts: Vec<Host> = ["http:", "https:"]
        .iter()
        .flat_map(|scheme| text.split(scheme).skip(1))
        .filter(|link| link.starts_with(['/', '\\']))
        .filter_map(|link| host(link.trim_start_matches(['/', '\\'])))
        .collect();
    // Mail programs turn such words into links.
    let begins = |(at, _): &(usize, &str)| {
        text[..*at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && !"/@.-_\\%".contains(c))
    };
    hosts.extend(text.match_indices("www.").filter(begins).filter_map(|(at, _)| host(&text[at..])));
    hosts
}

/// The host of a link without its scheme: the part between `user@` and the port or path.
fn host(link: &str) -> Option<Host> {
    let ends = |c: char| c.is_whitespace() || "/?#\"'<>()\\,;".contains(c);
    let authority = link.split(ends).next()?.rsplit('@').next()?;
    if let Some(literal) = authority.strip_prefix('[') {
        let v6: Ipv6Addr = literal.split(']').next()?.parse().ok()?;
        return Some(Host::Address(v6.into()));
    }
    let name = percent_decoded(authority.split(':').next()?);
    let name = name.trim_end_matches('.');
    if let Some(v4) = v4(name) {
        return Some(Host::Address(v4.into()));
    }
    (name.contains('.') && name.is_ascii()).then(|| Host::Name(name.to_owned()))
}

/// Parses an IPv4 address in any form that browsers accept: one to four numbers, each decimal, octal (prefix 0) or
/// hexadecimal (prefix 0x). The last number fills the remaining octets.
fn v4(text: &str) -> Option<Ipv4Addr> {
    let number = |part: &str| match (part.strip_prefix("0x"), part.strip_prefix('0')) {
        (Some(hex), _) => u32::from_str_radix(hex, 16).ok(),
        (_, Some(octal)) if !octal.is_empty() => u32::from_str_radix(octal, 8).ok(),
        _ => part.parse().ok().filter(|_| !part.starts_with('+')),
    };
    let numbers: Vec<u32> = text.split('.').map(number).collect::<Option<_>>()?;
    let (last, first) = numbers.split_last()?;
    let is_room = first.len() < 4 && u64::from(*last) < 1 << (8 * (4 - first.len()));
    if !is_room || first.iter().any(|number| *number > 255) {
        return None;
    }
    let place = |(at, number): (usize, &u32)| number << (8 * (3 - at));
    Some(Ipv4Addr::from(first.iter().enumerate().map(place).sum::<u32>() + last))
}

fn percent_decoded(text: &str) -> String {
    let mut pieces = text.split('%');
    let mut decoded = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let code = piece
            .get(..2)
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
            .filter(u8::is_ascii_graphic);
        match code {
            Some(code) => {
                decoded.push(char::from(code.to_ascii_lowercase()));
                decoded.push_str(&piece[2..]);
            }
            None => {
                decoded.push('%');
                decoded.push_str(piece);
            }
        }
    }
    decoded
}

/// Replaces those HTML character references that can hide a host. `text` is in lower case.
fn without_references(text: &str) -> String {
    let mut pieces = text.split('&');
    let mut plain = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let end = piece.find(|c: char| !c.is_ascii_alphanumeric() && c != '#').unwrap_or(piece.len());
        match reference(&piece[..end]) {
            Some(c) => {
                plain.extend(c.to_lowercase());
                plain.push_str(piece[end..].strip_prefix(';').unwrap_or(&piece[end..]));
            }
            None => {
                plain.push('&');
                plain.push_str(piece);
            }
        }
    }
    plain
}

fn reference(name: &str) -> Option<char> {
    let code = match name {
        "period" => return Some('.'),
        "colon" => return Some(':'),
        "sol" => return Some('/'),
        "bsol" => return Some('\\'),
        "commat" => return Some('@'),
        name => name.strip_prefix('#')?,
    };
    let number = match code.strip_prefix('x') {
        Some(hex) => u32::from_str_radix(hex, 16).ok()?,
        None => code.parse().ok()?,
    };
    char::from_u32(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let text_of = |host: Host| match host {
            Host::Name(name) => name,
            Host::Address(address) => format!("[{address}]"),
        };
        hosts_in(text).into_iter().map(text_of).collect()
    }

    #[test]
    fn enclosed_messages_are_not_the_senders_words() {
        let part = |index, parent, content_type: &str| Part {
            index,
            parent,
            content_type: content_type.to_owned(),
            charset: None,
            filename: None,
            disposition: if index == 6 { "attachment" } else { "" }.to_owned(),
            content_id: None,
            transfer_encoding: "7bit".to_owned(),
            header_offset: 0,
            offset: 0,
            encoded_size: 1,
        };
        let parts = [
            part(0, None, "multipart/mixed"),
            part(1, Some(0), "text/plain"),
            part(2, Some(0), "message/rfc822"),
            part(3, Some(2), "multipart/mixed"),
            part(4, Some(3), "text/html"),
            part(5, Some(0), "text/html"),
            part(6, Some(0), "text/csv"),
        ];
        let own: Vec<u32> = texts(&parts).iter().map(|part| part.index).collect();
        assert_eq!(own, [1, 5]);
    }

    #[test]
    fn hosts_are_found_in_text_and_markup() {
        let text = "See HTTP://Www.Bad.Example/x?y, or <a href=\"https://user:pw@b.example:8443/\">good.example</a> \
            http://localhost/ https://c.example. http://";
        assert_eq!(found(text), ["www.bad.example", "b.example", "c.example"]);
        assert_eq!(
            found("go to www.bad.example/x, not to a@www.x.example or x.www.y.example"),
            ["www.bad.example"]
        );
    }

    #[test]
    fn what_is_written_to_be_overlooked_is_found() {
        for text in [
            "http:\\\\bad.example/",
            "http:/bad.example",
            "https:///bad.example",
            "http://bad%2eexample/",
            "http://%62ad.example/",
            "http://bad&#46;example/",
            "http://bad&#x2E;example/",
            "&#104;ttp://bad.example",
            "http&colon;&sol;&sol;bad&period;example",
            "http://good.example@bad.example/",
            "http://bad.example./",
        ] {
            assert_eq!(found(text), ["bad.example"], "{text}");
        }
        assert_eq!(found("a&b &#; &#xzz; &amp http://x.example?a=1&b=2"), ["x.example"]);
    }

    #[test]
    fn addresses_are_read_in_every_form() {
        for text in
            ["192.0.2.1", "192.0.513", "192.513", "3221225985", "0xC0000201", "0300.0.2.1", "0xc0.0.0x2.01"]
        {
            assert_eq!(found(&format!("http://{text}/")), ["[192.0.2.1]"], "{text}");
        }
        assert_eq!(found("http://[2001:DB8::1]:8080/"), ["[2001:db8::1]"]);
        for text in ["256.0.2.1", "192.0.2.1.5", "4294967296", "1.2.3.x", "+1.2.3.4"] {
            assert!(!found(&format!("http://{text}/")).iter().any(|host| host.starts_with('[')), "{text}");
        }
        let both = hosts_in("http://192.0.2.1/ http://a.b.bad.example/");
        assert_eq!(addresses(&both)[0].octets, [192, 0, 2, 1]);
    }

    #[test]
    fn a_name_without_a_registered_domain_is_looked_up_as_it_is() {
        let names = ["www.bad.example", "a.bad.example", "github.io"].map(str::to_owned);
        let registered = vec![Some("bad.example".to_owned()), Some("bad.example".to_owned()), None];
        assert_eq!(registered_or_whole(&names, registered), ["bad.example", "github.io"]);
    }
}
