//! The stages beside commands: on-data before the message, on-auth-result after a login, on-queued after the reply, and
//! leases that end with what they count.

use std::any::Any;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use pintle_inbound::{ListenerConfig, TlsMode};
use pintle_mail::{EnhancedCode, Reply};
use pintle_policy::{Call, Edit, Hook, Hooks, Judge, Lease, LeaseScope, LoginResult, Ruling, Verdict, View};
use pintle_smtp::Extension;
use pintle_smtp::server::{self, config::Auth};
use pintle_testkit::Client;

use crate::gate::*;

/// MAIL and RCPT, each of which must succeed.
async fn begin(client: &mut Client, recipients: &[&str]) {
    client.ask("MAIL FROM:<s@x.example>", 250).await;
    for recipient in recipients {
        client.ask(&format!("RCPT TO:<{recipient}>"), 250).await;
    }
}

fn refusal() -> Verdict {
    Verdict::Reject(Some(Reply::new(550, EnhancedCode(5, 7, 1), "not all of these")))
}

/// Refuses two recipients and more.
fn one_recipient_only() -> Arc<dyn Judge> {
    says(Hook::Data, |call, view| {
        assert!(*call == Call::Data && view.message.is_none());
        let recipients = view.transaction.as_ref().unwrap().envelope.recipients.len();
        if recipients > 1 { refusal().into() } else { Verdict::Next.into() }
    })
}

#[tokio::test]
async fn on_data_knows_all_recipients_and_refuses_before_the_message() {
    let gate = gate(listener(TlsMode::None), vec![one_recipient_only()]);
    let mut client = gate.client().await;
    client.hello("client.example").await;
    begin(&mut client, &["b@ours.example", "c@ours.example"]).await;
    let reply = client.ask("DATA", 550).await;
    assert!(reply.text().contains("not all of these"), "{reply:?}");
    client.ask("DATA", 503).await;
    client.deliver("a@x.example", &["b@ours.example"], MESSAGE).await;
    assert_eq!(gate.stored().await.len(), 1);
    assert_eq!(gate.events(), ["plugin-verdict", "rejection", "plugin-verdict", "reception"]);
}

