//! The sandbox's live output: one line for each event of a message and for each log line of a plugin.
//!
//! It has two sources: the gateway's event records and the plugins' log. Both are written to standard output in whole
//! lines, so that lines of concurrent sessions do not mix.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use pintle_admin::SandboxMessage;
use pintle_mail::QueueId;
use pintle_record::{Bounce, Deferral, PluginFault, Reception, Record, RecordSink};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use crate::output;

/// Prints event records, and the files of captured messages.
#[derive(Debug, Default)]
pub(crate) struct Narrator(Mutex<Order>);

/// Keeps the lines of a message in order. Reception record and delivery both start at the commit, so a message can be
/// captured before its reception is printed; its line then waits for the reception.
#[derive(Debug, Default)]
struct Order {
    /// Messages whose reception was printed and that are not captured yet.
    received: HashSet<QueueId>,
    /// The lines of captured messages whose reception was not printed yet.
    waiting: HashMap<QueueId, String>,
}

/// Plugin and hook of the last line, if it was a plugin's log line: a verdict `next` of the same call is then not
/// printed.
static SPOKE_LAST: Mutex<Option<(String, String)>> = Mutex::new(None);

/// The maximum length of a plugin's text in a line, in characters.
const MAX_TEXT: usize = 1_000;
/// The target of log lines about clients, and those of its messages that are no problem.
const CLIENTS: &str = "pintle_inbound";
const HARMLESS: [&str; 3] = ["listening", "login", "accepting mail again"];

/// A tracing layer that prints plugins' log lines, problems with clients, and the gateway's warnings.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PluginLines;

impl RecordSink for Narrator {
    fn record(&self, record: &Record) {
        if is_news(record)
            && let Some((colour, word, text)) = describe(record)
        {
            print(&line(colour, &word, &text));
        }
        if let Record::Reception(reception) = record {
            let mut order = self.order();
            match order.waiting.remove(&reception.id) {
                Some(line) => print(&line),
                None => drop(order.received.insert(reception.id)),
            }
        }
    }
}

impl Narrator {
    /// Prints the file of a captured message, after the line of its reception.
    pub(crate) fn captured(&self, entry: &SandboxMessage) {
        let line = line(Colour::Green, "captured", &entry.file.display().to_string());
        let mut order = self.order();
        // Bounces have no reception record.
        if entry.sender.is_null() || order.received.remove(&entry.id) {
            print(&line);
        } else {
            order.waiting.insert(entry.id, line);
        }
    }

    fn order(&self) -> MutexGuard<'_, Order> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subscriber> Layer<S> for PluginLines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut fields = EventFields::default();
        event.record(&mut fields);
        if metadata.target() == "pintle::plugin" && !fields.plugin.is_empty() {
            print(&fields.as_plugin_line());
            *SPOKE_LAST.lock().unwrap_or_else(PoisonError::into_inner) = Some((fields.plugin, fields.hook));
        } else if *metadata.level() <= Level::WARN {
            print(&line(Colour::Red, "warning", &format!("{} {}", fields.message, fields.rest)));
        } else if metadata.target().starts_with(CLIENTS) && !HARMLESS.contains(&fields.message.as_str()) {
            // Wrong passwords, failed handshakes, messages that are too large: there are no records of these.
            print(&line(Colour::Red, "problem", &format!("{} {}", fields.message, fields.rest)));
        }
    }
}

/// The fields of an event that are printed.
#[derive(Default)]
struct EventFields {
    plugin: String,
    hook: String,
    message: String,
    rest: String,
}

impl EventFields {
    fn as_plugin_line(&self) -> String {
        let hook = if self.hook.is_empty() { "load" } else { &self.hook };
        // The text may hold untrusted text, such as a subject.
        let message = pintle_mail::shown(&self.message, MAX_TEXT);
        line(Colour::Blue, hook, &format!("{}: {message}", self.plugin))
    }
}

