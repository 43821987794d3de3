//! Per-recipient replies at the end of data (PRDR, draft-hall-prdr-00), in the form that Exim's client reads.
//!
//! The end of data, or `BDAT … LAST`, is then answered with 353, one reply for each accepted RCPT in their order, and
//! one reply for the message. Any other reply than 353 counts for all recipients, as without PRDR. So 353 is sent only
//! where the replies differ.

use std::collections::BTreeMap;

use pintle_mail::Reply;

use super::replies;
use super::shared::Core;

/// The ids of the accepted recipients, in the order of RCPT. [`super::config::Limits::recipients`] bounds their number.
#[derive(Debug, Default)]
pub(crate) struct PrdrRecipients(Vec<u32>);

/// The refusals of some recipients of a message that is stored, or dropped, for the others.
#[derive(Debug)]
pub(crate) struct RecipientRefusals {
    /// One for each accepted RCPT, in their order; none for those that receive the message.
    in_order: Vec<Option<Reply>>,
}

impl PrdrRecipients {
    /// Adds an accepted recipient.
    pub(crate) fn add(&mut self, id: u32) {
        self.0.push(id);
    }

    /// Puts refusals into the order of RCPT. Returns `None` if an id occurs twice or is not that of an accepted
    /// recipient, or if all recipients are refused.
    pub(crate) fn refusals(&self, refused: Vec<(u32, Reply)>) -> Option<RecipientRefusals> {
        let count = refused.len();
        let mut by_id: BTreeMap<u32, Reply> = refused.into_iter().collect();
        let in_order: Vec<Option<Reply>> = self.0.iter().map(|id| by_id.remove(id)).collect();
        let found = in_order.iter().flatten().count();
        (found == count && found < in_order.len()).then_some(RecipientRefusals { in_order })
    }
}

impl RecipientRefusals {
    /// Replies to the end of data, with `last` as the reply for the message. That is positive: Exim takes a refusal there
    /// for one of all recipients, and after a 2xx the replies to each of them count.
    pub(crate) fn reply(self, last: &Reply, core: &mut Core) {
        if self.in_order.iter().any(Option::is_some) {
            core.reply(&replies::EACH_RECIPIENT);
            for refusal in self.in_order {
                match refusal {
                    Some(wish) => core.refuse(negative(wish)),
                    None => core.reply(&replies::RECIPIENT_ACCEPTED),
                }
            }
        }
        core.reply(last);
    }
}

/// Returns the host's refusal of one recipient. 421 is replaced, because a server that replies 421 closes the session
/// (RFC 5321 section 3.8), which does not happen here.
fn negative(wish: Reply) -> Reply {
    let reply = replies::negative(wish, &replies::REFUSED_RECIPIENT);
    if reply.code == 421 { Reply { code: 451, ..reply } } else { reply }
}
