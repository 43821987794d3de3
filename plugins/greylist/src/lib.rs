//! Greylisting: defers the first attempt of a stranger to send from one address to another. Mail servers retry; most
//! junk mailers do not.
//!
//! The state is in the host's store: one entry for each combination of network, sender and recipient, and a count of
//! retried combinations for each network. A network with enough retries is no longer deferred. Trusted and
//! authenticated clients are never deferred. If the store fails, mail passes: without the delay some junk passes, but
//! deferring all mail would lose some of it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pintle_plugin_sdk::kv;
use pintle_plugin_sdk::settings::{self, Mailbox, Network, network_of};
use pintle_plugin_sdk::{metrics, prelude::*};

/// The operator's configuration.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Greylist {
    /// How long a new combination is deferred.
    #[serde(deserialize_with = "settings::duration")]
    delay: Duration,
    /// How long a retry may take before the combination counts as new.
    #[serde(deserialize_with = "settings::duration")]
    window: Duration,
    /// How long a retried combination is remembered after its last message.
    #[serde(deserialize_with = "settings::duration")]
    keep: Duration,
    /// After this many retried combinations of a network, the network is no longer deferred; 0 for never.
    auto_allow: u32,
    /// Lifetime of the count for `auto_allow`.
    #[serde(deserialize_with = "settings::duration")]
    auto_allow_for: Duration,
    /// Prefix length of a network, since servers that share a queue are in the same network.
    ipv4_prefix: u8,
    ipv6_prefix: u8,
    /// Networks, senders and recipients that are never deferred.
    allow_networks: Vec<Network>,
    allow_senders: Vec<Mailbox>,
    allow_recipients: Vec<Mailbox>,
}

impl Default for Greylist {
    fn default() -> Self {
        let days = |days: u64| Duration::from_secs(days * 86_400);
        Self {
            delay: Duration::from_secs(300),
            window: days(2),
            keep: days(36),
            auto_allow: 5,
            auto_allow_for: days(36),
            ipv4_prefix: 24,
            ipv6_prefix: 64,
            allow_networks: Vec::new(),
            allow_senders: Vec::new(),
            allow_recipients: Vec::new(),
        }
    }
}

impl Plugin for Greylist {
    const ID: &'static str = "pintle.greylist";
    const WANTS: &'static [&'static str] = &["kv"];
    const CONFIG_SCHEMA: Option<&'static str> = Some(include_str!("../config.schema.json"));

    fn check(&mut self) -> Result<(), Vec<ConfigError>> {
        let mut mistakes = Vec::new();
        if self.window <= self.delay {
            mistakes.push(mistake("/window", "not longer than `delay`: no retry could come in time"));
        }
        if self.ipv4_prefix > 32 {
            mistakes.push(mistake("/ipv4_prefix", "an IPv4 prefix has at most 32 bits"));
        }
        if self.ipv6_prefix > 128 {
            mistakes.push(mistake("/ipv6_prefix", "an IPv6 prefix has at most 128 bits"));
        }
        if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
    }

    fn conditions(&self) -> Result<(), HostError> {
        calls::only_strangers(&["on-rcpt"])?;
        calls::not_networks(&["on-rcpt"], &self.allow_networks)
    }
}

impl Greylist {
    fn on_rcpt(&self, rcpt: &Recipient) -> Result<Verdict, HostError> {
        let session = session::info()?;
        let sender = transaction::info()?.sender;
        if session.known || self.leaves_alone(&session, &sender, rcpt) {
            return Ok(Verdict::Next);
        }
        let network = network_of(&session.client, self.ipv4_prefix, self.ipv6_prefix);
        Ok(match self.ask(&network, &sender, &rcpt.address) {
            Ok(GreylistAction::Wait(wait)) => {
                metrics::count("deferred", 1, &[]);
                let seconds = wait.as_secs().max(1);
                info!(network = network, sender = sender, rcpt = rcpt.address; "asked to retry in {seconds} s");
                defer("4.7.1", format!("Greylisted, not seen before: please try again in {seconds} seconds"))
            }
            Ok(GreylistAction::Pass) => Verdict::Next,
            Err(fault) => {
                metrics::count("store_faults", 1, &[]);
                warn!("the store failed, so mail passes without delay: {fault}");
                Verdict::Next
            }
        })
    }

