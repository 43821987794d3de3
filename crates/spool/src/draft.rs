//! A body on its way in, piece by piece, into whatever the engine stages bodies in.

use bytes::Bytes;

use crate::{Content, SpoolError, SpoolFuture};

/// A body being received. Dropping it leaves nothing behind.
pub struct Draft(Box<dyn DraftWriter>);

/// How an engine takes a body in.
pub(crate) trait DraftWriter: Send + Sync {
    /// Takes the piece if that needs no waiting. False when it does, and then nothing of the piece has been taken.
    fn try_append(&mut self, piece: &[u8]) -> Result<bool, SpoolError>;

    /// Takes a piece that [`try_append`](Self::try_append) did not take. When the future is dropped half way, what has
    /// been stored is unknown, and all later calls fail.
    fn append(&mut self, piece: Bytes) -> SpoolFuture<'_, ()>;

    /// How many octets have come in.
    fn size(&self) -> u64;

    /// Ends the body and returns its content; no further piece can be appended.
    fn finish(self: Box<Self>) -> SpoolFuture<'static, Content>;
}

impl Draft {
    pub(crate) fn new(writer: impl DraftWriter + 'static) -> Self {
        Self(Box::new(writer))
    }

    /// Takes the next piece of the body. It waits only when pieces gathered in memory have to be written to the store.
    ///
    /// # Errors
    /// The store could not take it: [`SpoolError::Full`] or [`SpoolError::Store`]. The draft is then of no use.
    pub async fn append(&mut self, piece: Bytes) -> Result<(), SpoolError> {
        if self.0.try_append(&piece)? {
            return Ok(());
        }
        self.0.append(piece).await
    }

    /// How many octets have come in.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.0.size()
    }

    /// Ends the body, which is then ready to be committed.
    ///
    /// # Errors
    /// As for [`append`](Self::append).
    pub async fn finish(self) -> Result<Content, SpoolError> {
        self.0.finish().await
    }
}
