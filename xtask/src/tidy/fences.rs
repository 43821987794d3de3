//! Allowed dependencies between crates: the table of docs/architecture.md as data, compared with the manifests.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::source::SourceFile;
use super::{TidyRule, Violation};
use crate::run::{ChoreError, cargo, output};

/// The packages of ours that each of our packages may depend on, without the prefix `pintle-`. A package that is not
/// listed here has no place in the architecture yet. The tests of any package may use `testkit` and `guest-build`,
/// other code may not. A test below compares this table with the page.
#[rustfmt::skip]
const FENCES: &[(&str, &[&str])] = &[
    ("mail",        &[]),
    ("record",      &["mail"]),
    ("smtp",        &["mail"]),
    ("queue",       &["mail"]),
    ("policy",      &["mail"]),
    ("spool",       &["mail"]),
    ("dns",         &[]),
    ("tls",         &[]),
    ("sender-auth", &["mail", "dns"]),
    ("plugin-bindings", &[]),
    ("plugin",      &["mail", "policy", "dns", "sender-auth", "plugin-bindings"]),
    ("inbound",     &["mail", "record", "smtp", "policy", "spool", "tls", "sender-auth"]),
    ("outbound",    &["mail", "record", "smtp", "policy", "queue", "spool", "dns", "tls", "sender-auth"]),
    ("admin",       &["mail"]),
    ("config",      &["mail", "smtp", "policy", "spool", "dns", "tls", "sender-auth", "plugin", "inbound", "outbound",
                      "admin"]),
    ("pintle",      &["mail", "record", "policy", "spool", "dns", "tls", "sender-auth", "plugin", "inbound", "outbound",
                      "admin", "config", "guest-build"]),
    ("plugin-sdk",  &[]),
    ("guest-build", &[]),
    ("xtask",       &["guest-build"]),
    ("testkit",     &["dns"]),
    ("e2e",         &["mail", "testkit"]),
];

/// External crates that only some of our packages may use; a trailing `*` stands for any rest.
const FENCED_OUTSIDE: &[(&str, &[&str])] = &[
    ("wasmtime*", &["plugin", "plugin-bindings"]),
    ("hickory-*", &["dns", "testkit"]),
    ("rusqlite", &["spool"]),
    ("mail-auth", &["sender-auth"]),
    ("mail-parser", &["mail", "sender-auth", "outbound"]),
    ("psl", &["mail"]),
    ("unicode-security", &["mail"]),
    ("rustls*", &["tls", "dns", "inbound", "outbound", "testkit", "pintle", "e2e"]),
    ("tokio-rustls", &["tls", "inbound", "outbound", "testkit", "pintle", "e2e"]),
    ("boon", &["plugin"]),
    ("clap", &["pintle", "xtask"]),
    ("toml", &["config"]),
];

/// Crates without I/O, clock and runtime.
const PURE: &[&str] = &["mail", "record", "smtp", "queue", "policy"];

/// External crates that pure packages must not use.
const IMPURE: &[&str] = &["tokio*", "axum", "hyper*", "socket2", "notify*", "tracing*", "metrics*", "rustix"];

/// Calls that a pure crate must not make, since time and bytes are parameters there.
const IMPURE_CALLS: &[&str] =
    &["Instant::now", "SystemTime::now", "Timestamp::now", "Zoned::now", "std::net::Tcp", "std::fs::"];

/// The output of `cargo metadata`, as far as it is needed here.
#[derive(Debug, Deserialize)]
pub(super) struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    manifest_path: String,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    /// "dev", "build", or none for a normal one.
    kind: Option<String>,
}

pub(super) fn metadata() -> Result<Metadata, ChoreError> {
    let arguments = ["metadata", "--format-version", "1", "--no-deps"];
    let json = output(&mut cargo(&arguments))?;
    serde_json::from_slice(&json)
        .map_err(|cause| ChoreError::Unexpected { command: format!("cargo {}", arguments.join(" ")), cause })
}

/// Dependencies that the table does not allow.
pub(super) fn violations(metadata: &Metadata) -> Vec<Violation> {
    let fences: BTreeMap<_, _> = FENCES.iter().copied().collect();
    let ours: Vec<_> = metadata.packages.iter().map(|package| short(&package.name)).collect();
    let crossing = |package: &Package| -> Vec<String> {
        let Some(allowed) = fences.get(short(&package.name)) else {
            return vec!["is not in the table of fences (FENCES in xtask): give it a place".to_owned()];
        };
        let judge = |dependency: &Dependency| judge(short(&package.name), dependency, allowed, &ours);
        package.dependencies.iter().filter_map(judge).collect()
    };
    let all = metadata.packages.iter().flat_map(|package| {
        crossing(package).into_iter().map(|text| Violation {
            path: manifest(package),
            line: 0,
            rule: TidyRule::Fence,
            text,
        })
    });
    all.collect()
}

/// What is wrong with one dependency of the package with this name; none if it is allowed.
fn judge(name: &str, dependency: &Dependency, allowed: &[&str], ours: &[&str]) -> Option<String> {
    let on = short(&dependency.name);
    if ours.contains(&on) {
        let for_tests = dependency.kind.as_deref() == Some("dev") && ["testkit", "guest-build"].contains(&on);
        return (!for_tests && !allowed.contains(&on)).then(|| format!("`{name}` must not know `{on}`"));
    }
    let fenced = FENCED_OUTSIDE.iter().find(|(pattern, _)| matches(pattern, &dependency.name));
    if let Some((_, few)) = fenced.filter(|(_, few)| !few.contains(&name)) {
        let few = few.join(", ");
        return Some(format!("`{name}` must not know `{}`, which is for {few}", dependency.name));
    }
    let impure = dependency.kind.as_deref() != Some("dev")
        && PURE.contains(&name)
        && IMPURE.iter().any(|pattern| matches(pattern, &dependency.name));
    impure.then(|| {
        format!("`{name}` is without I/O, clock and runtime, so it must not know `{}`", dependency.name)
    })
}

