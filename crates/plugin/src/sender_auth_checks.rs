//! SPF, DKIM, DMARC and ARC checks of the current mail, each computed once, on the first request of a plugin.
//!
//! All checks examine the mail as received, regardless of later edits by plugins. The sender controls the latency of
//! its name servers, so results that a plugin is expected to request are prefetched before its call: see `habits`.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::join;
use pintle_dns::Resolver;
use pintle_mail::{BodyError, Bytes, UnixTime};
use pintle_policy::{Message, Session, Transaction};
use pintle_sender_auth::{
    DeadlineResolver, DmarcResult, Findings, Signatures, SpfClient, SpfResult, dmarc, signatures, spf,
};
use tokio::sync::Semaphore;

use crate::habits::{Lookup, Lookups};
use crate::mime::CHUNK;

/// Time limit of a check; when it expires, the result is `temperror`.
const PATIENCE: Duration = Duration::from_secs(8);

/// Limit on the total size of messages held in memory for verification, in KiB. It is not held during DNS queries.
const ROOM: u32 = 256 << 10;
static VERIFYING: Semaphore = Semaphore::const_new(ROOM as usize);

/// Time limit for checks in a call with this much time left: a fraction of it, so that the call can still return.
pub(crate) fn patience(left: Duration) -> Duration {
    PATIENCE.min(left * 4 / 5)
}

/// The mail that is checked.
pub(crate) struct SenderAuthChecks {
    findings: Arc<Findings>,
    session: Arc<Session>,
    transaction: Arc<Transaction>,
    resolver: Arc<dyn Resolver>,
    /// The gateway's hostname, for the macro `%{r}` of SPF explanations (RFC 7208 section 7.2).
    hostname: String,
    deadline: Instant,
}

impl SenderAuthChecks {
    pub(crate) fn new(
        session: Arc<Session>,
        transaction: Arc<Transaction>,
        resolver: Arc<dyn Resolver>,
        hostname: String,
        patience: Duration,
    ) -> Self {
        Self {
            findings: transaction.computed.slot(),
            session,
            transaction,
            resolver,
            hostname,
            deadline: Instant::now() + patience,
        }
    }

    pub(crate) async fn spf(&self) -> Arc<[SpfResult]> {
        let check = || async {
            let sender = self.transaction.received_sender().address();
            let domain = sender.map(pintle_mail::Address::domain_ascii).unwrap_or_default();
            let local = sender.map(pintle_mail::Address::local).unwrap_or_default();
            let client = SpfClient {
                address: self.session.client.ip(),
                hello: self.session.hello.as_deref().unwrap_or(""),
                sender: sender.map(|_| (&*local, &*domain)),
                receiver: &self.hostname,
            };
            spf::check(self.ask(), &client).await.into()
        };
        Arc::clone(self.findings.spf.get_or_init(check).await)
    }

    pub(crate) async fn signatures(&self, message: &Message) -> Result<Arc<Signatures>, BodyError> {
        let check = || async {
            if !signatures::is_signed(message.received_header()) {
                return Ok(Arc::new(Signatures::none()));
            }
            let keys = signatures::keys(self.ask(), message.received_header().as_bytes()).await;
            let _room = VERIFYING.acquire_many(kibibytes(message)).await;
            let whole = whole(message).await?;
            let now = UnixTime::from(SystemTime::now());
            Ok(Arc::new(signatures::verify_with(keys, whole, now).await))
        };
        self.findings.signatures.get_or_try_init(check).await.cloned()
    }

    pub(crate) async fn dmarc(&self, message: &Message) -> Result<Arc<DmarcResult>, BodyError> {
        let check = || async {
            let spf = self.spf().await;
            let signatures = self.signatures(message).await?;
            let header = message.received_header();
            let result = dmarc::check(self.ask(), header, &spf, &signatures.dkim).await;
            Ok(Arc::new(result))
        };
        self.findings.dmarc.get_or_try_init(check).await.cloned()
    }

    /// Prefetches the expected lookups. Errors are not reported here: the call gets them when it requests the result.
    pub(crate) async fn find_out(&self, needs: Lookups, message: Option<&Message>) {
        let spf = async {
            if needs.has(Lookup::Spf) {
                self.spf().await;
            }
        };
        let about_message = async {
            let Some(message) = message else { return };
            if needs.has(Lookup::Signatures) {
                let _ = self.signatures(message).await;
            }
            if needs.has(Lookup::Dmarc) {
                let _ = self.dmarc(message).await;
            }
        };
        join(spf, about_message).await;
    }

    fn ask(&self) -> DeadlineResolver<'_> {
        DeadlineResolver::new(&*self.resolver, self.deadline)
    }
}

/// Size of a message in KiB, at most `ROOM`.
fn kibibytes(message: &Message) -> u32 {
    let body = message.received_body().map_or(0, |body| body.size());
    let octets = body.saturating_add(message.received_header().as_bytes().len() as u64);
    u32::try_from(octets >> 10).unwrap_or(ROOM).clamp(1, ROOM)
}

/// The message as received: header, empty line and body.
async fn whole(message: &Message) -> Result<Bytes, BodyError> {
    let header = message.received_header().as_bytes();
    let mut whole = header.to_vec();
    if !header.ends_with(b"\n") {
        whole.extend_from_slice(b"\r\n");
    }
    whole.extend_from_slice(b"\r\n");
    if let Some(body) = message.received_body() {
        let start = whole.len() as u64;
        while whole.len() as u64 - start < body.size() {
            let piece = body.read(whole.len() as u64 - start, CHUNK).await?;
            if piece.is_empty() {
                break;
            }
            whole.extend_from_slice(&piece);
        }
    }
    Ok(whole.into())
}