#[tokio::test]
async fn on_data_is_asked_of_pipelined_commands_and_of_the_first_chunk_once() {
    let gate = gate(listener(TlsMode::None), vec![one_recipient_only()]);
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.send_raw(b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@ours.example>\r\nDATA\r\n").await;
    for code in [250, 250, 354] {
        client.expect(code).await;
    }
    client.send_data(MESSAGE).await;
    client.expect(250).await;
    client
        .send_raw(b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@ours.example>\r\nRCPT TO:<c@ours.example>\r\n")
        .await;
    client.send_raw(b"BDAT 6\r\nA: 1\r\nBDAT 5 LAST\r\n\r\nb\r\n").await;
    for code in [250, 250, 250, 550, 503] {
        client.expect(code).await;
    }
    client.send_raw(b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@ours.example>\r\n").await;
    client.send_raw(b"BDAT 6\r\nA: 1\r\nBDAT 5 LAST\r\n\r\nb\r\n").await;
    for code in [250, 250, 250, 250] {
        client.expect(code).await;
    }
    let asked = gate.events().into_iter().filter(|event| *event == "plugin-verdict").count();
    assert_eq!((asked, gate.stored().await.len()), (3, 2));
}

#[tokio::test]
async fn a_session_closed_in_on_data_ends_after_the_message() {
    let gate = gate(listener(TlsMode::None), vec![edits(Hook::Data, vec![Edit::Close])]);
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.deliver("a@x.example", &["b@ours.example"], MESSAGE).await;
    client.expect(421).await;
    assert!(gate.only().await.is_some());
}

/// Also if the message is refused for a reason of its own, after which no question is asked.
#[tokio::test]
async fn a_session_closed_in_on_data_ends_after_a_message_that_is_too_big() {
    let mut small = listener(TlsMode::None);
    Arc::make_mut(&mut small.smtp).limits.message = 100;
    let gate = gate(small, vec![edits(Hook::Data, vec![Edit::Close])]);
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.envelope("a@x.example", &["b@ours.example"]).await;
    client.send_data(&[b"A: 1\r\n\r\n".as_slice(), &[b'x'; 200], b"\r\n"].concat()).await;
    client.expect(552).await;
    client.expect(421).await;
    client.expect_closed().await;
}

#[tokio::test]
async fn fates_requested_in_on_data_are_applied() {
    let gate = gate(listener(TlsMode::None), vec![edits(Hook::Data, vec![hold(Hook::Data, &[], "odd")])]);
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.deliver("a@x.example", &["b@ours.example"], MESSAGE).await;
    assert!(gate.only().await.unwrap().0.entry.hold.is_some());
}

/// Notes what it hears, and takes its time.
struct Hears {
    name: Arc<str>,
    hook: Hook,
    pause: Duration,
    heard: Mutex<Vec<String>>,
}

impl Hears {
    fn of(hook: Hook, pause: Duration) -> Arc<Self> {
        Arc::new(Self { name: "test".into(), hook, pause, heard: Mutex::default() })
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }

    async fn wait_for(&self, count: usize) -> Vec<String> {
        for _ in 0..1_000 {
            if self.heard().len() >= count {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.heard()
    }
}

impl Judge for Hears {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn hooks(&self) -> Hooks {
        Hooks::NONE.with(self.hook).with(Hook::Mail)
    }

    /// Reads at MAIL what it has set after the login.
    fn judge(&self, _: Call, view: View) -> BoxFuture<'_, Ruling> {
        let login = view.session.facts.get("test.login").cloned();
        self.heard.lock().unwrap().push(format!("mail {login:?}"));
        Box::pin(std::future::ready(Verdict::Next.into()))
    }

    fn auth_result(&self, result: Arc<LoginResult>, view: View) -> BoxFuture<'_, Ruling> {
        let LoginResult { mechanism, username, outcome } = &*result;
        let text = format!("{mechanism} {username} {} {:?}", outcome.name(), view.session.identity);
        self.heard.lock().unwrap().push(text);
        let edit = Edit::SessionFact("test.login".to_owned(), outcome.name().to_owned());
        Box::pin(std::future::ready(Ruling { edits: vec![edit], ..Verdict::Next.into() }))
    }

    fn queued(&self, view: View) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            tokio::time::sleep(self.pause).await;
            let transaction = view.transaction.unwrap();
            let recipients: Vec<_> = transaction
                .envelope
                .recipients
                .iter()
                .map(|rcpt| rcpt.address.local().into_owned())
                .collect();
            self.heard.lock().unwrap().push(format!("{} {}", transaction.id, recipients.concat()));
        })
    }
}

#[tokio::test]
async fn on_auth_result_hears_of_each_login_and_its_facts_stay() {
    let plain = ListenerConfig {
        smtp: Arc::new(server::Config {
            auth: Auth { without_tls: true, ..Auth::default() },
            ..server::Config::default().with(Extension::Auth)
        }),
        ..listener(TlsMode::None)
    };
    let hears = Hears::of(Hook::AuthResult, Duration::ZERO);
    let gate = gate(plain, vec![Arc::clone(&hears) as Arc<dyn Judge>]);
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.ask("AUTH PLAIN AGFubgB3cm9uZw==", 535).await;
    client.ask("AUTH PLAIN AGFubgBzZWNyZXQ=", 235).await;
    client.ask("MAIL FROM:<a@x.example>", 250).await;
    for _ in 0..2 {
        let mut client = gate.client().await;
        client.hello("client.example").await;
        for _ in 0..2 {
            client.send("AUTH PLAIN AGFubgB3cm9uZw==").await;
            if client.reply().await.code == 421 {
                break;
            }
        }
    }
    let heard = hears.heard();
    let first = ["PLAIN ann denied None", "PLAIN ann granted Some(\"ann\")", "mail Some(\"granted\")"];
    assert_eq!(heard[..3], first);
    assert_eq!(heard.last().unwrap(), "PLAIN ann refused None", "{heard:?}");
}

