//! Commands for a running gateway, over its admin socket: `queue`, `quarantine`, `plugins`, `reload`, `status`.

mod quarantine;
mod socket;

use std::process::ExitCode;

use pintle_admin::{
    AdminClient, Affected, PageQuery, PluginCounts, PluginState, Query, QueueAction, QueueEntry, QueueFilter,
    QueueRecipient, Reroute,
};
use pintle_mail::NextHop;
use serde::Serialize;

use crate::cli::{PluginsCommand, PluginsOptions, QueueCommand, QueueOptions, SocketOptions, Which};
use crate::output::{self, CommandResult, complain, escape_untrusted, say};

pub(crate) use quarantine::quarantine;

/// The maximum number of recipients that a list shows for a message.
const SHOWN: usize = 5;
/// The maximum length of a reply in a list, in characters.
const LONGEST_REPLY: usize = 200;

/// Runs `pintle queue …`.
pub(crate) fn queue(options: QueueOptions) -> CommandResult {
    let json = options.socket.json;
    with_client(&options.socket, async move |client| {
        match options.command {
            QueueCommand::List { which, limit, after } => {
                let query = Query { filter: which.into(), page: PageQuery { after, limit } };
                let page = client.queue(&query).await?;
                show(json, &page, |page| {
                    page.messages.iter().for_each(print_entry);
                    match page.next {
                        Some(next) => say!("more: --after {next}"),
                        None => say!("{} messages", page.messages.len()),
                    }
                });
            }
            QueueCommand::Show { id } => show(json, &client.message(id).await?, print_whole),
            QueueCommand::Retry(which) => return act(&client, QueueAction::Retry, which, json).await,
            QueueCommand::Reroute { which, via } => return reroute(&client, which, via, json).await,
            QueueCommand::Hold(which) => return act(&client, QueueAction::Hold, which, json).await,
            QueueCommand::Release(which) => return act(&client, QueueAction::Release, which, json).await,
            QueueCommand::Bounce(which) => return act(&client, QueueAction::Bounce, which, json).await,
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Runs `pintle plugins …`.
pub(crate) fn plugins(options: PluginsOptions) -> CommandResult {
    let json = options.socket.json;
    with_client(&options.socket, async move |client| {
        let plugins = match options.command {
            PluginsCommand::List => client.plugins().await?,
            PluginsCommand::Reload { name } => client.reload_plugins(name).await?,
        };
        show(json, &plugins, |plugins| plugins.iter().for_each(print_plugin));
        Ok(ExitCode::SUCCESS)
    })
}

/// Runs `pintle reload`.
pub(crate) fn reload(options: &SocketOptions) -> CommandResult {
    let json = options.json;
    with_client(options, async move |client| {
        show(json, &client.reload().await?, |done| {
            match done.applied.as_slice() {
                [] => say!("nothing has changed"),
                applied => applied.iter().for_each(|what| say!("changed: {what}")),
            }
            done.needs_restart.iter().for_each(|what| say!("needs a restart: {what}"));
            done.warnings.iter().for_each(|warning| say!("warning: {warning}"));
        });
        Ok(ExitCode::SUCCESS)
    })
}

/// Runs `pintle status`. The exit code is 1 if the gateway is not ready to accept mail.
pub(crate) fn status(options: &SocketOptions) -> CommandResult {
    let json = options.json;
    with_client(options, async move |client| {
        let (version, health) = (client.version().await?, client.health().await?);
        show(json, &health, |health| {
            say!("pintle {} on {}, process {}", version.version, version.hostname, version.pid);
            for part in &health.components {
                let detail = escape_untrusted(part.detail.as_deref().unwrap_or(""));
                say!("{:<5} {} {detail}", if part.ok { "ok" } else { "FAIL" }, part.name);
            }
        });
        Ok(if health.ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

fn with_client(
    options: &SocketOptions,
    work: impl AsyncFnOnce(AdminClient) -> CommandResult,
) -> CommandResult {
    let socket = socket::find(options)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { work(AdminClient::connect(&socket).await?).await })
}

async fn act(client: &AdminClient, action: QueueAction, which: Which, json: bool) -> CommandResult {
    let filter = specific(which, action.name())?;
    let affected = client.act(action, &filter).await?;
    Ok(print_affected(&affected, &filter, action.name(), json))
}

async fn reroute(client: &AdminClient, which: Which, via: Option<NextHop>, json: bool) -> CommandResult {
    let filter = specific(which, "reroute")?;
    let order = Reroute { filter, via: via.map(|via| via.to_string()) };
    let affected = client.reroute(&order).await?;
    Ok(print_affected(&affected, &order.filter, "reroute", json))
}

fn specific(which: Which, act: &str) -> Result<QueueFilter, String> {
    let filter = QueueFilter::from(which);
    if filter.is_specific() {
        return Ok(filter);
    }
    Err(format!("say which messages to {act}: ids, a condition, or --all"))
}

/// Prints the messages that were changed, and those that were not, with the reason.
fn print_affected(affected: &Affected, filter: &QueueFilter, act: &str, json: bool) -> ExitCode {
    show(json, affected, |Affected { ids, spared }| {
        ids.iter().for_each(|id| say!("{id}"));
        spared.iter().for_each(|spared| say!("{}  not done: {}", spared.id, escape_untrusted(&spared.why)));
        say!("{} messages: {act}", ids.len());
    });
    // If ids were given, a message that was not changed is an error.
    let missed = !filter.ids.is_empty() && !affected.spared.is_empty();
    if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

impl From<Which> for QueueFilter {
    fn from(which: Which) -> Self {
        let Which { ids, sender, domain, next_hop, held, all } = which;
        Self { ids, sender, domain, next_hop: next_hop.map(|hop| hop.to_string()), held, all }
    }
}

fn show<T: Serialize>(json: bool, answer: &T, print: impl FnOnce(&T)) {
    if json {
        if let Err(error) = output::json(answer) {
            complain!("pintle: the answer cannot be shown: {error}");
        }
    } else {
        print(answer);
    }
}

fn print_entry(entry: &QueueEntry) {
    let pending: Vec<_> =
        entry.recipients.iter().filter(|recipient| recipient.disposition.is_none()).collect();
    let hold = entry.hold.as_ref().map(|hold| format!("  [{}]", escape_untrusted(hold))).unwrap_or_default();
    say!(
        "{}  {}  {:>9}  <{}>  {} of {} pending{hold}",
        entry.id,
        entry.received_ms.rfc3339(),
        entry.size,
        escape_untrusted(entry.sender.as_str()),
        pending.len(),
        entry.recipients.len()
    );
    pending.iter().take(SHOWN).for_each(|recipient| print_waiting(recipient, entry.hold.is_some()));
    if pending.len() > SHOWN {
        say!("    and {} more: pintle queue show {}", pending.len() - SHOWN, entry.id);
    }
}

/// Prints a pending recipient on one line: next hop, time of the next attempt, last reply.
fn print_waiting(recipient: &QueueRecipient, held: bool) {
    let hop = escape_untrusted(recipient.next_hop.as_deref().unwrap_or("not routed yet"));
    let next = match recipient.next_attempt_ms {
        _ if recipient.under_way => "under way".to_owned(),
        _ if held => "held".to_owned(),
        Some(next) => format!("next {}", next.rfc3339()),
        None => "not tried again".to_owned(),
    };
    let reply = recipient.last_reply.as_deref().unwrap_or("not tried yet");
    let reply = escape_untrusted(&reply.chars().take(LONGEST_REPLY).collect::<String>());
    say!("    <{}>  {hop}  {next}  {reply}", escape_untrusted(recipient.address.as_str()));
}

fn print_whole(entry: &QueueEntry) {
    say!("id        {}", entry.id);
    say!("received  {}", entry.received_ms.rfc3339());
    if let Some(expires) = entry.expires_ms {
        say!("expires   {}", expires.rfc3339());
    }
    say!("size      {} octets", entry.size);
    say!("sender    <{}>", escape_untrusted(entry.sender.as_str()));
    if let Some(hold) = &entry.hold {
        say!("held      {}", escape_untrusted(hold));
    }
    if let Some(parent) = &entry.parent {
        say!("reports   {parent}");
    }
    entry.recipients.iter().for_each(print_recipient);
}

fn print_recipient(recipient: &QueueRecipient) {
    say!("recipient <{}>", escape_untrusted(recipient.address.as_str()));
    let hop = escape_untrusted(recipient.next_hop.as_deref().unwrap_or("no next hop yet"));
    match recipient.disposition {
        // The next hop and the number of attempts are in the delivery record.
        Some(disposition) => say!("  {disposition}"),
        None => say!("  pending after {} attempts, by {hop}", recipient.attempts),
    }
    match recipient.next_attempt_ms {
        _ if recipient.under_way => say!("  next attempt under way"),
        Some(next) => say!("  next attempt {}", next.rfc3339()),
        None => {}
    }
    if let Some(reply) = &recipient.last_reply {
        say!("  last reply   {}", escape_untrusted(reply));
    }
    for (plugin, group) in &recipient.groups {
        say!("  group        {} of plugin {}", escape_untrusted(group), escape_untrusted(plugin));
    }
}

fn print_plugin(plugin: &PluginState) {
    let generation =
        plugin.generation.map_or_else(|| "not loaded".to_owned(), |number| format!("generation {number}"));
    let version = escape_untrusted(plugin.version.as_deref().unwrap_or("?"));
    say!("{}  {}  version {version}, {generation}", plugin.name, plugin.component);
    if let Some(digest) = &plugin.digest {
        say!("  sha256  {}", escape_untrusted(digest));
    }
    say!("  hooks  {}", plugin.hooks.join(", "));
    let PluginCounts { calls, faults, instances, max_instances, waiting, crowded_out } = plugin.counts;
    say!("  calls  {calls}, faults {faults}, instances {instances} of {max_instances}");
    if waiting + crowded_out > 0 {
        say!("  busy  {waiting} calls wait for an instance, {crowded_out} got none in time");
    }
    if let Some(error) = &plugin.last_error {
        say!("  error  {}", escape_untrusted(error));
    }
}
