//! Files and privileges: the modes of all that the gateway writes, what it refuses to rely on, and root's privileges,
//! which it drops after binding the ports.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::{Gateway, binary, configuration, run};
use pintle_testkit::{Client, Script, Sink, TempDir, TestCa};

fn with_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// All paths below a folder, the folder first.
fn all_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_owned()];
    let mut at = 0;
    while at < found.len() {
        if found[at].is_dir() {
            let entries = fs::read_dir(&found[at]).unwrap();
            found.extend(entries.map(|entry| entry.unwrap().path()));
        }
        at += 1;
    }
    found
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o777
}

/// Starts the gateway from a shell with the usual umask.
fn started_by_a_shell(config: &Path) -> Gateway {
    let mut command = Command::new("sh");
    command.args(["-c", "umask 022; exec \"$0\" run --config \"$1\""]).arg(binary()).arg(config);
    Gateway::attempt(&mut command).unwrap_or_else(|why| panic!("{why}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_is_closed_to_others_whatever_the_umask() {
    let folder = TempDir::new().unwrap();
    // No server listens there, so all mail stays in the queue.
    let next_hop = "127.0.0.1:9".parse().unwrap();
    let config = configuration(folder.path(), next_hop, "[plugins]\nstate = \"state\"\n");
    // As an earlier version left the file.
    fs::create_dir(folder.path().join("spool")).unwrap();
    with_mode(&folder.path().join("spool"), 0o755);
    let gateway = started_by_a_shell(&config);
    let mut client = Client::connect(gateway.address("inside")).await;
    client.hello("client.example").await;
    let large = [&b"Subject: large\r\n\r\n"[..], &b"a line of a large message\r\n".repeat(80_000)].concat();
    for message in [&b"Subject: small\r\n\r\nhello\r\n"[..], &large] {
        client.deliver("a@x.example", &["b@other.example"], message).await;
    }
    let kept: Vec<_> =
        ["spool", "state"].iter().flat_map(|name| all_below(&folder.path().join(name))).collect();
    assert!(kept.len() > 5 && kept.iter().any(|path| path.to_string_lossy().contains("bodies/")), "{kept:?}");
    for path in kept {
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(&path), expected, "{} has mode {:o}", path.display(), mode(&path));
    }
    assert_eq!(mode(&folder.path().join("admin.sock")), 0o600);
    let (code, said, errors) = run(&["status", "-c", config.to_str().unwrap()], folder.path());
    assert_eq!(code, 0, "the operator gets in: {said}{errors}");
    gateway.stop();
}

/// `pintle check` and `pintle run` both refuse, name the path, and say what to do.
fn refused(config: &Path, folder: &Path, path: &Path, remedy: &str) {
    for command in ["check", "run"] {
        let (code, said, errors) = run(&[command, "-c", config.to_str().unwrap()], folder);
        let said = said + &errors;
        assert_eq!(code, 1, "{said}");
        assert!(said.contains(&path.display().to_string()) && said.contains(remedy), "{remedy}: {said}");
    }
}

#[tokio::test]
async fn what_others_may_write_or_read_is_not_relied_on() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let leaf = TestCa::new().issue(&["gate.example"]).write(folder.path(), "gate");
    fs::copy(pintle_guest_build::component("unruly").unwrap(), at("plugin.wasm")).unwrap();
    let more = format!(
        "[plugins]\ncache = \"{}\"\nstate = \"above/state\"\n[[tls.certificate]]\nchain = \"gate.pem\"\nkey = \"gate.key\"\n\
         [[plugin]]\nname = \"p\"\ncomponent = \"plugin.wasm\"\n[[user]]\nname = \"ann\"\npassword = {{ file = \"secret\" }}\n",
        binary().with_file_name("plugin-cache").display()
    );
    let config = configuration(folder.path(), "127.0.0.1:9".parse().unwrap(), &more);
    fs::write(at("secret"), "sesame\n").unwrap();
    with_mode(&at("secret"), 0o600);
    for folder in ["spool", "above"] {
        fs::create_dir(at(folder)).unwrap();
    }
    for (path, bad, good, remedy) in [
        (at("spool"), 0o777, 0o700, "chmod go-w"),
        (at("above"), 0o777, 0o755, "chmod go-w"),
        (at("secret"), 0o644, 0o600, "chmod o="),
        (leaf.key, 0o604, 0o640, "chmod o="),
        (at("plugin.wasm"), 0o646, 0o644, "chmod go-w"),
        (config.clone(), 0o602, 0o600, "chmod go-w"),
    ] {
        with_mode(&path, bad);
        refused(&config, folder.path(), &path, remedy);
        with_mode(&path, good);
    }
}

