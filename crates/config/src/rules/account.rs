//! Rules for the user that the gateway runs as.

use std::fmt;

/// A rule for the user that the gateway runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AccountRule {
    /// There is no such user on this system.
    NoSuchUser(String),
    /// There is no such group on this system.
    NoSuchGroup(String),
    /// A user given by number, and the system does not know its group.
    NumberWithoutGroup,
    /// A group without a user.
    GroupWithoutUser,
    /// The user is root.
    UserIsRoot,
}

impl fmt::Display for AccountRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchUser(name) => write!(f, "this system has no user {name:?}"),
            Self::NoSuchGroup(name) => write!(f, "this system has no group {name:?}"),
            Self::NumberWithoutGroup => {
                f.write_str("this user has no entry in /etc/passwd, so its group is not known")
            }
            Self::GroupWithoutUser => f.write_str("a group is given without a user"),
            Self::UserIsRoot => f.write_str("the user is root, so no privileges would be dropped"),
        }
    }
}

impl AccountRule {
    pub(super) fn remedy(&self) -> String {
        match self {
            Self::NoSuchUser(_) | Self::NoSuchGroup(_) => {
                "create it (`useradd --system pintle`), or give its number; only /etc/passwd and /etc/group are read"
            }
            Self::NumberWithoutGroup => "add group",
            Self::GroupWithoutUser => "add user, or remove group",
            Self::UserIsRoot => "choose a user without privileges, or remove the key",
        }
        .into()
    }
}
