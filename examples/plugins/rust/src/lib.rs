//! An introductory plugin: it follows one message through Pintle, from the connection to the delivery.
//!
//! It refuses senders and recipients that the operator lists, adds a header field to each message, and logs what it
//! sees at every stage. README.md describes its configuration and the grant that it needs.

use pintle_plugin_sdk::delivery::DeliveryStatus;
use pintle_plugin_sdk::prelude::*;

/// The operator's configuration, which is also the plugin's state.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Example {
    /// Addresses ("ann@example.com") or whole domains ("example.com") that are refused as senders and as recipients.
    refuse: Vec<String>,
    /// Name of the header field to add.
    header: String,
}

impl Default for Example {
    fn default() -> Self {
        Self { refuse: Vec::new(), header: "X-Pintle-Example".to_owned() }
    }
}

impl Plugin for Example {
    const ID: &'static str = "pintle.example";
    const WANTS: &'static [&'static str] = &["edit-headers"];
    const CONFIG_SCHEMA: Option<&'static str> = Some(include_str!("../config.schema.json"));

    fn check(&mut self) -> Result<(), Vec<ConfigError>> {
        // RFC 5322 section 2.2: printable ASCII without the colon.
        let is_name =
            |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && b != b':');
        if is_name(&self.header) { Ok(()) } else { Err(vec![mistake("/header", "not a header field name")]) }
    }
}

impl Example {
    fn on_connect(&self) -> Result<Verdict, HostError> {
        let session = session::info()?;
        info!("a client connects from {} to listener \"{}\"", session.client, session.listener);
        Ok(Verdict::Next)
    }

    fn on_hello(&self, name: &str) -> Result<Verdict, HostError> {
        let how = if session::info()?.tls { "over TLS" } else { "in the clear" };
        info!("it says hello as {name}, {how}");
        Ok(Verdict::Next)
    }

    fn on_auth_result(&self, mechanism: &str, username: &str, outcome: &str) {
        info!("it logs in as \"{username}\" by {mechanism}: {outcome}");
    }

    fn on_mail(&self) -> Result<Verdict, HostError> {
        let sender = transaction::info()?.sender;
        if self.refuses(&sender) {
            return refusal(&format!("mail from {sender} is not wanted here"));
        }
        info!("it has mail from {sender}");
        Ok(Verdict::Next)
    }

    fn on_rcpt(&self, rcpt: &Recipient) -> Result<Verdict, HostError> {
        if self.refuses(&rcpt.address) {
            return refusal(&format!("{} takes no mail", rcpt.address));
        }
        info!("it is for {}", rcpt.address);
        Ok(Verdict::Next)
    }

    fn on_data(&self) -> Result<Verdict, HostError> {
        info!("it sends the message to {} recipient(s)", transaction::info()?.recipient_count);
        Ok(Verdict::Next)
    }

    fn on_headers(&self) -> Result<Verdict, HostError> {
        match message::header("Subject")? {
            Some(subject) => info!("its subject is \"{subject}\""),
            None => info!("it has no subject"),
        }
        Ok(Verdict::Next)
    }

    fn on_message(&self) -> Result<Verdict, HostError> {
        let size = message::info()?;
        let count = transaction::info()?.recipient_count;
        message::add_header(&self.header, &format!("seen on the way to {count} recipient(s)"))?;
        info!(
            "{} header fields and {} bytes of body: I add {}",
            size.header_count, size.body_size, self.header
        );
        Ok(Verdict::Next)
    }

    fn on_queued(&self) -> Result<(), HostError> {
        let queued = transaction::info()?;
        info!("it is queued as {} for {} recipient(s)", queued.id, queued.recipient_count);
        Ok(())
    }

    fn on_deliver(&self) -> Result<Verdict, HostError> {
        let delivery = delivery::info()?;
        info!("attempt {} to deliver to {} recipient(s)", delivery.attempt, delivery.recipients.len());
        Ok(Verdict::Next)
    }

    fn on_delivery_result(&self, outcomes: &[DeliveryOutcome]) {
        for outcome in outcomes {
            let what = match outcome.status() {
                DeliveryStatus::Delivered => "delivered",
                DeliveryStatus::Deferred => "not delivered yet, to be tried again",
                DeliveryStatus::Failed | DeliveryStatus::Other => "failed permanently",
            };
            let said = outcome.reply.as_ref().map_or_else(|| "nothing".to_owned(), ToString::to_string);
            info!("recipient {}: {what}; the next hop said: {said}", outcome.recipient);
        }
    }

    fn on_disconnect(&self) -> Result<(), HostError> {
        let refused = session::note_as::<u32>("refused")?.unwrap_or(0);
        info!("the client is gone; I refused {refused} of its addresses");
        Ok(())
    }

    /// Whether the operator listed this address or its domain. The null sender of bounces has neither.
    fn refuses(&self, address: &Address) -> bool {
        let listed = |entry: &String| entry.eq_ignore_ascii_case(&address.text) || *entry == address.domain;
        !address.is_null() && self.refuse.iter().any(listed)
    }
}

/// Counts the refusal in a session note for `on_disconnect`. A global variable would not work, since the host may use
/// another instance for the next call.
fn refusal(why: &str) -> Result<Verdict, HostError> {
    let refused = session::note_as::<u32>("refused")?.unwrap_or(0);
    session::set_note_as("refused", &(refused + 1))?;
    info!("no: {why}");
    Ok(reject("5.7.1", why))
}

pintle_plugin_sdk::export!(
    Example: on_connect, on_hello, on_auth_result, on_mail, on_rcpt, on_data, on_headers, on_message, on_queued, on_deliver,
    on_delivery_result, on_disconnect
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_domains_are_refused_and_bounces_are_not() {
        let refuse = vec!["ann@example.com".to_owned(), "example.net".to_owned(), String::new()];
        let plugin = Example { refuse, ..Example::default() };
        assert!(plugin.refuses(&Address::new("Ann", "example.com")));
        assert!(plugin.refuses(&Address::new("anybody", "example.net")));
        assert!(!plugin.refuses(&Address::new("bob", "example.com")));
        assert!(!plugin.refuses(&Address::new("", "")));
    }

    #[test]
    fn a_header_name_that_cannot_be_one_is_a_mistake() {
        let mut plugin = Example { header: "X Y".to_owned(), ..Example::default() };
        assert_eq!(plugin.check().unwrap_err()[0].at, "/header");
    }
}
