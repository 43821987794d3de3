//! `pintle quarantine …`: what lies in quarantines and why, the octets, and the two ways out.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::Duration;

use pintle_admin::{
    Client, Exit, Leave, Leaver, Left, Page, Part, QuarantinePage, Quarantined, Sift, SiftPage,
};
use pintle_mail::QueueId;

use super::{Outcome, show, with_client};
use crate::cli::{Leaving, Quarantine, QuarantineCommand};
use crate::say::say;

/// `pintle quarantine …`
pub(crate) fn quarantine(options: Quarantine) -> Outcome {
    let json = options.socket.json;
    with_client(&options.socket, async move |client| match options.command {
        QuarantineCommand::List { name, sender, recipient, limit, after } => {
            let sift = Sift { name, sender, recipient, older_than_ms: None };
            let page = client.quarantine(&SiftPage { sift, page: Page { after, limit } }).await?;
            show(json, &page, print_page);
            Ok(ExitCode::SUCCESS)
        }
        QuarantineCommand::Show { id, header, raw, body } => {
            let part = match (header, raw, body) {
                (true, ..) => Some(Part::Header),
                (_, true, _) => Some(Part::Whole),
                (_, _, true) => Some(Part::Body),
                (false, false, false) => None,
            };
            match part {
                Some(part) => print_octets(&client, id, part).await,
                None => print_details(&client, id, json).await,
            }
        }
        QuarantineCommand::Release(which) => leave(&client, Exit::Release, which, json).await,
        QuarantineCommand::Delete(which) => leave(&client, Exit::Delete, which, json).await,
    })
}

async fn print_details(client: &Client, id: QueueId, json: bool) -> Outcome {
    let message = client.quarantined(id).await?;
    show(json, &message, print_whole);
    if json {
        return Ok(ExitCode::SUCCESS);
    }
    say!("");
    print_octets(client, id, Part::Header).await
}

/// Octets go out as they are: no text, no line ends of ours.
async fn print_octets(client: &Client, id: QueueId, part: Part) -> Outcome {
    let mut trouble = None;
    let mut write = |octets: &[u8]| match io::stdout().lock().write_all(octets) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            trouble = Some(error);
            ControlFlow::Break(())
        }
    };
    client.quarantined_message(id, part, &mut write).await?;
    match trouble.map_or_else(|| io::stdout().lock().flush(), Err) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

