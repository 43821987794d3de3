//! Nobody else waits for a stranger's name servers: a network that makes its own calls slow keeps no other from its turn.
//!
//! The resolver answers nothing about slow names until a test lets it, so what is slow stays slow, and what is answered
//! beside it is answered in its own order.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, Either, select, select_all};
use pintle_dns::{DnsAnswer, DnsError, DnsRecordKind, Resolver};
use pintle_mail::{Charset, ReversePath};
use pintle_plugin::{PluginConfig, Plugins};
use pintle_policy::{Call, FaultKind, Judge, Ruling, Verdict, View};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::support::{open_with, session, transaction, unruly};

const SLOW_CLIENT: [u8; 4] = [192, 0, 2, 66];
const OTHER_CLIENT: [u8; 4] = [198, 51, 100, 7];
/// How many lists the plugin asks about a client.
const LISTS: usize = 2;

/// Answers that there is no such name; about a slow one not before the gate is opened.
struct Gate {
    open: watch::Receiver<bool>,
    /// How many questions have come to the gate.
    held: watch::Sender<usize>,
}

impl Resolver for Gate {
    fn lookup(&self, name: &str, _: DnsRecordKind) -> BoxFuture<'_, Result<DnsAnswer, DnsError>> {
        // Of the slow network, by its address turned round; and of domains that are called so.
        let slow = name.contains("2.0.192.") || name.contains("slow.example");
        Box::pin(async move {
            if slow {
                self.held.send_modify(|held| *held += 1);
                let _ = self.open.clone().wait_for(|open| *open).await;
            }
            Err(DnsError::NxDomain)
        })
    }
}

/// A plugin behind the gate.
struct Host {
    plugins: Plugins,
    judge: Arc<dyn Judge>,
    open: watch::Sender<bool>,
    held: watch::Receiver<usize>,
}

impl Host {
    async fn start(mut config: PluginConfig, instances: usize) -> Self {
        config.limits.max_instances = instances;
        config.limits.wall = Duration::from_secs(3_600);
        let (open, opened) = watch::channel(false);
        let (holds, held) = watch::channel(0);
        let gate = Gate { open: opened, held: holds };
        let plugins = open_with(vec![config], Arc::new(gate)).await;
        let judge = plugins.judges().remove(0);
        Self { plugins, judge, open, held }
    }

    /// A call that goes on by itself.
    fn begin(&self, call: Call, view: View) -> JoinHandle<Ruling> {
        let judge = Arc::clone(&self.judge);
        tokio::spawn(async move { judge.judge(call, view).await })
    }

    async fn ask(&self, call: Call, view: View) -> Ruling {
        self.judge.judge(call, view).await
    }

    /// Until so many questions are held at the gate.
    async fn until_held(&mut self, questions: usize) {
        self.held.wait_for(|held| *held >= questions).await.unwrap();
    }

    /// The same for calls of which none may end before.
    async fn until_all_held(&mut self, calls: &mut [JoinHandle<Ruling>]) {
        let questions = calls.len();
        let held = pin!(self.held.wait_for(|held| *held >= questions));
        if let Either::Right(((ended, ..), _)) = select(held, select_all(calls.iter_mut())).await {
            panic!("a call has ended without its answer: {ended:?}");
        }
    }

    async fn end(self, calls: Vec<JoinHandle<Ruling>>) -> Vec<Ruling> {
        self.open.send_replace(true);
        let mut rulings = Vec::new();
        for call in calls {
            rulings.push(call.await.unwrap());
        }
        self.plugins.shutdown().await;
        rulings
    }
}

/// A mail from this domain, brought by this client.
fn mail(client: [u8; 4], domain: &str) -> View {
    let mut view = transaction(&["bob"]);
    Arc::make_mut(&mut view.session).client = (client, 1).into();
    let transaction = Arc::make_mut(view.transaction.as_mut().unwrap());
    transaction.envelope.sender = ReversePath::parse(&format!("ann@{domain}"), Charset::Ascii).unwrap();
    view
}

