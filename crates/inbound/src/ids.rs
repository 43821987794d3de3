//! Generates ids from the clock and random numbers, which `pintle-mail` does not access.

use std::time::SystemTime;

use pintle_mail::{QueueId, SessionId, UnixTime};

/// Whether a recipient with this id is from a RCPT command of the client, which the client can be told about.
pub(crate) fn is_of_client(recipient: u32) -> bool {
    recipient < pintle_policy::FIRST_ADDED
}

/// Returns the current time.
pub(crate) fn now() -> UnixTime {
    SystemTime::now().into()
}

pub(crate) fn session_id() -> SessionId {
    SessionId::new(now(), random())
}

pub(crate) fn queue_id() -> QueueId {
    QueueId::new(now(), random())
}

/// Returns a random number. Ids must be unique but need not be secret: if the kernel's random number generator fails,
/// clock and an address are used.
fn random() -> u128 {
    let mut bytes = [0_u8; 16];
    if getrandom::fill(&mut bytes).is_err() {
        let nanos =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        return nanos.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
    }
    u128::from_ne_bytes(bytes)
}
