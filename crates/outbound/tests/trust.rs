//! What plugins cannot do: have passwords sent to other hosts, lower the TLS policy of the configuration, or choose any next
//! hop without a grant.

#![allow(clippy::unwrap_used, reason = "what is not there fails the test, and the place is told")]

mod common;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use common::{World, config, no_verification, relay, to_relay, trusting, with_relay};
use futures_util::future::BoxFuture;
use pintle_mail::{NextHop, TlsPolicy};
use pintle_outbound::{Channel, Config, Credentials, Endpoint, NamedCredentials, OutboundParts, Relay};
use pintle_policy::{Call, Chain, Edit, Hook, Hooks, Judge, Ruling, Verdict, View};
use pintle_record::Record;
use pintle_testkit::{Script, Sink, StaticResolver, TestCa, within};
use tokio::sync::Notify;

/// Asks for the same before each attempt.
struct Router(Arc<str>, Vec<Edit>);

impl Judge for Router {
    fn name(&self) -> &Arc<str> {
        &self.0
    }

    fn hooks(&self) -> Hooks {
        Hooks::NONE.with(Hook::Deliver)
    }

    fn judge(&self, _: Call, _: View) -> BoxFuture<'_, Ruling> {
        let edits = self.1.clone();
        Box::pin(async { Ruling { edits, ..Ruling::from(Verdict::Next) } })
    }
}

fn asked_by(judges: Vec<Arc<dyn Judge>>) -> impl FnOnce(&mut OutboundParts) {
    move |parts| parts.chain = Arc::new(ArcSwap::from_pointee(Chain::new(judges)))
}

fn routed(edits: Vec<Edit>) -> impl FnOnce(&mut OutboundParts) {
    asked_by(vec![Arc::new(Router("router".into(), edits))])
}

fn login(over: Channel) -> Option<Credentials> {
    Some(Credentials { over, ..Credentials::new("gate", "secret") })
}

fn hop(name: &str) -> NextHop {
    NextHop::Relay(name.to_owned())
}

