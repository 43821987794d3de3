//! Limits of the stock plugin `rate-limit` on what goes on at once, in the real binary.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use e2e::{Gateway, binary, configuration};
use pintle_testkit::{Client, Script, Sink, TempDir};

const MESSAGE: &[u8] = b"Subject: one\r\nFrom: <a@x.example>\r\n\r\nhello\r\n";

/// The host ends each lease with its session, also if the client does not say goodbye.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_too_many_sessions_at_once_is_turned_away_until_one_ends() {
    let folder = TempDir::new().unwrap();
    let sink = Sink::start(Script::new()).await;
    let plugin = format!(
        "[plugins]\ncache = \"{}\"\n[[plugin]]\nname = \"rate-limit\"\ncomponent = \"stock:rate-limit\"\n\
         grants = [\"kv\"]\n[plugin.config]\nconcurrent = [{{ name = \"c\", by = \"network\", max = 2 }}]\n",
        binary().with_file_name("plugin-cache").display()
    );
    let gateway = Gateway::start(&configuration(folder.path(), sink.address(), &plugin));
    let from = |last: u8| Client::connect_from([127, 0, 0, last].into(), gateway.address("mx"));
    for _ in 0..3 {
        let (mut first, mut second) = (from(66).await, from(67).await);
        first.hello("client.example").await;
        second.hello("client.example").await;
        let mut third = from(68).await;
        let reply = third.expect(421).await;
        assert!(reply.text().contains("Too many sessions at once (limit c)"), "{reply:?}");
        third.expect_closed().await;
        first.deliver("a@x.example", &["b@ours.example"], MESSAGE).await;
        first.ask("QUIT", 221).await;
        drop(second);
        // The gateway may notice a moment later that both are gone.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
