//! The identity of a spool: a random number in the folder, in each segment and in the database, so that parts of two
//! spools are not mixed up.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// The name of its file in the spool folder.
pub(crate) const FILE: &str = "identity";

/// The random number of a spool, 128 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Identity([u8; 16]);

impl Identity {
    pub(crate) fn new(octets: [u8; 16]) -> Self {
        Self(octets)
    }

    /// Generates an identity from the system's random numbers.
    pub(crate) fn random() -> io::Result<Self> {
        let mut octets = [0; 16];
        getrandom::fill(&mut octets).map_err(io::Error::other)?;
        Ok(Self(octets))
    }

    pub(crate) fn octets(&self) -> [u8; 16] {
        self.0
    }

    /// The initial value of the checksums of record headers.
    pub(crate) fn seed(&self) -> u32 {
        crc32fast::hash(&self.0)
    }

    /// Reads the identity of a folder. None where it has no such file.
    pub(crate) fn read(folder: &Path) -> io::Result<Option<Self>> {
        match fs::read_to_string(folder.join(FILE)) {
            Ok(text) => Self::parse(text.trim())
                .map(Some)
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not 32 hexadecimal digits")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Stores it in the folder, durably.
    pub(crate) fn write(&self, folder: &Path) -> io::Result<()> {
        let (path, new) = (folder.join(FILE), folder.join("identity.new"));
        let mut file = File::create(&new)?;
        writeln!(file, "{self}")?;
        file.sync_all()?;
        fs::rename(new, path)?;
        File::open(folder)?.sync_all()
    }

    fn parse(text: &str) -> Option<Self> {
        if text.len() != 32 || !text.is_ascii() {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(|number| Self(number.to_be_bytes()))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_was_written() {
        let folder = tempfile::TempDir::new().unwrap();
        assert_eq!(Identity::read(folder.path()).unwrap(), None);
        let identity = Identity::random().unwrap();
        identity.write(folder.path()).unwrap();
        assert_eq!(Identity::read(folder.path()).unwrap(), Some(identity));
        fs::write(folder.path().join(FILE), "").unwrap();
        assert!(Identity::read(folder.path()).is_err());
    }
}
