//! The text output of a dry run (`pintle try` without `--json`).

use super::report::{DryRunReport, EnvelopeReport, PluginReport, RecipientReport, StageReport};
use super::trace::LogLine;
use crate::output::{escape_untrusted as shown, say};

/// What a dry run does not cover, although the gateway does it.
pub(super) const NOT_JUDGED: &[&str] = &[
    "session and rate limits, and the free space of spool and quarantines",
    "authentication and TLS: --identity and --tls are not verified, and on-auth-password and on-auth-result are not called",
    "plugin state: it is read from [plugins] `state`, as last saved, and never written; without that folder, greylists \
     and counters are empty",
    "delivery: nothing is sent, and on-queued, on-delivery-result and on-disconnect are not called",
];

/// Prints the report.
pub(super) fn print(report: &DryRunReport) {
    let mended = if report.mended { ", line ends converted to CRLF" } else { "" };
    say!("message   {} octets{mended}", report.size);
    say!("session   {}", session(report));
    say!("envelope  {}", envelope(&report.envelope));
    report.stages.iter().for_each(stage);
    say!("");
    say!("result    {}", result(report));
    for RecipientReport { recipient, fate, by, text } in &report.set_aside {
        let text = text.as_deref().map(|text| format!(": {text}")).unwrap_or_default();
        say!("          {}", shown(&format!("<{recipient}>: {fate}, by {by}{text}")));
    }
    if report.score != 0.0 {
        say!("score     {:.1}", report.score);
    }
    report.auth_results.iter().for_each(|result| say!("auth      {}", shown(result)));
    changes(report);
    if !report.log.is_empty() {
        say!("\nlogged outside the stages:");
        report.log.iter().for_each(log);
    }
    say!("\nnot judged here:");
    report.not_judged.iter().for_each(|what| say!("  {what}"));
}

fn session(report: &DryRunReport) -> String {
    let session = &report.session;
    let who = match (&session.identity, session.trusted) {
        (Some(identity), _) => format!("authenticated as {identity}"),
        (None, true) => "trusted".to_owned(),
        (None, false) => "a stranger".to_owned(),
    };
    let tls = if session.tls { ", over TLS" } else { "" };
    shown(&format!("{} as {} at listener {}, {who}{tls}", session.client, session.hello, session.listener))
}

fn envelope(envelope: &EnvelopeReport) -> String {
    let to: Vec<_> = envelope.recipients.iter().map(|address| format!("<{address}>")).collect();
    shown(&format!("<{}> to {}", envelope.sender, to.join(", ")))
}

fn stage(stage: &StageReport) {
    let about = stage.about.as_deref().map(|about| format!(" {}", shown(about))).unwrap_or_default();
    say!("\n{}{about}", stage.stage);
    if stage.plugins.is_empty() {
        say!("  no plugin is called");
    }
    stage.plugins.iter().for_each(plugin);
    stage.gateway.iter().for_each(|said| say!("  the gateway: {}", shown(said)));
    if stage.delay_ms > 0 {
        say!("  the reply waits {} ms", stage.delay_ms);
    }
    if let Some(by) = &stage.by {
        let reply = stage.reply.as_deref().map(|reply| format!(": {}", shown(reply))).unwrap_or_default();
        say!("  = {}, by {by}{reply}", stage.verdict);
    }
    if let Some(diff) = &stage.header_diff {
        difference(diff);
    }
}

fn plugin(plugin: &PluginReport) {
    let reply = plugin.reply.as_deref().map(|reply| format!("  {}", shown(reply))).unwrap_or_default();
    let overruled = if plugin.overruled { " (overruled: another plugin has accepted)" } else { "" };
    say!("  {:<16} {}{overruled}{reply}", plugin.plugin, plugin.verdict);
    let detail = |name: &str, text: &str| say!("    {name:<6} {}", shown(text));
    if let Some(words) = &plugin.assumed_known {
        detail("known", &format!("as assumed; otherwise it would have said {words}"));
    }
    if let Some(fault) = &plugin.fault {
        detail("fault", fault);
    }
    plugin.facts.iter().for_each(|(key, value)| detail("fact", &format!("{key} = {value}")));
    plugin.scores.iter().for_each(|(rule, points)| detail("score", &format!("{rule} {points:+.1}")));
    plugin.auth_results.iter().for_each(|result| detail("auth", result));
    plugin.changes.iter().for_each(|change| detail("change", change));
    plugin.log.iter().for_each(|line| detail("log", &format!("{}: {}", line.level, line.text)));
}

fn result(report: &DryRunReport) -> String {
    let by = report.by.as_deref().map(|by| format!(", by {by}")).unwrap_or_default();
    let reply = report.reply.as_deref().map(|reply| format!(": {reply}")).unwrap_or_default();
    shown(&format!("{}{by}{reply}", report.fate.words()))
}

fn changes(report: &DryRunReport) {
    if let Some(new) = &report.new_envelope {
        say!("\nenvelope:");
        let before =
            EnvelopeReport { sender: report.envelope.sender.clone(), recipients: report.taken.clone() };
        say!("- {}", envelope(&before));
        say!("+ {}", envelope(new));
    }
    match &report.header_diff {
        Some(diff) => {
            say!("\nheader:");
            difference(diff);
        }
        None => say!("\nheader    unchanged"),
    }
    if let Some(diff) = &report.written {
        say!("\nwritten by the gateway itself:");
        difference(diff);
    }
    if report.body.changed {
        say!("body      changed, from {} octets to {}", report.body.before, report.body.after);
    } else {
        say!("body      unchanged");
    }
    if let Some(diff) = &report.body.diff {
        difference(diff);
    }
}

fn difference(diff: &str) {
    diff.lines().for_each(|line| say!("{}", shown(line)));
}

fn log(line: &LogLine) {
    let who = line.plugin.as_deref().unwrap_or("the gateway");
    let hook = line.hook.as_deref().map(|hook| format!(" at {hook}")).unwrap_or_default();
    say!("  {who}{hook}, {}: {}", line.level, shown(&line.text));
}
