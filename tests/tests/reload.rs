//! A reload of the configuration: it is prepared as a whole and then applied, and says what changed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use e2e::{Gateway, binary, configuration, run};
use pintle_testkit::{Client, TempDir, TestCa};

/// No server listens there.
const NOWHERE: &str = "127.0.0.1:9";
/// The folder where all tests compile plugins to.
const PLUGINS: &str = "[plugins]\ncache = \"CACHE\"\n";

/// A gateway, and its configuration.
struct Reloading {
    folder: TempDir,
    config: PathBuf,
}

impl Reloading {
    fn new(more: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let cache = binary().with_file_name("plugin-cache").display().to_string();
        let more = format!("{}{more}", PLUGINS.replace("CACHE", &cache));
        let config = configuration(folder.path(), NOWHERE.parse().unwrap(), &more);
        Self { folder, config }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn exchange(&self, from: &str, to: &str) {
        let text = fs::read_to_string(&self.config).unwrap();
        assert!(text.contains(from), "{from} is not in {text}");
        fs::write(&self.config, text.replace(from, to)).unwrap();
    }

    /// The exit code, and what the command prints.
    fn reload(&self) -> (i32, String) {
        let (code, out, err) = run(&["reload", "-c", self.config.to_str().unwrap()], self.path());
        (code, out + &err)
    }

    fn changes(&self) -> Vec<String> {
        let (code, said) = self.reload();
        assert_eq!(code, 0, "{said}");
        said.lines().map(str::to_owned).collect()
    }
}

fn plugin(name: &str, more: &str) -> String {
    format!("[[plugin]]\nname = \"{name}\"\ncomponent = \"stock:greylist\"\ngrants = [\"kv\"]\n{more}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_names_what_changed_and_nothing_else() {
    let reloading = Reloading::new("");
    let gateway = Gateway::start(&reloading.config);
    assert_eq!(reloading.changes(), ["nothing has changed"]);
    reloading.exchange("accepted = [\"ours.example\"]", "accepted = [\"ours.example\", \"other.example\"]");
    assert_eq!(reloading.changes(), ["changed: rules"]);
    reloading.exchange("[[route]]", "[queue]\nmax_age = \"2d\"\n[[route]]");
    assert_eq!(reloading.changes(), ["changed: delivery"]);
    let (first, second) = (plugin("first", ""), plugin("second", ""));
    reloading.exchange("[plugins]", &format!("{first}{second}[plugins]"));
    assert_eq!(reloading.changes(), ["changed: plugin first (added)", "changed: plugin second (added)"]);
    assert_eq!(reloading.changes(), ["nothing has changed"]);
    reloading.exchange(&first, &plugin("first", "mandatory = true\n"));
    assert_eq!(reloading.changes(), ["changed: plugin first (reconfigured)"]);
    let first = plugin("first", "mandatory = true\n");
    reloading.exchange(&format!("{first}{second}"), &format!("{second}{first}"));
    assert_eq!(reloading.changes(), ["changed: the order of the plugins"]);
    reloading.exchange(&second, "");
    assert_eq!(reloading.changes(), ["changed: plugin second (removed)"]);
    gateway.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_fails_changes_nothing_certificates_included() {
    let (old, new) = (TestCa::new(), TestCa::new());
    let reloading = Reloading::new("[[tls.certificate]]\nchain = \"chain.pem\"\nkey = \"key.pem\"\n");
    reloading.exchange("tls = \"none\"\n\n[[listener]]", "tls = \"starttls\"\n\n[[listener]]");
    certificate(reloading.path(), &old);
    let gateway = Gateway::start(&reloading.config);
    shake_hands(&gateway, &old).await;
    certificate(reloading.path(), &new);
    fs::write(reloading.path().join("broken.wasm"), "no component").unwrap();
    let broken = plugin("broken", "").replace("stock:greylist", "broken.wasm");
    reloading.exchange("[plugins]", &format!("{broken}[plugins]"));
    reloading.exchange("accepted = [\"ours.example\"]", "accepted = [\"ours.example\", \"other.example\"]");
    let (code, said) = reloading.reload();
    assert!(code == 1 && said.contains("broken"), "{said}");
    shake_hands(&gateway, &old).await;
    reloading.exchange(&broken, "");
    assert_eq!(reloading.changes(), ["changed: certificates", "changed: rules"]);
    shake_hands(&gateway, &new).await;
    gateway.stop();
}

fn certificate(folder: &Path, ca: &TestCa) {
    use std::os::unix::fs::PermissionsExt;
    let leaf = ca.issue(&["gate.example"]);
    fs::write(folder.join("chain.pem"), &leaf.chain_pem).unwrap();
    fs::write(folder.join("key.pem"), &leaf.key_pem).unwrap();
    fs::set_permissions(folder.join("key.pem"), PermissionsExt::from_mode(0o600)).unwrap();
}

/// Panics unless the gateway's certificate is of this authority.
async fn shake_hands(gateway: &Gateway, ca: &TestCa) {
    let mut client = Client::connect(gateway.address("mx")).await;
    client.hello("client.example").await;
    let mut client = client.starttls(ca.client_config(), "gate.example").await;
    client.ask("EHLO client.example", 250).await;
    client.ask("QUIT", 221).await;
}
