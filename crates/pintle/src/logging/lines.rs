//! The forms of a line: JSON in which what is JSON already is a member, and text that people read.
//!
//! An event of `tracing` has a fixed list of fields. Records, and what plugins say beside their text, are objects of any
//! form, so they come as JSON in one field, and get here the form that the log has.

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

/// The target of what plugins say.
const PLUGINS: &str = "pintle::plugin";
/// The field of a record, and the one of what a plugin says beside its text.
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

/// JSON lines in which an object is a member like any other, and no text to be parsed again.
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
            // With its name, since a text of the same words may stand before it; no text can hold a quote as it is.
            let (member, object) = (format!("\"{name}\":{quoted}"), format!("\"{name}\":{text}"));
            line = line.replacen(&member, &object, 1);
        }
        writeln!(writer, "{}", in_json(line.trim_end_matches('\n')))
    }
}

/// JSON escapes the oldest control signs alone; whoever looks at the log has a terminal that obeys others, too.
fn in_json(text: &str) -> std::borrow::Cow<'_, str> {
    escaped(text, |line, c| {
        // All of them are below U+10000.
        let _ = write!(line, "\\u{:04x}", u32::from(c));
    })
}

/// Lines of text. None holds a control sign but those that colour it: what a stranger wrote begins no line.
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
            && let Some(told) = if name == RECORD { people::record(&json) } else { people::fields(&json) }
        {
            start(&mut writer, event)?;
            let line = if name == RECORD { told } else { said(event, &told) };
            return writeln!(writer, "{}", one_line(&line));
        }
        if writer.has_ansi_escapes() {
            // Colours are control signs, so what is said is made without them.
            start(&mut writer, event)?;
            let mut said = RecordedFields::default();
            event.record(&mut said);
            return writeln!(writer, "{}", one_line(&(said.message + &said.rest)));
        }
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        writeln!(writer, "{}", one_line(line.trim_end_matches('\n')))
    }
}

/// Time, level and target, as all lines have them.
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

/// A plugin's text, what the gateway knows of the call, and last what the plugin added.
fn said(event: &Event<'_>, fields: &str) -> String {
    let mut said = RecordedFields::default();
    event.record(&mut said);
    format!("{}{} {FIELDS}={{{fields}}}", said.message, said.rest)
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

/// The text with every control sign escaped.
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

/// Who logs much that no operator can act on, and at which level that begins to cost: the compiler of plugins tells each
/// step of each function, and making these lines alone takes minutes. A client's odd handshake is a warning to rustls,
/// and any client can send thousands. `PINTLE_LOG` can name a target to hear it nonetheless.
pub(crate) static QUIET: LazyLock<String> = LazyLock::new(|| {
    let compilers =
        ["cranelift_codegen", "cranelift_frontend", "regalloc2", "wasmtime", "wasmtime_cranelift"];
    let others =
        ["wasmtime_environ", "wasmtime_internal_cranelift", "hickory_resolver", "hickory_net", "mio"];
    let quiet = compilers.iter().chain(&others).map(|target| format!("{target}=warn"));
    quiet.chain(["rustls=error".to_owned()]).collect::<Vec<_>>().join(",")
});
