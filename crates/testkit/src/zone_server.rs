//! A DNS server in the test process, over UDP and TCP, that can fail on purpose.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hickory_proto::op::{Message, ResponseCode};
use pintle_dns::DnsRecordKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::{JoinHandle, JoinSet};

use crate::zone::{ZoneData, ZoneLookup};
use crate::zone_fault::{ZoneFault, blank, negative};

/// Serves zones on 127.0.0.1 until it is dropped, and records all queries.
#[derive(Debug)]
pub struct ZoneServer {
    address: SocketAddr,
    shared: Arc<ZoneServerShared>,
    tasks: [JoinHandle<()>; 2],
}

/// A query that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsQuestion {
    /// The name in lower case, without the final dot.
    pub name: String,
    /// The record type: "MX", "AAAA", "TYPE61", …
    pub kind: String,
    /// Whether it came over TCP (and not UDP).
    pub tcp: bool,
}

#[derive(Debug)]
struct ZoneServerShared {
    zone: Mutex<ZoneData>,
    faults: Mutex<HashMap<(String, Option<String>), ZoneFault>>,
    asked: Mutex<Vec<DnsQuestion>>,
    /// Queries over UDP that are held until their release, with the client's address.
    held: Mutex<Vec<(Vec<u8>, SocketAddr)>>,
    udp: UdpSocket,
}

impl ZoneServer {
    /// Serves the zones in `text`, master-file lines such as `example. MX 10 mail.example.`, and for records of any
    /// type `example. TYPE65280 \# 2 0A0B`.
    ///
    /// # Panics
    /// When the text is wrong or no port is free.
    pub async fn start(text: &str) -> Self {
        let (tcp, udp) = bind().await;
        let address = tcp.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(ZoneServerShared {
            zone: Mutex::new(ZoneData::parse(text)),
            faults: Mutex::default(),
            asked: Mutex::default(),
            held: Mutex::default(),
            udp,
        });
        let tasks =
            [tokio::spawn(serve_udp(Arc::clone(&shared))), tokio::spawn(serve_tcp(tcp, Arc::clone(&shared)))];
        Self { address, shared, tasks }
    }

    /// The address that it listens on, for UDP and TCP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A resolver configuration that uses only this server, with short timeouts and no hosts file.
    pub fn config(&self) -> pintle_dns::Config {
        pintle_dns::Config {
            servers: pintle_dns::NameServers::List(vec![self.address]),
            hosts_file: false,
            ..pintle_dns::Config::default()
        }
    }

    /// Replaces the zones by those in `text`, written as in [`ZoneServer::start`].
    pub fn serve(&self, text: &str) {
        *lock(&self.shared.zone) = ZoneData::parse(text);
    }

    /// Replaces the zones by these records, whose names need not be valid in master files.
    pub fn serve_records(&self, records: &[(String, pintle_dns::DnsRecord)]) {
        *lock(&self.shared.zone) = ZoneData::of(records);
    }

    /// Refuses TCP connections from now on, until the server is dropped.
    pub fn refuse_tcp(&self) {
        self.tasks[1].abort();
    }

    /// Removes all faults of all names.
    pub fn heal_all(&self) {
        lock(&self.shared.faults).clear();
    }

    /// Removes the fault [`ZoneFault::Held`] of `name`, and answers the queries held for it. Returns their number.
    pub fn release(&self, name: &str) -> usize {
        self.heal(name);
        let held = std::mem::take(&mut *lock(&self.shared.held));
        let about = |bytes: &[u8]| question(bytes).is_some_and(|(_, asked)| asked.name == key(name));
        let (released, kept): (Vec<_>, Vec<_>) = held.into_iter().partition(|(bytes, _)| about(bytes));
        lock(&self.shared.held).extend(kept);
        for (bytes, peer) in &released {
            let answer = self.shared.respond(bytes, false).expect("a question that has been read before");
            self.shared.udp.try_send_to(&answer, *peer).expect("an answer that fits a datagram");
        }
        released.len()
    }

    /// Fails at every query about `name`.
    pub fn fail(&self, name: &str, fault: ZoneFault) {
        lock(&self.shared.faults).insert((key(name), None), fault);
    }

    /// Fails at queries about `name` for one kind of record.
    pub fn fail_kind(&self, name: &str, kind: DnsRecordKind, fault: ZoneFault) {
        lock(&self.shared.faults).insert((key(name), Some(kind.to_string())), fault);
    }

    /// Removes all faults of `name`.
    pub fn heal(&self, name: &str) {
        lock(&self.shared.faults).retain(|(owner, _), _| *owner != key(name));
    }

    /// All queries so far, in order of arrival, repeated ones included.
    pub fn asked(&self) -> Vec<DnsQuestion> {
        lock(&self.shared.asked).clone()
    }

    /// The number of queries about `name` for `kind`.
    pub fn count(&self, name: &str, kind: DnsRecordKind) -> usize {
        let (name, kind) = (key(name), kind.to_string());
        lock(&self.shared.asked).iter().filter(|asked| asked.name == name && asked.kind == kind).count()
    }
}

