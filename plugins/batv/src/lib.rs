//! Bounce address tag validation (draft-levine-smtp-batv-01, scheme `prvs`): signs the envelope sender of outgoing
//! mail, and refuses bounces to addresses without a valid signature. Such bounces are backscatter of junk mail with a
//! forged sender.
//!
//! The sender is signed in `on-deliver`, for that attempt only. So the stored message keeps the sender that its author
//! used, and the gateway's own reports go to it directly. On incoming mail the tag of a recipient is always removed,
//! valid or not; servers behind the gateway never see a tag. Mail with the null reverse-path (bounces) is refused
//! unless the tag is valid. Trusted and authenticated clients are never refused here, and postmaster and abuse accept
//! every bounce.

mod tag;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pintle_plugin_sdk::settings::{Domain, Mailbox, Network};
use pintle_plugin_sdk::{gateway, metrics, prelude::*, secrets};
use serde::Deserialize;

use crate::tag::{Day, MakeCode, TagKey, Worth};

/// The operator's configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batv {
    /// The first key signs; tags of all keys are valid.
    keys: Vec<TagKey>,
    /// Domains whose addresses are signed and protected; if empty, the gateway's own.
    #[serde(default)]
    domains: Vec<Domain>,
    /// Lifetime of a tag in days.
    #[serde(default = "a_week")]
    valid_days: u16,
    #[serde(default)]
    refuse_at: RefuseAt,
    /// Accept read receipts without a tag.
    #[serde(default)]
    accept_receipts: bool,
    /// Accept bounces without a tag until this day begins (UTC).
    accept_untagged_until: Option<ConfigDate>,
    /// Mail to these recipients is sent with an unsigned sender.
    #[serde(default)]
    unsigned_recipients: Vec<Mailbox>,
    /// Addresses of our domains that are neither signed nor protected.
    #[serde(default)]
    exempt_addresses: Vec<Mailbox>,
    /// Clients from which every bounce is accepted.
    #[serde(default)]
    exempt_networks: Vec<Network>,
    #[serde(skip, default = "by_host")]
    make_code: MakeCode,
}

/// The stage at which an invalid bounce is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RefuseAt {
    #[default]
    Rcpt,
    /// After the header: clients that only check whether an address exists (callouts) get 250. The valid recipients of a
    /// bounce receive it.
    Data,
}

/// A date, such as `2026-12-31`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
struct ConfigDate(Day);

impl TryFrom<String> for ConfigDate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        tag::day(&text)
            .map(Self)
            .ok_or_else(|| format!("{text:?} is not a day: write it like \"2026-12-31\""))
    }
}

/// Classification of a recipient.
#[derive(Debug, PartialEq)]
enum BounceRecipient {
    /// Not an address of a protected domain.
    Elsewhere,
    /// A valid bounce address. Holds the address without its tag if it had one.
    Good(Option<Address>),
    /// An address that must not receive bounces: the reason, and the address without its tag if it had one.
    Bad(&'static str, Option<Address>),
}

impl Plugin for Batv {
    const ID: &'static str = "pintle.batv";
    const WANTS: &'static [&'static str] = &["edit-envelope", "secrets"];
    const CONFIG_SCHEMA: Option<&'static str> = Some(include_str!("../config.schema.json"));

    fn check(&mut self) -> Result<(), Vec<ConfigError>> {
        let mut mistakes = Vec::new();
        if self.keys.is_empty() {
            mistakes.push(mistake("/keys", "no keys, so nothing can be signed"));
        }
        for (at, key) in self.keys.iter().enumerate() {
            if key.number > 9 {
                mistakes.push(mistake(format!("/keys/{at}/number"), "one digit, 0 to 9"));
            }
            if self.keys[..at].iter().any(|other| other.number == key.number) {
                mistakes.push(mistake(format!("/keys/{at}/number"), "another key has this number"));
            }
        }
        if !(1..=MAX_DAYS).contains(&self.valid_days) {
            mistakes.push(mistake("/valid_days", format!("not between 1 and {MAX_DAYS}")));
        }
        if self.accept_receipts && self.refuse_at == RefuseAt::Rcpt {
            let text = "whether mail is a receipt stands in its header: it needs `refuse_at = \"data\"`";
            mistakes.push(mistake("/accept_receipts", text));
        }
        if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
    }

