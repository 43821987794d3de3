//! A DNS server in the test's own process, over UDP and TCP, that can fail on purpose.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hickory_proto::op::{Edns, Message, Metadata, ResponseCode};
use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use pintle_dns::RecordKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::{JoinHandle, JoinSet};

use crate::zone::{Found, Zone};

/// Serves zones on 127.0.0.1 until it is dropped, and remembers what it was asked.
#[derive(Debug)]
pub struct ZoneServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    tasks: [JoinHandle<()>; 2],
}

/// A way to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Answer SERVFAIL.
    ServFail,
    /// Answer REFUSED.
    Refused,
    /// Answer that the name does not exist, whatever the zones say.
    NxDomain,
    /// Answer that the name has nothing of the kind.
    NoData,
    /// Never answer.
    Silent,
    /// Over UDP say only that the answer does not fit; over TCP answer as usual.
    Truncated,
    /// Answer with bytes that are no DNS message.
    Garbage,
}

/// A question that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Lower case, without the last dot.
    pub name: String,
    /// "MX", "AAAA", …
    pub kind: String,
    /// Over TCP and not UDP.
    pub tcp: bool,
}

#[derive(Debug)]
struct Shared {
    zone: Mutex<Zone>,
    faults: Mutex<HashMap<(String, Option<String>), Fault>>,
    asked: Mutex<Vec<Asked>>,
}

impl ZoneServer {
    /// Serves the zones in `text`, master-file lines such as `example. MX 10 mail.example.`
    ///
    /// # Panics
    /// When the text is wrong or no port is free.
    pub async fn start(text: &str) -> Self {
        let (tcp, udp) = bind().await;
        let address = tcp.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            zone: Mutex::new(Zone::parse(text)),
            faults: Mutex::default(),
            asked: Mutex::default(),
        });
        let tasks = [
            tokio::spawn(serve_udp(udp, Arc::clone(&shared))),
            tokio::spawn(serve_tcp(tcp, Arc::clone(&shared))),
        ];
        Self { address, shared, tasks }
    }

    /// Where it listens, UDP and TCP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A resolver configuration that asks this server alone, with little patience and no hosts file.
    pub fn config(&self) -> pintle_dns::Config {
        pintle_dns::Config {
            servers: pintle_dns::Servers::List(vec![self.address]),
            hosts_file: false,
            ..pintle_dns::Config::default()
        }
    }

    /// Replaces the zones.
    pub fn serve(&self, text: &str) {
        *lock(&self.shared.zone) = Zone::parse(text);
    }

    /// Fails at every question about `name`.
    pub fn fail(&self, name: &str, fault: Fault) {
        lock(&self.shared.faults).insert((key(name), None), fault);
    }

    /// Fails at questions about `name` of one kind.
    pub fn fail_kind(&self, name: &str, kind: RecordKind, fault: Fault) {
        lock(&self.shared.faults).insert((key(name), Some(kind.to_string())), fault);
    }

    /// Takes back every fault of `name`.
    pub fn heal(&self, name: &str) {
        lock(&self.shared.faults).retain(|(owner, _), _| *owner != key(name));
    }

    /// Every question so far, in order of arrival; a question repeated is there repeatedly.
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.shared.asked).clone()
    }

    /// How often `name` was asked for `kind`.
    pub fn count(&self, name: &str, kind: RecordKind) -> usize {
        let (name, kind) = (key(name), kind.to_string());
        lock(&self.shared.asked).iter().filter(|asked| asked.name == name && asked.kind == kind).count()
    }
}

impl Drop for ZoneServer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// The same port for both protocols, as resolvers expect. Somebody may have the UDP port, so try again.
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

async fn serve_udp(socket: UdpSocket, shared: Arc<Shared>) {
    let mut buffer = vec![0; 65_535];
    loop {
        // An ICMP error about an earlier answer surfaces here and means nothing.
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        if let Some(answer) = shared.respond(&buffer[..length], false) {
            let _ = socket.send_to(&answer, peer).await;
        }
    }
}

async fn serve_tcp(listener: TcpListener, shared: Arc<Shared>) {
    let mut sessions = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        sessions.spawn(serve_stream(stream, Arc::clone(&shared)));
        while sessions.try_join_next().is_some() {}
    }
}

async fn serve_stream(mut stream: TcpStream, shared: Arc<Shared>) {
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

impl Shared {
    /// The bytes to send back; none for silence.
    fn respond(&self, bytes: &[u8], tcp: bool) -> Option<Vec<u8>> {
        let request = Message::from_vec(bytes).ok()?;
        let query = request.queries.first()?;
        let asked = Asked { name: key(&query.name().to_ascii()), kind: query.query_type().to_string(), tcp };
        let fault = self.fault(&asked);
        lock(&self.asked).push(asked);
        match fault {
            Some(Fault::Silent) => return None,
            Some(Fault::Garbage) => return Some(b"this is no DNS message".to_vec()),
            _ => {}
        }
        let response = self.answer(
            &request,
            query.name(),
            query.query_type(),
            fault.filter(|_| !tcp || fault != Some(Fault::Truncated)),
        );
        Some(fit(&response, if tcp { u16::MAX } else { request.max_payload() }))
    }

    fn fault(&self, asked: &Asked) -> Option<Fault> {
        let faults = lock(&self.faults);
        let exact = faults.get(&(asked.name.clone(), Some(asked.kind.clone())));
        exact.or_else(|| faults.get(&(asked.name.clone(), None))).copied()
    }

    fn answer(&self, request: &Message, name: &Name, kind: RecordType, fault: Option<Fault>) -> Message {
        let mut response = blank(request);
        match fault {
            Some(Fault::ServFail) => response.metadata.response_code = ResponseCode::ServFail,
            Some(Fault::Refused) => response.metadata.response_code = ResponseCode::Refused,
            Some(Fault::Truncated) => response.metadata.truncation = true,
            Some(Fault::NxDomain) => negative(&mut response, ResponseCode::NXDomain, vec![]),
            Some(Fault::NoData) => negative(&mut response, ResponseCode::NoError, vec![]),
            _ => match lock(&self.zone).find(name, kind) {
                Found::Records(records) => response.insert_answers(records),
                Found::NoData(path) => negative(&mut response, ResponseCode::NoError, path),
                Found::NxDomain(path) => negative(&mut response, ResponseCode::NXDomain, path),
            },
        }
        response
    }
}

fn blank(request: &Message) -> Message {
    let mut response = Message::response(request.id, request.op_code);
    response.metadata = Metadata::response_from_request(&request.metadata);
    response.metadata.recursion_available = true;
    response.add_queries(request.queries.iter().cloned());
    if request.edns.is_some() {
        response.set_edns(Edns::new());
    }
    response
}

/// RFC 2308 section 3: the SOA record says how long the absence may be remembered.
fn negative(response: &mut Message, code: ResponseCode, aliases: Vec<Record>) {
    response.metadata.response_code = code;
    response.insert_answers(aliases);
    let soa = SOA::new(Name::root(), Name::root(), 1, 3_600, 600, 86_400, 300);
    response.add_authority(Record::from_rdata(Name::root(), 300, RData::SOA(soa)));
}

/// RFC 2181 section 9: what does not fit is cut, and the bit says so.
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
