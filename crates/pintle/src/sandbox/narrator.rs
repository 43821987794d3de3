//! What a newcomer reads: each thing that happens to a message, as it happens, in a line.
//!
//! Two sources feed it: the records that the gateway writes, and what plugins log. Both go to standard output, whole lines
//! at a time, so that lines of two sessions never mix.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use pintle_admin::Captured;
use pintle_mail::QueueId;
use pintle_record::{Record, Sink};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

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

/// Tells what plugins log, and what the gateway warns of.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PluginLines;

impl Sink for Narrator {
    fn record(&self, record: Record) {
        if is_news(&record)
            && let Some(line) = tell(&record)
        {
            print(&line);
        }
        if let Record::Reception(reception) = &record {
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
    pub(crate) fn captured(&self, entry: &Captured) {
        let line = format!("  {} {}", label(Colour::Green, "captured"), entry.file.display());
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
        let mut said = Said::default();
        event.record(&mut said);
        if metadata.target() == "pintle::plugin" {
            print(&said.as_plugin_line());
            *SPOKE_LAST.lock().unwrap_or_else(PoisonError::into_inner) = Some((said.plugin, said.hook));
        } else if *metadata.level() <= Level::WARN {
            print(&format!("  {} {} {}", label(Colour::Red, "warning"), said.message, said.rest.trim_end()));
        }
    }
}

/// The fields of an event that are told.
#[derive(Default)]
struct Said {
    plugin: String,
    hook: String,
    message: String,
    rest: String,
}

impl Said {
    fn as_plugin_line(&self) -> String {
        let hook = if self.hook.is_empty() { "load" } else { &self.hook };
        format!("  {} {}: {}", label(Colour::Blue, hook), self.plugin, self.message)
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let value = format!("{value:?}");
        match field.name() {
            "plugin" => self.plugin = value,
            "hook" => self.hook = value,
            "message" => self.message = value,
            "session" | "queue" | "queue_id" => {}
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

fn tell(record: &Record) -> Option<String> {
    Some(match record {
        Record::Reception(reception) => {
            let to: Vec<String> = reception.recipients.iter().map(ToString::to_string).collect();
            let how = match (&reception.from.identity, &reception.from.tls) {
                (Some(identity), _) => format!(", from {identity}"),
                (None, Some(_)) => ", over TLS".to_owned(),
                (None, None) => String::new(),
            };
            format!(
                "  {} {} from <{}> to {}, {} octets{how}",
                label(Colour::Green, "accepted"),
                reception.id,
                reception.sender,
                to.join(", "),
                reception.size
            )
        }
        Record::Rejection(rejection) => {
            let by = rejection.by.as_deref().map(|by| format!(" (by {by})")).unwrap_or_default();
            format!("  {} at {}: {}{by}", label(Colour::Red, "refused"), rejection.stage, rejection.reply)
        }
        Record::Discard(discard) => {
            format!("  {} {} at {}", label(Colour::Red, "discarded"), discard.id, discard.stage)
        }
        Record::PluginVerdict(verdict) => {
            format!("  {} {}: {}", label(Colour::Blue, &verdict.hook), verdict.plugin, verdict.verdict)
        }
        Record::PluginFault(fault) => format!(
            "  {} {}: {} at {}: {}; so the answer is {}",
            label(Colour::Red, "fault"),
            fault.plugin,
            fault.kind,
            fault.hook,
            fault.text,
            fault.verdict
        ),
        Record::Hold(hold) => {
            let why = hold.quarantine.as_deref().or(hold.reason.as_deref()).unwrap_or("held");
            format!("  {} {} in quarantine {why}", label(Colour::Red, "held"), hold.id)
        }
        Record::Deferral(deferral) => format!(
            "  {} {} for {}: {}; again at {}",
            label(Colour::Red, "deferred"),
            deferral.job.id,
            deferral.job.recipient,
            deferral.reply,
            deferral.next_attempt
        ),
        Record::Bounce(bounce) => format!(
            "  {} {} for {}: {}",
            label(Colour::Red, "failed"),
            bounce.job.id,
            bounce.job.recipient,
            bounce.reply
        ),
        _ => return None,
    })
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
