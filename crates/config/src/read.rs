//! From a TOML value to a type of ours: one implementation per kind of value that the file can hold.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::{IpNet, Ipv6Net};
use pintle_mail::address::{check_domain, domain_to_ascii};
use pintle_mail::{Address, Charset};
use pintle_plugin::Places;
use toml::de::DeValue;

use crate::reader::{Spot, Value, nearest, type_name};
use crate::schema::Kind;
use crate::{Cause, Rule, exposed, files, places, units};

/// A type that a key's value can have.
pub(crate) trait Read: Sized {
    /// What it is called in complaints and in the reference.
    fn kind() -> Kind;
    /// Reads it, or complains and gives none.
    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self>;
}

/// A type whose values are words.
pub(crate) trait Choice: Copy + 'static {
    /// The words, and what each means.
    const WORDS: &'static [(&'static str, Self)];
}

/// A number of octets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

impl Size {
    pub(crate) fn octets(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// A number that must not be 0, where 0 would stop all work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Positive<T>(pub(crate) T);

/// A duration that may be zero, where that means "not at all".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct OrZero(pub(crate) Duration);

/// A part of a whole, 0 to 100.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Percent(pub(crate) u8);

/// A list with something in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NonEmpty<T>(pub(crate) Vec<T>);

impl<T> Default for NonEmpty<T> {
    /// Empty, as what stands in for a mistaken list.
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// An address whose port may be left out, being 53.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NameServer(pub(crate) SocketAddr);

/// The prefix of a NAT64 translator.
pub(crate) struct Nat64(pub(crate) Ipv6Net);

/// A domain in A-labels and lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Domain(pub(crate) String);

/// `example.org` or `.example.org`, in A-labels and lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DomainPattern(pub(crate) String);

/// A duration, or `"never"`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct OrNever(pub(crate) Option<Duration>);

/// A secret, wherever it came from. It has no `Debug` on purpose.
#[derive(Clone, Default)]
pub(crate) struct Secret(pub(crate) String);

/// Any table, as JSON, and where its values stand.
#[derive(Debug, Clone, Default)]
pub(crate) struct Json(pub(crate) serde_json::Value, pub(crate) Places);

impl<T: Read> Read for Vec<T> {
    fn kind() -> Kind {
        Kind::List(Box::new(T::kind()))
    }

    /// A single value is taken for a list of one, since that is what it means.
    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Array(items) => {
                let read = |(at, item): (usize, &Value<'_>)| T::read(item, &spot.item(at, item));
                // In two steps, since collecting into an option would stop at the first mistake.
                let items: Vec<Option<T>> = items.iter().enumerate().map(read).collect();
                items.into_iter().collect()
            }
            _ => T::read(value, spot).map(|item| vec![item]),
        }
    }
}

impl<T: Choice> Read for T {
    fn kind() -> Kind {
        Kind::Word(T::WORDS.iter().map(|(word, _)| *word).collect())
    }

    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
        let given = text::<Self>(value, spot)?;
        let found = T::WORDS.iter().find(|(word, _)| *word == given).map(|(_, choice)| *choice);
        if found.is_none() {
            let known: Vec<_> = T::WORDS.iter().map(|(word, _)| *word).collect();
            let nearest = nearest(given, &known);
            spot.complain(Cause::NoSuchWord { given: given.into(), nearest, known });
        }
        found
    }
}

impl Read for String {
    fn kind() -> Kind {
        Kind::Text
    }

    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
        parsed::<Self, _, _>(value, spot, |text| {
            let fault =
                text.chars().any(char::is_control).then_some("control characters are not allowed here");
            fault
                .or(text.trim().is_empty().then_some("this must not be empty"))
                .map_or(Ok(text.to_owned()), Err)
        })
    }
}

impl Read for bool {
    fn kind() -> Kind {
        Kind::Flag
    }

    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            wrong_type::<Self>(value, spot);
        }
        flag
    }
}

