//! `cargo xtask wit-freeze VERSION`: copies the contract into `wit/frozen/VERSION` and writes its sum. `cargo xtask tidy`
//! holds the contract to every frozen version from then on.

use std::fs;
use std::path::Path;

use clap::Args;

use super::elements::WitPackage;
use super::frozen::{self, CONTRACT_FILE, FrozenFolder, RELEASED, SUMS};
use super::{CONTRACT, FROZEN};
use crate::run::{ChoreError, step};

#[derive(Args)]
pub(crate) struct WitFreezeOptions {
    /// The version in the first line of wit/plugin.wit, such as 0.1.0
    version: String,
    /// Replace a frozen version that no release has served yet; docs/decisions says why it changed
    #[arg(long)]
    replace_candidate: bool,
}

/// Freezes the contract of the repository.
pub(crate) fn wit_freeze(options: &WitFreezeOptions) -> Result<(), ChoreError> {
    step(format!("Freezing the contract as {}", options.version));
    let root = pintle_guest_build::repository();
    freeze(&root.join(CONTRACT), &root.join(FROZEN), options)?;
    println!("    {FROZEN}/{}/{CONTRACT_FILE} and its sum in {FROZEN}/{SUMS}", options.version);
    Ok(())
}

fn freeze(contract: &Path, folder: &Path, options: &WitFreezeOptions) -> Result<(), ChoreError> {
    let text = fs::read_to_string(contract).map_err(|cause| frozen::unreadable(contract, cause))?;
    let package = WitPackage::parse(CONTRACT, &text).map_err(ChoreError::NotFrozen)?;
    let mut frozen_folder = FrozenFolder::read(folder)?;
    if let Some(refusal) = refusal(&package.version(), &frozen_folder, options) {
        return Err(ChoreError::NotFrozen(refusal));
    }
    let path = format!("{}/{CONTRACT_FILE}", options.version);
    frozen_folder.sums.insert(path.clone(), frozen::sum(text.as_bytes()));
    fs::create_dir_all(folder.join(&options.version)).map_err(|cause| frozen::unreadable(folder, cause))?;
    for (path, text) in [(path.as_str(), text), (SUMS, frozen_folder.sums_text())] {
        let path = folder.join(path);
        fs::write(&path, text).map_err(|cause| frozen::unreadable(&path, cause))?;
    }
    Ok(())
}

/// Why the version cannot be frozen.
fn refusal(contract: &str, folder: &FrozenFolder, options: &WitFreezeOptions) -> Option<String> {
    let WitFreezeOptions { version, replace_candidate } = options;
    let exists = folder.files.keys().any(|path| path.starts_with(&format!("{version}/")));
    if contract != version {
        Some(format!("{CONTRACT} is version {contract:?}, not {version:?}: change the line `package` there"))
    } else if folder.released.contains(version) {
        Some(format!(
            "{version} has been released ({FROZEN}/{RELEASED}), so it never changes: additions need a new version"
        ))
    } else if exists && !replace_candidate {
        Some(format!(
            "{FROZEN}/{version} exists. No release has served it, so `--replace-candidate` replaces it; \
             write the reason into docs/decisions"
        ))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "package pintle:plugin@0.1.0;\ninterface a {\n  f: func();\n}\n";

    fn written(text: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("plugin.wit"), text).unwrap();
        folder
    }

    fn freeze_in(folder: &tempfile::TempDir, version: &str, replace_candidate: bool) -> Result<(), String> {
        let options = WitFreezeOptions { version: version.to_owned(), replace_candidate };
        let outcome = freeze(&folder.path().join("plugin.wit"), &folder.path().join("frozen"), &options);
        outcome.map_err(|fault| fault.to_string())
    }

    fn read(folder: &tempfile::TempDir) -> FrozenFolder {
        FrozenFolder::read(&folder.path().join("frozen")).unwrap()
    }

    #[test]
    fn a_version_is_copied_with_its_sum() {
        let folder = written(TEXT);
        freeze_in(&folder, "0.1.0", false).unwrap();
        let frozen = read(&folder);
        assert_eq!(frozen.files["0.1.0/plugin.wit"], TEXT.as_bytes());
        assert_eq!(frozen.sums["0.1.0/plugin.wit"], frozen::sum(TEXT.as_bytes()));
        let sums = fs::read_to_string(folder.path().join("frozen/SHA256SUMS")).unwrap();
        assert_eq!(sums, format!("{}  0.1.0/plugin.wit\n", frozen::sum(TEXT.as_bytes())));
    }

    #[test]
    fn a_candidate_is_replaced_on_request_alone() {
        let folder = written(TEXT);
        freeze_in(&folder, "0.1.0", false).unwrap();
        let changed = TEXT.replace("func()", "func() -> bool");
        fs::write(folder.path().join("plugin.wit"), &changed).unwrap();
        assert!(freeze_in(&folder, "0.1.0", false).unwrap_err().contains("--replace-candidate"));
        assert_eq!(read(&folder).files["0.1.0/plugin.wit"], TEXT.as_bytes());
        freeze_in(&folder, "0.1.0", true).unwrap();
        assert_eq!(read(&folder).sums["0.1.0/plugin.wit"], frozen::sum(changed.as_bytes()));
    }

    #[test]
    fn a_released_version_is_never_replaced() {
        let folder = written(TEXT);
        freeze_in(&folder, "0.1.0", false).unwrap();
        fs::write(folder.path().join("frozen/RELEASED"), "# released\n0.1.0\n").unwrap();
        assert!(freeze_in(&folder, "0.1.0", true).unwrap_err().contains("never changes"));
        fs::write(folder.path().join("plugin.wit"), TEXT.replace("0.1.0", "0.1.1")).unwrap();
        freeze_in(&folder, "0.1.1", false).unwrap();
        assert_eq!(read(&folder).sums.len(), 2);
    }

    #[test]
    fn the_version_is_the_contract_s_own() {
        let folder = written(TEXT);
        assert!(freeze_in(&folder, "0.1.1", false).unwrap_err().contains("not \"0.1.1\""));
        assert!(freeze_in(&folder, "../x", true).is_err());
        fs::write(folder.path().join("plugin.wit"), "interface {").unwrap();
        assert!(freeze_in(&folder, "0.1.0", false).is_err());
    }
}
