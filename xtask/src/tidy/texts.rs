//! Checks of the text of files: first lines, `unsafe`, paths of a developer's machine, and copies that must not differ.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::source::SourceFile;
use super::{TidyRule, Violation};
use crate::run::ChoreError;

/// Every Rust file must begin by saying what it is for.
pub(super) fn first_line(source: &SourceFile) -> Option<Violation> {
    let missing = !source.text.starts_with("//! ");
    let text = "does not begin with `//!` text that says what it is for".to_owned();
    missing.then(|| Violation { path: source.path.clone(), line: 1, rule: TidyRule::FirstLine, text })
}

/// The compiler denies `unsafe`; only the plugin host may allow it, explicitly.
pub(super) fn unsafe_outside(source: &SourceFile) -> Vec<Violation> {
    let lifts = ["allow(", "expect("].map(|lift| format!("{lift}unsafe_code"));
    let may = source.path.starts_with("crates/plugin/");
    let lines = source.code().filter(|(_, line)| !may && lifts.iter().any(|lift| line.contains(lift)));
    let text = "only crate `plugin` may allow unsafe code";
    lines
        .map(|(line, _)| Violation {
            path: source.path.clone(),
            line,
            rule: TidyRule::Unsafe,
            text: text.to_owned(),
        })
        .collect()
}

/// The queue id must have the same name in all log lines, so that all lines about a message can be found.
pub(super) fn log_fields(source: &SourceFile) -> Vec<Violation> {
    let field = |part: &str| {
        part.split('=').next().unwrap_or_default().trim().trim_start_matches(['%', '?']).to_owned()
    };
    let is_other = |part: &str| ["id", "queue"].contains(&field(part).as_str());
    let names_it =
        |fields: &str| fields.split(['"', ')']).next().is_some_and(|fields| fields.split(',').any(is_other));
    // If a macro call is broken into lines, the fields begin on the line after its name.
    let mut opened = false;
    let lines = source.code().filter(|(_, line)| {
        let arguments = line.split_once("tracing::").and_then(|(_, rest)| rest.split_once("!("));
        let arguments = arguments.filter(|(name, _)| LEVELS.contains(name)).map(|(_, rest)| rest);
        let fields = arguments.or(opened.then_some(*line));
        opened = arguments.is_some_and(str::is_empty);
        fields.is_some_and(names_it)
    });
    let violation = |(line, _)| Violation {
        path: source.path.clone(),
        line,
        rule: TidyRule::LogField,
        text: "gives the queue id another name than `queue_id` in a log line".to_owned(),
    };
    lines.map(violation).collect()
}

/// The macros that write log lines.
const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "event"];

/// Conflict markers that git leaves in a merge.
pub(super) fn merge_marks(source: &SourceFile) -> Vec<Violation> {
    let mark = |line: &str| ["<", ">"].iter().any(|sign| line.starts_with(&format!("{} ", sign.repeat(7))));
    let lines = source.text.lines().enumerate().filter(|(_, line)| mark(line));
    let violation = |(at, _)| Violation {
        path: source.path.clone(),
        line: at + 1,
        rule: TidyRule::MergeMark,
        text: "is a conflict marker of an unfinished merge".to_owned(),
    };
    lines.map(violation).collect()
}

/// Paths that exist on one machine only.
pub(super) fn machine_paths(source: &SourceFile) -> Vec<Violation> {
    // In pieces, so that this file does not contain what it looks for.
    let roots = ["root", "work", "Users", "home"].map(|folder| format!("/{folder}/"));
    let lines = source.text.lines().enumerate();
    let broken = lines.filter_map(|(at, line)| Some((at + 1, roots.iter().find(|root| names(line, root))?)));
    broken
        .map(|(line, root)| Violation {
            path: source.path.clone(),
            line,
            rule: TidyRule::MachinePath,
            text: format!("names a path below {root}, which other machines do not have"),
        })
        .collect()
}

/// Whether the line contains an absolute path below `root`, rather than a longer path or URL with the same middle part.
fn names(line: &str, root: &str) -> bool {
    line.match_indices(root).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && !"/.-_~}$*".contains(c))
    })
}