#[tokio::test]
async fn on_queued_hears_of_each_copy_and_delays_no_reply() {
    let hears = Hears::of(Hook::Queued, Duration::from_millis(1_500));
    let judges = vec![
        edits(Hook::Message, vec![hold(Hook::Message, &[0], "spam")]),
        Arc::clone(&hears) as Arc<dyn Judge>,
    ];
    let gate = gate(listener(TlsMode::None), judges);
    let mut client = gate.client().await;
    client.hello("client.example").await;
    let began = Instant::now();
    let reply = client.deliver("s@x.example", &["a@ours.example", "c@ours.example"], MESSAGE).await;
    assert!(began.elapsed() < Duration::from_millis(1_500), "the reply does not wait: {:?}", began.elapsed());
    // The session goes on afterwards.
    client.ask("NOOP", 250).await;
    let heard = hears.heard();
    let stored = gate.stored().await;
    let queued = |name: &str| {
        let found = stored.iter().find(|(_, recipients)| *recipients == [name]);
        format!("{} {name}", found.unwrap().0.id)
    };
    // The one that the client is told of comes last.
    assert_eq!(heard, ["mail None".to_owned(), queued("a"), queued("c")]);
    assert_eq!(stored.len(), 2);
    assert!(reply.text().contains(heard[2].split(' ').next().unwrap()), "{reply:?}: {heard:?}");
}

#[tokio::test]
async fn on_queued_is_called_for_a_client_that_leaves_at_once_and_for_no_refused_message() {
    let hears = Hears::of(Hook::Queued, Duration::ZERO);
    let gate = gate(listener(TlsMode::None), vec![Arc::clone(&hears) as Arc<dyn Judge>]);
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.envelope("s@x.example", &["a@ours.example"]).await;
    client.send_raw(b"A: 1\r\n\r\nb\r\n.\r\nQUIT\r\n").await;
    client.expect(250).await;
    drop(client);
    assert_eq!(hears.wait_for(2).await.len(), 2, "MAIL and the message: {:?}", hears.heard());
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.ask("MAIL FROM:<s@x.example>", 250).await;
    client.ask("RCPT TO:<b@elsewhere.example>", 550).await;
    client.ask("RSET", 250).await;
    assert_eq!(hears.heard().len(), 3);
}

/// Counts what it judges at this hook.
fn counts(hook: Hook, scope: LeaseScope, guard: &Arc<dyn Any + Send + Sync>) -> Arc<dyn Judge> {
    let lease = Lease { key: "k".into(), guard: Arc::clone(guard) };
    edits(hook, vec![Edit::Lease(scope, lease)])
}

async fn becomes(guard: &Arc<dyn Any + Send + Sync>, count: usize) {
    for _ in 0..1_000 {
        if Arc::strong_count(guard) == count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} holders, not {count}", Arc::strong_count(guard));
}

/// Each holder of the guard beside the test and its judge is a session that is counted.
#[tokio::test]
async fn a_lease_on_a_session_ends_when_the_client_is_gone() {
    let guard: Arc<dyn Any + Send + Sync> = Arc::new(());
    let gate = gate(listener(TlsMode::None), vec![counts(Hook::Connect, LeaseScope::Session, &guard)]);
    let mut first = gate.client().await;
    first.hello("client.example").await;
    let mut second = gate.client().await;
    second.hello("client.example").await;
    second.deliver("s@x.example", &["a@ours.example"], MESSAGE).await;
    becomes(&guard, 4).await;
    drop(first);
    becomes(&guard, 3).await;
    second.ask("QUIT", 221).await;
    becomes(&guard, 2).await;
}

#[tokio::test]
async fn a_lease_on_a_transaction_ends_with_it() {
    for hook in [Hook::Mail, Hook::Rcpt, Hook::Data, Hook::Message] {
        let guard: Arc<dyn Any + Send + Sync> = Arc::new(());
        let gate = gate(listener(TlsMode::None), vec![counts(hook, LeaseScope::Transaction, &guard)]);
        let mut client = gate.client().await;
        client.hello("client.example").await;
        client.deliver("s@x.example", &["a@ours.example"], MESSAGE).await;
        becomes(&guard, 2).await;
        begin(&mut client, &["a@ours.example"]).await;
        if hook < Hook::Data {
            becomes(&guard, 3).await;
        }
        client.ask("RSET", 250).await;
        becomes(&guard, 2).await;
        client.ask("MAIL FROM:<s@x.example>", 250).await;
        client.ask("RCPT TO:<b@elsewhere.example>", 550).await;
        let left = if hook == Hook::Mail { 3 } else { 2 };
        becomes(&guard, left).await;
        drop(client);
        becomes(&guard, 2).await;
    }
}
