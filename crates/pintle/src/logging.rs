//! The program's own log: text for people, JSON for machines, on standard error or in a file.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::Arc;

use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::fmt;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

/// What no operator can act on: a client's odd handshake is a warning to rustls, and any client can send thousands.
const QUIET: &str = "rustls=error";

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Json,
}

/// Starts logging. `PINTLE_LOG` overrides the level, in the syntax `info,pintle_outbound=debug`.
///
/// # Errors
/// The file cannot be opened.
pub(crate) fn start(format: Format, level: &str, file: Option<&Path>) -> io::Result<()> {
    let directives = std::env::var("PINTLE_LOG").unwrap_or_else(|_| format!("{level},{QUIET}"));
    let filter =
        EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).parse_lossy(directives);
    let colours = file.is_none() && io::stderr().is_terminal();
    let log = fmt().with_env_filter(filter).with_writer(writer(file)?);
    // Somebody may have set a logger already; then that one stays.
    let _ = match format {
        Format::Json => log.json().flatten_event(true).with_current_span(false).try_init(),
        Format::Text => log.with_ansi(colours).try_init(),
    };
    Ok(())
}

fn writer(file: Option<&Path>) -> io::Result<BoxMakeWriter> {
    let Some(path) = file else {
        return Ok(BoxMakeWriter::new(io::stderr));
    };
    let open = || File::options().create(true).append(true).open(path);
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("log file {}: {error}", path.display()));
    Ok(BoxMakeWriter::new(Arc::new(open().map_err(named)?)))
}