impl Drop for ZoneServer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Binds the same port for both protocols, as resolvers expect. Another process may have the UDP port, so it tries
/// again.
async fn bind() -> (TcpListener, UdpSocket) {
    for _ in 0..100 {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free TCP port");
        let address = tcp.local_addr().expect("a bound socket has an address");
        if let Ok(udp) = UdpSocket::bind(address).await {
            return (tcp, udp);
        }
    }
    panic!("no port is free for both TCP and UDP");
}

async fn serve_udp(shared: Arc<ZoneServerShared>) {
    let mut buffer = vec![0; 65_535];
    loop {
        // An ICMP error about an earlier answer is reported here and can be ignored.
        let Ok((length, peer)) = shared.udp.recv_from(&mut buffer).await else {
            continue;
        };
        let question = &buffer[..length];
        match shared.respond(question, false) {
            Some(answer) => drop(shared.udp.send_to(&answer, peer).await),
            None => shared.hold(question, peer),
        }
    }
}

async fn serve_tcp(listener: TcpListener, shared: Arc<ZoneServerShared>) {
    let mut sessions = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        sessions.spawn(serve_stream(stream, Arc::clone(&shared)));
        while sessions.try_join_next().is_some() {}
    }
}

async fn serve_stream(mut stream: TcpStream, shared: Arc<ZoneServerShared>) {
    // RFC 1035 section 4.2.2: each message follows its length in two bytes.
    while let Ok(length) = stream.read_u16().await {
        let mut question = vec![0; usize::from(length)];
        if stream.read_exact(&mut question).await.is_err() {
            return;
        }
        let Some(answer) = shared.respond(&question, true) else {
            continue;
        };
        let length = u16::try_from(answer.len()).expect("an answer within TCP's limit");
        let framed = [&length.to_be_bytes()[..], &answer].concat();
        if stream.write_all(&framed).await.is_err() {
            return;
        }
    }
}

impl ZoneServerShared {
    /// The bytes to send back; none means no answer.
    fn respond(&self, bytes: &[u8], tcp: bool) -> Option<Vec<u8>> {
        let (request, mut asked) = question(bytes)?;
        asked.tcp = tcp;
        let fault = self.fault(&asked);
        lock(&self.asked).push(asked);
        if fault.is_some_and(|fault| fault.is_silent(tcp)) {
            return None;
        }
        let truth = self.answer(&request);
        let response = match fault {
            Some(fault) => fault.distort(truth, tcp),
            None => Some(truth),
        };
        let Some(response) = response else {
            return Some(b"this is no DNS message".to_vec());
        };
        let mut bytes = fit(&response, if tcp { u16::MAX } else { request.max_payload() });
        if let Some(fault) = fault {
            fault.deface(&mut bytes, tcp);
        }
        Some(bytes)
    }

    /// Holds a query until its release, if that is its name's fault.
    fn hold(&self, bytes: &[u8], peer: SocketAddr) {
        let fault = question(bytes).and_then(|(_, asked)| self.fault(&asked));
        if fault == Some(ZoneFault::Held) {
            lock(&self.held).push((bytes.to_vec(), peer));
        }
    }

    fn fault(&self, asked: &DnsQuestion) -> Option<ZoneFault> {
        let faults = lock(&self.faults);
        let exact = faults.get(&(asked.name.clone(), Some(asked.kind.clone())));
        exact.or_else(|| faults.get(&(asked.name.clone(), None))).copied()
    }

    /// The correct answer.
    fn answer(&self, request: &Message) -> Message {
        let mut response = blank(request);
        let Some(query) = request.queries.first() else {
            return response;
        };
        match lock(&self.zone).find(query.name(), query.query_type()) {
            ZoneLookup::Records(records) => response.insert_answers(records),
            ZoneLookup::NoData(path) => negative(&mut response, ResponseCode::NoError, path),
            ZoneLookup::NxDomain(path) => negative(&mut response, ResponseCode::NXDomain, path),
        }
        response
    }
}

/// Parses a query; none when it is not one.
fn question(bytes: &[u8]) -> Option<(Message, DnsQuestion)> {
    let request = Message::from_vec(bytes).ok()?;
    let query = request.queries.first()?;
    let kind = DnsRecordKind::try_from(u16::from(query.query_type()))
        .map_or_else(|_| query.query_type().to_string(), |kind| kind.to_string());
    let asked = DnsQuestion { name: key(&query.name().to_ascii()), kind, tcp: false };
    Some((request, asked))
}

/// RFC 2181 section 9: an answer that does not fit is truncated, and the TC bit is set.
fn fit(response: &Message, limit: u16) -> Vec<u8> {
    let whole = response.to_vec().expect("an answer that can be written");
    if whole.len() <= usize::from(limit) {
        return whole;
    }
    response.truncate().to_vec().expect("a header that can be written")
}

fn key(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