    fn conditions(&self) -> Result<(), HostError> {
        calls::only_known(&["on-deliver"])?;
        if self.refuse_at == RefuseAt::Rcpt {
            calls::never("on-headers")?;
        }
        calls::only_strangers(&["on-headers"])?;
        calls::not_networks(&["on-headers"], &self.exempt_networks)?;
        calls::only_senders("on-headers", &[NULL_SENDER.to_owned()])
    }
}

impl Batv {
    fn on_deliver(&self) -> Result<Verdict, HostError> {
        let sender = transaction::info()?.sender;
        if !session::info()?.known || !self.is_signed(&sender) {
            return Ok(Verdict::Next);
        }
        let recipients = delivery::info()?.recipients;
        if recipients.iter().all(|rcpt| self.goes_unsigned(&rcpt.address)) {
            return Ok(Verdict::Next);
        }
        let expires = today() + Day::from(self.valid_days);
        let Some(key) = self.keys.first() else { return Ok(Verdict::Next) };
        match tag::sign(key, &sender, expires, self.make_code)? {
            Some(signed) => {
                metrics::count("signed", 1, &[]);
                debug!(sender = sender; "signed as {signed}");
                transaction::rewrite_sender(&signed.text)?;
            }
            None => {
                metrics::count("too_long", 1, &[]);
                debug!(sender = sender; "too long for a tag: sent unsigned");
            }
        }
        Ok(Verdict::Next)
    }

    fn on_rcpt(&self, rcpt: &Recipient) -> Result<Verdict, HostError> {
        let session = session::info()?;
        let is_bounce = transaction::info()?.sender.is_null();
        let judged = is_bounce && !session.known && !self.is_exempt(&session);
        let ours = self.is_ours(&rcpt.address);
        match self.target(&rcpt.address, ours, today())? {
            BounceRecipient::Elsewhere => {}
            BounceRecipient::Bad(why, _) if judged => return self.refuse(rcpt, why),
            BounceRecipient::Bad(_, plain) => strip(rcpt, plain.as_ref())?,
            BounceRecipient::Good(plain) => {
                if is_bounce && plain.is_some() {
                    metrics::count("valid", 1, &[]);
                }
                strip(rcpt, plain.as_ref())?;
            }
        }
        Ok(Verdict::Next)
    }

    fn on_headers(&self) -> Result<Verdict, HostError> {
        if self.refuse_at != RefuseAt::Data || !transaction::info()?.sender.is_null() {
            return Ok(Verdict::Next);
        }
        let recipients = transaction::recipients()?;
        let mut bad = Vec::new();
        for rcpt in &recipients {
            bad.extend(transaction::note_as::<String>(&marked(rcpt.id))?.map(|text| (rcpt.id, text)));
        }
        if bad.is_empty() {
            return Ok(Verdict::Next);
        }
        if self.accept_receipts && is_receipt()? {
            metrics::count("receipts", 1, &[]);
            return Ok(Verdict::Next);
        }
        if bad.len() == recipients.len() {
            return Ok(reject("5.7.1", bad.swap_remove(0).1));
        }
        for (id, text) in bad {
            transaction::refuse(&[id], &Reply::new(550, "5.7.1", text))?;
        }
        Ok(Verdict::Next)
    }

    /// Refuses this recipient of a bounce, immediately or after the header.
    fn refuse(&self, rcpt: &Recipient, why: &'static str) -> Result<Verdict, HostError> {
        let learning =
            why == UNTAGGED && self.accept_untagged_until.is_some_and(|ConfigDate(day)| today() < day);
        if learning {
            metrics::count("would_refuse", 1, &[]);
            info!(rcpt = rcpt.address; "a bounce without a tag would be refused after accept_untagged_until");
            return Ok(Verdict::Next);
        }
        metrics::count("refused", 1, &[("why", why)]);
        info!(rcpt = rcpt.address; "a bounce of mail that we did not send: {why}");
        let text = format!(
            "This bounce answers no mail that we sent: the return address <{}> {}",
            rcpt.address.text,
            said(why)
        );
        if self.refuse_at == RefuseAt::Rcpt {
            return Ok(reject("5.7.1", text));
        }
        match transaction::set_note_as(&marked(rcpt.id), &text) {
            // No real bounce has so many recipients that their notes exceed the host's limit.
            Err(HostError::Limit(_)) => Ok(reject("5.7.1", text)),
            noted => noted.map(|()| Verdict::Next),
        }
    }

