//! Why a spool folder could not be opened, and what the operator can do about it.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why a spool folder could not be opened. The operator must act.
#[derive(Debug)]
pub enum OpenError {
    /// Another process works in this folder.
    Locked(PathBuf),
    /// A newer version of the program wrote the folder.
    Newer {
        /// The path of the database, or of a part of the log.
        path: PathBuf,
        /// The number of its format.
        found: i64,
        /// The highest number that this version reads.
        known: i64,
    },
    /// The folder has been in use, and its log is missing.
    LogMissing {
        /// The folder where the log should be.
        path: PathBuf,
        /// How many messages the database has. None without a database.
        messages: Option<u64>,
    },
    /// The folder has been in use, and this folder of large bodies is missing.
    BodiesMissing(PathBuf),
    /// The folder is not a spool: it has none of its parts.
    NoSpool(PathBuf),
    /// A part belongs to another spool, or to another place in this one.
    ForeignPart {
        /// The path of the part.
        path: PathBuf,
        /// What is wrong with it, for an operator.
        what: String,
    },
    /// A file or folder could not be opened, read or made.
    Io {
        /// Path of the file or folder.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The log could not be written to.
    Log {
        /// The folder of the log.
        path: PathBuf,
        /// The cause, for an operator.
        what: String,
    },
    /// The database could not be opened or read.
    Database {
        /// The path of the database.
        path: PathBuf,
        /// The cause, in the words of SQLite or of the spool.
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
