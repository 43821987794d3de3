//! Looks up the user and groups that the gateway switches to after a start as root.
//!
//! It reads `/etc/passwd` and `/etc/group` as files. The C library would load NSS modules (LDAP and others) into a
//! process that is still root. The user of a service is in these files, or the operator gives its number.

use std::fs;

/// The user and groups that the gateway runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunAs {
    /// The user as written in the configuration: a name or a number.
    pub user: String,
    /// The user id (uid), also if the configuration gives a name.
    pub uid: u32,
    /// The primary group id.
    pub gid: u32,
    /// The supplementary group ids, from `/etc/group`.
    pub groups: Vec<u32>,
}

/// Why the user or the group cannot be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unknown {
    User,
    Group,
    /// The user is given by a number without an entry in `/etc/passwd`, so its primary group is unknown.
    GroupOfNumber,
}

impl RunAs {
    /// Looks up the user, and the group if one is given, in `/etc/passwd` and `/etc/group`.
    pub(crate) fn find(user: &str, group: Option<&str>) -> Result<Self, Unknown> {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self::among(user, group, &read("/etc/passwd"), &read("/etc/group"))
    }

    fn among(user: &str, group: Option<&str>, passwd: &str, groups: &str) -> Result<Self, Unknown> {
        let entry = passwd.lines().filter_map(account).find(|(name, uid, _)| is(user, name, *uid));
        let uid = entry.map(|(_, uid, _)| uid).or_else(|| user.parse().ok()).ok_or(Unknown::User)?;
        let gid = match group {
            Some(group) => group_id(group, groups).ok_or(Unknown::Group)?,
            None => entry.map(|(.., gid)| gid).ok_or(Unknown::GroupOfNumber)?,
        };
        let name = entry.map_or(user, |(name, ..)| name);
        Ok(Self { user: user.to_owned(), uid, gid, groups: memberships(name, groups) })
    }
}

/// Name, uid and gid of a line of `/etc/passwd`: `name:password:uid:gid:…`
fn account(line: &str) -> Option<(&str, u32, u32)> {
    let mut parts = line.split(':');
    let (name, _, uid, gid) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    Some((name, uid.parse().ok()?, gid.parse().ok()?))
}

/// Name, gid and members of a line of `/etc/group`: `name:password:gid:member,member`
fn listed(line: &str) -> Option<(&str, u32, &str)> {
    let mut parts = line.split(':');
    let (name, _, gid, members) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    Some((name, gid.parse().ok()?, members))
}

fn is(wanted: &str, name: &str, id: u32) -> bool {
    wanted == name || wanted.parse() == Ok(id)
}

fn group_id(group: &str, groups: &str) -> Option<u32> {
    let found = groups.lines().filter_map(listed).find(|(name, gid, _)| is(group, name, *gid));
    found.map(|(_, gid, _)| gid).or_else(|| group.parse().ok())
}

fn memberships(user: &str, groups: &str) -> Vec<u32> {
    let is_member = |members: &str| members.trim().split(',').any(|member| member == user);
    let of_user = groups.lines().filter_map(listed).filter(|(.., members)| is_member(members));
    of_user.map(|(_, gid, _)| gid).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nbroken\npintle:x:990:980::/var/lib/pintle:/usr/sbin/nologin\n";
    const GROUPS: &str = "root:x:0:\npintle:x:980:\nssl-cert:x:110:postgres,pintle\nmail:x:8:pintler\n";

    #[test]
    fn a_user_has_its_groups() {
        let found = |user, group| RunAs::among(user, group, PASSWD, GROUPS);
        let pintle = RunAs { user: "pintle".to_owned(), uid: 990, gid: 980, groups: vec![110] };
        assert_eq!(found("pintle", None), Ok(pintle.clone()));
        assert_eq!(found("990", None), Ok(RunAs { user: "990".to_owned(), ..pintle.clone() }));
        assert_eq!(found("pintle", Some("mail")), Ok(RunAs { gid: 8, ..pintle.clone() }));
        assert_eq!(found("pintle", Some("77")), Ok(RunAs { gid: 77, ..pintle }));
        assert_eq!(
            found("4711", Some("8")).map(|found| (found.uid, found.gid, found.groups)),
            Ok((4711, 8, vec![]))
        );
    }

    #[test]
    fn who_is_unknown_is_told() {
        let found = |user, group| RunAs::among(user, group, PASSWD, GROUPS).unwrap_err();
        assert_eq!(found("pintel", None), Unknown::User);
        assert_eq!(found("pintle", Some("mial")), Unknown::Group);
        assert_eq!(found("4711", None), Unknown::GroupOfNumber);
    }
}