impl Visit for EventFields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let value = format!("{value:?}");
        match field.name() {
            "plugin" => self.plugin = value,
            "hook" => self.hook = value,
            "message" => self.message = value,
            "session" | "queue_id" | "fields" => {}
            name => {
                let _ = write!(self.rest, "{name}={value} ");
            }
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

/// Whether a record is printed. A verdict `next` is left out if the plugin has just logged something in the same call.
fn is_news(record: &Record) -> bool {
    let Record::PluginVerdict(verdict) = record else {
        return true;
    };
    let spoke = SPOKE_LAST.lock().unwrap_or_else(PoisonError::into_inner);
    let by_same = |(plugin, hook): &(String, String)| *plugin == verdict.plugin && *hook == verdict.hook;
    verdict.verdict != "next" || !spoke.as_ref().is_some_and(by_same)
}

/// The colour, first word and text of a record's line. None for records that are not printed.
fn describe(record: &Record) -> Option<(Colour, String, String)> {
    let (colour, word, text) = match record {
        Record::Reception(reception) => (Colour::Green, "accepted", accepted(reception)),
        Record::Rejection(rejection) => {
            let by = rejection.by.as_deref().map(|by| format!(" (by {by})")).unwrap_or_default();
            (Colour::Red, "refused", format!("at {}: {}{by}", rejection.stage, rejection.reply))
        }
        Record::Discard(discard) => {
            (Colour::Red, "discarded", format!("{} at {}", discard.id, discard.stage))
        }
        Record::PluginVerdict(verdict) => {
            (Colour::Blue, verdict.hook.as_str(), format!("{}: {}", verdict.plugin, verdict.verdict))
        }
        Record::PluginFault(fault) => {
            let PluginFault { plugin, kind, hook, text, verdict, .. } = fault;
            (Colour::Red, "fault", format!("{plugin}: {kind} at {hook}: {text}; the verdict is {verdict}"))
        }
        Record::Hold(hold) => {
            let why = hold.quarantine.as_deref().or(hold.reason.as_deref()).unwrap_or("held");
            (Colour::Red, "held", format!("{} in quarantine {why}", hold.id))
        }
        Record::Deferral(Deferral { job, reply, next_attempt, .. }) => {
            let text = format!("{} for {}: {reply}; next attempt at {next_attempt}", job.id, job.recipient);
            (Colour::Red, "deferred", text)
        }
        Record::Bounce(Bounce { job, reply, .. }) => {
            (Colour::Red, "failed", format!("{} for {}: {reply}", job.id, job.recipient))
        }
        _ => return None,
    };
    Some((colour, word.to_owned(), text))
}

fn accepted(reception: &Reception) -> String {
    let to: Vec<String> = reception.recipients.iter().map(ToString::to_string).collect();
    let how = match (&reception.from.identity, &reception.from.tls) {
        (Some(identity), _) => format!(", from {identity}"),
        (None, Some(_)) => ", over TLS".to_owned(),
        (None, None) => String::new(),
    };
    let subject = reception.subject.as_deref().map(|subject| format!(": \"{subject}\"")).unwrap_or_default();
    let Reception { id, sender, size, .. } = reception;
    format!("{id} from <{sender}> to {}, {size} octets{how}{subject}", to.join(", "))
}

/// Formats a line: the coloured first word, then the text with terminal escapes removed.
fn line(colour: Colour, word: &str, text: &str) -> String {
    format!("  {} {}", label(colour, word), output::escape_untrusted(text.trim_end()))
}

#[derive(Clone, Copy)]
enum Colour {
    Green,
    Red,
    Blue,
}

/// The first word of a line, as wide as the longest hook's name.
fn label(colour: Colour, word: &str) -> String {
    paint(colour, &format!("{word:<15}"))
}

/// Colours the word if standard output is a terminal and `NO_COLOR` is not set (<https://no-color.org>).
fn paint(colour: Colour, word: &str) -> String {
    static COLOURS: OnceLock<bool> = OnceLock::new();
    let colours =
        COLOURS.get_or_init(|| std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none());
    if !colours {
        return word.to_owned();
    }
    let code = match colour {
        Colour::Green => 32,
        Colour::Red => 31,
        Colour::Blue => 36,
    };
    format!("\u{1b}[{code}m{word}\u{1b}[0m")
}

/// Prints a line. Errors, such as a broken pipe, are ignored.
fn print(line: &str) {
    *SPOKE_LAST.lock().unwrap_or_else(PoisonError::into_inner) = None;
    let _ = writeln!(std::io::stdout(), "{line}");
}
