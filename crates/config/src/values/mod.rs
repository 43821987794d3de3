//! The types of values in the file, and how each is read from TOML.

mod choices;
mod network;
mod plugin_name;
mod secret;
mod tables;

use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

pub(crate) use choices::ListenerKind;
pub use choices::{LogFormat, LogLevel};
pub(crate) use network::{Domain, DomainPattern, NameServer, Nat64, RelayHost, RoutePattern};
pub(crate) use plugin_name::PluginName;
pub(crate) use secret::SecretText;
pub(crate) use tables::{ByQuarantine, JsonTable, OnFault, json};

use crate::reader::{ReadValue, Spot, Value, malformed, nearest, parsed, text, wrong_type};
use crate::value_kind::ValueKind;
use crate::{Cause, units};

/// A type whose values are words (an enumeration).
pub(crate) trait Choice: Copy + 'static {
    /// The words, each with its value.
    const WORDS: &'static [(&'static str, Self)];
}

/// A size in octets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

impl Size {
    pub(crate) fn octets(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// A number of at least 1, for limits that would stop all work if they were 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Positive<T>(pub(crate) T);

/// A duration that may be zero, which means "not at all".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct OrZero(pub(crate) Duration);

/// A percentage, 0 to 100.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Percent(pub(crate) u8);

/// A list with at least one item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NonEmpty<T>(pub(crate) Vec<T>);

impl<T> Default for NonEmpty<T> {
    /// Empty: the value of an invalid list, whose settings are not used.
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// A duration; none for `"never"`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct OrNever(pub(crate) Option<Duration>);

impl<T: ReadValue> ReadValue for Vec<T> {
    fn kind() -> ValueKind {
        ValueKind::List(Box::new(T::kind()))
    }

    /// Reads a list. A single value is read as a list of one item.
    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Array(items) => {
                let read = |(at, item): (usize, &Value<'_>)| T::read(item, &spot.item(at, item));
                // Two steps, since collecting into an `Option` would stop at the first mistake.
                let items: Vec<Option<T>> = items.iter().enumerate().map(read).collect();
                items.into_iter().collect()
            }
            _ => T::read(value, spot).map(|item| vec![item]),
        }
    }
}

impl<T: Choice> ReadValue for T {
    fn kind() -> ValueKind {
        ValueKind::Word(T::WORDS.iter().map(|(word, _)| *word).collect())
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

impl ReadValue for String {
    fn kind() -> ValueKind {
        ValueKind::Text
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

impl ReadValue for bool {
    fn kind() -> ValueKind {
        ValueKind::Flag
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
        impl ReadValue for $number {
            fn kind() -> ValueKind {
                ValueKind::Count
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

impl<T: ReadValue + Default + PartialEq> ReadValue for Positive<T> {
    fn kind() -> ValueKind {
        ValueKind::Positive
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

impl ReadValue for Percent {
    fn kind() -> ValueKind {
        ValueKind::Percent
    }

    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
        let percent = u8::read(value, spot)?;
        if percent > 100 {
            malformed::<Self>(spot, "a percentage must be at most 100".into());
            return None;
        }
        Some(Self(percent))
    }
}

impl<T: ReadValue> ReadValue for NonEmpty<T> {
    fn kind() -> ValueKind {
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

impl ReadValue for f64 {
    fn kind() -> ValueKind {
        ValueKind::Number
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

impl ReadValue for Duration {
    fn kind() -> ValueKind {
        ValueKind::Duration
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

impl ReadValue for OrZero {
    fn kind() -> ValueKind {
        ValueKind::DurationOrZero
    }

    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
        parsed::<Self, _, _>(value, spot, |text| units::duration(text).map(Self))
    }
}

impl ReadValue for OrNever {
    fn kind() -> ValueKind {
        ValueKind::DurationOrNever
    }

    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
        parsed::<Self, _, _>(value, spot, |text| match text {
            "never" => Ok(Self(None)),
            _ => units::duration(text).map(|duration| Self(Some(duration))),
        })
    }
}

impl ReadValue for Size {
    fn kind() -> ValueKind {
        ValueKind::Size
    }

    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
        parsed::<Self, _, _>(value, spot, |text| units::size(text).map(Self))
    }
}

impl ReadValue for PathBuf {
    fn kind() -> ValueKind {
        ValueKind::Path
    }

    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
        let path = parsed::<Self, _, _>(value, spot, |text| match text {
            "" => Err("the path is empty"),
            _ => Ok(text),
        })?;
        Some(spot.reader.base.join(path))
    }
}
