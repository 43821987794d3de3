//! A test of all functions that need a grant: without it each is denied, before anything else is looked at. Whatever
//! version of the contract a component was built against, its calls arrive at these functions.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Instant;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use pintle_dns::{DnsAnswer, DnsError, DnsRecordKind, Resolver};
use pintle_mail::{SessionId, UnixTime};
use pintle_policy::{Hook, Session, View};

use super::delivery::DeliveryView;
use super::dns::DnsView;
use super::kv::KvView;
use super::leases::LeasesView;
use super::message::MessageView;
use super::secrets::SecretsView;
use super::sender_auth::SenderAuthView;
use super::session::SessionView;
use super::signing::SigningView;
use super::transaction::TransactionView;
use crate::bindings::pintle::plugin::types::{HostError, IpAddress, Reply};
use crate::bindings::pintle::plugin::{
    delivery, dns, kv, leases, message, secrets, sender_auth, session, signing, transaction,
};
use crate::interfaces::INTERFACES;
use crate::kv::KvStore;
use crate::meter::CallMeter;
use crate::state::{GenerationState, HostServices};
use crate::store_data::StoreData;
use crate::{Gateway, Grants};

struct NoDns;

impl Resolver for NoDns {
    fn lookup(&self, _: &str, _: DnsRecordKind) -> BoxFuture<'_, Result<DnsAnswer, DnsError>> {
        Box::pin(std::future::ready(Err(DnsError::Unreachable)))
    }
}

/// A store of a plugin without grants, in a call of this hook.
fn store(hook: Hook) -> StoreData {
    let services = Arc::new(HostServices {
        dns: Arc::new(NoDns),
        gateway: ArcSwap::from_pointee(Gateway::default()),
        gateway_generation: AtomicU32::default(),
        max_message: 1 << 20,
    });
    let stored = KvStore::open(1 << 20, None, crate::kv::saved::Clocks::read());
    let state = Arc::new(GenerationState::new("plugin", stored));
    let meter = Arc::new(CallMeter::new(Instant::now()));
    let mut store = StoreData::new(services, state, Arc::new(Grants::default()), 1 << 20, meter);
    let client = ([192, 0, 2, 1], 1).into();
    let id = SessionId::new(UnixTime::from_millis(0), 1);
    let view = View::of(Session::new(id, "mx".into(), client, client, UnixTime::from_millis(0)));
    store.call.begin(Some(hook), Some(view));
    store
}

/// Calls a function, and notes its name with the grant that was missing.
macro_rules! denied {
    ($told:ident, $view:ident, $module:ident at $hook:ident: $($name:literal = $function:ident($($argument:expr),*) $($wait:ident)?;)+) => {
        $({
            let mut store = store(Hook::$hook);
            let mut view = $view::of(store.parts());
            let called = $module::Host::$function(&mut view $(, $argument)*);
            $(let called = { let $wait = called; $wait.now_or_never().unwrap() };)?
            match called {
                Err(HostError::Denied(grant)) => { $told.insert(($name, grant)); }
                other => panic!("{} is not denied: {other:?}", $name),
            }
        })+
    };
}

