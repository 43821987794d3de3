//! Measures how many messages per second the embedded engine accepts, and what each costs: `throughput [producers]
//! [messages] [octets] [folder]`. Each message is committed, then settled as delivered, as in a gateway whose mail
//! leaves at once. The second figure is without settlements. This is no test: figures depend on the machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use pintle_mail::{Address, Charset, Envelope, MailParams, QueueId, Recipient, ReversePath, UnixTime};
use pintle_spool::{
    Change, DeliveryStatus, Disposition, Embedded, EmbeddedConfig, Entry, Guard, NewMessage, Settlement,
    Spool,
};

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u32| arguments.next().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (producers, messages, octets) = (number(100), number(50_000), number(10_000));
    let folder = arguments.next().unwrap_or_else(|| "throughput.spool".to_owned());
    for settle in [false, true] {
        measure(&folder, (producers, messages, octets), settle).await;
    }
    std::fs::remove_dir_all(folder).expect("the folder can be removed");
}

#[allow(clippy::print_stdout)]
async fn measure(folder: &str, (producers, messages, octets): (u32, u32, u32), settle: bool) {
    let _ = std::fs::remove_dir_all(folder);
    let config = EmbeddedConfig::new(folder);
    let spool = Arc::new(Embedded::open(&config).expect("the folder can be opened"));
    let (next, body) = (Arc::new(AtomicU32::new(0)), Bytes::from(vec![b'x'; octets as usize]));
    let (start, cpu) = (Instant::now(), cpu_time());
    let tasks: Vec<_> = (0..producers)
        .map(|_| tokio::spawn(produce(spool.clone(), next.clone(), messages, body.clone(), settle)))
        .collect();
    let mut waits = Vec::new();
    for task in tasks {
        waits.extend(task.await.expect("no producer panics"));
    }
    waits.sort_unstable();
    let (wall, cpu) = (start.elapsed(), cpu_time().saturating_sub(cpu));
    spool.close().await.expect("the committer ends well");
    drop(spool);
    let start = Instant::now();
    let spool = Embedded::open(&config).expect("the folder can be opened again");
    let (mut after, mut found) = (None, 0);
    loop {
        let page = spool.claim(after, 4_096).await.expect("the pages can be read");
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        found += page.len();
    }
    let recovery = start.elapsed();
    spool.close().await.expect("the committer ends well");
    println!(
        "{} of {messages}, {octets} octets, {producers} producers: {:.0}/s, {:.3} CPU ms each; \
        commit p50 {:.1?}, p99 {:.1?}, longest {:.1?}; recovery of {found} in {recovery:.2?}",
        if settle { "commit and settle" } else { "commit" },
        f64::from(messages) / wall.as_secs_f64(),
        cpu.as_secs_f64() * 1_000.0 / f64::from(messages),
        waits[waits.len() / 2],
        waits[waits.len() * 99 / 100],
        waits[waits.len() - 1],
    );
}

async fn produce(
    spool: Arc<Embedded>,
    next: Arc<AtomicU32>,
    messages: u32,
    body: Bytes,
    settle: bool,
) -> Vec<Duration> {
    let mut waits = Vec::new();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= messages {
            return waits;
        }
        let id = QueueId::new(
            UnixTime::from_millis(1_795_317_028_000 + i64::from(number) / 8),
            u128::from(number),
        );
        let mut draft = spool.begin().expect("there is room");
        for piece in body.chunks(4_096) {
            draft.append(body.slice_ref(piece)).await.expect("there is room");
        }
        let content = draft.finish().await.expect("there is room");
        let head = Bytes::from(vec![b'h'; 800]);
        let entry = entry(number);
        let start = Instant::now();
        let receipt = spool.commit(NewMessage { id, head, content, entry }).await.expect("the disk works");
        waits.push(start.elapsed());
        if settle {
            let status = DeliveryStatus::Done(Disposition::Delivered);
            let changes = vec![Change { recipient: 1, status }];
            let settlement =
                Settlement { id: receipt.id(), changes, children: Vec::new(), guard: Guard::Any };
            spool.settle(settlement).await.expect("the disk works");
        }
    }
}

fn entry(number: u32) -> Entry {
    let address = |text: &str| Address::parse(text, Charset::Ascii).expect("a valid address");
    let recipient = Recipient::new(1, address(&format!("recipient{number}@example.org")));
    Entry {
        envelope: Envelope {
            sender: ReversePath::Address(address("sender@example.com")),
            params: MailParams::default(),
            recipients: vec![recipient],
        },
        received: UnixTime::from_millis(1_795_317_028_000),
        parent: None,
        hold: None,
        released: None,
        has_8bit: false,
        needs_smtputf8: false,
        context: Bytes::from(vec![b'c'; 300]),
    }
}

/// User and system time of this process.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2);
    // A tick is a hundredth of a second on every Linux that we build for.
    Duration::from_millis(ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * 10)
}
