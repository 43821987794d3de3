//! The names of hosts in a message's links.
//!
//! Lists of domains hold registered domains, and which part of a name is one depends on the registry. Rather than carry a
//! table of those, each name is asked about in its last two and its last three labels: one lookup too many costs nothing
//! that matters, since a list holds no registry's own suffix.

use pintle_plugin_sdk::{HostError, message};

/// So much text of each part is read.
const MAX_TEXT: u32 = 256 << 10;
const MAX_PARTS: usize = 10;

/// The domains to ask about, for at most `max` different hosts in the text parts of the message.
pub(crate) fn names_in_message(max: usize) -> Result<Vec<String>, HostError> {
    let mut hosts = Vec::new();
    let parts = message::parts()?;
    let texts = parts.iter().filter(|part| part.content_type.starts_with("text/") && !part.attachment);
    for part in texts.take(MAX_PARTS) {
        for host in hosts_in(&message::part_text(part.index, MAX_TEXT)?) {
            if hosts.len() < max && !hosts.contains(&host) {
                hosts.push(host);
            }
        }
    }
    let mut names: Vec<String> = hosts.iter().flat_map(|host| domains_of(host)).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// The host of each link, in lower case.
fn hosts_in(text: &str) -> Vec<String> {
    let text = text.to_ascii_lowercase();
    let after_scheme = ["http://", "https://"].iter().flat_map(|scheme| text.split(scheme).skip(1));
    after_scheme.filter_map(host).collect()
}

/// The host at the beginning of a link without its scheme: what stands between `user@` and port or path.
fn host(link: &str) -> Option<String> {
    let ends = |c: char| c.is_whitespace() || "/?#\"'<>()[]\\,;".contains(c);
    let authority = link.split(ends).next()?;
    let host = authority.rsplit('@').next()?.split(':').next()?.trim_end_matches('.');
    (host.contains('.') && host.is_ascii()).then(|| host.to_owned())
}

fn domains_of(host: &str) -> Vec<String> {
    let labels: Vec<&str> = host.split('.').collect();
    let last = |count: usize| labels[labels.len().saturating_sub(count)..].join(".");
    if labels.len() > 2 { vec![last(2), last(3)] } else { vec![last(2)] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_found_in_text_and_markup() {
        let text = "See HTTP://Www.Bad.Example/x?y, or <a href=\"https://user:pw@b.example:8443/\">good.example</a> \
            http://localhost/ https://c.example. http://";
        assert_eq!(hosts_in(text), ["www.bad.example", "b.example", "c.example"]);
    }

    #[test]
    fn the_ends_of_a_name_are_asked_about() {
        assert_eq!(domains_of("a.b.bad.co.uk"), ["co.uk", "bad.co.uk"]);
        assert_eq!(domains_of("bad.example"), ["bad.example"]);
    }
}
