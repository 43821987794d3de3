//! The trace of a dry run: records each plugin's ruling, before the chain combines them to a decision, and each log
//! line.

use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use pintle_policy::{Call, Edit, Hook, Hooks, Judge, Ruling, Verdict, View};
use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::logging::{self, people};

/// Collects rulings and log lines for the report.
#[derive(Default)]
pub(super) struct RulingRecorder(Mutex<RecordedRulings>);

#[derive(Default)]
struct RecordedRulings {
    rulings: Vec<Recorded>,
    lines: Vec<LogLine>,
}

/// One judge's ruling at a stage.
pub(super) struct Recorded {
    pub(super) judge: Arc<str>,
    pub(super) ruling: Ruling,
    /// With `--assume-known`: the text of a deferral that was replaced by `next`. None if nothing was replaced.
    pub(super) passed_over: Option<String>,
    /// The log lines of this call.
    pub(super) lines: Vec<LogLine>,
}

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct LogLine {
    pub(super) level: String,
    /// The plugin that logged the line; none for the gateway's own lines.
    pub(super) plugin: Option<String>,
    /// The hook that logged the line; none while plugins are loaded.
    pub(super) hook: Option<String>,
    pub(super) text: String,
}

impl RulingRecorder {
    /// Starts recording plugins' log lines at this level and above, and the gateway's warnings.
    pub(super) fn listen(level: LevelFilter) -> Arc<Self> {
        let recorder = Arc::new(Self::default());
        let filter = logging::filter(&format!("warn,pintle={level}"));
        let layer = LogLayer(Arc::clone(&recorder)).with_filter(filter);
        // If a global subscriber is set already, no lines are recorded.
        let _ = tracing_subscriber::registry().with(layer).try_init();
        recorder
    }

    /// Takes the rulings recorded since the last call.
    pub(super) fn rulings(&self) -> Vec<Recorded> {
        std::mem::take(&mut self.kept().rulings)
    }

    /// Takes the log lines that belong to no ruling.
    pub(super) fn lines(&self) -> Vec<LogLine> {
        std::mem::take(&mut self.kept().lines)
    }

    fn note(&self, judge: &Arc<str>, hook: &str, ruling: Ruling, passed_over: Option<String>) {
        let mut kept = self.kept();
        let theirs =
            |line: &mut LogLine| line.plugin.as_deref() == Some(judge) && line.hook.as_deref() == Some(hook);
        let lines = kept.lines.extract_if(.., theirs).collect();
        kept.rulings.push(Recorded { judge: Arc::clone(judge), ruling, passed_over, lines });
    }

    fn kept(&self) -> MutexGuard<'_, RecordedRulings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wraps a judge and records its rulings.
pub(super) struct RecordingJudge {
    inner: Arc<dyn Judge>,
    recorder: Arc<RulingRecorder>,
    /// Whether deferrals are replaced by `next`, as if the greylist knew the client (`--assume-known`).
    assume_known: bool,
}

impl RecordingJudge {
    pub(super) fn new(inner: Arc<dyn Judge>, recorder: Arc<RulingRecorder>, assume_known: bool) -> Self {
        Self { inner, recorder, assume_known }
    }

    /// Replaces a deferral by `next` if the client is assumed to be known. Returns the text of the deferral.
    fn pass_over(&self, ruling: &mut Ruling) -> Option<String> {
        if !self.assume_known || ruling.fault.is_some() {
            return None;
        }
        let Verdict::Defer(reply) = &ruling.verdict else { return None };
        let words = reply.as_ref().map(ToString::to_string).unwrap_or_default();
        ruling.verdict = Verdict::Next;
        Some(words)
    }
}

impl Judge for RecordingJudge {
    fn name(&self) -> &Arc<str> {
        self.inner.name()
    }

    fn hooks(&self) -> Hooks {
        self.inner.hooks()
    }

    fn mandatory(&self) -> bool {
        self.inner.mandatory()
    }

    fn is_concerned(&self, hook: Hook, recipient: Option<u32>, view: &View) -> bool {
        self.inner.is_concerned(hook, recipient, view)
    }

    fn after_conflict(&self, hook: Hook) -> Verdict {
        self.inner.after_conflict(hook)
    }

    fn judge(&self, call: Call, view: View) -> BoxFuture<'_, Ruling> {
        Box::pin(async move {
            let hook = call.hook();
            let mut ruling = self.inner.judge(call, view).await;
            let passed_over = self.pass_over(&mut ruling);
            self.recorder.note(self.name(), hook.name(), ruling.clone(), passed_over);
            // The delay is reported, but a dry run does not wait.
            ruling.edits.retain(|edit| !matches!(edit, Edit::Delay(_)));
            ruling
        })
    }
}

struct LogLayer(Arc<RulingRecorder>);

impl<S: Subscriber> Layer<S> for LogLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let by_plugin = metadata.target() == "pintle::plugin";
        let mut words = Words::default();
        event.record(&mut words);
        // Informational lines of a plugin outside hooks, such as that it was loaded, are left out.
        let said_by_it = by_plugin && (words.hook.is_some() || *metadata.level() <= Level::WARN);
        if !said_by_it && *metadata.level() > Level::WARN {
            return;
        }
        let line = LogLine {
            level: metadata.level().as_str().to_ascii_lowercase(),
            plugin: words.plugin,
            hook: words.hook,
            text: words.text + &words.rest,
        };
        self.0.kept().lines.push(line);
    }
}

#[derive(Default)]
struct Words {
    plugin: Option<String>,
    hook: Option<String>,
    text: String,
    rest: String,
}

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "plugin" => self.plugin = Some(format!("{value:?}")),
            "hook" => self.hook = Some(format!("{value:?}")),
            "message" => self.text = format!("{value:?}"),
            // A dry run has only one session.
            "session" | "queue_id" => {}
            name => {
                let _ = write!(self.rest, " {name}={value:?}");
            }
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match people::fields(value) {
            Some(fields) if field.name() == "fields" => {
                let _ = write!(self.rest, " {fields}");
            }
            _ => self.record_debug(field, &format_args!("{value}")),
        }
    }
}
