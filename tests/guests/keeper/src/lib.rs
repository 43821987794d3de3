//! A guest that takes leases and has codes made with secrets. Its settings name what it does in each hook; what it gets is
//! the fact "got".

use std::time::Duration;

use pintle_plugin_sdk::prelude::*;
use pintle_plugin_sdk::{leases, secrets};

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Keeper {
    configure: String,
    connect: String,
    rcpt: String,
    message: String,
    deliver: String,
    disconnect: String,
}

impl Plugin for Keeper {
    const ID: &'static str = "test.keeper";
    const WANTS: &'static [&'static str] = &["kv", "secrets"];

    fn check(&mut self) -> Result<(), Vec<ConfigError>> {
        match self.configure.as_str() {
            "" => Ok(()),
            what => Err(vec![mistake("/configure", got(what))]),
        }
    }
}

impl Keeper {
    fn on_connect(&self) -> Result<Verdict, HostError> {
        act(&self.connect)
    }

    fn on_rcpt(&self, _: &Recipient) -> Result<Verdict, HostError> {
        act(&self.rcpt)
    }

    fn on_message(&self) -> Result<Verdict, HostError> {
        act(&self.message)
    }

    fn on_deliver(&self) -> Result<Verdict, HostError> {
        act(&self.deliver)
    }

    fn on_disconnect(&self) -> Result<(), HostError> {
        act(&self.disconnect).map(drop)
    }
}

fn act(what: &str) -> Result<Verdict, HostError> {
    if !what.is_empty() {
        session::set_fact("got", &got(what))?;
    }
    match what {
        "lease-trap" => panic!("as told"),
        "lease-sleep" => std::thread::sleep(Duration::from_secs(3_600)),
        "lease-reject" => return Ok(reject("5.7.1", "told to")),
        _ => {}
    }
    Ok(Verdict::Next)
}

/// What this comes to, as text.
fn got(what: &str) -> String {
    let words: Vec<&str> = what.split(' ').collect();
    match words[..] {
        ["hmac", key, algorithm] => shown(secrets::hmac(key, algorithm, b"what do ya want for nothing?")),
        ["hmac-of", key, len] => shown(secrets::hmac(key, "sha256", &vec![b'x'; len.parse().unwrap()])),
        ["random", len] => shown(secrets::random_bytes(len.parse().unwrap())),
        ["lease-twice"] => format!("{:?} {:?}", leases::take("k", 2), leases::take("k", 2)),
        ["lease-many"] => format!("{:?}", (0..100).find_map(|n| leases::take(&n.to_string(), 1).err())),
        ["lease-key", len] => format!("{:?}", leases::take(&"k".repeat(len.parse().unwrap()), 1)),
        _ => format!("{:?}", leases::take("k", 2)),
    }
}

fn shown(octets: Result<Vec<u8>, HostError>) -> String {
    match octets {
        Ok(octets) => octets.iter().map(|octet| format!("{octet:02x}")).collect(),
        Err(error) => format!("{error:?}"),
    }
}

pintle_plugin_sdk::export!(Keeper: on_connect, on_rcpt, on_message, on_deliver, on_disconnect);
