//! Relay control (law 7, closed by default): which recipients are accepted, and who may send mail to other domains.
//!
//! The core decides this itself, after the plugins of the stage, from the permissions they granted. So a missing,
//! broken or slow plugin cannot make an open relay.

use pintle_mail::normal::{is_normal, normal};
use pintle_mail::{Domains, EnhancedCode, Recipient, Reply};
use pintle_policy::Session;

/// Checks one recipient after the plugins have decided.
///
/// # Errors
/// Returns the refusal.
pub(crate) fn check(session: &Session, recipient: &Recipient, domains: &Domains) -> Result<(), Reply> {
    // RFC 5321 section 4.5.1: <postmaster> is always accepted.
    let known = !session.is_stranger() || recipient.relay;
    if known || recipient.address.is_bare_postmaster() {
        return Ok(());
    }
    if !domains.contains(&recipient.address.domain_ascii()) {
        return Err(Reply::new(
            550,
            EnhancedCode(5, 7, 1),
            format!("Relaying denied: mail for {} needs authentication", recipient.address.domain()),
        ));
    }
    let local = recipient.address.local();
    if routes_onward(&local) {
        return Err(Reply::new(
            550,
            EnhancedCode(5, 7, 1),
            "Relaying denied: the local part may name another host (%, !, @, :, an IMCEA capsule or an encoded word)",
        ));
    }
    // An accepted address is relayed unchanged, and the next hop may normalise it: the result must be the address that
    // was checked here.
    if routes_onward(&normal(&local)) {
        return Err(Reply::new(
            553,
            EnhancedCode(5, 1, 3),
            "Relaying denied: once normalised (Unicode NFKC), the local part may name another host",
        ));
    }
    if !is_normal(&local) {
        return Err(Reply::new(
            553,
            EnhancedCode(5, 1, 3),
            "Bad recipient address: once normalised (Unicode NFKC, blanks and unseen characters removed), it is another one",
        ));
    }
    Ok(())
}

/// Whether a next hop might read another address from this local part: `user%host`, `host!user`, `user@host`, DECnet's
/// `host::user` and other prefixes with a colon, Exchange's encapsulated addresses such as `IMCEASMTP-user+40host`, and
/// any of them in an encoded word, which some programs decode before they look for the `@`. An untrusted client that
/// gets such an address past this check relays through the server behind us.
fn routes_onward(local: &str) -> bool {
    local.contains(['%', '!', '@', ':']) || local.contains("=?") || holds_capsule(local)
}

/// Whether the local part contains `IMCEA`, a type, `-`, and an address of that type (SMTP, fax, X.400). `IMCEAEX-` is
/// Exchange's own, used in replies to old internal mail, and does not name another host. Exchange only looks at the
/// beginning; matching anywhere is the safe choice.
fn holds_capsule(local: &str) -> bool {
    let upper = local.to_uppercase();
    upper.match_indices("IMCEA").any(|(at, word)| {
        let kind = upper[at + word.len()..].split_once('-').map_or("EX", |(kind, _)| kind);
        !matches!(kind, "" | "EX") && kind.chars().all(char::is_alphanumeric)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pintle_mail::{Address, Charset, SessionId, UnixTime};

    fn session(identity: Option<&str>, trusted: bool) -> Session {
        Session {
            esmtp: true,
            identity: identity.map(str::to_owned),
            trusted,
            ..Session::new(
                SessionId::new(UnixTime::from_millis(0), 1),
                "mx".into(),
                ([192, 0, 2, 1], 1).into(),
                ([192, 0, 2, 2], 25).into(),
                UnixTime::from_millis(0),
            )
        }
    }

    fn passes(address: &str, session: &Session, relay: bool) -> bool {
        let address = Address::parse(address, Charset::Utf8).unwrap();
        let recipient = Recipient { relay, ..Recipient::new(0, address) };
        check(session, &recipient, &Domains::new(["example.org", ".sub.example.org"])).is_ok()
    }

    #[test]
    fn strangers_reach_our_domains_alone() {
        let stranger = session(None, false);
        for ours in [
            "a@example.org",
            "a@EXAMPLE.org",
            "a@x.sub.example.org",
            "a@y.x.sub.example.org",
            "postmaster",
            // The form of replies to old internal mail of Exchange: it contains no host.
            "IMCEAEX-_O=A_CN=b@example.org",
        ] {
            assert!(passes(ours, &stranger, false), "{ours}");
        }
        for other in [
            "a@example.net",
            "a@sub.example.org",
            "a@x.example.org",
            "a@notexample.org",
            "a%example.net@example.org",
            "example.net!a@example.org",
            "\"a@example.net\"@example.org",
            "\"example.net::a\"@example.org",
            "=?x?q?a=40example.net?=@example.org",
            "IMCEASMTP-a+40example+2Enet@example.org",
            "imceasmtp-a+40example.net@example.org",
            "a\u{ff20}example.net@example.org",
            "a@[192.0.2.9]",
            "\" IMCEASMTP-a+40example.net\"@example.org",
            "x.IMCEAFAX-0900@example.org",
            "\u{131}mceasmtp-a+40example.net@example.org",
        ] {
            assert!(!passes(other, &stranger, false), "{other}");
        }
    }

    #[test]
    fn relaying_needs_an_identity_a_trusted_network_or_a_grant() {
        assert!(passes("a@example.net", &session(Some("bob"), false), false));
        assert!(passes("a@example.net", &session(None, true), false));
        assert!(passes("a@example.net", &session(None, false), true));
    }

    /// Returns the enhanced code of the refusal, and whether its text mentions normalisation.
    fn refused(address: &str) -> Option<(EnhancedCode, bool)> {
        let address = Address::parse(address, Charset::Utf8).unwrap();
        let recipient = Recipient::new(0, address);
        let domains = Domains::new(["example.org", ".sub.example.org"]);
        let reply = check(&session(None, false), &recipient, &domains).err()?;
        Some((reply.enhanced.unwrap(), reply.text.contains("normalised")))
    }

    #[test]
    fn an_address_that_is_another_when_normalised_is_refused_for_that() {
        for other in [
            "evil.test\u{ff1a}\u{ff1a}u@example.org",
            "evil.test\u{2236}\u{2236}u@example.org",
            "u\u{ff20}evil.test@example.org",
            "u\u{ff05}evil.test@x.sub.example.org",
            "evil.test\u{203c}u@example.org",
            "evil.test\u{1c3}u@example.org",
            "=\u{ff1f}x?q?u=40evil.test?=@example.org",
            "\u{200b}imc\u{ad}easmtp-u+40evil.test@example.org",
            "\u{ff29}MCEASMTP-u+40evil.test@example.org",
            "\u{ff42}oss@example.org",
            "bo\u{200d}ss@example.org",
            "\" boss\"@example.org",
            "\"boss\u{a0}\"@example.org",
        ] {
            assert_eq!(refused(other), Some((EnhancedCode(5, 1, 3), true)), "{other:?}");
        }
        for same in [
            "zo\u{eb}@example.org",
            "zoe\u{308}@example.org",
            "\"big boss\"@example.org",
            "imcea@example.org",
        ] {
            assert_eq!(refused(same), None, "{same:?}");
        }
    }
}
