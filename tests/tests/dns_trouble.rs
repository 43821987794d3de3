//! DNS fails in every way, with all the stock plugins that use it: sessions end, no relay opens, no mail is lost.
//!
//! One gateway and one name server serve all cases. Each kind of failure has its own domain and client address, so that
//! all of them happen at once, next to working domains.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use e2e::{Gateway, binary, configuration};
use pintle_testkit::{
    Client, DnsRecordKind, ELSEWHERE, Script, Sink, SinkTransaction, TempDir, ZoneFault, ZoneServer, within,
};
use tokio::net::{TcpListener, TcpStream};

/// All kinds of failure, beginning with none.
const FAULTS: [Option<ZoneFault>; 19] = [
    None,
    Some(ZoneFault::Silent),
    Some(ZoneFault::ServFail),
    Some(ZoneFault::Refused),
    Some(ZoneFault::NxDomain),
    Some(ZoneFault::NoData),
    Some(ZoneFault::Truncated),
    Some(ZoneFault::TruncatedAlone),
    Some(ZoneFault::Garbage),
    Some(ZoneFault::WrongId),
    Some(ZoneFault::WrongQuestion),
    Some(ZoneFault::WrongOwner),
    Some(ZoneFault::Referral),
    Some(ZoneFault::NoEdns),
    Some(ZoneFault::Poisoned),
    Some(ZoneFault::AliasLoop),
    Some(ZoneFault::Flood),
    Some(ZoneFault::Huge),
    Some(ZoneFault::Overcount),
];

/// The most time that a session may take, from its greeting to its end: each plugin's call has two seconds, and there
/// are few. It is generous, since machines are shared; a session that hangs would never end.
const DEADLINE: Duration = Duration::from_secs(25);

struct Stage {
    gateway: Gateway,
    sink: Sink,
    zone: ZoneServer,
    folder: TempDir,
}

/// A kind of failure, with its domain and its client.
#[derive(Clone)]
struct Trouble {
    fault: Option<ZoneFault>,
    domain: String,
    client: [u8; 4],
}

fn troubles() -> Vec<Trouble> {
    let trouble = |(at, fault): (usize, &Option<ZoneFault>)| Trouble {
        fault: *fault,
        domain: format!("t{at}.example"),
        client: [127, 0, 1, u8::try_from(at).unwrap() + 10],
    };
    FAULTS.iter().enumerate().map(trouble).collect()
}

impl Trouble {
    /// All names that a session of this client and domain looks up.
    fn names(&self) -> Vec<String> {
        let [a, b, c, d] = self.client;
        let domain = &self.domain;
        vec![
            domain.clone(),
            format!("mx.{domain}"),
            format!("_dmarc.{domain}"),
            format!("k._domainkey.{domain}"),
            format!("{d}.{c}.{b}.{a}.list.example"),
            format!("{domain}.names.example"),
        ]
    }

    /// The correct DNS records: the client may send, and no list has it.
    fn zones(&self) -> String {
        let domain = &self.domain;
        format!(
            "{domain} TXT \"v=spf1 mx -all\"\n{domain} MX 10 mx.{domain}\nmx.{domain} A {}\nmx.{domain} A {HOST}\n\
             _dmarc.{domain} TXT \"v=DMARC1; p=none\"\nk._domainkey.{domain} TXT \"v=DKIM1; {KEY}\"\n",
            std::net::Ipv4Addr::from(self.client)
        )
    }

    /// A signature for which the key has to be looked up.
    fn message(&self) -> Vec<u8> {
        let domain = &self.domain;
        format!(
            "DKIM-Signature: v=1; a=ed25519-sha256; c=simple/simple; d={domain}; s=k; h=From; bh={HASH}; b={SIGN}\r\n\
             From: <x@{domain}>\r\nSubject: {domain}\r\n\r\nhello\r\n"
        )
        .into_bytes()
    }
}

/// The address of the mail exchangers. It is not the gateway's, or mail would loop (RFC 5321 section 5.1).
const HOST: std::net::Ipv4Addr = std::net::Ipv4Addr::new(127, 0, 0, 9);

/// The public key of RFC 8463 appendix A.2.
const KEY: &str = "k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
/// SHA-256 of "hello" and its line end.
const HASH: &str = "zS7KNTV0HyeorkDDGwxB1AV6enuRKzO5rthkhdHIRnY=";
/// Text with the length of a signature, but not a valid one.
const SIGN: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==";

