//! A DNS server for the benchmark: serves the zone file that it is given, on loopback alone.
//!
//! Prints `listening ADDR` first, so that whoever started it knows the port; it ends when its standard input does. The
//! lines of the file are those of testkit's `ZoneServer`.

#![allow(clippy::print_stdout, reason = "whoever started it reads its standard output")]

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
