//! Checks of the plugin contract: frozen versions have the sums that `wit/frozen/SHA256SUMS` lists, `wit/plugin.wit` is
//! compatible with each of them, and the preview parses against it.

use std::fs;

use super::{TidyRule, Violation};
use crate::contract::elements::WitPackage;
use crate::contract::frozen::{self, CONTRACT_FILE, FrozenFolder, RELEASED, SUMS};
use crate::contract::{CONTRACT, FROZEN, PREVIEW, growth};
use crate::run::ChoreError;

/// The name of the contract's package without its version.
const PACKAGE: (&str, &str) = ("pintle", "plugin");
/// The package of what no release serves.
const PREVIEW_PACKAGE: (&str, &str) = ("pintle", "preview");

/// The violations in the repository's contract.
pub(super) fn violations() -> Result<Vec<Violation>, ChoreError> {
    let root = pintle_guest_build::repository();
    let read = |path: &str| {
        let path = root.join(path);
        fs::read_to_string(&path).map_err(|cause| frozen::unreadable(&path, cause))
    };
    let folder = FrozenFolder::read(&root.join(FROZEN))?;
    Ok(judge(&read(CONTRACT)?, &read(PREVIEW)?, &folder))
}

fn judge(contract: &str, preview: &str, folder: &FrozenFolder) -> Vec<Violation> {
    let mut found = sum_violations(folder);
    match parse(CONTRACT, PACKAGE, WitPackage::parse(CONTRACT, contract)) {
        Ok(package) => {
            found.extend(version_violations(contract, &package, folder));
            let preview = package.parse_dependent(PREVIEW, preview);
            found.extend(parse(PREVIEW, PREVIEW_PACKAGE, preview).err());
        }
        Err(violation) => found.push(violation),
    }
    found
}

/// The package, if it was parsed and has this name.
fn parse(
    path: &str,
    name: (&str, &str),
    parsed: Result<WitPackage, String>,
) -> Result<WitPackage, Violation> {
    let package = parsed.map_err(|fault| violation(path, 0, format!("does not parse: {fault}")))?;
    let own = (package.name().namespace.as_str(), package.name().name.as_str());
    if own == name && !package.version().is_empty() {
        return Ok(package);
    }
    let text = format!("is the package `{}`, not `{}:{}@VERSION`", package.name(), name.0, name.1);
    Err(violation(path, 0, text))
}

/// Frozen files that are not as listed, listed files that are gone, and files that are not listed.
fn sum_violations(folder: &FrozenFolder) -> Vec<Violation> {
    let sums = format!("{FROZEN}/{SUMS}");
    let files = folder.files.iter().filter_map(|(path, octets)| {
        let text = match folder.sums.get(path) {
            None => format!("is not listed in {sums}: `cargo xtask wit-freeze VERSION` freezes a version"),
            Some(sum) if *sum != frozen::sum(octets) => {
                format!("does not have its sum in {sums}. {}", remedy(version_of(path), folder))
            }
            Some(_) => return None,
        };
        Some(violation(&format!("{FROZEN}/{path}"), 0, text))
    });
    let gone = folder.sums.keys().filter(|path| !folder.files.contains_key(*path));
    let gone = gone.map(|path| {
        violation(
            &sums,
            0,
            format!("lists `{path}`, which does not exist. {}", remedy(version_of(path), folder)),
        )
    });
    let lost = folder
        .released
        .iter()
        .filter(|version| !folder.files.contains_key(&format!("{version}/{CONTRACT_FILE}")));
    let lost = lost.map(|version| {
        let text =
            format!("lists {version}, and {FROZEN}/{version}/{CONTRACT_FILE} does not exist: restore it");
        violation(&format!("{FROZEN}/{RELEASED}"), 0, text)
    });
    files.chain(gone).chain(lost).collect()
}

/// What breaks compatibility with a frozen version, and a candidate that is not the contract.
fn version_violations(contract: &str, package: &WitPackage, folder: &FrozenFolder) -> Vec<Violation> {
    let texts = folder.files.iter().filter(|(path, _)| path.ends_with(CONTRACT_FILE));
    let each = texts.flat_map(|(path, octets)| {
        let path = format!("{FROZEN}/{path}");
        let text = String::from_utf8_lossy(octets);
        match parse(&path, PACKAGE, WitPackage::parse(&path, &text)) {
            Err(violation) => vec![violation],
            Ok(frozen) => frozen_violations(contract, package, &path, (&frozen, &text), folder),
        }
    });
    each.collect()
}

