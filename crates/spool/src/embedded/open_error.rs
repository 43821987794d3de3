//! Why a spool folder could not be opened, and what the operator can do about it.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// A spool folder could not be opened. The operator must act.
#[derive(Debug)]
pub enum OpenError {
    /// Another process works in this folder.
    Locked(PathBuf),
    /// The folder was written by a newer version of us, with this schema number.
    Newer {
        /// The database, or a part of the log.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The highest schema that we read.
        known: i64,
    },
    /// The folder was in use, and its log is not there.
    LogMissing {
        /// Where the log should be.
        path: PathBuf,
        /// How many messages the database knows, if there is one.
        messages: Option<u64>,
    },
    /// The folder was in use, and its folder of large bodies is not there.
    BodiesMissing(PathBuf),
    /// The folder is no spool: it has none of its parts.
    NoSpool(PathBuf),
    /// A part belongs to another spool, or to another place in this one.
    ForeignPart {
        /// The part.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A file or folder could not be opened, read or made.
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The log could not be written to.
    Log {
        /// Its folder.
        path: PathBuf,
        /// Why.
        what: String,
    },
    /// The database could not be opened or read.
    Database {
        /// Which.
        path: PathBuf,
        /// Why, in its own words.
        what: String,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked(path) => write!(
                f,
                "the spool {} is in use by another process: stop it, or choose another folder",
                path.display()
            ),
            Self::Newer { path, found, known } => write!(
                f,
                "{} has format {found}, and this version reads up to {known}: run a newer version",
                path.display()
            ),
            Self::LogMissing { path, messages } => {
                write!(f, "{} has no segments, though this spool has been in use", path.display())?;
                if let Some(messages) = messages {
                    write!(f, " and its database knows {messages} messages")?;
                }
                f.write_str(
                    ": mount or restore the folder; to start with an empty spool, move the whole spool folder away",
                )
            }
            Self::BodiesMissing(path) => write!(
                f,
                "{} is not there, though this spool has been in use: mount or restore the folder; to continue without the \
                 large bodies that it held, make an empty one",
                path.display()
            ),
            Self::NoSpool(path) => write!(
                f,
                "{} is not a spool: it has no `segments/`, no `identity` and no `envelopes.db`; name the folder in which the \
                 gateway keeps its mail",
                path.display()
            ),
            Self::ForeignPart { path, what } => write!(
                f,
                "{} does not belong here: {what}; restore all parts of the spool from one copy, or move this one out of the folder",
                path.display()
            ),
            Self::Io { path, source } => write!(f, "cannot use {}: {source}", path.display()),
            Self::Log { path, what } => write!(f, "cannot write to the log in {}: {what}", path.display()),
            Self::Database { path, what } => write!(
                f,
                "cannot use {}: {what}; move it out of the folder, and it is rebuilt from the log",
                path.display()
            ),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
