//! A DNS server for the benchmark: serves a zone file, only on loopback.
//!
//! Prints `listening ADDR` first, for the program that started it; it ends when its standard input does. The lines of
//! the file are those of testkit's `ZoneServer`.

#![allow(clippy::print_stdout, reason = "the caller reads its standard output")]

use std::io::{self, Read};

use pintle_testkit::ZoneServer;

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let file = std::env::args().nth(1).ok_or_else(|| io::Error::other("usage: pintle-zone FILE"))?;
    let server = ZoneServer::start(&std::fs::read_to_string(file)?).await;
    println!("listening {}", server.address());
    let until_closed = tokio::task::spawn_blocking(|| io::stdin().read_to_end(&mut Vec::new()));
    until_closed.await.map_err(io::Error::other)??;
    drop(server);
    Ok(())
}
