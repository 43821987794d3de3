//! The program's log: text or JSON lines, on standard error or in a file.

mod lines;
pub(crate) mod people;

use std::fs::File;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::Arc;

use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::fmt;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use self::lines::{JsonLines, QUIET, Text};

/// The format of log lines.
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
    let filter = filter(&std::env::var("PINTLE_LOG").unwrap_or_else(|_| level.to_owned()));
    let colours = file.is_none() && io::stderr().is_terminal();
    // A line that cannot be written is lost. By default the library reports that by `eprintln!`, which panics if the
    // log's reader is gone or its disk is full. Logging the panic would panic again, and the process would abort.
    let log = fmt().with_env_filter(filter).with_writer(writer(file)?).log_internal_errors(false);
    // If a global subscriber is set already, it stays.
    let _ = match format {
        Format::Json => {
            let log = log.json().flatten_event(true).with_current_span(false);
            log.map_event_format(JsonLines).try_init()
        }
        Format::Text => log.with_ansi(colours).map_event_format(Text).try_init(),
    };
    Ok(())
}

/// Builds the log filter from directives. The targets in [`QUIET`] are limited first, so that their lines are not even
/// formatted; a directive for one of these targets overrides the limit.
pub(crate) fn filter(directives: &str) -> EnvFilter {
    let all = format!("{},{directives}", *QUIET);
    EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).parse_lossy(all)
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
    use crate::records;

    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(octets)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written while this runs.
    fn written(format: Format, events: impl FnOnce()) -> Vec<String> {
        written_in(format, false, events)
    }

    fn written_in(format: Format, colours: bool, events: impl FnOnce()) -> Vec<String> {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let writer = Arc::clone(&lines);
        let log = fmt()
            .with_env_filter(filter("trace"))
            .with_writer(move || Lines(Arc::clone(&writer)))
            .with_ansi(colours);
        match format {
            Format::Json => {
                let log = log.json().flatten_event(true).with_current_span(false).map_event_format(JsonLines);
                tracing::subscriber::with_default(log.finish(), events);
            }
            Format::Text => {
                tracing::subscriber::with_default(log.map_event_format(Text).finish(), events);
            }
        }
        let text = String::from_utf8(lines.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    const RECORD: &str = r#"{"event":"hold","time":"t","queue-id":"01M8","reason":"a \"word\"\nERROR"}"#;
    const FIELDS: &str = r#"{"network":"192.0.2.0/24","n":"1"}"#;

    fn events() {
        tracing::info!(target: records::TARGET, queue_id = "01M8", record = RECORD);
        tracing::info!(record = RECORD, "elsewhere");
        tracing::info!(target: "pintle::plugin", plugin = "grey", queue_id = "01M8", fields = FIELDS, "{FIELDS}");
    }

    #[test]
    fn what_is_json_is_a_member_of_its_line() {
        let lines = written(Format::Json, events);
        let parsed: Vec<serde_json::Value> =
            lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(parsed[0]["record"]["reason"], "a \"word\"\nERROR");
        assert_eq!(parsed[1]["record"], RECORD, "what is no record stays as it is");
        assert_eq!(parsed[2]["fields"]["network"], "192.0.2.0/24");
        assert_eq!(parsed[2]["message"], FIELDS, "a text of the same words stays text");
    }

    #[test]
    fn lines_of_text_are_for_people() {
        let lines = written(Format::Text, events);
        let after = |line: &str| line.split_once("INFO ").map(|(_, rest)| rest.to_owned()).unwrap();
        assert_eq!(
            after(&lines[0]),
            r#"pintle::record: hold queue_id=01M8 reason="a \"word\"\nERROR""#,
            "no JSON, and one line"
        );
        let plugin = r#"plugin="grey" queue_id="01M8" fields={network="192.0.2.0/24" n="1"}"#;
        assert_eq!(after(&lines[2]), format!("pintle::plugin: {FIELDS} {plugin}"));
    }

    #[test]
    fn nothing_that_a_stranger_wrote_begins_a_line_or_speaks_to_a_terminal() {
        let error = "no\nERROR forged\u{1b}[2J\u{9b}2J\u{202e}";
        for (format, colours) in [(Format::Text, false), (Format::Json, false), (Format::Text, true)] {
            let lines =
                written_in(format, colours, || tracing::info!(%error, word = error, "refused: {error}"));
            assert_eq!(lines.len(), 1, "{lines:?}");
            let (_, said) = lines[0].split_once("refused").unwrap();
            assert!(said.contains("error") && said.contains("word"), "{said}");
            assert!(!said.chars().any(pintle_mail::acts_on_terminal), "{lines:?}");
            if format == Format::Json {
                let line: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
                assert_eq!(line["error"], error, "nothing is lost");
            }
        }
    }

    /// The compiler of plugins says so much that the start takes minutes where all of it is made into lines.
    #[test]
    fn what_the_compiler_says_is_not_asked_for() {
        let heard = |level: &str, chosen: &str| {
            let filter = filter(&format!("{level}{chosen}"));
            let log = fmt().with_env_filter(filter).with_writer(io::sink).finish();
            tracing::subscriber::with_default(log, || {
                (
                    tracing::enabled!(target: "cranelift_codegen::context", tracing::Level::DEBUG),
                    tracing::enabled!(target: "pintle_outbound", tracing::Level::DEBUG),
                )
            })
        };
        assert_eq!(heard("debug", ""), (false, true));
        assert_eq!(heard("info", ""), (false, false));
        assert_eq!(heard("info", ",cranelift_codegen=debug"), (true, false));
    }
}
