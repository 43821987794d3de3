//! The stock plugin `header-rewrite` in the real binary: the direction of mail, and what is done once or for each
//! delivery.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use e2e::{Gateway, binary, configuration, run};
use pintle_testkit::{Client, Script, Sink, TempDir};

/// A gateway that sends mail for our domain to one server and all other mail to another.
struct Edge {
    gateway: Gateway,
    home: Sink,
    world: Sink,
    _folder: TempDir,
}

impl Edge {
    async fn start(settings: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let (home, world) = (Sink::start(Script::new()).await, Sink::start(Script::new()).await);
        let cache = binary().with_file_name("plugin-cache");
        let more = format!(
            "[plugins]\ncache = \"{}\"\n[relays.home]\nhosts = [\"{}\"]\n[[route]]\ndomain = \"ours.example\"\n\
             via = \"home\"\n[[plugin]]\nname = \"rewrite\"\ncomponent = \"stock:header-rewrite\"\n\
             grants = [\"edit-headers\", \"edit-envelope\"]\n[plugin.config]\n{settings}",
            cache.display(),
            home.address()
        );
        let gateway = Gateway::start(&configuration(folder.path(), world.address(), &more));
        Self { gateway, home, world, _folder: folder }
    }

    async fn colleague(&self) -> Client {
        let mut client = Client::connect(self.gateway.address("inside")).await;
        client.hello("inside.example").await;
        client
    }
}

fn text(message: &[u8]) -> String {
    String::from_utf8_lossy(message).into_owned()
}

const INTERNAL: &[u8] =
    b"Received: from pc7 by inner; Mon, 1 Jan 2024 00:00:00 +0000\r\nX-Internal-Id: 7\r\n\
    From: ann@pc7.corp.example\r\nSubject: s\r\n\r\nbody\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stripped_at_deliveries_only_strangers_miss() {
    let edge = Edge::start(
        "strip_outbound = [\"Received\", \"X-Internal-*\"]\nstrip_outbound_at = \"deliver\"\n\
         [[plugin.config.rules]]\nstage = \"deliver\"\ndirection = \"outbound\"\nset = { name = \"X-Out\", value = \"1\" }\n\
         [[plugin.config.addresses]]\nstage = \"deliver\"\nfrom = \".corp.example\"\nto = \"corp.example\"\n",
    )
    .await;
    let to = ["b@y.example", "c@ours.example"];
    edge.colleague().await.deliver("ann@pc7.corp.example", &to, INTERNAL).await;
    let outside = text(&edge.world.wait_for(1).await[0].message);
    assert_eq!(outside.matches("Received:").count(), 1, "the gateway's own stays: {outside}");
    assert!(outside.contains("by gate.example") && !outside.contains("X-Internal-Id"), "{outside}");
    assert!(outside.contains("X-Out: 1\r\n") && outside.contains("From: ann@corp.example\r\n"), "{outside}");
    let inside = text(&edge.home.wait_for(1).await[0].message);
    assert_eq!(inside.matches("Received:").count(), 2, "{inside}");
    assert!(inside.contains("X-Internal-Id: 7\r\nFrom: ann@pc7.corp.example\r\n"), "{inside}");
    assert!(!inside.contains("X-Out"), "{inside}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_among_ourselves_is_not_outbound() {
    let edge = Edge::start(
        "strip_outbound = [\"X-Internal-*\"]\n[[plugin.config.rules]]\ndirection = \"internal\"\n\
         add = { name = \"X-Way\", value = \"internal\" }\n",
    )
    .await;
    let mut colleague = edge.colleague().await;
    colleague.deliver("ann@pc7.corp.example", &["c@ours.example"], INTERNAL).await;
    let inside = text(&edge.home.wait_for(1).await[0].message);
    assert!(inside.contains("X-Internal-Id: 7") && inside.contains("X-Way: internal"), "{inside}");
    colleague.deliver("ann@pc7.corp.example", &["b@y.example"], INTERNAL).await;
    let outside = text(&edge.world.wait_for(1).await[0].message);
    assert!(!outside.contains("X-Internal-Id") && !outside.contains("X-Way"), "{outside}");
}

/// The core removes fields in the gateway's name when the message is committed; the plugin does it earlier, so that no
/// later plugin is deceived. A dry run shows what plugins have left.
#[test]
fn results_in_the_gateways_own_name_are_forged_without_any_configuration() {
    let folder = TempDir::new().unwrap();
    let cache = binary().with_file_name("plugin-cache");
    let plugin = format!(
        "[plugins]\ncache = \"{}\"\n[[plugin]]\nname = \"rewrite\"\ncomponent = \"stock:header-rewrite\"\n\
         grants = [\"edit-headers\", \"edit-envelope\"]\nconfig = {{ authserv_ids = [\"old.example\"] }}\n",
        cache.display()
    );
    let config = configuration(folder.path(), "127.0.0.1:25".parse().unwrap(), &plugin);
    let message = "Authentication-Results: Gate.example 1; spf=pass\nAuthentication-Results: (x) old.example; spf=pass\n\
        Authentication-Results: other.example; spf=pass\nX-MS-Exchange-Forest-A: 1\nFrom: a@x.example\n\
        To: b@ours.example\n\n.\n";
    std::fs::write(folder.path().join("m.eml"), message).unwrap();
    let arguments = ["try", "-c", config.to_str().unwrap(), "m.eml"];
    let (code, out, err) = run(&arguments, folder.path());
    assert_eq!(code, 0, "{out}{err}");
    let removed: Vec<_> =
        out.lines().filter(|line| line.starts_with('-') && !line.starts_with("---")).collect();
    assert_eq!(
        removed,
        [
            "-Authentication-Results: Gate.example 1; spf=pass",
            "-Authentication-Results: (x) old.example; spf=pass",
            "-X-MS-Exchange-Forest-A: 1"
        ]
    );
    let (code, out, _) = run(&[&arguments[..], &["--trusted"]].concat(), folder.path());
    assert!(code == 0 && out.contains("header    unchanged"), "{out}");
}

#[test]
fn what_cannot_be_done_at_a_delivery_is_a_mistake() {
    let folder = TempDir::new().unwrap();
    let plugin = "[[plugin]]\nname = \"rewrite\"\ncomponent = \"stock:header-rewrite\"\n[[plugin.config.addresses]]\n\
        from = \"a.example\"\nto = \"b.example\"\nstage = \"deliver\"\nin = [\"sender\"]\n[[plugin.config.rules]]\n\
        direction = \"sideways\"\n";
    let config = configuration(folder.path(), "127.0.0.1:25".parse().unwrap(), plugin);
    let (code, out, _) = run(&["check", "-c", config.to_str().unwrap()], folder.path());
    assert_eq!(code, 1);
    assert!(out.contains("/rules/0: `remove`, `rename`, `replace`, `set` or `add` is missing"), "{out}");
    assert!(out.contains("/rules/0/direction: this is not one of the possible values"), "{out}");
    let good = plugin.replace("direction = \"sideways\"", "remove = { name = \"X\" }");
    let config = configuration(folder.path(), "127.0.0.1:25".parse().unwrap(), &good);
    let (code, out, _) = run(&["check", "-c", config.to_str().unwrap()], folder.path());
    assert!(
        code == 1 && out.contains("/addresses/0/in: envelopes are rewritten at `receive` alone"),
        "{out}"
    );
}