    /// Classifies a recipient; `ours` says whether its domain is protected.
    fn target(&self, address: &Address, ours: bool, today: Day) -> Result<BounceRecipient, HostError> {
        if !ours {
            return Ok(BounceRecipient::Elsewhere);
        }
        let Some(tagged) = tag::read(&address.local) else {
            // An address that could not be signed on its way out comes back untagged.
            let taken = self.takes_any(address) || !tag::is_taggable(address);
            return Ok(if taken {
                BounceRecipient::Good(None)
            } else {
                BounceRecipient::Bad(UNTAGGED, None)
            });
        };
        let plain = address.with_local(tagged.local);
        let why = match tagged.worth(&self.keys, &address.domain, today, self.valid_days, self.make_code)? {
            Worth::Valid => return Ok(BounceRecipient::Good(Some(plain))),
            Worth::Expired => EXPIRED,
            Worth::UnknownKey => UNKNOWN_KEY,
            Worth::Forged => FORGED,
        };
        Ok(if self.takes_any(&plain) {
            BounceRecipient::Good(Some(plain))
        } else {
            BounceRecipient::Bad(why, Some(plain))
        })
    }

    fn is_signed(&self, sender: &Address) -> bool {
        !sender.is_null() && !tag::is_tagged(&sender.local) && self.is_ours(sender) && !self.spares(sender)
    }

    /// Whether this address belongs to a domain that is signed and protected.
    fn is_ours(&self, address: &Address) -> bool {
        let domain = &address.domain;
        if self.domains.is_empty() {
            gateway::is_local(domain)
        } else {
            self.domains.iter().any(|ours| ours.matches(domain))
        }
    }

    fn goes_unsigned(&self, rcpt: &Address) -> bool {
        gateway::is_local(&rcpt.domain)
            || self.unsigned_recipients.iter().any(|mailbox| mailbox.matches(rcpt))
    }

    fn spares(&self, address: &Address) -> bool {
        self.exempt_addresses.iter().any(|mailbox| mailbox.matches(address))
    }

    /// RFC 5321 section 4.5.1 and RFC 2142: role addresses must be reachable by senders with delivery problems.
    fn takes_any(&self, address: &Address) -> bool {
        let is_role = ["postmaster", "abuse"].iter().any(|role| role.eq_ignore_ascii_case(&address.local));
        is_role || self.spares(address)
    }

    fn is_exempt(&self, session: &session::Snapshot) -> bool {
        self.exempt_networks.iter().any(|network| network.contains(&session.client))
    }
}

/// Tags contain the day modulo 1000. This limit keeps valid tags distinct from those of the previous cycle.
const MAX_DAYS: u16 = 90;

/// The null reverse-path as the contract writes it.
const NULL_SENDER: &str = "";

/// Reasons for refusing a bounce, as used in counters.
const UNTAGGED: &str = "untagged";
const EXPIRED: &str = "expired";
const UNKNOWN_KEY: &str = "unknown_key";
const FORGED: &str = "forged";

/// The reason in words, for the sender of the bounce.
fn said(why: &str) -> &'static str {
    match why {
        UNTAGGED => "has no BATV tag, and all our mail has one",
        EXPIRED => "has a BATV tag that has expired",
        UNKNOWN_KEY => "has a BATV tag of a key that we do not have",
        _ => "has a BATV tag that we did not make",
    }
}

/// The note that marks a recipient to be refused after the header, and holds the reply text.
fn marked(id: u32) -> String {
    format!("refuse {id}")
}

/// RFC 8098 section 3: a read receipt has the null sender, and goes to an address from the header, without a tag.
fn is_receipt() -> Result<bool, HostError> {
    let fields = message::headers_named(&["Content-Type".to_owned()])?;
    Ok(fields.first().is_some_and(|field| names_receipt(&field.value)))
}

fn names_receipt(content_type: &str) -> bool {
    let mut pieces = content_type.split(';').map(str::trim);
    let is_report = pieces.next().is_some_and(|kind| kind.eq_ignore_ascii_case("multipart/report"));
    is_report
        && pieces.filter_map(|piece| piece.split_once('=')).any(|(name, value)| {
            let value = value.trim().trim_matches('"');
            name.trim().eq_ignore_ascii_case("report-type")
                && value.eq_ignore_ascii_case("disposition-notification")
        })
}

