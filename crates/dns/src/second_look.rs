//! Checks an answer that the library reports as "no such record" although no server has said so.
//!
//! The library treats records of other names or kinds, and alias loops, as a denial, and the answer itself is no longer
//! available. A real denial usually has the zone's SOA record (RFC 2308 section 2.2). If that is missing, the servers
//! are queried once more and the answer section is examined: a sender must not be told that a domain accepts no mail
//! because a server gave a nonsensical answer.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::proto::op::{Message, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// The longest chain of aliases that is accepted.
const MAX_ALIASES: usize = 16;
/// The largest answer over UDP that is read, in octets.
const DATAGRAM: usize = 4096;

/// Whether the first of these servers that answers denies that there are such records. If none answers, the denial
/// stands.
pub(crate) async fn is_denied(
    servers: &[SocketAddr],
    name: &Name,
    kind: RecordType,
    patience: Duration,
) -> bool {
    for server in servers {
        if let Some(answer) = ask(*server, name, kind, patience).await {
            return answer.metadata.response_code == ResponseCode::NXDomain || denies(name, &answer.answers);
        }
    }
    true
}

/// Whether an answer section contains only aliases that come to an end.
fn denies(name: &Name, answers: &[Record]) -> bool {
    // RFC 6672: the CNAME record for a DNAME record comes next to it.
    let records = || answers.iter().filter(|record| record.record_type() != RecordType::DNAME);
    let (mut owner, mut followed) = (name, 0);
    while let Some(target) = records().find_map(|record| match &record.data {
        RData::CNAME(target) if record.name == *owner => Some(&target.0),
        _ => None,
    }) {
        owner = target;
        followed += 1;
        // A loop, or more than any resolver follows; each step searches all records that the server sent.
        if followed > MAX_ALIASES {
            return false;
        }
    }
    records().count() == followed
}

async fn ask(server: SocketAddr, name: &Name, kind: RecordType, patience: Duration) -> Option<Message> {
    let mut query = Message::query();
    query.add_query(Query::query(name.clone(), kind));
    query.metadata.recursion_desired = true;
    let octets = query.to_vec().ok()?;
    let belongs =
        |answer: &Message| answer.metadata.id == query.metadata.id && answer.queries == query.queries;
    let answer = timeout(patience, over_udp(server, &octets, belongs)).await.ok().flatten();
    match answer {
        Some(answer) if !answer.metadata.truncation => Some(answer),
        _ => timeout(patience, over_tcp(server, &octets)).await.ok().flatten().filter(belongs),
    }
}

/// Returns the first datagram that answers this query.
async fn over_udp(server: SocketAddr, query: &[u8], belongs: impl Fn(&Message) -> bool) -> Option<Message> {
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await.ok()?;
    socket.connect(server).await.ok()?;
    socket.send(query).await.ok()?;
    let mut octets = vec![0; DATAGRAM];
    loop {
        let length = socket.recv(&mut octets).await.ok()?;
        if let Some(answer) = Message::from_vec(&octets[..length]).ok().filter(&belongs) {
            return Some(answer);
        }
    }
}

async fn over_tcp(server: SocketAddr, query: &[u8]) -> Option<Message> {
    let mut stream = TcpStream::connect(server).await.ok()?;
    let length = u16::try_from(query.len()).ok()?;
    stream.write_all(&[&length.to_be_bytes(), query].concat()).await.ok()?;
    let length = stream.read_u16().await.ok()?;
    let mut octets = vec![0; length.into()];
    stream.read_exact(&mut octets).await.ok()?;
    Message::from_vec(&octets).ok()
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::rr::rdata::{A, CNAME};

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn alias(from: &str, to: &str) -> Record {
        Record::from_rdata(name(from), 60, RData::CNAME(CNAME(name(to))))
    }

    #[test]
    fn aliases_that_end_deny_and_nothing_else_does() {
        let asked = name("a.example.");
        let address = Record::from_rdata(name("other.example."), 60, RData::A(A::new(192, 0, 2, 1)));
        assert!(denies(&asked, &[]));
        assert!(denies(&asked, &[alias("b.example.", "c.example."), alias("A.example.", "b.example.")]));
        assert!(!denies(&asked, std::slice::from_ref(&address)), "of another name");
        assert!(!denies(&asked, &[alias("a.example.", "b.example."), address]));
        assert!(!denies(&asked, &[alias("x.example.", "y.example.")]), "of another name");
        assert!(!denies(&asked, &[alias("a.example.", "b.example."), alias("b.example.", "a.example.")]));
        assert!(!denies(&asked, &[alias("a.example.", "a.example.")]));
        let chain = |length: usize| -> Vec<Record> {
            (0..length)
                .map(|at| alias(&format!("c{at}.example."), &format!("c{}.example.", at + 1)))
                .collect()
        };
        assert!(denies(&name("c0.example."), &chain(16)) && !denies(&name("c0.example."), &chain(17)));
    }
}
