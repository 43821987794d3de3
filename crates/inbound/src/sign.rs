//! DKIM signatures and ARC seals that plugins have requested, made after all of them have run.
//!
//! A message whose signature was requested must not be sent without it, so a key that fails defers the message. If
//! signing is impossible by nature, the message passes unsigned: without an author it cannot be signed, and with a
//! broken ARC chain it cannot be sealed.

use pintle_mail::auth_results::MethodResult;
use pintle_mail::{Body, Bytes, EnhancedCode, HeaderBlock, Reply, UnixTime};
use pintle_policy::{Message, Transaction};
use pintle_sender_auth::sign::{
    self, Assessment, CannotSign, Keyring, SealError, SignError, SignatureKind, SignatureResult,
    SigningRequest,
};
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
        let signatures = self.signatures(header, body).await.map_err(cannot_sign)?;
        let Some(seal) = &self.message.seal else {
            return Ok(signatures);
        };
        let signed = HeaderBlock::parse([&signatures, header.as_bytes().as_ref()].concat().into());
        let set = self.seal(seal, &signed, body).await.map_err(cannot_sign)?;
        Ok([set, signatures].concat())
    }

    async fn signatures(&self, header: &HeaderBlock, body: &dyn Body) -> Result<Vec<u8>, CannotSign> {
        let names = &self.message.sign;
        SigningRequest { id: self.transaction.id, names, header, body, now: self.now }.sign(self.keys).await
    }

    async fn seal(&self, key: &str, header: &HeaderBlock, body: &dyn Body) -> Result<Vec<u8>, CannotSign> {
        let id = self.transaction.id;
        let key = self.keys.get(key).ok_or_else(|| sign::missing_key(SignatureKind::Arc, id, key))?;
        let results: Vec<_> = self.transaction.auth_results.iter().map(method_result).collect();
        let findings = self.transaction.computed.slot::<Findings>();
        let none = ArcResult::none();
        let chain = findings.signatures.get().map_or(&none, |signatures| &signatures.arc);
        let found = Assessment { authserv_id: self.hostname, results: &results, chain };
        match sign::seal(key, &found, header, body, self.now).await {
            Ok(set) => {
                sign::count(SignatureKind::Arc, SignatureResult::Made);
                Ok(set)
            }
            Err(SealError::Sign(error)) if !matches!(error, SignError::NoFrom) => {
                Err(sign::failed(SignatureKind::Arc, id, &error))
            }
            Err(error) => {
                tracing::info!(queue_id = %id, %error, "a message goes without a seal");
                sign::count(SignatureKind::Arc, SignatureResult::LeftOut);
                Ok(Vec::new())
            }
        }
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

fn cannot_sign(_: CannotSign) -> Reply {
    Reply::new(451, EnhancedCode(4, 3, 0), "The message cannot be signed now; try again later")
}
