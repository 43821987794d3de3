//! `pintle quarantine …`: lists quarantined messages and the reasons, prints their content, releases and deletes them.

use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::Duration;

use pintle_admin::{
    AdminClient, ClientError, MessagePart, PageQuery, QuarantineAction, QuarantineFilter, QuarantineOrder,
    QuarantineOutcome, QuarantinePage, QuarantineQuery, QuarantineResult, Quarantined,
};
use pintle_mail::QueueId;

use super::{show, with_client};
use crate::cli::{Leaving, QuarantineCommand, QuarantineOptions};
use crate::output::{CommandResult, escape_untrusted, say};

/// Runs `pintle quarantine …`.
pub(crate) fn quarantine(options: QuarantineOptions) -> CommandResult {
    let json = options.socket.json;
    with_client(&options.socket, async move |client| match options.command {
        QuarantineCommand::List { name, sender, recipient, limit, after } => {
            let sift = QuarantineFilter { name, sender, recipient, older_than_ms: None };
            let page = client.quarantine(&QuarantineQuery { sift, page: PageQuery { after, limit } }).await?;
            show(json, &page, print_page);
            Ok(ExitCode::SUCCESS)
        }
        QuarantineCommand::Show { id, header, raw, body } => {
            let part = match (header, raw, body) {
                (true, ..) => Some(MessagePart::Header),
                (_, true, _) => Some(MessagePart::Whole),
                (_, _, true) => Some(MessagePart::Body),
                (false, false, false) => None,
            };
            match part {
                Some(part) => print_octets(&client, id, part).await,
                None => print_details(&client, id, json).await,
            }
        }
        QuarantineCommand::Release(which) => leave(&client, QuarantineAction::Release, which, json).await,
        QuarantineCommand::Delete(which) => leave(&client, QuarantineAction::Delete, which, json).await,
    })
}

async fn print_details(client: &AdminClient, id: QueueId, json: bool) -> CommandResult {
    let message = client.quarantined(id).await?;
    show(json, &message, print_whole);
    if json {
        return Ok(ExitCode::SUCCESS);
    }
    say!("");
    print_text(client, id, MessagePart::Header).await
}

/// Writes the octets unchanged, without text or line ends of ours. On a terminal, terminal escapes are removed.
async fn print_octets(client: &AdminClient, id: QueueId, part: MessagePart) -> CommandResult {
    let mut out = io::stdout();
    if out.is_terminal() {
        return print_text(client, id, part).await;
    }
    let written = fetch(client, id, part, |octets| out.write_all(octets)).await?;
    exit_code(written.and_then(|()| out.flush()))
}

/// Prints the octets as text, with terminal escapes removed.
async fn print_text(client: &AdminClient, id: QueueId, part: MessagePart) -> CommandResult {
    let mut terminal = Terminal::new(io::stdout());
    let written = fetch(client, id, part, |octets| terminal.write(octets)).await?;
    exit_code(written.and_then(|()| terminal.end()))
}

