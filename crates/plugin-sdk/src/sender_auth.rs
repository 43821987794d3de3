//! SPF, DKIM, DMARC and ARC, computed once a message by the host. Grants: sender-auth, and sign for signing.

pub use crate::bindings::services::pintle::plugin::sender_auth::{
    ArcResult, DkimResult, DmarcPolicy, DmarcResult, Outcome, SpfResult, arc, arc_seal, dkim, dkim_sign,
    dmarc, spf,
};