    fn leaves_alone(&self, session: &session::Snapshot, sender: &Address, rcpt: &Recipient) -> bool {
        // Mail to other domains is relaying. A client that may relay is not deferred, and one that may not is refused
        // immediately.
        !rcpt.local
            || self.allow_networks.iter().any(|network| network.contains(&session.client))
            || self.allow_senders.iter().any(|mailbox| mailbox.matches(sender))
            || self.allow_recipients.iter().any(|mailbox| mailbox.matches(&rcpt.address))
    }

    /// Reads the stored state of this combination, and writes its new state.
    fn ask(&self, network: &str, sender: &Address, rcpt: &Address) -> Result<GreylistAction, HostError> {
        let (count, key) = (format!("network {network}"), key(network, sender, rcpt));
        if self.auto_allow > 0 && kv::count(&count)? >= self.auto_allow.into() {
            metrics::count("allowed", 1, &[]);
            return Ok(GreylistAction::Pass);
        }
        let entry = kv::get(&key)?;
        let version = entry.as_ref().map_or(0, |entry| entry.version);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        // If two attempts race, one fails the swap; the value of the other is as good.
        let write = |value: &str, keep: Duration| {
            kv::swap(&key, value.as_bytes(), Some(seconds(keep)), version).map(drop)
        };
        Ok(match self.turn(entry.map(|entry| entry.value).as_deref(), now) {
            Attempt::First => {
                write(&now.to_string(), self.window)?;
                GreylistAction::Wait(self.delay)
            }
            Attempt::TooEarly(rest) => GreylistAction::Wait(rest),
            Attempt::Returned => {
                write(KNOWN, self.keep)?;
                kv::increment(&count, 1, Some(seconds(self.auto_allow_for)))?;
                metrics::count("returned", 1, &[]);
                GreylistAction::Pass
            }
            Attempt::Known => {
                write(KNOWN, self.keep)?;
                GreylistAction::Pass
            }
        })
    }

    /// Classifies this attempt by the stored value: nothing, the time of the first attempt, or [`KNOWN`].
    fn turn(&self, stored: Option<&[u8]>, now: u64) -> Attempt {
        let Some(stored) = stored else { return Attempt::First };
        if stored == KNOWN.as_bytes() {
            return Attempt::Known;
        }
        let waited = Duration::from_secs(now.saturating_sub(number(stored)));
        match self.delay.checked_sub(waited) {
            Some(rest) if !rest.is_zero() => Attempt::TooEarly(rest),
            _ => Attempt::Returned,
        }
    }
}

/// The stored value of a combination that was retried.
const KNOWN: &str = "known";

/// Relation of an attempt to earlier ones of its combination.
#[derive(Debug, PartialEq)]
enum Attempt {
    First,
    TooEarly(Duration),
    /// The expected retry.
    Returned,
    Known,
}

/// What to do with an attempt.
enum GreylistAction {
    Pass,
    Wait(Duration),
}

/// The combination as text, in lower case: at most two addresses of 320 octets and a network, which a key has room for.
fn key(network: &str, sender: &Address, rcpt: &Address) -> String {
    format!("seen {network} {}@{} {}", stable(&sender.local), sender.domain, rcpt.text.to_lowercase())
}

/// A sender's local part in lower case, without the parts that change with each message or day: the codes of BATV and
/// SRS, and numbers, as in the return addresses of mailing lists.
fn stable(local: &str) -> String {
    let local = local.to_lowercase();
    let mut stable = String::new();
    for c in without_codes(&local).chars() {
        match c.is_ascii_digit() {
            true if stable.ends_with('#') => {}
            true => stable.push('#'),
            false => stable.push(c),
        }
    }
    stable
}

