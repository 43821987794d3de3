//! Type names: each means one thing in the whole tree. The lists are those of docs/vocabulary.md.

use std::collections::{BTreeMap, BTreeSet};

use super::source::SourceFile;
use super::{TidyRule, Violation};

/// The page that has the lists.
const PAGE: &str = "docs/vocabulary.md";
/// Crates for the other side of the gateway, which may use its words: peers in tests, and guests.
const OTHER_SIDE: [&str; 2] = ["testkit", "plugin-sdk"];

/// The lists of docs/vocabulary.md.
#[derive(Debug, Default, PartialEq, Eq)]
struct Vocabulary {
    /// Types with the crate that defines them.
    owners: BTreeMap<String, String>,
    /// Names that several crates may use.
    common: BTreeSet<String>,
    /// Names that say too little.
    bare: BTreeSet<String>,
}

/// A type that is defined in a file.
struct Definition<'a> {
    name: &'a str,
    package: &'a str,
    path: &'a str,
    line: usize,
}

/// Types whose names say too little, or are another crate's.
pub(super) fn violations(sources: &[SourceFile]) -> Vec<Violation> {
    let page = sources.iter().find(|source| source.path == PAGE);
    let vocabulary = page.map(|page| Vocabulary::read(&page.text)).unwrap_or_default();
    if vocabulary.owners.is_empty() || vocabulary.common.is_empty() || vocabulary.bare.is_empty() {
        let text = "lacks one of the lists of type names that `tidy` compares with the code".to_owned();
        return vec![Violation { path: PAGE.to_owned(), line: 0, rule: TidyRule::Vocabulary, text }];
    }
    judge(&vocabulary, &definitions(sources))
}

fn judge(vocabulary: &Vocabulary, definitions: &[Definition<'_>]) -> Vec<Violation> {
    let mut packages: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for definition in definitions {
        packages.entry(definition.name).or_default().insert(definition.package);
    }
    let fault = |definition: &Definition<'_>| {
        let Definition { name, package, .. } = *definition;
        if vocabulary.bare.contains(name) {
            return Some(format!("a type called `{name}` says too little: qualify it ({PAGE})"));
        }
        match vocabulary.owners.get(name) {
            Some(owner) if owner != package => {
                Some(format!("`{name}` is a type of the crate {owner} ({PAGE})"))
            }
            Some(_) => None,
            None if packages[name].len() > 1 && !vocabulary.common.contains(name) => {
                let others: Vec<_> =
                    packages[name].iter().filter(|other| **other != package).copied().collect();
                Some(format!("a type `{name}` is in {} too: one name, one meaning", others.join(", ")))
            }
            None => None,
        }
    };
    let violations = definitions.iter().filter_map(|definition| {
        let (path, line) = (definition.path.to_owned(), definition.line);
        Some(Violation { path, line, rule: TidyRule::Vocabulary, text: fault(definition)? })
    });
    let defined: BTreeSet<_> =
        definitions.iter().map(|definition| (definition.name, definition.package)).collect();
    let missing =
        vocabulary.owners.iter().filter(|(name, owner)| !defined.contains(&(name.as_str(), owner.as_str())));
    let missing = missing.map(|(name, owner)| Violation {
        path: PAGE.to_owned(),
        line: 0,
        rule: TidyRule::Vocabulary,
        text: format!("names the type `{name}` of the crate {owner}, which is not there"),
    });
    violations.chain(missing).collect()
}

impl Vocabulary {
    fn read(page: &str) -> Self {
        let types = section(page, "## Types");
        let row = |line: &str| {
            let mut cells = line.strip_prefix("| `")?.split(" | ");
            Some((cells.next()?.trim_end_matches('`').to_owned(), cells.next()?.to_owned()))
        };
        let prose: String = types.lines().filter(|line| !line.starts_with('|')).collect();
        Self {
            owners: types.lines().filter_map(row).collect(),
            common: quoted(&prose),
            bare: quoted(&section(page, "## Names that say too little")),
        }
    }
}

/// The text between this heading and the next.
fn section(page: &str, heading: &str) -> String {
    let lines = page.lines().skip_while(|line| *line != heading).skip(1);
    lines.take_while(|line| !line.starts_with("## ")).collect::<Vec<_>>().join("\n")
}

