//! Permitted violations of the rules, each with its reason.

use super::{TidyRule, Violation};

pub(super) struct Exception {
    rule: TidyRule,
    path: &'static str,
    /// For readers of this list; no code uses it.
    #[allow(dead_code, reason = "written for people")]
    reason: &'static str,
}

const EXCEPTIONS: &[Exception] = &[];

/// Removes permitted violations, and adds one for each exception that permits nothing.
pub(super) fn apply(found: Vec<Violation>) -> Vec<Violation> {
    filter(found, EXCEPTIONS)
}

fn filter(found: Vec<Violation>, exceptions: &[Exception]) -> Vec<Violation> {
    let covers = |exception: &Exception, violation: &Violation| {
        exception.rule == violation.rule && exception.path == violation.path
    };
    let idle =
        exceptions.iter().filter(|exception| !found.iter().any(|violation| covers(exception, violation)));
    let idle: Vec<_> = idle.map(idle_violation).collect();
    let excepted = |violation: &Violation| exceptions.iter().any(|exception| covers(exception, violation));
    found.into_iter().filter(|violation| !excepted(violation)).chain(idle).collect()
}

fn idle_violation(exception: &Exception) -> Violation {
    let text = format!("is excepted from the rule {:?}, which it does not break", exception.rule);
    Violation { path: exception.path.to_owned(), line: 0, rule: TidyRule::Exception, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violation(rule: TidyRule, path: &str) -> Violation {
        Violation { path: path.to_owned(), line: 1, rule, text: "x".to_owned() }
    }

    #[test]
    fn an_exception_covers_one_rule_in_one_file() {
        let exceptions = [Exception { rule: TidyRule::FileLength, path: "a.rs", reason: "a table" }];
        let found =
            [(TidyRule::FileLength, "a.rs"), (TidyRule::FirstLine, "a.rs"), (TidyRule::FileLength, "b.rs")];
        let found = found.map(|(rule, path)| violation(rule, path)).to_vec();
        assert_eq!(filter(found.clone(), &exceptions), found[1..]);
    }

    #[test]
    fn an_exception_that_excepts_nothing_is_reported() {
        let exceptions = [Exception { rule: TidyRule::FileLength, path: "a.rs", reason: "a table" }];
        let left = filter(Vec::new(), &exceptions);
        assert_eq!((left.len(), left[0].rule), (1, TidyRule::Exception));
    }
}
