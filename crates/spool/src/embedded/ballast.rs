//! The reserve file `ballast`: disk space that is freed when the disk is full, because the outcomes of deliveries must
//! be written even then. They are what makes room.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

use super::draft::free;
use crate::fault::Faults;

/// The reserve file. Its content is never read.
pub(crate) struct Ballast {
    path: PathBuf,
    size: u64,
    /// Free space that must be left after it has been made again, in octets.
    reserve: u64,
    there: bool,
    faults: Faults,
}

impl Ballast {
    /// Makes the file, with a quarter of the reserve and at most 32 MiB.
    pub(crate) fn new(folder: &Path, reserve: u64, faults: Faults) -> Self {
        let size = (reserve / 4).min(32 * 1024 * 1024);
        let path = folder.join("ballast");
        let there = fs::metadata(&path).is_ok_and(|file| file.len() >= size);
        let mut ballast = Self { path, size, reserve, there, faults };
        ballast.restore();
        ballast
    }

    /// Deletes the file. True when that has freed space.
    pub(crate) fn release(&mut self) -> bool {
        if !self.there {
            return false;
        }
        let removed = fs::remove_file(&self.path);
        // A file that could not be deleted still has the space, and is tried again.
        self.there = removed.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::NotFound);
        match &removed {
            Ok(()) => tracing::warn!(
                "the spool's disk is full: the reserve file `ballast` is deleted so that outcomes of deliveries can be written"
            ),
            Err(error) => {
                tracing::warn!(%error, "the spool's reserve file `ballast` could not be deleted");
            }
        }
        removed.is_ok()
    }

    /// Makes the file again once there is enough space.
    pub(crate) fn restore(&mut self) {
        if self.there || self.size == 0 {
            return;
        }
        let folder = self.path.parent().unwrap_or(&self.path);
        if free(folder, &self.faults).unwrap_or(0) < self.reserve.saturating_add(self.size) {
            return;
        }
        match self.make() {
            Ok(()) => self.there = true,
            Err(error) => {
                // Space that a partial file has taken would be lost.
                let _ = fs::remove_file(&self.path);
                tracing::debug!(%error, "the spool's reserve file `ballast` could not be made");
            }
        }
    }

    fn make(&self) -> io::Result<()> {
        let file = File::create(&self.path)?;
        match fallocate(&file, FallocateFlags::empty(), 0, self.size) {
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_given_up_and_taken_again() {
        let folder = tempfile::TempDir::new().unwrap();
        let mut ballast = Ballast::new(folder.path(), 4096, Faults::none());
        let path = folder.path().join("ballast");
        assert_eq!(fs::metadata(&path).unwrap().len(), 1024);
        assert!(ballast.release() && !path.exists() && !ballast.release());
        ballast.restore();
        assert!(path.exists());
        let hopeless = Ballast::new(&folder.path().join("none"), u64::MAX, Faults::none());
        assert!(!hopeless.there);
    }
}