fn frozen_violations(
    contract: &str,
    package: &WitPackage,
    path: &str,
    (frozen, text): (&WitPackage, &str),
    folder: &FrozenFolder,
) -> Vec<Violation> {
    let version = frozen.version();
    let mut found = Vec::new();
    if path != format!("{FROZEN}/{version}/{CONTRACT_FILE}") {
        found.push(violation(path, 0, format!("is version {version}, which another folder is for")));
    }
    if growth::same_line(&version, &package.version()) {
        let changes = growth::incompatible_changes(frozen, package);
        found.extend(changes.into_iter().map(|change| violation(CONTRACT, change.line, change.text)));
    }
    if version == package.version() && !folder.released.contains(&version) && text != contract {
        let text =
            format!("differs from {path}, which freezes the same version. {}", remedy(&version, folder));
        found.push(violation(CONTRACT, 0, text));
    }
    found
}

/// What to do about a change of a frozen version.
fn remedy(version: &str, folder: &FrozenFolder) -> String {
    if folder.released.contains(version) {
        format!("{version} has been released, and a released contract never changes: restore the file")
    } else {
        format!(
            "No release has served {version}: it may change for a reason, which is a decision (docs/decisions). Then \
             `cargo xtask wit-freeze {version} --replace-candidate` freezes {CONTRACT} again"
        )
    }
}

/// The version that a path in the folder belongs to.
fn version_of(path: &str) -> &str {
    path.split('/').next().unwrap_or_default()
}