macro_rules! whole_numbers {
    ($($number:ty),+) => {$(
        impl Read for $number {
            fn kind() -> Kind {
                Kind::Count
            }

            fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
                let number = value.get_ref().as_integer().map(|i| <$number>::from_str_radix(i.as_str(), i.radix()));
                match number {
                    Some(Ok(number)) => return Some(number),
                    Some(Err(_)) => malformed::<Self>(spot, format!("this number must be 0 to {}", <$number>::MAX)),
                    None => wrong_type::<Self>(value, spot),
                }
                None
            }
        }
    )+};
}
whole_numbers!(u8, u16, u32, u64, usize);

impl<T: Read + Default + PartialEq> Read for Positive<T> {
    fn kind() -> Kind {
        Kind::Positive
    }

    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
        let number = T::read(value, spot)?;
        if number == T::default() {
            malformed::<Self>(spot, "0 would stop all work".into());
            return None;
        }
        Some(Self(number))
    }
}

impl Read for Percent {
    fn kind() -> Kind {
        Kind::Percent
    }

    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
        let percent = u8::read(value, spot)?;
        if percent > 100 {
            malformed::<Self>(spot, "there is no more than 100 percent".into());
            return None;
        }
        Some(Self(percent))
    }
}

impl<T: Read> Read for NonEmpty<T> {
    fn kind() -> Kind {
        Vec::<T>::kind()
    }

    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
        let items = Vec::read(value, spot)?;
        if items.is_empty() {
            malformed::<Self>(spot, "the list is empty".into());
            return None;
        }
        Some(Self(items))
    }
}

impl Read for f64 {
    fn kind() -> Kind {
        Kind::Number
    }

    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
        let number = match value.get_ref() {
            DeValue::Float(float) => float.as_str().parse().ok(),
            DeValue::Integer(whole) => whole.as_str().parse().ok(),
            _ => None,
        };
        let number = number.filter(|number: &Self| number.is_finite());
        if number.is_none() {
            wrong_type::<Self>(value, spot);
        }
        number
    }
}

impl Read for Duration {
    fn kind() -> Kind {
        Kind::Duration
    }

    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
        let duration = parsed::<Self, _, _>(value, spot, units::duration)?;
        if duration.is_zero() {
            malformed::<Self>(spot, "this time must not be zero".into());
            return None;
        }
        Some(duration)
    }
}

impl Read for OrZero {
    fn kind() -> Kind {
        Kind::DurationOrZero
    }

    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
        parsed::<Self, _, _>(value, spot, |text| units::duration(text).map(Self))
    }
}

impl Read for OrNever {
    fn kind() -> Kind {
        Kind::DurationOrNever
    }

    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
        parsed::<Self, _, _>(value, spot, |text| match text {
            "never" => Ok(Self(None)),
            _ => units::duration(text).map(|duration| Self(Some(duration))),
        })
    }
}

impl Read for Size {
    fn kind() -> Kind {
        Kind::Size
    }

    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
        parsed::<Self, _, _>(value, spot, |text| units::size(text).map(Self))
    }
}

impl Read for SocketAddr {
    fn kind() -> Kind {
        Kind::SocketAddress
    }

    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
        parsed::<Self, _, _>(value, spot, |text| {
            let no_port = text.parse::<IpAddr>().map(|_| format!("{text:?} lacks a port"));
            text.parse()
                .map_err(|_| no_port.unwrap_or_else(|_| format!("{text:?} is no address with a port")))
        })
    }
}

impl Read for NameServer {
    fn kind() -> Kind {
        Kind::NameServer
    }

    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
        parsed::<Self, _, _>(value, spot, |text| {
            let bare = text.parse().map(|ip: IpAddr| SocketAddr::new(ip, 53));
            bare.or_else(|_| text.parse()).map(Self).map_err(|_| format!("{text:?} is no address"))
        })
    }
}

