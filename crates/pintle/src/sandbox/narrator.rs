//! What a newcomer reads: each thing that happens to a message, as it happens, in a line.
//!
//! Two sources feed it: the records that the gateway writes, and what plugins log. Both go to standard output, whole
//! lines at a time, so that lines of two sessions never mix.

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

/// Tells records, and where messages have gone.
#[derive(Debug, Default)]
pub(crate) struct Narrator(Mutex<Order>);

/// A delivery can be done before the reception is told, since both begin with the commit; told the other way round it
/// would puzzle whoever reads it.
#[derive(Debug, Default)]
struct Order {
    /// Receptions told whose delivery has not been.
    told: HashSet<QueueId>,
    /// Lines that wait for a reception to be told.
    waiting: HashMap<QueueId, String>,
}

/// Plugin and hook of the line printed last: a plugin that has just said something need not be quoted with `next` too.
static SPOKE_LAST: Mutex<Option<(String, String)>> = Mutex::new(None);

/// So many characters of what a plugin says are shown.
const MAX_TEXT: usize = 1_000;
/// The target of all that is logged about clients, and what there is no trouble.
const CLIENTS: &str = "pintle_inbound";
const GOES_WELL: [&str; 3] = ["listening", "login", "accepting mail again"];

/// Tells what plugins log, what went wrong with a client, and what the gateway warns of.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PluginLines;

impl RecordSink for Narrator {
    fn record(&self, record: &Record) {
        if is_news(record)
            && let Some((colour, word, text)) = tell(record)
        {
            print(&line(colour, &word, &text));
        }
        if let Record::Reception(reception) = record {
            let mut order = self.order();
            match order.waiting.remove(&reception.id) {
                Some(line) => print(&line),
                None => drop(order.told.insert(reception.id)),
            }
        }
    }
}

impl Narrator {
    /// Tells where a message has gone.
    pub(crate) fn captured(&self, entry: &SandboxMessage) {
        let line = line(Colour::Green, "captured", &entry.file.display().to_string());
        let mut order = self.order();
        // Reports to senders were never received.
        if entry.sender.is_null() || order.told.remove(&entry.id) {
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
        let mut said = EventFields::default();
        event.record(&mut said);
        if metadata.target() == "pintle::plugin" && !said.plugin.is_empty() {
            print(&said.as_plugin_line());
            *SPOKE_LAST.lock().unwrap_or_else(PoisonError::into_inner) = Some((said.plugin, said.hook));
        } else if *metadata.level() <= Level::WARN {
            print(&line(Colour::Red, "warning", &format!("{} {}", said.message, said.rest)));
        } else if metadata.target().starts_with(CLIENTS) && !GOES_WELL.contains(&said.message.as_str()) {
            // Wrong passwords, handshakes that fail, messages that are too large: no record tells of them.
            print(&line(Colour::Red, "trouble", &format!("{} {}", said.message, said.rest)));
        }
    }
}

/// The fields of an event that are told.
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
        // A subject may stand in it as the plugin has seen it.
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

/// No opinion is worth a line only from a plugin that has said nothing else.
fn is_news(record: &Record) -> bool {
    let Record::PluginVerdict(verdict) = record else {
        return true;
    };
    let spoke = SPOKE_LAST.lock().unwrap_or_else(PoisonError::into_inner);
    let by_same = |(plugin, hook): &(String, String)| *plugin == verdict.plugin && *hook == verdict.hook;
    verdict.verdict != "next" || !spoke.as_ref().is_some_and(by_same)
}

/// Colour and word that a line begins with, and what it says.
fn tell(record: &Record) -> Option<(Colour, String, String)> {
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
            (Colour::Red, "fault", format!("{plugin}: {kind} at {hook}: {text}; so the answer is {verdict}"))
        }
        Record::Hold(hold) => {
            let why = hold.quarantine.as_deref().or(hold.reason.as_deref()).unwrap_or("held");
            (Colour::Red, "held", format!("{} in quarantine {why}", hold.id))
        }
        Record::Deferral(Deferral { job, reply, next_attempt, .. }) => {
            let text = format!("{} for {}: {reply}; again at {next_attempt}", job.id, job.recipient);
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

/// A line: its first word, coloured, and then what strangers may have had a hand in.
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

/// The word in colour, on a terminal that wants it (<https://no-color.org>).
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

/// A line that cannot be written, to a pipe whose reader has gone, is nobody's loss.
fn print(line: &str) {
    *SPOKE_LAST.lock().unwrap_or_else(PoisonError::into_inner) = None;
    let _ = writeln!(std::io::stdout(), "{line}");
}
