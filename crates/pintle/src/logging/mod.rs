//! The program's own log: text for people, JSON for machines, on standard error or in a file.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::fmt;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::records;

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
        Format::Json => {
            let log = log.json().flatten_event(true).with_current_span(false);
            log.map_event_format(Members).try_init()
        }
        Format::Text => log.with_ansi(colours).try_init(),
    };
    Ok(())
}

/// JSON lines in which a record is a member like any other, and no text to be parsed again.
struct Members<F>(F);

impl<S, N, F> FormatEvent<S, N> for Members<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let mut record = RecordText::default();
        if event.metadata().target() == records::TARGET {
            event.record(&mut record);
        }
        let Some((quoted, text)) = record.0.and_then(|text| Some((serde_json::to_string(&text).ok()?, text)))
        else {
            return self.0.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        writer.write_str(&line.replacen(&quoted, &text, 1))
    }
}

/// The field `record` of an event.
#[derive(Default)]
struct RecordText(Option<String>);

impl Visit for RecordText {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "record" {
            self.0 = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(octets)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_record_is_a_member_of_its_line() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let writer = Arc::clone(&lines);
        let log = fmt().with_writer(move || Lines(Arc::clone(&writer)));
        let log = log.json().flatten_event(true).with_current_span(false).map_event_format(Members).finish();
        let record = r#"{"event":"hold","reason":"a \"word\""}"#;
        tracing::subscriber::with_default(log, || {
            tracing::info!(target: records::TARGET, event = "hold", record = record);
            tracing::info!(record = record, "elsewhere");
        });
        let text = String::from_utf8(lines.lock().unwrap().clone()).unwrap();
        let parsed: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(parsed[0]["record"]["reason"], "a \"word\"");
        assert_eq!(parsed[1]["record"], record, "what is no record stays as it is");
    }
}