macro_rules! ip_addresses {
    ($($address:ty: $kind:ident, $name:literal);+) => {$(
        impl Read for $address {
            fn kind() -> Kind {
                Kind::$kind
            }

            fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
                parsed::<Self, _, _>(value, spot, |text| {
                    text.parse().map_err(|_| format!("{text:?} is no {} address", $name))
                })
            }
        }
    )+};
}
ip_addresses!(IpAddr: IpAddress, "IP"; Ipv4Addr: Ipv4Address, "IPv4"; Ipv6Addr: Ipv6Address, "IPv6");

impl Read for IpNet {
    fn kind() -> Kind {
        Kind::Network
    }

    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
        parsed::<Self, _, _>(value, spot, |text| {
            let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(Self::from));
            let network: Self = network.map_err(|_| format!("{text:?} is no network"))?;
            // 192.0.2.1/24 is as likely a mistyped /32 as a sloppy /24, and the two trust different hosts.
            if network == network.trunc() {
                Ok(network)
            } else {
                Err(format!("{text} has bits set beyond its prefix; the network is {}", network.trunc()))
            }
        })
    }
}

impl Read for Nat64 {
    fn kind() -> Kind {
        Kind::Nat64
    }

    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
        parsed::<Self, _, _>(value, spot, |text| match text.parse::<Ipv6Net>() {
            // RFC 6052 section 2.2 knows no other lengths, and at any other the addresses behind it could not be told.
            Ok(prefix)
                if matches!(prefix.prefix_len(), 32 | 40 | 48 | 56 | 64 | 96) && prefix == prefix.trunc() =>
            {
                Ok(Self(prefix))
            }
            _ => Err(format!(
                "{text:?} is no prefix of 32, 40, 48, 56, 64 or 96 bits with nothing beyond them"
            )),
        })
    }
}

impl Read for Domain {
    fn kind() -> Kind {
        Kind::Domain
    }

    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
        parsed::<Self, _, _>(value, spot, |text| domain(text).map(Self))
    }
}

impl Read for DomainPattern {
    fn kind() -> Kind {
        Kind::DomainPattern
    }

    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
        parsed::<Self, _, _>(value, spot, |text| match text.strip_prefix('.') {
            Some(parent) => domain(parent).map(|parent| Self(format!(".{parent}"))),
            None => domain(text).map(Self),
        })
    }
}

impl Read for Address {
    fn kind() -> Kind {
        Kind::Mailbox
    }

    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
        parsed::<Self, _, _>(value, spot, |text| {
            let address = Self::parse(text, Charset::Ascii).map_err(|error| format!("{text:?}: {error}"))?;
            if address.is_bare_postmaster() { Err("the domain is missing".to_owned()) } else { Ok(address) }
        })
    }
}

impl Read for PathBuf {
    fn kind() -> Kind {
        Kind::Path
    }

    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
        let path = parsed::<Self, _, _>(value, spot, |text| match text {
            "" => Err("the path is empty"),
            _ => Ok(text),
        })?;
        Some(spot.reader.base.join(path))
    }
}

impl Read for Json {
    fn kind() -> Kind {
        Kind::Table
    }

    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
        let DeValue::Table(table) = value.get_ref() else {
            wrong_type::<Self>(value, spot);
            return None;
        };
        let places = places::in_toml(&spot.reader.path, spot.reader.text, value.span().start, table);
        Some(Self(json(value.get_ref()), places))
    }
}

impl Read for Secret {
    fn kind() -> Kind {
        Kind::Secret
    }

    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::String(text) => {
                spot.warn(Rule::InlineSecret);
                if !spot.reader.is_secret.replace(true) {
                    spot.guard(&spot.reader.path, exposed::Kind::Secret);
                }
                Some(Self(text.to_string()))
            }
            DeValue::Table(table) if table.len() == 1 => {
                let (key, value) = table.iter().next()?;
                let source = value.get_ref().as_str();
                match (key.get_ref().as_ref(), source) {
                    ("file", Some(path)) => secret_file(&spot.reader.base.join(path), spot),
                    ("env", Some(name)) => secret_variable(name, spot),
                    _ => {
                        wrong_type::<Self>(value, spot);
                        None
                    }
                }
            }
            _ => {
                wrong_type::<Self>(value, spot);
                None
            }
        }
    }
}

