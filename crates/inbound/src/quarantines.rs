//! The interface to the quotas of the quarantines. The receiving side asks for space before it holds a message; it does
//! not know the quotas itself.

use std::any::Any;
use std::pin::Pin;

use pintle_mail::Reply;

/// Reserved space in a quarantine. It is held until the message is stored there or dropped, and released on drop.
pub type Reservation = Box<dyn Any + Send>;

/// Completes with the reserved space, or with the 4xx reply to send if there is none.
pub type ReservationFuture<'a> = Pin<Box<dyn Future<Output = Result<Reservation, Reply>> + Send + 'a>>;

/// Decides whether a quarantine accepts another message.
pub trait Quarantines: Send + Sync + 'static {
    /// Reserves space in the quarantine `name` for a message of `size` octets. If there is none, the implementation has
    /// logged why.
    fn room<'a>(&'a self, name: &'a str, size: u64) -> ReservationFuture<'a>;
}

/// Quarantines without quotas.
#[derive(Debug, Clone, Copy, Default)]
pub struct Boundless;

impl Quarantines for Boundless {
    fn room<'a>(&'a self, _: &'a str, _: u64) -> ReservationFuture<'a> {
        Box::pin(std::future::ready(Ok(Box::new(()) as Reservation)))
    }
}
