//! The user that the gateway becomes.

use std::fmt;

/// The user that the gateway becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AccountRule {
    /// There is no such user on this system.
    NoSuchUser(String),
    /// There is no such group on this system.
    NoSuchGroup(String),
    /// A user by number, whose group the system does not know.
    NumberWithoutGroup,
    /// A group, and no user.
    GroupWithoutUser,
    /// The user to become is root.
    UserIsRoot,
}

impl fmt::Display for AccountRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchUser(name) => write!(f, "this system has no user {name:?}"),
            Self::NoSuchGroup(name) => write!(f, "this system has no group {name:?}"),
            Self::NumberWithoutGroup => {
                f.write_str("this user has no entry in /etc/passwd, and so no group of its own")
            }
            Self::GroupWithoutUser => f.write_str("a group is given, and no user"),
            Self::UserIsRoot => f.write_str("who becomes root gives nothing up"),
        }
    }
}

impl AccountRule {
    pub(super) fn remedy(&self) -> String {
        match self {
            Self::NoSuchUser(_) | Self::NoSuchGroup(_) => {
                "make it (`useradd --system pintle`), or give its number; only /etc/passwd and /etc/group are looked at"
            }
            Self::NumberWithoutGroup => "give a group too",
            Self::GroupWithoutUser => "give a user too, or neither",
            Self::UserIsRoot => "name a user without privileges, or leave it out",
        }
        .into()
    }
}