fn strip(rcpt: &Recipient, plain: Option<&Address>) -> Result<(), HostError> {
    let Some(plain) = plain else { return Ok(()) };
    metrics::count("stripped", 1, &[]);
    debug!(rcpt = rcpt.address; "tag removed: {plain}");
    transaction::rewrite_recipient(rcpt.id, &plain.text)
}

fn today() -> Day {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs() / 86_400
}

fn a_week() -> u16 {
    7
}

/// Codes are made by the host, so that a plugin whose memory leaks gives no key away.
fn by_host() -> MakeCode {
    |secret, text| secrets::hmac(secret, "sha1", text)
}

pintle_plugin_sdk::export!(Batv: on_rcpt, on_headers, on_deliver);

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin() -> Batv {
        Batv {
            keys: vec![TagKey { number: 0, secret: "0123456789abcdef".to_owned() }],
            domains: vec!["ours.example".to_owned().try_into().unwrap()],
            valid_days: 7,
            refuse_at: RefuseAt::Rcpt,
            accept_receipts: false,
            accept_untagged_until: None,
            unsigned_recipients: Vec::new(),
            exempt_addresses: vec!["list@ours.example".to_owned().try_into().unwrap()],
            exempt_networks: Vec::new(),
            make_code: tag::tests::make,
        }
    }

    fn address(local: &str) -> Address {
        Address::new(local, "ours.example")
    }

    fn target(local: &str) -> BounceRecipient {
        plugin().target(&address(local), true, 1_000).unwrap()
    }

    #[test]
    fn a_recipient_is_judged_by_its_tag() {
        let sign = |expires| tag::sign(&plugin().keys[0], &address("ann"), expires, tag::tests::make);
        let signed = sign(1_007).unwrap().unwrap().local;
        let old = sign(999).unwrap().unwrap().local;
        let plain = || Some(address("ann"));
        assert_eq!(target(&signed), BounceRecipient::Good(plain()));
        assert_eq!(target(&old), BounceRecipient::Bad(EXPIRED, plain()));
        assert_eq!(target("prvs=0007000000=ann"), BounceRecipient::Bad(FORGED, plain()));
        assert_eq!(target("prvs=1007000000=ann"), BounceRecipient::Bad(UNKNOWN_KEY, plain()));
        assert_eq!(target("ann"), BounceRecipient::Bad(UNTAGGED, None));
        assert_eq!(plugin().target(&address("ann"), false, 1_000), Ok(BounceRecipient::Elsewhere));
    }

    #[test]
    fn some_addresses_take_any_bounce() {
        for local in ["Postmaster", "abuse", "list", &"a".repeat(226)] {
            assert_eq!(target(local), BounceRecipient::Good(None), "{local}");
        }
        assert_eq!(target("prvs=0007000000=abuse"), BounceRecipient::Good(Some(address("abuse"))));
    }

    #[test]
    fn a_sender_is_signed_once_if_at_all() {
        assert!(plugin().is_signed(&address("ann")));
        assert!(!plugin().is_signed(&address("list")));
        assert!(!plugin().is_signed(&address("prvs=0007000000=ann")));
        assert!(!plugin().is_signed(&Address::new("", "")));
    }

    #[test]
    fn receipts_are_told_from_bounces() {
        assert!(names_receipt("multipart/report; boundary=x; Report-Type=\"disposition-notification\""));
        assert!(!names_receipt("multipart/report; report-type=delivery-status"));
        assert!(!names_receipt("text/plain; report-type=disposition-notification"));
    }

    #[test]
    fn mistakes_are_named_with_their_places() {
        let mut plugin = Batv { valid_days: 0, accept_receipts: true, ..plugin() };
        plugin.keys.push(TagKey { number: 0, secret: "other".to_owned() });
        plugin.keys.push(TagKey { number: 10, secret: "0123456789abcdef".to_owned() });
        let places: Vec<_> = plugin.check().unwrap_err().into_iter().map(|mistake| mistake.at).collect();
        assert_eq!(places, ["/keys/1/number", "/keys/2/number", "/valid_days", "/accept_receipts"]);
        plugin.keys.clear();
        assert_eq!(plugin.check().unwrap_err()[0].at, "/keys");
        assert!(ConfigDate::try_from("tomorrow".to_owned()).is_err());
    }
}