fn violation(path: &str, line: usize, text: String) -> Violation {
    Violation { path: path.to_owned(), line, rule: TidyRule::Contract, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "package pintle:plugin@0.1.0;
interface types {
  record reply { code: u16, text: string }
  variant verdict { next, reject(option<reply>) }
  enum level { info, warn }
}
interface kv {
  use types.{reply};
  set: func(key: string, value: list<u8>) -> result<_, string>;
}
interface plugin {
  describe: func() -> string;
}
interface on-mail {
  use types.{verdict};
  handle: func() -> verdict;
}
world base {
  import types;
  export plugin;
}
world host-side {
  include base;
  import kv;
  export on-mail;
}
";
    const PREVIEW_TEXT: &str = "package pintle:preview@0.0.1;
interface http {
  use pintle:plugin/types@0.1.0.{reply};
  fetch: func() -> reply;
}
";

    fn frozen(texts: &[(&str, &str)]) -> FrozenFolder {
        let files = texts.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec()));
        let sums = texts.iter().map(|(path, text)| ((*path).to_owned(), frozen::sum(text.as_bytes())));
        FrozenFolder { files: files.collect(), sums: sums.collect(), ..FrozenFolder::default() }
    }

    fn released(text: &str) -> FrozenFolder {
        let released = std::iter::once("0.1.0".to_owned()).collect();
        FrozenFolder { released, ..frozen(&[("0.1.0/plugin.wit", text)]) }
    }

    fn texts(found: &[Violation]) -> Vec<String> {
        found.iter().map(ToString::to_string).collect()
    }

    /// What the check says of the first contract with this replacement, as version 0.1.1 after the release of 0.1.0.
    fn after(from: &str, to: &str) -> Vec<String> {
        assert!(FIRST.contains(from), "{from}");
        let later = FIRST.replace(from, to).replacen("0.1.0", "0.1.1", 1);
        texts(&judge(&later, &PREVIEW_TEXT.replace("0.1.0", "0.1.1"), &released(FIRST)))
    }

    #[track_caller]
    fn assert_one(found: &[String], parts: &[&str]) {
        let fits = found.len() == 1 && parts.iter().all(|part| found[0].contains(part));
        assert!(fits, "{parts:?} is not all of {found:#?}");
    }

    #[test]
    fn the_repository_s_contract_keeps_its_promises() {
        assert_eq!(texts(&violations().unwrap()), Vec::<String>::new());
    }

    #[test]
    fn a_contract_that_is_as_frozen_is_fine() {
        assert_eq!(judge(FIRST, PREVIEW_TEXT, &released(FIRST)), []);
        assert_eq!(judge(FIRST, PREVIEW_TEXT, &frozen(&[("0.1.0/plugin.wit", FIRST)])), []);
    }

    #[test]
    fn types_keep_their_structure() {
        for (from, to) in [
            ("code: u16", "code: u32"),
            ("code: u16, text: string", "text: string, code: u16"),
            ("code: u16,", "code: u16, more: bool,"),
            ("next, reject", "next, hold, reject"),
            ("reject(option<reply>)", "refuse(option<reply>)"),
            ("reject(option<reply>)", "reject(reply)"),
            ("info, warn", "info, warn, error"),
            ("info, warn", "warn, info"),
        ] {
            assert_one(&after(from, to), &["wit/plugin.wit:", "is not as in 0.1.0", "interface `types`"]);
        }
        let moved = after("  enum level { info, warn }\n", "\n");
        assert_one(&moved, &["wit/plugin.wit: ", "interface `types`: `level` of 0.1.0 is gone"]);
    }

    #[test]
    fn functions_keep_their_signatures() {
        let set = "set: func(key: string, value: list<u8>) -> result<_, string>";
        for to in [
            "set: func(name: string, value: list<u8>) -> result<_, string>",
            "set: func(key: string, value: string) -> result<_, string>",
            "set: func(key: string, value: list<u8>, ttl: u32) -> result<_, string>",
            "set: func(key: string, value: list<u8>) -> result<bool, string>",
            "set: func(key: string, value: list<u8>)",
            "set: async func(key: string, value: list<u8>) -> result<_, string>",
        ] {
            assert_one(
                &after(set, to),
                &["wit/plugin.wit:9: interface `kv`: `set` is not as in 0.1.0: `func("],
            );
        }
        assert_one(&after(&format!("{set};"), ""), &["interface `kv`: `set` of 0.1.0 is gone"]);
    }

    #[test]
    fn imported_interfaces_and_new_ones_grow_and_say_since_when() {
        let new = "  @since(version = 0.1.1)\n  get: func(key: string) -> entry;\n  record entry { value: string }\n";
        assert_eq!(after("  set: func", &format!("{new}  set: func")), Vec::<String>::new());
        let interface = "@since(version = 0.1.1)\ninterface on-data {\n  handle: func();\n}\nworld host-side {\n  \
                         export on-data;\n  ";
        assert_eq!(after("world host-side {\n  ", interface), Vec::<String>::new());
        assert_one(
            &after("  set: func", "  get: func();\n  set: func"),
            &[":9: interface `kv`: `get`", "does not say"],
        );
        let interface = "interface on-data {\n  handle: func();\n}\ninterface plugin {";
        assert_one(&after("interface plugin {", interface), &["interface `on-data` is new since 0.1.0"]);
        let old = after("  set: func", "  @since(version = 0.1.0)\n  get: func();\n  set: func");
        assert_one(&old, &["`@since(version = 0.1.0)`", "0.1.0 does not have it"]);
    }

    #[test]
    fn exported_interfaces_are_complete() {
        for (from, to) in [
            (
                "handle: func() -> verdict;",
                "handle: func() -> verdict;\n  @since(version = 0.1.1)\n  more: func();",
            ),
            ("handle: func() -> verdict;", "handle: func() -> verdict;\n  record more { a: bool }"),
            ("use types.{verdict};", "use types.{verdict, level};"),
            (
                "describe: func() -> string;",
                "describe: func() -> string;\n  @since(version = 0.1.1)\n  more: func();",
            ),
        ] {
            assert_one(&after(from, to), &["is new in an interface that plugins export"]);
        }
    }

    #[test]
    fn worlds_lose_nothing_and_the_base_gets_no_export() {
        assert_one(
            &after("  export on-mail;\n", ""),
            &["world `host-side`: export `on-mail` of 0.1.0 is gone"],
        );
        assert_one(&after("  import kv;\n", ""), &["world `host-side`: import `kv` of 0.1.0 is gone"]);
        // `kv` is imported already, so the base may import it, too.
        assert_eq!(after("  import types;\n", "  import types;\n  import kv;\n"), Vec::<String>::new());
        let lost = after("  export plugin;\n", "");
        assert!(
            lost.iter().any(|line| line.contains("world `base`: export `plugin` of 0.1.0 is gone")),
            "{lost:?}"
        );
        let more = after("  export plugin;\n", "  export plugin;\n  export on-mail;\n");
        assert_one(&more, &["world `base`: export `on-mail` is new in the world `base`"]);
    }

    #[test]
    fn another_line_is_not_bound() {
        let other = FIRST.replace("0.1.0", "0.2.0").replace("code: u16", "code: u32");
        assert_eq!(texts(&judge(&other, &PREVIEW_TEXT.replace("0.1.0", "0.2.0"), &released(FIRST))), [""; 0]);
        assert!(growth::same_line("0.1.0", "0.1.12") && growth::same_line("1.0.0", "1.4.2"));
        assert!(!growth::same_line("0.1.0", "0.2.0") && !growth::same_line("0.1.0", "1.1.0"));
    }

    #[test]
    fn frozen_files_have_their_sums() {
        let mut folder = released(FIRST);
        folder.files.insert("0.1.0/plugin.wit".to_owned(), format!("{FIRST}// more\n").into_bytes());
        let found = texts(&judge(FIRST, PREVIEW_TEXT, &folder));
        assert_one(&found, &["wit/frozen/0.1.0/plugin.wit: ", "does not have its sum", "never changes"]);
        let mut folder = frozen(&[("0.1.0/plugin.wit", FIRST)]);
        folder.sums.insert("0.1.0/plugin.wit".to_owned(), "00".to_owned());
        let found = texts(&judge(FIRST, PREVIEW_TEXT, &folder));
        assert_one(&found, &["docs/decisions", "cargo xtask wit-freeze 0.1.0 --replace-candidate"]);
    }

    #[test]
    fn every_frozen_file_is_listed_and_every_listed_one_is_there() {
        let mut folder = frozen(&[("0.1.0/plugin.wit", FIRST)]);
        folder.sums.clear();
        assert_one(&texts(&judge(FIRST, PREVIEW_TEXT, &folder)), &["is not listed in wit/frozen/SHA256SUMS"]);
        let mut folder = released(FIRST);
        folder.files.clear();
        let found = texts(&judge(FIRST, PREVIEW_TEXT, &folder));
        assert_eq!(found.len(), 2);
        assert!(found[0].contains("lists `0.1.0/plugin.wit`, which does not exist"), "{found:?}");
        assert!(found[1].contains("wit/frozen/RELEASED: lists 0.1.0"), "{found:?}");
    }

    #[test]
    fn a_candidate_is_the_contract_octet_by_octet() {
        let folder = frozen(&[("0.1.0/plugin.wit", FIRST)]);
        let found = texts(&judge(&format!("{FIRST}// more\n"), PREVIEW_TEXT, &folder));
        assert_one(
            &found,
            &["wit/plugin.wit: differs from wit/frozen/0.1.0/plugin.wit", "--replace-candidate"],
        );
    }

    #[test]
    fn a_folder_is_called_by_its_version() {
        let folder = frozen(&[("0.1.1/plugin.wit", FIRST)]);
        assert_one(
            &texts(&judge(FIRST, PREVIEW_TEXT, &folder)),
            &["is version 0.1.0, which another folder is for"],
        );
    }

    #[test]
    fn what_does_not_parse_is_reported_with_its_place() {
        let folder = frozen(&[]);
        assert_one(
            &texts(&judge("package pintle:plugin@0.1.0;\ninterface {\n", PREVIEW_TEXT, &folder)),
            &["wit/plugin.wit: does not parse", "wit/plugin.wit:2"],
        );
        let other = FIRST.replace("pintle:plugin", "pintle:other");
        assert_one(&texts(&judge(&other, PREVIEW_TEXT, &folder)), &["is the package `pintle:other@0.1.0`"]);
        let preview = PREVIEW_TEXT.replace("reply", "gone");
        assert_one(
            &texts(&judge(FIRST, &preview, &folder)),
            &["wit/preview/preview.wit: does not parse", "gone"],
        );
    }
}
