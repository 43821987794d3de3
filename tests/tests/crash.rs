//! The gateway is killed at random moments under load: no message that got its 250 is missing after a restart.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use e2e::{Gateway, configuration, example_plugin};
use parking_lot::Mutex;
use pintle_testkit::{Script, Sink, TempDir};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// How often the gateway is killed.
const ROUNDS: u64 = 12;
/// How many clients send at once.
const CLIENTS: u64 = 8;

/// The number of acknowledged messages so far, and the number at which the gateway is killed next.
#[derive(Default)]
struct Book {
    promised: Mutex<BTreeSet<u64>>,
    next: AtomicU64,
    enough: tokio::sync::Notify,
}

#[tokio::test(flavor = "multi_thread")]
async fn no_promised_message_is_lost_to_a_kill() {
    let folder = TempDir::new().unwrap();
    let sink = Sink::start(Script::new()).await;
    let config = configuration(folder.path(), sink.address(), &example_plugin());
    let book = Arc::new(Book::default());
    for round in 0..ROUNDS {
        let gateway = Gateway::start(&config);
        // Each round ends at another point: after a few messages, or after a few hundred.
        let goal = book.promised.lock().len() + 1 + usize::try_from(round * round * 3).unwrap();
        send_until(&book, gateway.address("inside"), goal, gateway).await;
    }
    let gateway = Gateway::start(&config);
    let promised = book.promised.lock().clone();
    let all = |log: &pintle_testkit::SinkLog| {
        let arrived: BTreeSet<u64> =
            log.accepted().filter_map(|transaction| number(&transaction.message)).collect();
        promised.is_subset(&arrived)
    };
    sink.wait_until(&format!("all {} promised messages", promised.len()), all).await;
    sink.assert_no_violations();
    gateway.stop();
}

/// Sends from many clients, kills the gateway once `goal` messages have been acknowledged in all, and waits for the
/// clients.
async fn send_until(book: &Arc<Book>, address: SocketAddr, goal: usize, gateway: Gateway) {
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let book = Arc::clone(book);
        clients.spawn(async move {
            // The session ends with the connection, which is intended here.
            let _ = client(&book, address).await;
        });
    }
    while book.promised.lock().len() < goal {
        book.enough.notified().await;
    }
    gateway.kill();
    while clients.join_next().await.is_some() {}
}

async fn client(book: &Book, address: SocketAddr) -> std::io::Result<()> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    expect(&mut stream, "220").await?;
    ask(&mut stream, "EHLO crash.example\r\n", "250").await?;
    loop {
        let number = book.next.fetch_add(1, Ordering::Relaxed);
        ask(&mut stream, "MAIL FROM:<a@x.example>\r\n", "250").await?;
        ask(&mut stream, "RCPT TO:<b@y.example>\r\n", "250").await?;
        ask(&mut stream, "DATA\r\n", "354").await?;
        let body =
            "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n".repeat(usize::try_from(number % 7 * 25).unwrap());
        ask(&mut stream, &format!("X-Number: {number}\r\nSubject: n\r\n\r\n{body}\r\n.\r\n"), "250").await?;
        book.promised.lock().insert(number);
        book.enough.notify_one();
    }
}

async fn ask(stream: &mut BufReader<TcpStream>, command: &str, code: &str) -> std::io::Result<()> {
    stream.get_mut().write_all(command.as_bytes()).await?;
    expect(stream, code).await
}

async fn expect(stream: &mut BufReader<TcpStream>, code: &str) -> std::io::Result<()> {
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 || !line.ends_with('\n') {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        assert!(line.starts_with(code), "expected {code}, got {line}");
        if line.as_bytes().get(3) == Some(&b' ') {
            return Ok(());
        }
    }
}

fn number(message: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(message).ok()?;
    text.split("X-Number: ").nth(1)?.lines().next()?.trim().parse().ok()
}
