//! Rooms in quarantines, for those who take mail in: the delivering side keeps the quotas.

use pintle_inbound::Quarantines;
use pintle_inbound::{Reservation, ReservationFuture};
use pintle_outbound::Handle;

/// The quotas of a running delivering side.
pub(crate) struct QuarantineSpace(pub(crate) Handle);

impl Quarantines for QuarantineSpace {
    fn room<'a>(&'a self, name: &'a str, size: u64) -> ReservationFuture<'a> {
        Box::pin(async move {
            let room = self.0.quarantine_room(name, size).await;
            room.map(|room| Box::new(room) as Reservation).map_err(|full| full.reply())
        })
    }
}
