//! Parses the arguments of MAIL and RCPT: a path, then ESMTP parameters (RFC 5321 sections 4.1.1.2 and 4.1.1.3).
//!
//! A parameter is accepted only if its extension is offered. Its value is checked here, and kept as the client wrote it
//! where it is only relayed.

use pintle_mail::address::split_path;
use pintle_mail::{
    Address, AddressError, BodyType, Charset, MailParams, Notify, Param, RcptParams, Return, ReversePath,
    xtext,
};

use super::command::BLANKS;
use super::config::Config;
use super::fault::{SessionFault, Syntax};
use super::offers::Offers;
use crate::extension::Extension;

/// The known parameters of MAIL, with their extensions.
const MAIL: [(&str, Extension); 8] = [
    ("SIZE", Extension::Size),
    ("BODY", Extension::EightBitMime),
    ("SMTPUTF8", Extension::SmtpUtf8),
    ("RET", Extension::Dsn),
    ("ENVID", Extension::Dsn),
    ("AUTH", Extension::Auth),
    ("REQUIRETLS", Extension::RequireTls),
    ("PRDR", Extension::Prdr),
];

/// The known parameters of RCPT, with their extensions.
const RCPT: [(&str, Extension); 2] = [("NOTIFY", Extension::Dsn), ("ORCPT", Extension::Dsn)];

/// Parses the text after `MAIL FROM:`.
pub(crate) fn parse_mail(
    argument: &str,
    offers: &Offers,
    config: &Config,
) -> Result<(ReversePath, MailParams), SessionFault> {
    let (path, rest) = split(argument).map_err(SessionFault::SenderAddress)?;
    let mut params = MailParams::default();
    let mut seen = Seen(0);
    for word in words(rest)? {
        let (name, value) = keyword(word)?;
        match seen.find(&MAIL, name, offers)? {
            Some(known) => mail_param(&mut params, known, value).ok_or_else(|| bad(name))?,
            None => params.other.push(other(name, value, offers, &params.other)?),
        }
    }
    let path = completed(path, config, |path| ReversePath::parse(path, charset(params.smtputf8)));
    let path = path.map_err(SessionFault::SenderAddress)?;
    Ok((path, params))
}

/// Parses the text after `RCPT TO:`.
pub(crate) fn parse_rcpt(
    argument: &str,
    offers: &Offers,
    config: &Config,
    smtputf8: bool,
) -> Result<(Address, RcptParams), SessionFault> {
    let (path, rest) = split(argument).map_err(SessionFault::RecipientAddress)?;
    let address = completed(path, config, |path| Address::parse(path, charset(smtputf8)));
    let address = address.map_err(SessionFault::RecipientAddress)?;
    let mut params = RcptParams::default();
    let mut seen = Seen(0);
    for word in words(rest)? {
        let (name, value) = keyword(word)?;
        match seen.find(&RCPT, name, offers)? {
            Some(known) => rcpt_param(&mut params, known, value, smtputf8).ok_or_else(|| bad(name))?,
            None => params.other.push(other(name, value, offers, &params.other)?),
        }
    }
    Ok((address, params))
}

/// Parses a path. If only its domain is missing and there is a default domain, the latter is added.
fn completed<T>(
    path: &str,
    config: &Config,
    read: impl Fn(&str) -> Result<T, AddressError>,
) -> Result<T, AddressError> {
    match (read(path), &config.default_domain) {
        (Err(AddressError::NoDomain), Some(domain)) if !path.is_empty() => read(&format!("{path}@{domain}")),
        (read, _) => read,
    }
}

/// Splits the path from the text after it. Old devices omit the angle brackets: `MAIL FROM:a@b.example`.
fn split(argument: &str) -> Result<(&str, &str), AddressError> {
    match split_path(argument) {
        Err(AddressError::Brackets) if !argument.contains(['<', '>']) && !argument.is_empty() => {
            Ok(argument.split_at(argument.find(BLANKS).unwrap_or(argument.len())))
        }
        result => result,
    }
}

fn charset(smtputf8: bool) -> Charset {
    if smtputf8 { Charset::Utf8 } else { Charset::Ascii }
}

/// Returns the words after a path, which must be separated from it.
fn words(rest: &str) -> Result<impl Iterator<Item = &str>, SessionFault> {
    if rest.is_empty() || rest.starts_with(BLANKS) {
        Ok(rest.split(BLANKS).filter(|word| !word.is_empty()))
    } else {
        Err(SessionFault::Syntax(Syntax::Parameters))
    }
}

