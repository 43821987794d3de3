//! Reads the files that the configuration names: regular files only, up to a size limit.
//!
//! Opening a pipe without a writer would block, and reading a device might never end: in `pintle check`, and in the
//! reload of a running gateway, which is worse.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

/// The largest file that is read, in octets: some hundred thousand lines.
const MOST: u64 = 16 << 20;

/// Reads a whole file as UTF-8 text.
///
/// # Errors
/// The file cannot be read, is not a regular file, is not UTF-8, or is larger than 16 MiB.
pub fn text(path: &Path) -> io::Result<String> {
    // Checked before opening, since opening a pipe waits for its writer.
    let found = fs::metadata(path)?;
    if found.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !found.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut text = String::new();
    File::open(path)?.take(MOST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MOST {
        return Err(io::Error::other(format!("it has more than {MOST} octets")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_are_read_and_no_endless_ones() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("text"), "text").unwrap();
        assert_eq!(text(&at("text")).unwrap(), "text");
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
            .unwrap();
        for path in [at("pipe"), "/dev/zero".into(), folder.path().to_owned()] {
            let why = text(&path).unwrap_err().to_string();
            assert!(
                why.contains("not a regular file") || why.contains("directory"),
                "{}: {why}",
                path.display()
            );
        }
        File::create(at("sparse")).unwrap().set_len(1 << 40).unwrap();
        assert!(text(&at("sparse")).unwrap_err().to_string().contains("more than"));
    }
}
