//! Component loading: reads a component, compiles it, and caches the compiled code on disk.
//!
//! All functions here block; call them on a blocking thread.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::{ComponentSource, LoadError, PluginsError};

/// Upper limit on the size of a component, in octets.
const MAX_COMPONENT: u64 = 256 << 20;
/// Number of unused compiled components that the cache keeps beyond those in use.
const KEPT: usize = 64;

/// Compiles a component, or loads its compiled code from the cache.
pub(crate) fn compile(engine: &Engine, cache: Option<&Cache>, bytes: &[u8]) -> Result<Component, LoadError> {
    let Some(cache) = cache else {
        return build(engine, bytes);
    };
    let path = cache.path_of(engine, bytes);
    if let Some(component) = cache.load(engine, &path) {
        return Ok(component);
    }
    let component = build(engine, bytes)?;
    if let Err(error) = cache.store(&path, &component) {
        tracing::warn!(target: "pintle::plugin", path = %path.display(), %error, "cannot cache compiled code");
    }
    Ok(component)
}

/// Reads the bytes of a component.
pub(crate) fn read(source: &ComponentSource) -> Result<Bytes, LoadError> {
    match source {
        ComponentSource::Bytes { bytes, .. } => Ok(bytes.clone()),
        ComponentSource::File(path) => {
            read_file(path).map_err(|why| LoadError::Unreadable(path.clone(), why))
        }
    }
}

fn read_file(path: &Path) -> Result<Bytes, String> {
    let found = fs::metadata(path).map_err(|error| error.to_string())?;
    // Only regular files: reading a pipe would block, and a device may have no end.
    if !found.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    if found.len() > MAX_COMPONENT {
        return Err(format!("it has {} octets; at most {MAX_COMPONENT} are allowed", found.len()));
    }
    let mut octets = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(MAX_COMPONENT).read_to_end(&mut octets));
    read.map(|_| Bytes::from(octets)).map_err(|error| error.to_string())
}

/// SHA-256 of a component; identifies its version.
pub(crate) fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// The digest in lower-case hexadecimal.
pub(crate) fn hexadecimal(digest: &[u8]) -> String {
    digest.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn build(engine: &Engine, bytes: &[u8]) -> Result<Component, LoadError> {
    // The engine refuses the text format and core modules too, with its own message.
    Component::from_binary(engine, bytes).map_err(|error| LoadError::NotAComponent(format!("{error:#}")))
}

/// The cache folder for compiled code. The code in it is executed, so no other user may have write access.
pub(crate) struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// Creates the folder if it does not exist; refuses one that other users can write to.
    pub(crate) fn open(folder: &Path) -> Result<Self, PluginsError> {
        let refused = |why: String| PluginsError::Cache(folder.to_owned(), why);
        make_private(folder).map_err(|error| refused(error.to_string()))?;
        let found = fs::symlink_metadata(folder).map_err(|error| refused(error.to_string()))?;
        check_private(&found).map_err(refused)?;
        let cache = Self { folder: folder.to_owned() };
        cache.prune();
        Ok(cache)
    }

    /// Opens the existing folder for checks, without creating it; `None` if it does not exist or other users can write
    /// to it. If `pintle check` created the folder while run by root, the gateway's own user would have to refuse it.
    pub(crate) fn as_it_is(folder: &Path) -> Option<Self> {
        let found = fs::symlink_metadata(folder).ok()?;
        check_private(&found).ok().map(|()| Self { folder: folder.to_owned() })
    }

    /// The file name is derived from the component and the engine, so a cached file is never stale.
    fn path_of(&self, engine: &Engine, bytes: &[u8]) -> PathBuf {
        let mut engine_hash = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut engine_hash);
        let mut digest = Sha256::new();
        digest.update(engine_hash.finish().to_le_bytes());
        digest.update(bytes);
        self.folder.join(hexadecimal(&digest.finalize()) + ".cwasm")
    }

    #[allow(unsafe_code, reason = "the one way to use code that was compiled before")]
    fn load(&self, engine: &Engine, path: &Path) -> Option<Component> {
        if !path.exists() {
            return None;
        }
        // SAFETY: the file must hold the unchanged output of `Component::serialize`. It is in a folder that only this
        // user can write to (checked at `open`), and was synced before it was renamed to this name; the call itself
        // checks the engine's version again.
        let component = unsafe { Component::deserialize_file(engine, path) };
        component.ok()
    }

    /// Writes to a temporary name, syncs, then renames, so that a file in the cache is complete even after a power
    /// failure.
    fn store(&self, path: &Path, component: &Component) -> io::Result<()> {
        let code = component.serialize().map_err(io::Error::other)?;
        let draft = path.with_extension(format!("{}.new", std::process::id()));
        let mut file = fs::File::create(&draft)?;
        file.write_all(&code)?;
        file.sync_all()?;
        fs::rename(&draft, path)
    }

    /// Deletes the files with the oldest modification times.
    fn prune(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return;
        };
        let written = |entry: fs::DirEntry| Some((entry.metadata().ok()?.modified().ok()?, entry.path()));
        let mut files: Vec<_> = entries.flatten().filter_map(written).collect();
        files.sort();
        for (_, path) in files.iter().take(files.len().saturating_sub(KEPT)) {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(unix)]
fn make_private(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

#[cfg(unix)]
fn check_private(found: &fs::Metadata) -> Result<(), String> {
    use std::os::unix::fs::MetadataExt;
    if !found.is_dir() {
        return Err("it is not a folder".into());
    }
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err("it belongs to another user".into());
    }
    if found.mode() & 0o077 != 0 {
        return Err(format!(
            "others may use it (mode {:o}), and what lies in it is run: chmod 700 it",
            found.mode() & 0o777
        ));
    }
    Ok(())
}

#[cfg(not(unix))]
fn make_private(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)
}

#[cfg(not(unix))]
fn check_private(found: &fs::Metadata) -> Result<(), String> {
    if found.is_dir() { Ok(()) } else { Err("it is not a folder".into()) }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_cache_is_private_or_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        assert!(Cache::as_it_is(&path).is_none() && !path.exists(), "who looks makes nothing");
        assert!(Cache::open(&path).is_ok(), "made when missing");
        assert!(Cache::as_it_is(&path).is_some());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
        assert!(Cache::as_it_is(&path).is_none());
        let error = Cache::open(&path).err().unwrap().to_string();
        assert!(error.contains("chmod 700"), "{error}");
    }
}
