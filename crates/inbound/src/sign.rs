//! DKIM signatures and ARC seals that plugins have requested, made after all of them have run.
//!
//! A message whose signature was requested must not be sent without it, so a key that fails defers the message. If
//! signing is impossible by nature, the message passes unsigned: without an author it cannot be signed, and with a
//! broken ARC chain it cannot be sealed.

use pintle_mail::auth_results::MethodResult;
use pintle_mail::{Body, Bytes, EnhancedCode, HeaderBlock, Reply, UnixTime};
use pintle_policy::{Message, Transaction};
use pintle_sender_auth::sign::{self, Assessment, Keyring, SealError, SignError};
use pintle_sender_auth::{ArcResult, Findings};

/// The inputs of a signature.
pub(crate) struct Signing<'a> {
    pub(crate) keys: &'a Keyring,
    pub(crate) hostname: &'a str,
    pub(crate) message: &'a Message,
    pub(crate) transaction: &'a Transaction,
    pub(crate) now: UnixTime,
}

impl Signing<'_> {
    /// Returns the fields to add above `header`, which is the header as it will be stored; empty if no plugin requested
    /// any.
    ///
    /// # Errors
    /// Returns the reply to a message that cannot be signed now.
    pub(crate) async fn fields(&self, header: &HeaderBlock) -> Result<Vec<u8>, Reply> {
        let nothing: &dyn Body = &Bytes::new();
        let body = self.message.body.as_deref().unwrap_or(nothing);
        let signatures = self.signatures(header, body).await?;
        let Some(seal) = &self.message.seal else {
            return Ok(signatures);
        };
        let signed = HeaderBlock::parse([&signatures, header.as_bytes().as_ref()].concat().into());
        let set = self.seal(seal, &signed, body).await?;
        Ok([set, signatures].concat())
    }

    async fn signatures(&self, header: &HeaderBlock, body: &dyn Body) -> Result<Vec<u8>, Reply> {
        if self.message.sign.is_empty() {
            return Ok(Vec::new());
        }
        let keys = self.keys.named(&self.message.sign).map_err(|name| self.missing(&name))?;
        match sign::sign(&keys, header, body, self.now).await {
            Ok(fields) => Ok(counted("dkim", "made", fields)),
            Err(error @ SignError::NoFrom) => {
                tracing::warn!(queue_id = %self.transaction.id, %error, "not signed");
                Ok(counted("dkim", "left-out", Vec::new()))
            }
            Err(error) => Err(self.failed("dkim", &error)),
        }
    }

    async fn seal(&self, key: &str, header: &HeaderBlock, body: &dyn Body) -> Result<Vec<u8>, Reply> {
        let key = self.keys.get(key).ok_or_else(|| self.missing(key))?;
        let results: Vec<_> = self.transaction.auth_results.iter().map(method_result).collect();
        let findings = self.transaction.computed.slot::<Findings>();
        let none = ArcResult::none();
        let chain = findings.signatures.get().map_or(&none, |signatures| &signatures.arc);
        let found = Assessment { authserv_id: self.hostname, results: &results, chain };
        match sign::seal(key, &found, header, body, self.now).await {
            Ok(set) => Ok(counted("arc", "made", set)),
            Err(SealError::Sign(error)) if !matches!(error, SignError::NoFrom) => {
                Err(self.failed("arc", &error))
            }
            Err(error) => {
                tracing::info!(queue_id = %self.transaction.id, %error, "not sealed");
                Ok(counted("arc", "left-out", Vec::new()))
            }
        }
    }

    /// A reload can remove a key after a plugin has requested it and before it is used.
    fn missing(&self, name: &str) -> Reply {
        tracing::error!(queue_id = %self.transaction.id, key = name, "the signing key no longer exists");
        cannot_sign()
    }

    fn failed(&self, kind: &'static str, error: &SignError) -> Reply {
        tracing::error!(queue_id = %self.transaction.id, %error, "a message could not be signed");
        counted(kind, "failed", Vec::new());
        cannot_sign()
    }
}

/// Converts a plugin's result to its form in an Authentication-Results field.
pub(crate) fn method_result(result: &pintle_policy::AuthResult) -> MethodResult<'_> {
    MethodResult {
        method: &result.method,
        outcome: &result.outcome,
        reason: result.reason.as_deref(),
        properties: &result.properties,
    }
}

fn counted(kind: &'static str, result: &'static str, fields: Vec<u8>) -> Vec<u8> {
    metrics::counter!("pintle_signatures_total", "kind" => kind, "result" => result).increment(1);
    fields
}

fn cannot_sign() -> Reply {
    Reply::new(451, EnhancedCode(4, 3, 0), "The message cannot be signed now; try again later")
}