/// The SDK must work from its folder alone, on systems without symbolic links and as a published crate, so it has a copy of
/// the contract; this check keeps the copy equal.
pub(super) fn copies() -> Result<Vec<Violation>, ChoreError> {
    let original = wit_files("wit")?;
    let copy = wit_files("crates/plugin-sdk/wit/deps/plugin")?;
    let names = original.keys().chain(copy.keys().filter(|name| !original.contains_key(*name)));
    let differs = names.filter(|name| original.get(*name) != copy.get(*name));
    Ok(differs.map(|name| copy_violation(name)).collect())
}

fn copy_violation(name: &str) -> Violation {
    let path = format!("crates/plugin-sdk/wit/deps/plugin/{name}");
    let text = format!("differs from wit/{name}, the original; copy that one over it");
    Violation { path, line: 0, rule: TidyRule::Copy, text }
}

/// The WIT files directly in a folder, by name.
fn wit_files(folder: &str) -> Result<BTreeMap<String, String>, ChoreError> {
    let unreadable = |path: &Path, cause| ChoreError::Unreadable { path: path.display().to_string(), cause };
    let folder = pintle_guest_build::repository().join(folder);
    let entries = fs::read_dir(&folder).map_err(|cause| unreadable(&folder, cause))?;
    let paths = entries.flatten().map(|entry| entry.path());
    let wit = paths.filter(|path| path.extension().is_some_and(|extension| extension == "wit"));
    wit.map(|path| {
        let text = fs::read_to_string(&path).map_err(|cause| unreadable(&path, cause))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok((name, text))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> SourceFile {
        SourceFile { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn a_file_opens_with_its_purpose() {
        assert_eq!(first_line(&source("a.rs", "//! For x.\n")), None);
        assert!(first_line(&source("a.rs", "use x;\n//! Late.\n")).is_some());
    }

    #[test]
    fn unsafe_code_is_for_the_plugin_host() {
        let text = format!("//! x\n#![{}(unsafe_code)]\n", "allow");
        assert_eq!(unsafe_outside(&source("crates/plugin/src/lib.rs", &text)), []);
        assert_eq!(unsafe_outside(&source("crates/spool/src/lib.rs", &text))[0].line, 2);
    }

    #[test]
    fn paths_of_one_machine_are_found_and_longer_ones_left_alone() {
        let home = format!("/{}/ann/mail", "home");
        assert_eq!(machine_paths(&source("a.md", &format!("x\nsee {home}\n")))[0].line, 2);
        for fine in [format!("https://example.com{home}"), format!("$DIR{home}"), format!("a{home}")] {
            assert_eq!(machine_paths(&source("a.md", &fine)), [], "{fine}");
        }
    }

    #[test]
    fn the_queue_id_has_one_name_in_the_log() {
        let line =
            |fields: &str| format!("//! x\nfn f() {{\n    {}!({fields}, \"x\");\n}}\n", "tracing::info");
        for bad in ["%id", "id = %id", "client, id = 1", "queue = %it"] {
            assert_eq!(log_fields(&source("a.rs", &line(bad)))[0].line, 3, "{bad}");
        }
        let broken = format!("//! x\n{}!(\n    %id, what,\n    \"x\"\n);\n", "tracing::error");
        assert_eq!(log_fields(&source("a.rs", &broken))[0].line, 3);
        for good in ["queue_id = %id", "session = %id, client", "%error"] {
            assert_eq!(log_fields(&source("a.rs", &line(good))), [], "{good}");
        }
    }

    #[test]
    fn marks_of_a_merge_are_found() {
        let text = format!("a\n{} HEAD\nb\n", "<".repeat(7));
        assert_eq!(merge_marks(&source("a.toml", &text))[0].line, 2);
        assert_eq!(merge_marks(&source("a.md", "a > b\n=======\n")), []);
    }

    #[test]
    fn the_sdk_carries_the_contract_as_it_is() {
        assert_eq!(copies().unwrap(), []);
        assert!(copy_violation("plugin.wit").to_string().contains("wit/plugin.wit"));
    }

    /// The page says of which day the public suffix list is, so a new version of the crate needs a new date there.
    #[test]
    fn the_page_names_the_public_suffix_list_that_is_built_in() {
        let read = |path: &str| fs::read_to_string(pintle_guest_build::repository().join(path)).unwrap();
        let lock = read("Cargo.lock");
        let version =
            lock.split("name = \"psl\"\nversion = \"").nth(1).and_then(|rest| rest.split('"').next());
        let named = format!("(crate psl {})", version.unwrap());
        assert!(read("docs/plugins.md").contains(&named), "docs/plugins.md does not say {named}");
    }
}
