//! What was known when a message was accepted, kept with it for the hooks of its deliveries.
//!
//! The spool stores these octets without reading them. The envelope is not among them, since the spool keeps it itself
//! and a delivery may see it changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use pintle_mail::{Bytes, Envelope, QueueId};
use serde::{Deserialize, Serialize};

use crate::{AuthResult, Notes, Score, Session, Transaction, View};

/// A session and what was found out about a transaction.
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
    /// What this session and transaction leave behind.
    #[must_use]
    pub fn of(session: &Session, transaction: &Transaction) -> Self {
        Self {
            session: session.clone(),
            notes: transaction.notes.clone(),
            facts: transaction.facts.clone(),
            scores: transaction.scores.clone(),
            auth_results: transaction.auth_results.clone(),
        }
    }

    /// The octets to store.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        // Strings, numbers and maps with string keys: there is nothing in it that JSON could not hold.
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    /// Reads what [`Frozen::to_bytes`] wrote.
    ///
    /// # Errors
    /// The octets are not ours.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// The view that it was, over the envelope of now; without message and delivery.
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

    /// Whoever goes back a version meets what the later one wrote.
    #[test]
    fn what_a_later_version_has_added_does_not_make_it_unreadable() {
        let text = r#"{"session": {"id": "01M80Q0EBJ31F39JDN6QFYC006", "listener": "mx", "client": "192.0.2.1:5",
            "local": "192.0.2.2:25", "started": 5, "hello": null, "esmtp": true, "tls": null, "identity": null,
            "trusted": false, "extensions": [], "notes": {}, "facts": {}, "later": {"deep": [1]}}, "also": 7}"#;
        let frozen = Frozen::from_bytes(text.as_bytes()).unwrap();
        assert!(!frozen.session.trusted && frozen.scores.is_empty());
    }
}
