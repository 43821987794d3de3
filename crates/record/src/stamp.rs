//! The serialised form of a time in a record: text that a person can read and that sorts.

use std::borrow::Cow;

use pintle_mail::UnixTime;
use serde::{Deserialize, Deserializer, Serializer};

pub(crate) fn serialize<S: Serializer>(time: &UnixTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time.rfc3339())
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<UnixTime, D::Error> {
    let text = Cow::<'de, str>::deserialize(deserializer)?;
    UnixTime::parse_rfc3339(&text)
        .ok_or_else(|| serde::de::Error::custom("a time looks like 2026-11-22T03:10:28.123Z"))
}
