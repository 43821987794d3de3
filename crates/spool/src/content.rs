//! A body that has come in whole, in the form in which an engine stages it until the commit.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use pintle_mail::{Body, BodyFuture};

/// A finished body: cheap to clone, readable before and after the commit.
///
/// Each engine stages bodies in its own way (in memory, in a file, in a table) and finds its own type here again at the
/// commit. Whatever an engine has staged outside memory is removed with the last clone, unless a commit has taken it over.
#[derive(Clone)]
pub struct Content(Arc<dyn StagedContent>);

/// A body as one engine stages it. Every [`Body`] is one.
trait StagedContent: Body {
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl<T: Body + 'static> StagedContent for T {
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

impl Content {
    /// A body that an engine has staged as a `T`.
    pub(crate) fn staged<T: Body + 'static>(body: T) -> Self {
        Self(Arc::new(body))
    }

    /// The body as a `T`; none when it was staged as another type.
    pub(crate) fn downcast<T: Body + 'static>(&self) -> Option<Arc<T>> {
        self.0.clone().into_any().downcast().ok()
    }
}

/// For bodies that the gateway writes itself, such as those of bounces. Every engine takes them.
impl From<Bytes> for Content {
    fn from(bytes: Bytes) -> Self {
        Self::staged(bytes)
    }
}

impl Body for Content {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read(&self, offset: u64, len: usize) -> BodyFuture<'_> {
        self.0.read(offset, len)
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Content({} octets)", self.size())
    }
}
