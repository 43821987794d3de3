//! What was found out about one mail, each result computed when first asked for, and once.

use std::sync::Arc;

use tokio::sync::OnceCell;

use crate::{DmarcResult, Signatures, SpfResult};

/// The results so far. Who asks while another's question is under way waits for its answer; when that other is cut off,
/// the next in line goes on in its place.
#[derive(Debug, Default)]
pub struct Findings {
    /// Of the HELO and MAIL FROM identities.
    pub spf: OnceCell<Arc<[SpfResult]>>,
    /// Of DKIM and ARC.
    pub signatures: OnceCell<Arc<Signatures>>,
    /// Of DMARC, over both.
    pub dmarc: OnceCell<Arc<DmarcResult>>,
}