/// The part after the codes in `prvs=TAG=ann`, `btv1==TAG==ann`, `SRS0=HASH=DAY=domain=ann` and
/// `SRS1=HASH=forwarder==HASH=DAY=domain=ann`; for the last, the forwarder's name is removed too.
fn without_codes(local: &str) -> &str {
    let after = |rest: &'_ str, signs: usize| rest.splitn(signs + 1, '=').nth(signs).map(str::len);
    let rest = if let Some(rest) = local.strip_prefix("prvs=") {
        after(rest, 1)
    } else if let Some(rest) = local.strip_prefix("btv1==") {
        rest.split_once("==").map(|(_, ann)| ann.len())
    } else if let Some(rest) = local.strip_prefix("srs0").and_then(|rest| rest.strip_prefix(['=', '+', '-']))
    {
        after(rest, 2)
    } else if let Some(rest) = local.strip_prefix("srs1").and_then(|rest| rest.strip_prefix(['=', '+', '-']))
    {
        rest.split_once("==").and_then(|(_, inner)| after(inner, 2))
    } else {
        None
    };
    rest.map_or(local, |length| &local[local.len() - length..])
}

fn number(digits: &[u8]) -> u64 {
    std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

pintle_plugin_sdk::export!(Greylist: on_rcpt);

#[cfg(test)]
mod tests {
    use super::*;

    fn address(local: &str) -> Address {
        Address::new(local, "example.org")
    }

    #[test]
    fn a_combination_waits_returns_and_is_known() {
        let plugin = Greylist::default();
        assert_eq!(plugin.turn(None, 1_000), Attempt::First);
        assert_eq!(plugin.turn(Some(b"1000"), 1_299), Attempt::TooEarly(Duration::from_secs(1)));
        assert_eq!(plugin.turn(Some(b"1000"), 1_300), Attempt::Returned);
        assert_eq!(plugin.turn(Some(b"known"), 9), Attempt::Known);
    }

    #[test]
    fn a_clock_that_was_set_back_holds_nobody_up_for_longer_than_the_delay() {
        let wait = Greylist::default().turn(Some(b"99999"), 1_000);
        assert_eq!(wait, Attempt::TooEarly(Duration::from_secs(300)));
    }

    #[test]
    fn numbers_in_the_sender_do_not_make_it_another() {
        let of = |sender: &str, rcpt: &str| key("192.0.2.0/24", &address(sender), &address(rcpt));
        assert_eq!(of("list-bounce-123=ann", "bob"), of("list-bounce-4=ann", "BOB"));
        assert_ne!(of("list-bounce-123=ann", "bob"), of("list-bounce-123=eve", "bob"));
        assert_ne!(of("ann", "bob"), key("192.0.3.0/24", &address("ann"), &address("bob")));
    }

    #[test]
    fn codes_in_the_sender_do_not_make_it_another() {
        assert_eq!(stable("prvs=0786ab1f2c=Ann"), stable("prvs=0787ffffff=ann"));
        assert_eq!(stable("btv1==06abf==ann"), "ann");
        assert_eq!(stable("SRS0=HHHH=TT=x.example=ann"), stable("SRS0=JKLM=T3=x.example=ann"));
        assert_eq!(stable("SRS0+HHHH=TT=x.example=ann"), "x.example=ann");
        assert_eq!(stable("srs1=aaaa=f.example==hhhh=tt=x.example=ann"), "x.example=ann");
        for other in ["prvs=ann", "srs0", "srs0=a=b", "srs1=a", "ann=b=c", "btv1==ann"] {
            assert_eq!(without_codes(other), other);
        }
        assert_ne!(stable("prvs=0786ab1f2c=ann"), stable("prvs=0786ab1f2c=bob"));
    }

    #[test]
    fn a_window_that_ends_before_the_delay_is_a_mistake() {
        let mut plugin =
            Greylist { window: Duration::from_secs(300), ipv4_prefix: 33, ..Greylist::default() };
        let places: Vec<_> = plugin.check().unwrap_err().into_iter().map(|mistake| mistake.at).collect();
        assert_eq!(places, ["/window", "/ipv4_prefix"]);
    }
}