fn secret_file(path: &Path, spot: &Spot<'_>) -> Option<Secret> {
    spot.guard(path, exposed::Kind::Secret);
    let text = files::text(path).map_err(|error| error.to_string());
    // Editors end files with a line end, and no secret does.
    let text = text.map(|text| text.trim_end_matches(['\r', '\n']).to_owned());
    match text {
        Ok(secret) if !secret.is_empty() => return Some(Secret(secret)),
        Ok(_) => spot.complain(Cause::File { path: path.to_owned(), why: "it is empty".into() }),
        Err(why) => spot.complain(Cause::File { path: path.to_owned(), why }),
    }
    None
}

fn secret_variable(name: &str, spot: &Spot<'_>) -> Option<Secret> {
    let value = std::env::var_os(name).as_deref().and_then(OsStr::to_str).map(str::to_owned);
    let value = value.filter(|value| !value.is_empty());
    if value.is_none() {
        spot.complain(Cause::Environment(name.to_owned()));
    }
    value.map(Secret)
}

pub(crate) fn domain(text: &str) -> Result<String, String> {
    let ascii = domain_to_ascii(text.strip_suffix('.').unwrap_or(text));
    match check_domain(&ascii) {
        Ok(()) if !ascii.starts_with('[') && ascii.len() <= 253 => Ok(ascii),
        _ => Err(format!("{text:?} is no domain name")),
    }
}

pub(crate) fn text<'a, T: Read>(value: &'a Value<'_>, spot: &Spot<'_>) -> Option<&'a str> {
    let text = value.get_ref().as_str();
    if text.is_none() {
        wrong_type::<T>(value, spot);
    }
    text
}

/// Reads a text and parses it; what the parser says becomes the complaint. `T` is the type that the key holds.
pub(crate) fn parsed<'v, T: Read, P, E: Into<String>>(
    value: &'v Value<'_>,
    spot: &Spot<'_>,
    parse: impl FnOnce(&'v str) -> Result<P, E>,
) -> Option<P> {
    match parse(text::<T>(value, spot)?) {
        Ok(parsed) => Some(parsed),
        Err(why) => {
            malformed::<T>(spot, why.into());
            None
        }
    }
}

pub(crate) fn wrong_type<T: Read>(value: &Value<'_>, spot: &Spot<'_>) {
    let (expected, found) = (T::kind().describe(), type_name(value.get_ref()));
    spot.complain(Cause::WrongType { expected, found });
}

fn malformed<T: Read>(spot: &Spot<'_>, why: String) {
    let expected = T::kind().describe();
    spot.complain(Cause::Malformed { expected, why });
}

pub(crate) fn json(value: &DeValue<'_>) -> serde_json::Value {
    match value {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Integer(whole) => i64::from_str_radix(whole.as_str(), whole.radix()).ok().into(),
        DeValue::Float(float) => float.as_str().parse::<f64>().ok().into(),
        DeValue::Boolean(flag) => (*flag).into(),
        DeValue::Datetime(time) => time.to_string().into(),
        DeValue::Array(items) => items.iter().map(|item| json(item.get_ref())).collect(),
        DeValue::Table(table) => {
            let pair = |(key, value): (&toml::Spanned<_>, &Value<'_>)| {
                let key: &std::borrow::Cow<'_, str> = key.get_ref();
                (key.to_string(), json(value.get_ref()))
            };
            serde_json::Value::Object(table.iter().map(pair).collect())
        }
    }
}