/// Fetches octets and passes them to `take` until the end or until `take` fails. Returns the result of `take`.
async fn fetch(
    client: &AdminClient,
    id: QueueId,
    part: MessagePart,
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<io::Result<()>, ClientError> {
    let mut taken = Ok(());
    let mut write = |octets: &[u8]| {
        taken = take(octets);
        if taken.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    client.quarantined_message(id, part, &mut write).await?;
    Ok(taken)
}

fn exit_code(written: io::Result<()>) -> CommandResult {
    match written {
        // A broken pipe is no error: the reader, such as `head`, has read enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Writes octets line by line with terminal escapes removed. Octets are buffered until a line is complete, so that no
/// character is split.
struct Terminal<W> {
    out: W,
    line: Vec<u8>,
}

impl<W: Write> Terminal<W> {
    fn new(out: W) -> Self {
        Self { out, line: Vec::new() }
    }

    fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        for part in octets.split_inclusive(|octet| *octet == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                self.end()?;
            }
        }
        Ok(())
    }

    /// Writes the buffered line, or the rest of the last one.
    fn end(&mut self) -> io::Result<()> {
        let line = std::mem::take(&mut self.line);
        let (text, end) = match line.strip_suffix(b"\n") {
            Some(text) => (text.strip_suffix(b"\r").unwrap_or(text), "\n"),
            None => (line.as_slice(), ""),
        };
        write!(self.out, "{}{end}", escape_untrusted(&String::from_utf8_lossy(text)))?;
        self.out.flush()
    }
}

async fn leave(client: &AdminClient, exit: QuarantineAction, which: Leaving, json: bool) -> CommandResult {
    let mut which = request(which)?;
    if !which.is_specific() {
        let verb = exit.name();
        return Err(
            format!("say which messages to {verb}: ids, --all, --all NAME or --older-than TIME").into()
        );
    }
    let mut all = QuarantineResult::default();
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

fn request(which: Leaving) -> Result<QuarantineOrder, String> {
    let Leaving { ids, all, older_than } = which;
    let older_than = older_than.as_deref().map(pintle_config::duration).transpose()?;
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Ok(QuarantineOrder {
        ids,
        all: all == Some(None),
        sift: QuarantineFilter {
            name: all.flatten(),
            older_than_ms: older_than.map(millis),
            ..QuarantineFilter::default()
        },
        after: None,
        user: user(),
    })
}

/// The user who runs the command, for the event log. The socket's peer credentials only show its owner or root; under
/// `sudo`, the environment has the user's name.
fn user() -> Option<String> {
    let named = |name: &&str| std::env::var(name).ok().filter(|user| !user.is_empty());
    ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(named)
}

fn past(exit: QuarantineAction) -> &'static str {
    match exit {
        QuarantineAction::Release => "released",
        QuarantineAction::Delete => "deleted",
    }
}

fn print_leaver(exit: QuarantineAction, leaver: &QuarantineOutcome) {
    match &leaver.why {
        None => say!("{}  {}", leaver.id, past(exit)),
        Some(why) => say!("{}  not {}: {}", leaver.id, past(exit), escape_untrusted(why)),
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
    let recipients: Vec<String> =
        message.recipients.iter().map(|to| format!("<{}>", escape_untrusted(to.as_str()))).collect();
    say!(
        "{}  {}  [{}]  {:>9}  <{}> to {}",
        message.id,
        message.since_ms.rfc3339(),
        escape_untrusted(&message.quarantine),
        message.size,
        escape_untrusted(message.sender.as_str()),
        recipients.join(", ")
    );
    say!("    subject  {}", escape_untrusted(message.subject.as_deref().unwrap_or("(none)")));
    say!("    why      {}", escape_untrusted(&why(message)));
}

/// Why a message is in quarantine: who decided, the rules with points, the judge's facts, the authentication results.
fn why(message: &Quarantined) -> String {
    let mut parts = vec![format!("by {}", message.by.as_deref().unwrap_or("an unknown judge"))];
    if let Some(stage) = &message.stage {
        parts[0] += &format!(" at {stage}");
    }
    if let Some(reason) = &message.reason {
        parts[0] += &format!(": {reason}");
    }
    if !message.rules.is_empty() {
        let rules: Vec<String> =
            message.rules.iter().map(|rule| format!("{} {}", rule.rule, rule.points)).collect();
        parts.push(format!("score {} ({})", message.score, rules.join(", ")));
    }
    parts.extend(judge_facts(message).map(|(name, value)| format!("{name}: {value}")));
    parts.extend(message.results.iter().cloned());
    parts.join("; ")
}

/// The facts of the judge that decided. By convention their names start with the judge's name; if none does, all facts.
fn judge_facts(message: &Quarantined) -> impl Iterator<Item = (&String, &String)> {
    let judge = message.by.as_deref().unwrap_or_default();
    let is_its = move |name: &str| {
        name.strip_prefix(judge).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let has_some = message.facts.keys().any(|name| is_its(name));
    message.facts.iter().filter(move |(name, _)| !has_some || is_its(name))
}

fn print_whole(message: &Quarantined) {
    say!("id          {}", message.id);
    say!("quarantine  {}", escape_untrusted(&message.quarantine));
    say!("since       {}", message.since_ms.rfc3339());
    say!("expires     {}", message.expires_ms.rfc3339());
    say!("received    {}", message.received_ms.rfc3339());
    say!("size        {} octets", message.size);
    if let Some(client) = &message.client {
        say!("client      {client} ({})", escape_untrusted(message.hello.as_deref().unwrap_or("no name")));
    }
    say!("sender      <{}>", escape_untrusted(message.sender.as_str()));
    message.recipients.iter().for_each(|to| say!("recipient   <{}>", escape_untrusted(to.as_str())));
    say!("why         {}", escape_untrusted(&why(message)));
    for rule in &message.rules {
        say!(
            "  points    {:>6}  {}, by {}",
            rule.points,
            escape_untrusted(&rule.rule),
            escape_untrusted(&rule.judge)
        );
    }
    for (name, value) in &message.facts {
        say!("  fact      {}: {}", escape_untrusted(name), escape_untrusted(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_whole_characters_and_no_commands() {
        let mut page = Vec::new();
        let mut terminal = Terminal::new(&mut page);
        for piece in ["Subject: Gr\u{fc}\u{1b}[2J".as_bytes(), b"\r\nX: \xc3", b"\xbc\r\n\r\nb\xff"] {
            terminal.write(piece).unwrap();
        }
        terminal.end().unwrap();
        assert_eq!(String::from_utf8(page).unwrap(), "Subject: Gr\u{fc}\u{fffd}[2J\nX: \u{fc}\n\nb\u{fffd}");
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
        message.reason = Some("it poses as us".to_owned());
        assert!(why(&message).starts_with("by spoof-guard at message: it poses as us; spoof-guard.found"));
        (message.by, message.reason) = (Some("guard".to_owned()), None);
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
