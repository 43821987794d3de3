//! The folder of frozen versions of the contract, `wit/frozen`: its files, their sums in `SHA256SUMS` (as `sha256sum`
//! writes and checks them), and the versions that were released, in `RELEASED`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::run::ChoreError;

/// The file of the sums, in the folder.
pub(crate) const SUMS: &str = "SHA256SUMS";
/// The file that lists the released versions, in the folder: one a line, and comments that begin with "#".
pub(crate) const RELEASED: &str = "RELEASED";
/// The file of a version, in the version's folder.
pub(crate) const CONTRACT_FILE: &str = "plugin.wit";

/// What the folder holds. Paths are relative to it, with forward slashes.
#[derive(Debug, Default)]
pub(crate) struct FrozenFolder {
    /// The files in the folders of the versions.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// Sums in hexadecimal, by path.
    pub(crate) sums: BTreeMap<String, String>,
    pub(crate) released: BTreeSet<String>,
}

impl FrozenFolder {
    /// Reads the folder; a file that is missing counts as empty.
    pub(crate) fn read(folder: &Path) -> Result<Self, ChoreError> {
        let text = |name: &str| match fs::read_to_string(folder.join(name)) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            read => read.map_err(|cause| unreadable(&folder.join(name), cause)),
        };
        let mut files = BTreeMap::new();
        if folder.exists() {
            read_versions(folder, "", &mut files)?;
        }
        let sums = text(SUMS)?.lines().map(listed).collect();
        let released = text(RELEASED)?;
        let released =
            released.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        Ok(Self { files, sums, released: released.map(str::to_owned).collect() })
    }

    /// The text of `SHA256SUMS`.
    pub(crate) fn sums_text(&self) -> String {
        self.sums.iter().map(|(path, sum)| format!("{sum}  {path}\n")).collect()
    }
}

/// The SHA-256 of a file, in hexadecimal.
pub(crate) fn sum(octets: &[u8]) -> String {
    Sha256::digest(octets).iter().map(|octet| format!("{octet:02x}")).collect()
}

pub(crate) fn unreadable(path: &Path, cause: io::Error) -> ChoreError {
    ChoreError::Unreadable { path: path.display().to_string(), cause }
}

/// Path and sum of a line of `SHA256SUMS`. A line of another form counts as a path without a sum, and is reported as one
/// that does not exist.
fn listed(line: &str) -> (String, String) {
    let (sum, path) = line.split_once("  ").unwrap_or(("", line));
    (path.to_owned(), sum.to_owned())
}

/// Reads the files below the folder's subfolders; those in the folder itself are no version's.
fn read_versions(
    folder: &Path,
    prefix: &str,
    files: &mut BTreeMap<String, Vec<u8>>,
) -> Result<(), ChoreError> {
    for entry in fs::read_dir(folder).map_err(|cause| unreadable(folder, cause))? {
        let entry = entry.map_err(|cause| unreadable(folder, cause))?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if path.is_dir() {
            read_versions(&path, &format!("{prefix}{name}/"), files)?;
        } else if !prefix.is_empty() {
            let octets = fs::read(&path).map_err(|cause| unreadable(&path, cause))?;
            files.insert(format!("{prefix}{name}"), octets);
        }
    }
    Ok(())
}
