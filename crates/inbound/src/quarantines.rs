//! Whoever keeps the quarantines' quotas. The receiving side asks before it holds a message, and knows no quota itself.

use std::any::Any;
use std::pin::Pin;

use pintle_mail::Reply;

/// A place in a quarantine: to be kept until the message is stored there, or has come to nothing.
pub type Reservation = Box<dyn Any + Send>;

/// A place, or what the client is told in place of it: 4xx.
pub type ReservationFuture<'a> = Pin<Box<dyn Future<Output = Result<Reservation, Reply>> + Send + 'a>>;

/// Says whether a quarantine takes one more message.
pub trait Quarantines: Send + Sync + 'static {
    /// Asks for a place for a message of this size, in octets. Where there is none, the operator has been told why.
    fn room<'a>(&'a self, name: &'a str, size: u64) -> ReservationFuture<'a>;
}

/// Quarantines without an end, for those who keep none.
#[derive(Debug, Clone, Copy, Default)]
pub struct Boundless;

impl Quarantines for Boundless {
    fn room<'a>(&'a self, _: &'a str, _: u64) -> ReservationFuture<'a> {
        Box::pin(std::future::ready(Ok(Box::new(()) as Reservation)))
    }
}
