//! Facts: values that plugins publish for each other, prefixed with the name of the writing plugin.
//!
//! A reader of `spf.result` must be able to rely on it being written by the plugin that the operator calls `spf`. So
//! the host prefixes a plugin's facts with its name, as it does for metrics. The prefix `pintle.` is the gateway's own;
//! no plugin can have that name.

use std::collections::BTreeMap;

use super::checks;
use crate::bindings::pintle::plugin::types::HostError;
use crate::budget::Budget;

/// Maximum number of facts of one plugin per session or transaction.
const MAX_FACTS: usize = 256;
const MAX_FACT: usize = 4 << 10;
/// Maximum number of facts read by one call, and the budget charge for each, in octets.
const MAX_KEYS: usize = 1_000;
const KEY_COST: u64 = 32;

type Facts = BTreeMap<String, String>;

/// The full name of this plugin's fact.
pub(super) fn name(judge: &str, key: &str) -> Result<String, HostError> {
    checks::name("a fact's key", key)?;
    Ok(format!("{judge}.{key}"))
}

/// Looks up facts by their full names.
pub(super) fn find(facts: &Facts, keys: &[String]) -> Vec<Option<String>> {
    keys.iter().map(|key| facts.get(key).cloned()).collect()
}

/// Charges for a lookup of this many facts.
pub(super) fn charge(budget: &mut Budget, keys: usize) -> Result<(), HostError> {
    if keys > MAX_KEYS {
        return Err(HostError::Limit(format!("one call reads at most {MAX_KEYS} facts")));
    }
    budget.charge(KEY_COST * keys as u64)
}

/// Checks the limits for adding a fact of this name and value.
pub(super) fn check(facts: &Facts, judge: &str, name: &str, value: &str) -> Result<(), HostError> {
    checks::bounded("a fact", value.len(), MAX_FACT)?;
    if facts.contains_key(name) {
        return Ok(());
    }
    let prefix = format!("{judge}.");
    let from_name = facts.range(prefix.clone()..).map(|(name, _)| name);
    let own = from_name.take_while(|name| name.starts_with(&prefix));
    if own.count() >= MAX_FACTS {
        return Err(HostError::Limit(format!("a plugin has at most {MAX_FACTS} facts")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fact_has_the_name_of_the_plugin_that_wrote_it() {
        assert_eq!(name("dnsbl", "listed").unwrap(), "dnsbl.listed");
        assert_eq!(name("dnsbl", "pintle.client-name").unwrap(), "dnsbl.pintle.client-name");
        assert_eq!(name("dnsbl", "spf.result").unwrap(), "dnsbl.spf.result");
        assert!(name("dnsbl", "").is_err() && name("dnsbl", "two\nlines").is_err());
    }

    #[test]
    fn one_plugin_cannot_use_up_what_others_may_keep() {
        let facts: Facts = (0..MAX_FACTS).map(|n| (format!("a.{n}"), String::new())).collect();
        assert!(check(&facts, "a", "a.more", "").is_err());
        assert!(check(&facts, "a", "a.7", "again").is_ok());
        assert!(check(&facts, "b", "b.first", "").is_ok());
        let found = find(&facts, &["a.7", "7", "b.7"].map(str::to_owned));
        assert_eq!(found, [Some(String::new()), None, None]);
    }
}