async fn leave(client: &Client, exit: Exit, which: Leaving, json: bool) -> Outcome {
    let mut which = request(which)?;
    if !which.is_specific() {
        let verb = exit.name();
        return Err(
            format!("say which messages to {verb}: ids, --all, --all NAME or --older-than TIME").into()
        );
    }
    let mut all = Left::default();
    loop {
        let left = client.leave(exit, &which).await?;
        if !json {
            left.messages.iter().for_each(|leaver| print_leaver(exit, leaver));
        }
        all.messages.extend(left.messages);
        match left.next {
            Some(next) => which.after = Some(next),
            None => break,
        }
    }
    let done = all.messages.iter().filter(|leaver| leaver.done).count();
    show(json, &all, |all| say!("{done} of {} messages: {}", all.messages.len(), past(exit)));
    Ok(if done == all.messages.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn request(which: Leaving) -> Result<Leave, String> {
    let Leaving { ids, all, older_than } = which;
    let older_than = older_than.as_deref().map(pintle_config::duration).transpose()?;
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Ok(Leave {
        ids,
        all: all == Some(None),
        sift: Sift { name: all.flatten(), older_than_ms: older_than.map(millis), ..Sift::default() },
        after: None,
        user: user(),
    })
}

/// The socket tells no more than that it was its owner; who that was behind sudo, the environment knows.
fn user() -> Option<String> {
    let named = |name: &&str| std::env::var(name).ok().filter(|user| !user.is_empty());
    ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(named)
}

fn past(exit: Exit) -> &'static str {
    match exit {
        Exit::Release => "released",
        Exit::Delete => "deleted",
    }
}

fn print_leaver(exit: Exit, leaver: &Leaver) {
    match &leaver.why {
        None => say!("{}  {}", leaver.id, past(exit)),
        Some(why) => say!("{}  not {}: {why}", leaver.id, past(exit)),
    }
}

fn print_page(page: &QuarantinePage) {
    page.messages.iter().for_each(print_entry);
    match page.next {
        Some(next) => say!("more: --after {next}"),
        None => say!("{} messages", page.messages.len()),
    }
}

fn print_entry(message: &Quarantined) {
    let recipients: Vec<String> = message.recipients.iter().map(|to| format!("<{to}>")).collect();
    say!(
        "{}  {}  [{}]  {:>9}  <{}> to {}",
        message.id,
        message.since_ms.rfc3339(),
        message.quarantine,
        message.size,
        message.sender,
        recipients.join(", ")
    );
    say!("    subject  {}", printable(message.subject.as_deref().unwrap_or("(none)")));
    say!("    why      {}", printable(&why(message)));
}

/// Who decided, and the most telling of what was found out.
fn why(message: &Quarantined) -> String {
    let mut parts = vec![format!("by {}", message.by.as_deref().unwrap_or("an unknown judge"))];
    if let Some(stage) = &message.stage {
        parts[0] += &format!(" at {stage}");
    }
    if !message.rules.is_empty() {
        let rules: Vec<String> =
            message.rules.iter().map(|rule| format!("{} {}", rule.rule, rule.points)).collect();
        parts.push(format!("score {} ({})", message.score, rules.join(", ")));
    }
    parts.extend(telling_facts(message).map(|(name, value)| format!("{name}: {value}")));
    parts.extend(message.results.iter().cloned());
    parts.join("; ")
}

/// The facts of whoever decided, which begin with its name by custom; all, where it has kept to none.
fn telling_facts(message: &Quarantined) -> impl Iterator<Item = (&String, &String)> {
    let judge = message.by.as_deref().unwrap_or_default();
    let is_its = move |name: &str| {
        name.strip_prefix(judge).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let has_some = message.facts.keys().any(|name| is_its(name));
    message.facts.iter().filter(move |(name, _)| !has_some || is_its(name))
}

fn print_whole(message: &Quarantined) {
    say!("id          {}", message.id);
    say!("quarantine  {}", message.quarantine);
    say!("since       {}", message.since_ms.rfc3339());
    say!("expires     {}", message.expires_ms.rfc3339());
    say!("received    {}", message.received_ms.rfc3339());
    say!("size        {} octets", message.size);
    if let Some(client) = &message.client {
        say!("client      {client} ({})", printable(message.hello.as_deref().unwrap_or("no name")));
    }
    say!("sender      <{}>", message.sender);
    message.recipients.iter().for_each(|recipient| say!("recipient   <{recipient}>"));
    say!("why         {}", printable(&why(message)));
    for rule in &message.rules {
        say!("  points    {:>6}  {}, by {}", rule.points, printable(&rule.rule), rule.judge);
    }
    for (name, value) in &message.facts {
        say!("  fact      {}: {}", printable(name), printable(value));
    }
}

/// What strangers wrote must not speak to the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strangers_wrote_does_not_speak_to_the_terminal() {
        assert_eq!(printable("free\u{1b}[2J money\r\n"), "free\u{fffd}[2J money\u{fffd}\u{fffd}");
    }

    #[test]
    fn the_reason_holds_what_the_judge_has_found() {
        let mut message: Quarantined = serde_json::from_value(serde_json::json!({
            "id": "01M813Y4P6BMF7KYJYRA4VDQ29", "quarantine": "spoof-guard", "by": "spoof-guard", "stage": "message",
            "since_ms": 0, "expires_ms": 0, "received_ms": 0, "size": 1, "sender": "", "recipients": [], "score": 0.0,
            "rules": [], "results": ["spf=none"], "facts": {"spf": "none", "spoof-guard.found": "own-domain"},
        }))
        .unwrap();
        assert_eq!(why(&message), "by spoof-guard at message; spoof-guard.found: own-domain; spf=none");
        message.by = Some("guard".to_owned());
        assert_eq!(why(&message), "by guard at message; spf: none; spoof-guard.found: own-domain; spf=none");
    }

    #[test]
    fn a_name_after_all_is_a_quarantine_and_a_time_has_a_unit() {
        let leaving = |all: Option<Option<&str>>, older_than: Option<&str>| Leaving {
            ids: Vec::new(),
            all: all.map(|name| name.map(str::to_owned)),
            older_than: older_than.map(str::to_owned),
        };
        let named = request(leaving(Some(Some("dmarc")), Some("7d"))).unwrap();
        assert_eq!((named.all, named.sift.name.as_deref()), (false, Some("dmarc")));
        assert_eq!(named.sift.older_than_ms, Some(604_800_000));
        assert!(request(leaving(Some(None), None)).unwrap().all);
        assert!(!request(leaving(None, None)).unwrap().is_specific());
        assert!(request(leaving(None, Some("7"))).unwrap_err().contains("no unit"));
    }
}