/// Short timeouts, so that the many failures of one session take only seconds.
const DNS: &str = "timeout = \"400ms\"\nattempts = 2\ndeadline = \"900ms\"";

const PLUGINS: &str = r#"
[[plugin]]
name = "dnsbl"
component = "stock:dnsbl"
grants = ["dns"]
[plugin.config]
lists = [{ zone = "list.example" }, { zone = "names.example", of = ["sender"] }]
[plugin.limits]
wall = "2s"

[[plugin]]
name = "relay-control"
component = "stock:relay-control"
grants = ["relay", "kv"]

[[plugin]]
name = "spf"
component = "stock:spf"
grants = ["sender-auth", "auth-results", "edit-headers"]
[plugin.config]
received_spf = true
temperror = "TEMPERROR"
[plugin.limits]
wall = "2s"

[[plugin]]
name = "dmarc"
component = "stock:dmarc"
grants = ["sender-auth", "auth-results"]
[plugin.config]
temperror = "TEMPERROR"
[plugin.limits]
wall = "2s"
"#;

impl Stage {
    /// `temperror` is the plugins' setting for DNS failures.
    async fn start(temperror: &str, dns: &str, more: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let sink = Sink::start(Script::new()).await;
        let zones: String = troubles().iter().map(Trouble::zones).collect();
        let zone = ZoneServer::start(&zones).await;
        for trouble in troubles() {
            for (name, fault) in trouble.names().iter().zip(std::iter::repeat(trouble.fault)) {
                fault.into_iter().for_each(|fault| zone.fail(name, fault));
            }
        }
        let exchanger = exchanger(sink.address()).await;
        let cache = binary().with_file_name("plugin-cache");
        let text = format!(
            "[dns]\nservers = [\"{}\"]\nhosts_file = false\nmax_negative_ttl = \"0s\"\n{dns}\n\
             [delivery]\nmx_port = {}\nmx_networks = [\"127.0.0.0/8\"]\n[plugins]\ncache = \"{}\"\n{}\n{more}",
            zone.address(),
            exchanger.port(),
            cache.display(),
            PLUGINS.replace("TEMPERROR", temperror)
        );
        let gateway = Gateway::start(&configuration(folder.path(), sink.address(), &text));
        Self { gateway, sink, zone, folder }
    }

    fn config(&self) -> std::path::PathBuf {
        self.folder.path().join("pintle.toml")
    }

    /// Runs a whole session, in which a recipient of a foreign domain must be refused. Returns the final code for mail
    /// to our domain.
    async fn session(&self, trouble: &Trouble) -> u16 {
        let start = Instant::now();
        let session = tokio::time::timeout(DEADLINE, self.dialogue(trouble));
        let code = session.await.unwrap_or_else(|_| panic!("{trouble:?} hangs", trouble = trouble.fault));
        assert!(start.elapsed() < DEADLINE, "{:?}", trouble.fault);
        code
    }

    async fn dialogue(&self, trouble: &Trouble) -> u16 {
        let mut client = Client::connect_from(trouble.client.into(), self.gateway.address("mx")).await;
        client.hello(&format!("mx.{}", trouble.domain)).await;
        client.send(&format!("MAIL FROM:<x@{}>", trouble.domain)).await;
        let mail = client.reply().await.code;
        if mail != 250 {
            return mail;
        }
        let foreign = client.ask("RCPT TO:<victim@foreign.example>", 550).await;
        assert!(foreign.text().contains("Relaying denied"), "{:?}: {foreign:?}", trouble.fault);
        client.ask("RCPT TO:<b@ours.example>", 250).await;
        client.ask("DATA", 354).await;
        client.send_data(&trouble.message()).await;
        let end = client.reply().await.code;
        client.ask("QUIT", 221).await;
        end
    }

    /// Waits until the log says that delivery to this recipient will be tried again.
    async fn deferred(&self, recipient: &str) {
        let told = |line: &str| line.contains("\"deferral\"") && line.contains(recipient);
        while !self.gateway.log().lines().any(told) {
            tokio::task::yield_now().await;
        }
    }

    /// The fields of the message from this domain, unfolded.
    fn results(arrived: &[SinkTransaction], trouble: &Trouble) -> String {
        let sender = format!("x@{}", trouble.domain);
        let found = arrived.iter().find(|transaction| transaction.sender.address == sender).unwrap();
        let text = String::from_utf8_lossy(&found.message).replace("\r\n ", " ").replace("\r\n\t", " ");
        let field = text.lines().find(|line| line.starts_with("Authentication-Results: "));
        field.unwrap_or_else(|| panic!("no results in {text}")).to_owned()
    }
}