#[tokio::test]
async fn a_network_with_slow_dns_on_all_its_sessions_keeps_no_other_from_its_answer() {
    let mut host = Host::start(unruly(json!({"rcpt": "greylist"})), 16).await;
    let slow = (0..40).map(|_| host.begin(Call::Rcpt(0), mail(SLOW_CLIENT, "x.example"))).collect();
    // A quarter of all instances, each with its questions to two lists; and not one more.
    host.until_held(4 * LISTS).await;
    let status = &host.plugins.status()[0];
    assert_eq!((status.busy, status.max_instances), (4, 16));
    for expected in ["come again", "Next"] {
        let ruling = host.ask(Call::Rcpt(0), mail(OTHER_CLIENT, "x.example")).await;
        assert_eq!(ruling.fault, None);
        assert!(format!("{:?}", ruling.verdict).contains(expected), "{:?}", ruling.verdict);
    }
    let slow = host.end(slow).await;
    let kinds = slow.iter().filter_map(|ruling| ruling.fault.as_ref().map(|fault| fault.kind));
    assert!(kinds.into_iter().all(|kind| kind == FaultKind::Busy), "nothing else befell them");
}

#[tokio::test]
async fn who_got_no_turn_is_counted_and_told_why() {
    let mut config = unruly(json!({"rcpt": "greylist"}));
    config.limits.wait = Duration::ZERO;
    let mut host = Host::start(config, 2).await;
    let slow = vec![host.begin(Call::Rcpt(0), mail(SLOW_CLIENT, "x.example"))];
    host.until_held(LISTS).await;
    let neighbour = host.begin(Call::Rcpt(0), mail([192, 0, 2, 1], "x.example"));
    let mut held = host.held.clone();
    let Either::Left((ruling, _)) = select(neighbour, pin!(held.wait_for(|held| *held > LISTS))).await else {
        panic!("a second call of the network got an instance");
    };
    let fault = ruling.unwrap().fault.unwrap();
    assert_eq!(fault.kind, FaultKind::Busy);
    assert!(fault.text.contains("the 1 that one network may have"), "{}", fault.text);
    let status = host.plugins.status().remove(0);
    assert_eq!((status.crowded_out, status.faults, status.waiting), (1, 1, 0));
    host.end(slow).await;
}

/// With one instance for everybody: what strangers' name servers take is waited for outside.
#[tokio::test]
async fn checks_of_the_sender_take_no_turn_while_they_wait() {
    let mut host = Host::start(unruly(json!({"mail": "spf"})), 1).await;
    host.ask(Call::Mail, mail(OTHER_CLIENT, "first.example")).await;
    let mut slow =
        (0..20).map(|_| host.begin(Call::Mail, mail(SLOW_CLIENT, "slow.example"))).collect::<Vec<_>>();
    host.until_all_held(&mut slow).await;
    assert_eq!(host.plugins.status()[0].busy, 0);
    let ruling = host.ask(Call::Mail, mail(OTHER_CLIENT, "other.example")).await;
    assert_eq!((ruling.fault, ruling.verdict), (None, Verdict::Next));
    let told = format!("{:?}", ruling.edits);
    assert!(told.contains("other.example") && told.contains("None"), "{told}");
    for ruling in host.end(slow).await {
        let told = format!("{:?}", ruling.edits);
        assert!(ruling.fault.is_none() && told.contains("slow.example"), "{told}");
    }
}

#[tokio::test]
async fn reverse_lookups_take_no_turn_while_they_wait() {
    let view = |client| {
        let mut view = session(client);
        Arc::make_mut(&mut view.session).hello = None;
        view
    };
    let mut host = Host::start(unruly(json!({"connect": "names"})), 1).await;
    host.ask(Call::Connect, view(OTHER_CLIENT)).await;
    let mut slow = (0..20).map(|_| host.begin(Call::Connect, view(SLOW_CLIENT))).collect::<Vec<_>>();
    host.until_all_held(&mut slow).await;
    let ruling = host.ask(Call::Connect, view(OTHER_CLIENT)).await;
    assert_eq!((ruling.fault, ruling.verdict), (None, Verdict::Next));
    assert!(host.end(slow).await.iter().all(|ruling| ruling.fault.is_none()));
}
