//! Facts: values that plugins publish for each other, prefixed with the name of the writing plugin.
//!
//! A reader of `spf.result` must be able to rely on it being written by the plugin that the operator calls `spf`. So
//! the host prefixes a plugin's facts with its name, as it does for metrics. Only facts that the core reads have
//! unprefixed names, and writing one requires the grant `auth-results`.

use std::collections::BTreeMap;

use pintle_policy::facts::is_read_by_the_core;

use super::checks::{self, need};
use crate::bindings::pintle::plugin::types::HostError;
use crate::{GrantKind, Grants};

/// Maximum number of facts of one plugin per session or transaction.
const MAX_FACTS: usize = 256;
const MAX_FACT: usize = 4 << 10;

type Facts = BTreeMap<String, String>;

/// The full name of this plugin's fact.
pub(super) fn name(judge: &str, key: String, grants: &Grants) -> Result<String, HostError> {
    checks::name("a fact's key", &key)?;
    let name = if is_read_by_the_core(&key) { key } else { owned(judge, key) };
    if is_read_by_the_core(&name) {
        need(grants, GrantKind::AuthResults)?;
    }
    Ok(name)
}

/// Looks up a fact: the plugin's own first, then any with this full name.
pub(super) fn find(facts: &Facts, judge: &str, key: &str) -> Option<String> {
    let own = facts.get(&owned(judge, key.to_owned()));
    own.or_else(|| facts.get(key)).cloned()
}

/// Checks the limits for adding a fact of this name and value.
pub(super) fn check(facts: &Facts, judge: &str, name: &str, value: &str) -> Result<(), HostError> {
    checks::bounded("a fact", value.len(), MAX_FACT)?;
    let from_name = facts.range(judge.to_owned()..).map(|(name, _)| name);
    let own = from_name.take_while(|name| name.starts_with(judge)).filter(|name| is_own(judge, name));
    if !facts.contains_key(name) && own.count() >= MAX_FACTS {
        return Err(HostError::Limit(format!("a plugin has at most {MAX_FACTS} facts")));
    }
    Ok(())
}

fn owned(judge: &str, key: String) -> String {
    if is_own(judge, &key) { key } else { format!("{judge}.{key}") }
}

fn is_own(judge: &str, name: &str) -> bool {
    name.strip_prefix(judge).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fact_stands_under_the_name_of_who_wrote_it() {
        for (key, name) in [
            ("listed", "dnsbl.listed"),
            ("dnsbl", "dnsbl"),
            ("dnsbl.listed", "dnsbl.listed"),
            ("dnsbl2.listed", "dnsbl.dnsbl2.listed"),
            ("spf", "dnsbl.spf"),
        ] {
            assert_eq!(owned("dnsbl", key.to_owned()), name);
        }
    }

    #[test]
    fn one_plugin_cannot_use_up_what_others_may_keep() {
        let facts: Facts = (0..MAX_FACTS).map(|n| (format!("a.{n}"), String::new())).collect();
        assert!(check(&facts, "a", "a.more", "").is_err());
        assert!(check(&facts, "a", "a.7", "again").is_ok());
        assert!(check(&facts, "b", "b.first", "").is_ok());
        assert!(check(&facts, "", ".first", "").is_ok());
        assert_eq!(find(&facts, "a", "7"), Some(String::new()));
        assert_eq!(find(&facts, "b", "a.7"), Some(String::new()));
        assert_eq!(find(&facts, "b", "7"), None);
    }
}
