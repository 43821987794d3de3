//! Formatters for log lines: JSON lines with embedded JSON objects, and text lines with control characters escaped.
//!
//! An event of `tracing` has a fixed list of fields. Records and the fields of plugins' log lines are objects of any
//! shape, so they are passed as JSON in one field, and the formatters here convert them to the format of the log.

use std::fmt::{self, Write as _};
use std::sync::LazyLock;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::people;
use crate::records;

/// The target of plugins' log lines.
const PLUGINS: &str = "pintle::plugin";
/// The field that holds a record as JSON, and the one that holds the fields of a plugin's log line as JSON.
const RECORD: &str = "record";
const FIELDS: &str = "fields";

/// The field of this event that holds JSON, if it has one.
fn json_field(event: &Event<'_>) -> Option<(&'static str, String)> {
    let name = match event.metadata().target() {
        records::TARGET => RECORD,
        PLUGINS => FIELDS,
        _ => return None,
    };
    let mut found = Named { name, text: None };
    event.record(&mut found);
    Some((name, found.text?))
}

struct Named {
    name: &'static str,
    text: Option<String>,
}

impl Visit for Named {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == self.name {
            self.text = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

/// Formats JSON lines in which a record is an object, not a string that has to be parsed again.
pub(super) struct JsonLines<F>(pub(super) F);

impl<S, N, F> FormatEvent<S, N> for JsonLines<F>
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
    ) -> fmt::Result {
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        let found = json_field(event);
        if let Some((name, quoted, text)) =
            found.and_then(|(name, text)| Some((name, serde_json::to_string(&text).ok()?, text)))
        {
            // The name is part of the pattern, since the same text may occur earlier in the line as a value. It cannot
            // match within a string, where quotes are escaped.
            let (member, object) = (format!("\"{name}\":{quoted}"), format!("\"{name}\":{text}"));
            line = line.replacen(&member, &object, 1);
        }
        writeln!(writer, "{}", in_json(line.trim_end_matches('\n')))
    }
}

/// Escapes control characters in a JSON line. JSON requires escapes only below U+0020; terminals obey others, too.
fn in_json(text: &str) -> std::borrow::Cow<'_, str> {
    escaped(text, |line, c| {
        // All of them are below U+10000, so one escape is enough.
        let _ = write!(line, "\\u{:04x}", u32::from(c));
    })
}

/// Formats text lines. Control characters other than our own colours are escaped, so that untrusted text can neither
/// start a line nor control a terminal.
pub(super) struct Text<F>(pub(super) F);

impl<S, N, F> FormatEvent<S, N> for Text<F>
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
    ) -> fmt::Result {
        if let Some((name, json)) = json_field(event)
            && let Some(text) = if name == RECORD { people::record(&json) } else { people::fields(&json) }
        {
            start(&mut writer, event)?;
            let line = if name == RECORD { text } else { plugin_line(event, &text) };
            return writeln!(writer, "{}", one_line(&line));
        }
        if writer.has_ansi_escapes() {
            // Colours are control characters that would be escaped, so the fields are formatted without them.
            start(&mut writer, event)?;
            let mut fields = RecordedFields::default();
            event.record(&mut fields);
            return writeln!(writer, "{}", one_line(&(fields.message + &fields.rest)));
        }
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        writeln!(writer, "{}", one_line(line.trim_end_matches('\n')))
    }
}

/// Writes the start of a line: time, level and target.
fn start(writer: &mut Writer<'_>, event: &Event<'_>) -> fmt::Result {
    let (level, target) = (*event.metadata().level(), event.metadata().target());
    let mut time = String::new();
    SystemTime.format_time(&mut Writer::new(&mut time))?;
    if !writer.has_ansi_escapes() {
        return write!(writer, "{time} {level:>5} {target}: ");
    }
    let colour = match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    };
    write!(
        writer,
        "\u{1b}[2m{time}\u{1b}[0m \u{1b}[{colour}m{level:>5}\u{1b}[0m \u{1b}[2m{target}:\u{1b}[0m "
    )
}

/// Formats a plugin's log line: its text, the gateway's fields of the call, and last the plugin's own fields.
fn plugin_line(event: &Event<'_>, plugin_fields: &str) -> String {
    let mut fields = RecordedFields::default();
    event.record(&mut fields);
    format!("{}{} {FIELDS}={{{plugin_fields}}}", fields.message, fields.rest)
}

#[derive(Default)]
struct RecordedFields {
    message: String,
    rest: String,
}

impl Visit for RecordedFields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            FIELDS => {}
            name => {
                let _ = write!(self.rest, " {name}={value:?}");
            }
        }
    }
}

/// Escapes every control character, line ends included.
fn one_line(text: &str) -> std::borrow::Cow<'_, str> {
    escaped(text, |line, c| line.extend(c.escape_default()))
}

fn escaped(text: &str, escape: impl Fn(&mut String, char)) -> std::borrow::Cow<'_, str> {
    if !text.chars().any(pintle_mail::acts_on_terminal) {
        return text.into();
    }
    let mut line = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if pintle_mail::acts_on_terminal(c) { escape(&mut line, c) } else { line.push(c) }
    }
    line.into()
}

/// Filter directives for libraries that log much that no operator can act on. The plugin compiler logs each step of
/// each function below `warn`, and formatting these lines alone takes minutes. rustls logs a client's malformed
/// handshake as a warning, and any client can send thousands. A directive in `PINTLE_LOG` for one of these targets
/// overrides this.
pub(crate) static QUIET: LazyLock<String> = LazyLock::new(|| {
    let compilers =
        ["cranelift_codegen", "cranelift_frontend", "regalloc2", "wasmtime", "wasmtime_cranelift"];
    let others =
        ["wasmtime_environ", "wasmtime_internal_cranelift", "hickory_resolver", "hickory_net", "mio"];
    let quiet = compilers.iter().chain(&others).map(|target| format!("{target}=warn"));
    quiet.chain(["rustls=error".to_owned()]).collect::<Vec<_>>().join(",")
});
