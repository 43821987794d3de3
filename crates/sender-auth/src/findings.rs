//! The authentication results of one mail, each computed once, when it is first needed.

use std::sync::Arc;

use tokio::sync::OnceCell;

use crate::{DmarcResult, Signatures, SpfResult};

/// The results so far. A caller that needs a result while another one computes it waits for it; when that computation
/// is cancelled, the next caller continues it.
#[derive(Debug, Default)]
pub struct Findings {
    /// The SPF results of the HELO and MAIL FROM identities.
    pub spf: OnceCell<Arc<[SpfResult]>>,
    /// The results of DKIM and ARC.
    pub signatures: OnceCell<Arc<Signatures>>,
    /// The result of DMARC, based on both.
    pub dmarc: OnceCell<Arc<DmarcResult>>,
}
