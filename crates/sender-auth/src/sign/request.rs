//! Signatures that a plugin has asked for by the names of keys, and the metric `pintle_signatures_total` that counts
//! them, on the receiving and on the delivering side alike.

use std::fmt;

use pintle_mail::{Body, HeaderBlock, QueueId, UnixTime};

use super::{Keyring, SignError, sign};

/// A message, and the keys that it is to be signed with.
pub struct SigningRequest<'a> {
    /// The queue id of the message, for the log.
    pub id: QueueId,
    /// The names of the keys; none signs nothing.
    pub names: &'a [String],
    /// The header block as it will be sent or stored.
    pub header: &'a HeaderBlock,
    /// The body as it will be sent or stored.
    pub body: &'a dyn Body,
    /// The time of the signatures.
    pub now: UnixTime,
}

/// A message cannot be signed now. The log says why; the message must not go on without its signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CannotSign;

/// What a message is signed with: the label `kind` of the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureKind {
    /// DKIM-Signature fields.
    Dkim,
    /// An ARC set, which is called a seal.
    Arc,
}

/// The result of signing: the label `result` of the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureResult {
    /// The signature or seal is above the message.
    Made,
    /// The message is sent without it, since trying again would not help: it has no From field, or its ARC chain is
    /// broken.
    LeftOut,
    /// A key is gone or has failed; the message was deferred.
    Failed,
}

impl SigningRequest<'_> {
    /// The DKIM-Signature fields to put above the header; empty where no key is named, and where the message has no
    /// From field, without which nothing can be signed. Logs and counts the result.
    ///
    /// # Errors
    /// A reload has taken a key away since the plugin named it, or signing failed.
    pub async fn sign(&self, keys: &Keyring) -> Result<Vec<u8>, CannotSign> {
        if self.names.is_empty() {
            return Ok(Vec::new());
        }
        let keys = keys.named(self.names).map_err(|name| missing_key(SignatureKind::Dkim, self.id, &name))?;
        match sign(&keys, self.header, self.body, self.now).await {
            Ok(fields) => {
                count(SignatureKind::Dkim, SignatureResult::Made);
                Ok(fields)
            }
            Err(error @ SignError::NoFrom) => {
                tracing::warn!(queue_id = %self.id, %error, "a message goes without a signature");
                count(SignatureKind::Dkim, SignatureResult::LeftOut);
                Ok(Vec::new())
            }
            Err(error) => Err(failed(SignatureKind::Dkim, self.id, &error)),
        }
    }
}

/// Logs and counts a signature or seal whose key the configuration does not have any more.
pub fn missing_key(kind: SignatureKind, id: QueueId, name: &str) -> CannotSign {
    tracing::error!(queue_id = %id, key = name, "the configuration has no signing key of this name any more");
    count(kind, SignatureResult::Failed);
    CannotSign
}

/// Logs and counts a signature or seal that could not be made.
pub fn failed(kind: SignatureKind, id: QueueId, error: &dyn fmt::Display) -> CannotSign {
    tracing::error!(queue_id = %id, %error, "a message could not be signed");
    count(kind, SignatureResult::Failed);
    CannotSign
}

/// Counts a signature or seal.
pub fn count(kind: SignatureKind, result: SignatureResult) {
    metrics::counter!("pintle_signatures_total", "kind" => kind.name(), "result" => result.name())
        .increment(1);
}

impl SignatureKind {
    fn name(self) -> &'static str {
        match self {
            Self::Dkim => "dkim",
            Self::Arc => "arc",
        }
    }
}

impl SignatureResult {
    fn name(self) -> &'static str {
        match self {
            Self::Made => "made",
            Self::LeftOut => "left-out",
            Self::Failed => "failed",
        }
    }
}

#[cfg(test)]
mod tests {
    use pintle_mail::Bytes;

    use super::*;

    fn request<'a>(names: &'a [String], header: &'a HeaderBlock, body: &'a Bytes) -> SigningRequest<'a> {
        let now = UnixTime::from_millis(1_795_317_000_000);
        SigningRequest { id: QueueId::new(now, 1), names, header, body, now }
    }

    #[tokio::test]
    async fn a_key_that_is_gone_signs_nothing_and_says_so() {
        let (header, body) =
            (HeaderBlock::parse(Bytes::from_static(b"From: a@example.org\r\n")), Bytes::new());
        let names = ["gone".to_owned()];
        let keys = Keyring::default();
        assert_eq!(request(&names, &header, &body).sign(&keys).await, Err(CannotSign));
        assert_eq!(request(&[], &header, &body).sign(&keys).await, Ok(Vec::new()));
    }
}
