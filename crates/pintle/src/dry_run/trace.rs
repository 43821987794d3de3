//! The trace of a dry run: each ruling as a plugin gave it, before the chain makes one decision of all, and each line
//! of the log.

use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use pintle_policy::{Call, Edit, Hooks, Judge, Ruling, Verdict, View};
use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::logging::{self, people};

/// Where everything that is said is kept until it is told.
#[derive(Default)]
pub(super) struct RulingRecorder(Mutex<RecordedRulings>);

#[derive(Default)]
struct RecordedRulings {
    rulings: Vec<Recorded>,
    lines: Vec<LogLine>,
}

/// One judge's answer at a stage.
pub(super) struct Recorded {
    pub(super) judge: Arc<str>,
    pub(super) ruling: Ruling,
    /// What it would have said to somebody whom it does not know, where that was passed over.
    pub(super) passed_over: Option<String>,
    pub(super) lines: Vec<LogLine>,
}

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct LogLine {
    pub(super) level: String,
    /// Whose it is; none for the gateway's own.
    pub(super) plugin: Option<String>,
    /// Where it was said; none while plugins are loaded.
    pub(super) hook: Option<String>,
    pub(super) text: String,
}

impl RulingRecorder {
    /// Hears all that plugins log from now on, at this level and above, and the gateway's own warnings.
    pub(super) fn listen(level: LevelFilter) -> Arc<Self> {
        let recorder = Arc::new(Self::default());
        let filter = logging::filter(&format!("warn,pintle={level}"));
        let layer = LogLayer(Arc::clone(&recorder)).with_filter(filter);
        // Somebody may have set a logger already; then there are no lines to tell.
        let _ = tracing_subscriber::registry().with(layer).try_init();
        recorder
    }

    /// The rulings since the last time that somebody asked.
    pub(super) fn rulings(&self) -> Vec<Recorded> {
        std::mem::take(&mut self.kept().rulings)
    }

    /// The lines that were said beside any ruling.
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

/// A judge whose rulings are kept.
pub(super) struct RecordingJudge {
    inner: Arc<dyn Judge>,
    recorder: Arc<RulingRecorder>,
    /// Whoever comes counts as known to it.
    knows_everybody: bool,
}

impl RecordingJudge {
    pub(super) fn new(inner: Arc<dyn Judge>, recorder: Arc<RulingRecorder>, knows_everybody: bool) -> Self {
        Self { inner, recorder, knows_everybody }
    }

    /// Passes over that it would have somebody come again; gives the words.
    fn pass_over(&self, ruling: &mut Ruling) -> Option<String> {
        if !self.knows_everybody || ruling.fault.is_some() {
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

    fn judge(&self, call: Call, view: View) -> BoxFuture<'_, Ruling> {
        Box::pin(async move {
            let hook = call.hook();
            let mut ruling = self.inner.judge(call, view).await;
            let passed_over = self.pass_over(&mut ruling);
            self.recorder.note(self.name(), hook.name(), ruling.clone(), passed_over);
            // It is told, and nobody waits for it.
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
        // That a plugin is live everybody can see.
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
            // All of it is one session.
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