/// Calls in a pure crate that it must not make.
pub(super) fn knowledge(source: &SourceFile) -> Vec<Violation> {
    let is_pure = PURE.iter().any(|name| source.path.starts_with(&format!("crates/{name}/src/")));
    if !is_pure || source.is_test() {
        return Vec::new();
    }
    let broken = source.code().filter_map(|(line, code)| {
        let call = IMPURE_CALLS.iter().find(|call| code.contains(**call))?;
        let text = format!("`{call}` in a crate without I/O and clock: take it as a parameter");
        Some(Violation { path: source.path.clone(), line, rule: TidyRule::Knowledge, text })
    });
    broken.collect()
}

fn short(name: &str) -> &str {
    name.strip_prefix("pintle-").unwrap_or(name)
}

fn matches(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |start| name.starts_with(start))
}

fn manifest(package: &Package) -> String {
    let root = format!("{}/", pintle_guest_build::repository().display());
    package.manifest_path.trim_start_matches(&root).to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn dependency(name: &str, kind: Option<&str>) -> Dependency {
        Dependency { name: name.to_owned(), kind: kind.map(str::to_owned) }
    }

    fn metadata_of(name: &str, dependencies: Vec<Dependency>) -> Metadata {
        let package = |name: &str, dependencies| Package {
            name: name.to_owned(),
            manifest_path: format!("crates/{name}/Cargo.toml"),
            dependencies,
        };
        let others = ["pintle-mail", "pintle-spool", "pintle-testkit"].map(|name| package(name, Vec::new()));
        let mut packages = others.into_iter().filter(|other| other.name != name).collect::<Vec<_>>();
        packages.push(package(name, dependencies));
        Metadata { packages }
    }

    fn texts(name: &str, on: &str, kind: Option<&str>) -> Vec<String> {
        let found = violations(&metadata_of(name, vec![dependency(on, kind)]));
        found.into_iter().map(|violation| violation.text).collect()
    }

    /// Rows of docs/architecture.md look like "| `spool` | `mail` | what it must never know |".
    fn drawn() -> BTreeMap<String, Vec<String>> {
        let page = pintle_guest_build::repository().join("docs/architecture.md");
        let text = std::fs::read_to_string(page).unwrap();
        let words =
            |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
        let rows = text.lines().filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split(" | ");
            let (names, allowed) = (cells.next()?, cells.next()?);
            cells.next()?;
            Some((words(&format!("`{names}")), words(allowed)))
        });
        let each = |(names, allowed): (Vec<String>, Vec<String>)| {
            names.into_iter().map(move |name| (name, allowed.clone()))
        };
        rows.flat_map(each).collect()
    }

    #[test]
    fn the_page_draws_the_same_fences() {
        let drawn = drawn();
        let drawn: BTreeMap<&str, BTreeSet<&str>> = drawn
            .iter()
            .map(|(name, allowed)| (name.as_str(), allowed.iter().map(String::as_str).collect()))
            .collect();
        let kept: BTreeMap<&str, BTreeSet<&str>> =
            FENCES.iter().map(|(name, allowed)| (*name, allowed.iter().copied().collect())).collect();
        assert_eq!(drawn, kept, "docs/architecture.md and FENCES differ");
    }

    #[test]
    fn a_crate_depends_only_on_what_its_row_allows() {
        assert_eq!(texts("pintle-smtp", "pintle-mail", None), Vec::<String>::new());
        assert_eq!(texts("pintle-smtp", "pintle-spool", None), ["`smtp` must not know `spool`"]);
        assert_eq!(texts("pintle-smtp", "pintle-spool", Some("dev")), ["`smtp` must not know `spool`"]);
    }

    #[test]
    fn the_testkit_is_for_tests() {
        assert_eq!(texts("pintle-smtp", "pintle-testkit", Some("dev")), Vec::<String>::new());
        assert_eq!(texts("pintle-smtp", "pintle-testkit", None), ["`smtp` must not know `testkit`"]);
    }

    #[test]
    fn outside_crates_are_fenced_too() {
        assert_eq!(texts("pintle-plugin", "wasmtime-wasi", None), Vec::<String>::new());
        assert_eq!(texts("pintle-inbound", "wasmtime-wasi", None).len(), 1);
        assert_eq!(texts("pintle-smtp", "tokio", None).len(), 1);
        assert_eq!(texts("pintle-smtp", "tokio", Some("dev")), Vec::<String>::new());
        assert_eq!(texts("pintle-spool", "tokio", None), Vec::<String>::new());
    }

    #[test]
    fn a_package_without_a_row_is_reported() {
        assert!(texts("pintle-unheard-of", "serde", None)[0].contains("give it a place"));
    }

    #[test]
    fn a_clock_in_a_pure_crate_is_found() {
        let text = "//! x\nlet now = Instant::now();\n#[cfg(test)]\nlet now = Instant::now();\n".to_owned();
        let path = "crates/queue/src/lib.rs".to_owned();
        let found = knowledge(&SourceFile { path, text: text.clone() });
        assert_eq!(found.iter().map(|violation| violation.line).collect::<Vec<_>>(), [2]);
        assert_eq!(knowledge(&SourceFile { path: "crates/spool/src/lib.rs".to_owned(), text }), []);
    }
}
