//! Finds the guests, and where their components go.
//!
//! A guest is a folder with a Cargo.toml directly under one of [`ROOTS`]; its name is its package's name. Folders in
//! other languages are skipped.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::BuildError;

/// Stock plugins, example plugins, and misbehaving plugins for tests.
const ROOTS: [&str; 3] = ["plugins", "examples/plugins", "tests/guests"];

/// The sources of every guest besides its own folder: a change here rebuilds every component.
const SHARED: [&str; 4] =
    ["crates/plugin-sdk/src", "crates/plugin-sdk/wit", "crates/plugin-sdk/Cargo.toml", "plugins/Cargo.toml"];

/// A file that only the repository's root has.
const CONTRACT: &str = "wit/plugin.wit";

/// A plugin of this repository.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Guest {
    /// The package's name, which is also the component's.
    pub name: String,
    /// The folder of its Cargo.toml.
    pub folder: PathBuf,
}

/// All guests, by name.
///
/// # Errors
///
/// A folder or manifest cannot be read.
pub fn guests() -> Result<Vec<Guest>, BuildError> {
    let mut found = Vec::new();
    for root in ROOTS {
        let root = repository().join(root);
        if root.is_dir() {
            collect(&root, &mut found)?;
        }
    }
    found.sort();
    Ok(found)
}

/// The guest of this name.
pub(crate) fn find(name: &str) -> Result<Guest, BuildError> {
    let mut all = guests()?;
    let Some(at) = all.iter().position(|guest| guest.name == name) else {
        let known = all.into_iter().map(|guest| guest.name).collect();
        return Err(BuildError::UnknownGuest { name: name.to_owned(), known });
    };
    Ok(all.swap_remove(at))
}

/// The files and folders that a guest is built from; a build script prints them after `cargo:rerun-if-changed=`.
#[must_use]
pub fn sources(guest: &Guest) -> Vec<PathBuf> {
    let shared = SHARED.iter().map(|path| repository().join(path));
    let own = ["src", "Cargo.toml", "config.schema.json"].into_iter().map(|path| guest.folder.join(path));
    own.chain(shared).filter(|path| path.exists()).collect()
}

/// The repository's root.
///
/// Cargo says which checkout a program belongs to; two checkouts with one target folder can share compiled code. A
/// program that was not started by cargo uses the checkout that it was compiled in.
#[must_use]
pub fn repository() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let run = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let root =
            |here: &Path| Some(here.ancestors().find(|folder| folder.join(CONTRACT).is_file())?.to_owned());
        let compiled = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        run.as_deref().and_then(root).or_else(|| root(&compiled)).unwrap_or(compiled)
    })
}

/// The folder of all components: `plugins` in the target folder.
#[must_use]
pub fn plugins_dir() -> PathBuf {
    target_dir().join("plugins")
}

/// The target folder of the current build.
///
/// A build script is not given it, and `CARGO_TARGET_DIR` does not cover `--target-dir` and configuration files. But
/// cargo has put whatever runs this code (build script, test or xtask) into the target folder, and marks its root with
/// a CACHEDIR.TAG.
#[must_use]
pub fn target_dir() -> PathBuf {
    let marked = |folder: &&Path| folder.join("CACHEDIR.TAG").is_file();
    let executable = std::env::current_exe().unwrap_or_default();
    if let Some(folder) = executable.ancestors().find(marked) {
        return folder.to_path_buf();
    }
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from)
}

fn collect(root: &Path, found: &mut Vec<Guest>) -> Result<(), BuildError> {
    for entry in fs::read_dir(root).map_err(|cause| BuildError::io(root, cause))? {
        let folder = entry.map_err(|cause| BuildError::io(root, cause))?.path();
        let manifest = folder.join("Cargo.toml");
        if !manifest.is_file() {
            continue;
        }
        let text = fs::read_to_string(&manifest).map_err(|cause| BuildError::io(&manifest, cause))?;
        let name = package_name(&text).ok_or(BuildError::Nameless(manifest))?;
        found.push(Guest { name, folder });
    }
    Ok(())
}

/// The `name` in the `[package]` table. Our own manifests are simple enough to be parsed by line, so that the binary's
/// build script needs no TOML parser.
fn package_name(manifest: &str) -> Option<String> {
    let package = manifest.lines().skip_while(|line| line.trim() != "[package]").skip(1);
    package.take_while(|line| !line.starts_with('[')).find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == "name").then(|| value.trim().trim_matches('"').to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_package_is_found_and_no_other() {
        let manifest =
            "[lib]\nname = \"wrong\"\n[package]\nversion = \"1\"\nname = \"right\"\n[dependencies]\n";
        assert_eq!(package_name(manifest).as_deref(), Some("right"));
        assert_eq!(package_name("[package]\nversion = \"1\"\n[bin]\nname = \"wrong\"\n"), None);
    }

    #[test]
    fn the_example_is_among_the_guests() {
        let example = find("example").unwrap();
        assert!(example.folder.ends_with("examples/plugins/rust"));
        assert!(sources(&example).iter().any(|path| path.ends_with("crates/plugin-sdk/src")));
    }

    #[test]
    fn an_unknown_guest_is_answered_with_those_there_are() {
        let Err(BuildError::UnknownGuest { known, .. }) = find("no-such-guest") else { panic!("found") };
        assert!(known.contains(&"example".to_owned()));
    }

    #[test]
    fn the_target_folder_is_the_one_this_test_lies_in() {
        assert!(std::env::current_exe().unwrap().starts_with(target_dir()));
    }
}
