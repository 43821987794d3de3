//! The guest log: log lines and printed output of a plugin. Every line carries the plugin's name and the hook, session
//! and queue id of the call. Lines above the rate limit are dropped and counted.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use pintle_mail::{QueueId, SessionId};
use pintle_policy::{Hook, View};
use tracing::Level;

use crate::state::GenerationState;

/// Maximum length of a line's text, in octets.
pub(crate) const MAX_TEXT: usize = 4096;
/// Maximum number of fields of a line.
const MAX_FIELDS: usize = 16;

/// The log of one instance.
pub(crate) struct GuestLog {
    state: Arc<GenerationState>,
    scope: Mutex<LogScope>,
}

#[derive(Clone, Copy, Default)]
struct LogOrigin {
    hook: Option<Hook>,
    session: Option<SessionId>,
    queue_id: Option<QueueId>,
}

#[derive(Default)]
struct LogScope {
    place: LogOrigin,
    /// The last printed lines; added to a fault, since they hold the panic message.
    printed: VecDeque<String>,
}

impl GuestLog {
    pub(crate) fn new(state: Arc<GenerationState>) -> Self {
        Self { state, scope: Mutex::default() }
    }

    /// Starts a new call: sets the hook and ids for the following lines.
    pub(crate) fn begin(&self, hook: Option<Hook>, view: Option<&View>) {
        let mut scope = self.scope.lock();
        scope.place = LogOrigin {
            hook,
            session: view.map(|view| view.session.id),
            queue_id: view.and_then(|view| view.transaction.as_ref()).map(|transaction| transaction.id),
        };
        scope.printed.clear();
    }

    /// Writes a log line.
    pub(crate) fn write(&self, level: Level, text: &str, fields: &[(String, String)]) {
        let Some(suppressed) = self.state.log_quota.take(Instant::now()) else {
            return;
        };
        let place = self.scope.lock().place;
        if suppressed > 0 {
            tracing::warn!(target: "pintle::plugin", plugin = %self.state.plugin, suppressed, "the plugin exceeds its rate of log lines; some were dropped");
        }
        emit(&self.state.plugin, place, level, &clean(text), object(fields).as_deref());
    }

    /// Logs a line that the guest printed.
    pub(crate) fn print(&self, line: &str) {
        let mut scope = self.scope.lock();
        if scope.printed.len() == 4 {
            scope.printed.pop_front();
        }
        scope.printed.push_back(clean(line));
        drop(scope);
        self.write(Level::INFO, line, &[]);
    }

    /// The last lines printed in this call; `None` if there are none.
    pub(crate) fn last_words(&self) -> Option<String> {
        let scope = self.scope.lock();
        let lines: Vec<_> = scope.printed.iter().map(String::as_str).collect();
        (!lines.is_empty()).then(|| lines.join(" / "))
    }
}

fn emit(plugin: &str, place: LogOrigin, level: Level, text: &str, fields: Option<&str>) {
    let hook = place.hook.map(Hook::name);
    let session = place.session.map(tracing::field::display);
    let queue_id = place.queue_id.map(tracing::field::display);
    macro_rules! at {
        ($level:ident) => {
            tracing::event!(
                target: "pintle::plugin", Level::$level, plugin, hook, session, queue_id, fields, "{text}"
            )
        };
    }
    match level {
        Level::TRACE => at!(TRACE),
        Level::DEBUG => at!(DEBUG),
        Level::INFO => at!(INFO),
        Level::WARN => at!(WARN),
        Level::ERROR => at!(ERROR),
    }
}

/// Whether the log records this level.
pub(crate) fn enabled(level: Level) -> bool {
    match level {
        Level::TRACE => tracing::enabled!(target: "pintle::plugin", Level::TRACE),
        Level::DEBUG => tracing::enabled!(target: "pintle::plugin", Level::DEBUG),
        Level::INFO => tracing::enabled!(target: "pintle::plugin", Level::INFO),
        Level::WARN => tracing::enabled!(target: "pintle::plugin", Level::WARN),
        Level::ERROR => tracing::enabled!(target: "pintle::plugin", Level::ERROR),
    }
}

/// Truncates the text and replaces control characters: otherwise a plugin could forge log lines of another source.
pub(crate) fn clean(text: &str) -> String {
    let end = text.floor_char_boundary(MAX_TEXT);
    let safe = |c: char| if c.is_control() { ' ' } else { c };
    text[..end].trim_end().chars().map(safe).collect()
}

/// The fields as a JSON object, which the log formats; `None` if there are no fields. Excess fields are dropped; of
/// duplicate names the first is kept.
fn object(fields: &[(String, String)]) -> Option<String> {
    let mut members: Vec<(String, String)> = Vec::new();
    let mut room = MAX_TEXT;
    for (name, value) in fields.iter().take(MAX_FIELDS) {
        let (name, value) = (clean(name), clean(value));
        let Some(rest) = room.checked_sub(name.len() + value.len()) else { break };
        if members.iter().all(|(known, _)| *known != name) {
            room = rest;
            members.push((name, value));
        }
    }
    let quoted = |text: String| serde_json::Value::from(text).to_string();
    let each = members.into_iter().map(|(name, value)| format!("{}:{}", quoted(name), quoted(value)));
    let each: Vec<_> = each.collect();
    (!each.is_empty()).then(|| format!("{{{}}}", each.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_one_bounded_object() {
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let given = [field("b", "1\n\"2\""), field("a", "x"), field("b", "again"), field("", "")];
        assert_eq!(object(&given).unwrap(), r#"{"b":"1 \"2\"","a":"x","":""}"#, "in their order");
        assert_eq!(object(&[]), None);
        let long = object(&[field("n", &"x".repeat(3_000)), field("m", &"x".repeat(3_000))]).unwrap();
        let read: serde_json::Value = serde_json::from_str(&long).unwrap();
        assert_eq!(read.as_object().unwrap().len(), 1, "cut between members, and JSON still");
    }

    #[test]
    fn no_line_can_look_like_two() {
        assert_eq!(clean("a\r\nERROR b\x1b[31m\n"), "a  ERROR b [31m");
        assert!(clean(&"ü".repeat(MAX_TEXT)).len() <= MAX_TEXT);
    }
}
