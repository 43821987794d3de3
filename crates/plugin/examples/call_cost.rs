//! What a call of a plugin costs: `cargo run --release -p pintle-plugin --example call_cost COMPONENT [SETTINGS]`.
//!
//! The component is called at connect, MAIL and RCPT, as far as it has these hooks, on one warm instance. What is
//! printed is the whole way of a judge's call: view in, guest, verdict and edits out.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a tool for the command line")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use pintle_dns::{DnsAnswer, DnsError, DnsRecordKind, Resolver};
use pintle_mail::{
    Address, Charset, Envelope, MailParams, QueueId, Recipient, ReversePath, SessionId, UnixTime,
};
use pintle_plugin::{ComponentSource, Config, GrantKind, PluginConfig, Plugins};
use pintle_policy::{Call, Judge, Session, Transaction, View};

const ROUNDS: usize = 20_000;

struct NoDns;

impl Resolver for NoDns {
    fn lookup(&self, _: &str, _: DnsRecordKind) -> BoxFuture<'_, Result<DnsAnswer, DnsError>> {
        Box::pin(std::future::ready(Err(DnsError::NxDomain)))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let component = arguments.next().unwrap_or_else(|| "target/plugins/example.wasm".into());
    let mut plugin = PluginConfig::new("measured", ComponentSource::File(component.into()));
    plugin.grants = GrantKind::ALL.iter().copied().collect();
    if let Some(settings) = arguments.next() {
        plugin.settings = serde_json::from_str(&settings).unwrap();
    }
    let config = Config { plugins: vec![plugin], ..Config::default() };
    let plugins = Plugins::open(config, Arc::new(NoDns)).await.unwrap();
    let judge = plugins.judges().remove(0);
    for call in [Call::Connect, Call::Mail, Call::Rcpt(0)] {
        if judge.hooks().has(call.hook()) {
            measure(&*judge, &call).await;
        }
    }
    plugins.shutdown().await;
}

async fn measure(judge: &dyn Judge, call: &Call) {
    let view = view();
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let ruling = judge.judge(call.clone(), view.clone()).await;
        times.push(began.elapsed());
        assert_eq!(ruling.fault, None);
    }
    times.sort_unstable();
    let at = |percent: usize| times[times.len() * percent / 100].as_nanos();
    let hook = call.hook().name();
    println!("on-{hook:<8} p50 {} ns, p99 {} ns", at(50), at(99));
}

fn view() -> View {
    let mut view = View::of(Session {
        hello: Some("client.example".into()),
        esmtp: true,
        ..Session::new(
            SessionId::new(UnixTime::from_millis(0), 1),
            "mx".into(),
            ([192, 0, 2, 1], 1234).into(),
            ([192, 0, 2, 2], 25).into(),
            UnixTime::default().plus(Duration::from_secs(1)),
        )
    });
    let envelope = Envelope {
        sender: ReversePath::parse("ann@example.com", Charset::Ascii).unwrap(),
        params: MailParams::default(),
        recipients: vec![Recipient::new(0, Address::parse("bob@example.org", Charset::Ascii).unwrap())],
    };
    let id = QueueId::new(UnixTime::from_millis(0), 2);
    view.transaction = Some(Arc::new(Transaction::new(id, envelope)));
    view
}
