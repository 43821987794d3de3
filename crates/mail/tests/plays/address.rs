//! Addresses: a parsed address is kept as it is, holds nothing that could break out of its place, and parses to the
//! same again.

use pintle_mail::address::{MAX_DOMAIN, MAX_PATH, check_domain, domain_to_ascii, split_path};
use pintle_mail::{Address, Charset, ReversePath, xtext};

/// Parses the octets as a mailbox, as a path with text after it, as a domain, and as xtext.
pub fn play(octets: &[u8]) {
    let text = String::from_utf8_lossy(octets);
    mailbox(&text);
    path(&text);
    if check_domain(&text).is_ok() {
        one_form(&text);
    }
    assert!(xtext::decode(&text).len() <= 3 * text.len(), "each octet is at most one U+FFFD");
}

fn mailbox(text: &str) {
    let wide = Address::parse(text, Charset::Utf8);
    let narrow = Address::parse(text, Charset::Ascii);
    if text.is_ascii() {
        assert_eq!(wide, narrow);
    } else if !text.eq_ignore_ascii_case("postmaster") {
        assert!(narrow.is_err(), "{text:?}");
    }
    if let Ok(address) = wide {
        let kept = text.strip_suffix('.').unwrap_or(text);
        assert_eq!(address.as_str(), kept, "as received, but for the domain's last dot");
        sound(&address);
        let back = ReversePath::parse(text, Charset::Utf8);
        assert_eq!(back.is_ok(), !address.is_bare_postmaster());
    }
}

/// What must hold for every address.
pub fn sound(address: &Address) {
    let text = address.as_str();
    assert!(!text.chars().any(char::is_control), "{text:?}");
    assert!(!address.local().chars().any(char::is_control), "{text:?}");
    assert_eq!(Address::parse(&address.to_string(), Charset::Utf8).as_ref(), Ok(address));
    assert_eq!(
        split_path(&format!("<{text}> SIZE=1")),
        Ok((text, " SIZE=1")),
        "it stands alone in a command"
    );
    assert!(address.domain().len() <= MAX_DOMAIN);
    assert!(text.len() + 2 <= MAX_PATH);
    assert!(address.local().len() <= address.local_as_received().len());
    assert!(!address.local_as_received().is_empty());
    if address.is_bare_postmaster() {
        assert!(address.domain().is_empty() && address.literal().is_none());
    } else {
        assert_eq!(format!("{}@{}", address.local_as_received(), address.domain()), text);
        assert_eq!(address.literal().is_some(), address.domain().starts_with('['));
        let ascii = one_form(address.domain());
        assert!(ascii.is_ascii() && !ascii.contains(' '), "{text:?} has {ascii:?} for a domain");
    }
    assert_eq!(address.key(), (address.local().into_owned(), address.domain_ascii()));
}

/// The form for DNS and tables is unique: converting it again changes nothing, and capitals make no other form.
fn one_form(domain: &str) -> String {
    let ascii = domain_to_ascii(domain);
    assert_eq!(domain_to_ascii(&ascii), ascii, "{domain:?}");
    assert_eq!(domain_to_ascii(&domain.to_ascii_uppercase()), ascii, "{domain:?} in capitals");
    ascii
}

/// The path split off a command's argument is a part of it, in order, and nothing in between is lost but brackets,
/// route and blanks.
fn path(argument: &str) {
    let Ok((mailbox, rest)) = split_path(argument) else { return };
    let path = argument.strip_suffix(rest).and_then(|path| path.strip_suffix('>')).unwrap();
    let blanks = [' ', '\t'];
    let before = path.trim_end_matches(blanks).strip_suffix(mailbox).unwrap().trim_end_matches(blanks);
    let route = before.strip_prefix('<').unwrap().trim_start_matches(blanks);
    assert!(route.is_empty() || route.starts_with('@') && route.ends_with(':'), "{argument:?}");
}
