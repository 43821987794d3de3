//! Tests that the zone server answers correctly, over both transports. The queries here are made by hand, so that an
//! error common to the server and the tested resolver would show.
#![expect(clippy::unwrap_used, reason = "a test that cannot reach its server has failed")]

use pintle_testkit::{ZoneFault, ZoneServer, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

const A: u8 = 1;
const MX: u8 = 15;

/// RFC 1035 section 4.1: header and one question of class IN.
fn question(name: &str, kind: u8) -> Vec<u8> {
    let mut bytes = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.extend_from_slice(&[0, 0, kind, 0, 1]);
    bytes
}

async fn ask_udp(server: &ZoneServer, name: &str, kind: u8) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&question(name, kind), server.address()).await.unwrap();
    let mut answer = vec![0; 4_096];
    let length = within("an answer", socket.recv(&mut answer)).await.unwrap();
    answer.truncate(length);
    answer
}

async fn ask_tcp(server: &ZoneServer, name: &str, kind: u8) -> Vec<u8> {
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let question = question(name, kind);
    let length = u16::try_from(question.len()).unwrap().to_be_bytes();
    stream.write_all(&[&length[..], &question].concat()).await.unwrap();
    let length = within("an answer", stream.read_u16()).await.unwrap();
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await.unwrap();
    answer
}

fn code(answer: &[u8]) -> u8 {
    answer[3] & 0x0f
}

fn truncated(answer: &[u8]) -> bool {
    answer[2] & 0x02 != 0
}

/// The answer and authority records.
fn counts(answer: &[u8]) -> (u8, u8) {
    (answer[7], answer[9])
}

#[tokio::test]
async fn answers_and_denies() {
    let server = ZoneServer::start("example. MX 10 mail.example.\nmail.example. A 192.0.2.7").await;
    let answer = ask_udp(&server, "MAIL.example", A).await;
    assert_eq!((&answer[..2], code(&answer), counts(&answer)), (&[0xab, 0xcd][..], 0, (1, 0)));
    assert!(answer.ends_with(&[0, 4, 192, 0, 2, 7]));
    let none = ask_udp(&server, "mail.example", MX).await;
    assert_eq!((code(&none), counts(&none)), (0, (0, 1)));
    let unknown = ask_udp(&server, "other.example", A).await;
    assert_eq!((code(&unknown), counts(&unknown)), (3, (0, 1)));
    let asked: Vec<String> = server.asked().iter().map(|a| format!("{} {}", a.name, a.kind)).collect();
    assert_eq!(asked, ["mail.example A", "mail.example MX", "other.example A"]);
}

#[tokio::test]
async fn fails_as_told_and_heals() {
    let server = ZoneServer::start("mail.example. A 192.0.2.7").await;
    server.fail("mail.example", ZoneFault::ServFail);
    assert_eq!(code(&ask_udp(&server, "mail.example", A).await), 2);
    server.fail("mail.example", ZoneFault::Refused);
    assert_eq!(code(&ask_udp(&server, "mail.example", A).await), 5);
    server.fail("mail.example", ZoneFault::Truncated);
    assert!(truncated(&ask_udp(&server, "mail.example", A).await));
    assert_eq!(counts(&ask_tcp(&server, "mail.example", A).await), (1, 0));
    server.heal("mail.example");
    assert!(!truncated(&ask_udp(&server, "mail.example", A).await));
}

#[tokio::test]
async fn cuts_what_does_not_fit_and_sends_it_whole_over_tcp() {
    let zone: String = (0..100).map(|i| format!("big.example. A 192.0.2.{i}\n")).collect();
    let server = ZoneServer::start(&zone).await;
    let cut = ask_udp(&server, "big.example", A).await;
    assert!(truncated(&cut) && cut.len() <= 512);
    assert_eq!(counts(&ask_tcp(&server, "big.example", A).await), (100, 0));
    assert!(server.asked()[1].tcp);
}

#[tokio::test]
async fn records_of_any_type_are_served_as_written_and_counted_by_their_word() {
    let server = ZoneServer::start("example. TYPE53 \\# 4 03010aff\nexample. TYPE257 \\# 1 00").await;
    for (kind, data, word) in [(53, &[0, 4, 3, 1, 10, 255][..], "TYPE53"), (64, &[], "SVCB")] {
        let answer = ask_udp(&server, "example", kind).await;
        assert_eq!(counts(&answer).0, u8::from(!data.is_empty()), "{word}");
        assert!(answer.ends_with(data), "{answer:?}");
        assert_eq!(server.count("example", word.parse().unwrap()), 1);
        assert_eq!(server.asked().last().unwrap().kind, word);
    }
}
