//! The types of values that may be tables: settings of plugins, limits by quarantine, failure policies by hook.

use std::collections::BTreeMap;

use pintle_plugin::{FailurePolicies, FailurePolicy, Grant, GrantKind, GrantMistake, Places};
use pintle_policy::Hook;
use toml::de::{DeTable, DeValue};

use crate::reader::{ReadValue, Spot, Value, nearest, parsed, wrong_type};
use crate::value_kind::ValueKind;
use crate::{Cause, DeliveryRule, places};

/// Any table, converted to JSON, with the lines of its values.
#[derive(Debug, Clone, Default)]
pub(crate) struct JsonTable(pub(crate) serde_json::Value, pub(crate) Places);

impl ReadValue for JsonTable {
    fn kind() -> ValueKind {
        ValueKind::Table
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

/// One value for all quarantines, or a table of values by the name of the quarantine.
#[derive(Debug, Clone)]
pub(crate) struct ByQuarantine<T> {
    /// The value for quarantines without one of their own; none if it is not given.
    pub(crate) default: Option<T>,
    /// The values of single quarantines, by name.
    pub(crate) names: BTreeMap<String, T>,
}

impl<T> Default for ByQuarantine<T> {
    fn default() -> Self {
        Self { default: None, names: BTreeMap::new() }
    }
}

impl<T: ReadValue> ReadValue for ByQuarantine<T> {
    fn kind() -> ValueKind {
        ValueKind::ByQuarantine(Box::new(T::kind()))
    }

    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Table(table) => Some(by_name(table, spot)),
            _ => T::read(value, spot).map(|all| Self { default: Some(all), ..Self::default() }),
        }
    }
}

fn by_name<T: ReadValue>(table: &DeTable<'_>, spot: &Spot<'_>) -> ByQuarantine<T> {
    let mut given = ByQuarantine::default();
    for (key, value) in table {
        let name: &str = key.get_ref();
        let Some(read) = T::read(value, &spot.within(name, value.span())) else {
            continue;
        };
        if name == "default" {
            given.default = Some(read);
        } else {
            given.names.insert(name.to_owned(), read);
        }
    }
    given
}

/// The failure policies of a plugin: one word for all hooks, or a table by hook.
#[derive(Debug, Clone, Default)]
pub(crate) struct OnFault(pub(crate) FailurePolicies);

impl ReadValue for OnFault {
    fn kind() -> ValueKind {
        ValueKind::OnFault
    }

    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::String(_) => FailurePolicy::read(value, spot).map(|policy| Self(policy.into())),
            DeValue::Table(table) => Some(Self(by_hook(table, spot))),
            _ => {
                wrong_type::<Self>(value, spot);
                None
            }
        }
    }
}

fn by_hook(table: &DeTable<'_>, spot: &Spot<'_>) -> FailurePolicies {
    let mut policies = FailurePolicies::default();
    for (key, value) in table {
        let name: &str = key.get_ref();
        let policy = || FailurePolicy::read(value, &spot.within(name, value.span())).unwrap_or_default();
        if name == "default" {
            policies.default = policy();
        } else if let Some(&hook) = Hook::ALL.iter().find(|hook| hook.name() == name) {
            let policy = policy();
            if hook == Hook::Deliver && policy == FailurePolicy::Reject {
                spot.within(name, value.span()).warn(DeliveryRule::RefusedAfterAcceptance);
            }
            policies.hooks.insert(hook, policy);
        } else {
            let known: Vec<_> = Hook::ALL.iter().map(|hook| hook.name()).chain(["default"]).collect();
            spot.within(name, key.span())
                .complain(Cause::UnknownKey { nearest: nearest(name, &known), known });
        }
    }
    policies
}

impl ReadValue for Grant {
    fn kind() -> ValueKind {
        GrantKind::kind()
    }

    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
        match value.get_ref().as_str() {
            Some(text) if text.contains(':') => parsed::<Self, _, _>(value, spot, |text| {
                text.parse().map_err(|error: GrantMistake| error.to_string())
            }),
            _ => GrantKind::read(value, spot).map(Self::from),
        }
    }
}