/// RFC 5321 section 4.1.2: `esmtp-keyword ["=" esmtp-value]`.
fn keyword(word: &str) -> Result<(&str, Option<&str>), SessionFault> {
    let (name, value) = match word.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (word, None),
    };
    let is_name = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if is_name { Ok((name, value)) } else { Err(SessionFault::Syntax(Syntax::Parameters)) }
}

/// The set of known parameters that a command has named so far.
struct Seen(u16);

impl Seen {
    /// Finds the known and offered parameter with this name. A repeated parameter is a fault, except for SIZE, because
    /// some clients send an estimate and then the exact value.
    fn find(
        &mut self,
        table: &[(&'static str, Extension)],
        name: &str,
        offers: &Offers,
    ) -> Result<Option<&'static str>, SessionFault> {
        let known = |(known, extension): &(&str, Extension)| {
            known.eq_ignore_ascii_case(name) && offers.has(*extension)
        };
        let Some(index) = table.iter().position(known) else {
            return Ok(None);
        };
        if self.0 & (1 << index) != 0 && table[index].1 != Extension::Size {
            return Err(bad(name));
        }
        self.0 |= 1 << index;
        Ok(Some(table[index].0))
    }
}

fn bad(name: &str) -> SessionFault {
    SessionFault::BadParameter(name.to_ascii_uppercase())
}

/// Accepts a parameter of an extension that the host offered.
fn other(name: &str, value: Option<&str>, offers: &Offers, before: &[Param]) -> Result<Param, SessionFault> {
    let upper = name.to_ascii_uppercase();
    if !offers.has_other(name) {
        return Err(SessionFault::UnknownParameter(upper));
    }
    if before.iter().any(|param| param.name == upper) || !value.is_none_or(is_value) {
        return Err(SessionFault::BadParameter(upper));
    }
    Ok(Param { name: upper, value: value.map(str::to_owned) })
}

/// RFC 5321 section 4.1.2, esmtp-value; RFC 6531 section 3.3 adds UTF-8.
fn is_value(value: &str) -> bool {
    !value.is_empty() && value.chars().all(|c| c > ' ' && c != '=' && c != '\u{7f}')
}

/// Sets one parameter of MAIL; `None` if its value is invalid.
fn mail_param(params: &mut MailParams, name: &str, value: Option<&str>) -> Option<()> {
    match name {
        "SIZE" => params.size = Some(size(value?)?),
        "BODY" => params.body = body(value?)?,
        "SMTPUTF8" => params.smtputf8 = flag(value)?,
        "RET" => params.ret = Some(ret(value?)?),
        // RFC 3461 section 4.4: at most 100 characters.
        "ENVID" => params.envid = Some(coded(value?, 100)?),
        "AUTH" => params.auth = Some(mailbox_or_null(value?)?),
        "REQUIRETLS" => params.require_tls = flag(value)?,
        "PRDR" => params.prdr = flag(value)?,
        _ => return None,
    }
    Some(())
}

fn rcpt_param(params: &mut RcptParams, name: &str, value: Option<&str>, smtputf8: bool) -> Option<()> {
    match name {
        "NOTIFY" => params.notify = Some(notify(value?)?),
        "ORCPT" => params.orcpt = Some(orcpt(value?, smtputf8)?),
        _ => return None,
    }
    Some(())
}

fn flag(value: Option<&str>) -> Option<bool> {
    value.is_none().then_some(true)
}

/// RFC 1870 section 3: up to 20 digits, which may exceed 64 bits; such a message is too big in any case.
fn size(value: &str) -> Option<u64> {
    let is_number = (1..=20).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| value.parse().unwrap_or(u64::MAX))
}

/// RFC 6152 section 2. BINARYMIME (RFC 3030) is not offered, so it is not a valid value.
fn body(value: &str) -> Option<BodyType> {
    match value {
        _ if value.eq_ignore_ascii_case("7BIT") => Some(BodyType::SevenBit),
        _ if value.eq_ignore_ascii_case("8BITMIME") => Some(BodyType::EightBitMime),
        _ => None,
    }
}

/// RFC 3461 section 4.3.
fn ret(value: &str) -> Option<Return> {
    match value {
        _ if value.eq_ignore_ascii_case("FULL") => Some(Return::Full),
        _ if value.eq_ignore_ascii_case("HDRS") => Some(Return::Headers),
        _ => None,
    }
}