/// The user and group ids of each thread of the process, from the system.
fn threads(pid: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks.map(|task| fs::read_to_string(task.unwrap().path().join("status")).unwrap()).collect()
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

#[tokio::test(flavor = "multi_thread")]
async fn root_becomes_the_user_of_the_configuration_and_nobody_else_can() {
    let (folder, sink) = (TempDir::new().unwrap(), Sink::start(Script::new()).await);
    let config = configuration(folder.path(), sink.address(), "[process]\nuser = \"nobody\"\n");
    if !is_root() {
        let (code, _, errors) = run(&["run", "-c", config.to_str().unwrap()], folder.path());
        assert!(code == 1 && errors.contains("only root can become \"nobody\""), "{errors}");
        return;
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let nobody = passwd.lines().find(|line| line.starts_with("nobody:")).unwrap();
    let id = |at: usize| nobody.split(':').nth(at).unwrap().parse::<u32>().unwrap();
    let (uid, gid) = (id(2), id(3));
    chown(folder.path(), Some(uid), Some(gid)).unwrap();
    let gateway = Gateway::start(&config);
    gateway.wait_for("root privileges dropped");
    for status in threads(gateway.pid()) {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(field("Uid:"), vec![uid.to_string(); 4]);
        assert_eq!(field("Gid:"), vec![gid.to_string(); 4]);
        assert!(!field("Groups:").contains(&"0".to_owned()), "{status}");
        for set in ["CapPrm:", "CapEff:", "CapInh:", "CapAmb:"] {
            assert_eq!(field(set), ["0000000000000000"], "{set}");
        }
        assert_eq!(field("NoNewPrivs:"), ["1"]);
    }
    let mut client = Client::connect(gateway.address("inside")).await;
    client.hello("client.example").await;
    client.deliver("a@x.example", &["b@other.example"], b"Subject: one\r\n\r\nhello\r\n").await;
    sink.wait_for(1).await;
    for path in all_below(&folder.path().join("spool")) {
        assert_eq!(fs::metadata(&path).unwrap().uid(), uid, "{}", path.display());
    }
    let (code, said, errors) = run(&["status", "-c", config.to_str().unwrap()], folder.path());
    assert_eq!(code, 0, "root gets in: {said}{errors}");
    gateway.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stays_root_says_so() {
    let (folder, sink) = (TempDir::new().unwrap(), Sink::start(Script::new()).await);
    let gateway = Gateway::start(&configuration(folder.path(), sink.address(), ""));
    assert_eq!(gateway.log().contains("THE GATEWAY RUNS AS ROOT"), is_root());
    gateway.stop();
}

/// Root can read files that the gateway's user cannot: otherwise only a refused start, or a failed reload, would show
/// it.
#[test]
fn check_warns_of_what_the_gateways_user_cannot_read() {
    if !is_root() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let more = "[process]\nuser = \"nobody\"\n[[user]]\nname = \"a\"\npassword = { file = \"secret\" }\n";
    let config = configuration(folder.path(), "127.0.0.1:9".parse().unwrap(), more);
    let secret = folder.path().join("secret");
    fs::write(&secret, "sesame").unwrap();
    with_mode(&secret, 0o600);
    with_mode(&config, 0o644);
    let warned =
        || run(&["check", "-c", config.to_str().unwrap()], folder.path()).1.matches("cannot read").count();
    assert_eq!(warned(), 1);
    with_mode(&secret, 0o640);
    assert_eq!(warned(), 0, "there may be a group");
    with_mode(&config, 0o600);
    assert_eq!(warned(), 1);
}