/// The names of types that stand in backquotes.
fn quoted(text: &str) -> BTreeSet<String> {
    let names = text.split('`').skip(1).step_by(2);
    names.filter(|name| name.starts_with(char::is_uppercase)).map(str::to_owned).collect()
}

/// The types of the product and of xtask, without those of tests.
fn definitions(sources: &[SourceFile]) -> Vec<Definition<'_>> {
    let mut all = Vec::new();
    for source in sources {
        let Some(package) = product_package(source) else { continue };
        let found = source.code().filter_map(|(line, code)| Some((line, type_name(code)?)));
        all.extend(found.map(|(line, name)| Definition { name, package, path: &source.path, line }));
    }
    all
}

/// The package of a file of the product, without its prefix; none for tests and for the other side.
fn product_package(source: &SourceFile) -> Option<&str> {
    let (package, file) = match source.path.strip_prefix("crates/") {
        Some(rest) => rest.split_once('/')?,
        None => source.path.split_once('/').filter(|(package, _)| *package == "xtask")?,
    };
    let is_product = file.starts_with("src/") && source.is_rust() && !source.is_test();
    (is_product && !OTHER_SIDE.contains(&package)).then_some(package)
}

/// The name, if this line begins the definition of a type.
fn type_name(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace().skip_while(|word| word.starts_with("pub"));
    let mut first = words.next()?;
    // `pub(in path)` has two words.
    if first.ends_with(')') {
        first = words.next()?;
    }
    if !["struct", "enum", "union", "trait"].contains(&first) {
        return None;
    }
    let name = words.next()?;
    let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
    Some(&name[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Words\n| word | x |\n## Types\nThe types.\n\n| type | crate | x |\n|---|---|---|\n\
        | `Draft` | spool | x |\n\nThese may: `Config` and `Session` (as `smtp` sees it).\n## Names that say too little\n`State`, `Place`.\n";

    fn source(path: &str, text: &str) -> SourceFile {
        SourceFile { path: path.to_owned(), text: text.to_owned() }
    }

    fn told(files: &[(&str, &str)]) -> Vec<String> {
        let mut sources: Vec<_> = files.iter().map(|(path, text)| source(path, text)).collect();
        sources.push(source(PAGE, TEXT));
        let found = violations(&sources).into_iter();
        found.map(|violation| format!("{}: {}", violation.path, violation.text)).collect()
    }

    #[test]
    fn the_page_is_read() {
        let vocabulary = Vocabulary::read(TEXT);
        assert_eq!(vocabulary.owners, [("Draft".to_owned(), "spool".to_owned())].into());
        assert_eq!(vocabulary.common, ["Config", "Session"].map(str::to_owned).into());
        assert_eq!(vocabulary.bare, ["State", "Place"].map(str::to_owned).into());
    }

    #[test]
    fn a_page_without_its_lists_is_reported() {
        assert!(violations(&[source(PAGE, "# Words\n")])[0].text.contains("lacks"));
    }

    #[test]
    fn one_name_means_one_thing() {
        let good = [
            ("crates/spool/src/draft.rs", "pub struct Draft {\nstruct DraftState;\n"),
            ("crates/a/src/lib.rs", "pub(crate) enum Config {}\n"),
            ("crates/b/src/lib.rs", "pub trait Config {}\nstruct Own<T>(T);\n"),
            ("crates/testkit/src/lib.rs", "pub struct State;\npub struct Own;\n"),
            ("crates/b/src/c.rs", "use x;\n#[cfg(test)]\nstruct State;\n"),
            ("crates/b/tests/c.rs", "struct State;\n"),
        ];
        assert_eq!(told(&good), Vec::<String>::new());
        let bad = [
            &good[..],
            &[("crates/a/src/b.rs", "pub struct Draft;\n    pub(super) enum State {\nstruct Own;\n")],
        ];
        let found = told(&bad.concat());
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(found.iter().any(|text| text.contains("of the crate spool")), "{found:?}");
        assert!(found.iter().any(|text| text.contains("`State` says too little")), "{found:?}");
        assert!(found.iter().filter(|text| text.contains("one name, one meaning")).count() == 2, "{found:?}");
    }

    #[test]
    fn a_type_of_the_page_is_in_the_code() {
        assert!(told(&[])[0].contains("names the type `Draft`"));
    }
}