/// Forwards a second address to the sink, as a mail exchanger: its port on [`HOST`]. It ends with the test's runtime.
async fn exchanger(sink: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind((HOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut server = TcpStream::connect(sink).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    address
}

/// The expected result of SPF.
fn spf(fault: Option<ZoneFault>) -> &'static str {
    match fault {
        // The correct answer arrives, if necessary over TCP; additional records of others do no harm.
        None | Some(ZoneFault::Truncated | ZoneFault::Poisoned | ZoneFault::NoEdns) => "pass",
        // A denial is an answer. An answer about other names, one that loops, or a referral is not.
        Some(ZoneFault::NxDomain | ZoneFault::NoData) => "none",
        // Thousands of records, each of which allows everybody to send; and one that is far too long.
        Some(ZoneFault::Flood | ZoneFault::Huge) => "permerror",
        Some(_) => "temperror",
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_passes_and_no_relay_opens_however_dns_fails() {
    let stage = Stage::start("pass-on", DNS, "").await;
    let troubles = troubles();
    let codes = futures_util::future::join_all(troubles.iter().map(|trouble| stage.session(trouble))).await;
    for (trouble, code) in troubles.iter().zip(&codes) {
        assert_eq!(*code, 250, "{:?}", trouble.fault);
    }
    let arrived = stage.sink.wait_for(troubles.len()).await;
    for trouble in &troubles {
        let results = Stage::results(&arrived, trouble);
        let expected = format!("spf={} smtp.mailfrom={}", spf(trouble.fault), trouble.domain);
        assert!(results.contains(&expected), "{:?}: {results}", trouble.fault);
        let asked = |name: String, kind| assert!(stage.zone.count(&name, kind) > 0, "{name}");
        asked(format!("k._domainkey.{}", trouble.domain), DnsRecordKind::Txt);
        asked(format!("_dmarc.{}", trouble.domain), DnsRecordKind::Txt);
        let [a, b, c, d] = trouble.client;
        asked(format!("{d}.{c}.{b}.{a}.list.example"), DnsRecordKind::A);
    }
    // No plugin call was interrupted: each ended within its own time.
    assert!(!stage.gateway.log().contains("\"timeout\""), "{}", stage.gateway.log());
    // False records about other names, which allowed everybody to send, were not believed.
    let victim = Trouble { fault: None, domain: ELSEWHERE.to_owned(), client: [127, 0, 2, 1] };
    assert_eq!(stage.session(&victim).await, 250);
    let arrived = stage.sink.wait_for(troubles.len() + 1).await;
    let results = Stage::results(&arrived, &victim);
    assert!(results.contains("spf=none smtp.mailfrom=elsewhere.example"), "{results}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_operator_wants_it_mail_waits_until_dns_is_well() {
    let stage = Stage::start("defer", DNS, "").await;
    // Answers that do not fit a datagram cannot be received at all.
    stage.zone.refuse_tcp();
    let troubles = troubles();
    let needs_tcp = |fault| matches!(fault, Some(ZoneFault::Truncated | ZoneFault::Flood | ZoneFault::Huge));
    let codes = futures_util::future::join_all(troubles.iter().map(|trouble| stage.session(trouble))).await;
    for (trouble, code) in troubles.iter().zip(&codes) {
        let waits = needs_tcp(trouble.fault) || spf(trouble.fault) == "temperror";
        assert_eq!(*code, if waits { 451 } else { 250 }, "{:?}", trouble.fault);
    }
    stage.zone.heal_all();
    let codes = futures_util::future::join_all(troubles.iter().map(|trouble| stage.session(trouble))).await;
    assert!(codes.iter().all(|code| *code == 250), "{codes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_answer_is_waited_for_and_nobody_else_waits() {
    let patient = "timeout = \"6s\"\nattempts = 1\ndeadline = \"6s\"";
    let stage = Stage::start("defer", patient, "").await;
    let (slow, well) = (&troubles()[1], &troubles()[0]);
    for name in slow.names() {
        stage.zone.heal(&name);
    }
    stage.zone.fail(&slow.domain, ZoneFault::Held);
    let others = async {
        while stage.zone.count(&slow.domain, DnsRecordKind::Txt) == 0 {
            tokio::task::yield_now().await;
        }
        let code = stage.session(well).await;
        (code, stage.zone.release(&slow.domain))
    };
    let (code, (other, released)) = tokio::join!(stage.session(slow), others);
    assert_eq!((code, other), (250, 250));
    assert!(released > 0, "the answer had come before it was sent");
    let arrived = stage.sink.wait_for(2).await;
    assert!(Stage::results(&arrived, slow).contains("spf=pass smtp.mailfrom=t1.example"));
}

/// Mail for these domains goes by MX, and is tried again soon if that fails.
fn by_mx() -> String {
    let domains: Vec<String> = troubles().iter().map(|trouble| format!("{:?}", trouble.domain)).collect();
    format!(
        "[[route]]\ndomain = [{}]\nvia = \"mx\"\n[queue]\nretry_intervals = [\"1s\"]\n\
         hop_intervals = [\"1s\"]\njitter_percent = 0\n",
        domains.join(", ")
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn outbound_mail_waits_for_dns_and_is_delivered_once() {
    let stage = Stage::start("pass-on", DNS, &by_mx()).await;
    let troubles = troubles();
    let mut colleague = Client::connect(stage.gateway.address("inside")).await;
    colleague.hello("inside.example").await;
    for trouble in &troubles {
        let recipient = format!("b@{}", trouble.domain);
        colleague.deliver("ann@ours.example", &[&recipient], b"Subject: out\r\n\r\nhello\r\n").await;
    }
    // A domain without a mail host is a definite answer, and the sender gets a report at once.
    let (gone, others): (Vec<_>, Vec<_>) = troubles.iter().partition(|trouble| has_no_host(trouble.fault));
    for trouble in others.iter().filter(|trouble| !is_deliverable(trouble.fault)) {
        within(&format!("a deferral: {:?}", trouble.fault), stage.deferred(&format!("b@{}", trouble.domain)))
            .await;
    }
    stage.zone.heal_all();
    let arrived = stage.sink.wait_for(troubles.len()).await;
    for trouble in &others {
        let recipient = format!("b@{}", trouble.domain);
        let count = arrived.iter().filter(|it| it.recipients().contains(&recipient.as_str())).count();
        assert_eq!(count, 1, "{:?}", trouble.fault);
    }
    let reports = arrived.iter().filter(|it| it.sender.address.is_empty()).count();
    assert_eq!(reports, gone.len());
}

/// Whether DNS says that the domain accepts no mail.
fn has_no_host(fault: Option<ZoneFault>) -> bool {
    spf(fault) == "none"
}

/// Whether the mail exchanger can be found in spite of the failure.
fn is_deliverable(fault: Option<ZoneFault>) -> bool {
    spf(fault) == "pass"
}

/// No server answers: the log names the servers, health reports it, readiness stays, and sessions do not wait for each
/// name again. It ends when the servers answer again.
#[tokio::test(flavor = "multi_thread")]
async fn servers_that_answer_nothing_are_named_and_waited_for_once() {
    let folder = TempDir::new().unwrap();
    let patient = "timeout = \"400ms\"\nattempts = 30\ndeadline = \"60s\"";
    let stage = Stage::start("pass-on", patient, "").await;
    let well = &troubles()[0];
    stage.zone.fail(".", ZoneFault::Silent);
    stage.zone.fail("com", ZoneFault::Silent);
    for name in well.names() {
        stage.zone.fail(&name, ZoneFault::Silent);
    }
    assert_eq!(stage.session(well).await, 250);
    let line = stage.gateway.line("no name server answers");
    let servers = format!("\"servers\":\"{}\"", stage.zone.address());
    assert!(line.contains("\"level\":\"WARN\"") && line.contains(&servers), "{line}");
    let config = stage.config();
    let status = || e2e::run(&["status", "-c", config.to_str().unwrap()], folder.path());
    let (code, out, _) = status();
    assert!(code == 0 && out.contains("FAIL  dns no name server answers"), "{out}");
    let arrived = stage.sink.wait_for(1).await;
    assert!(Stage::results(&arrived, well).contains("spf=temperror"), "not known, and no \"no\"");
    let told = stage.gateway.log().lines().filter(|line| line.contains("no name server answers")).count();
    assert_eq!(told, 1, "rate-limited");
    stage.zone.heal_all();
    stage.gateway.wait_for("name servers answer again");
    assert!(status().1.contains("ok    dns"));
    assert_eq!(stage.session(well).await, 250);
    let arrived = stage.sink.wait_for(2).await;
    assert!(Stage::results(&arrived[1..], well).contains("spf=pass"));
}
