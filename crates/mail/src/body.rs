//! A message's body for code that does not store it: a length, and octets read on demand.
//!
//! The trait is in this crate so that the spool can offer bodies and plugins can read them without depending on each
//! other. It does no I/O itself: the implementation decides whether the octets are in memory or on disk.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

pub use bytes::Bytes;

/// The future that [`Body::read`] returns.
pub type BodyFuture<'a> = Pin<Box<dyn Future<Output = Result<Bytes, BodyError>> + Send + 'a>>;

/// A body that can be read from any offset: everything after the empty line that ends the header, with CRLF line ends.
pub trait Body: Send + Sync + 'static {
    /// The length in octets.
    fn size(&self) -> u64;

    /// Reads at most `len` octets from `offset`. It returns fewer, or none, only at the end of the body.
    ///
    /// # Errors
    /// The store could not be read, or a checksum is wrong.
    fn read(&self, offset: u64, len: usize) -> BodyFuture<'_>;
}

/// A stored body could not be read. The gateway is at fault, not the peer; the text says why.
#[derive(Debug, Clone)]
pub struct BodyError(pub Arc<str>);

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot read the body: {}", self.0)
    }
}

impl std::error::Error for BodyError {}

impl Body for Bytes {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read(&self, offset: u64, len: usize) -> BodyFuture<'_> {
        let start = usize::try_from(offset).map_or(self.len(), |offset| offset.min(self.len()));
        let end = start.saturating_add(len).min(self.len());
        let piece = self.slice(start..end);
        Box::pin(std::future::ready(Ok(piece)))
    }
}
