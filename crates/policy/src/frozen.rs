//! The facts known when a message was accepted, stored with it for the hooks of its deliveries.
//!
//! The spool stores them as opaque octets. The envelope is not among them, since the spool keeps it itself and it may
//! change before a delivery.

use std::collections::BTreeMap;
use std::sync::Arc;

use pintle_mail::{Bytes, Envelope, QueueId};
use serde::{Deserialize, Serialize};

use crate::{AuthResult, Leases, Notes, Score, Session, Transaction, View};

/// A session and the facts found about a transaction.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Frozen {
    session: Session,
    #[serde(default)]
    notes: Notes,
    #[serde(default)]
    facts: BTreeMap<String, String>,
    #[serde(default)]
    scores: Vec<Score>,
    #[serde(default)]
    auth_results: Vec<AuthResult>,
}

impl Frozen {
    /// The facts of this session and transaction.
    #[must_use]
    pub fn of(session: &Session, transaction: &Transaction) -> Self {
        Self {
            session: Session { leases: Leases::default(), ..session.clone() },
            notes: transaction.notes.clone(),
            facts: transaction.facts.clone(),
            scores: transaction.scores.clone(),
            auth_results: transaction.auth_results.clone(),
        }
    }

    /// The octets to store.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        // Only strings, numbers and maps with string keys: JSON can represent all of it.
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    /// Parses the octets that [`Frozen::to_bytes`] wrote.
    ///
    /// # Errors
    /// The octets were not written by [`Frozen::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// Restores the view, with the current envelope; without message and delivery.
    #[must_use]
    pub fn thaw(self, id: QueueId, envelope: Envelope) -> View {
        let mut transaction = Transaction::new(id, envelope);
        transaction.notes = self.notes;
        transaction.facts = self.facts;
        transaction.scores = self.scores;
        transaction.auth_results = self.auth_results;
        View { transaction: Some(Arc::new(transaction)), ..View::of(self.session) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After a downgrade, a gateway reads octets that the later version wrote.
    #[test]
    fn what_a_later_version_has_added_does_not_make_it_unreadable() {
        let text = r#"{"session": {"id": "01M80Q0EBJ31F39JDN6QFYC006", "listener": "mx", "client": "192.0.2.1:5",
            "local": "192.0.2.2:25", "started": 5, "hello": null, "esmtp": true, "tls": null, "identity": null,
            "trusted": false, "extensions": [], "notes": {}, "facts": {}, "later": {"deep": [1]}}, "also": 7}"#;
        let frozen = Frozen::from_bytes(text.as_bytes()).unwrap();
        assert!(!frozen.session.trusted && frozen.scores.is_empty());
    }
}