/// The reply with which the first delivery was put off.
async fn deferred(world: &World) -> String {
    match world.log.wait_for("deferral", 1).await.remove(0) {
        Record::Deferral(deferral) => deferral.reply.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_password_is_said_to_a_verified_host_and_to_no_other() {
    let (ca, stranger) = (TestCa::new(), TestCa::new());
    let name = "mail.example.net";
    // Whose certificate, implicit TLS, the policy, over what the password may go; whether it is said.
    let cases = [
        (&ca, false, TlsPolicy::Verified, Channel::VerifiedTls, true),
        (&ca, true, TlsPolicy::Verified, Channel::VerifiedTls, true),
        (&stranger, false, TlsPolicy::Required, Channel::VerifiedTls, false),
        (&ca, false, TlsPolicy::Required, Channel::VerifiedTls, false),
        (&stranger, true, TlsPolicy::Opportunistic, Channel::VerifiedTls, false),
        (&stranger, false, TlsPolicy::Verified, Channel::VerifiedTls, false),
        (&stranger, false, TlsPolicy::Required, Channel::Tls, true),
        (&stranger, true, TlsPolicy::Opportunistic, Channel::Tls, true),
    ];
    for (number, (authority, implicit_tls, tls, over, said)) in cases.into_iter().enumerate() {
        let leaf = authority.issue(&[name]);
        let script =
            if implicit_tls { Script::new().implicit_tls(&leaf) } else { Script::new().starttls(&leaf) };
        let sink = Sink::start(script.login("gate", "secret")).await;
        let hosts = vec![Endpoint::Tcp { host: name.into(), port: sink.address().port() }];
        let relay = Relay { tls, implicit_tls, credentials: login(over), ..Relay::new(hosts) };
        let resolver = StaticResolver::new().with_address(name, "127.0.0.1");
        let world = World::start_with(with_relay(relay), resolver, |parts| parts.tls = trusting(&ca));
        world.mail(&["bob@example.net"]).await;
        if said {
            assert_eq!(sink.wait_for(1).await[0].user.as_deref(), Some("gate"), "case {number}");
        } else {
            let reply = deferred(&world).await;
            assert!(reply.starts_with("451 4.7."), "case {number}: {reply}");
            assert_eq!(sink.log().count("AUTH"), 0, "case {number}");
        }
    }
}

#[tokio::test]
async fn a_plugin_raises_the_tls_policy_and_never_lowers_it() {
    let moved = |tls| vec![Edit::NextHop(hop("other")), Edit::Tls(tls)];
    for (configured, edits, goes) in [
        (TlsPolicy::Required, vec![Edit::Tls(TlsPolicy::None)], false),
        (TlsPolicy::Required, vec![Edit::Tls(TlsPolicy::Opportunistic)], false),
        (TlsPolicy::Required, moved(TlsPolicy::None), false),
        (TlsPolicy::Opportunistic, vec![Edit::Tls(TlsPolicy::Required)], false),
        (TlsPolicy::Opportunistic, vec![Edit::Tls(TlsPolicy::Required), Edit::Tls(TlsPolicy::None)], false),
        (TlsPolicy::Opportunistic, moved(TlsPolicy::Verified), false),
        (TlsPolicy::Opportunistic, moved(TlsPolicy::None), true),
    ] {
        let sink = Sink::start(Script::new()).await;
        let mut next = relay(&[sink.address()]);
        next.tls = configured;
        let mut config = with_relay(next.clone());
        config.relays.insert("other".into(), next);
        let shown = format!("{configured:?} {edits:?}");
        let world = World::start_with(config, StaticResolver::new(), routed(edits));
        world.mail(&["bob@example.net"]).await;
        if goes {
            sink.wait_for(1).await;
        } else {
            assert!(deferred(&world).await.starts_with("451 4.7.4"), "{shown}");
            assert_eq!(sink.log().count("MAIL"), 0, "{shown}");
        }
    }
}

/// `next` has credentials of its own, `special` belongs to `next` alone, and all hosts would take any password.
fn with_secrets(next: &Sink, other: &Sink) -> Config {
    let mut config = to_relay(&[next.address()]);
    config.relays.insert("other".into(), relay(&[other.address()]));
    config.relays.get_mut("next").unwrap().credentials = login(Channel::Plain);
    let credentials = Credentials { over: Channel::Plain, ..Credentials::new("special", "secret") };
    let relays = BTreeSet::from(["next".to_owned()]);
    config.credentials.insert("special".into(), NamedCredentials { credentials, relays });
    config
}

#[tokio::test]
async fn credentials_are_said_to_the_hosts_that_they_belong_to() {
    let next = Sink::start(Script::new().login("special", "secret")).await;
    let other = Sink::start(Script::new().login("special", "secret")).await;
    let spelt_out = hop(&other.address().to_string());
    let chosen = |edit: Option<Edit>| edit.into_iter().chain([Edit::Credentials("special".into())]).collect();
    let world = World::start_with(with_secrets(&next, &other), StaticResolver::new(), routed(chosen(None)));
    world.mail(&["bob@example.net"]).await;
    assert_eq!(next.wait_for(1).await[0].user.as_deref(), Some("special"));
    for edit in [
        Edit::NextHop(hop("other")),
        Edit::UnlistedHop(spelt_out),
        Edit::NextHop(NextHop::Mx("example.net".into())),
    ] {
        let edits = chosen(Some(edit));
        let world = World::start_with(with_secrets(&next, &other), StaticResolver::new(), routed(edits));
        world.mail(&["bob@example.net"]).await;
        let reply = deferred(&world).await;
        assert!(reply.starts_with("451 4.3.5 the credentials special do not belong to"), "{reply}");
    }
    assert_eq!(other.log().sessions, 0);
}

/// A relay's own password stays with it wherever a plugin sends its mail.
#[tokio::test]
async fn a_relay_s_own_credentials_do_not_follow_the_mail_to_another_host() {
    let (next, other) = (Sink::start(Script::new()).await, Sink::start(Script::new()).await);
    for edit in [Edit::NextHop(hop("other")), Edit::UnlistedHop(hop(&other.address().to_string()))] {
        let world = World::start_with(with_secrets(&next, &other), StaticResolver::new(), routed(vec![edit]));
        world.mail(&["bob@example.net"]).await;
        world.log.wait_for("delivery", 1).await;
    }
    assert_eq!((other.log().count("DATA"), other.log().count("AUTH")), (2, 0));
    assert_eq!(next.log().sessions, 0);
}

/// What the configuration does not list, or lists no longer, is not looked up as a host of that name.
#[tokio::test]
async fn a_next_hop_that_no_configuration_lists_is_no_host() {
    let sink = Sink::start(Script::new()).await;
    let resolver = StaticResolver::new().with_address("gone", "127.0.0.1");
    for name in [sink.address().to_string(), format!("gone:{}", sink.address().port()), "unix:/run/x".into()]
    {
        let edits = vec![Edit::NextHop(hop(&name))];
        let world = World::start_with(to_relay(&[sink.address()]), resolver.clone(), routed(edits));
        world.mail(&["bob@example.net"]).await;
        let reply = deferred(&world).await;
        assert!(reply.starts_with("451 4.3.5 the configuration has no relay named"), "{reply}");
    }
    assert_eq!(sink.log().sessions, 0);
    assert!(resolver.asked().is_empty());
}

/// Keeps the first message until it is notified.
struct Gate {
    name: Arc<str>,
    asked: Notify,
    go: Mutex<Option<Arc<Notify>>>,
}

impl Judge for Gate {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn hooks(&self) -> Hooks {
        Hooks::NONE.with(Hook::Deliver)
    }

    fn judge(&self, _: Call, _: View) -> BoxFuture<'_, Ruling> {
        let go = self.go.lock().unwrap().take();
        self.asked.notify_one();
        Box::pin(async move {
            if let Some(go) = go {
                go.notified().await;
            }
            Verdict::Next.into()
        })
    }
}

/// An attempt that began before a reload opens its session as the old configuration says. No other may use it: the new
/// one may know other hosts, other credentials or other roots.
#[tokio::test]
async fn a_session_of_the_old_configuration_is_not_used_under_the_new_one() {
    let (old, new) =
        (Sink::start(Script::new()).await, Sink::start(Script::new().login("gate", "secret")).await);
    let go = Arc::new(Notify::new());
    let held = Mutex::new(Some(Arc::clone(&go)));
    let gate = Arc::new(Gate { name: "gate".into(), asked: Notify::new(), go: held });
    let judges = vec![Arc::clone(&gate) as Arc<dyn Judge>];
    let world = World::start_with(to_relay(&[old.address()]), StaticResolver::new(), asked_by(judges));
    world.mail(&["first@example.net"]).await;
    within("the first attempt", gate.asked.notified()).await;
    let mut changed = relay(&[new.address()]);
    changed.credentials = login(Channel::Plain);
    world.handle.reload(with_relay(changed), no_verification());
    world.settled().await;
    go.notify_one();
    old.wait_for(1).await;
    world.empty().await;
    world.mail(&["second@example.net"]).await;
    let got = new.wait_for(1).await;
    assert_eq!((got[0].recipients(), got[0].user.as_deref()), (vec!["second@example.net"], Some("gate")));
    assert_eq!(old.log().accepted().count(), 1);
}

/// An unverified session is not used for a message that demands a verified host (RFC 8689).
#[tokio::test]
async fn an_unverified_session_carries_nothing_that_demands_a_verified_one() {
    let leaf = TestCa::new().issue(&["127.0.0.1"]);
    let sink = Sink::start(Script::new().starttls(&leaf).offer("REQUIRETLS")).await;
    let world = World::start(to_relay(&[sink.address()]), StaticResolver::new());
    world.mail(&["bob@example.net"]).await;
    sink.wait_for(1).await;
    world.empty().await;
    let mut mail = common::message_to(&["bob@example.net"]);
    mail.params.require_tls = true;
    world.commit(mail).await;
    assert!(deferred(&world).await.starts_with("451 4.7.5"));
    assert_eq!(sink.log().count("MAIL"), 1);
}

#[test]
fn what_no_configuration_lists_gets_as_much_tls_as_exchangers() {
    let mut config = config();
    config.mx.tls = TlsPolicy::Verified;
    assert_eq!(config.tls_for(&hop("somewhere.example:25")), TlsPolicy::Verified);
}