type DeniedCalls = BTreeSet<(&'static str, String)>;

fn text() -> String {
    "x".to_owned()
}

fn call_mail(told: &mut DeniedCalls) {
    denied! { told, SessionView, session at Hello:
        "session.reverse-names" = reverse_names() future;
        "session.offer-extension" = offer_extension(text(), None);
        "session.withhold-extension" = withhold_extension(text());
    }
    let found =
        || transaction::AuthResult { method: text(), outcome: text(), reason: None, properties: Vec::new() };
    denied! { told, TransactionView, transaction at Message:
        "transaction.add-recipient" = add_recipient(text());
        "transaction.remove-recipient" = remove_recipient(0);
        "transaction.rewrite-recipient" = rewrite_recipient(0, text());
        "transaction.rewrite-sender" = rewrite_sender(text());
        "transaction.grant-relay" = grant_relay(0);
        "transaction.discard" = discard(Vec::new());
        "transaction.add-auth-result" = add_auth_result(found());
    }
    denied! { told, MessageView, message at Message:
        "message.edit-headers" = edit_headers(Vec::new());
        "message.write-body" = write_body(Vec::new()) future;
        "message.drop-body" = drop_body();
    }
    denied! { told, DeliveryView, delivery at Deliver:
        "delivery.set-next-hop" = set_next_hop(text());
        "delivery.set-tls" = set_tls(text());
        "delivery.set-source" = set_source(text());
        "delivery.set-credentials" = set_credentials(text());
        "delivery.suppress-bounce" = suppress_bounce(0);
    }
}

fn call_services(told: &mut DeniedCalls) {
    denied! { told, KvView, kv at Message:
        "kv.get-many" = get_many(vec![text()]);
        "kv.set" = set(text(), Vec::new(), None);
        "kv.swap" = swap(text(), Vec::new(), None, 0);
        "kv.remove" = remove(text());
        "kv.increment" = increment(text(), 1, None);
        "kv.count-many" = count_many(vec![text()]);
        "kv.take" = take(text(), 1, kv::Bucket { capacity: 1, refill_per_minute: 1.0 });
    }
    denied! { told, SenderAuthView, sender_auth at Message:
        "sender-auth.spf" = spf() future;
        "sender-auth.dkim" = dkim() future;
        "sender-auth.dmarc" = dmarc() future;
        "sender-auth.arc" = arc() future;
        "sender-auth.results" = results(vec!["spf".into()]) future;
        "sender-auth.report-disposition" = report_disposition("none".into(), None);
    }
    denied! { told, SigningView, signing at Message:
        "signing.keys" = keys(text(), true);
        "signing.dkim-sign" = dkim_sign(text());
        "signing.arc-seal" = arc_seal(text()) future;
    }
    denied! { told, SecretsView, secrets at Message:
        "secrets.hmac" = hmac(text(), "sha256".into(), Vec::new());
        "secrets.random-bytes" = random_bytes(1);
    }
    denied! { told, LeasesView, leases at Message: "leases.take" = take(text(), 1); }
}

/// Its functions return a result for each item.
fn call_dns(told: &mut DeniedCalls) {
    let address = IpAddress { text: text(), octets: vec![192, 0, 2, 1] };
    let mut queried = store(Hook::Message);
    let mut view = DnsView::of(queried.parts());
    let query = dns::Query { name: text(), kind: "A".into() };
    let answers = dns::Host::query_many(&mut view, vec![query]).now_or_never().unwrap();
    let listed = dns::Host::query_lists(&mut view, address, vec![text()]).now_or_never().unwrap();
    for (name, answers) in [("dns.query-many", answers), ("dns.query-lists", listed)] {
        let Some(Err(dns::DnsError::Refused(HostError::Denied(grant)))) = answers.into_iter().next() else {
            panic!("{name} is not denied")
        };
        told.insert((name, grant));
    }
}

#[test]
fn every_function_that_needs_a_grant_is_denied_without_it() {
    let mut told = DeniedCalls::new();
    call_mail(&mut told);
    call_services(&mut told);
    call_dns(&mut told);
    let told: BTreeSet<_> = told.iter().map(|(name, grant)| ((*name).to_owned(), grant.clone())).collect();
    let needed: BTreeSet<_> = INTERFACES
        .iter()
        .flat_map(|interface| interface.functions.iter().map(move |function| (interface.name, function)))
        .filter_map(|(interface, (name, grants))| {
            Some((format!("{interface}.{name}"), grants.first()?.name().to_owned()))
        })
        .collect();
    assert_eq!(told, needed);
}

#[test]
fn what_needs_no_grant_is_not_denied() {
    let mut store = store(Hook::Message);
    let mut view = TransactionView::of(store.parts());
    let reply = Reply { code: 550, enhanced: None, text: String::new() };
    let refused = transaction::Host::refuse(&mut view, vec![0], reply);
    assert!(matches!(refused, Err(HostError::Unavailable(_))), "there is no transaction: {refused:?}");
}