/// RFC 3461 section 4.1: `NEVER` alone, or a list of the other values.
fn notify(value: &str) -> Option<Notify> {
    if value.eq_ignore_ascii_case("NEVER") {
        return Some(Notify::NEVER);
    }
    let mut notify = Notify::NEVER;
    for word in value.split(',') {
        match word {
            _ if word.eq_ignore_ascii_case("SUCCESS") => notify.success = true,
            _ if word.eq_ignore_ascii_case("FAILURE") => notify.failure = true,
            _ if word.eq_ignore_ascii_case("DELAY") => notify.delay = true,
            _ => return None,
        }
    }
    Some(notify)
}

/// RFC 3461 section 4.2: `addr-type ";" xtext`; RFC 6533 section 3 adds the type `utf-8`, whose text may contain UTF-8.
fn orcpt(value: &str, smtputf8: bool) -> Option<String> {
    let (kind, text) = value.split_once(';')?;
    let is_atom = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*-/?^_`{|}~.".contains(c);
    if kind.is_empty() || !kind.chars().all(is_atom) || value.len() > 500 {
        return None;
    }
    let is_utf8 = kind.eq_ignore_ascii_case("utf-8") && smtputf8;
    let is_good = if is_utf8 { is_value(text) && xtext::is_shown(text) } else { is_xtext(text) };
    is_good.then(|| value.to_owned())
}

/// RFC 4954 section 5.
fn mailbox_or_null(value: &str) -> Option<String> {
    if value == "<>" { Some(value.to_owned()) } else { coded(value, 500) }
}

fn coded(value: &str, longest: usize) -> Option<String> {
    (value.len() <= longest && is_xtext(value)).then(|| value.to_owned())
}

/// RFC 3461 section 4: printable characters except `+` and `=`, which are written `+HH`. The decoded text is shown in
/// reports and relayed, so it must not contain control characters; octets from 0x80 on may be letters.
fn is_xtext(value: &str) -> bool {
    let is_hex = |byte: Option<&u8>| byte.is_some_and(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'));
    let mut bytes = value.as_bytes().iter();
    while let Some(byte) = bytes.next() {
        let good = match byte {
            b'+' => is_hex(bytes.next()) && is_hex(bytes.next()),
            b'=' => false,
            _ => (b'!'..=b'~').contains(byte),
        };
        if !good {
            return false;
        }
    }
    !value.is_empty() && xtext::is_shown(value)
}

#[cfg(test)]
mod tests {
    use super::super::offers::SaslMechanisms;
    use super::*;
    use crate::extension::Extensions;

    fn offers() -> Offers {
        let known = Extensions::default().with(Extension::Auth).with(Extension::RequireTls);
        let mut offers = Offers::new(known, 0, SaslMechanisms::default());
        offers.offer("X-TAG", None).unwrap();
        offers
    }

    fn mail(argument: &str) -> Result<(ReversePath, MailParams), SessionFault> {
        parse_mail(argument, &offers(), &Config::default())
    }

    fn rcpt(argument: &str) -> Result<(Address, RcptParams), SessionFault> {
        parse_rcpt(argument, &offers(), &Config::default(), true)
    }

    #[test]
    fn all_parameters_of_mail_are_kept() {
        let text = "<a@b.example> SIZE=9 body=8bitmime SMTPUTF8 RET=HDRS ENVID=q+2B1 AUTH=<> REQUIRETLS PRDR x-tag=1";
        let (path, params) = mail(text).unwrap();
        assert_eq!(path.as_str(), "a@b.example");
        assert_eq!((params.size, params.body), (Some(9), BodyType::EightBitMime));
        assert!(params.smtputf8 && params.require_tls && params.prdr);
        assert_eq!(params.ret, Some(Return::Headers));
        assert_eq!((params.envid.as_deref(), params.auth.as_deref()), (Some("q+2B1"), Some("<>")));
        assert_eq!(params.other[0].name, "X-TAG");
    }

    #[test]
    fn all_parameters_of_rcpt_are_kept() {
        let (address, params) =
            rcpt("<\"a b\"@c.example> NOTIFY=SUCCESS,delay ORCPT=rfc822;a+20b@c.example").unwrap();
        assert_eq!(address.as_str(), "\"a b\"@c.example");
        let notify = params.notify.unwrap();
        assert!(notify.success && notify.delay && !notify.failure);
        assert_eq!(params.orcpt.as_deref(), Some("rfc822;a+20b@c.example"));
        assert_eq!(rcpt("<a@b.example> NOTIFY=NEVER").unwrap().1.notify, Some(Notify::NEVER));
        assert!(rcpt("<a@b.example> ORCPT=utf-8;ä@b.example").is_ok());
    }

    #[test]
    fn bad_values_and_doubles_name_their_parameter() {
        for (text, name) in [
            ("SIZE", "SIZE"),
            ("SIZE=x", "SIZE"),
            ("BODY=7BIT body=8BITMIME", "BODY"),
            ("BODY=BINARYMIME", "BODY"),
            ("SMTPUTF8=1", "SMTPUTF8"),
            ("RET=SOME", "RET"),
            ("ENVID=a+2g", "ENVID"),
            ("ENVID=a=b", "ENVID"),
            ("ENVID=+2", "ENVID"),
            ("ENVID=a+0D+0Ab", "ENVID"),
            ("ENVID=+7F", "ENVID"),
            ("AUTH=a+00@b.example", "AUTH"),
            ("PRDR=x", "PRDR"),
            ("PRDR prdr", "PRDR"),
            ("X-TAG X-TAG", "X-TAG"),
        ] {
            let fault = mail(&format!("<> {text}")).unwrap_err();
            assert_eq!(fault, SessionFault::BadParameter(name.to_owned()), "{text}");
        }
        assert!(
            mail("<> ENVID=+C3+A4+FF").is_ok() && rcpt("<a@b.example> ORCPT=rfc822;+E4@b.example").is_ok()
        );
        let coded = ["ORCPT=rfc822;a+0D+0Ab@c.example", "ORCPT=utf-8;a+1B@c.example"];
        let plain = ["NOTIFY=NEVER,SUCCESS", "NOTIFY=", "ORCPT=a@b", "ORCPT=;a", "ORCPT=rfc822;"];
        for text in plain.into_iter().chain(coded) {
            assert!(
                matches!(rcpt(&format!("<a@b.example> {text}")), Err(SessionFault::BadParameter(_))),
                "{text}"
            );
        }
    }

    #[test]
    fn an_address_without_a_domain_gets_the_default_one() {
        let config = Config { default_domain: Some("ours.example".to_owned()), ..Config::default() };
        let mail = |text: &str| parse_mail(text, &offers(), &config).map(|(path, _)| path.to_string());
        let rcpt = |text: &str| parse_rcpt(text, &offers(), &config, true).map(|(path, _)| path.to_string());
        for (text, address) in [
            ("<scanner>", "scanner@ours.example"),
            ("scanner", "scanner@ours.example"),
            ("<\"a @ b\">", "\"a @ b\"@ours.example"),
            ("<a@b.example>", "a@b.example"),
        ] {
            assert_eq!(mail(text).unwrap(), address);
            assert_eq!(rcpt(text).unwrap(), address);
        }
        assert_eq!(mail("<>").unwrap(), "");
        assert_eq!(mail("<postmaster>").unwrap(), "postmaster@ours.example");
        assert_eq!(rcpt("<postmaster>").unwrap(), "postmaster");
        for text in ["<a@>", "<a@-b.example>", "<a@b@c>", "<a b>"] {
            assert!(mail(text).is_err() && rcpt(text).is_err(), "{text}");
        }
        assert!(rcpt("<>").is_err());
    }

    #[test]
    fn of_several_sizes_the_last_counts() {
        assert_eq!(mail("<>\tSIZE=1\t size=20").unwrap().1.size, Some(20));
        assert_eq!(mail("<> SIZE=1 SIZE=x").unwrap_err(), SessionFault::BadParameter("SIZE".to_owned()));
    }

    #[test]
    fn what_is_not_on_offer_is_unknown() {
        assert_eq!(mail("<> FOO=1").unwrap_err(), SessionFault::UnknownParameter("FOO".into()));
        let none = parse_mail("<> SIZE=1", &Offers::none(), &Config::default());
        assert_eq!(none.unwrap_err(), SessionFault::UnknownParameter("SIZE".into()));
        assert_eq!(mail("<>SIZE=1").unwrap_err(), SessionFault::Syntax(Syntax::Parameters));
        assert_eq!(mail("<> =1").unwrap_err(), SessionFault::Syntax(Syntax::Parameters));
    }

    #[test]
    fn missing_brackets_are_tolerated() {
        for text in ["a@b.example SIZE=1", "a@b.example\tSIZE=1"] {
            assert_eq!(mail(text).unwrap().0.as_str(), "a@b.example");
        }
        assert_eq!(mail("").unwrap_err(), SessionFault::SenderAddress(AddressError::Brackets));
        assert!(mail("<a@b.example").is_err() && mail("a@b.example>").is_err());
        assert_eq!(size("99999999999999999999"), Some(u64::MAX));
    }
}
