//! Session ids and queue ids. Every log line has one of them.
//!
//! Both are ULIDs: they sort by time, need no coordination between gateways, and hold no character that needs quoting.
//! This crate has no clock and no source of random numbers, so the caller supplies both.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use ulid::Ulid;

use crate::UnixTime;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Ulid);

        impl $name {
            /// An id made at this moment; `random` makes it unique (80 bits of it are used).
            #[must_use]
            pub fn new(now: UnixTime, random: u128) -> Self {
                Self(Ulid::from_parts(u64::try_from(now.millis()).unwrap_or(0), random))
            }

            /// The 16 octets of the id, for stores that want a compact key.
            #[must_use]
            pub fn to_bytes(self) -> [u8; 16] {
                self.0.to_bytes()
            }

            /// The id that these octets encode, as [`Self::to_bytes`] gave them.
            #[must_use]
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Ulid::from_bytes(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Ulid::from_string(text).map(Self).map_err(|_| IdError)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id! {
    /// Names a message, from MAIL to its last disposition.
    QueueId
}

id! {
    /// Names one SMTP session.
    SessionId
}

/// The text is not an id, which has 26 characters of Crockford's base 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdError;

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id has 26 letters and digits")
    }
}

impl std::error::Error for IdError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_text_and_octets_and_sort_by_time() {
        let early = QueueId::new(UnixTime::from_millis(1_000), 7);
        let late = QueueId::new(UnixTime::from_millis(2_000), 3);
        assert!(early < late);
        assert_eq!(early.to_string().parse(), Ok(early));
        assert_eq!(QueueId::from_bytes(late.to_bytes()), late);
        assert_eq!("nonsense".parse::<QueueId>(), Err(IdError));
    }
}
