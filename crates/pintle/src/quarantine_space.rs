//! Quarantine quotas for the inbound side: reserves space in a quarantine before a message is accepted. The outbound
//! side keeps the quotas.

use pintle_inbound::Quarantines;
use pintle_inbound::{Reservation, ReservationFuture};
use pintle_outbound::Handle;

/// Reserves quarantine space through a handle of the running outbound side.
pub(crate) struct QuarantineSpace(pub(crate) Handle);

impl Quarantines for QuarantineSpace {
    fn room<'a>(&'a self, name: &'a str, size: u64) -> ReservationFuture<'a> {
        Box::pin(async move {
            let room = self.0.quarantine_room(name, size).await;
            room.map(|room| Box::new(room) as Reservation).map_err(|full| full.reply())
        })
    }
}
