//! Times the start of a spool that holds many messages: with its index, and without it.
//!
//! `cargo run --release -p pintle-spool --example restart -- [FOLDER] [MESSAGES] [OCTETS]`. The folder should be on the
//! disk to be measured. It is filled, opened with its index, opened again without it, inspected, and left in place.
//! Peaks of memory are those of the whole process so far.

#![allow(clippy::print_stdout)]

use std::path::Path;
use std::time::Instant;

use pintle_mail::{Address, Bytes, Charset, Envelope, MailParams, QueueId, Recipient, ReversePath, UnixTime};
use pintle_spool::{Content, Embedded, EmbeddedConfig, Entry, NewMessage, Spool, inspect};

/// Messages submitted at a time while the spool is filled.
const GROUP: u32 = 500;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let folder = args.next().unwrap_or_else(|| "restart-spool".to_owned());
    let number = |word: Option<String>, default| word.map_or(Ok(default), |word| word.parse());
    let messages = number(args.next(), 1_000_000)?;
    let octets = number(args.next(), 1_000)?;
    let config = EmbeddedConfig::new(&folder);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if !Path::new(&folder).exists() {
        let began = Instant::now();
        runtime.block_on(fill(&config, messages, octets as usize))?;
        tell("filled", began);
    }
    let began = Instant::now();
    let spool = Embedded::open(&config)?;
    tell("opened with its index", began);
    runtime.block_on(spool.close())?;
    drop(spool);
    for name in ["envelopes.db", "envelopes.db-wal", "envelopes.db-shm"] {
        let _ = std::fs::remove_file(config.folder.join(name));
    }
    let began = Instant::now();
    let spool = Embedded::open(&config)?;
    tell("opened without its index", began);
    println!("{:?}", runtime.block_on(spool.totals())?);
    runtime.block_on(spool.close())?;
    drop(spool);
    let began = Instant::now();
    let found = inspect(&config.folder, &mut |_, _| {})?;
    tell("looked through", began);
    println!("{found:?}");
    Ok(())
}

async fn fill(
    config: &EmbeddedConfig,
    messages: u32,
    octets: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let spool = Embedded::open(config)?;
    for first in (0..messages).step_by(GROUP as usize) {
        let group = first..messages.min(first + GROUP);
        // All are submitted before the first is awaited, so that they share their syncs.
        let commits: Vec<_> = group.map(|number| spool.commit(message(number, octets))).collect();
        for commit in commits {
            commit.await?;
        }
    }
    Ok(spool.close().await?)
}

fn message(number: u32, octets: usize) -> NewMessage {
    let received = UnixTime::from_millis(1_795_317_028_000 + i64::from(number));
    let address = |text: &str| Address::parse(text, Charset::Ascii).ok();
    let recipient = address(&format!("someone{number}@example{}.org", number % 1_000));
    let recipients = recipient.map(|address| Recipient::new(1, address));
    NewMessage {
        id: QueueId::new(received, number.into()),
        head: format!("Received: by example\r\nSubject: {number}\r\n\r\n").into(),
        content: Content::from(Bytes::from(vec![b'x'; octets])),
        entry: Entry {
            envelope: Envelope {
                sender: address("sender@example.com").map_or(ReversePath::Null, ReversePath::Address),
                params: MailParams::default(),
                recipients: recipients.into_iter().collect(),
            },
            received,
            parent: None,
            hold: None,
            released: None,
            has_8bit: false,
            needs_smtputf8: false,
            context: Bytes::new(),
        },
    }
}

fn tell(what: &str, began: Instant) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or("peak unknown");
    println!("{what}: {:.1} s; {peak}", began.elapsed().as_secs_f64());
}
